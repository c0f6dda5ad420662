//! The virtual router: one IP network over all nodes of a cluster.
//!
//! Reading order: [`packet`] (what is looked at), [`table`] (who owns what, and what becomes of a packet),
//! [`verdict`] (the answers), [`plan`] (what the kernel must know).

#[cfg(feature = "io")]
pub mod io;
pub mod packet;
pub mod plan;
pub mod table;
pub mod verdict;

pub use bus::overlay::{Lease, Route, SubnetKind};
pub use packet::Packet;
pub use table::Table;
pub use verdict::{DropReason, Verdict};
