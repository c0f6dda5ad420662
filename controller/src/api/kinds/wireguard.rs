//! `WireGuardPeer`: a stock client that comes in by a gateway.

use metadata::Keyspace;
use serde_json::{Value, json};

use super::super::kind::{Column, Info, MANIFEST_VERBS};
use super::super::object::timestamp;
use super::super::schema::{list, object, string, with};
use super::super::{Id, Layout};
use super::{AGE, NAME, joined, text};
use crate::wireguard;

pub(in crate::api) static INFO: Info = Info {
    group: "kubebus.io",
    version: "v1alpha1",
    kind: "WireGuardPeer",
    plural: "wireguardpeers",
    singular: "wireguardpeer",
    short: &["wgp"],
    namespaced: false,
    verbs: MANIFEST_VERBS,
    at_edges: false,
    has_status: false,
    columns: &[
        NAME,
        Column { name: "Site", kind: "string", priority: 0, cell: |o| text(&o["spec"]["site"]) },
        Column { name: "Gateway", kind: "string", priority: 0, cell: |o| text(&o["spec"]["gateway"]) },
        Column {
            name: "Addresses",
            kind: "string",
            priority: 0,
            cell: |o| joined(&o["status"]["addresses"]),
        },
        AGE,
        Column { name: "Public Key", kind: "string", priority: 1, cell: |o| text(&o["spec"]["publicKey"]) },
    ],
    schema,
    of_row: |_, key, _| key.strip_prefix(wireguard::CLIENTS).map(Id::from).into_iter().collect(),
    made,
};

/// The preshared key is a secret, and in no answer.
fn made(_: Layout, id: &Id, ks: &Keyspace) -> Option<Value> {
    let client = wireguard::get(&id.checked_name()?, ks).ok()?;
    let addresses: Vec<String> = client.peer.addresses().iter().map(ToString::to_string).collect();
    Some(json!({
        "metadata": { "creationTimestamp": timestamp(client.keyed) },
        "spec": {
            "publicKey": client.peer.public_key.to_string(), "site": client.site,
            "gateway": client.gateway.to_string(),
        },
        "status": { "addresses": addresses },
    }))
}

fn schema() -> Value {
    let spec = object(
        "Who comes in, and where.",
        &[
            (
                "publicKey",
                string("The client's public key, in base64. Another one rotates it: the old lets nobody in."),
            ),
            (
                "presharedKey",
                string("A secret of both sides, in base64. Never shown; it stays where none is given."),
            ),
            ("site", string("The site that it is in; one of its own, called like it, where none is given.")),
            (
                "gateway",
                string("`cloud/NAME` or `edge/NAME`; the cloud if it is a gateway, else the only one."),
            ),
        ],
    );
    let status = object("What it was given.", &[("addresses", list("Its addresses.", string("A prefix.")))]);
    object(
        "A stock WireGuard client.",
        &[("spec", with(spec, &["publicKey", "presharedKey"])), ("status", status)],
    )
}
