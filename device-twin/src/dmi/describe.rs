//! What a mapper is told of a device: its manifest and its model's, merged, as DMI's messages.
//!
//! **A mapper may write nothing that is not being written right now.** KubeEdge's mappers write `desired` to the device
//! whenever they are given it: at their registration, at each `RegisterDevice` and `UpdateDevice` of the device, whichever
//! property it was for, and at each read through their REST interface (`setVisitor` in the template's `device.go`). An
//! empty `desired` does not stop them: they write the empty text. What stops them is `accessMode: ReadOnly`. So all that a
//! mapper is told at rest is read-only and wishes nothing ([`Description::at_rest`]), and a write opens what it writes, and
//! only for its time ([`Description::opened`]).

use std::collections::BTreeMap;

use bus::twin::{DeviceId, Json};
use metadata::Keyspace;
use prost::Message;
use sha2::{Digest as _, Sha256};

use super::api;
use super::manifest::{self, Manifest};
use crate::model::{Kind, StateReport, Visitors};

/// Tells what a mapper was told from what it should be.
pub(super) type Digest = [u8; 8];

/// A mapper has been told to write something: nothing at rest is the same.
pub(super) const OPEN: Digest = [0; 8];

/// What a mapper is told of one device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Description {
    pub(super) model_id: DeviceId,
    pub(super) device: api::Device,
    pub(super) model: api::DeviceModel,
}

/// The values that a mapper shall write, as the text that KubeEdge has for every type.
pub(super) type Wishes = BTreeMap<String, String>;

const READ_ONLY: &str = "ReadOnly";
const READ_WRITE: &str = "ReadWrite";

impl Description {
    /// `None` while the device's manifest or its model is not known here: it is told once both are.
    pub(super) fn at_rest(id: &DeviceId, ks: &Keyspace) -> Option<Self> {
        let Manifest { spec: device, status } = manifest::read::<manifest::Device>(Kind::Device, id, ks)?;
        let model_id = model_id(id, &device)?;
        let model = manifest::read::<manifest::Model>(Kind::Model, &model_id, ks)?.spec;
        let state_report = device.state_report.clone().or(status);
        Some(Self {
            device: api::Device {
                name: id.name.to_string(),
                namespace: id.namespace.to_string(),
                spec: Some(device_spec(&model_id, device, &model)),
                status: Some(device_status(state_report)),
            },
            model: api::DeviceModel {
                name: model_id.name.to_string(),
                namespace: model_id.namespace.to_string(),
                spec: Some(api::DeviceModelSpec {
                    properties: model.properties.iter().map(model_property).collect(),
                }),
            },
            model_id,
        })
    }

    /// With what is to be written now; the rest stays shut.
    pub(super) fn opened(mut self, wishes: &Wishes) -> Self {
        let properties = self.model.spec.iter_mut().flat_map(|spec| &mut spec.properties);
        for property in properties.filter(|property| wishes.contains_key(&property.name)) {
            property.access_mode = READ_WRITE.to_owned();
        }
        for property in self.device.spec.iter_mut().flat_map(|spec| &mut spec.properties) {
            if let (Some(wish), Some(desired)) = (wishes.get(&property.name), &mut property.desired) {
                desired.value.clone_from(wish);
            }
        }
        self
    }

    /// Of all that the mapper is told of the device.
    pub(super) fn digest(&self) -> Digest {
        let hash = Sha256::new().chain_update(self.device.encode_to_vec());
        short(hash.chain_update(self.model.encode_to_vec()))
    }

    pub(super) fn model_digest(&self) -> Digest {
        short(Sha256::new().chain_update(self.model.encode_to_vec()))
    }
}

fn short(hash: Sha256) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(&hash.finalize()[..8]);
    digest
}

fn model_id(id: &DeviceId, device: &manifest::Device) -> Option<DeviceId> {
    let name = device.device_model_ref.as_ref()?.name.clone();
    Some(DeviceId { namespace: id.namespace.clone(), name })
}

/// The model of a device, if its manifest names one.
pub(super) fn model_of(id: &DeviceId, ks: &Keyspace) -> Option<DeviceId> {
    model_id(id, &manifest::read::<manifest::Device>(Kind::Device, id, ks)?.spec)
}

fn device_spec(model_id: &DeviceId, device: manifest::Device, model: &manifest::Model) -> api::DeviceSpec {
    let manifest::Device { protocol, properties, methods, device_model_ref: _, state_report: _ } = device;
    let config = merged(&model.protocol_config_data, &protocol.config_data);
    let find = |name: &str| properties.iter().find(|own| own.name == name);
    let known = model.properties.iter().filter(|m| properties.is_empty() || find(&m.name).is_some());
    api::DeviceSpec {
        device_model_reference: model_id.name.to_string(),
        properties: known.map(|m| property(m, find(&m.name), &protocol.protocol_name)).collect(),
        methods: methods.into_iter().map(method).collect(),
        protocol: Some(config_of(protocol.protocol_name, &config)),
    }
}

fn method(method: manifest::Method) -> api::DeviceMethod {
    let manifest::Method { name, description, property_names } = method;
    api::DeviceMethod { name, description, property_names }
}

/// KubeEdge's mappers follow `desired`, `visitors` and their `configData` without looking whether they are there.
fn property(
    model: &manifest::ModelProperty,
    own: Option<&manifest::Property>,
    protocol: &str,
) -> api::DeviceProperty {
    let defaults = model.visitors.clone().unwrap_or_default();
    let visitors = own.and_then(|own| own.visitors.clone()).unwrap_or_default();
    let protocol =
        [&visitors, &defaults].into_iter().map(named).find(|name| !name.is_empty()).unwrap_or(protocol);
    let config = merged(&defaults.config_data, &visitors.config_data);
    api::DeviceProperty {
        name: model.name.clone(),
        desired: Some(no_wish(model, own)),
        visitors: Some(config_of(protocol.to_owned(), &config)),
        report_cycle: own.map_or(0, |own| own.report_cycle),
        collect_cycle: own.map_or(0, |own| own.collect_cycle),
        report_to_cloud: own.and_then(|own| own.report_to_cloud).unwrap_or(true),
        push_method: own.and_then(|own| own.push_method.clone()),
    }
}

fn named(visitors: &Visitors) -> &str {
    &visitors.protocol_name
}

/// A mapper names the type in its reports as it is named here.
fn no_wish(model: &manifest::ModelProperty, own: Option<&manifest::Property>) -> api::TwinProperty {
    let mut metadata = BTreeMap::from([("type".to_owned(), model.data_type.to_ascii_lowercase())]);
    if let Some(Json::Object(fields)) =
        own.and_then(|own| own.desired.as_ref()).map(|desired| &desired.metadata)
    {
        let texts = fields.iter().filter_map(|(name, value)| match value {
            Json::Text(text) => Some((name.clone(), text.clone())),
            Json::Null | Json::Bool(_) | Json::Int(_) | Json::Float(_) | Json::List(_) | Json::Object(_) => {
                None
            }
        });
        metadata.extend(texts);
    }
    api::TwinProperty { value: String::new(), metadata }
}

fn config_of(protocol_name: String, config: &Json) -> api::ProtocolConfig {
    api::ProtocolConfig { protocol_name, config_data: Some(config.into()) }
}

fn device_status(report: Option<StateReport>) -> api::DeviceStatus {
    let StateReport { report_to_cloud, report_cycle } =
        report.unwrap_or(StateReport { report_to_cloud: false, report_cycle: 0 });
    api::DeviceStatus { twins: Vec::new(), report_to_cloud, report_cycle }
}

fn model_property(property: &manifest::ModelProperty) -> api::ModelProperty {
    let manifest::ModelProperty { name, description, data_type, minimum, maximum, unit, visitors: _ } =
        property;
    api::ModelProperty {
        name: name.clone(),
        description: description.clone(),
        data_type: data_type.clone(),
        access_mode: READ_ONLY.to_owned(),
        minimum: minimum.clone(),
        maximum: maximum.clone(),
        unit: unit.clone(),
    }
}

/// The instance over its model, key by key, one level deep.
fn merged(defaults: &Json, own: &Json) -> Json {
    match (defaults, own) {
        (Json::Object(defaults), Json::Object(own)) => {
            let mut all = defaults.clone();
            all.extend(own.clone());
            Json::Object(all)
        }
        (defaults, Json::Null) => defaults.clone(),
        (_, own) => own.clone(),
    }
}
