//! The resource API with Kubernetes' conventions, as pure functions over the keyspace.
//!
//! ```text
//!  HTTP --> Call --+--> discovery, openapi                     answered where it is read
//!                  |
//!                  +--> list, get, watch --> Index, read ----> Items: bytes and revisions, cheap
//!                  |       (owner loop)                          |
//!                  |                                             v
//!                  |                         object, selector, table: decoded in the client's own task
//!                  |
//!                  '--> write --> Draft ---> Manifest::check --> one commit, answered when it is durable
//!                          (owner loop)
//! ```
//! | module | noun |
//! |---|---|
//! | [`call`] | an HTTP request, and what it asks for |
//! | [`kind`] | the kinds, their names and verbs; one file each in `kinds` |
//! | [`item`] | an object as rows; [`object`] makes JSON of it |
//! | [`index`] | which objects there are, what changed since a revision, what is gone |
//! | [`read`] | pages of a list, and the changes for a watch |
//! | [`feed`] | the last changes of a kind, rendered once for all who watch it |
//! | [`selector`], [`list`], [`table`], [`watch`] | what a client gets to see of that |
//! | [`look`] | in which form, and with what left out |
//! | [`draft`] | what a create, update, patch or delete makes of an object |
//! | [`size`] | how long objects may be |
//! | [`merge`], [`apply`], [`fields`] | patches, server-side apply and who owns which field |
//! | [`schema`], [`openapi`], [`discovery`] | what the kinds look like, for machines |
//! | [`part`] | what is desired of a device, its commands, and who has the say: its subresources |
//! | [`wish`] | a write of a device that changes nothing but what is desired |
//! | [`refusal`] | a `Status` |
//!
//! **resourceVersion** is a revision of the store. An object's is the highest of the rows that it is made of, so that a
//! watch sees twins move; a list's is what is durable. Whether an update comes too late is decided by the manifest's own
//! row: a value that a mapper reported in between is no conflict.
//!
//! **A watch** is a cursor and no queue: whoever is slow is told less often, never less, and costs nothing meanwhile.

pub mod apply;
pub mod call;
pub mod discovery;
pub mod draft;
pub mod feed;
pub mod fields;
pub mod index;
pub mod item;
pub mod kind;
mod kinds;
pub mod list;
pub mod look;
pub mod merge;
pub mod object;
pub mod openapi;
pub mod part;
pub mod protobuf;
pub mod read;
pub mod refusal;
pub mod schema;
pub mod selector;
pub mod size;
pub mod table;
pub mod watch;
pub mod wish;

pub use self::call::{Call, Method, Request};
pub use self::index::Index;
pub use self::item::{Content, Id, Item, Scope};
pub use self::kind::{Kind, Verb};
pub use self::part::Part;
pub use self::refusal::Refusal;

use crate::role::{self, Role};

/// Where a node's rows are: a cloud's, or an edge's copies of what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Cloud,
    Edge,
}

impl Layout {
    fn of_twins(self) -> device_twin::model::Layout {
        match self {
            Self::Cloud => device_twin::model::Layout::Cloud,
            Self::Edge => device_twin::model::Layout::Edge,
        }
    }
}

/// Whether `role` may do that, as [`role::resources`] has it; `part` is empty for the whole. The one place where the
/// resource API asks.
pub fn allowed(role: Role, verb: Verb, kind: Kind, part: &str) -> bool {
    let info = kind.info();
    role::allowed(role, verb.as_str(), info.group, info.plural, part)
}

/// Whether who may patch an object may change all of it: of a device others change desired values alone.
pub fn writes_whole(role: Role, kind: Kind) -> bool {
    allowed(role, Verb::Update, kind, "")
}
