//! Parts as tables, for `kubectl get --subresource`.

use serde_json::{Value, json};

use super::super::call::{Form, Include};
use super::super::list::{beside, partial};
use super::Part;

/// The part as the client wants to see it.
pub fn shown(part: Part, object: Value, form: Form) -> Value {
    match form {
        Form::Object => object,
        Form::Partial => partial(object),
        Form::Table(include) => table(part, &object, include),
    }
}

fn table(part: Part, object: &Value, include: Include) -> Value {
    let column = |name: &&str| json!({ "name": name, "type": "string", "format": "", "priority": 0, "description": "" });
    let columns: Vec<Value> = names(part).iter().map(column).collect();
    let row = |(cells, of): (Vec<Value>, &Value)| {
        let mut row = json!({ "cells": cells });
        if include != Include::None {
            row["object"] = beside(of.clone(), include);
        }
        row
    };
    let rows: Vec<Value> = rows(part, object).into_iter().map(row).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": columns, "rows": rows,
    })
}

fn names(part: Part) -> &'static [&'static str] {
    match part {
        Part::Desired => &["Property", "Desired", "Version", "By", "Since", "Outcome", "Detail"],
        Part::Commands => &["Id", "Command", "State", "Outcome", "By", "Given", "Detail"],
        Part::Authority => &["Holder", "Reason", "By", "Until"],
    }
}

/// The cells of each row, and the object that they are of.
fn rows(part: Part, object: &Value) -> Vec<(Vec<Value>, &Value)> {
    let each = |list: &'static str, fields: &'static [&'static str]| {
        let all = object.pointer(list).and_then(Value::as_array).into_iter().flatten();
        all.map(|one| (cells(one, fields), one)).collect::<Vec<_>>()
    };
    match part {
        Part::Desired => {
            let fields = &["/name", "/value", "/version", "/by", "/since", "/outcome", "/detail"];
            each("/status/properties", fields).into_iter().map(|(cells, _)| (cells, object)).collect()
        }
        Part::Commands => {
            let fields = &[
                "/metadata/name",
                "/spec/command",
                "/status/state",
                "/status/outcome",
                "/status/by",
                "/metadata/creationTimestamp",
                "/status/detail",
            ];
            // The answer to one that was given is that one.
            match object.get("items") {
                Some(_) => each("/items", fields),
                None => vec![(cells(object, fields), object)],
            }
        }
        Part::Authority => {
            vec![(cells(object, &["/spec/holder", "/spec/reason", "/status/by", "/status/until"]), object)]
        }
    }
}

fn cells(of: &Value, fields: &[&str]) -> Vec<Value> {
    let cell = |field: &&str| match of.pointer(field) {
        None | Some(Value::Null) => "<none>".into(),
        Some(Value::String(text)) => text.clone().into(),
        Some(other) => other.to_string().into(),
    };
    fields.iter().map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_property_or_a_command() {
        let desired = json!({
            "metadata": { "name": "valve" },
            "status": { "properties": [{ "name": "position", "value": 40, "version": "0.1", "by": "user/x" }] },
        });
        let rows = |part, object: &Value| {
            let shown = shown(part, object.clone(), Form::Table(Include::Metadata));
            let row = |row: &Value| (row["cells"].clone(), row["object"]["metadata"]["name"].clone());
            shown["rows"].as_array().unwrap().iter().map(row).collect::<Vec<_>>()
        };
        let none = "<none>";
        let cells = json!(["position", "40", "0.1", "user/x", none, none, none]);
        assert_eq!(rows(Part::Desired, &desired), [(cells, json!("valve"))]);
        let command = json!({ "metadata": { "name": "c-1" }, "spec": { "command": "set" } });
        let cells = json!(["c-1", "set", none, none, none, none, none]);
        let expected = [(cells, json!("c-1"))];
        assert_eq!(rows(Part::Commands, &command), expected);
        assert_eq!(rows(Part::Commands, &json!({ "items": [command] })), expected);
    }
}
