//! What somebody may do. Certificates decide who he is, [`crate::user`] which role he has.
//!
//! There are two tables, one for each half of what a node answers: [`resources`] for the resource API, by verb and
//! resource as Kubernetes' RBAC has it, and [`paths`] for all else, by method and path. What neither names is for
//! administrators. [`request`] says which of the two a request is for, so that one question, [`may`], is enough.

mod document;
pub mod paths;
pub mod request;
pub mod resources;

use std::fmt;
use std::str::FromStr;

use bus::{Name, NodeId, NodeKind};
use thiserror::Error;

pub use self::document::render;
pub use self::request::{Request, Wanted, may};
pub use self::resources::allowed;

/// From most to least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Everything.
    Admin,
    /// Runs the site: desired values, commands, authority; reads all but secrets.
    Operator,
    /// Reads all but secrets.
    Viewer,
    /// A mapper: reads devices and their models.
    Mapper,
    /// An app: reads twins and wishes.
    App,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::Admin, Self::Operator, Self::Viewer, Self::Mapper, Self::App];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Mapper => "mapper",
            Self::App => "app",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is no [`Role`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is no role: use admin, operator, viewer, mapper or app")]
pub struct InvalidRole(String);

impl FromStr for Role {
    type Err = InvalidRole;
    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| InvalidRole(text.chars().take(80).collect()))
    }
}

/// Somebody who is known, and what he may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    pub who: NodeId,
    pub role: Role,
}

impl Asker {
    /// Who may open a node's own admin socket.
    #[expect(clippy::expect_used, reason = "a constant that is a name")]
    pub fn console() -> Self {
        let name = Name::new("console").expect("a name");
        Self { who: NodeId { kind: NodeKind::User, name }, role: Role::Admin }
    }

    /// Somebody of whom nothing is known. He gets what [`paths::is_open`] names, and nothing by his role.
    #[expect(clippy::expect_used, reason = "a constant that is a name")]
    pub fn stranger() -> Self {
        let name = Name::new("stranger").expect("a name");
        Self { who: NodeId { kind: NodeKind::User, name }, role: Role::App }
    }

    /// Whether that is [`Self::console`]: nobody else is called so, since no user can be.
    pub fn is_console(&self) -> bool {
        self.who == Self::console().who
    }
}
