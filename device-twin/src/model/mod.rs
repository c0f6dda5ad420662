//! Manifests: KubeEdge's `Device` and `DeviceModel` as they are, our `TwinPolicy` and `Rule`, and the [`Catalog`] that
//! a node makes of them.
//!
//! KubeEdge's documents are accepted unchanged: fields that we do not use are ignored here and kept in the stored
//! JSON. Ours refuse what they do not know, so that a typo is an error and not a missing interlock.
//!
//! What devices are made of, [`DeviceInfo`] and [`Property`], names no type of KubeEdge's. An importer of other
//! descriptions (WoT Thing Models, say) is one more [`Kind`] and one more function in `resolve.rs`. [`check`] holds
//! manifests against each other.

mod catalog;
pub mod check;
mod device;
mod links;
mod merge;
mod policy;
mod property;
mod resolve;
mod span;

pub use catalog::{Catalog, Change, InvalidCommand, Kind, Layout, Lookup};
pub use device::{
    AccessMode, DesiredText, Device, DeviceMethod, DeviceModel, DeviceModelSpec, DeviceProperty, DeviceSpec,
    ModelProperty, ModelRef, Protocol, StateReport, Visitors,
};
pub use policy::{OnStale, TwinPolicy, TwinPolicySpec};
pub use property::{DeviceUnit, InvalidUnit, InvalidValue, Policy, Property};
pub use resolve::{DeviceInfo, Methods, Properties};
pub use span::Span;

use std::collections::BTreeMap;

use bus::Name;
use bus::twin::DeviceId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One manifest, as Kubernetes writes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document<S> {
    pub api_version: String,
    pub kind: String,
    pub metadata: Metadata,
    pub spec: S,
}

/// The part of Kubernetes' ObjectMeta that means something here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    pub name: Name,
    #[serde(default = "default_namespace")]
    pub namespace: Name,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

#[expect(clippy::expect_used, reason = "a constant that is a name")]
fn default_namespace() -> Name {
    Name::new("default").expect("a name")
}

/// What makes a document one of our kinds.
pub trait Spec: DeserializeOwned {
    const API_VERSION: &'static str;
    const KIND: &'static str;

    /// What types alone cannot say.
    fn check(&self) -> Result<(), FieldError>;
}

/// A field that is well-formed and still wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct FieldError {
    /// Path from the document's root: `spec.properties[0].minimum`.
    pub field: String,
    pub reason: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// Why bytes are no such manifest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ManifestError {
    #[error("this is {got}, not {expected}")]
    Kind { expected: String, got: String },
    #[error(transparent)]
    Field(#[from] FieldError),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

impl<S: Spec> Document<S> {
    /// Reads a manifest from JSON.
    ///
    /// # Errors
    /// Names the field that is missing, of the wrong type or without sense.
    pub fn from_json(json: &[u8]) -> Result<Self, ManifestError> {
        let head: Head = read(json)?;
        if (head.api_version.as_str(), head.kind.as_str()) != (S::API_VERSION, S::KIND) {
            return Err(ManifestError::Kind {
                expected: format!("{} {}", S::API_VERSION, S::KIND),
                got: format!("{} {}", cut(&head.api_version), cut(&head.kind)),
            });
        }
        let document: Self = read(json)?;
        document.spec.check()?;
        Ok(document)
    }

    pub fn id(&self) -> DeviceId {
        DeviceId { namespace: self.metadata.namespace.clone(), name: self.metadata.name.clone() }
    }
}

fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, FieldError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        // Line and column are of the JSON as it travelled, not of the file that somebody wrote.
        let text = error.inner().to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        FieldError::new(if field == "." { "document".to_owned() } else { field }, what.to_owned())
    })
}

/// Enough of a foreign text to recognise it.
fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
