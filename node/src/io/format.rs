//! Answers in the forms that fit every answer: all fields in columns (`-o wide`), and names alone (`-o name`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::table::{cell, table};

/// Columns of a wide table; what an answer has beyond them is seen with `-o json`.
const MAX_COLUMNS: usize = 24;

/// A row an item, a column a field, in the order of their first appearance. What is no list is as it is without.
pub(super) fn wide(document: &Value, as_table: fn(&Value) -> String) -> String {
    let Some(items) = document.as_array().filter(|items| items.iter().all(Value::is_object)) else {
        return as_table(document);
    };
    let rows: Vec<Vec<(String, String)>> = items.iter().map(|item| fields("", item)).collect();
    let mut columns: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if columns.len() < MAX_COLUMNS && !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    // Names before figures, as in every other table.
    columns.sort_by_key(|column| !NAMES.contains(column) && !column.starts_with("metadata."));
    let row = |fields: &Vec<(String, String)>| {
        let value =
            |column: &&str| fields.iter().find(|(name, _)| name == column).map(|(_, value)| value.clone());
        columns.iter().map(|column| value(column).unwrap_or_else(|| "-".to_owned())).collect()
    };
    let heads: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    table(&heads, &rows.iter().map(row).collect::<Vec<Vec<String>>>())
}

/// `spec.protocol.protocolName` and its value; of a list of objects how many there are.
fn fields(prefix: &str, item: &Value) -> Vec<(String, String)> {
    let members = item.as_object().into_iter().flatten();
    let of_one = |(key, value): (&String, &Value)| {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Object(_) => fields(&name, value),
            Value::Array(items) if items.iter().any(Value::is_object) => {
                vec![(name, format!("{} items", items.len()))]
            }
            Value::Array(items) if items.is_empty() => vec![(name, "-".to_owned())],
            Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                vec![(name, cell(value))]
            }
        }
    };
    members.flat_map(of_one).collect()
}

/// Fields that say which one an item is, the more exact first.
const NAMES: [&str; 9] = ["id", "name", "rule", "prefix", "device", "check", "cause", "node", "identity"];

/// One a line, as other commands take it: `kubebus get devices -o name | xargs -n1 kubebus delete device`.
pub(super) fn names(document: &Value) -> String {
    let mut told = BTreeSet::new();
    let names = named(document).into_iter().filter(|name| told.insert(name.clone()));
    names.collect::<Vec<_>>().join("\n")
}

fn named(document: &Value) -> Vec<String> {
    match document {
        Value::Array(items) => items.iter().flat_map(named).collect(),
        Value::Object(fields) => match name_of(document) {
            Some(name) => vec![name],
            None => fields.values().filter(|value| value.is_array()).flat_map(named).collect(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

fn name_of(item: &Value) -> Option<String> {
    let meta = &item["metadata"];
    if let Some(name) = meta["name"].as_str() {
        return Some(
            meta["namespace"].as_str().map_or(name.to_owned(), |namespace| format!("{namespace}/{name}")),
        );
    }
    NAMES.iter().find_map(|field| item[*field].as_str()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::table::any;
    use serde_json::json;

    #[test]
    fn names_are_what_other_commands_take() {
        let device = json!({ "metadata": { "namespace": "water", "name": "valve" } });
        let twins = json!([{ "device": "water/valve", "property": "a" }, { "device": "water/valve", "property": "b" }]);
        for (document, expected) in [
            (json!([device]), "water/valve"),
            (twins, "water/valve"),
            (json!([{ "id": "abc", "site": "plant" }, { "id": "def" }]), "abc\ndef"),
            (json!({ "healthy": false, "findings": [{ "cause": "dns", "about": "x" }] }), "dns"),
            (json!({ "node": "edge/a", "links": [] }), "edge/a"),
            (json!([]), ""),
        ] {
            assert_eq!(names(&document), expected, "{document}");
        }
    }

    #[test]
    fn a_wide_table_has_each_field() {
        let list = json!([
            { "connected": true, "name": "a", "lans": ["10.0.0.0/24"], "spec": { "site": "plant" } },
            { "connected": false, "name": "b", "tokens": [{}, {}] },
        ]);
        let expected = "\
NAME   CONNECTED   LANS          SPEC.SITE   TOKENS
a      true        10.0.0.0/24   plant       -
b      false       -             -           2 items";
        assert_eq!(wide(&list, any), expected);
        assert_eq!(wide(&json!({ "a": 1 }), any), any(&json!({ "a": 1 })));
    }
}
