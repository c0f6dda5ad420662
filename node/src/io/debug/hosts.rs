//! Hosts of devices: whether the names in their manifests can be looked up from this machine.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::machine;
use super::probe::LOOKUP;
use crate::diagnose::Device;

/// What an edge knows of its devices' manifests: of more devices the first ones are looked at.
pub(super) const MANIFESTS: &str = "/apis/devices.kubeedge.io/v1beta1/devices?limit=250";

/// Names that are looked up, at once; of more the first ones tell whether a name server is there.
const MOST: usize = 8;

/// Keys of `protocol.configData` that say where a device is, in the bundled mappers' words and in others'.
const KEYS: [&str; 9] =
    ["tcp", "rtu_over_tcp", "ip", "host", "hostname", "address", "url", "endpoint", "broker"];

/// A mapper that serves a device and does not reach it has not reported anything yet.
pub(super) fn is_silent(device: &Device) -> bool {
    device.state != "online" || !device.is_heard
}

/// Says of each device that is silent why its host is not found.
pub(super) async fn look_up(manifests: &Value, devices: &mut [Device]) {
    let hosts = hosts(manifests);
    let silent = devices.iter().filter(|device| is_silent(device));
    let wanted: BTreeSet<&String> = silent.filter_map(|device| hosts.get(&device.id)).collect();
    let failures = failures(wanted.into_iter().take(MOST).cloned()).await;
    for device in devices.iter_mut().filter(|device| is_silent(device)) {
        let why = hosts.get(&device.id).and_then(|host| failures.get(host));
        device.unresolved = why.cloned();
    }
}

/// By device, those that are names.
fn hosts(manifests: &Value) -> BTreeMap<String, String> {
    let items = manifests["items"].as_array().into_iter().flatten();
    let host = |item: &Value| {
        let [namespace, name] = ["namespace", "name"].map(|field| item["metadata"][field].as_str());
        let config = &item["spec"]["protocol"]["configData"];
        let host = KEYS.iter().find_map(|key| name_in(config[*key].as_str()?))?;
        Some((format!("{}/{}", namespace?, name?), host))
    };
    items.filter_map(host).collect()
}

/// The host's name in `host`, `host:port` or an URL; `None`: an address of whatever kind, or nothing of the kind. A silent
/// device with a hardware address is not to be blamed on the name servers.
fn name_in(text: &str) -> Option<String> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next()?;
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = host_and_port.split_once(':').unwrap_or((host_and_port, "0"));
    port.parse::<u16>().ok()?;
    let is_of_names = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_host = machine::is_name(host)
        && host.starts_with(|c: char| c.is_ascii_alphanumeric())
        && host.chars().all(is_of_names)
        && host.contains(|c: char| c.is_ascii_alphabetic())
        && !is_hardware_address(host);
    is_host.then(|| host.to_owned())
}

/// `aa-bb-cc-dd-ee-ff`; with colons it is no name anyway.
fn is_hardware_address(host: &str) -> bool {
    let is_octet = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    host.split('-').count() >= 6 && host.split('-').all(is_octet)
}

async fn failures(names: impl Iterator<Item = String>) -> BTreeMap<String, String> {
    let mut at_work = JoinSet::new();
    for name in names {
        at_work.spawn(async move {
            let why = match timeout(LOOKUP, tokio::net::lookup_host((name.as_str(), 0))).await {
                Ok(Ok(mut addresses)) => addresses.next().is_none().then(|| "it has no address".to_owned()),
                Ok(Err(why)) => Some(why.to_string()),
                Err(_) => Some(format!("no name server answered within {LOOKUP:?}")),
            };
            why.map(|why| (name.clone(), format!("{name}: {why}")))
        });
    }
    at_work.join_all().await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_found_in_what_manifests_have() {
        for (text, host) in [
            ("plc.example:502", Some("plc.example")),
            ("plc", Some("plc")),
            ("opc.tcp://plc-1.example:4840/path", Some("plc-1.example")),
            ("http://user:secret@meter.example/x?y", Some("meter.example")),
            ("10.0.0.5:502", None),
            ("[2001:db8::1]:502", None),
            ("2001:db8::1", None),
            ("fd00::5", None),
            ("fe80::1%eth0", None),
            ("cafe::", None),
            ("AA:BB:CC:DD:EE:FF", None),
            ("aa-bb-cc-dd-ee-ff", None),
            ("be-ef", Some("be-ef")),
            ("plc:modbus", None),
            ("/dev/ttyUSB0", None),
            ("", None),
            ("a b", None),
        ] {
            assert_eq!(name_in(text).as_deref(), host, "{text}");
        }
    }
}
