//! Core `Namespace`s: there is one wherever a manifest is in it, and `default`.

use metadata::Keyspace;
use serde_json::{Value, json};

use super::super::index::below;
use super::super::kind::{Column, Info, Verb};
use super::super::schema::{object, string};
use super::super::{Id, Layout};
use super::{NAME, text};

pub(in crate::api) static INFO: Info = Info {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short: &["ns"],
    namespaced: false,
    verbs: &[Verb::Get, Verb::List],
    at_edges: true,
    has_status: false,
    columns: &[
        NAME,
        Column { name: "Status", kind: "string", priority: 0, cell: |o| text(&o["status"]["phase"]) },
    ],
    schema,
    of_row,
    made,
};

const CLOUD: [&str; 6] = [
    "/c/resource/device/",
    "/c/resource/devicemodel/",
    "/c/resource/twinpolicy/",
    "/c/resource/rule/",
    "/c/resource/accesspolicy/",
    "/c/resource/host/",
];
const EDGE: [&str; 6] = ["/m/device/", "/m/model/", "/m/policy/", "/m/rule/", "/m/access/", "/m/host/"];

fn prefixes(layout: Layout) -> &'static [&'static str; 6] {
    match layout {
        Layout::Cloud => &CLOUD,
        Layout::Edge => &EDGE,
    }
}

fn of_row(layout: Layout, key: &str, _: &[&[u8]]) -> Vec<Id> {
    below(key, prefixes(layout)).and_then(|id| Some(Id::from(id.namespace()?))).into_iter().collect()
}

fn made(layout: Layout, id: &Id, ks: &Keyspace) -> Option<Value> {
    let is_there = id.as_str() == "default"
        || prefixes(layout).iter().any(|prefix| ks.range(&format!("{prefix}{id}/")).next().is_some());
    is_there.then(|| json!({ "metadata": {}, "spec": {}, "status": { "phase": "Active" } }))
}

fn schema() -> Value {
    let status = object("Whether it is in use.", &[("phase", string("Active."))]);
    object(
        "A place for manifests. It is there as long as one is in it.",
        &[("spec", object("Nothing.", &[])), ("status", status)],
    )
}
