//! A small internet: NATs, delay, loss, rate and cuts between a handful of nodes.
//!
//! ```text
//!   namespace "edge"                 the emulator                     namespace "cloud"
//!  +----------------+    +--------------------------------------+    +-----------------+
//!  | 192.168.1.2    |    |  NAT       up ->            -> down  |    |  203.0.113.10   |
//!  |          wan0 ======== 198.51.  link   routing by   link  ======== wan0            |
//!  |           (TUN)|    |  100.7  <- down   address     <- up    |    |      (TUN)      |
//!  +----------------+    +--------------------------------------+    +-----------------+
//! ```
//! The pure part holds the whole behaviour, so that it needs neither `nft` nor `tc` nor `ip` on the machine, and
//! so that the deterministic world of `simulations/` has the same NATs as real processes do:
//!
//! - [`nat`]: who gets through a NAT, on [`Flow`] values; four kinds in the terms of RFC 4787.
//! - [`ipv4`]: the addresses and ports of real packets, read and rewritten, with their checksums.
//! - [`link`]: rate, queue, delay, jitter, loss and reordering of one attachment.
//! - [`internet`]: attachments joined by routing; bytes in, bytes out, time as an argument.
//!
//! `io` puts real processes on it, without root where the machine allows user namespaces: network namespaces,
//! the thread that holds the other ends of their TUNs, veth pairs for the LANs behind a node, and probes that
//! say who reaches whom.

mod checksum;
pub mod internet;
#[cfg(feature = "io")]
pub mod io;
pub mod ipv4;
pub mod link;
pub mod nat;
#[cfg(test)]
mod packets;
mod translate;

pub use internet::{AttachError, Attachment, Delivery, DropReason, Internet, NatSettings, PortId, PortStats};
pub use link::{LinkSettings, Rate};
pub use nat::{Flow, Nat, NatKind, Protocol};
