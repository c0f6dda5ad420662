//! `Host`: the name of a machine on a site's LAN. The namespace is the site.

use metadata::Keyspace;
use serde_json::{Value, json};

use super::super::kind::{Column, Info, MANIFEST_VERBS};
use super::super::schema::{list, object, string, with};
use super::super::{Id, Layout};
use super::{AGE, NAME, PLACEMENT, joined, of_manifest};
use crate::host;

pub(in crate::api) static INFO: Info = Info {
    group: "kubebus.io",
    version: "v1alpha1",
    kind: "Host",
    plural: "hosts",
    singular: "host",
    short: &[],
    namespaced: true,
    verbs: MANIFEST_VERBS,
    at_edges: true,
    has_status: true,
    columns: &[
        NAME,
        Column { name: "Addresses", kind: "string", priority: 0, cell: |o| joined(&o["spec"]["addresses"]) },
        AGE,
        PLACEMENT,
    ],
    schema,
    of_row: |layout, key, _| of_manifest(layout, key, [host::MANIFESTS, "/c/meta/hosts/"], host::TOLD),
    made,
};

/// An edge is told addresses by site and name.
fn made(layout: Layout, id: &Id, ks: &Keyspace) -> Option<Value> {
    if layout == Layout::Cloud {
        return None;
    }
    let addresses = host::told(&id.device()?, ks)?;
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    Some(json!({ "metadata": {}, "spec": { "addresses": addresses } }))
}

fn schema() -> Value {
    let spec = object(
        "What the machine is called, and where it is.",
        &[("addresses", list("Addresses as the site has them.", string("An address.")))],
    );
    object(
        "A machine on a site's LAN, under `<name>.<site>`. Its namespace is the site.",
        &[("spec", with(spec, &["addresses"])), ("status", super::placement_status())],
    )
}
