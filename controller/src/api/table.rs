//! Tables, as `kubectl get` shows them: made here, so that any client has the same columns.

use serde_json::{Value, json};

use super::Kind;
use super::call::Include;
use super::kind::Column;
use super::list::beside;

/// `metav1.Table` of these objects.
pub fn of(kind: Kind, objects: &[Value], include: Include, metadata: Value) -> Value {
    let rows: Vec<Value> = objects.iter().map(|object| row(kind, object, include)).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns(kind), "rows": rows,
    })
}

/// A row alone: what a watch says after its first.
pub(super) fn row_only(kind: Kind, object: &Value, include: Include) -> Value {
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1",
        "metadata": { "resourceVersion": object["metadata"]["resourceVersion"] },
        "columnDefinitions": null, "rows": [row(kind, object, include)],
    })
}

pub(super) fn row(kind: Kind, object: &Value, include: Include) -> Value {
    let cells: Vec<Value> = kind.info().columns.iter().map(|column| (column.cell)(object)).collect();
    let mut row = json!({ "cells": cells });
    if include != Include::None {
        row["object"] = beside(object, include);
    }
    row
}

pub(super) fn columns(kind: Kind) -> Vec<Value> {
    let column = |column: &Column| {
        let format = if column.name == "Name" { "name" } else { "" };
        json!({
            "name": column.name, "type": column.kind, "format": format, "priority": column.priority,
            "description": "",
        })
    };
    kind.info().columns.iter().map(column).collect()
}
