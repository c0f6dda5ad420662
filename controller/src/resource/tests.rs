use std::error::Error as _;

use super::*;
use serde_json::json;

/// KubeEdge's own example, its unit and visitor included.
const MODEL: &str = r"
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: temperature-model}
spec:
  protocol: modbus
  properties:
    - {name: temperature, type: FLOAT, accessMode: ReadWrite, minimum: '0', maximum: '100.0', unit: Celsius}
";

const DEVICE: &str = r"
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: temperature-instance, namespace: plant, labels: {hall: '2'}}
spec:
  deviceModelRef: {name: temperature-model}
  nodeName: worker-node1
  protocol: {protocolName: modbus, configData: {ip: 10.244.1.13, port: '5502', slaveID: 1}}
  methods:
    - {name: UpdateTemperature, propertyNames: [temperature]}
  properties:
    - name: temperature
      desired: {value: '30', metadata: {type: string}}
      pushMethod: {mqtt: {address: 'tcp://127.0.0.1:1883', topic: temp}}
";

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

#[test]
fn kubeedges_manifests_are_stored_as_they_came() {
    let mut ks = Keyspace::new();
    let device = Manifest::parse(&yaml(DEVICE)).unwrap();
    assert_eq!((device.kind(), device.id()), (Kind::Device.into(), &id("plant/temperature-instance")));
    assert_eq!(device.apply(&mut ks), Applied::Created);
    let stored = ks.get("/c/resource/device/plant/temperature-instance").unwrap();
    assert_eq!(serde_json::from_slice::<Value>(stored).unwrap(), yaml(DEVICE));
}

#[test]
fn a_manifest_without_a_namespace_is_stored_in_default() {
    let mut ks = Keyspace::new();
    Manifest::parse(&yaml(MODEL)).unwrap().apply(&mut ks);
    let stored = get(Kind::Model, &id("default/temperature-model"), &ks).unwrap();
    let stored: Value = serde_json::from_slice(stored).unwrap();
    assert_eq!(stored["metadata"], json!({"name": "temperature-model", "namespace": "default"}));
}

#[test]
fn applying_again_changes_nothing_and_an_edit_does() {
    let mut ks = Keyspace::new();
    let mut document = yaml(DEVICE);
    assert_eq!(Manifest::parse(&document).unwrap().apply(&mut ks), Applied::Created);
    ks.seal();
    assert_eq!(Manifest::parse(&document).unwrap().apply(&mut ks), Applied::Unchanged);
    assert_eq!(ks.seal(), None);
    document["spec"]["nodeName"] = "worker-node2".into();
    assert_eq!(Manifest::parse(&document).unwrap().apply(&mut ks), Applied::Changed);
}

#[test]
fn lists_are_by_kind_and_namespace_and_deletion_is_told() {
    let mut ks = Keyspace::new();
    for (namespace, name) in [("plant", "a"), ("plant", "b"), ("plant-2", "a"), ("default", "c")] {
        let mut document = yaml(DEVICE);
        document["metadata"] = json!({"name": name, "namespace": namespace});
        Manifest::parse(&document).unwrap().apply(&mut ks);
    }
    Manifest::parse(&yaml(MODEL)).unwrap().apply(&mut ks);
    let names = |namespace: Option<&str>, ks: &Keyspace| -> Vec<String> {
        let namespace = namespace.map(|text| Name::new(text).unwrap());
        list(Kind::Device, namespace.as_ref(), ks).map(|(id, _)| id.to_string()).collect()
    };
    assert_eq!(names(Some("plant"), &ks), ["plant/a", "plant/b"]);
    assert_eq!(names(None, &ks).len(), 4);
    assert!(delete(Kind::Device, &id("plant/a"), &mut ks));
    assert!(!delete(Kind::Device, &id("plant/a"), &mut ks));
    assert_eq!(names(Some("plant"), &ks), ["plant/b"]);
}

#[test]
fn each_refusal_names_the_field() {
    let device = |path: &str, value: Value| {
        let mut document = yaml(DEVICE);
        *document.pointer_mut(path).unwrap() = value;
        document
    };
    let model = |path: &str, value: Value| {
        let mut document = yaml(MODEL);
        *document.pointer_mut(path).unwrap() = value;
        document
    };
    let policy = json!({"apiVersion": "kubebus.io/v1alpha1", "kind": "TwinPolicy", "metadata": {"name": "p"},
        "spec": {"model": "m", "actuatr": true}});
    let rule = json!({"apiVersion": "kubebus.io/v1alpha1", "kind": "Rule", "metadata": {"name": "r"},
        "spec": {"inputs": {}, "output": {"device": "d", "property": "p", "ttl": "0s"}, "onUnknown": "hold",
        "cases": []}});
    for (document, expected) in [
        (device("/metadata/name", "Not A Name".into()), "Device: metadata.name: "),
        (device("/spec/nodeName", "Worker".into()), "Device: spec.nodeName: "),
        (device("/spec/properties/0/name", "a/b".into()), "Device: spec.properties[0].name: "),
        (model("/spec/properties/0/type", "REAL".into()), "DeviceModel: spec.properties[0].type: "),
        (model("/spec/properties/0/minimum", "low".into()), "DeviceModel: spec.properties[0].minimum: "),
        (policy, "TwinPolicy: spec.actuatr: "),
        (rule, "Rule: spec.output.ttl: "),
        (model("/metadata", json!("x")), "DeviceModel: metadata: "),
        (json!({"apiVersion": "v1", "kind": "Pod"}), "v1 Pod is not known; known are Device and DeviceModel"),
        (json!([1, 2]), "  is not known"),
    ] {
        let error = Manifest::parse(&document).unwrap_err();
        let field = error.source().map_or(String::new(), |field| format!(": {field}"));
        let text = format!("{error}{field}");
        assert!(text.starts_with(expected), "{text}");
    }
    let fat = device("/metadata/labels/hall", "x".repeat(MAX_MANIFEST_LEN).into());
    assert!(matches!(Manifest::parse(&fat), Err(InvalidManifest::TooLong(_))));
}

#[test]
fn kinds_are_known_by_the_names_that_people_type() {
    for (text, kind) in [
        ("device", Some(Kind::Device.into())),
        ("DeviceModel", Some(Kind::Model.into())),
        ("twinpolicies", Some(Kind::Policy.into())),
        ("rules", Some(Kind::Rule.into())),
        ("AccessPolicies", Some(ResourceKind::Access)),
        ("hosts", Some(ResourceKind::Host)),
        ("pods", None),
    ] {
        assert_eq!(kind_named(text), kind);
    }
}

#[test]
fn a_refusal_knows_its_field() {
    let field = |document: &Value| Manifest::parse(document).unwrap_err().field().map(str::to_owned);
    let mut wrong = yaml(MODEL);
    wrong["spec"]["properties"][0]["minimum"] = "low".into();
    assert_eq!(field(&wrong).as_deref(), Some("spec.properties[0].minimum"));
    assert_eq!(field(&json!({"kind": "Pod"})).as_deref(), Some("kind"));
    wrong["spec"]["properties"][0]["unit"] = "x".repeat(MAX_MANIFEST_LEN).into();
    assert_eq!(field(&wrong), None);
}

#[test]
fn a_manifest_is_held_against_those_that_are_there() {
    let mut catalog = Catalog::default();
    let policy = |fail_safe: f64| {
        Manifest::parse(&json!({
            "apiVersion": "kubebus.io/v1alpha1", "kind": "TwinPolicy", "metadata": {"name": "p"},
            "spec": {"model": "temperature-model", "property": "temperature", "failSafe": fail_safe},
        }))
        .unwrap()
    };
    assert_eq!(policy(500.0).check(&catalog), [], "its model is not known yet");
    let model = Manifest::parse(&yaml(MODEL)).unwrap();
    catalog.put(Kind::Model, model.id(), Some(&model.json));
    assert_eq!(policy(50.0).check(&catalog), []);
    let errors = policy(500.0).check(&catalog);
    let told: Vec<String> = errors.iter().map(|error| bus::with_causes(error)).collect();
    assert_eq!(told, ["TwinPolicy: spec.failSafe: temperature: 500 is outside 0 to 100"]);
    assert_eq!(errors[0].field(), Some("spec.failSafe"));
}
