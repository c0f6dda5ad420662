//! Kills, restarts and orderly ends: what was acknowledged is there afterwards, and nothing stale moves anything.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Cluster, Node, SHIPPED_LINK};
use crate::mqtt::{self, Subscriber, V5, VERSIONS};
use crate::process::{becomes, eventually};
use crate::twins::Plant;

/// An orderly end is over by then.
const ORDERLY: Duration = Duration::from_secs(5);

/// Clearly before a silent peer is given up as shipped: a keepalive's time and some tries.
const GIVEN_UP: Duration = Duration::from_secs(30);

const COUNT: (&str, &str) = ("water/meter", "count");
const REPORT: &str = "twin/water/meter/report/count";
const REPORTED: &str = "twin/water/meter/reported/count";

#[test]
fn a_report_that_was_acknowledged_while_the_cloud_was_dead_reaches_it() {
    let mut plant = Plant::start();
    mqtt::say(&plant.a, V5, REPORT, "1");
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(1));
    plant.cluster.cloud.kill();
    mqtt::say(&plant.a, V5, REPORT, "2");
    plant.a.twin_becomes(COUNT, "/reported/value", json!(2));
    plant.cluster.cloud.start();
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(2));
    Subscriber::start(&plant.cluster.cloud, V5, REPORTED).gets(REPORTED, "/value", &json!(2));
}

#[test]
fn a_report_outlives_an_edge_that_is_killed_right_after_it() {
    let mut plant = Plant::start();
    for count in 1..=5 {
        mqtt::say(&plant.a, V5, REPORT, &count.to_string());
        plant.a.kill();
        plant.a.start();
        let message = Subscriber::start(&plant.a, V5, REPORTED).gets(REPORTED, "/value", &json!(count));
        assert!(message.retained, "{message:?}");
        plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(count));
    }
}

#[test]
fn no_acknowledged_report_is_lost_by_a_kill_in_the_middle_of_many() {
    let mut plant = Plant::start();
    for enough in [100, 250, 400] {
        let acknowledged = mqtt::count_until(&mut plant.a, REPORT, enough, Node::kill);
        assert!(acknowledged >= enough, "only {acknowledged} of {enough} were acknowledged");
        plant.a.start();
        let kept = plant.a.twin("water/meter", "count")["reported"]["value"].as_u64();
        assert!(kept >= Some(acknowledged), "{kept:?} is kept, {acknowledged} was acknowledged");
        plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(kept));
        mqtt::say(&plant.a, V5, REPORT, "0");
    }
}

/// A stateless reset tells of the restart (RFC 9000 §10.3), where silence would need 45 s.
#[test]
fn a_cloud_that_was_killed_is_found_again_before_its_edges_give_it_up() {
    let mut cluster = Cluster::start_with(SHIPPED_LINK);
    let _edges = ["a", "b"].map(|name| cluster.edge(name));
    cluster.cloud.kill();
    cluster.cloud.start();
    let start = Instant::now();
    for edge in ["a", "b"] {
        cluster.in_step(edge);
    }
    assert!(start.elapsed() < GIVEN_UP, "{:?}", start.elapsed());
}

#[test]
fn a_report_outlives_both_ends() {
    let mut plant = Plant::start();
    plant.cluster.cloud.kill();
    mqtt::say(&plant.a, V5, REPORT, "8");
    plant.a.kill();
    plant.a.start();
    plant.a.twin_becomes(COUNT, "/reported/value", json!(8));
    plant.cluster.cloud.start();
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(8));
}

#[test]
fn a_wish_that_was_acknowledged_outlives_the_cloud() {
    let mut plant = Plant::start();
    plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "3"]);
    plant.cluster.cloud.kill();
    plant.cluster.cloud.start();
    let id = ("water/valve", "setpoint");
    assert_eq!(plant.cluster.cloud.twin(id.0, id.1)["desired"], json!(3.0));
    plant.cluster.cloud.twin_becomes(id, "/converged", json!(true));
    assert_eq!(plant.valve.value("setpoint"), json!(3.0));
}

#[test]
fn an_edge_that_returns_takes_a_setting_and_moves_no_actuator() {
    let mut plant = Plant::start();
    plant.a.kill();
    let cloud = &plant.cluster.cloud;
    cloud.say(&["twin", "set", "water/valve", "position", "90"]);
    cloud.say(&["twin", "set", "water/valve", "setpoint", "4.5"]);
    // Longer than the position is meant: age is what this is about.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(plant.valve.written(), []);
    plant.a.start();

    let (position, setpoint) = (("water/valve", "position"), ("water/valve", "setpoint"));
    let cloud = &plant.cluster.cloud;
    cloud.twin_becomes(position, "/ack/outcome", json!("expired"));
    cloud.twin_becomes(setpoint, "/ack/outcome", json!("succeeded"));
    cloud.twin_becomes(setpoint, "/reported/value", json!(4.5));
    let ack = cloud.twin(position.0, position.1)["ack"].clone();
    assert_eq!(ack["version"], "0.1");
    assert!(ack["detail"].as_str().unwrap().contains("set it again"), "{ack}");
    assert_eq!(plant.valve.written(), [("setpoint".to_owned(), json!(4.5))]);

    // Meant again, it is done.
    cloud.say(&["twin", "set", "water/valve", "position", "90"]);
    cloud.twin_becomes(position, "/ack/version", json!("0.2"));
    cloud.twin_becomes(position, "/converged", json!(true));
    assert_eq!(plant.valve.value("position"), json!(90.0));
}

#[test]
fn a_restart_moves_nothing_and_forgets_nothing() {
    let mut plant = Plant::start();
    let b = plant.cluster.edge("b");
    plant.cluster.cloud.say(&["twin", "set", "water/valve", "position", "40"]);
    plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "2.5"]);
    mqtt::say(&plant.a, V5, REPORT, "17");
    for (property, value) in [("position", 40.0), ("setpoint", 2.5)] {
        plant.cluster.cloud.twin_becomes(("water/valve", property), "/converged", json!(true));
        plant.cluster.cloud.twin_becomes(("water/valve", property), "/reported/value", json!(value));
    }
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(17));
    let before = memory(&plant.cluster);
    let written = plant.valve.written();

    let mut b = b;
    plant.cluster.cloud.kill();
    for edge in [&mut plant.a, &mut b] {
        edge.kill();
        edge.start();
    }
    plant.cluster.cloud.start();
    for edge in ["a", "b"] {
        plant.cluster.in_step(edge);
    }
    becomes("the cloud knows all it knew", &before, || memory(&plant.cluster));
    plant.a.twin_becomes(COUNT, "/reported/value", json!(17));
    plant.a.twin_becomes(("water/valve", "position"), "/reported/quality", json!("good"));
    assert_eq!(plant.valve.written(), written, "a start writes to no device");
}

/// What must outlive every restart. Times and ages go on, and are left out.
fn memory(cluster: &Cluster) -> Value {
    let cloud = &cluster.cloud;
    let kept = ["device", "property", "desired", "version", "by", "ack", "converged"];
    let twins = cloud.ask(&["twin", "get"]);
    let twins: Vec<Vec<Value>> = twins
        .as_array()
        .unwrap()
        .iter()
        .map(|twin| {
            let fields = kept.iter().map(|field| twin[*field].clone());
            fields.chain([twin["reported"]["value"].clone()]).collect()
        })
        .collect();
    let kinds = ["nodes", "devices", "devicemodels", "twinpolicies", "rules"];
    json!([twins, kinds.map(|kind| cloud.ask(&["get", kind]))])
}

#[test]
fn an_edge_that_is_told_to_stop_says_goodbye() {
    let cluster = Cluster::start_with(SHIPPED_LINK);
    let mut edge = cluster.edge("a");
    assert!(cluster.is_connected("a"));
    let (status, took) = edge.terminate();
    assert!(status.success() && took < ORDERLY, "{status} after {took:?}");
    // At once, where a timeout would need 45 s.
    let start = Instant::now();
    eventually("the cloud sees it go", || {
        if cluster.is_connected("a") { Err("still there".into()) } else { Ok(()) }
    });
    assert!(start.elapsed() < ORDERLY, "{:?}", start.elapsed());
    edge.run(&["status"]).refused(3, &["no kubebus runs under"]);
    edge.start();
    cluster.in_step("a");
}

#[test]
fn a_cloud_that_is_told_to_stop_says_goodbye() {
    let mut cluster = Cluster::start_with(SHIPPED_LINK);
    let edges = ["a", "b"].map(|name| cluster.edge(name));
    let (status, took) = cluster.cloud.terminate();
    assert!(status.success() && took < ORDERLY, "{status} after {took:?}");
    let start = Instant::now();
    for edge in &edges {
        becomes("the edge sees it go", &json!(false), || edge.ask(&["status"])["cloud"]["connected"].clone());
    }
    assert!(start.elapsed() < ORDERLY, "{:?}", start.elapsed());
    cluster.cloud.start();
    for edge in ["a", "b"] {
        cluster.in_step(edge);
    }
}

#[test]
fn what_was_acknowledged_before_an_orderly_end_is_kept() {
    let mut plant = Plant::start();
    mqtt::say(&plant.a, V5, REPORT, "3");
    assert!(plant.a.terminate().0.success());
    assert!(plant.cluster.cloud.terminate().0.success());
    plant.cluster.cloud.start();
    plant.a.start();
    plant.a.twin_becomes(COUNT, "/reported/value", json!(3));
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(3));
}

/// MQTT 5.0 has a word for it, upon which mosquitto_sub ends; one of 3.1.1 comes back by itself.
#[test]
fn clients_of_a_node_that_stops_are_told_or_come_back() {
    let plant = Plant::start();
    let mut a = plant.a;
    let [simple, told] = VERSIONS.map(|version| Subscriber::start(&a, version, "twin/#"));
    assert!(a.terminate().0.success());
    told.remarks("Received DISCONNECT (139)"); // server shutting down
    a.start();
    comes_back(&simple, &a);
}

#[test]
fn clients_of_a_killed_node_come_back() {
    let plant = Plant::start();
    let mut a = plant.a;
    let both = VERSIONS.map(|version| Subscriber::start(&a, version, "twin/#"));
    a.kill();
    a.start();
    both.iter().for_each(|subscriber| comes_back(subscriber, &a));
}

/// Waits until a subscriber hears what is reported from now on.
#[track_caller]
fn comes_back(subscriber: &Subscriber, node: &Node) {
    let before = subscriber.messages().len();
    eventually("the subscriber is back", || {
        mqtt::say(node, V5, REPORT, "4");
        let messages = subscriber.messages().split_off(before);
        let heard = messages.iter().any(|m| m.topic == REPORTED && m.json()["value"] == 4);
        if heard { Ok(()) } else { Err(format!("{messages:?}")) }
    });
}

#[test]
fn sites_hear_each_other_again_after_the_cloud_was_killed() {
    let mut plant = Plant::start();
    let b = plant.cluster.edge("b");
    let [mesh, twin] = ["mesh/#", REPORTED].map(|filter| Subscriber::start(&b, V5, filter));
    plant.cluster.cloud.kill();
    plant.cluster.cloud.start();
    for edge in ["a", "b"] {
        plant.cluster.in_step(edge);
    }
    mqtt::say(&plant.a, V5, REPORT, "6");
    twin.gets(REPORTED, "/value", &json!(6));
    eventually("the mesh is whole again", || {
        mqtt::say(&plant.a, V5, "mesh/news", "1");
        if mesh.messages().is_empty() { Err("silence".to_owned()) } else { Ok(()) }
    });
}

#[test]
fn a_site_works_without_the_cloud() {
    let mut plant = Plant::start();
    plant.cluster.apply(FOLLOW_THE_COUNT);
    mqtt::say(&plant.a, V5, REPORT, "20");
    let position = ("water/valve", "position");
    plant.a.twin_becomes(position, "/reported/value", json!(20.0));

    plant.cluster.cloud.kill();
    mqtt::say(&plant.a, V5, REPORT, "30");
    plant.a.twin_becomes(position, "/reported/value", json!(30.0));
    // Also after a power cut, from its own disk.
    plant.a.kill();
    plant.a.start();
    plant.a.twin_becomes(position, "/reported/quality", json!("good"));
    mqtt::say(&plant.a, V5, REPORT, "35");
    plant.a.twin_becomes(position, "/reported/value", json!(35.0));
    let values: Vec<Value> = plant.valve.written().into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, [20.0, 30.0, 35.0].map(|value| json!(value)));
}

/// The valve opens as far as the meter has counted.
const FOLLOW_THE_COUNT: &str = "\
apiVersion: kubebus.io/v1alpha1
kind: Rule
metadata: {name: follow, namespace: water}
spec:
  inputs:
    count: {device: meter, property: count, maxAge: 60s}
  output: {device: valve, property: position, slot: 10, ttl: 60s}
  onUnknown: hold
  cases:
    - then: {value: {input: count, gain: 1, min: 0, max: 100}}
";

#[test]
fn events_tell_of_a_clouds_restart_and_of_the_edge_that_came_back() {
    let mut cluster = Cluster::start();
    let _a = cluster.edge("a");
    cluster.in_step("a");
    cluster.cloud.kill();
    cluster.cloud.start();
    cluster.in_step("a");
    let told = cluster.cloud.ask(&["describe", "node", "a"]);
    let events = told["events"].as_array().unwrap_or_else(|| panic!("{told}"));
    let of = |reason: &str| {
        let found = events.iter().find(|event| event["reason"] == reason);
        found.unwrap_or_else(|| panic!("no {reason} in {told}")).clone()
    };
    let (gone, back) = (of("Disconnected"), of("Connected"));
    assert_eq!((&gone["type"], &gone["message"]), (&json!("Warning"), &json!("the cloud was restarted")));
    assert_eq!((&back["type"], &back["count"]), (&json!("Normal"), &json!(2)), "{told}");
    assert!(gone["lastTimestamp"].as_str() <= back["lastTimestamp"].as_str(), "{told}");
}
