//! `User`: who is known by a certificate. One is let in by his request for one; his key stays with him.

use metadata::Keyspace;
use serde_json::{Value, json};

use super::super::kind::{Column, Info, MANIFEST_VERBS};
use super::super::object::timestamp;
use super::super::schema::{boolean, choice, object, string, with};
use super::super::{Id, Layout};
use super::{NAME, text};
use crate::role::Role;
use crate::user::{self, User};

pub(in crate::api) static INFO: Info = Info {
    group: "kubebus.io",
    version: "v1alpha1",
    kind: "User",
    plural: "users",
    singular: "user",
    short: &[],
    namespaced: false,
    verbs: MANIFEST_VERBS,
    at_edges: true,
    has_status: false,
    columns: &[
        NAME,
        Column { name: "Role", kind: "string", priority: 0, cell: |o| text(&o["spec"]["role"]) },
        Column {
            name: "Certificate Until",
            kind: "string",
            priority: 0,
            cell: |o| text(&o["status"]["certificateUntil"]),
        },
        Column { name: "Revoked", kind: "string", priority: 0, cell: |o| text(&o["status"]["revoked"]) },
    ],
    schema,
    of_row: |layout, key, _| key.strip_prefix(prefix(layout)).map(Id::from).into_iter().collect(),
    made,
};

fn prefix(layout: Layout) -> &'static str {
    match layout {
        Layout::Cloud => user::PREFIX,
        Layout::Edge => user::TOLD,
    }
}

fn made(layout: Layout, id: &Id, ks: &Keyspace) -> Option<Value> {
    let known: User = minicbor::decode(ks.get(&format!("{}{id}", prefix(layout)))?).ok()?;
    let mut user = json!({
        "metadata": {}, "spec": { "role": known.role.as_str() },
        "status": { "certificateUntil": timestamp(known.not_after) },
    });
    if let Some(at) = known.revoked {
        user["spec"]["revoked"] = true.into();
        user["status"]["revoked"] = timestamp(at).into();
    }
    Some(user)
}

fn schema() -> Value {
    let roles = Role::ALL.map(Role::as_str);
    let spec = object(
        "What he may do.",
        &[
            ("role", choice("The role.", &roles)),
            (
                "request",
                string(
                    "A CERTIFICATE REQUEST in PEM, made with his key: the certificate is in status.certificate of the answer. \
                     Of a user who is there it is another certificate in place of his. Never shown.",
                ),
            ),
            ("revoked", boolean("He is let in no more; with another request he is again.")),
        ],
    );
    let status = object(
        "His certificate.",
        &[
            ("certificate", string("The certificate, in PEM: in the answer to a request alone.")),
            ("authority", string("The cluster's own, in PEM: with it.")),
            ("certificateUntil", string("How long it is good.")),
            ("revoked", string("Since when he is let in no more.")),
        ],
    );
    object(
        "Somebody who is known by a certificate; see 'kubebus user'.",
        &[("spec", with(spec, &["role"])), ("status", status)],
    )
}
