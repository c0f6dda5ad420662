//! The kinds that the API serves: their names, their verbs, where they come from.

use std::fmt;

use metadata::Keyspace;
use serde_json::Value;

use super::kinds;
use super::{Id, Layout};
use crate::resource::ResourceKind;
use device_twin::model::Kind as TwinKind;

/// What can be done with objects of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Delete,
        Self::DeleteCollection,
        Self::Get,
        Self::List,
        Self::Patch,
        Self::Update,
        Self::Watch,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    pub fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Device,
    DeviceModel,
    TwinPolicy,
    Rule,
    AccessPolicy,
    Host,
    Site,
    EdgeNode,
    Route,
    WireGuardPeer,
    JoinToken,
    User,
    Event,
    Namespace,
}

/// How a cell of a table is found.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer` or `date`, as OpenAPI has them.
    pub kind: &'static str,
    /// 0: always shown; 1: with `-o wide`.
    pub priority: u8,
    pub cell: fn(&Value) -> Value,
}

/// What there is to know about a kind. Its file in `kinds` has it.
#[derive(Debug)]
pub struct Info {
    /// Empty: the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short: &'static [&'static str],
    pub namespaced: bool,
    pub verbs: &'static [Verb],
    /// Whether an edge knows objects of this kind.
    pub at_edges: bool,
    /// Whether `<name>/status` can be read.
    pub has_status: bool,
    pub columns: &'static [Column],
    /// The schema of an object, see [`super::schema`].
    pub schema: fn() -> Value,
    /// The object that one of these rows is about. The old and the new value may name two.
    pub of_row: fn(Layout, &str, &[&[u8]]) -> Vec<Id>,
    /// The object as JSON, without what the API adds to it. `None`: it is made of a manifest, or is not there.
    pub made: fn(Layout, &Id, &Keyspace) -> Option<Value>,
}

/// Everything that a manifest's kind offers.
pub(super) const MANIFEST_VERBS: &[Verb] = &Verb::ALL;

/// What follows from other records alone.
pub(super) const READ_VERBS: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch];

impl Kind {
    pub const ALL: [Self; 14] = [
        Self::Device,
        Self::DeviceModel,
        Self::TwinPolicy,
        Self::Rule,
        Self::AccessPolicy,
        Self::Host,
        Self::Site,
        Self::EdgeNode,
        Self::Route,
        Self::WireGuardPeer,
        Self::JoinToken,
        Self::User,
        Self::Event,
        Self::Namespace,
    ];

    pub fn info(self) -> &'static Info {
        match self {
            Self::Device => &kinds::device::INFO,
            Self::DeviceModel => &kinds::model::INFO,
            Self::TwinPolicy => &kinds::policy::INFO,
            Self::Rule => &kinds::rule::INFO,
            Self::AccessPolicy => &kinds::access::INFO,
            Self::Host => &kinds::host::INFO,
            Self::Site => &kinds::site::INFO,
            Self::EdgeNode => &kinds::node::INFO,
            Self::Route => &kinds::route::INFO,
            Self::WireGuardPeer => &kinds::wireguard::INFO,
            Self::JoinToken => &kinds::token::INFO,
            Self::User => &kinds::user::INFO,
            Self::Event => &kinds::event::INFO,
            Self::Namespace => &kinds::namespace::INFO,
        }
    }

    /// Its place in [`Self::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    pub fn find(group: &str, version: &str, plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| {
            let info = kind.info();
            (info.group, info.version, info.plural) == (group, version, plural)
        })
    }

    /// Of what a manifest is kept, where the kind is one.
    pub fn manifest(self) -> Option<ResourceKind> {
        Some(match self {
            Self::Device => TwinKind::Device.into(),
            Self::DeviceModel => TwinKind::Model.into(),
            Self::TwinPolicy => TwinKind::Policy.into(),
            Self::Rule => TwinKind::Rule.into(),
            Self::AccessPolicy => ResourceKind::Access,
            Self::Host => ResourceKind::Host,
            Self::Site
            | Self::EdgeNode
            | Self::Route
            | Self::WireGuardPeer
            | Self::JoinToken
            | Self::User
            | Self::Event
            | Self::Namespace => return None,
        })
    }

    pub fn of_manifest(kind: ResourceKind) -> Self {
        match kind {
            ResourceKind::Twin(TwinKind::Device) => Self::Device,
            ResourceKind::Twin(TwinKind::Model) => Self::DeviceModel,
            ResourceKind::Twin(TwinKind::Policy) => Self::TwinPolicy,
            ResourceKind::Twin(TwinKind::Rule) => Self::Rule,
            ResourceKind::Access => Self::AccessPolicy,
            ResourceKind::Host => Self::Host,
        }
    }

    pub fn is_served(self, layout: Layout) -> bool {
        layout == Layout::Cloud || self.info().at_edges
    }

    pub fn offers(self, verb: Verb) -> bool {
        self.info().verbs.contains(&verb)
    }

    /// `devices.kubeedge.io/v1beta1`, or `v1` in the core group.
    pub fn api_version(self) -> String {
        let info = self.info();
        if info.group.is_empty() {
            info.version.to_owned()
        } else {
            format!("{}/{}", info.group, info.version)
        }
    }
}
