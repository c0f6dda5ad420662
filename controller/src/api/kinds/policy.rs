//! `TwinPolicy`.

use serde_json::Value;

use super::super::kind::{Column, Info, MANIFEST_VERBS};
use super::super::schema::{boolean, choice, free, list, number, object, string, with};
use super::{AGE, NAME, no_projection, of_manifest, text};

pub(in crate::api) static INFO: Info = Info {
    group: "kubebus.io",
    version: "v1alpha1",
    kind: "TwinPolicy",
    plural: "twinpolicies",
    singular: "twinpolicy",
    short: &["tp"],
    namespaced: true,
    verbs: MANIFEST_VERBS,
    at_edges: true,
    has_status: false,
    columns: &[
        NAME,
        Column { name: "Model", kind: "string", priority: 0, cell: |o| text(&o["spec"]["model"]) },
        Column { name: "Property", kind: "string", priority: 0, cell: |o| text(&o["spec"]["property"]) },
        Column { name: "Actuator", kind: "string", priority: 0, cell: |o| text(&o["spec"]["actuator"]) },
        Column { name: "On Stale", kind: "string", priority: 1, cell: |o| text(&o["spec"]["onStale"]) },
        AGE,
    ],
    schema,
    of_row: |layout, key, _| {
        of_manifest(layout, key, ["/c/resource/twinpolicy/", "/c/meta/twinpolicies/"], "/m/policy/")
    },
    made: no_projection,
};

fn schema() -> Value {
    let spec = object(
        "How values of a model's properties are treated.",
        &[
            ("model", string("The DeviceModel, in the policy's namespace.")),
            ("property", string("The property; all of the model's where none is given.")),
            ("actuator", boolean("Whether writing it moves something.")),
            (
                "onStale",
                choice(
                    "What becomes of a desired value that is too old: rearm for actuators.",
                    &["apply", "hold", "rearm"],
                ),
            ),
            ("desiredMaxAge", string("How long a desired value is meant, `30s`.")),
            ("maxAge", string("After this time without a report the reported value is bad.")),
            ("deadband", number("Smaller changes are not stored, in the property's unit.")),
            ("reportInterval", string("Changes are stored and told at most this often.")),
            ("failSafe", free("What an actuator is set to when nobody says anything.")),
            ("writeInterval", string("Between two writes at least.")),
            ("slew", number("The fastest change, in the property's unit a second.")),
            ("localOverride", boolean("Whether somebody at the edge may take the authority.")),
            ("values", list("The only texts or numbers that the property holds.", free("One."))),
            ("unit", string("UCUM code of the property's unit.")),
            ("deviceUnit", string("UCUM code of what the device itself counts in.")),
        ],
    );
    object("How twins of a model are treated.", &[("spec", with(spec, &["model"]))])
}
