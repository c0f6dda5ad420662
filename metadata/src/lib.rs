//! Edge Metadata Service: one revisioned store a node, one sync between cloud and edge, one outbox at the edge.

pub mod key;
pub mod keyspace;
pub mod store;

#[cfg(feature = "io")]
pub mod io;

pub use key::{Commit, InvalidKey, Key, Revision, Write};
pub use keyspace::Keyspace;
pub use store::{MemoryStore, Row, Store, StoreError};
