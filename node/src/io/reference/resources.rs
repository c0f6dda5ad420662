//! The kinds of manifests and their fields.

use std::fmt::Write;

use serde_json::Value;

use super::source::{Types, rows};
use super::{cell, read};

/// A kind, as schemas describe it.
struct Kind {
    api_version: &'static str,
    kind: &'static str,
    /// For people who do not know it.
    about: &'static str,
    /// JSON Schema of its `spec`.
    spec: Value,
}

/// Where the types of the documents are.
const SOURCES: [&str; 6] = [
    "device-twin/src/model/device.rs",
    "device-twin/src/model/policy.rs",
    "device-twin/src/rule/document.rs",
    "controller/src/access/spec.rs",
    "controller/src/host.rs",
    "node/src/config.rs",
];

const KUBEEDGE: &str = "devices.kubeedge.io/v1beta1";
const OURS: &str = "kubebus.io/v1alpha1";

/// The one place where the schemas come from.
fn kinds() -> Vec<Kind> {
    let sources: Vec<String> = SOURCES.iter().map(|path| read(path)).collect();
    let types = Types::read(&sources.iter().map(String::as_str).collect::<Vec<_>>());
    let kind = |api_version, kind, about| {
        let spec = types.schema(&format!("{kind}Spec"));
        Kind { api_version, kind, about, spec }
    };
    vec![
        kind(
            KUBEEDGE,
            "Device",
            "A device: its model, the edge that it is wired to, how its mapper reaches it.",
        ),
        kind(KUBEEDGE, "DeviceModel", "What devices of one make have in common: their properties."),
        kind(
            OURS,
            "TwinPolicy",
            "What a model cannot say of its properties: what moves something, how old a wish may be, where an actuator \
             goes when nobody says anything. See [twins.md](../twins.md#models-and-policies).",
        ),
        kind(
            OURS,
            "Rule",
            "Readings in, what one actuator shall do out; interlocks too. See \
             [twins.md](../twins.md#rules-and-interlocks).",
        ),
        kind(
            OURS,
            "AccessPolicy",
            "Who may begin to talk to whom over the overlay. See [access-policy.md](../access-policy.md).",
        ),
        kind(
            OURS,
            "Host",
            "What a machine on a LAN is called; the namespace is its site. See [dns.md](../dns.md).",
        ),
    ]
}

const HEAD: &str = "\
# Manifests

What `kubebus apply -f` takes, field by field. A manifest begins as in Kubernetes: `apiVersion`, `kind`, and
`metadata` with `name`, `namespace` (`default` if not said) and `labels`. Fields that do not exist are refused, with those
that do; in KubeEdge's two kinds they are kept and ignored.

`[]` stands for each entry of a list, `<name>` for a name that you choose. A *name* has 1 to 63 lower-case letters, digits
and `-`, a letter or digit first and last; a *duration* is written `500ms`, `10s` or `1m 30s`.
";

pub(super) fn page() -> String {
    let mut page = HEAD.to_owned();
    for kind in kinds() {
        let _ = write!(page, "\n## {}\n\n`{}`. {}\n\n{TABLE}", kind.kind, kind.api_version, kind.about);
        for row in rows(&kind.spec, "spec") {
            assert!(!row.what.is_empty(), "{}: '{}' has no doc comment", kind.kind, row.path);
            let needed = if row.required { "yes" } else { "" };
            let _ =
                writeln!(page, "| `{}` | {} | {needed} | {} |", row.path, cell(&row.kind), cell(&row.what));
        }
    }
    page
}

const TABLE: &str = "| field | what may stand there | needed | |\n|---|---|---|---|\n";
