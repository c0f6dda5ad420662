//! `EdgeNode`: an edge that joined.

use bus::NodeId;
use metadata::Keyspace;
use serde_json::{Value, json};

use super::super::kind::{Column, Info, Verb};
use super::super::object::timestamp;
use super::super::schema::{boolean, list, object, string};
use super::super::{Id, Layout};
use super::{AGE, NAME, joined, text};
use crate::label::{self, Labelled};
use crate::{lease, nodes, site};

pub(in crate::api) static INFO: Info = Info {
    group: "kubebus.io",
    version: "v1alpha1",
    kind: "EdgeNode",
    plural: "edgenodes",
    singular: "edgenode",
    short: &["en"],
    namespaced: false,
    verbs: &[
        Verb::Delete,
        Verb::DeleteCollection,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ],
    at_edges: true,
    has_status: true,
    columns: &[
        NAME,
        Column { name: "Site", kind: "string", priority: 0, cell: |o| text(&o["spec"]["site"]) },
        Column {
            name: "Connected",
            kind: "string",
            priority: 0,
            cell: |o| match o["status"]["connected"].as_bool() {
                Some(true) => "True".into(),
                Some(false) => "False".into(),
                None => "Unknown".into(),
            },
        },
        Column { name: "Address", kind: "string", priority: 0, cell: |o| text(&o["status"]["address"]) },
        AGE,
        Column { name: "LANs", kind: "string", priority: 1, cell: |o| joined(&o["spec"]["lans"]) },
        Column {
            name: "Certificate Until",
            kind: "string",
            priority: 1,
            cell: |o| text(&o["status"]["certificateUntil"]),
        },
    ],
    schema,
    of_row,
    made,
};

fn of_row(layout: Layout, key: &str, _: &[&[u8]]) -> Vec<Id> {
    let prefixes: &[&str] = match layout {
        Layout::Cloud => &[nodes::PREFIX, "/c/label/edge/", "/c/lease/edge/", "/c/link/edge/"],
        Layout::Edge => &["/m/site/edge/"],
    };
    let name = prefixes.iter().find_map(|prefix| key.strip_prefix(prefix));
    // What is told of an edge is about its link, which lies in no row of its own.
    let told = || key.strip_prefix("/c/event/default/").and_then(|rest| Some(rest.rsplit_once('.')?.0));
    let name = name.or_else(told);
    name.filter(|name| !name.contains('/')).map(Id::from).into_iter().collect()
}

fn made(layout: Layout, id: &Id, ks: &Keyspace) -> Option<Value> {
    let name = id.checked_name()?;
    if layout == Layout::Edge {
        let site = ks.get(&format!("{}edge/{name}", site::TOLD)).and_then(|bytes| site::read(bytes))?;
        return Some(json!({ "metadata": {}, "spec": { "site": site }, "status": {} }));
    }
    let node = nodes::get(&name, ks).ok().flatten()?;
    let lans: Vec<String> = node.lans.iter().map(ToString::to_string).collect();
    let held = lease::of(&NodeId::edge(name.clone()), ks).ok().flatten();
    let mut object = json!({
        "metadata": { "creationTimestamp": timestamp(node.joined) },
        "spec": { "site": node.site, "lans": lans },
        "status": { "certificateUntil": timestamp(node.not_after) },
    });
    if let Some(lease) = held {
        object["status"]["address"] = lease.v4.to_string().into();
        object["status"]["containers"] = lease.container_v4.to_string().into();
    }
    let labels = label::of(&Labelled::Edge(name), ks).unwrap_or_default();
    if !labels.is_empty() {
        object["metadata"]["labels"] = json!(labels);
    }
    Some(object)
}

fn schema() -> Value {
    let spec = object(
        "As its token said, and as was approved since.",
        &[
            ("site", string("The site that it is in.")),
            ("lans", list("Networks behind it that it may advertise.", string("A prefix."))),
        ],
    );
    let status = object(
        "What the cloud knows of it.",
        &[
            ("connected", boolean("Whether its link stands.")),
            ("address", string("On the overlay.")),
            ("containers", string("The prefix of its containers.")),
            ("certificateUntil", string("How long its newest certificate is good.")),
        ],
    );
    let text = "An edge that joined. Its labels can be changed; deleting it takes it out of the cluster.";
    object(text, &[("spec", spec), ("status", status)])
}
