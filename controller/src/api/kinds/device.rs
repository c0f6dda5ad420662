//! KubeEdge's `Device`, with its twins as status.

use bus::UnixMillis;
use device_twin::TwinView;
use serde_json::{Map, Value, json};

use super::super::index::below;
use super::super::kind::{Column, Info, MANIFEST_VERBS};
use super::super::object::timestamp;
use super::super::schema::{boolean, free, integer, keyed, list, map, object, string, with};
use super::super::{Id, Layout};
use super::{AGE, NAME, no_projection, text};

pub(in crate::api) static INFO: Info = Info {
    group: "devices.kubeedge.io",
    version: "v1beta1",
    kind: "Device",
    plural: "devices",
    singular: "device",
    short: &["dev"],
    namespaced: true,
    verbs: MANIFEST_VERBS,
    at_edges: true,
    has_status: true,
    columns: &[
        NAME,
        Column { name: "Node", kind: "string", priority: 0, cell: |o| text(&o["spec"]["nodeName"]) },
        Column {
            name: "Model",
            kind: "string",
            priority: 0,
            cell: |o| text(&o["spec"]["deviceModelRef"]["name"]),
        },
        Column { name: "State", kind: "string", priority: 0, cell: |o| text(&o["status"]["state"]) },
        Column { name: "Twin", kind: "string", priority: 0, cell: brief },
        AGE,
        Column {
            name: "Protocol",
            kind: "string",
            priority: 1,
            cell: |o| text(&o["spec"]["protocol"]["protocolName"]),
        },
        Column { name: "Authority", kind: "string", priority: 1, cell: |o| text(&o["status"]["authority"]) },
        super::PLACEMENT,
        Column { name: "Reason", kind: "string", priority: 1, cell: |o| text(&o["status"]["reason"]) },
    ],
    schema,
    of_row,
    made: no_projection,
};

const CLOUD: [&str; 5] =
    ["/c/resource/device/", "/c/meta/devices/", "/c/reported/", "/c/state/", "/c/desired/"];
const EDGE: [&str; 6] =
    ["/m/device/", "/t/reported/", "/m/desired/", "/t/own/", "/m/authority/", "/t/authority/"];

/// What an edge is told of a device beside its manifest.
const TOLD: [&str; 3] = ["desired/", "withdrawn/", "authority/"];

fn of_row(layout: Layout, key: &str, _: &[&[u8]]) -> Vec<Id> {
    let found = match layout {
        Layout::Edge => below(key, &EDGE),
        Layout::Cloud => below(key, &CLOUD).or_else(|| {
            let (_, rest) = key.strip_prefix("/e/")?.split_once('/')?;
            below(rest, &TOLD)
        }),
    };
    found.into_iter().collect()
}

/// Properties that a table's cell has room for.
const SHOWN: usize = 3;

/// Desired against reported: `valve 40→38.5, level 2.1`.
fn brief(object: &Value) -> Value {
    let twins = object["status"]["twins"].as_array().map(Vec::as_slice).unwrap_or_default();
    let shown: Vec<String> = twins.iter().take(SHOWN).map(one).collect();
    let more = twins.len().saturating_sub(SHOWN);
    match (shown.is_empty(), more) {
        (true, _) => "<none>".into(),
        (false, 0) => shown.join(", ").into(),
        (false, more) => format!("{}, {more} more", shown.join(", ")).into(),
    }
}

fn one(twin: &Value) -> String {
    let name = twin["propertyName"].as_str().unwrap_or_default();
    let value = |half: &str| twin[half]["value"].as_str();
    match (value("observedDesired"), value("reported")) {
        (Some(desired), Some(reported)) if desired == reported => format!("{name} {reported}"),
        (Some(desired), reported) => format!("{name} {desired}\u{2192}{}", reported.unwrap_or("?")),
        (None, reported) => format!("{name} {}", reported.unwrap_or("?")),
    }
}

/// As KubeEdge has it: `status.twins` with texts, `state`, `lastOnlineTime`; and what else there is to say.
pub(super) fn status(_: &Value, twins: &[TwinView], placement: Option<&str>) -> Value {
    let mut status = json!({ "twins": twins.iter().map(twin).collect::<Vec<_>>() });
    let first = twins.first();
    if let Some(state) = first.and_then(|twin| twin.state.as_ref()) {
        status["state"] = json!(state.state);
        if !state.reason.is_empty() {
            status["reason"] = state.reason.clone().into();
        }
        if let Some(seen) = state.last_seen {
            status["lastOnlineTime"] = timestamp(seen).into();
        }
    }
    if let Some(first) = first {
        status["authority"] = json!(first.authority.holder());
    }
    if let Some(placement) = placement {
        status["placement"] = placement.into();
    }
    status
}

fn twin(view: &TwinView) -> Value {
    let mut twin = json!({ "propertyName": view.property });
    if let Some(desired) = &view.desired {
        let mut metadata = Map::new();
        metadata.extend(view.version.map(|version| ("version".to_owned(), version.to_string().into())));
        metadata.extend(view.by.clone().map(|by| ("by".to_owned(), by.into())));
        if let Some(ack) = view.ack.as_ref().filter(|ack| Some(ack.version) == view.version) {
            metadata.insert("outcome".to_owned(), json!(ack.outcome));
            if !ack.detail.is_empty() {
                metadata.insert("detail".to_owned(), ack.detail.clone().into());
            }
        }
        twin["observedDesired"] = json!({ "value": desired.to_string(), "metadata": metadata });
    }
    if let Some(sample) = &view.reported {
        let UnixMillis(time) = sample.time;
        let mut metadata = json!({ "timestamp": time.to_string(), "quality": sample.quality });
        if let Some(unit) = &view.unit {
            metadata["unit"] = unit.clone().into();
        }
        twin["reported"] = json!({ "value": sample.value.to_string(), "metadata": metadata });
    }
    twin
}

fn visitors(of: &str) -> Value {
    object(
        of,
        &[
            ("protocolName", string("The protocol, where it differs from the device's.")),
            ("configData", free("What the mapper of the protocol needs.")),
        ],
    )
}

fn schema() -> Value {
    let value = |text: &str| {
        object(
            text,
            &[
                ("value", string("The value as text; the model says its type.")),
                ("metadata", map("Anything about it.", string("A value."))),
            ],
        )
    };
    let property = object(
        "What the device says of one property of its model.",
        &[
            ("name", string("A property of the model.")),
            ("desired", value("What is wished. Each change of the text is a new wish.")),
            ("reportCycle", integer("KubeEdge's; not used.")),
            ("collectCycle", integer("Milliseconds between two reads.")),
            ("reportToCloud", boolean("KubeEdge's; not used: changes are always reported.")),
            ("visitors", visitors("Where the property lives in the device.")),
            ("pushMethod", free("KubeEdge's; not used.")),
        ],
    );
    let method = object(
        "Properties that are written together.",
        &[
            ("name", string("What the command is called.")),
            ("description", string("For people.")),
            ("propertyNames", list("The properties.", string("A property."))),
        ],
    );
    let spec = object(
        "What the device is, and where.",
        &[
            (
                "deviceModelRef",
                with(
                    object("The model, in the device's namespace.", &[("name", string("Its name."))]),
                    &["name"],
                ),
            ),
            ("nodeName", string("The edge that the device is wired to.")),
            ("protocol", visitors("Which mapper serves the device, and how it connects.")),
            ("properties", keyed("The properties of the device.", "name", with(property, &["name"]))),
            ("methods", keyed("Commands of the device.", "name", with(method, &["name"]))),
            (
                "stateReport",
                object(
                    "KubeEdge's; not used.",
                    &[("reportToCloud", boolean("Whether.")), ("reportCycle", integer("How often."))],
                ),
            ),
        ],
    );
    let twin = object(
        "One property, desired and reported.",
        &[
            ("propertyName", string("The property.")),
            ("observedDesired", value("What is in force as desired, with its version, author and outcome.")),
            ("reported", value("What the device reported last, with time, quality and unit.")),
        ],
    );
    let status = object(
        "What is known of the device.",
        &[
            ("state", string("online, degraded, offline or unknown.")),
            ("reason", string("Why it is not online.")),
            ("lastOnlineTime", string("When it was last heard of.")),
            ("authority", string("Who says what is desired: the cloud, or its edge.")),
            ("placement", string("Where it runs, or what it waits for.")),
            ("twins", keyed("Its properties.", "propertyName", twin)),
        ],
    );
    let text = "A device, wired to one edge. `spec` is KubeEdge's; `status` is its twin.";
    object(text, &[("spec", spec), ("status", status)])
}
