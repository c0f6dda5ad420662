//! `Site`: what nodes have in common. It follows from who joined where, and from labels.

use std::collections::{BTreeMap, BTreeSet};

use bus::{Name, NodeId, NodeKind};
use bytes::Bytes;
use metadata::Keyspace;
use serde_json::{Value, json};

use super::super::kind::{Column, Info, Verb};
use super::super::schema::{list, object, string};
use super::super::{Id, Layout};
use super::{NAME, joined, no_projection};
use crate::label::{self, Labelled};
use crate::site;

pub(in crate::api) static INFO: Info = Info {
    group: "kubebus.io",
    version: "v1alpha1",
    kind: "Site",
    plural: "sites",
    singular: "site",
    short: &[],
    namespaced: false,
    verbs: &[Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch],
    at_edges: true,
    has_status: true,
    columns: &[
        NAME,
        Column { name: "Edges", kind: "string", priority: 0, cell: |o| joined(&o["status"]["edges"]) },
        Column {
            name: "Wireguard",
            kind: "string",
            priority: 1,
            cell: |o| joined(&o["status"]["wireguard"]),
        },
    ],
    schema,
    of_row,
    // Of the rows of all nodes, which [`Members`] has in order: see [`made`].
    made: no_projection,
};

fn prefix(layout: Layout) -> &'static str {
    match layout {
        Layout::Cloud => site::PREFIX,
        Layout::Edge => site::TOLD,
    }
}

fn of_row(layout: Layout, key: &str, values: &[&[u8]]) -> Vec<Id> {
    if let Some(name) = key.strip_prefix("/c/label/site/") {
        return vec![Id::from(name)];
    }
    if !key.starts_with(prefix(layout)) {
        return Vec::new();
    }
    values.iter().filter_map(|bytes| site::read(bytes)).map(|site| Id::from(site.as_str())).collect()
}

/// Which nodes are in which site. Kept as rows come and go: to look through all nodes for each site takes seconds when
/// thousands of them join.
#[derive(Debug, Default)]
pub(in crate::api) struct Members(BTreeMap<Name, BTreeSet<NodeId>>);

impl Members {
    pub(in crate::api) fn read(layout: Layout, ks: &Keyspace) -> Self {
        let mut members = Self::default();
        for (node, site) in site::list(prefix(layout), ks) {
            members.0.entry(site).or_default().insert(node);
        }
        members
    }

    /// A row is written, or goes.
    pub(in crate::api) fn note(
        &mut self,
        layout: Layout,
        key: &str,
        was: Option<&Bytes>,
        is: Option<&Bytes>,
    ) {
        let Some(node) = key.strip_prefix(prefix(layout)).and_then(|node| node.parse::<NodeId>().ok()) else {
            return;
        };
        if let Some(site) = was.and_then(|bytes| site::read(bytes))
            && let Some(nodes) = self.0.get_mut(&site)
        {
            nodes.remove(&node);
            if nodes.is_empty() {
                self.0.remove(&site);
            }
        }
        if let Some(site) = is.and_then(|bytes| site::read(bytes)) {
            self.0.entry(site).or_default().insert(node);
        }
    }

    fn of(&self, site: &Name) -> impl Iterator<Item = &NodeId> {
        self.0.get(site).into_iter().flatten()
    }
}

/// A site is there while it has a node or a label.
pub(in crate::api) fn made(id: &Id, members: &Members, ks: &Keyspace) -> Option<Value> {
    let name = id.checked_name()?;
    let (mut edges, mut wireguard, mut is_there) = (Vec::new(), Vec::new(), false);
    for node in members.of(&name) {
        is_there = true;
        match node.kind {
            NodeKind::Edge => edges.push(node.name.to_string()),
            NodeKind::Wireguard => wireguard.push(node.name.to_string()),
            NodeKind::Cloud | NodeKind::Mapper | NodeKind::User => {}
        }
    }
    let labels = label::of(&Labelled::Site(name), ks).unwrap_or_default();
    if !is_there && labels.is_empty() {
        return None;
    }
    let mut site = json!({ "metadata": {}, "status": { "edges": edges, "wireguard": wireguard } });
    if !labels.is_empty() {
        site["metadata"]["labels"] = json!(labels);
    }
    Some(site)
}

fn schema() -> Value {
    let status = object(
        "Who is in it.",
        &[
            ("edges", list("Its edges.", string("A name."))),
            ("wireguard", list("Its WireGuard clients.", string("A name."))),
        ],
    );
    object("Nodes that may talk to each other freely. Its labels can be changed.", &[("status", status)])
}
