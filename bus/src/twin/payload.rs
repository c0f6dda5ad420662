//! JSON payloads between node, mappers and apps.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::{DesiredVersion, DeviceId, Json};
use crate::UnixMillis;
use crate::value::{Quality, Sample, Value, ValueType};

/// `mapper/<mapper>/config`: the devices that a mapper serves. Sent whole on every change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct MapperConfig {
    pub devices: Vec<DeviceConfig>,
}

/// One device as its mapper needs to know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceConfig {
    pub device: DeviceId,
    /// Connection settings, in the mapper's own terms (KubeEdge: `spec.protocol.configData`).
    pub connection: Json,
    pub properties: Vec<PropertyConfig>,
}

/// One property of a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PropertyConfig {
    pub name: String,
    #[serde(rename = "type")]
    pub value_type: ValueType,
    pub writable: bool,
    /// Where it lives in the device, in the mapper's own terms (KubeEdge: `visitors.configData`).
    pub address: Json,
    /// How often it is read; 0: only when the device pushes it.
    pub poll_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// A number that has moved by less since it was last reported need not be reported, but see `max_age_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadband: Option<f64>,
    /// Older than this a value is of no use: what stays within the deadband is reported three times as often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
}

/// `mapper/<mapper>/write`: set one property now or not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WriteRequest {
    /// Names this write; a mapper carries out an id at most once.
    pub id: String,
    pub device: DeviceId,
    pub property: String,
    pub value: Value,
    /// When the node sent it, on the clock that it shares with the mapper.
    pub sent: UnixMillis,
    /// How long it is good for, from `sent` and from its receipt, whichever ends first.
    pub ttl_ms: u64,
    /// Who moves the device and why, for the mapper's log: `rule fill-tank`, `cloud desired 4.17`.
    pub cause: String,
}

/// How a write or command ended. Terminal: an id never leaves one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    #[n(0)]
    Succeeded,
    /// The device or the line to it failed.
    #[n(1)]
    Failed,
    /// Refused before anything moved: wrong type, out of range, not writable, no right.
    #[n(2)]
    Rejected,
    /// Too old when its turn came; nothing moved.
    #[n(3)]
    Expired,
    /// Something newer or of higher priority took its place; nothing moved.
    #[n(4)]
    Superseded,
    /// It may or may not have happened (crash in mid-write): read the device.
    #[n(5)]
    Unknown,
}

/// `mapper/<mapper>/result`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WriteResult {
    pub id: String,
    pub device: DeviceId,
    pub property: String,
    pub outcome: Outcome,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// `twin/../report/<property>` and, per property, `twin/../report`: an object with a value, or a bare value; for
/// instance `{"value": 3.2, "unit": "bar", "quality": "good"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ReportBody {
    Full {
        value: Value,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        time: Option<UnixMillis>,
        #[serde(default)]
        quality: Quality,
        /// UCUM code of what the value is counted in. Absent: what the device counts in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unit: Option<String>,
    },
    Bare(Value),
}

impl ReportBody {
    /// The unit that the value names.
    pub fn unit(&self) -> Option<&str> {
        match self {
            Self::Full { unit, .. } => unit.as_deref(),
            Self::Bare(_) => None,
        }
    }

    /// The reading it stands for, of `now` if it does not say when.
    pub fn into_sample(self, now: UnixMillis) -> Sample {
        match self {
            Self::Full { value, time, quality, unit: _ } => {
                Sample { value, time: time.unwrap_or(now), quality }
            }
            Self::Bare(value) => Sample { value, time: now, quality: Quality::Good },
        }
    }
}

/// `twin/../report` with several properties at once.
pub type ReportMany = BTreeMap<String, ReportBody>;

/// `twin/../result`: what became of a wish, for whoever watches the device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultBody {
    /// What was set or reported; empty where a command tells its end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub property: String,
    /// The command's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    pub outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<DesiredVersion>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl ResultBody {
    /// How something ended that was wished for a property, without more to say.
    pub fn of(property: &str, outcome: Outcome) -> Self {
        Self { property: property.to_owned(), command: None, outcome, version: None, detail: String::new() }
    }
}
