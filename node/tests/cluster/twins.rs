//! Device twins over MQTT, with mosquitto's clients at three brokers.

use serde_json::{Value, json};

use crate::device::{Device, Mapper};
use crate::harness::{Cluster, Node};
use crate::mqtt::{self, Subscriber, V5, VERSIONS};
use crate::process::{becomes, run};

/// A meter that no mapper serves: an app reports for it. And a valve behind the virtual mapper, which also has a
/// setting.
pub(crate) fn manifests(valve: &std::path::Path) -> String {
    format!(
        "\
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {{name: meter, namespace: water}}
spec:
  properties:
    - {{name: count, type: INT, accessMode: ReadOnly}}
    - {{name: rate, type: DOUBLE, accessMode: ReadOnly, unit: m3/h}}
    - {{name: remarks, type: STRING, accessMode: ReadOnly}}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {{name: meter, namespace: water}}
spec: {{deviceModelRef: {{name: meter}}, nodeName: a, protocol: {{protocolName: app}}}}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {{name: valve, namespace: water}}
spec:
  protocol: virtual
  properties:
    - {{name: position, type: DOUBLE, accessMode: ReadWrite, minimum: '0', maximum: '100', unit: '%'}}
    - {{name: setpoint, type: DOUBLE, accessMode: ReadWrite, minimum: '0.5', maximum: '5.5', unit: m}}
---
apiVersion: kubebus.io/v1alpha1
kind: TwinPolicy
metadata: {{name: valve-position, namespace: water}}
spec: {{model: valve, property: position, actuator: true, onStale: rearm, desiredMaxAge: {DESIRED_MAX_AGE}}}
---
apiVersion: kubebus.io/v1alpha1
kind: TwinPolicy
metadata: {{name: valve-setpoint, namespace: water}}
spec: {{model: valve, property: setpoint, onStale: apply}}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {{name: valve, namespace: water}}
spec:
  deviceModelRef: {{name: valve}}
  nodeName: a
  protocol: {{protocolName: virtual, configData: {{socket: {}}}}}
  properties:
    - {{name: position, collectCycle: 100, visitors: {{protocolName: virtual, configData: {{register: position}}}}}}
    - {{name: setpoint, collectCycle: 100, visitors: {{protocolName: virtual, configData: {{register: setpoint}}}}}}
",
        valve.display()
    )
}

/// Reports in a row.
const BURST: u64 = 1000;

/// How long a wish for the valve's position is meant.
const DESIRED_MAX_AGE: &str = "5s";

/// Cloud, edge `a` with meter and valve, and the valve itself.
pub(crate) struct Plant {
    pub(crate) cluster: Cluster,
    pub(crate) a: Node,
    pub(crate) valve: Device,
    mapper: Option<Mapper>,
}

impl Plant {
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_in(Cluster::start(), |edge| edge)
    }

    /// The edge's disk is small.
    #[track_caller]
    pub(crate) fn start_on_small_disk() -> Self {
        Self::start_in(Cluster::start(), Node::on_small_disk)
    }

    #[track_caller]
    pub(crate) fn start_in(cluster: Cluster, prepare: impl FnOnce(Node) -> Node) -> Self {
        let socket = cluster.path("valve.sock");
        let valve = Device::start(&socket, &[("position", json!(10.0)), ("setpoint", json!(1.0))]);
        let a = cluster.admit(prepare(cluster.stranger("a")));
        cluster.apply(&manifests(&socket));
        let mapper = Mapper::start(&a);
        for property in ["position", "setpoint"] {
            a.twin_becomes(("water/valve", property), "/reported/quality", json!("good"));
        }
        Self { cluster, a, valve, mapper: Some(mapper) }
    }

    pub(crate) fn stop_mapper(&mut self) {
        drop(self.mapper.take());
    }
}

#[test]
fn what_an_app_reports_at_its_edge_is_seen_everywhere() {
    let plant = Plant::start();
    let b = plant.cluster.edge("b");
    let topic = "twin/water/meter/reported/count";
    for (count, version) in VERSIONS.into_iter().enumerate() {
        let early =
            [&plant.a, &b, &plant.cluster.cloud].map(|node| Subscriber::start(node, version, "twin/#"));
        let value = json!(100 + count);
        mqtt::say(&plant.a, version, "twin/water/meter/report/count", &value.to_string());
        for subscriber in &early {
            let body = subscriber.gets(topic, "/value", &value).json();
            assert_eq!((&body["quality"], body["time"].is_u64()), (&json!("good"), true), "{body}");
        }
        for node in [&plant.a, &b, &plant.cluster.cloud] {
            let late = Subscriber::start(node, version, topic);
            let message = late.gets(topic, "/value", &value);
            assert!(message.retained, "at {}: {message:?}", node.name);
        }
        plant.cluster.cloud.twin_becomes(("water/meter", "count"), "/reported/value", value.clone());
        plant.a.twin_becomes(("water/meter", "count"), "/reported/value", value);
    }
}

#[test]
fn several_properties_and_what_is_known_of_them_go_in_one_report() {
    let plant = Plant::start();
    let report = json!({ "count": 7, "rate": { "value": 2.5, "quality": "uncertain", "time": 1_700_000_000_000_u64 } });
    mqtt::say(&plant.a, V5, "twin/water/meter/report", &report.to_string());
    let cloud = &plant.cluster.cloud;
    cloud.twin_becomes(("water/meter", "count"), "/reported/value", json!(7));
    let rate = json!({ "value": 2.5, "quality": "uncertain", "time": 1_700_000_000_000_u64 });
    cloud.twin_becomes(("water/meter", "rate"), "/reported", rate);
}

#[test]
fn the_last_of_many_reports_is_what_everybody_knows_in_the_end() {
    let plant = Plant::start();
    let b = plant.cluster.edge("b");
    let topic = "twin/water/meter/reported/count";
    let there = Subscriber::start(&b, V5, topic);
    let counts: String = (1..=BURST).map(|count| format!("{count}\n")).collect();
    mqtt::say_lines(&plant.a, "twin/water/meter/report/count", &counts);
    there.gets(topic, "/value", &json!(BURST));
    let heard: Vec<u64> = there.messages().iter().filter_map(|m| m.json()["value"].as_u64()).collect();
    assert!(heard.is_sorted(), "never an older one after a newer one: {heard:?}");
    plant.cluster.cloud.twin_becomes(("water/meter", "count"), "/reported/value", json!(BURST));
    becomes("nothing is left to say", &json!(0), || plant.a.ask(&["status"])["metadata"]["outbox"].clone());
}

#[test]
fn what_the_cloud_desires_reaches_the_device_and_is_acknowledged() {
    let plant = Plant::start();
    let watchers =
        [&plant.a, &plant.cluster.cloud].map(|node| Subscriber::start(node, V5, "twin/water/valve/#"));
    let said = plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "3.5"]);
    assert_eq!(said, "water/valve setpoint desired 3.5, version 0.1");
    for watcher in &watchers {
        let desired = watcher.gets("twin/water/valve/desired/setpoint", "/value", &json!(3.5)).json();
        assert_eq!((&desired["version"], &desired["by"]), (&json!("0.1"), &json!("kubebus twin set")));
        let acked = watcher.gets("twin/water/valve/reported/setpoint", "/ack/version", &json!("0.1")).json();
        assert_eq!(acked["ack"]["outcome"], "succeeded");
        watcher.gets("twin/water/valve/reported/setpoint", "/value", &json!(3.5));
    }
    let id = ("water/valve", "setpoint");
    plant.cluster.cloud.twin_becomes(id, "/converged", json!(true));
    plant.cluster.cloud.twin_becomes(id, "/reported/value", json!(3.5));
    assert_eq!(plant.valve.written(), [("setpoint".to_owned(), json!(3.5))]);

    let late = Subscriber::start(&plant.a, V5, "twin/water/valve/desired/+");
    assert!(late.gets("twin/water/valve/desired/setpoint", "/version", &json!("0.1")).retained);
}

#[test]
fn a_fresh_wish_moves_an_actuator_once() {
    let plant = Plant::start();
    for (position, version) in [(40.0, "0.1"), (45.0, "0.2")] {
        plant.cluster.cloud.say(&["twin", "set", "water/valve", "position", &position.to_string()]);
        let id = ("water/valve", "position");
        plant.cluster.cloud.twin_becomes(id, "/ack/version", json!(version));
        plant.cluster.cloud.twin_becomes(id, "/converged", json!(true));
        plant.cluster.cloud.twin_becomes(id, "/reported/value", json!(position));
    }
    let writes = [40.0, 45.0].map(|position| ("position".to_owned(), json!(position)));
    assert_eq!(plant.valve.written(), writes);
}

#[test]
fn an_app_at_the_edge_sets_a_device_and_hears_how_it_ended() {
    let plant = Plant::start();
    for (version, position) in VERSIONS.into_iter().zip([20.0, 30.0]) {
        let watcher = Subscriber::start(&plant.a, version, "twin/water/valve/result");
        mqtt::say(&plant.a, version, "twin/water/valve/set/position", &position.to_string());
        let succeeded = watcher.gets("twin/water/valve/result", "/outcome", &json!("succeeded"));
        assert_eq!(succeeded.json()["property"], "position");
        assert_eq!(plant.valve.value("position"), json!(position));
    }
    plant.cluster.cloud.twin_becomes(("water/valve", "position"), "/reported/value", json!(30.0));
    assert!(
        plant.cluster.cloud.twin("water/valve", "position")["desired"].is_null(),
        "it is no wish of the cloud"
    );
}

#[test]
fn who_orders_with_a_response_topic_is_answered_there_at_edge_and_cloud() {
    let plant = Plant::start();
    for (node, setpoint) in [(&plant.a, 2.0), (&plant.cluster.cloud, 3.0)] {
        let ask = |order: &Value| {
            let mut command = mqtt::tool("mosquitto_rr", node, V5);
            command.args(["-q", "1", "-W", "30", "-t", "twin/water/valve/command/set", "-e", "answers/me"]);
            command.args(["-m", &order.to_string()]);
            serde_json::from_str::<Value>(&run(command).expect(0).stdout).unwrap()
        };
        let answer = ask(&json!({ "args": { "setpoint": setpoint }, "ttlMs": 20_000 }));
        assert_eq!(
            (&answer["outcome"], plant.valve.value("setpoint")),
            (&json!("succeeded"), json!(setpoint))
        );
        let refused = ask(&json!({ "args": { "setpoint": 3 } }));
        assert!(refused["detail"].as_str().unwrap().contains("a command needs an expiry"), "{refused}");
    }
}

#[test]
fn an_app_at_the_cloud_sets_a_device_of_an_edge() {
    let plant = Plant::start();
    mqtt::say(&plant.cluster.cloud, V5, "twin/water/valve/set/setpoint", r#"{"value": 2}"#);
    let id = ("water/valve", "setpoint");
    plant.cluster.cloud.twin_becomes(id, "/converged", json!(true));
    assert_eq!(plant.cluster.cloud.twin(id.0, id.1)["by"], "app");
    assert_eq!(plant.valve.value("setpoint"), json!(2.0));
}

/// What a client says that the node does not take: topic, payload, what the refusal names.
const NONSENSE: [(&str, &str, &str, &str); 9] = [
    ("twin/water/meter/report/count", "{\"value\":", "count", "malformed"),
    ("twin/water/meter/report/count", "1.5", "count", "1.5"),
    ("twin/water/meter/report/count", "\"many\"", "count", "many"),
    ("twin/water/meter/report/speed", "1", "speed", "speed"),
    ("twin/water/valve/set/position", "101", "position", "101 is outside 0 to 100"),
    ("twin/water/valve/set/position", "open", "position", "malformed"),
    ("twin/water/valve/set/position", "\"open\"", "position", "wrong type"),
    ("twin/water/valve/set/speed", "1", "speed", "speed"),
    ("twin/water/meter/set/count", "1", "count", "read-only"),
];

#[test]
fn nonsense_is_answered_on_the_result_topic_and_changes_nothing() {
    let plant = Plant::start();
    mqtt::say(&plant.a, V5, "twin/water/meter/report/count", "5");
    for version in VERSIONS {
        for (topic, payload, property, detail) in NONSENSE {
            let watcher = Subscriber::start(&plant.a, version, "twin/+/+/result");
            let result = format!("{}/result", topic.rsplitn(3, '/').last().unwrap());
            let ran = mqtt::publish(&plant.a, version, topic, payload);
            let answer = watcher.gets(&result, "/outcome", &json!("rejected")).json();
            assert_eq!(answer["property"], property, "{topic} {payload}: {answer}");
            assert!(answer["detail"].as_str().unwrap().contains(detail), "{topic} {payload}: {answer}");
            // MQTT 3.1.1 knows no refusal.
            let told = if version == V5 { "Payload format invalid" } else { "" };
            assert!(
                ran.stderr.contains(told) && ran.stderr.is_empty() == told.is_empty(),
                "{topic} {payload}: {ran:?}"
            );
        }
    }
    assert_eq!(plant.a.twin("water/meter", "count")["reported"]["value"], 5);
    assert_eq!(plant.valve.written(), []);
}

/// What only nodes may publish, and wishes that would act again long after they were meant.
const FORBIDDEN: [(&str, &str, &[&str], &str); 9] = [
    ("twin/water/meter/reported/count", "9", &[], "Not authorized"),
    ("twin/water/meter/reported/count", "9", &["-r"], "Not authorized"),
    (
        "twin/water/valve/desired/position",
        "{\"value\":9,\"version\":\"9.9\",\"issued\":0,\"by\":\"me\"}",
        &["-r"],
        "Not authorized",
    ),
    ("twin/water/valve/result", "{}", &[], "Not authorized"),
    ("twin/water/valve/state", "{}", &["-r"], "Not authorized"),
    ("mapper/virtual/write", "{}", &[], "Not authorized"),
    ("mapper/virtual/config", "{\"devices\":[]}", &["-r"], "Not authorized"),
    ("twin/water/valve/set/position", "9", &["-r"], "Implementation specific error"),
    ("twin/water/valve", "9", &[], "Topic Name invalid"),
];

#[test]
fn clients_do_not_speak_for_nodes_and_wishes_are_not_retained() {
    let plant = Plant::start();
    mqtt::say(&plant.a, V5, "twin/water/meter/report/count", "5");
    let everything = VERSIONS.map(|version| Subscriber::start(&plant.a, version, "#"));
    for version in VERSIONS {
        for (topic, payload, more, reason) in FORBIDDEN {
            let ran = mqtt::publish_with(&plant.a, version, topic, payload, more);
            let told = if version == V5 { reason } else { "" };
            assert!(
                ran.stderr.contains(told) && ran.stderr.is_empty() == told.is_empty(),
                "{topic}: {ran:?}"
            );
        }
    }
    // What is said after them has overtaken none of them.
    mqtt::say(&plant.a, V5, "twin/water/meter/report/count", "6");
    let late = Subscriber::start(&plant.a, V5, "twin/#");
    late.gets("twin/water/meter/reported/count", "/value", &json!(6));
    for subscriber in everything.iter().chain([&late]) {
        subscriber.gets("twin/water/meter/reported/count", "/value", &json!(6));
        for message in subscriber.messages() {
            let forbidden = |&(topic, payload, ..): &(&str, &str, &[&str], &str)| {
                message.topic == topic && message.payload == payload
            };
            assert!(!FORBIDDEN.iter().any(forbidden), "{message:?} was delivered");
        }
    }
    let refused = plant.a.ask(&["status"])["counters"]["mqtt_refused"].as_u64().unwrap();
    assert_eq!(refused, 2 * FORBIDDEN.len() as u64);
    assert_eq!(plant.valve.written(), []);
}

#[test]
fn a_deleted_device_leaves_nothing_retained() {
    let plant = Plant::start();
    let b = plant.cluster.edge("b");
    mqtt::say(&plant.a, V5, "twin/water/meter/report/count", "5");
    let topic = "twin/water/meter/reported/count";
    let watcher = Subscriber::start(&b, V5, "twin/water/meter/#");
    watcher.gets(topic, "/value", &json!(5));
    plant.cluster.cloud.say(&["delete", "device", "water/meter"]);
    let cleared = |subscriber: &Subscriber| {
        let last = subscriber.messages().into_iter().rfind(|m| m.topic == topic);
        last.map_or(Value::Null, |message| json!(message.payload))
    };
    becomes("the twin is cleared at b", &json!(""), || cleared(&watcher));
    for node in [&plant.a, &b, &plant.cluster.cloud] {
        becomes(&format!("nothing is retained at {}", node.name), &json!([]), || {
            let late = Subscriber::start(node, V5, "twin/water/#");
            late.gets("twin/water/valve/state", "/state", &json!("online"));
            let left = late.messages().into_iter().filter(|m| m.topic.starts_with("twin/water/meter/"));
            left.map(|m| json!(m.topic)).collect()
        });
    }
    assert_eq!(plant.a.twin("water/meter", "count"), Value::Null);
}
