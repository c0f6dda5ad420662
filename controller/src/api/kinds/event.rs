//! Core `Event`s: what happened, as [`crate::event`] keeps it.

use metadata::Keyspace;
use serde_json::Value;

use super::super::index::below;
use super::super::kind::{Column, Info, READ_VERBS};
use super::super::schema::{free, integer, object, string};
use super::super::{Id, Layout};
use super::text;
use crate::event;

pub(in crate::api) static INFO: Info = Info {
    group: "",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short: &["ev"],
    namespaced: true,
    verbs: READ_VERBS,
    at_edges: true,
    has_status: false,
    columns: &[
        Column { name: "Last Seen", kind: "date", priority: 0, cell: |o| o["lastTimestamp"].clone() },
        Column { name: "Type", kind: "string", priority: 0, cell: |o| text(&o["type"]) },
        Column { name: "Reason", kind: "string", priority: 0, cell: |o| text(&o["reason"]) },
        Column {
            name: "Object",
            kind: "string",
            priority: 0,
            cell: |o| {
                let part = |name: &str| o["involvedObject"][name].as_str().unwrap_or_default().to_owned();
                format!("{}/{}", part("kind").to_ascii_lowercase(), part("name")).into()
            },
        },
        Column { name: "Message", kind: "string", priority: 0, cell: |o| text(&o["message"]) },
        Column { name: "Count", kind: "integer", priority: 1, cell: |o| o["count"].clone() },
        Column { name: "Name", kind: "string", priority: 1, cell: |o| o["metadata"]["name"].clone() },
    ],
    schema,
    of_row: |layout, key, _| below(key, &[event::prefix(layout)]).into_iter().collect(),
    made: |layout: Layout, id: &Id, ks: &Keyspace| {
        event::get(layout, id.as_str(), ks).map(|event| event.object(ks))
    },
};

fn schema() -> Value {
    object(
        "Something that happened to an object.",
        &[
            ("involvedObject", free("The object.")),
            ("reason", string("One word for machines.")),
            ("message", string("For people.")),
            ("type", string("Normal or Warning.")),
            ("count", integer("How often.")),
            ("firstTimestamp", string("When it happened first.")),
            ("lastTimestamp", string("When it happened last.")),
            ("source", free("Who says so.")),
            ("reportingComponent", string("Who says so.")),
            ("reportingInstance", string("Who says so.")),
            ("eventTime", string("Not used.")),
        ],
    )
}
