//! `Route`: which prefix lies behind which node.

use bus::Route;
use metadata::Keyspace;
use serde_json::{Value, json};

use super::super::kind::{Column, Info, READ_VERBS};
use super::super::schema::{object, string};
use super::super::{Id, Layout};
use super::{NAME, text};

pub(in crate::api) static INFO: Info = Info {
    group: "kubebus.io",
    version: "v1alpha1",
    kind: "Route",
    plural: "routes",
    singular: "route",
    short: &[],
    namespaced: false,
    verbs: READ_VERBS,
    at_edges: true,
    has_status: false,
    columns: &[
        NAME,
        Column { name: "Prefix", kind: "string", priority: 0, cell: |o| text(&o["spec"]["prefix"]) },
        Column { name: "Owner", kind: "string", priority: 0, cell: |o| text(&o["spec"]["owner"]) },
        Column { name: "Kind", kind: "string", priority: 0, cell: |o| text(&o["spec"]["kind"]) },
        Column { name: "Real", kind: "string", priority: 0, cell: |o| text(&o["spec"]["real"]) },
        Column { name: "Peer", kind: "string", priority: 1, cell: |o| text(&o["spec"]["peer"]) },
    ],
    schema,
    of_row: |layout, key, _| {
        key.strip_prefix(prefix(layout)).map(|rest| Id::from(&*rest.replace('_', "-"))).into_iter().collect()
    },
    made,
};

fn prefix(layout: Layout) -> &'static str {
    match layout {
        Layout::Cloud => crate::route::PREFIX,
        Layout::Edge => "/m/route/",
    }
}

/// `10.86.0.2-32` is at `10.86.0.2_32`.
fn made(layout: Layout, id: &Id, ks: &Keyspace) -> Option<Value> {
    let (net, bits) = id.name().rsplit_once('-')?;
    let bytes = ks.get(&format!("{}{net}_{bits}", prefix(layout)))?;
    let route: Route = minicbor::decode(bytes).ok()?;
    let Route { prefix, owner, kind, real, peer } = route;
    let mut spec = json!({ "prefix": prefix.to_string(), "owner": owner.to_string(), "kind": kind.as_str() });
    if let Some(real) = real {
        spec["real"] = real.to_string().into();
    }
    if let Some(peer) = peer {
        spec["peer"] = peer.to_string().into();
    }
    Some(json!({ "metadata": {}, "spec": spec }))
}

fn schema() -> Value {
    let spec = object(
        "Where packets go.",
        &[
            ("prefix", string("As the overlay knows it.")),
            ("owner", string("The node that it lies behind.")),
            ("kind", string("What it is.")),
            ("real", string("What the network behind the owner calls itself, where that is another prefix.")),
            ("peer", string("The WireGuard client that has it.")),
        ],
    );
    object(
        "Which prefix lies behind which node. It follows from joins, leases and approvals.",
        &[("spec", spec)],
    )
}
