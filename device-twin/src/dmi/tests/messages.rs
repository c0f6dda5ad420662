//! Manifests as messages, whole.

use std::collections::BTreeMap;

use super::*;
use crate::dmi::any::to_any;
use crate::dmi::api::*;

fn config(protocol: &str, fields: serde_json::Value) -> Option<ProtocolConfig> {
    let fields: BTreeMap<String, bus::twin::Json> = serde_json::from_value(fields).unwrap();
    let data = fields.iter().map(|(name, value)| (name.clone(), to_any(value).unwrap())).collect();
    Some(ProtocolConfig { protocol_name: protocol.to_owned(), config_data: Some(CustomizedValue { data }) })
}

fn no_wish(of_type: &str) -> Option<TwinProperty> {
    let metadata = BTreeMap::from([("type".to_owned(), of_type.to_owned())]);
    Some(TwinProperty { value: String::new(), metadata })
}

/// All fields that KubeEdge's mappers follow without looking are there, models are merged under their instances, nothing
/// may be written, and what the manifest wishes is not in it.
#[test]
fn a_mapper_that_registers_gets_its_devices_merged_and_shut() {
    let mut world = World::new();
    world.put(Kind::Model, "valve", Some(model()));
    world.put(Kind::Device, "v1", Some(valve("v1")));
    let other = json!({ "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
        "metadata": { "name": "other", "namespace": "plant" },
        "spec": { "deviceModelRef": { "name": "valve" }, "nodeName": "elsewhere",
                  "protocol": { "protocolName": "modbus" } } });
    world.put(Kind::Device, "other", Some(other));
    let ticket = world.register();
    let outputs = world.outputs();
    let [Output::Registered(answered, body), online] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((answered, online), (&ticket, &state("online")));
    let property =
        |name: &str, of_type, visitors, report_cycle, collect_cycle, report_to_cloud| DeviceProperty {
            name: name.to_owned(),
            desired: no_wish(of_type),
            visitors,
            report_cycle,
            collect_cycle,
            report_to_cloud,
            push_method: None,
        };
    let position = config("modbus", json!({ "register": "Holding", "offset": 2 }));
    let expected_device = Device {
        name: "v1".to_owned(),
        namespace: "plant".to_owned(),
        spec: Some(DeviceSpec {
            device_model_reference: "valve".to_owned(),
            protocol: config("modbus", json!({ "baud": 9600, "mode": "TCP", "slaveID": 1 })),
            properties: vec![
                property("position", "int", position, 0, 1000, true),
                property("pressure", "double", config("modbus", json!({})), 500, 0, false),
                property("label", "string", config("modbus", json!({})), 0, 0, true),
            ],
            methods: vec![],
        }),
        status: Some(DeviceStatus { twins: vec![], report_to_cloud: false, report_cycle: 0 }),
    };
    let shut = |name: &str, of_type: &str| ModelProperty {
        name: name.to_owned(),
        data_type: of_type.to_owned(),
        access_mode: "ReadOnly".to_owned(),
        ..ModelProperty::default()
    };
    let expected_model = DeviceModel {
        name: "valve".to_owned(),
        namespace: "plant".to_owned(),
        spec: Some(DeviceModelSpec {
            properties: vec![
                ModelProperty {
                    description: "how far".to_owned(),
                    minimum: "0".to_owned(),
                    maximum: "100".to_owned(),
                    unit: "%".to_owned(),
                    ..shut("position", "INT")
                },
                shut("pressure", "DOUBLE"),
                shut("label", "STRING"),
            ],
        }),
    };
    let expected = MapperRegisterResponse { models: vec![expected_model], devices: vec![expected_device] };
    assert_eq!(MapperRegisterResponse::decode(body.clone()), Ok(expected));
}

#[test]
fn push_methods_methods_and_state_reports_go_to_the_mapper_as_they_are_written() {
    let mut manifest = valve("v1");
    manifest["spec"]["methods"] =
        json!([{ "name": "move", "description": "moves it", "propertyNames": ["position"] }]);
    manifest["spec"]["stateReport"] = json!({ "reportToCloud": true, "reportCycle": 10_000 });
    manifest["spec"]["properties"][0]["desired"] =
        json!({ "value": "30", "metadata": { "type": "integer" } });
    manifest["spec"]["properties"][0]["pushMethod"] = json!({
        "http": { "hostName": "http://127.0.0.1", "port": 8080, "requestPath": "/in", "timeout": 5 },
        "mqtt": { "address": "tcp://127.0.0.1:1883", "topic": "temp", "qos": 1, "retained": true },
        "otel": { "endpointURL": "http://127.0.0.1:4318" },
        "anomalyDetection": { "window": 5 },
        "dbMethod": {
            "influxdb2": {
                "influxdb2ClientConfig": { "url": "http://127.0.0.1:8086", "org": "o", "bucket": "b" },
                "influxdb2DataConfig": { "measurement": "stat", "tag": { "unit": "C" }, "fieldKey": "beta" } },
            "redis": { "redisClientConfig": { "addr": "127.0.0.1:6379", "db": 1, "poolsize": 10, "minIdleConns": 5 } },
            "TDEngine": { "TDEngineClientConfig": { "addr": "127.0.0.1:6041", "dbName": "d" } },
            "mysql": { "mysqlClientConfig": { "addr": "127.0.0.1:3306", "database": "d", "userName": "u" } } } });
    let mut world = World::new();
    world.put(Kind::Model, "valve", Some(model()));
    world.put(Kind::Device, "v1", Some(manifest));
    let description = Description::at_rest(&device("v1"), &world.ks).unwrap();
    let spec = description.device.spec.unwrap();
    let text = |text: &str| text.to_owned();
    let expected = PushMethod {
        http: Some(PushMethodHttp {
            hostname: text("http://127.0.0.1"),
            port: 8080,
            request_path: text("/in"),
            timeout: 5,
        }),
        mqtt: Some(PushMethodMqtt {
            address: text("tcp://127.0.0.1:1883"),
            topic: text("temp"),
            qos: 1,
            retained: true,
        }),
        otel: Some(PushMethodOtel { endpoint: text("http://127.0.0.1:4318") }),
        anomaly_detection: config("", json!({ "window": 5 })).and_then(|config| config.config_data),
        db_method: Some(DbMethod {
            influxdb2: Some(DbMethodInfluxdb2 {
                client: Some(Influxdb2ClientConfig {
                    url: text("http://127.0.0.1:8086"),
                    org: text("o"),
                    bucket: text("b"),
                }),
                data: Some(Influxdb2DataConfig {
                    measurement: text("stat"),
                    tag: BTreeMap::from([(text("unit"), text("C"))]),
                    field_key: text("beta"),
                }),
            }),
            redis: Some(DbMethodRedis {
                client: Some(RedisClientConfig {
                    addr: text("127.0.0.1:6379"),
                    db: 1,
                    poolsize: 10,
                    min_idle_conns: 5,
                }),
            }),
            tdengine: Some(DbMethodTdEngine {
                client: Some(TdEngineClientConfig { addr: text("127.0.0.1:6041"), dbname: text("d") }),
            }),
            mysql: Some(DbMethodMySql {
                client: Some(MySqlClientConfig {
                    addr: text("127.0.0.1:3306"),
                    database: text("d"),
                    user_name: text("u"),
                }),
            }),
        }),
    };
    assert_eq!(spec.properties[0].push_method, Some(expected));
    assert_eq!(spec.properties[0].desired, no_wish("integer"));
    let method = DeviceMethod {
        name: text("move"),
        description: text("moves it"),
        property_names: vec![text("position")],
    };
    assert_eq!(spec.methods, [method]);
    let status = DeviceStatus { twins: vec![], report_to_cloud: true, report_cycle: 10_000 };
    assert_eq!(description.device.status, Some(status));
}

#[test]
fn a_device_that_lists_no_properties_has_all_of_its_model() {
    let mut manifest = valve("v1");
    manifest["spec"]["properties"] = json!([]);
    let mut world = World::new();
    world.put(Kind::Model, "valve", Some(model()));
    world.put(Kind::Device, "v1", Some(manifest));
    let description = Description::at_rest(&device("v1"), &world.ks).unwrap();
    assert_eq!(desired_of(&description.device), pairs(&NO_WISH));
}

#[test]
fn an_opened_property_alone_can_be_written_and_has_a_wish() {
    let mut world = World::new();
    world.put(Kind::Model, "valve", Some(model()));
    world.put(Kind::Device, "v1", Some(valve("v1")));
    let shut = Description::at_rest(&device("v1"), &world.ks).unwrap();
    let open = shut.clone().opened(&BTreeMap::from([("position".to_owned(), "40".to_owned())]));
    assert_eq!(desired_of(&open.device), pairs(&[("position", "40"), ("pressure", ""), ("label", "")]));
    let request = ModelRequest { model: Some(open.model.clone()) };
    let access = access(&Bytes::from(request.encode_to_vec()));
    assert_eq!(access, pairs(&[("position", "ReadWrite"), SHUT[1], SHUT[2]]));
    assert_ne!(shut.digest(), open.digest());
}
