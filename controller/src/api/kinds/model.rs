//! KubeEdge's `DeviceModel`.

use serde_json::Value;

use super::super::kind::{Column, Info, MANIFEST_VERBS};
use super::super::schema::{choice, free, keyed, object, string, with};
use super::{AGE, NAME, no_projection, of_manifest, text};

pub(in crate::api) static INFO: Info = Info {
    group: "devices.kubeedge.io",
    version: "v1beta1",
    kind: "DeviceModel",
    plural: "devicemodels",
    singular: "devicemodel",
    short: &["dm"],
    namespaced: true,
    verbs: MANIFEST_VERBS,
    at_edges: true,
    has_status: false,
    columns: &[
        NAME,
        Column { name: "Protocol", kind: "string", priority: 0, cell: |o| text(&o["spec"]["protocol"]) },
        Column {
            name: "Properties",
            kind: "integer",
            priority: 0,
            cell: |o| o["spec"]["properties"].as_array().map_or(0, Vec::len).into(),
        },
        AGE,
    ],
    schema,
    of_row: |layout, key, _| {
        of_manifest(layout, key, ["/c/resource/devicemodel/", "/c/meta/devicemodels/"], "/m/model/")
    },
    made: no_projection,
};

fn schema() -> Value {
    let visitors = object(
        "Defaults of where the property lives in devices.",
        &[("protocolName", string("The protocol.")), ("configData", free("What its mapper needs."))],
    );
    let types = ["INT", "FLOAT", "DOUBLE", "STRING", "BOOLEAN", "BYTES", "STREAM"];
    let property = object(
        "A property that devices of the model have.",
        &[
            ("name", string("What it is called.")),
            ("description", string("For people.")),
            ("type", choice("Of its values.", &types)),
            ("accessMode", choice("ReadOnly where nothing is said.", &["ReadWrite", "ReadOnly"])),
            ("minimum", string("The least value, a number as text.")),
            ("maximum", string("The greatest value, a number as text.")),
            ("unit", string("What it is counted in; a UCUM code is understood.")),
            ("visitors", visitors),
        ],
    );
    let spec = object(
        "What devices of the model have in common.",
        &[
            ("protocol", string("The protocol.")),
            ("protocolConfigData", free("Defaults under the device's protocol.configData.")),
            ("properties", keyed("The properties.", "name", with(property, &["name", "type"]))),
        ],
    );
    object("What devices of a kind have in common. KubeEdge's.", &[("spec", spec)])
}
