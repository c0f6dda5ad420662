//! `AccessPolicy`: a manifest at the cloud, and at an edge what it was told of it.

use bus::{AccessRule, PortRange, Protocol, Selector, SubnetKind};
use metadata::Keyspace;
use serde_json::{Value, json};

use super::super::kind::{Column, Info, MANIFEST_VERBS};
use super::super::schema::{choice, free, integer, list, map, object, string, with};
use super::super::{Id, Layout};
use super::{AGE, NAME, PLACEMENT, of_manifest};
use crate::access;

pub(in crate::api) static INFO: Info = Info {
    group: "kubebus.io",
    version: "v1alpha1",
    kind: "AccessPolicy",
    plural: "accesspolicies",
    singular: "accesspolicy",
    short: &["ap"],
    namespaced: true,
    verbs: MANIFEST_VERBS,
    at_edges: true,
    has_status: true,
    columns: &[
        NAME,
        Column { name: "From", kind: "string", priority: 0, cell: |o| who(&o["spec"]["from"]) },
        Column { name: "To", kind: "string", priority: 0, cell: |o| who(&o["spec"]["to"]) },
        AGE,
        PLACEMENT,
    ],
    schema,
    of_row: |layout, key, _| {
        of_manifest(layout, key, [access::PREFIX, "/c/meta/accesspolicies/"], access::TOLD)
    },
    made,
};

fn who(selectors: &Value) -> Value {
    let one = |selector: &Value| {
        let fields = selector.as_object().into_iter().flatten();
        let each: Vec<String> = fields
            .map(|(name, value)| {
                format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            })
            .collect();
        each.join(",")
    };
    let all: Vec<String> = selectors.as_array().into_iter().flatten().map(one).collect();
    all.join("; ").into()
}

/// Who has the labels that a policy names, an edge is told by name.
fn made(layout: Layout, id: &Id, ks: &Keyspace) -> Option<Value> {
    if layout == Layout::Cloud {
        return None;
    }
    let bytes = ks.get(&format!("{}{id}", access::TOLD))?;
    let rule: AccessRule = minicbor::decode(bytes).ok()?;
    let AccessRule { name: _, from, to, ports } = rule;
    let selectors = |all: Vec<Selector>| all.into_iter().map(selector).collect::<Vec<_>>();
    let mut spec = json!({ "from": selectors(from), "to": selectors(to) });
    if !ports.is_empty() {
        spec["ports"] = ports.into_iter().map(range).collect();
    }
    Some(json!({ "metadata": {}, "spec": spec }))
}

fn selector(Selector { site, node, cidr, kind }: Selector) -> Value {
    let mut selector = json!({});
    let fields = [
        ("site", site.map(|site| site.to_string())),
        ("node", node.map(|node| node.to_string())),
        ("cidr", cidr.map(|cidr| cidr.to_string())),
        ("kind", kind.map(|kind| kind.as_str().to_owned())),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            selector[name] = value.into();
        }
    }
    selector
}

fn range(PortRange { protocol, ports }: PortRange) -> Value {
    let protocol = match protocol {
        Protocol::Any => json!("any"),
        Protocol::Tcp => json!("tcp"),
        Protocol::Udp => json!("udp"),
        Protocol::Icmp => json!("icmp"),
        Protocol::Number(number) => json!(number),
    };
    match ports {
        None => json!({ "protocol": protocol }),
        Some((first, last)) if first == last => json!({ "protocol": protocol, "port": first }),
        Some((first, last)) => json!({ "protocol": protocol, "from": first, "to": last }),
    }
}

fn schema() -> Value {
    let kinds = SubnetKind::ALL.map(SubnetKind::as_str);
    let selector = || {
        object(
            "Those for which all that is given is true.",
            &[
                ("site", string("Behind a node of this site.")),
                ("node", string("Behind the edge of this name.")),
                ("cidr", string("In this network.")),
                ("kind", choice("In a subnet of this kind.", &kinds)),
                ("matchLabels", map("Sites and edges that have these labels.", string("A value."))),
            ],
        )
    };
    let range = object(
        "A protocol, and with TCP and UDP maybe ports of it.",
        &[
            ("protocol", free("any, tcp, udp, icmp, or a number of IANA's.")),
            ("port", integer("One port.")),
            ("from", integer("The first of a range.")),
            ("to", integer("The last of it.")),
        ],
    );
    let spec = object(
        "Who may begin to talk to whom.",
        &[
            ("from", list("Any of these.", selector())),
            ("to", list("Any of these.", selector())),
            ("ports", list("Any of these; absent: everything.", with(range, &["protocol"]))),
        ],
    );
    object(
        "Lets sites and nodes talk over the overlay.",
        &[("spec", with(spec, &["from", "to"])), ("status", super::placement_status())],
    )
}
