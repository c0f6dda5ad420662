//! `Rule`: interlocks and control at the edge.

use serde_json::Value;

use super::super::kind::{Column, Info, MANIFEST_VERBS};
use super::super::schema::{boolean, choice, free, integer, list, map, object, string, with};
use super::{AGE, NAME, PLACEMENT, no_projection, of_manifest};

pub(in crate::api) static INFO: Info = Info {
    group: "kubebus.io",
    version: "v1alpha1",
    kind: "Rule",
    plural: "rules",
    singular: "rule",
    short: &[],
    namespaced: true,
    verbs: MANIFEST_VERBS,
    at_edges: true,
    has_status: true,
    columns: &[
        NAME,
        Column {
            name: "Output",
            kind: "string",
            priority: 0,
            cell: |o| {
                let part = |name: &str| o["spec"]["output"][name].as_str().unwrap_or("?").to_owned();
                format!("{}/{}", part("device"), part("property")).into()
            },
        },
        Column {
            name: "Cases",
            kind: "integer",
            priority: 0,
            cell: |o| o["spec"]["cases"].as_array().map_or(0, Vec::len).into(),
        },
        AGE,
        PLACEMENT,
    ],
    schema,
    of_row: |layout, key, _| of_manifest(layout, key, ["/c/resource/rule/", "/c/meta/rules/"], "/m/rule/"),
    made: no_projection,
};

fn schema() -> Value {
    let input = object(
        "One property, anywhere in the cluster.",
        &[
            ("device", string("`<namespace>/<name>`, or a name in the rule's own namespace.")),
            ("property", string("The property.")),
            (
                "from",
                choice("Which half of the twin; reported where nothing is said.", &["reported", "desired"]),
            ),
            ("maxAge", string("Older readings are unknown.")),
            ("unit", string("UCUM code of the unit in which the rule counts it.")),
        ],
    );
    let output = object(
        "What the rule decides.",
        &[
            ("device", string("A device.")),
            ("property", string("Its property.")),
            ("slot", free("The priority, 1 to 16 or its name.")),
            ("ttl", string("How long a decision holds if the rule cannot renew it.")),
        ],
    );
    let case = object(
        "The first that is true decides.",
        &[
            ("name", string("For people: the cause of the writes that follow.")),
            ("latch", boolean("Once true it decides until it is reset.")),
            ("when", free("A predicate, or all, any, not, atLeast of some. Absent: always.")),
            ("then", free("The value.")),
        ],
    );
    let spec = object(
        "A decision table.",
        &[
            ("inputs", map("By the name that the cases use.", with(input, &["device", "property"]))),
            ("output", with(output, &["device", "property", "ttl"])),
            (
                "onUnknown",
                free(
                    "What happens when a case cannot be told true or false: hold, failSafe, trip, or a value.",
                ),
            ),
            ("cases", list("In their order.", with(case, &["then"]))),
            ("version", integer("Not used.")),
        ],
    );
    let required = with(spec, &["inputs", "output", "onUnknown", "cases"]);
    object(
        "What decides over a property at its edge, with or without the cloud.",
        &[("spec", required), ("status", super::placement_status())],
    )
}
