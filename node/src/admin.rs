//! What an administrator can ask of a running node, and the answers: the meaning behind the admin socket.

use std::time::Duration;

use bus::twin::{DeviceId, Json};
pub(crate) use bus::with_causes as describe;
use bus::{Identity, Name, Value};
use controller::label::{self, Labelled};
use device_twin::cloud::Wishes;
use device_twin::command::{CommandId, CommandView, Order};
use device_twin::{Authority, TwinView};
use ipnet::IpNet;
use metadata::{Revision, Row};
use router::direct::PathView;
use serde::{Deserialize, Serialize};
use serde_json::json;
use thiserror::Error;

use crate::clients::ClientRequest;
use crate::history::Question;
use crate::page;
use crate::policy_test::PolicyTest;
use crate::route_query::RouteQuery;
use crate::users::UserRequest;
use crate::wireguard::{WireguardKeys, WireguardOrder};

/// One request. The shell fills in what a core cannot know: the secret of a new token.
#[derive(Debug, Clone, PartialEq)]
pub enum AdminRequest {
    CreateToken {
        order: TokenOrder,
        secret: [u8; bus::JoinToken::SECRET_LEN],
    },
    ListTokens,
    RevokeToken {
        id: String,
    },
    ListNodes,
    DeleteNode {
        name: Name,
    },
    Apply {
        manifest: serde_json::Value,
    },
    Delete {
        kind: String,
        device: DeviceId,
    },
    List {
        kind: String,
    },
    Twins {
        device: Option<DeviceId>,
    },
    SetTwin {
        device: DeviceId,
        property: String,
        value: Value,
    },
    /// Several wishes as one.
    Change {
        wishes: Wishes,
    },
    /// A JSON merge patch (RFC 7396) of what is desired of a device.
    PatchTwin {
        device: DeviceId,
        patch: Json,
    },
    Command {
        device: DeviceId,
        name: String,
        order: Order,
    },
    /// What became of commands: of one, of a device's, of all.
    Commands {
        device: Option<DeviceId>,
        id: Option<CommandId>,
    },
    Authority {
        device: DeviceId,
        change: AuthorityChange,
    },
    /// What rules do, and why.
    Rules,
    /// Whether one may talk to another over the overlay, and by which rule.
    PolicyTest(PolicyTest),
    /// Which prefix lies behind which node.
    Routes,
    /// Gives an edge the right to a network that it names.
    ApproveLan(LanOrder),
    /// Takes it back.
    RevokeLan(LanOrder),
    /// What labels a site or an edge has.
    Labels {
        of: Labelled,
    },
    Label {
        of: Labelled,
        change: label::Change,
    },
    /// How packets from here get to one address.
    Route(RouteQuery),
    /// A stock WireGuard client is let in.
    AddWireguard(WireguardOrder),
    RotateWireguard {
        name: Name,
        keys: WireguardKeys,
    },
    RemoveWireguard {
        name: Name,
    },
    ListWireguard,
    /// What the page for people shows.
    Page(page::Query),
    /// Of a cloud: what the edge that has the device keeps. The answer comes later.
    History(Question),
    Users(UserRequest),
    Clients(ClientRequest),
    /// What an edge finds when it looks at itself.
    Examine {
        node: Name,
    },
    /// What an edge's cloud sees of it.
    Upstream,
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
            | Self::SetTwin { .. }
            | Self::Change { .. }
            | Self::PatchTwin { .. }
            | Self::Command { .. }
            | Self::ApproveLan(_)
            | Self::RevokeLan(_)
            | Self::Label { .. }
            | Self::Authority { .. }
            | Self::AddWireguard(_)
            | Self::RotateWireguard { .. }
            | Self::RemoveWireguard { .. } => true,
            Self::Users(asked) => asked.writes(),
            Self::Clients(asked) => asked.writes(),
            Self::ListTokens
            | Self::ListNodes
            | Self::List { .. }
            | Self::Twins { .. }
            | Self::Commands { .. }
            | Self::Rules
            | Self::PolicyTest(_)
            | Self::Routes
            | Self::Labels { .. }
            | Self::Route(_)
            | Self::ListWireguard
            | Self::Page(_)
            | Self::Examine { .. }
            | Self::Upstream
            | Self::History(_)
            | Self::Status => false,
        }
    }
}

/// Who speaks at a node's own console.
pub(crate) const OPERATOR: &str = "operator";

/// What is to become of the authority over a device.
#[derive(Debug, Clone, PartialEq)]
pub enum AuthorityChange {
    /// By this node; an edge hands it back after `lasting`, if that is given.
    Take {
        reason: String,
        lasting: Option<Duration>,
    },
    HandBack {
        reason: String,
    },
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

/// A network behind an edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanOrder {
    pub node: Name,
    pub lan: IpNet,
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
    /// Somebody else has to answer, and does not now.
    #[error("{0}")]
    Away(String),
    /// Asked of a node that does not do this.
    #[error("only the cloud can do this; run it there")]
    CloudOnly,
    /// Asked of a replica whose turn it is not.
    #[error("this replica waits for its turn: {0}; run it there")]
    Standby(String),
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

pub(crate) fn document(value: &impl Serialize) -> AdminResponse {
    serde_json::to_value(value).map_err(|error| AdminError::Invalid(error.to_string()))
}

/// How packets get to another edge, and why not straight.
pub(crate) fn path(view: PathView) -> serde_json::Value {
    let PathView { peer, direct, because, failed } = view;
    json!({
        "peer": peer.to_string(),
        "path": if direct.is_some() { "direct" } else { "relayed" },
        "remote": direct.map(|remote| remote.to_string()),
        "because": because,
        "failed": failed,
    })
}

pub(crate) fn authority(device: &DeviceId, authority: &Authority) -> serde_json::Value {
    json!({ "device": device.to_string(), "holder": authority.holder(), "authority": authority })
}

/// All of these commands, or the one of this id.
pub(crate) fn commands(views: Vec<CommandView>, id: Option<&CommandId>) -> AdminResponse {
    let Some(id) = id else { return document(&views) };
    match views.iter().find(|view| view.command.id == *id) {
        Some(view) => document(view),
        None => Err(AdminError::NotFound(format!("this node knows no command {id}"))),
    }
}

/// The views of one device, or of all.
pub(crate) fn twins(views: Vec<TwinView>, device: Option<&DeviceId>) -> AdminResponse {
    let Some(device) = device else {
        return document(&views);
    };
    let name = device.to_string();
    let found: Vec<TwinView> = views.into_iter().filter(|view| view.device == name).collect();
    if found.is_empty() {
        return Err(unknown_device(device));
    }
    document(&found)
}

pub(crate) fn unknown_device(device: &DeviceId) -> AdminError {
    AdminError::NotFound(format!("this node knows no device {device}"))
}
