//! An answer of [`super::answer`] as the tables that a page holds.

use serde_json::{Map, Value};

use super::changes::Changes;

/// A device's properties are rows of their own, so that one that changes costs no more than itself.
pub(crate) fn tables(mut shown: Value) -> Vec<Changes> {
    let (mut devices, mut twins) = (Vec::new(), Vec::new());
    for mut device in rows(take(&mut shown, "devices")) {
        let properties = take(&mut device, "properties");
        let key = key(&device, "device");
        twins.extend(rows(properties).map(|row| (format!("{key}/{}", self::key(&row, "property")), row)));
        devices.push((key, device));
    }
    let rules = rows(take(&mut shown, "rules")).map(|rule| (key(&rule, "rule"), rule)).collect();
    let about_devices = beside(&mut shown, &["found", "total", "plants"]);
    let about_rules = beside(&mut shown, &["rules_total"]);
    vec![
        Changes { table: "devices", rows: devices, beside: about_devices },
        Changes { table: "twins", rows: twins, beside: Map::new() },
        Changes { table: "rules", rows: rules, beside: about_rules },
    ]
}

/// The nodes of the document that `/kubebus/v1/fleet` answers; `None` if it has none.
pub(crate) fn nodes(fleet: &Value) -> Option<Changes> {
    let rows = fleet["nodes"].as_array()?.iter().map(|node| (key(node, "node"), node.clone())).collect();
    let beside = ["cluster", "me"].map(|field| (field.to_owned(), fleet[field].clone()));
    Some(Changes { table: "fleet", rows, beside: beside.into_iter().collect() })
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
            "devices": [device], "found": 1, "total": 9, "plants": [], "rules": [{"rule": "a/r"}], "rules_total": 1,
        });
        let tables: Vec<_> = tables(shown)
            .into_iter()
            .map(|Changes { table, rows, beside }| json!([table, rows, beside]))
            .collect();
        let expected = [
            json!(["devices", [["a/b", {"device": "a/b", "node": "edge/e"}]], {"found": 1, "total": 9, "plants": []}]),
            json!(["twins", [["a/b/p", {"property": "p", "age_ms": 3}]], {}]),
            json!(["rules", [["a/r", {"rule": "a/r"}]], {"rules_total": 1}]),
        ];
        assert_eq!(tables, expected);
    }
}
