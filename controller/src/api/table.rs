//! Tables, as `kubectl get` shows them: made here, so that any client has the same columns.

use std::time::UNIX_EPOCH;

use bus::UnixMillis;
use metadata::Revision;
use serde_json::{Value, json};

use super::Kind;
use super::call::Include;
use super::kind::Column;
use super::list::beside;
use super::look::write;

/// `metav1.Table` of one object.
pub fn of(kind: Kind, object: Value, include: Include, now: UnixMillis) -> Value {
    let metadata = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns(kind), "rows": [row(kind, object, include, now)],
    })
}

/// Writes a table of one row that is written already: what a watch says. Its columns are told once.
pub(super) fn write_row(kind: Kind, with_columns: bool, version: Revision, row: &[u8], into: &mut Vec<u8>) {
    let columns = if with_columns { Value::from(columns(kind)) } else { Value::Null };
    into.extend_from_slice(
        br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":""#,
    );
    into.extend_from_slice(version.0.to_string().as_bytes());
    into.extend_from_slice(br#""},"columnDefinitions":"#);
    write(&columns, into);
    into.extend_from_slice(br#","rows":["#);
    into.extend_from_slice(row);
    into.extend_from_slice(b"]}");
}

pub(super) fn row(kind: Kind, object: Value, include: Include, now: UnixMillis) -> Value {
    let cell = |column: &Column| match column.kind {
        "date" => age(&(column.cell)(&object), now),
        _ => (column.cell)(&object),
    };
    let cells: Vec<Value> = kind.info().columns.iter().map(cell).collect();
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

/// How long ago that was, in the one or two units that people read: `45s`, `3m20s`, `5h`, `12d`.
fn age(at: &Value, now: UnixMillis) -> Value {
    let read = at.as_str().and_then(|text| humantime::parse_rfc3339(text).ok());
    let Some(since) = read.and_then(|at| at.duration_since(UNIX_EPOCH).ok()) else {
        return "<unknown>".into();
    };
    let seconds = (now.0 / 1000).saturating_sub(since.as_secs());
    let two = |big: u64, unit: &str, small: u64, below: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{below}"),
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        _ => two(days / 365, "y", days % 365, "d"),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_as_kubectl_does() {
        let at = "1970-01-01T00:00:00Z".into();
        let shown: Vec<Value> =
            [0, 119, 120, 200, 599, 601, 10_800, 12_000, 86_400, 176_400, 864_000, 70_000_000]
                .into_iter()
                .map(|seconds: u64| age(&at, UnixMillis(seconds * 1000)))
                .collect();
        let expected =
            ["0s", "119s", "2m", "3m20s", "9m59s", "10m", "3h", "3h20m", "24h", "2d1h", "10d", "2y80d"];
        assert_eq!(shown, expected);
        assert_eq!(age(&Value::Null, UnixMillis(0)), "<unknown>");
    }
}
