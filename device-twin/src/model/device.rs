//! KubeEdge's `Device` and `DeviceModel` (`devices.kubeedge.io/v1beta1`), the fields that KubeBus acts on
//! (kubeedge `staging/src/github.com/kubeedge/api/apis/devices/v1beta1`).

use std::collections::BTreeSet;

use bus::twin::{Json, TwinTopic};
use bus::{Name, Topic, ValueType};
use serde::{Deserialize, Serialize};

use super::{Document, FieldError, Spec};

pub type Device = Document<DeviceSpec>;
pub type DeviceModel = Document<DeviceModelSpec>;

const API_VERSION: &str = "devices.kubeedge.io/v1beta1";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceSpec {
    /// In the device's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_model_ref: Option<ModelRef>,
    /// The edge that the device is wired to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<Name>,
    /// How the device is reached, and by which mapper.
    #[serde(default)]
    pub protocol: Protocol,
    /// Told to KubeEdge's mappers; the edge itself tells the state of every device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_report: Option<StateReport>,
    /// What this device says about properties of its model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<DeviceProperty>,
    /// Commands of several properties.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<DeviceMethod>,
}

/// A group of properties that are written together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceMethod {
    /// What the command is called.
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What the command writes, all or none.
    #[serde(default)]
    pub property_names: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRef {
    /// The `DeviceModel`.
    pub name: Name,
}

/// Which mapper serves the device, and how it connects.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    /// The mapper is called like it, in lower case and with `-` for `_`.
    #[serde(default)]
    pub protocol_name: String,
    /// How to connect: what stands here is the mapper's.
    #[serde(default)]
    pub config_data: Json,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateReport {
    /// Whether the mapper is to report it.
    #[serde(default)]
    pub report_to_cloud: bool,
    /// Milliseconds between two such reports.
    #[serde(default)]
    pub report_cycle: i64,
}

/// What a device says about one property of its model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceProperty {
    /// As the model has it.
    pub name: String,
    /// What it shall be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<DesiredText>,
    /// Milliseconds between two reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collect_cycle: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visitors: Option<Visitors>,
}

/// KubeEdge's desired value: always a text, typed by the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredText {
    /// Empty: nothing is wished.
    pub value: String,
}

/// Where a property lives in the device.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Visitors {
    /// KubeEdge wants it; the device's protocol counts.
    #[serde(default)]
    pub protocol_name: String,
    /// The address: what stands here is the mapper's.
    #[serde(default)]
    pub config_data: Json,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceModelSpec {
    /// For people.
    #[serde(default)]
    pub protocol: String,
    /// Defaults under the device's `protocol.configData`, merged by key.
    #[serde(default)]
    pub protocol_config_data: Json,
    /// What a device of this model has.
    #[serde(default)]
    pub properties: Vec<ModelProperty>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelProperty {
    /// A level of topics: letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// What its values are.
    #[serde(rename = "type")]
    pub property_type: PropertyType,
    /// Whether it can be written.
    #[serde(default)]
    pub access_mode: AccessMode,
    /// A number written as text; empty means none.
    #[serde(default)]
    pub minimum: String,
    /// The same; values outside are refused.
    #[serde(default)]
    pub maximum: String,
    /// A UCUM code, or any text, which is shown and never converted.
    #[serde(default)]
    pub unit: String,
    /// Defaults under the device's visitors, merged by key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visitors: Option<Visitors>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PropertyType {
    Int,
    Float,
    Double,
    String,
    Boolean,
    Bytes,
    /// Video and the like: it has no value, so no twin.
    Stream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum AccessMode {
    ReadWrite,
    /// KubeEdge leaves this open; what is not said to be writable is not written.
    #[default]
    ReadOnly,
}

impl PropertyType {
    /// `None` for a stream.
    pub fn value_type(self) -> Option<ValueType> {
        Some(match self {
            Self::Int => ValueType::Int,
            Self::Float | Self::Double => ValueType::Float,
            Self::String => ValueType::String,
            Self::Boolean => ValueType::Bool,
            Self::Bytes => ValueType::Bytes,
            Self::Stream => return None,
        })
    }
}

impl Protocol {
    /// The mapper's name: the protocol's in lower case, with `-` for `_`. `None` if none is given.
    ///
    /// # Errors
    /// The protocol's name holds something that a topic level of ours cannot.
    pub fn mapper(&self) -> Result<Option<Name>, FieldError> {
        if self.protocol_name.is_empty() {
            return Ok(None);
        }
        Name::new(&self.protocol_name.to_ascii_lowercase().replace('_', "-"))
            .map(Some)
            .map_err(|why| FieldError::new("spec.protocol.protocolName", why.to_string()))
    }
}

impl DeviceProperty {
    /// What the manifest wishes. KubeEdge writes an empty text where nothing is wished.
    pub(super) fn wish(&self) -> Option<&str> {
        self.desired.as_ref().map(|desired| desired.value.as_str()).filter(|text| !text.is_empty())
    }
}

impl ModelProperty {
    pub(super) fn minimum(&self) -> Option<f64> {
        bound(&self.minimum)
    }

    pub(super) fn maximum(&self) -> Option<f64> {
        bound(&self.maximum)
    }
}

fn bound(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|n: &f64| n.is_finite())
}

impl Spec for DeviceSpec {
    const API_VERSION: &'static str = API_VERSION;
    const KIND: &'static str = "Device";

    fn check(&self) -> Result<(), FieldError> {
        self.protocol.mapper()?;
        check_names("properties", self.properties.iter().map(|p| p.name.as_str()))?;
        check_names("methods", self.methods.iter().map(|m| m.name.as_str()))
    }
}

impl Spec for DeviceModelSpec {
    const API_VERSION: &'static str = API_VERSION;
    const KIND: &'static str = "DeviceModel";

    fn check(&self) -> Result<(), FieldError> {
        check_names("properties", self.properties.iter().map(|p| p.name.as_str()))?;
        for (at, property) in self.properties.iter().enumerate() {
            check_bound(at, "minimum", &property.minimum)?;
            check_bound(at, "maximum", &property.maximum)?;
        }
        Ok(())
    }
}

fn check_bound(at: usize, field: &str, text: &str) -> Result<(), FieldError> {
    if text.trim().is_empty() || bound(text).is_some() {
        return Ok(());
    }
    Err(FieldError::new(
        format!("spec.properties[{at}].{field}"),
        format!("'{}' is no number", super::cut(text)),
    ))
}

fn check_names<'a>(list: &str, names: impl Iterator<Item = &'a str>) -> Result<(), FieldError> {
    let mut seen = BTreeSet::new();
    for (at, name) in names.enumerate() {
        let field = || format!("spec.{list}[{at}].name");
        if !is_property(name) {
            let reason =
                format!("'{}' cannot be a topic level: use letters, digits, _ - .", super::cut(name));
            return Err(FieldError::new(field(), reason));
        }
        if !seen.insert(name) {
            return Err(FieldError::new(field(), format!("'{name}' is there twice")));
        }
    }
    Ok(())
}

/// A property must fit into its topics, and a method into its own; the bus says what does.
fn is_property(name: &str) -> bool {
    Topic::new(&format!("twin/n/d/set/{name}")).is_ok_and(|topic| TwinTopic::parse(&topic).is_some())
}
