//! An answer of [`super::answer`] as the tables that a page holds.

use std::collections::BTreeSet;

use bus::UnixMillis;
use serde_json::{Map, Value, json};

use super::changes::{Changes, Row};
use crate::health::fleet::{Fleet, FleetView, NodeView};
use crate::health::part::{Order, Part};

/// Nodes that a page is told of beside those it asks for, those that are not well first: more of them a browser does not
/// draw each second, and nobody reads.
const MAX_NODES: usize = 200;

/// A device's properties are rows of their own, so that one that changes costs no more than itself.
pub(crate) fn tables(mut shown: Value) -> Vec<Changes> {
    let time = time(&shown);
    let (mut devices, mut twins) = (Vec::new(), Vec::new());
    for mut device in rows(take(&mut shown, "devices")) {
        let properties = take(&mut device, "properties");
        let key = key(&device, "device");
        let property = |row: Value| Row::new(&format!("{key}/{}", self::key(&row, "property")), row, time);
        twins.extend(rows(properties).map(property));
        devices.push(Row::new(&key, device, time));
    }
    let rules =
        rows(take(&mut shown, "rules")).map(|rule| Row::new(&key(&rule, "rule"), rule, time)).collect();
    let about_devices = beside(&mut shown, &["found", "looked_into", "total", "plants"]);
    let about_rules = beside(&mut shown, &["rules_total"]);
    vec![
        Changes { table: "devices", rows: devices, beside: about_devices },
        Changes { table: "twins", rows: twins, beside: Map::new() },
        Changes { table: "rules", rows: rules, beside: about_rules },
    ]
}

/// The nodes of a fleet, made once for all pages.
#[derive(Debug)]
pub(crate) struct Nodes {
    fleet: Fleet,
    /// This node, then those that are not well, then the busiest.
    rows: Vec<Row>,
    beside: Map<String, Value>,
}

impl Nodes {
    /// Rows are made of no more nodes than a page shows, whatever the size of the fleet.
    pub(crate) fn new(fleet: Fleet) -> Self {
        let shown = fleet.view(&Part { order: Order::Ills, limit: Some(MAX_NODES), ..Part::default() });
        let beside = json!({
            "cluster": shown.cluster, "me": shown.me.to_string(), "nodes_total": shown.total,
            "nodes_connected": shown.connected, "nodes_unwell": shown.unwell,
        });
        let rows = node_rows(&shown);
        Self { fleet, rows, beside: beside.as_object().cloned().unwrap_or_default() }
    }

    /// As many as a page shows, and in any case those in `wanted`.
    pub(crate) fn table(&self, wanted: &BTreeSet<String>) -> Changes {
        let is_there = |node: &&String| self.rows.iter().any(|row| *row.key == ***node);
        let nodes: BTreeSet<String> = wanted.iter().filter(|node| !is_there(node)).cloned().collect();
        let mut rows = self.rows.clone();
        if !nodes.is_empty() {
            rows.extend(node_rows(&self.fleet.view(&Part {
                nodes,
                limit: Some(MAX_NODES),
                ..Part::default()
            })));
        }
        Changes { table: "fleet", rows, beside: self.beside.clone() }
    }
}

fn node_rows(shown: &FleetView) -> Vec<Row> {
    let row = |node: &NodeView| {
        Some(Row::new(&node.node.to_string(), serde_json::to_value(node).ok()?, shown.time))
    };
    shown.nodes.iter().filter_map(row).collect()
}

fn time(document: &Value) -> UnixMillis {
    UnixMillis(document["time"].as_u64().unwrap_or_default())
}

fn take(from: &mut Value, field: &str) -> Value {
    from.as_object_mut().and_then(|fields| fields.remove(field)).unwrap_or_default()
}

fn beside(from: &mut Value, fields: &[&str]) -> Map<String, Value> {
    fields.iter().map(|field| ((*field).to_owned(), take(from, field))).collect()
}

fn rows(value: Value) -> impl Iterator<Item = Value> {
    let rows = if let Value::Array(rows) = value { rows } else { Vec::new() };
    rows.into_iter()
}

fn key(row: &Value, field: &str) -> String {
    row[field].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::fleet::{Facts, Known, Presence};

    #[test]
    fn each_property_is_a_row_of_its_own() {
        let device =
            json!({"device": "a/b", "node": "edge/e", "properties": [{"property": "p", "age_ms": 3}]});
        let shown = json!({
            "time": 5, "devices": [device], "found": 1, "looked_into": 9, "total": 9, "plants": [], "rules": [{"rule": "a/r"}], "rules_total": 1,
        });
        let row = |key: &str, value: Value| Row::new(key, value, UnixMillis(5));
        let changes = |table, row, beside: Value| {
            let Value::Object(beside) = beside else { panic!("{beside}") };
            Changes { table, rows: vec![row], beside }
        };
        let about = json!({"found": 1, "looked_into": 9, "total": 9, "plants": []});
        let expected = [
            changes("devices", row("a/b", json!({"device": "a/b", "node": "edge/e"})), about),
            changes("twins", row("a/b/p", json!({"property": "p", "age_ms": 3})), json!({})),
            changes("rules", row("a/r", json!({"rule": "a/r"})), json!({"rules_total": 1})),
        ];
        assert_eq!(tables(shown), expected);
    }

    fn fleet(edges: usize) -> Fleet {
        let facts = |name: String, is_me, state| {
            let known = Known {
                is_me,
                node: name.parse().unwrap(),
                site: None,
                state,
                is_cut_off: false,
                since: None,
                heard_ms_ago: None,
                clock_offset_ms: None,
                behind: None,
            };
            Facts { known, condition: None }
        };
        let edge = |n: usize| {
            let is_late = n == edges - 500;
            let state = if n == edges - 1 { Presence::Lost } else { Presence::Connected };
            let mut facts = facts(format!("edge/e{n}"), false, state);
            if is_late {
                facts.known.clock_offset_ms = Some(3_600_000);
            }
            facts
        };
        let mut nodes = vec![facts("cloud/c".to_owned(), true, Presence::Connected)];
        nodes.extend((0..edges).map(edge));
        let name = |text: &str| bus::Name::new(text).unwrap();
        let me = bus::Identity { cluster: name("x"), node: "cloud/c".parse().unwrap() };
        Fleet::new(&me, UnixMillis(1), nodes)
    }

    #[test]
    fn of_a_large_fleet_the_ill_and_those_asked_for_are_told() {
        let nodes = Nodes::new(fleet(2_000));
        let table = nodes.table(&BTreeSet::from(["edge/e1200".to_owned(), "edge/e0".to_owned()]));
        let keys: Vec<&str> = table.rows.iter().map(|row| &*row.key).collect();
        assert_eq!(
            (&keys[..3], keys[MAX_NODES]),
            (&["cloud/c", "edge/e1999", "edge/e1500"][..], "edge/e1200")
        );
        assert_eq!(keys.len(), MAX_NODES + 1);
        let counts =
            ["nodes_total", "nodes_connected", "nodes_unwell"].map(|count| table.beside[count].clone());
        assert_eq!(counts, [json!(2_001), json!(2_000), json!(2)]);
    }
}
