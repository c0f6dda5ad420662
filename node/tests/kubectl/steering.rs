//! A valve is steered with stock kubectl, and says why it did not move.

use serde_json::{Value, json};

use super::Door;
use crate::harness::Node;
use crate::process::{becomes, eventually};
use crate::twins::Plant;

const VALVE: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/valve";

fn raw(door: &Door, path: &str) -> Value {
    serde_json::from_str(&door.say(&["get", "--raw", path])).unwrap()
}

/// Until the mapper hears it.
#[track_caller]
fn moves(plant: &Plant, position: f64) {
    becomes("the valve moves", &json!(position), || plant.valve.value("position"));
}

fn at(door: &Door, args: &[&str]) -> String {
    door.say(&[&["-n", "water"], args].concat())
}

fn tells(door: &Door, words: &[&str]) {
    eventually("describe tells why", || {
        let described = at(door, &["describe", "device/valve"]);
        let is_whole = words.iter().all(|word| described.contains(word));
        if is_whole { Ok(()) } else { Err(described) }
    });
}

#[test]
fn wishes_commands_and_events_go_over_stock_kubectl_at_the_cloud_and_at_an_edge_without_it() {
    let mut plant = Plant::start();
    let door = Door::open(&plant.cluster.cloud);
    let wish = |value: f64| {
        format!(
            "{{\"spec\":{{\"properties\":[{{\"name\":\"position\",\"desired\":{{\"value\":\"{value}\"}}}}]}}}}"
        )
    };
    at(&door, &["patch", "device/valve", "-p", &wish(40.0)]);
    moves(&plant, 40.0);
    let part = ["patch", "device/valve", "--subresource=desired", "--type=merge", "-p"];
    at(&door, &[&part[..], &["{\"spec\":{\"position\":55}}"]].concat());
    moves(&plant, 55.0);
    let desired = raw(&door, &format!("{VALVE}/desired"));
    assert_eq!((&desired["kind"], &desired["spec"]["position"]), (&json!("DeviceDesired"), &json!(55.0)));
    // The same id again, as after an answer that got lost.
    let mut body = json!({"metadata": {"annotations": {"kubebus.io/id": "k-1"}}, "spec": {"position": 30}});
    let put = |body: &Value| {
        door.run(&["replace", "--raw", &format!("{VALVE}/desired"), "-f", "-"], &body.to_string())
    };
    put(&body).expect(0);
    moves(&plant, 30.0);
    at(&door, &[&part[..], &["{\"spec\":{\"position\":35}}"]].concat());
    moves(&plant, 35.0);
    let written = plant.valve.written().len();
    put(&body).expect(0);
    body["spec"]["position"] = 31.into();
    assert!(put(&body).expect(1).stderr.contains("ids are given once"));
    let command = json!({"metadata": {"name": "c-1"}, "spec": {"command": "set", "args": {"position": 20}, "ttl": "30s"}});
    let commands = format!("{VALVE}/commands");
    door.run(&["create", "--raw", &commands, "-f", "-"], &command.to_string()).expect(0);
    moves(&plant, 20.0);
    assert_eq!(plant.valve.written().len(), written + 1, "what was sent twice moved once");
    becomes("the command has ended", &json!("succeeded"), || {
        raw(&door, &commands)["items"][0]["status"]["outcome"].clone()
    });
    let refused = door
        .run(&["create", "--raw", &commands, "-f", "-"], &json!({"spec": {"command": "set"}}).to_string());
    assert!(refused.expect(1).stderr.contains("spec.ttl"));
    assert_eq!(at(&door, &["auth", "can-i", "create", "devices/commands"]), "yes");
    // Its mapper goes: both nodes say so, and what was wished then.
    plant.stop_mapper();
    tells(&door, &["Offline"]);
    at(&door, &[&part[..], &["{\"spec\":{\"position\":60}}"]].concat());
    tells(&door, &["Superseded", "slot 12 (command c-1 by kubebus twin command) holds it"]);
    let edge = Door::open(&plant.a);
    plant.cluster.cloud.kill();
    without_the_cloud(&plant.a, &edge);
}

fn without_the_cloud(node: &Node, door: &Door) {
    tells(door, &["Offline", "Superseded"]);
    at(
        door,
        &[
            "patch",
            "device/valve",
            "--subresource=desired",
            "--type=merge",
            "-p",
            "{\"spec\":{\"setpoint\":2}}",
        ],
    );
    becomes("it is in force", &json!(2.0), || {
        let desired = raw(door, &format!("{VALVE}/desired"));
        let properties = desired["status"]["properties"].as_array().cloned().unwrap_or_default();
        let found = properties.into_iter().find(|property| property["name"] == "setpoint");
        found.map(|property| property["value"].clone()).unwrap_or_default()
    });
    assert_eq!(
        node.twin("water/valve", "setpoint")["desired"],
        Value::Null,
        "the operator of the site holds it"
    );
    let refused = door
        .complaint(&["-n", "water", "patch", "device/valve", "-p", "{\"spec\":{\"nodeName\":\"b\"}}"], "");
    assert!(
        refused.contains("spec.nodeName differs") && refused.contains("write this at cloud/cloud"),
        "{refused}"
    );
}
