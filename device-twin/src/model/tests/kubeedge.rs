//! Documents with every field that KubeEdge's published examples use (its website's `device_crds.md` and
//! `mapper-framework.md`, the demos in `kubeedge/examples`, and what `kubectl get -o yaml` shows of them).

use super::*;

/// Fields of the counter and temperature demos, of the website's model, and of a fault-detection example.
const MODELS: &str = r#"
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata:
  name: boiler
  namespace: default
  creationTimestamp: "2025-11-01T10:00:00Z"
  generation: 1
  resourceVersion: "812"
  uid: 6a9e1d5c-0000-4000-8000-000000000000
  annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}
spec:
  protocol: "virtualProtocol"
  protocolConfigData: {port: "5502", baudRate: 9600}
  properties:
    - name: temperature
      description: water in the boiler
      type: FLOAT
      accessMode: ReadWrite
      minimum: "0"
      maximum: "100.0"
      unit: "Celsius"
      visitors: {protocolName: modbus, configData: {register: HoldingRegister, scale: 0.1}}
    - {name: burner-switch, description: "0:off,1:on", type: INT, accessMode: ReadWrite}
    - {name: status, type: STRING, accessMode: ReadWrite}
    - {name: mean, type: DOUBLE, accessMode: ReadOnly, unit: ""}
    - {name: lid, type: BOOLEAN}
    - {name: trace, type: BYTES}
    - {name: saveFrame, type: STREAM, accessMode: ReadOnly}
"#;

const INSTANCE: &str = r#"
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata:
  name: boiler-01
  labels: {model: boiler, description: cellar, manufacturer: None}
spec:
  deviceModelRef: {name: boiler}
  nodeName: "kind-worker"
  protocol:
    protocolName: virtualProtocol
    configData:
  stateReport: {reportToCloud: true, reportCycle: 30000}
  properties:
    - name: temperature
      collectCycle: 10000
      reportCycle: 10000
      reportToCloud: true
      desired: {value: "", metadata: {timestamp: "1550049403598", type: string}}
      visitors:
        protocolName: modbus
        configData: {dataType: float, register: HoldingRegister, offset: 0, limit: 1, scale: 0.1, isSwap: false, max: 100.0}
      pushMethod:
        http: {hostName: "http://127.0.0.1", port: 8080, requestPath: /water, timeout: 10}
        mqtt: {address: "tcp://127.0.0.1:1883", topic: water, qos: 0, retained: false}
        otel: {endpointURL: "http://127.0.0.1:4318/v1/metrics"}
        dbMethod:
          influxdb2:
            influxdb2ClientConfig: {url: "http://127.0.0.1:8086", org: o, bucket: b}
            influxdb2DataConfig: {measurement: stat, tag: {unit: temperature}, fieldKey: temperature}
        anomalyDetection: {}
    - {name: burner-switch, desired: {value: "1"}, visitors: {configData: {dataType: int}}}
    - {name: status, visitors: {}}
    - {name: saveFrame, visitors: {configData: {format: jpg, outputDir: /tmp, frameCount: 30, frameInterval: 1000000}}}
  methods:
    - name: SwitchControl
      description: light the burner or put it out
      propertyNames: [burner-switch, status]
    - {name: UpdateTemperature, propertyNames: [temperature]}
    - {name: Watch, propertyNames: [saveFrame]}
status:
  lastOnlineTime: "2025-10-26T08:00:00Z"
  state: ok
  twins:
    - propertyName: temperature
      observedDesired: {value: ""}
      reported: {value: "22.5", metadata: {timestamp: "1760944813469", type: string}}
"#;

fn boiler(instance: &str) -> Catalog {
    let mut catalog = Catalog::default();
    catalog.put(Kind::Model, &id("boiler"), Some(&json(MODELS)));
    catalog.put(Kind::Device, &id("boiler-01"), Some(&json(instance)));
    assert_eq!(catalog.unreadable().count(), 0);
    catalog
}

#[test]
fn every_field_of_kubeedges_examples_is_accepted() {
    let catalog = boiler(INSTANCE);
    let device = catalog.device(&id("boiler-01")).unwrap();
    assert_eq!(device.problem, None);
    let types: Vec<_> =
        device.properties.iter().map(|(name, p)| (&**name, p.value_type, p.writable)).collect();
    assert_eq!(
        types,
        [
            ("burner-switch", ValueType::Int, true),
            ("status", ValueType::String, true),
            ("temperature", ValueType::Float, true),
        ]
    );
    let wishes: Vec<_> = device.properties.values().map(|p| p.manifest_desired.as_deref()).collect();
    assert_eq!(wishes, [Some("1"), None, None], "an empty text is no wish");
    assert_eq!(device.properties["temperature"].unit.as_deref(), Some("Celsius"));
}

#[test]
fn every_type_of_kubeedges_is_known() {
    let document = DeviceModel::from_json(&json(MODELS)).unwrap();
    let types: Vec<_> = document.spec.properties.iter().map(|p| p.property_type.value_type()).collect();
    let expected = [
        Some(ValueType::Float),
        Some(ValueType::Int),
        Some(ValueType::String),
        Some(ValueType::Float),
        Some(ValueType::Bool),
        Some(ValueType::Bytes),
        None,
    ];
    assert_eq!(types, expected);
}

#[test]
fn methods_group_properties() {
    let catalog = boiler(INSTANCE);
    let methods = &catalog.device(&id("boiler-01")).unwrap().methods;
    let shown: Vec<(&str, Vec<&str>)> =
        methods.iter().map(|(name, all)| (name.as_str(), all.iter().map(|p| &**p).collect())).collect();
    assert_eq!(
        shown,
        [
            ("SwitchControl", vec!["burner-switch", "status"]),
            ("UpdateTemperature", vec!["temperature"]),
            ("Watch", vec![]),
        ]
    );
}

#[test]
fn a_method_that_names_what_is_not_there_is_a_problem() {
    let catalog =
        boiler(&INSTANCE.replace("propertyNames: [temperature]", "propertyNames: [temperature, preassure]"));
    let device = catalog.device(&id("boiler-01")).unwrap();
    assert_eq!(
        device.problem.as_deref(),
        Some("method 'UpdateTemperature' names 'preassure', which is no property here")
    );
    assert_eq!(device.methods["UpdateTemperature"].len(), 1);
}

#[test]
fn a_methods_name_is_checked() {
    for (name, expected) in [
        (
            "Switch/Control",
            "spec.methods[0].name: 'Switch/Control' cannot be a topic level: use letters, digits, _ - .",
        ),
        ("Watch", "spec.methods[2].name: 'Watch' is there twice"),
    ] {
        let wrong = INSTANCE.replace("name: SwitchControl", &format!("name: {name}"));
        assert_eq!(Device::from_json(&json(&wrong)).unwrap_err().to_string(), expected);
    }
}
