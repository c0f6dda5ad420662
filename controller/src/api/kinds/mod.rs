//! One file a kind. A new one is its file, a variant of [`Kind`], and an arm of [`Kind::info`].

pub(super) mod access;
pub(super) mod device;
pub(super) mod event;
pub(super) mod host;
pub(super) mod model;
pub(super) mod namespace;
pub(super) mod node;
pub(super) mod policy;
pub(super) mod route;
pub(super) mod rule;
pub(super) mod site;
pub(super) mod token;
pub(super) mod user;
pub(super) mod wireguard;

use device_twin::TwinView;
use metadata::Keyspace;
use serde_json::{Value, json};

use super::index::below;
use super::kind::Column;
use super::{Id, Kind, Layout};

/// The age of an object, which every table ends with.
pub(super) const AGE: Column = Column {
    name: "Age",
    kind: "date",
    priority: 0,
    cell: |object| object["metadata"]["creationTimestamp"].clone(),
};

/// For kinds whose objects are manifests.
fn no_projection(_: Layout, _: &Id, _: &Keyspace) -> Option<Value> {
    None
}

/// The manifest that a row is, or is the metadata of.
fn of_manifest(layout: Layout, key: &str, cloud: [&str; 2], edge: &str) -> Vec<Id> {
    let found = match layout {
        Layout::Cloud => below(key, &cloud),
        Layout::Edge => below(key, &[edge]),
    };
    found.into_iter().collect()
}

/// What is said of a manifest, beside what it says.
pub(super) fn status(
    kind: Kind,
    object: &Value,
    twins: &[TwinView],
    placement: Option<&str>,
) -> Option<Value> {
    if kind == Kind::Device {
        return Some(device::status(object, twins, placement));
    }
    placement.map(|text| json!({ "placement": text }))
}

/// A member as text, for a cell.
fn text(value: &Value) -> Value {
    if value.is_null() {
        return "<none>".into();
    }
    value.as_str().map_or_else(|| value.to_string(), str::to_owned).into()
}

/// Texts of a list, joined.
fn joined(value: &Value) -> Value {
    let texts: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if texts.is_empty() { "<none>".into() } else { texts.join(",").into() }
}

/// Where a manifest is in force.
const PLACEMENT: Column = Column {
    name: "Placement",
    kind: "string",
    priority: 1,
    cell: |object| text(&object["status"]["placement"]),
};

const NAME: Column =
    Column { name: "Name", kind: "string", priority: 0, cell: |object| object["metadata"]["name"].clone() };

/// The schema of a status that only says where a manifest is in force.
fn placement_status() -> Value {
    use super::schema::{object, string};
    object(
        "What the cloud says of it.",
        &[("placement", string("Where it is in force, or what it waits for."))],
    )
}
