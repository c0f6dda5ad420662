use bus::twin::Json;
use bus::{Name, Quality, Value, ValueType};
use bytes::Bytes;
use std::time::Duration;

use super::*;

mod kubeedge;
mod values;

/// The examples of KubeEdge's documentation (`docs/concept/device/device_crds.md`), as they stand there.
const MODEL: &str = r#"
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: beta1-model, namespace: default}
spec:
  protocol: modbus
  properties:
    - name: temp
      description: temperature in degree celsius
      type: INT
      accessMode: ReadWrite
      maximum: "100"
      minimum: "1"
      unit: degree celsius
    - {name: video, type: STREAM}
"#;

const DEVICE: &str = r#"
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: beta1-device, namespace: default, labels: {description: x}}
spec:
  deviceModelRef: {name: beta1-model}
  nodeName: worker-node1
  properties:
    - name: temp
      collectCycle: 10000
      reportCycle: 10000
      reportToCloud: true
      desired: {value: "30"}
      pushMethod: {mqtt: {address: "tcp://127.0.0.1:1883", topic: temp, qos: 0, retained: false}}
      visitors:
        protocolName: modbus
        configData: {register: HoldingRegister, offset: 2, limit: 1, scale: 1, isSwap: true}
  protocol:
    protocolName: virtualProtocol
    configData: {communicateMode: TCP, ip: 10.0.0.1, port: "5502", slaveID: 1}
status: {lastOnlineTime: ""}
"#;

fn json(yaml: &str) -> Bytes {
    let value: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
    serde_json::to_vec(&value).unwrap().into()
}

fn id(name: &str) -> DeviceId {
    DeviceId { namespace: Name::new("default").unwrap(), name: Name::new(name).unwrap() }
}

fn policy(name: &str, spec: &str) -> (DeviceId, Bytes) {
    let yaml = format!(
        "apiVersion: kubebus.io/v1alpha1\nkind: TwinPolicy\nmetadata: {{name: {name}}}\nspec: {spec}"
    );
    (id(name), json(&yaml))
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.put(Kind::Device, &id("beta1-device"), Some(&json(DEVICE)));
    catalog.put(Kind::Model, &id("beta1-model"), Some(&json(MODEL)));
    catalog
}

#[test]
fn kubeedges_own_manifests_resolve_to_a_device() {
    let catalog = catalog();
    let device = catalog.device(&id("beta1-device")).unwrap();
    assert_eq!(device.node, Some(Name::new("worker-node1").unwrap()));
    assert_eq!(device.mapper, Some(Name::new("virtualprotocol").unwrap()));
    assert_eq!(device.problem, None);
    assert_eq!(
        device.properties.keys().map(|name| &**name).collect::<Vec<_>>(),
        ["temp"],
        "a stream has no twin"
    );
    let temp = &device.properties["temp"];
    assert_eq!((temp.value_type, temp.writable), (ValueType::Int, true));
    assert_eq!((temp.minimum, temp.maximum), (Some(1.0), Some(100.0)));
    assert_eq!(temp.poll, Duration::from_secs(10));
    assert_eq!(temp.manifest_desired.as_deref(), Some("30"));
    let Json::Object(address) = &temp.address else { panic!("{:?}", temp.address) };
    assert_eq!(address["offset"], Json::Int(2));
    assert_eq!(temp.policy.on_stale, OnStale::Apply);
}

#[test]
fn a_wrong_type_is_named_by_its_field() {
    let wrong = DEVICE.replace("collectCycle: 10000", "collectCycle: soon");
    let error = Device::from_json(&json(&wrong)).unwrap_err().to_string();
    assert!(error.starts_with("spec.properties[0].collectCycle: invalid type: string \"soon\""), "{error}");
    let wrong = MODEL.replace("maximum: \"100\"", "maximum: much");
    let error = DeviceModel::from_json(&json(&wrong)).unwrap_err().to_string();
    assert_eq!(error, "spec.properties[0].maximum: 'much' is no number");
    let error = DeviceModel::from_json(&json(DEVICE)).unwrap_err().to_string();
    assert_eq!(
        error,
        "this is devices.kubeedge.io/v1beta1 Device, not devices.kubeedge.io/v1beta1 DeviceModel"
    );
    assert!(Device::from_json(b"{").is_err());
}

#[test]
fn a_typo_in_our_own_kind_is_refused() {
    let (_, json) = policy("p", "{model: beta1-model, actuater: true}");
    let error = TwinPolicy::from_json(&json).unwrap_err().to_string();
    assert!(error.contains("unknown field `actuater`"), "{error}");
}

#[test]
fn the_policy_that_names_the_property_goes_first() {
    let mut catalog = catalog();
    let (general, all) = policy("a", "{model: beta1-model, maxAge: 10s, deadband: 2}");
    let (special, one) =
        policy("b", "{model: beta1-model, property: temp, actuator: true, maxAge: 1m, failSafe: 7.0}");
    catalog.put(Kind::Policy, &general, Some(&all));
    let change = catalog.put(Kind::Policy, &special, Some(&one));
    assert_eq!(change, Change::Devices([id("beta1-device")].into()));
    let resolved = &catalog.property(&id("beta1-device"), "temp").unwrap().policy;
    assert_eq!(
        *resolved,
        Policy {
            actuator: true,
            on_stale: OnStale::Rearm,
            desired_max_age: Some(Duration::from_secs(60)),
            max_age: Some(Duration::from_secs(60)),
            deadband: 2.0,
            report_interval: None,
            write_interval: None,
            slew: None,
            local_override: false,
            fail_safe: Some(Value::Int(7)),
        }
    );
    catalog.put(Kind::Policy, &special, None);
    assert!(!catalog.property(&id("beta1-device"), "temp").unwrap().policy.actuator);
}

#[test]
fn values_are_held_to_type_and_range() {
    let catalog = catalog();
    let temp = catalog.property(&id("beta1-device"), "temp").unwrap();
    assert_eq!(temp.check_desired(Value::Float(30.0)), Ok(Value::Int(30)));
    assert!(matches!(temp.check_desired(Value::Int(101)), Err(InvalidValue::Range { .. })));
    assert!(matches!(temp.check_desired(Value::Text("30".into())), Err(InvalidValue::Type(_))));
    assert_eq!(temp.check_reported(Value::Int(101)), Ok((Value::Int(101), Quality::Uncertain)));
    assert_eq!(temp.parse("30"), Ok(Value::Int(30)));
    assert!(temp.parse("thirty").is_err());
}

#[test]
fn a_manifest_that_cannot_be_read_counts_as_absent_and_is_listed() {
    let mut catalog = catalog();
    catalog.put(Kind::Device, &id("beta1-device"), Some(&Bytes::from_static(b"{}")));
    assert_eq!(catalog.device(&id("beta1-device")), None);
    assert_eq!(catalog.unreadable().count(), 1);
    catalog.put(Kind::Device, &id("beta1-device"), Some(&json(DEVICE)));
    assert_eq!(catalog.unreadable().count(), 0);
}

#[test]
fn a_device_without_its_model_says_what_is_missing() {
    let mut catalog = catalog();
    catalog.put(Kind::Model, &id("beta1-model"), None);
    let device = catalog.device(&id("beta1-device")).unwrap();
    assert_eq!(device.problem.as_deref(), Some("model default/beta1-model is not known here"));
    assert!(device.properties.is_empty());
}

#[test]
fn keys_name_their_manifests_in_both_layouts() {
    for (layout, key, expected) in [
        (Layout::Edge, "/m/device/default/x", Some((Kind::Device, id("x")))),
        (Layout::Edge, "/m/rule/default/x", Some((Kind::Rule, id("x")))),
        (Layout::Cloud, "/c/resource/devicemodel/default/x", Some((Kind::Model, id("x")))),
        (Layout::Cloud, "/c/resource/device/default/x", Some((Kind::Device, id("x")))),
        (Layout::Edge, "/m/desired/default/x/p", None),
        (Layout::Edge, "/m/device/default", None),
    ] {
        assert_eq!(Kind::of_key(layout, key), expected, "{key}");
    }
}
