//! Manifests: read, checked, stored as JSON at `/c/resource/<kind>/<namespace>/<name>`.
//!
//! KubeEdge's `Device` and `DeviceModel` (`devices.kubeedge.io/v1beta1`) and our `TwinPolicy`, `Rule`,
//! `AccessPolicy` and `Host` (`kubebus.io/v1alpha1`). What is stored is the manifest as it came, unknown fields of KubeEdge's kinds included,
//! with its namespace filled in. Manifests may come in any order, and [`crate::Binder`] says what a device or a rule
//! still waits for; what contradicts a manifest that is there is found by [`Manifest::check`].

use bus::Name;
use bus::twin::DeviceId;
use bytes::Bytes;
use device_twin::model::{
    Catalog, DeviceModelSpec, DeviceSpec, Document, Kind, Layout, ManifestError, Spec, TwinPolicySpec, check,
};
use device_twin::rule::RuleSpec;
use metadata::{Key, Keyspace};
use serde_json::Value;
use thiserror::Error;

use crate::access::{self, AccessPolicySpec};
use crate::host::{self, HostSpec};
use crate::record::own_key;

/// A manifest must fit into one frame to its edge with room to spare; the largest of KubeEdge's examples has 4 KiB.
pub const MAX_MANIFEST_LEN: usize = 256 * 1024;

/// What a manifest is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceKind {
    /// Devices and what belongs to them.
    Twin(Kind),
    /// Who may begin to talk to whom over the overlay.
    Access,
    /// What a machine on a LAN is called.
    Host,
}

impl From<Kind> for ResourceKind {
    fn from(kind: Kind) -> Self {
        Self::Twin(kind)
    }
}

impl ResourceKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Twin(kind) => kind.prefix(Layout::Cloud),
            Self::Access => access::PREFIX,
            Self::Host => host::MANIFESTS,
        }
    }

    /// As manifests have it.
    fn name(self) -> &'static str {
        match self {
            Self::Twin(Kind::Device) => DeviceSpec::KIND,
            Self::Twin(Kind::Model) => DeviceModelSpec::KIND,
            Self::Twin(Kind::Policy) => TwinPolicySpec::KIND,
            Self::Twin(Kind::Rule) => RuleSpec::KIND,
            Self::Access => AccessPolicySpec::KIND,
            Self::Host => HostSpec::KIND,
        }
    }
}

/// One manifest that is well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    kind: ResourceKind,
    id: DeviceId,
    json: Bytes,
}

/// What applying a manifest did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    Created,
    Changed,
    Unchanged,
}

/// Why a document is no manifest of ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidManifest {
    #[error(
        "{api_version} {kind} is not known; known are Device and DeviceModel (devices.kubeedge.io/v1beta1), \
         TwinPolicy, Rule, AccessPolicy and Host (kubebus.io/v1alpha1)"
    )]
    UnknownKind { api_version: String, kind: String },
    #[error("{kind}")]
    Content { kind: &'static str, source: ManifestError },
    #[error("manifest of {0} bytes is over the limit of {MAX_MANIFEST_LEN}")]
    TooLong(usize),
}

impl InvalidManifest {
    /// Path of the field that is wrong: `spec.properties[0].minimum`. `None`: the document as a whole.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::UnknownKind { .. } => Some("kind"),
            Self::Content { source: ManifestError::Field(error), .. } => Some(&error.field),
            Self::Content { source: ManifestError::Kind { .. }, .. } | Self::TooLong(_) => None,
        }
    }
}

impl Manifest {
    /// Reads one manifest; the error names the field that is wrong.
    pub fn parse(document: &Value) -> Result<Self, InvalidManifest> {
        let text = |field| document.get(field).and_then(Value::as_str).unwrap_or_default();
        match (text("apiVersion"), text("kind")) {
            (DeviceSpec::API_VERSION, DeviceSpec::KIND) => read::<DeviceSpec>(Kind::Device, document),
            (DeviceModelSpec::API_VERSION, DeviceModelSpec::KIND) => {
                read::<DeviceModelSpec>(Kind::Model, document)
            }
            (TwinPolicySpec::API_VERSION, TwinPolicySpec::KIND) => {
                read::<TwinPolicySpec>(Kind::Policy, document)
            }
            (RuleSpec::API_VERSION, RuleSpec::KIND) => read::<RuleSpec>(Kind::Rule, document),
            (AccessPolicySpec::API_VERSION, AccessPolicySpec::KIND) => {
                read::<AccessPolicySpec>(ResourceKind::Access, document)
            }
            (HostSpec::API_VERSION, HostSpec::KIND) => read::<HostSpec>(ResourceKind::Host, document),
            (api_version, kind) => {
                Err(InvalidManifest::UnknownKind { api_version: cut(api_version), kind: cut(kind) })
            }
        }
    }

    pub fn kind(&self) -> ResourceKind {
        self.kind
    }

    /// As it is stored.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    pub fn id(&self) -> &DeviceId {
        &self.id
    }

    /// Where it is stored.
    pub fn key(&self) -> Key {
        key(self.kind, &self.id)
    }

    /// What is wrong with it beside the manifests in `catalog`, or with those beside it. Empty: it can be applied.
    pub fn check(&self, catalog: &Catalog) -> Vec<InvalidManifest> {
        // The others speak of who may join later: there is nothing to hold them against.
        let ResourceKind::Twin(of_twins) = self.kind else { return Vec::new() };
        let kind = self.kind.name();
        let errors = check::check(of_twins, &self.id, &self.json, catalog);
        errors.into_iter().map(|error| InvalidManifest::Content { kind, source: error.into() }).collect()
    }

    /// Stores it in the place of what is there.
    pub fn apply(&self, ks: &mut Keyspace) -> Applied {
        let key = self.key();
        let applied = match ks.get(key.as_str()) {
            None => Applied::Created,
            Some(old) if *old == self.json => Applied::Unchanged,
            Some(_) => Applied::Changed,
        };
        ks.put(key, self.json.clone());
        applied
    }
}

fn read<S: Spec>(kind: impl Into<ResourceKind>, document: &Value) -> Result<Manifest, InvalidManifest> {
    let given = document.to_string();
    if given.len() > MAX_MANIFEST_LEN {
        return Err(InvalidManifest::TooLong(given.len()));
    }
    let id = Document::<S>::from_json(given.as_bytes())
        .map_err(|source| InvalidManifest::Content { kind: S::KIND, source })?
        .id();
    let mut stored = document.clone();
    stored["metadata"]["namespace"] = id.namespace.as_str().into();
    Ok(Manifest { kind: kind.into(), id, json: stored.to_string().into() })
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A kind as people write it: `device`, `Devices`, `devicemodel`, `model`, `twinpolicies`, `rule`, ...
pub fn kind_named(text: &str) -> Option<ResourceKind> {
    Some(match text.to_ascii_lowercase().as_str() {
        "device" | "devices" => Kind::Device.into(),
        "devicemodel" | "devicemodels" | "model" | "models" => Kind::Model.into(),
        "twinpolicy" | "twinpolicies" | "policy" | "policies" => Kind::Policy.into(),
        "rule" | "rules" => Kind::Rule.into(),
        "accesspolicy" | "accesspolicies" => ResourceKind::Access,
        "host" | "hosts" => ResourceKind::Host,
        _ => return None,
    })
}

/// Where a manifest is stored.
pub fn key(kind: impl Into<ResourceKind>, id: &DeviceId) -> Key {
    own_key(&format!("{}{id}", kind.into().prefix()))
}

/// The stored manifest.
pub fn get<'a>(kind: impl Into<ResourceKind>, id: &DeviceId, ks: &'a Keyspace) -> Option<&'a Bytes> {
    ks.get(key(kind, id).as_str())
}

/// All manifests of a kind in a namespace, or in all, by namespace and name.
pub fn list<'a, K: Into<ResourceKind>>(
    kind: K,
    namespace: Option<&Name>,
    ks: &'a Keyspace,
) -> impl Iterator<Item = (DeviceId, &'a Bytes)> + use<'a, K> {
    let prefix = kind.into().prefix();
    let below = namespace.map(|namespace| format!("{namespace}/")).unwrap_or_default();
    ks.range(&format!("{prefix}{below}"))
        .filter_map(move |(key, json)| Some((key.as_str().strip_prefix(prefix)?.parse().ok()?, json)))
}

/// Removes a manifest; `false` if there is none.
pub fn delete(kind: impl Into<ResourceKind>, id: &DeviceId, ks: &mut Keyspace) -> bool {
    let key = key(kind, id);
    let known = ks.get(key.as_str()).is_some();
    ks.delete(&key);
    known
}

#[cfg(test)]
mod tests;
