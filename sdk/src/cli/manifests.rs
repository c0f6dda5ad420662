//! KubeEdge's `Device` and `DeviceModel` (`devices.kubeedge.io/v1beta1`) as far as a mapper sees them: a node makes a
//! [`DeviceConfig`] of them, and so does this. It knows no `TwinPolicy`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bus::twin::{DeviceConfig, DeviceId, Json, PropertyConfig};
use bus::{Name, ValueType};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Failure, mapper_name};

const API_VERSION: &str = "devices.kubeedge.io/v1beta1";

/// How often a property is read whose device does not say (KubeEdge's `DefaultCollectCycle`).
const DEFAULT_POLL_MS: u64 = 1000;

/// The devices of one mapper in some files.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Listing {
    pub(super) devices: Vec<Listed>,
    /// What makes no sense: a line for people each, with file, device and field.
    pub(super) faults: Vec<String>,
    /// Names of mappers that other devices belong to.
    pub(super) others: BTreeSet<String>,
}

/// One device, and the file that it comes from.
#[derive(Debug, PartialEq)]
pub(super) struct Listed {
    pub(super) file: PathBuf,
    pub(super) config: DeviceConfig,
}

/// Reads files (`-`: standard input), which hold YAML documents.
///
/// # Errors
/// A file that cannot be read or is no YAML. What is wrong in a document is in [`Listing::faults`].
pub(super) fn read(files: &[PathBuf], mapper: &Name) -> Result<Listing, Failure> {
    let mut texts = Vec::new();
    for file in files {
        let of_file = |why: String| Failure::Usage(format!("{}: {why}", file.display()));
        let text = match file.as_path() == Path::new("-") {
            true => std::io::read_to_string(std::io::stdin()),
            false => std::fs::read_to_string(file),
        };
        let text = text.map_err(|error| of_file(error.to_string()))?;
        let documents = serde_saphyr::from_multiple(&text).map_err(|error| of_file(error.to_string()))?;
        texts.push((file.clone(), documents));
    }
    Ok(listing(texts, mapper))
}

fn listing(files: Vec<(PathBuf, Vec<Value>)>, mapper: &Name) -> Listing {
    let mut listing = Listing::default();
    let (mut models, mut devices) = (BTreeMap::new(), Vec::new());
    for (file, documents) in files {
        for document in documents {
            let told = match document["kind"].as_str() {
                Some("DeviceModel") => {
                    typed::<Model>(document).map(|(id, model)| drop(models.insert(id, model)))
                }
                Some("Device") => typed::<Device>(document).map(|(id, device)| {
                    devices.push((file.clone(), id, device));
                }),
                _ => Ok(()), // not a mapper's business
            };
            if let Err(fault) = told {
                listing.faults.push(format!("{}: {fault}", file.display()));
            }
        }
    }
    let mut seen = BTreeSet::new();
    for (file, id, device) in devices {
        match mapper_name(&device.protocol.protocol_name) {
            Ok(name) if name == *mapper => {}
            Ok(name) => {
                listing.others.insert(name.to_string());
                continue;
            }
            Err(why) => {
                let field = "spec.protocol.protocolName";
                listing.faults.push(format!("{}: {id}: {field}: {why}", file.display()));
                continue;
            }
        }
        if !seen.insert(id.clone()) {
            listing.faults.push(format!("{}: {id}: there are two devices of this name", file.display()));
            continue;
        }
        match config(&id, &device, &models) {
            Ok(config) => listing.devices.push(Listed { file, config }),
            Err(fault) => listing.faults.push(format!("{}: {id}: {fault}", file.display())),
        }
    }
    listing
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<S> {
    #[serde(default)]
    api_version: String,
    metadata: Metadata,
    spec: S,
}

#[derive(Deserialize)]
struct Metadata {
    name: Name,
    namespace: Option<Name>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    device_model_ref: Option<ModelRef>,
    #[serde(default)]
    protocol: Protocol,
    #[serde(default)]
    properties: Vec<DeviceProperty>,
}

#[derive(Deserialize)]
struct ModelRef {
    name: Name,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Protocol {
    #[serde(default)]
    protocol_name: String,
    #[serde(default)]
    config_data: Json,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceProperty {
    name: String,
    collect_cycle: Option<u64>,
    visitors: Option<Visitors>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Visitors {
    #[serde(default)]
    config_data: Json,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Model {
    /// Defaults under the device's `protocol.configData`, merged by key.
    #[serde(default)]
    protocol_config_data: Json,
    #[serde(default)]
    properties: Vec<ModelProperty>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModelProperty {
    name: String,
    #[serde(rename = "type")]
    property_type: PropertyType,
    #[serde(default)]
    access_mode: AccessMode,
    /// A number written as text; empty means none.
    #[serde(default)]
    minimum: String,
    #[serde(default)]
    maximum: String,
    #[serde(default)]
    unit: String,
    /// Defaults under the device's, merged by key.
    visitors: Option<Visitors>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum PropertyType {
    Int,
    Float,
    Double,
    String,
    Boolean,
    Bytes,
    Stream,
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
enum AccessMode {
    ReadWrite,
    #[default]
    ReadOnly,
}

fn typed<S: DeserializeOwned>(document: Value) -> Result<(DeviceId, S), String> {
    let of = document["metadata"]["name"].as_str().unwrap_or("document").to_owned();
    let document: Document<S> = serde_path_to_error::deserialize(document)
        .map_err(|error| format!("{of}: {}: {}", error.path(), error.inner()))?;
    if document.api_version != API_VERSION {
        return Err(format!("{of}: apiVersion: '{}' is not {API_VERSION}", document.api_version));
    }
    let namespace = match document.metadata.namespace {
        Some(namespace) => namespace,
        None => Name::new("default").map_err(|why| why.to_string())?,
    };
    Ok((DeviceId { namespace, name: document.metadata.name }, document.spec))
}

/// The device as its mapper is told of it.
fn config(
    id: &DeviceId,
    device: &Device,
    models: &BTreeMap<DeviceId, Model>,
) -> Result<DeviceConfig, String> {
    let Some(ModelRef { name }) = &device.device_model_ref else {
        return Err("spec.deviceModelRef: is missing: name the DeviceModel".to_owned());
    };
    let model_id = DeviceId { namespace: id.namespace.clone(), name: name.clone() };
    let Some(model) = models.get(&model_id) else {
        return Err(format!("spec.deviceModelRef: {model_id} is in none of these files: give its file too"));
    };
    let is_known = |name: &str| model.properties.iter().any(|property| property.name == name);
    if let Some((at, unknown)) = device.properties.iter().enumerate().find(|(_, p)| !is_known(&p.name)) {
        return Err(format!("spec.properties[{at}]: '{}' is not in the model {model_id}", unknown.name));
    }
    let own = |name: &str| device.properties.iter().find(|property| property.name == name);
    let listed = model.properties.iter().filter(|p| device.properties.is_empty() || own(&p.name).is_some());
    Ok(DeviceConfig {
        device: id.clone(),
        connection: merge(model.protocol_config_data.clone(), device.protocol.config_data.clone()),
        properties: listed.filter_map(|property| property_config(property, own(&property.name))).collect(),
    })
}

/// `None` for a stream, which has no value.
fn property_config(model: &ModelProperty, device: Option<&DeviceProperty>) -> Option<PropertyConfig> {
    let address = |visitors: Option<&Visitors>| visitors.cloned().unwrap_or_default().config_data;
    Some(PropertyConfig {
        name: model.name.clone(),
        value_type: value_type(model.property_type)?,
        writable: model.access_mode == AccessMode::ReadWrite,
        address: merge(
            address(model.visitors.as_ref()),
            address(device.and_then(|device| device.visitors.as_ref())),
        ),
        poll_ms: device.and_then(|device| device.collect_cycle).unwrap_or(DEFAULT_POLL_MS),
        minimum: bound(&model.minimum),
        maximum: bound(&model.maximum),
        unit: Some(model.unit.clone()).filter(|unit| !unit.is_empty()),
        // A matter of policies.
        deadband: None,
        max_age_ms: None,
    })
}

fn value_type(property: PropertyType) -> Option<ValueType> {
    Some(match property {
        PropertyType::Int => ValueType::Int,
        PropertyType::Float | PropertyType::Double => ValueType::Float,
        PropertyType::String => ValueType::String,
        PropertyType::Boolean => ValueType::Bool,
        PropertyType::Bytes => ValueType::Bytes,
        PropertyType::Stream => return None,
    })
}

fn bound(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// KubeEdge merges the device over the model key by key, one level deep.
fn merge(defaults: Json, own: Json) -> Json {
    match (defaults, own) {
        (Json::Object(mut all), Json::Object(own)) => {
            all.extend(own);
            Json::Object(all)
        }
        (defaults, Json::Null) => defaults,
        (_, own) => own,
    }
}

#[cfg(test)]
#[path = "manifests_tests.rs"]
mod tests;
