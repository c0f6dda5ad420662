//! What the cluster of the world consists of: one model, its policies, and devices at every edge.

use bus::Name;
use bus::twin::DeviceId;
use device_twin::PropertyId;
use serde_json::{Value, json};
use std::time::Duration;

/// The mapper at each edge.
pub const MAPPER: &str = "sim";
/// Reported only.
pub const SENSOR: &str = "pressure";
/// Written late rather than never.
pub const SETTING: &str = "speed";
/// Written while it is meant, or not at all.
pub const ACTUATOR: &str = "valve";
pub const PROPERTIES: [&str; 3] = [SENSOR, SETTING, ACTUATOR];
/// Where the actuator goes when the last decision over it ends.
pub const FAIL_SAFE: f64 = 50.0;
/// How long a wish for the actuator is meant.
pub const MEANT_FOR: Duration = Duration::from_secs(10);

#[expect(clippy::expect_used, reason = "names made of constants and small numbers")]
pub fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

pub fn edge_name(site: usize) -> Name {
    name(&format!("edge-{site}"))
}

/// The site whose edge has this name.
pub fn site_of_edge(name: &str) -> Option<usize> {
    name.strip_prefix("edge-")?.parse().ok()
}

pub fn device(site: usize, number: usize) -> DeviceId {
    DeviceId { namespace: name("plant"), name: name(&format!("pump-{site}-{number}")) }
}

pub fn property(device: &DeviceId, property: &str) -> PropertyId {
    PropertyId::new(device, property)
}

/// The site whose edge a device is bound to.
pub fn site_of(device: &DeviceId) -> Option<usize> {
    device.name.as_str().split('-').nth(1)?.parse().ok()
}

/// The site of a command's device: `<namespace>/<device>/<id>`.
pub fn site_of_place(place: &str) -> Option<usize> {
    site_of(&place.rsplit_once('/')?.0.parse().ok()?)
}

pub fn model() -> Value {
    json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel",
        "metadata": {"name": "pump", "namespace": "plant"},
        "spec": {"protocol": MAPPER, "properties": [
            {"name": SENSOR, "type": "DOUBLE", "accessMode": "ReadOnly", "minimum": "0", "maximum": "10"},
            {"name": SETTING, "type": "DOUBLE", "accessMode": "ReadWrite", "minimum": "0", "maximum": "100"},
            {"name": ACTUATOR, "type": "DOUBLE", "accessMode": "ReadWrite", "minimum": "0", "maximum": "100"},
        ]},
    })
}

pub fn policies() -> Vec<Value> {
    let policy = |property: &str, spec: Value| {
        let mut document = json!({
            "apiVersion": "kubebus.io/v1alpha1", "kind": "TwinPolicy",
            "metadata": {"name": format!("pump-{property}"), "namespace": "plant"}, "spec": spec,
        });
        document["spec"]["model"] = "pump".into();
        document["spec"]["property"] = property.into();
        document
    };
    vec![
        policy(SENSOR, json!({"maxAge": "90s", "deadband": 0.2})),
        policy(SETTING, json!({"onStale": "apply", "localOverride": true})),
        policy(
            ACTUATOR,
            json!({
                "actuator": true, "onStale": "rearm", "desiredMaxAge": "10s", "localOverride": true,
                "failSafe": FAIL_SAFE,
            }),
        ),
    ]
}

/// The slots that rules other than interlocks take, each its own.
const RULE_SLOTS: [u8; 8] = [16, 15, 13, 11, 10, 9, 7, 6];

/// Rules that may be there at a time.
pub const RULES: usize = RULE_SLOTS.len();

pub fn rule(number: usize) -> DeviceId {
    DeviceId { namespace: name("plant"), name: name(&format!("idle-{number}")) }
}

/// A rule over `input` for `device` that never decides anything: its input does not get that high. Each has a slot of
/// its own, since several may be for one device. `number` is below [`RULES`].
pub fn rule_manifest(number: usize, input: &DeviceId, device: &DeviceId) -> Value {
    let id = rule(number);
    json!({
        "apiVersion": "kubebus.io/v1alpha1", "kind": "Rule",
        "metadata": {"name": id.name, "namespace": id.namespace},
        "spec": {
            "inputs": {"level": {"device": input.to_string(), "property": SENSOR}},
            "output": {"device": device.to_string(), "property": SETTING, "slot": RULE_SLOTS[number], "ttl": "20s"},
            "onUnknown": "hold",
            "cases": [{"when": {"input": "level", "op": "above", "value": 10.0}, "then": "hold"}],
        },
    })
}

/// An interlock trips while the sensor is above this,
pub const TRIP_ABOVE: f64 = 9.0;
/// and sets the actuator to this, also while the sensor cannot be told.
pub const TRIP_VALUE: f64 = 0.0;

/// The interlock of a device.
pub fn guard(device: &DeviceId) -> DeviceId {
    DeviceId { namespace: name("plant"), name: name(&format!("guard-{}", device.name)) }
}

/// The device that an interlock guards.
pub fn guarded(rule: &DeviceId) -> Option<DeviceId> {
    let device = rule.name.as_str().strip_prefix("guard-")?;
    Some(DeviceId { namespace: name("plant"), name: name(device) })
}

pub fn guard_manifest(device: &DeviceId) -> Value {
    let id = guard(device);
    json!({
        "apiVersion": "kubebus.io/v1alpha1", "kind": "Rule",
        "metadata": {"name": id.name, "namespace": id.namespace},
        "spec": {
            "inputs": {"level": {"device": device.to_string(), "property": SENSOR}},
            "output": {"device": device.to_string(), "property": ACTUATOR, "slot": 2, "ttl": "20s"},
            "onUnknown": {"value": TRIP_VALUE},
            "cases": [{
                "name": "too high",
                "when": {"input": "level", "op": "above", "value": TRIP_ABOVE},
                "then": {"value": TRIP_VALUE},
            }],
        },
    })
}

pub fn device_manifest(site: usize, number: usize) -> Value {
    let id = device(site, number);
    json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
        "metadata": {"name": id.name, "namespace": id.namespace},
        "spec": {"deviceModelRef": {"name": "pump"}, "nodeName": edge_name(site),
                 "protocol": {"protocolName": MAPPER, "configData": {"unit": number}}},
    })
}
