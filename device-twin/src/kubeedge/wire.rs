//! KubeEdge's JSON, member by member in the order in which its edge writes it (`edge/pkg/devicetwin/dttype` of KubeEdge
//! 1.23). Unknown members are ignored, as there; `null` counts as absent.
//!
//! Versions (`expected_version`, `actual_version`) travel between KubeEdge's edge and cloud only, so they are not here.

use std::collections::BTreeMap;

use bus::UnixMillis;
use serde::{Deserialize, Serialize};

/// One half of a property. The value is a JSON string whatever its type.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TwinValue {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ValueMetadata>,
}

impl TwinValue {
    pub fn new(value: String, at: Option<UnixMillis>) -> Self {
        let metadata = at.map(|at| ValueMetadata { timestamp: i64::try_from(at.0).ok() });
        Self { value: Some(value), metadata }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ValueMetadata {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TypeMetadata {
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_name: Option<String>,
}

/// One property.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MsgTwin {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<TwinValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<TwinValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TypeMetadata>,
}

/// By property; `null` stands for one that is deleted.
pub type TwinMap = BTreeMap<String, Option<MsgTwin>>;

/// `twin/update`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct TwinUpdate {
    #[serde(default)]
    pub event_id: Option<String>,
    #[serde(default)]
    pub twin: Option<TwinMap>,
}

/// `twin/get` and `membership/get`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct BaseMessage {
    #[serde(default)]
    pub event_id: Option<String>,
}

/// `twin/update/result` and `twin/get/result`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TwinResult {
    pub event_id: String,
    pub timestamp: UnixMillis,
    pub twin: TwinMap,
}

/// In the place of any result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorResult {
    pub event_id: String,
    pub timestamp: UnixMillis,
    pub code: u16,
    pub reason: String,
}

/// `twin/update/document`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TwinDocument {
    pub event_id: String,
    pub timestamp: UnixMillis,
    pub twin: BTreeMap<String, LastAndCurrent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastAndCurrent {
    pub last: Option<MsgTwin>,
    pub current: Option<MsgTwin>,
}

/// `twin/update/delta`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TwinDelta {
    pub event_id: String,
    pub timestamp: UnixMillis,
    /// Every property of which something is expected.
    pub twin: BTreeMap<String, MsgTwin>,
    /// What is expected of those of them that are elsewhere.
    pub delta: BTreeMap<String, String>,
}

/// `state/update`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct StateUpdate {
    #[serde(default)]
    pub event_id: Option<String>,
    #[serde(default)]
    pub state: Option<String>,
}

/// `state/update/result`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateResult {
    pub event_id: String,
    pub timestamp: UnixMillis,
    pub device: StateDevice,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateDevice {
    pub name: String,
    pub state: String,
    /// RFC 3339, UTC. The same thing is `last_online` in [`Device`].
    #[serde(rename = "lastOnlineTime", skip_serializing_if = "Option::is_none")]
    pub last_online_time: Option<String>,
}

/// A device of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Device {
    pub id: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_online: Option<String>,
}

/// `membership/get/result`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MembershipGetResult {
    pub event_id: String,
    pub timestamp: UnixMillis,
    pub devices: Vec<Device>,
}

/// `membership/updated`: one message a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MembershipUpdate {
    pub event_id: String,
    pub timestamp: UnixMillis,
    pub added_devices: Option<Vec<Device>>,
    pub removed_devices: Option<Vec<Device>>,
}

/// The `event_id` of a message that is otherwise not what it should be; empty if there is none to be read.
pub fn event_id_of(payload: &[u8]) -> String {
    serde_json::from_slice::<BaseMessage>(payload).ok().and_then(|base| base.event_id).unwrap_or_default()
}
