//! The cloud side of a cluster: who belongs to it, which addresses they hold, and what each edge must know.
//!
//! Everything here reads and writes the cloud's [`metadata::Keyspace`]; what is written in one cycle is one commit.
//! The pure modules hold no state of their own beside it.
//!
//! | module | noun | keys |
//! |---|---|---|
//! | [`token`] | an invitation: site, LANs, uses, expiry | `/c/token/<id>` |
//! | [`join`] | the conversation that lets a node in, and its checks | all of these at once |
//! | [`nodes`] | who is in | `/c/node/<name>` |
//! | [`plan`], [`lease`], [`lan`] | the address plan, who holds what, what may lie behind an edge | `/c/lease/..`, `/e/<edge>/lease` |
//! | [`route`] | which prefix lies behind which node | `/all/route/<prefix>` |
//! | [`cluster`] | the cloud's own part at its start | its lease and routes |
//! | `io` | the certificate authority and its key file | - |
//!
//! ```text
//! JoinRequest --> join --+--> token (one use less)
//!                        +--> nodes (record)
//!                        +--> lease, route (addresses)
//!                        +--> io::ca (certificate)
//! ```
//! Order at a cloud's start: open the authority, load the keyspace, [`Cluster::establish`]; then answer joins.

pub mod cluster;
pub mod join;
pub mod lan;
pub mod lease;
pub mod nodes;
pub mod plan;
pub mod record;
pub mod route;
pub mod token;

#[cfg(feature = "io")]
pub mod io;

pub use cluster::{CloudSubnets, Cluster};
pub use join::handle_join;
pub use lan::Lan;
pub use plan::Plan;
