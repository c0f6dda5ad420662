//! Everything that is known of one object, for people: what it is to be, how it is, who decided what, and what happened.

use anyhow::Result;
use controller::api::Kind;
use serde_json::{Map, Value};

use super::{DescribeArgs, full_name, helped, path_of, path_to, split};
use crate::io::commands::{fetch, show};
use crate::io::table::{cell, commands, decisions, rows, table, twins};

/// The newest of them; `kubebus twin audit` has all.
const DECISIONS: usize = 10;

pub(super) async fn run(args: &DescribeArgs) -> Result<()> {
    let DescribeArgs { kind, name, ask } = args;
    let object = fetch(&ask.place, &path_to(*kind, name)).await;
    let object = object.map_err(|error| helped(error, *kind))?;
    let mut known = Map::new();
    known.insert("object".to_owned(), tidied(object));
    let more = match kind {
        Kind::Device => of_device(name),
        Kind::EdgeNode => of_node(),
        Kind::DeviceModel
        | Kind::TwinPolicy
        | Kind::Rule
        | Kind::AccessPolicy
        | Kind::Host
        | Kind::Site
        | Kind::Route
        | Kind::WireGuardPeer
        | Kind::JoinToken
        | Kind::User
        | Kind::Event
        | Kind::Namespace => Vec::new(),
    };
    for (part, path) in more {
        // What a node does not keep, as a cloud keeps no history, is no reason to show nothing.
        if let Ok(answer) = fetch(&ask.place, &path).await {
            known.insert(part.to_owned(), chosen(part, name, answer));
        }
    }
    let events = fetch(&ask.place, &path_of(Kind::Event)).await.unwrap_or_default();
    known.insert("events".to_owned(), events_of(*kind, name, &events));
    show(&Value::Object(known), ask.output, told)
}

type Parts = Vec<(&'static str, String)>;

fn of_device(name: &str) -> Parts {
    let (namespace, name) = split(name);
    let device = format!("{namespace}/{name}");
    vec![
        ("twins", format!("/kubebus/v1/twins/{device}")),
        ("rules", "/kubebus/v1/rules".to_owned()),
        ("commands", format!("/kubebus/v1/commands/{device}")),
        ("decisions", format!("/kubebus/v1/audit/{device}?limit={DECISIONS}")),
    ]
}

fn of_node() -> Parts {
    vec![
        ("node", "/kubebus/v1/fleet".to_owned()),
        ("routes", "/kubebus/v1/routes".to_owned()),
        ("devices", "/kubebus/v1/resources/device".to_owned()),
    ]
}

/// Of an answer about all, what is about this one.
fn chosen(part: &str, name: &str, answer: Value) -> Value {
    let edge = format!("edge/{name}");
    let keep = |list: &Value, is_it: &dyn Fn(&Value) -> bool| -> Value {
        list.as_array().into_iter().flatten().filter(|item| is_it(item)).cloned().collect()
    };
    match part {
        "node" => keep(&answer["nodes"], &|node| node["node"] == edge.as_str())[0].clone(),
        "routes" => keep(&answer, &|route| route["owner"] == edge.as_str()),
        "devices" => keep(&answer, &|device| device["spec"]["nodeName"] == name),
        "rules" => {
            let (namespace, name) = split(name);
            let device = format!("{namespace}/{name}/");
            keep(&answer, &|rule| rule["output"].as_str().is_some_and(|output| output.starts_with(&device)))
        }
        _ => answer,
    }
}

fn events_of(kind: Kind, name: &str, events: &Value) -> Value {
    let (namespace, plain) = if kind.info().namespaced { split(name) } else { ("", name) };
    let is_its = |event: &&Value| {
        let about = &event["involvedObject"];
        let same_namespace = namespace.is_empty() || about["namespace"] == namespace;
        about["kind"] == kind.info().kind && about["name"] == plain && same_namespace
    };
    events["items"].as_array().into_iter().flatten().filter(is_its).cloned().collect()
}

/// Without what only programs read.
fn tidied(mut object: Value) -> Value {
    if let Some(meta) = object["metadata"].as_object_mut() {
        meta.remove("managedFields");
    }
    object
}

fn told(known: &Value) -> String {
    let object = &known["object"];
    let head = table(&[&cell(&object["kind"]), &full_name(object)], &facts(object));
    let node = Some(&known["node"]).filter(|node| node.is_object());
    let sections = [
        Some(head),
        section("SPEC", yaml(&object["spec"])),
        section("STATUS", yaml(&without_twins(&object["status"]))),
        list(&known["twins"]).map(twins),
        node.map(of_fleet),
        list(&known["rules"])
            .and_then(|list| section("RULES THAT WRITE TO IT", crate::io::table::rules(list))),
        list(&known["routes"]).and_then(|list| section("BEHIND IT", routes(list))),
        list(&known["devices"]).and_then(|list| section("DEVICES", crate::io::table::resources(list))),
        list(&known["commands"]).and_then(|list| section("COMMANDS", commands(list))),
        list(&known["decisions"]).and_then(|list| section("DECISIONS, THE NEWEST FIRST", decisions(list))),
        list(&known["events"]).and_then(|list| section("EVENTS", events(list))),
    ];
    sections.into_iter().flatten().collect::<Vec<_>>().join("\n\n")
}

fn facts(object: &Value) -> Vec<Vec<String>> {
    let meta = &object["metadata"];
    let labels = meta["labels"].as_object().into_iter().flatten();
    let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={}", cell(value))).collect();
    let facts = [
        ("created", cell(&meta["creationTimestamp"])),
        ("version", cell(&meta["resourceVersion"])),
        ("labels", if labels.is_empty() { "-".to_owned() } else { labels.join(",") }),
    ];
    facts.into_iter().map(|(key, value)| vec![key.to_owned(), value]).collect()
}

/// They have a table of their own.
fn without_twins(status: &Value) -> Value {
    let mut status = status.clone();
    if let Some(fields) = status.as_object_mut() {
        fields.remove("twins");
    }
    status
}

fn yaml(value: &Value) -> String {
    let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
    if is_empty {
        String::new()
    } else {
        serde_saphyr::to_string(value).unwrap_or_default().trim_end().to_owned()
    }
}

fn section(title: &str, text: String) -> Option<String> {
    (!text.is_empty()).then(|| format!("{title}\n{text}"))
}

fn list(value: &Value) -> Option<&Value> {
    value.as_array().filter(|items| !items.is_empty()).map(|_| value)
}

/// What the fleet knows of it: how it is, its links, and what is wrong.
fn of_fleet(node: &Value) -> String {
    let keys = ["state", "heard_ms_ago", "version", "disk", "clock_offset_ms", "sync", "twins", "last_error"];
    let health = table(&["HEALTH", ""], &keys.map(|key| vec![key.to_owned(), cell(&node[key])]));
    let row = |link: &Value| {
        ["peer", "lane", "path", "remote", "rtt_ms", "loss_percent", "mtu"].map(|key| cell(&link[key])).into()
    };
    let links = table(&["PEER", "LANE", "PATH", "AT", "RTT ms", "LOSS %", "MTU"], &rows(&node["links"], row));
    let problems = node["problems"].as_array().into_iter().flatten();
    let problems =
        problems.map(|problem| format!("\n{}: {}", cell(&problem["text"]), cell(&problem["advice"])));
    format!("{health}\n\n{links}{}", problems.collect::<String>())
}

fn routes(list: &Value) -> String {
    let keys = ["prefix", "real", "kind", "state"];
    table(
        &["PREFIX", "STANDS FOR", "KIND", "STATE"],
        &rows(list, |route| keys.map(|key| cell(&route[key])).into()),
    )
}

fn events(list: &Value) -> String {
    let keys = ["lastTimestamp", "type", "reason", "count", "message"];
    table(
        &["LAST", "TYPE", "REASON", "COUNT", "MESSAGE"],
        &rows(list, |event| keys.map(|key| cell(&event[key])).into()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_device_is_told_with_its_twins_decisions_and_events() {
        let meta = json!({ "namespace": "water", "name": "valve", "resourceVersion": "8", "creationTimestamp": "then",
                           "managedFields": [{}] });
        let object = json!({ "kind": "Device", "metadata": meta, "spec": { "nodeName": "a" }, "status": { "twins": [] } });
        let about = |name: &str| json!({ "kind": "Device", "namespace": "water", "name": name });
        let event = |name: &str| json!({ "involvedObject": about(name), "reason": name, "count": 2 });
        let all = json!({ "items": [event("valve"), event("pump")] });
        let known =
            json!({ "object": tidied(object), "events": events_of(Kind::Device, "water/valve", &all) });
        let expected = "\
Device    water/valve
created   then
version   8
labels    -

SPEC
nodeName: a

EVENTS
LAST   TYPE   REASON   COUNT   MESSAGE
-      -      valve    2       -";
        assert_eq!(told(&known), expected);
    }

    #[test]
    fn of_what_is_about_all_only_its_own_is_shown() {
        let rules = json!([{ "output": "water/valve/position" }, { "output": "water/valve-2/position" }]);
        assert_eq!(chosen("rules", "water/valve", rules.clone()), json!([rules[0]]));
        let fleet = json!({ "nodes": [{ "node": "edge/b" }, { "node": "edge/a", "disk": "ok" }] });
        assert_eq!(chosen("node", "a", fleet), json!({ "node": "edge/a", "disk": "ok" }));
        let devices = json!([{ "spec": { "nodeName": "a" } }, { "spec": { "nodeName": "b" } }]);
        assert_eq!(chosen("devices", "b", devices), json!([{ "spec": { "nodeName": "b" } }]));
    }
}
