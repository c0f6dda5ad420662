//! KubeEdge's manifests with the fields that only its mappers act on; the twins read the others
//! ([`crate::model::Device`]).

use bus::twin::{DeviceId, Json};
use bytes::Bytes;
use metadata::Keyspace;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::api::PushMethod;
use crate::model::{Kind, Layout, ModelRef, Protocol, StateReport, Visitors};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest<S> {
    pub(super) spec: S,
    /// Where KubeEdge before 1.23 says how often a device's state is reported.
    pub(super) status: Option<StateReport>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Device {
    pub(super) device_model_ref: Option<ModelRef>,
    #[serde(default)]
    pub(super) protocol: Protocol,
    pub(super) state_report: Option<StateReport>,
    #[serde(default)]
    pub(super) properties: Vec<Property>,
    #[serde(default)]
    pub(super) methods: Vec<Method>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) desired: Option<Desired>,
    pub(super) visitors: Option<Visitors>,
    #[serde(default)]
    pub(super) report_cycle: i64,
    #[serde(default)]
    pub(super) collect_cycle: i64,
    /// Where nothing is said the property is reported: a twin that hears nothing is of no use.
    pub(super) report_to_cloud: Option<bool>,
    pub(super) push_method: Option<PushMethod>,
}

/// The value itself is the twin core's affair.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Desired {
    #[serde(default)]
    pub(super) metadata: Json,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Method {
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) property_names: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Model {
    #[serde(default)]
    pub(super) protocol_config_data: Json,
    #[serde(default)]
    pub(super) properties: Vec<ModelProperty>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ModelProperty {
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(rename = "type")]
    pub(super) data_type: String,
    #[serde(default)]
    pub(super) minimum: String,
    #[serde(default)]
    pub(super) maximum: String,
    #[serde(default)]
    pub(super) unit: String,
    pub(super) visitors: Option<Visitors>,
}

/// A manifest as the edge's keyspace has it; `None` if it is not there or cannot be read, which the catalog tells.
pub(super) fn read<S: DeserializeOwned>(kind: Kind, id: &DeviceId, ks: &Keyspace) -> Option<Manifest<S>> {
    let json: &Bytes = ks.get(&format!("{}{id}", kind.prefix(Layout::Edge)))?;
    serde_json::from_slice(json).ok()
}
