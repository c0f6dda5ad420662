//! What an administrator can ask of a running node, and the answers: the meaning behind the admin socket.

use bus::twin::DeviceId;
pub(crate) use bus::with_causes as describe;
use bus::{Identity, Name, Value};
use device_twin::TwinView;
use ipnet::IpNet;
use metadata::{Revision, Row};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One request. The shell fills in what a core cannot know: the secret of a new token.
#[derive(Debug, Clone, PartialEq)]
pub enum AdminRequest {
    CreateToken { order: TokenOrder, secret: [u8; bus::JoinToken::SECRET_LEN] },
    ListTokens,
    RevokeToken { id: String },
    ListNodes,
    DeleteNode { name: Name },
    Apply { manifest: serde_json::Value },
    Delete { kind: String, device: DeviceId },
    List { kind: String },
    Twins { device: Option<DeviceId> },
    SetTwin { device: DeviceId, property: String, value: Value },
    Status,
}

impl AdminRequest {
    /// Whether the answer promises that something was written.
    pub(crate) fn writes(&self) -> bool {
        match self {
            Self::CreateToken { .. }
            | Self::RevokeToken { .. }
            | Self::DeleteNode { .. }
            | Self::Apply { .. }
            | Self::Delete { .. }
            | Self::SetTwin { .. } => true,
            Self::ListTokens | Self::ListNodes | Self::List { .. } | Self::Twins { .. } | Self::Status => {
                false
            }
        }
    }
}

/// All that a cloud knows at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub identity: Identity,
    pub revision: Revision,
    pub epoch: u64,
    /// In the order of keys; they share their bytes with the keyspace.
    pub rows: Vec<Row>,
}

/// What a join token allows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenOrder {
    /// The site that the joining node belongs to.
    pub site: Name,
    /// Networks behind the node that it may advertise.
    #[serde(default)]
    pub lans: Vec<IpNet>,
    /// How long the token is good for.
    pub ttl_seconds: u64,
    /// How many nodes may join with it.
    pub uses: u32,
}

/// Why a request was refused; the HTTP status of the admin socket and the exit code of the CLI follow from it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AdminError {
    #[error("{0}")]
    Invalid(String),
    /// A manifest, for what stands in its fields. Never empty.
    #[error("{}", .0.first().map_or("", |fault| &fault.message))]
    Manifest(Vec<Fault>),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    /// Asked of a node that does not do this.
    #[error("only the cloud can do this; run it there")]
    CloudOnly,
    /// Nothing was written.
    #[error(
        "the disk refuses writes, so nothing was changed: {0}; the node goes on by itself once it takes them"
    )]
    Degraded(String),
    /// Written in memory when the disk began to refuse.
    #[error(
        "the disk refuses writes: this may come into force once it takes them, or be forgotten; see 'kubebus status'"
    )]
    Unkept,
}

/// What is wrong with one field of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    #[serde(rename = "error")]
    pub message: String,
    /// Path from the document's root, `spec.cases[0].when`; empty for the document as a whole.
    #[serde(default)]
    pub field: String,
}

/// The answer: a JSON document, shown as it is with `-o json`.
pub type AdminResponse = Result<serde_json::Value, AdminError>;

/// The views of one device, or of all.
pub(crate) fn twins(views: Vec<TwinView>, device: Option<&DeviceId>) -> AdminResponse {
    let Some(device) = device else {
        return serde_json::to_value(views).map_err(|error| AdminError::Invalid(error.to_string()));
    };
    let name = device.to_string();
    let found: Vec<TwinView> = views.into_iter().filter(|view| view.device == name).collect();
    if found.is_empty() {
        return Err(AdminError::NotFound(format!("this node knows no device {name}")));
    }
    serde_json::to_value(found).map_err(|error| AdminError::Invalid(error.to_string()))
}
