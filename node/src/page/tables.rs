//! An answer of [`super::answer`] as the tables that a page holds.

use std::collections::BTreeSet;

use bus::UnixMillis;
use serde_json::{Map, Value};

use super::changes::{Changes, Row};

/// Nodes that a page is told of beside those it asks for, those that are not well first: a browser draws no more of them
/// in a second.
const MAX_NODES: usize = 500;

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
    /// This node, then those that are not well, then the rest.
    rows: Vec<Row>,
    beside: Map<String, Value>,
}

impl Nodes {
    /// Of the document that `/kubebus/v1/fleet` answers; `None` if it has none.
    pub(crate) fn new(mut fleet: Value) -> Option<Self> {
        let time = time(&fleet);
        let Value::Array(mut nodes) = take(&mut fleet, "nodes") else { return None };
        let is_well = |node: &Value| node["problems"].as_array().is_none_or(Vec::is_empty);
        nodes
            .sort_by_cached_key(|node| (node["node"] != fleet["me"], node["state"] != "lost", is_well(node)));
        let mut beside = beside(&mut fleet, &["cluster", "me"]);
        beside.insert("nodes_total".to_owned(), nodes.len().into());
        let rows = nodes.into_iter().map(|node| Row::new(&key(&node, "node"), node, time)).collect();
        Some(Self { rows, beside })
    }

    /// As many as a page shows, and in any case those in `wanted`.
    pub(crate) fn table(&self, wanted: &BTreeSet<String>) -> Changes {
        let (first, rest) = self.rows.split_at(self.rows.len().min(MAX_NODES));
        let asked = rest.iter().filter(|row| wanted.contains(&*row.key));
        let rows = first.iter().chain(asked).cloned().collect();
        Changes { table: "fleet", rows, beside: self.beside.clone() }
    }
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
    use serde_json::json;

    use super::*;

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

    #[test]
    fn of_a_large_fleet_the_ill_and_those_asked_for_are_told() {
        let node = |n: usize| {
            let state = if n == 1_999 { "lost" } else { "connected" };
            json!({"node": format!("edge/e{n}"), "state": state, "problems": if n == 1_500 { json!([1]) } else { json!([]) }})
        };
        let mut all = vec![json!({"node": "cloud/c", "state": "connected", "problems": []})];
        all.extend((0..2_000).map(node));
        let nodes = Nodes::new(json!({"me": "cloud/c", "cluster": "x", "time": 1, "nodes": all})).unwrap();
        let table = nodes.table(&BTreeSet::from(["edge/e1200".to_owned(), "edge/e0".to_owned()]));
        let keys: Vec<&str> = table.rows.iter().map(|row| &*row.key).collect();
        assert_eq!(
            (&keys[..3], keys[MAX_NODES]),
            (&["cloud/c", "edge/e1999", "edge/e1500"][..], "edge/e1200")
        );
        assert_eq!((keys.len(), &table.beside["nodes_total"]), (MAX_NODES + 1, &json!(2_001)));
        assert!(Nodes::new(json!({})).is_none());
    }
}
