//! The virtual router: one IP network over all nodes of a cluster, and the links that carry it.
//!
//! ```text
//!    edge                                   cloud                          edge
//!  TUN <-> shard == packets lane (QUIC) ==> shard <== packets lane == shard <-> TUN
//!            |                                |                         |
//!          owner ------- bus lane ----------- owner ------ bus lane --- owner
//! ```
//! Edges dial clouds and keep one connection per lane; a cloud passes packets between its edges. Which packet goes
//! where is decided by pure code over an immutable [`Table`]; one thread, the shard, moves the bytes.
//!
//! Reading order: [`packet`] (what is looked at), [`table`] (who owns what, and what becomes of a packet),
//! [`policy`] (who may talk to whom), [`guard`] (WireGuard clients), [`verdict`] (the answers), [`plan`] (what the kernel
//! must know), [`dial`] (when to try a cloud again), [`direct`] (two edges without a cloud in between). What is done to
//! packets on their way: [`checksum`] (beneath all of it), [`offload`]
//! (super-packets), [`flow_cache`], [`translate`] (sites whose ranges clash), [`mss`], [`parts`] and [`icmp`] (packets
//! that are too long, and what their sender hears), and [`queue`] (what goes first on a thin link). Then `io`: `shard`
//! (connections, lanes, frames), `tls` (who is at the other end), `tun` and `device` (the kernel's side), `wireguard`
//! (clients without kubebus).

pub mod checksum;
pub mod dial;
pub mod direct;
pub mod flow_cache;
pub mod guard;
pub mod icmp;
#[cfg(feature = "io")]
pub mod io;
pub mod mss;
pub mod offload;
pub mod packet;
pub mod parts;
pub mod plan;
pub mod policy;
pub mod queue;
pub mod table;
pub mod translate;
pub mod verdict;

pub use bus::overlay::{Lease, Route, SubnetKind};
pub use dial::Dialer;
pub use guard::Guard;
pub use packet::{Flow, Packet};
pub use policy::{Gate, Policy};
pub use queue::Scheduler;
pub use table::Table;
pub use verdict::{DropReason, Verdict};
