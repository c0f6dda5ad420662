//! Edge Metadata Service: one revisioned store a node, one sync between cloud and edge, one outbox at the edge.
//!
//! ```text
//!            cloud                                              edge
//!   cores --put--> Keyspace                            Keyspace <--put-- cores
//!                  /e/<edge>/.. /all/..  --- Feed ==> Replica --> /m/..
//!                  /sync/in/<edge>   <-- Feed <== Replica + Outbox <-- /o/..
//!                      | seal                              | seal
//!                   Commit --> Store                    Commit --> Store
//! ```
//!
//! - A node has one [`Keyspace`]: all of it in memory, every key with the revision that last changed it. In a cycle
//!   of the node, cores write; then it is sealed: one [`Commit`] with one revision. The node holds back every output
//!   until the [`Store`] has made that commit durable, so a core just writes and speaks.
//! - Down: the cloud's [`Feed`] keeps one cursor an edge and streams *batches*, each folding all revisions since the
//!   last into one consistent state; the edge's [`Replica`] applies each in one commit. What arrives as `/m/x` is the
//!   cloud's `/e/<edge>/x`, or where there is none `/all/x`.
//! - Up: entries wait in the [`Outbox`] until the cloud has stored them, and the cloud takes each exactly once.
//! - A wiped disk has a new incarnation and a restored cloud a new term: both are seen, and resynced from a snapshot. A
//!   disk that was copied is told from the original by its receipt, and an outlived cloud by its [`epoch`].
//!
//! `docs/metadata-sync.md` specifies the sync: each field, rule and invariant.
//!
//! Reading order: [`key`], [`keyspace`], [`store`]; then [`sync`] (what is said), [`replica`] and [`feed`] (who says
//! it); `term`, `cursor` and `inbox` are the feed's parts, [`outbox`] the replica's.
//!
//! Who writes where:
//!
//! | key | writer | what |
//! |---|---|---|
//! | `/e/<edge>/..`, `/all/..` | cloud's cores | what one edge, or every edge, must know |
//! | `/m/..` | [`Replica`] | the edge's copy |
//! | `/o/<lane>/<seq>` | [`Outbox`] | waits to go up; in the lane mesh a row may hold several |
//! | `/sync/..` | this crate | incarnation, receipt, applied position; terms, inbox positions; epoch; what is compacted |
//! | all else | its owner | not synced |

mod cursor;
mod digest;
pub mod durability;
pub mod epoch;
pub mod feed;
mod inbox;
pub mod key;
pub mod keyspace;
pub mod outbox;
mod pack;
pub mod replica;
pub mod store;
pub mod sync;
mod term;

#[cfg(feature = "io")]
pub mod io;

#[cfg(test)]
mod model;
#[cfg(test)]
mod two_parties;

pub use durability::Durability;
pub use feed::{Cause, Feed, FeedOutput, Tells, UpEntry};
pub use key::{Commit, InvalidKey, Key, Revision, Write};
pub use keyspace::{Keyspace, MAX_VALUE_LEN};
pub use outbox::{Outbox, PushError};
pub use replica::{Replica, ReplicaOutput};
pub use store::{MemoryStore, Row, Store, StoreError};
pub use sync::{Misbehaviour, Position, Receipt};
