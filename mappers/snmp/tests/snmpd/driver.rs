//! What the tests of the driver share: a device with one property for each object of the agent, and what they hold.

use std::net::SocketAddr;
use std::time::Duration;

use bus::io::Clock;
use kubebus_sdk::testing::{Consumption, Driven, Readings, permit};
use kubebus_sdk::{Quality, Value, ValueType, WritePermit};
use kubebus_sdk_testing::{Endpoint, Property, Proxy};
use mapper_snmp::SnmpMapper;
use serde_json::{Value as Json, json};

use crate::agent::{Snmpd, at};

pub(crate) type Device = Driven<SnmpMapper>;

pub(crate) fn device(connection: Json, properties: Vec<Property>) -> Device {
    let config = json!({
        "device": {"namespace": "test", "name": "agent"}, "connection": connection,
        "properties": properties.iter().map(|p| json!({
            "name": p.name, "type": p.value_type, "writable": true, "address": p.address, "poll_ms": 1000,
            "minimum": null, "maximum": null,
        })).collect::<Vec<_>>(),
    });
    Device::new(&serde_json::from_value(config).unwrap()).unwrap()
}

/// One property for each object of the agent.
pub(crate) fn all() -> Vec<Property> {
    vec![
        Property::new("integer", ValueType::Int, at("1.0")),
        Property::new("string", ValueType::String, at("2.0")),
        Property::new("gauge", ValueType::Float, at("3.0")),
        Property::new("octets", ValueType::Bytes, at("4.0")),
        Property::new("ticks", ValueType::Int, at("5.0")),
        Property::new("address", ValueType::String, at("6.0")),
        Property::new("oid", ValueType::String, at("7.0")),
        Property::new("counter", ValueType::Int, at("8.0")),
    ]
}

pub(crate) fn expected() -> Vec<(&'static str, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    vec![
        ("integer", Value::Int(7)),
        ("string", text("hall")),
        ("gauge", Value::Float(50.0)),
        ("octets", text("AP8Q")),
        ("ticks", Value::Int(4200)),
        ("address", text("10.0.0.1")),
        ("oid", text("1.3.6.1")),
        ("counter", Value::Int(4_000_000_000)),
    ]
}

pub(crate) fn good(readings: &Readings) -> Vec<(&str, Value)> {
    let good = readings.iter().filter_map(|(name, reading)| match reading {
        Ok((value, Quality::Good)) => Some((name.as_str(), value.clone())),
        Ok(_) | Err(_) => None,
    });
    good.collect()
}

pub(crate) fn sorted(mut values: Vec<(&'static str, Value)>) -> Vec<(&'static str, Value)> {
    values.sort_by_key(|(name, _)| *name);
    values
}

/// A permit by the real clock.
pub(crate) fn now(ttl: Duration) -> (WritePermit, Consumption) {
    let clock = Clock::start();
    permit(ttl, move || clock.now())
}

pub(crate) async fn proxied(snmpd: &Snmpd) -> (Proxy, SocketAddr) {
    let proxy = Proxy::before(&Endpoint::Udp(snmpd.address)).await.unwrap();
    let Endpoint::Udp(at) = *proxy.at() else { panic!("a proxy of another kind") };
    (proxy, at)
}
