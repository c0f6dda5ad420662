//! Clients that speak KubeEdge's MQTT topics, with mosquitto's tools, at a real edge: an app, and a mapper as they were
//! before DMI.

use serde_json::{Value, json};

use crate::harness::{Cluster, Node};
use crate::mqtt::{self, Message, Subscriber, V5, VERSIONS};
use crate::process::eventually;

/// As KubeEdge has them: nothing of ours but the policy that says what is an actuator.
const MANIFESTS: &str = "\
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: thermostat, namespace: default}
spec:
  properties:
    - {name: temperature, type: INT, accessMode: ReadWrite, minimum: '-50', maximum: '100'}
    - {name: remarks, type: STRING, accessMode: ReadOnly}
    - {name: valve, type: INT, accessMode: ReadWrite}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: thermostat, namespace: default}
spec:
  deviceModelRef: {name: thermostat}
  nodeName: a
  protocol: {protocolName: gpio}
---
apiVersion: kubebus.io/v1alpha1
kind: TwinPolicy
metadata: {name: valve, namespace: default}
spec: {model: thermostat, property: valve, actuator: true, desiredMaxAge: 30s}
";

const LONG: &str = "$hw/events/device/default/thermostat";
const SHORT: &str = "$hw/events/device/thermostat";

/// An edge with a thermostat, known there.
#[track_caller]
fn plant() -> (Cluster, Node) {
    let cluster = Cluster::start();
    let a = cluster.edge("a");
    cluster.apply(MANIFESTS);
    a.twin_becomes(("default/thermostat", "valve"), "/writable", json!(true));
    (cluster, a)
}

/// The first message on `topic` that answers `event_id`.
#[track_caller]
fn answer(subscriber: &Subscriber, topic: &str, event_id: &str) -> Message {
    subscriber.gets(topic, "/event_id", &json!(event_id))
}

/// What all subscribers of a kind heard, in order, by the last levels of its topic.
fn verbs(subscriber: &Subscriber, address: &str) -> Vec<String> {
    let messages = subscriber.messages();
    messages.iter().filter_map(|m| m.topic.strip_prefix(address).map(str::to_owned)).collect()
}

#[test]
fn kubeedge_clients_of_both_ages_update_read_and_are_refused() {
    let (cluster, a) = plant();
    for (number, (version, address)) in VERSIONS.into_iter().zip([SHORT, LONG]).enumerate() {
        let listener = Subscriber::start(&a, version, &format!("{address}/#"));
        let all = Subscriber::start(&a, version, "#");
        let (actual, expected) = ((20 + number).to_string(), (30 + number).to_string());
        let update = json!({ "event_id": "e1", "timestamp": 0, "twin": {
            "temperature": { "actual": { "value": actual }, "metadata": { "type": "int" } },
            "remarks": { "actual": { "value": "50 % größer" } },
        }});
        mqtt::say(&a, version, &format!("{address}/twin/update"), &update.to_string());
        let wish =
            json!({ "event_id": "e2", "twin": { "temperature": { "expected": { "value": expected } } } });
        mqtt::say(&a, version, &format!("{address}/twin/update"), &wish.to_string());
        let delta =
            listener.gets(&format!("{address}/twin/update/delta"), "/delta/temperature", &json!(expected));
        assert_eq!(delta.json().pointer("/twin/temperature/actual/value"), Some(&json!(actual)));
        let order = ["/twin/update/result", "/twin/update/document"].repeat(2);
        assert_eq!(verbs(&listener, address), [&order[..], &["/twin/update/delta"]].concat());

        mqtt::say(&a, version, &format!("{address}/twin/get"), r#"{"event_id":"g1","timestamp":0}"#);
        let got = answer(&listener, &format!("{address}/twin/get/result"), "g1").json();
        assert_eq!(got.pointer("/twin/temperature/expected/value"), Some(&json!(expected)), "{got}");
        assert_eq!(got.pointer("/twin/remarks/actual/value"), Some(&json!("50 % größer")), "{got}");

        mqtt::publish(
            &a,
            version,
            &format!("{address}/twin/update"),
            r#"{"event_id":"e3","twin":{"humidity":null}}"#,
        );
        let refused = answer(&listener, &format!("{address}/twin/update/result"), "e3").json();
        assert_eq!(refused["code"], 400, "{refused}");
        cluster.cloud.twin_becomes(
            ("default/thermostat", "temperature"),
            "/reported/value",
            json!(20 + number),
        );
        let back = r#"{"event_id":"e4","twin":{"temperature":{"expected":{"value":""}}}}"#;
        mqtt::say(&a, version, &format!("{address}/twin/update"), back);
        assert!(
            all.messages().iter().all(|m| !m.topic.starts_with('$')),
            "a wildcard at the start hears no $"
        );
    }
}

#[test]
fn a_mapper_from_before_dmi_carries_out_what_the_cloud_wishes() {
    let (cluster, a) = plant();
    let results = Subscriber::start(&cluster.cloud, V5, "twin/default/thermostat/result");
    let _watcher = Subscriber::start(&a, V5, "$hw/#");
    let mapper = Subscriber::start(&a, "mqttv311", &format!("{SHORT}/twin/update/delta"));
    mqtt::say(
        &a,
        "mqttv311",
        &format!("{SHORT}/state/update"),
        r#"{"event_id":"","timestamp":0,"state":"online"}"#,
    );
    a.twin_becomes(("default/thermostat", "valve"), "/state/state", json!("online"));
    cluster.cloud.say(&["twin", "set", "default/thermostat", "valve", "40"]);
    mapper.gets(&format!("{SHORT}/twin/update/delta"), "/delta", &json!({ "valve": "40" }));
    let report = json!({ "event_id": "", "timestamp": 0, "twin": {
        "valve": { "actual": { "value": "40" }, "metadata": { "type": "string" } } }});
    mqtt::say(&a, "mqttv311", &format!("{SHORT}/twin/update"), &report.to_string());
    for (pointer, expected) in
        [("/reported/value", json!(40)), ("/converged", json!(true)), ("/ack/outcome", json!("succeeded"))]
    {
        cluster.cloud.twin_becomes(("default/thermostat", "valve"), pointer, expected);
    }
    drop(mapper);
    a.twin_becomes(("default/thermostat", "valve"), "/reported/quality", json!("bad"));
    drop(results);
}

#[test]
fn a_node_tells_its_members_and_a_cloud_that_it_serves_none() {
    let (cluster, a) = plant();
    let listener = Subscriber::start(&a, V5, "$hw/events/node/a/membership/#");
    mqtt::say(&a, V5, "$hw/events/node/a/membership/get", r#"{"event_id":"m1","timestamp":0}"#);
    let members = answer(&listener, "$hw/events/node/a/membership/get/result", "m1").json();
    assert_eq!(members.pointer("/devices/0/id"), Some(&json!("default/thermostat")), "{members}");
    let other = MANIFESTS.split("---").nth(1).unwrap().replacen("name: thermostat", "name: second", 1);
    cluster.apply(&other);
    let added = json!([{ "id": "default/second", "name": "second" }]);
    listener.gets("$hw/events/node/a/membership/updated", "/added_devices", &added);
    let there = Subscriber::start(&cluster.cloud, V5, "$hw/#");
    eventually("the cloud answers", || {
        mqtt::publish(&cluster.cloud, V5, &format!("{LONG}/twin/get"), r#"{"event_id":"g1"}"#);
        let heard = there.messages().iter().map(Message::json).find(|body: &Value| body["event_id"] == "g1");
        let reason = heard.ok_or("nothing")?["reason"].to_string();
        if reason.contains("served at edges") { Ok(()) } else { Err(reason) }
    });
}
