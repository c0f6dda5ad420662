//! The driver against Debian's snmpd.

use std::net::SocketAddr;
use std::time::Duration;

use crate::agent::{Snmpd, at, plain, secure};
use bus::io::Clock;
use bus::twin::Outcome;
use kubebus_sdk::testing::{Consumption, Driven, Readings, permit};
use kubebus_sdk::{Error, Mapper, Quality, Value, ValueType, WritePermit};
use kubebus_sdk_testing::{Endpoint, Fault, Mode, Property, Proxy};
use mapper_snmp::SnmpMapper;
use serde_json::{Value as Json, json};

type Device = Driven<SnmpMapper>;

fn device(connection: Json, properties: Vec<Property>) -> Device {
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
fn all() -> Vec<Property> {
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

fn expected() -> Vec<(&'static str, Value)> {
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

fn good(readings: &Readings) -> Vec<(&str, Value)> {
    let good = readings.iter().filter_map(|(name, reading)| match reading {
        Ok((value, Quality::Good)) => Some((name.as_str(), value.clone())),
        Ok(_) | Err(_) => None,
    });
    good.collect()
}

fn sorted(mut values: Vec<(&'static str, Value)>) -> Vec<(&'static str, Value)> {
    values.sort_by_key(|(name, _)| *name);
    values
}

/// A permit by the real clock.
fn now(ttl: Duration) -> (WritePermit, Consumption) {
    let clock = Clock::start();
    permit(ttl, move || clock.now())
}

async fn proxied(snmpd: &Snmpd) -> (Proxy, SocketAddr) {
    let proxy = Proxy::before(&Endpoint::Udp(snmpd.address)).await.unwrap();
    let Endpoint::Udp(at) = *proxy.at() else { panic!("a proxy of another kind") };
    (proxy, at)
}

#[tokio::test]
async fn values_of_every_type_are_read() {
    let snmpd = Snmpd::start().await.unwrap();
    let old =
        json!({"agent": snmpd.address.to_string(), "version": "1", "community": "watch", "timeout_ms": 3000});
    for connection in [plain(snmpd.address), secure(snmpd.address), old] {
        let device = device(connection, all());
        let mut session = device.open().await.unwrap();
        let readings = device.read(&mut session).await.unwrap();
        assert_eq!(good(&readings), sorted(expected()), "{readings:?}");
    }
    assert_eq!(snmpd.writes(), [], "a reading has written");
}

async fn write(device: &Device, property: &str, value: Value) -> (Result<(), Error>, Outcome) {
    let mut session = device.open().await.unwrap();
    let (permit, consumption) = now(Duration::from_secs(20));
    match device.write(&mut session, property, value, permit).await {
        Ok(_) => (Ok(()), Outcome::Succeeded),
        Err(error) => {
            let outcome = consumption.outcome(&error);
            (Err(error), outcome)
        }
    }
}

#[tokio::test]
async fn each_type_is_written_as_the_agent_has_it() {
    let snmpd = Snmpd::start().await.unwrap();
    let text = |text: &str| Value::Text(text.to_owned());
    let table = [
        ("integer", Value::Int(-3), "1.0 -3"),
        ("string", text("big hall"), "2.0 big hall"),
        ("gauge", Value::Float(60.0), "3.0 60"),
        ("octets", text("AQD/"), "4.0 01 00 ff"),
        ("ticks", Value::Int(1), "5.0 1"),
        ("address", text("10.0.0.2"), "6.0 10.0.0.2"),
        ("oid", text("1.3.6.1.4"), "7.0 .1.3.6.1.4"),
    ];
    for connection in [plain(snmpd.address), secure(snmpd.address)] {
        let before = snmpd.writes().len();
        let device = device(connection, all());
        for (property, value, _) in &table {
            assert_eq!(
                write(&device, property, value.clone()).await,
                (Ok(()), Outcome::Succeeded),
                "{property}"
            );
        }
        let written: Vec<_> =
            snmpd.writes().split_off(before).into_iter().map(|(o, v)| format!("{o} {}", v.trim())).collect();
        assert_eq!(written, table.each_ref().map(|(_, _, line)| (*line).to_owned()));
        let mut session = device.open().await.unwrap();
        let values = sorted(table.iter().map(|(name, value, _)| (*name, value.clone())).collect());
        let readings = device.read(&mut session).await.unwrap();
        assert_eq!(
            good(&readings).into_iter().filter(|(name, _)| *name != "counter").collect::<Vec<_>>(),
            values
        );
    }
}

#[tokio::test]
async fn what_the_agent_refuses_has_moved_nothing() {
    let snmpd = Snmpd::start().await.unwrap();
    let wrong_type = json!({"oid": format!("{}.1.0", crate::agent::BASE), "type": "octets"});
    let mut properties = all();
    properties.push(Property::new("mistyped", ValueType::String, wrong_type));
    properties.push(Property::new("missing", ValueType::Int, at("99.0")));
    let writer = device(plain(snmpd.address), properties);
    let text = |text: &str| Value::Text(text.to_owned());
    let refused = [("string", text("refused"), "wrongValue"), ("mistyped", text("x"), "wrong")];
    for (property, value, expected) in refused {
        let (result, outcome) = write(&writer, property, value).await;
        assert!(
            matches!(&result, Err(Error::Device(why)) if why.contains(expected)),
            "{property}: {result:?}"
        );
        assert_eq!(outcome, Outcome::Failed);
    }
    let impossible = [
        ("counter", Value::Int(1)),
        ("missing", Value::Int(1)),
        ("integer", Value::Int(3_000_000_000)),
        ("gauge", Value::Float(1.5)),
        ("address", text("nowhere")),
    ];
    for (property, value) in impossible {
        let (result, outcome) = write(&writer, property, value).await;
        assert_eq!(outcome, Outcome::Rejected, "{property}: {result:?}");
    }
    let mut watching = plain(snmpd.address);
    watching["community"] = "watch".into();
    let (result, outcome) = write(&device(watching, all()), "integer", Value::Int(1)).await;
    assert_eq!(outcome, Outcome::Failed, "{result:?}");
    assert_eq!(snmpd.writes(), []);
}

#[tokio::test]
async fn only_who_knows_the_password_is_let_in() {
    let snmpd = Snmpd::start().await.unwrap();
    let user = |changes: Json| {
        let mut settings = secure(snmpd.address);
        settings["timeout_ms"] = 1500.into();
        for (key, value) in changes.as_object().unwrap() {
            settings[key] = value.clone();
        }
        if let Some(settings) = settings.as_object_mut() {
            settings.retain(|_, value| !value.is_null());
        }
        device(settings, all())
    };
    let unencrypted = json!({"privacy": null, "privacy_password": null});
    let open = json!({"user": "open", "auth": null, "auth_password": null, "privacy": null, "privacy_password": null});
    let older = json!({"user": "older", "auth": "md5", "privacy": null, "privacy_password": null});
    for settings in [json!({}), json!({"user": "old", "auth": "sha1"}), older, open] {
        let device = user(settings.clone());
        let mut session = device.open().await.unwrap_or_else(|e| panic!("{settings}: {e}"));
        assert_eq!(good(&device.read(&mut session).await.unwrap()).len(), all().len(), "{settings}");
    }
    let table = [
        (json!({"user": "nobody"}), "user"),
        (json!({"auth_password": "auth-passw0rd"}), "auth_password"),
        (json!({"auth": "sha512"}), "auth_password"),
    ];
    for (settings, expected) in table {
        let error = user(settings.clone()).open().await.unwrap_err();
        assert!(matches!(&error, Error::Auth(why) if why.contains(expected)), "{settings}: {error:?}");
    }
    let error = user(json!({"privacy_password": "privacy-passw0rd"})).open().await.unwrap_err();
    assert!(matches!(&error, Error::Timeout(why) if why.contains("privacy_password")), "{error:?}");
    let device = user(unencrypted);
    let mut session = device.open().await.unwrap();
    let readings = device.read(&mut session).await;
    assert!(readings.is_err() || good(&readings.unwrap()).is_empty(), "this user is let in encrypted only");
}

#[tokio::test]
async fn an_agent_that_does_not_know_us_is_silent() {
    let snmpd = Snmpd::start().await.unwrap();
    let mut stranger = plain(snmpd.address);
    (stranger["community"], stranger["timeout_ms"]) = ("nobody".into(), 500.into());
    let error = device(stranger, all()).open().await.unwrap_err();
    assert!(matches!(&error, Error::Timeout(why) if why.contains("community")), "{error:?}");
}

#[tokio::test]
async fn an_object_that_is_not_there_costs_only_its_own_property() {
    let snmpd = Snmpd::start().await.unwrap();
    let mut properties = all();
    properties.insert(2, Property::new("missing", ValueType::Int, at("99.0")));
    properties.insert(5, Property::new("scalar", ValueType::Int, json!({"oid": "1.3.6.1.2.1.1.3"})));
    let old =
        json!({"agent": snmpd.address.to_string(), "version": "1", "community": "plant", "timeout_ms": 3000});
    for connection in [plain(snmpd.address), old] {
        let device = device(connection, properties.clone());
        let mut session = device.open().await.unwrap();
        let readings = device.read(&mut session).await.unwrap();
        assert_eq!(good(&readings), sorted(expected()));
        for missing in ["missing", "scalar"] {
            assert!(
                matches!(&readings[missing], Err(Error::BadAddress { point, .. }) if point == missing),
                "{readings:?}"
            );
        }
        // What has been there may come back.
        snmpd.take_away("5.0");
        let readings = device.read(&mut session).await.unwrap();
        assert!(matches!(readings["ticks"], Err(Error::Device(_))), "{readings:?}");
        snmpd.put("5.0", "timeticks", "4200");
        assert_eq!(good(&device.read(&mut session).await.unwrap()), sorted(expected()));
    }
}

#[tokio::test]
async fn many_objects_are_read_in_few_requests_and_in_more_if_the_agent_says_so() {
    let snmpd = Snmpd::start().await.unwrap();
    let (proxy, through) = proxied(&snmpd).await;
    let properties: Vec<Property> = (0..100)
        .map(|i| {
            snmpd.put(&format!("20.{i}"), "integer", &i.to_string());
            Property::new(&format!("p{i}"), ValueType::Int, at(&format!("20.{i}")))
        })
        .collect();
    let few = device(plain(through), properties);
    let mut session = few.open().await.unwrap();
    let before = proxy.counts().requests;
    let readings = few.read(&mut session).await.unwrap();
    assert_eq!(proxy.counts().requests - before, 4, "of 32 objects each");
    assert!(
        (0..100).all(|i| readings[&format!("p{i}")] == Ok((Value::Int(i), Quality::Good))),
        "{readings:?}"
    );

    let long = "x".repeat(200);
    let properties: Vec<Property> = (0..20)
        .map(|i| {
            snmpd.put(&format!("21.{i}"), "string", &format!("{i}{long}"));
            Property::new(&format!("p{i}"), ValueType::String, at(&format!("21.{i}")))
        })
        .collect();
    let large = device(plain(through), properties);
    let mut session = large.open().await.unwrap();
    for round in 0..2 {
        let before = proxy.counts().requests;
        let readings = large.read(&mut session).await.unwrap();
        let all = (0..20)
            .all(|i| readings[&format!("p{i}")] == Ok((Value::Text(format!("{i}{long}")), Quality::Good)));
        assert!(all, "{readings:?}");
        let requests = proxy.counts().requests - before;
        let most = if round == 0 { 20 } else { 5 };
        assert!(
            (4..=most).contains(&requests),
            "{requests} requests in round {round}: it has learnt nothing"
        );
    }
}

#[tokio::test]
async fn a_late_answer_is_never_taken_for_another_ones() {
    let snmpd = Snmpd::start().await.unwrap();
    let (proxy, through) = proxied(&snmpd).await;
    for mut connection in [plain(through), secure(through)] {
        (connection["timeout_ms"], connection["retries"]) = (1000.into(), 0.into());
        let device = device(connection, all());
        let mut session = device.open().await.unwrap();
        for round in 0..4 {
            snmpd.put("1.0", "integer", &format!("{}", 100 + round));
            proxy.arm(Fault::LateAnswer);
            let late = device.read(&mut session).await;
            assert!(matches!(late, Err(Error::Timeout(_))), "{late:?}");
            snmpd.put("1.0", "integer", &format!("{}", 200 + round));
            let readings = device.read(&mut session).await.unwrap();
            assert_eq!(readings["integer"], Ok((Value::Int(200 + round), Quality::Good)));
        }
        // Every answer twice: the second one belongs to nobody.
        proxy.set(Mode::Double);
        for round in 0..4 {
            snmpd.put("1.0", "integer", &format!("{}", 300 + round));
            let readings = device.read(&mut session).await.unwrap();
            assert_eq!(readings["integer"], Ok((Value::Int(300 + round), Quality::Good)));
        }
        proxy.set(Mode::Pass);
    }
}

#[tokio::test]
async fn a_reading_is_asked_again_and_a_write_never() {
    let snmpd = Snmpd::start().await.unwrap();
    let (proxy, through) = proxied(&snmpd).await;
    for mut connection in [plain(through), secure(through)] {
        (connection["timeout_ms"], connection["retries"]) = (700.into(), 3.into());
        let device = device(connection, all());
        let mut session = device.open().await.unwrap();

        proxy.set(Mode::Mute);
        let before = proxy.counts().requests;
        assert!(matches!(device.read(&mut session).await, Err(Error::Timeout(_))));
        assert_eq!(proxy.counts().requests - before, 4);
        proxy.set(Mode::Pass);
        device.read(&mut session).await.unwrap();

        proxy.set(Mode::Mute);
        let (before, written) = (proxy.counts().requests, snmpd.writes().len());
        let (permit, consumption) = now(Duration::from_secs(20));
        let error = device.write(&mut session, "integer", Value::Int(5), permit).await.unwrap_err();
        assert_eq!(consumption.outcome(&error), Outcome::Unknown, "{error:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(proxy.counts().requests - before, 1, "the write went out once");
        assert_eq!(snmpd.writes().len() - written, 1, "and was carried out");
        proxy.set(Mode::Pass);
    }
}

#[tokio::test]
async fn a_write_that_is_too_late_does_not_leave() {
    let snmpd = Snmpd::start().await.unwrap();
    let (proxy, through) = proxied(&snmpd).await;
    for connection in [plain(through), secure(through)] {
        let device = device(connection, all());
        let mut session = device.open().await.unwrap();
        device.read(&mut session).await.unwrap();
        let before = proxy.counts().requests;
        let (permit, consumption) = now(Duration::ZERO);
        let error = device.write(&mut session, "integer", Value::Int(5), permit).await.unwrap_err();
        assert_eq!((error, consumption.is_consumed()), (Error::Expired, false));
        assert_eq!(proxy.counts().requests, before, "nothing has left");
        device.read(&mut session).await.unwrap();
    }
    // Its time runs out while the agent is asked what it has there.
    let device = device(plain(through), all());
    let mut session = device.open().await.unwrap();
    proxy.set(Mode::Delay(Duration::from_millis(800)));
    let (permit, consumption) = now(Duration::from_millis(300));
    let error = device.write(&mut session, "integer", Value::Int(5), permit).await.unwrap_err();
    assert_eq!((error, consumption.is_consumed()), (Error::Expired, false));
    assert_eq!(snmpd.writes(), []);
}

#[tokio::test]
async fn an_agent_that_hangs_or_restarts_is_read_again() {
    let snmpd = Snmpd::start().await.unwrap();
    for connection in [plain(snmpd.address), secure(snmpd.address)] {
        let mut impatient = connection;
        impatient["timeout_ms"] = 1000.into();
        let device = device(impatient, all());
        let mut session = device.open().await.unwrap();
        snmpd.freeze();
        assert!(matches!(device.read(&mut session).await, Err(Error::Timeout(_))));
        snmpd.thaw();
        snmpd.down();
        assert!(device.open().await.is_err());
        snmpd.up().await.unwrap();
        let mut session = device.open().await.unwrap();
        assert_eq!(good(&device.read(&mut session).await.unwrap()), sorted(expected()));
    }
    assert_eq!(snmpd.writes(), []);
}

/// A restarted agent has another clock, and says so to the first message: the library would send a write again.
#[tokio::test]
async fn a_write_right_after_a_restart_is_not_sent_again() {
    let snmpd = Snmpd::start().await.unwrap();
    let (proxy, through) = proxied(&snmpd).await;
    let device = device(secure(through), all());
    let mut session = device.open().await.unwrap();
    device.read(&mut session).await.unwrap();
    snmpd.down();
    snmpd.up().await.unwrap();
    let before = proxy.counts().requests;
    let (permit, consumption) = now(Duration::from_secs(20));
    let error = device.write(&mut session, "integer", Value::Int(5), permit).await.unwrap_err();
    assert_eq!(proxy.counts().requests - before, 1);
    assert!(matches!(&error, Error::Device(why) if why.contains("clock")), "{error:?}");
    assert_eq!(consumption.outcome(&error), Outcome::Failed);
    assert_eq!(snmpd.writes(), []);
    let (permit, _) = now(Duration::from_secs(20));
    device.write(&mut session, "integer", Value::Int(6), permit).await.unwrap();
    assert_eq!(snmpd.writes(), [("1.0".to_owned(), "6".to_owned())]);
}

#[tokio::test]
async fn an_agent_tells_what_it_has_and_that_can_be_read() {
    let snmpd = Snmpd::start().await.unwrap();
    let mut network = plain(snmpd.address);
    network["agent"] = format!("127.0.0.0/30:{}", snmpd.address.port()).into();
    network["timeout_ms"] = 1000.into();
    for (connection, expected) in [(secure(snmpd.address), 1), (network, 1)] {
        let found = SnmpMapper::discover(&serde_json::from_value(connection).unwrap()).await.unwrap();
        assert_eq!(found.len(), expected, "{found:?}");
        let properties: Vec<Property> = found[0]
            .properties
            .iter()
            .map(|p| Property::new(&p.name, p.value_type, p.address.clone()))
            .collect();
        assert!(found[0].about.contains("Linux"), "{found:?}");
        assert!(properties.iter().any(|p| p.name == "if1-in-octets"), "{properties:?}");
        assert!(found[0].properties.iter().all(|p| !p.writable));
        let device = device(found[0].connection.clone(), properties.clone());
        let mut session = device.open().await.unwrap();
        assert_eq!(good(&device.read(&mut session).await.unwrap()).len(), properties.len());
    }
    assert_eq!(snmpd.writes(), []);
}
