//! `JoinToken`: an invitation. Its secret is in the answer that made it, and never again.

use metadata::Keyspace;
use serde_json::{Value, json};

use super::super::kind::{Column, Info, Verb};
use super::super::object::timestamp;
use super::super::schema::{integer, list, object, string, with};
use super::super::{Id, Layout};
use super::{AGE, NAME, joined, text};
use crate::token;

pub(in crate::api) static INFO: Info = Info {
    group: "kubebus.io",
    version: "v1alpha1",
    kind: "JoinToken",
    plural: "jointokens",
    singular: "jointoken",
    short: &["jt"],
    namespaced: false,
    verbs: &[Verb::Create, Verb::Delete, Verb::DeleteCollection, Verb::Get, Verb::List, Verb::Watch],
    at_edges: false,
    has_status: false,
    columns: &[
        NAME,
        Column { name: "Site", kind: "string", priority: 0, cell: |o| text(&o["spec"]["site"]) },
        Column {
            name: "Used",
            kind: "string",
            priority: 0,
            cell: |o| {
                let used = o["status"]["usedBy"].as_array().map_or(0, Vec::len);
                format!("{used}/{}", o["spec"]["uses"]).into()
            },
        },
        Column { name: "Expires", kind: "string", priority: 0, cell: |o| text(&o["status"]["expires"]) },
        AGE,
        Column { name: "LANs", kind: "string", priority: 1, cell: |o| joined(&o["spec"]["lans"]) },
    ],
    schema,
    of_row: |_, key, _| key.strip_prefix(token::PREFIX).map(|id| Id::from(short(id))).into_iter().collect(),
    made,
};

/// What a token is called: so much of its id as no other token has.
pub(in crate::api) fn short(id: &str) -> &str {
    id.get(..20).unwrap_or(id)
}

fn made(_: Layout, id: &Id, ks: &Keyspace) -> Option<Value> {
    let (_, bytes) = ks.range(&format!("{}{id}", token::PREFIX)).next()?;
    let token: token::Token = minicbor::decode(bytes).ok()?;
    let lans: Vec<String> = token.lans.iter().map(ToString::to_string).collect();
    Some(json!({
        "metadata": { "creationTimestamp": timestamp(token.created) },
        "spec": { "site": token.site, "lans": lans, "uses": token.uses },
        "status": { "usedBy": token.used_by, "expires": timestamp(token.expires), "id": token.id().to_string() },
    }))
}

fn schema() -> Value {
    let spec = object(
        "Who may join.",
        &[
            ("site", string("The site that the joining node belongs to.")),
            ("lans", list("Networks behind the node that it may advertise.", string("A prefix."))),
            ("uses", integer("How many nodes may join with it; 1 where nothing is said.")),
            ("ttl", string("How long it is good, `24h` where nothing is said.")),
        ],
    );
    let status = object(
        "What became of it.",
        &[
            ("token", string("The token itself: in the answer to its creation alone.")),
            ("id", string("Its whole id, as `kubebus token` shows it.")),
            ("usedBy", list("Who joined with it.", string("A name."))),
            ("expires", string("When it is good no more.")),
        ],
    );
    object(
        "An invitation to join. The server names it; use generateName.",
        &[("spec", with(spec, &["site"])), ("status", status)],
    )
}
