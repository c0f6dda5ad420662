//! What node, mappers and apps agree on about twins: names, versions, topics and payloads.
//!
//! The MQTT contract lives here, in both directions, so that the node and the SDK cannot drift apart.

mod health;
mod json;
mod payload;
mod topic;

pub use health::{DeviceCondition, DeviceHealth, MapperCounts, MapperHealth};
pub use json::Json;
pub use payload::{
    DeviceConfig, MapperConfig, Outcome, PropertyConfig, ReportBody, ReportMany, ResultBody, WriteRequest,
    WriteResult,
};
pub use topic::{MapperTopic, TwinTopic};

use std::fmt;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::Name;

/// A device, as Kubernetes names it: `<namespace>/<name>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct DeviceId {
    #[n(0)]
    pub namespace: Name,
    #[n(1)]
    pub name: Name,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for DeviceId {
    type Err = crate::id::InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        Ok(Self { namespace: Name::new(namespace)?, name: Name::new(name)? })
    }
}

/// Version of a desired value: compared epoch first. Even epochs belong to the cloud, odd ones to the edge, so two
/// sides that take authority during a partition never share one. In JSON `"4.17"`.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize, Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct DesiredVersion {
    #[n(0)]
    pub epoch: u64,
    #[n(1)]
    pub seq: u64,
}

impl fmt::Display for DesiredVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

impl fmt::Debug for DesiredVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<DesiredVersion> for String {
    fn from(version: DesiredVersion) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for DesiredVersion {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, &'static str> {
        let parts = text.split_once('.').and_then(|(e, s)| Some((e.parse().ok()?, s.parse().ok()?)));
        let (epoch, seq) = parts.ok_or("a desired version looks like 4.17")?;
        Ok(Self { epoch, seq })
    }
}

/// A store's life: random at its creation, so that a wiped or cloned disk is seen and not guessed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Incarnation(#[n(0)] pub u64);

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Version of a reported value; its edge alone writes it, `rev` grows within one incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ReportedVersion {
    #[n(0)]
    pub incarnation: Incarnation,
    #[n(1)]
    pub rev: u64,
}
