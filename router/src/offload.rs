//! Super-packets: up to 64 KiB of one flow that cross the TUN in one system call.
//!
//! The kernel's TCP hands over one packet of many segments (TSO, and USO for UDP) and says in a virtio header how to cut
//! it; we cut it where it goes onto the wire ([`segment`]), and put the segments of a flow together again where they
//! leave it ([`coalesce`]). No transport checksum is computed on the way: a *partial* one, as the kernel left it, is
//! filled in by the kernel behind the far TUN, or by its network card. What lies in between is authenticated by QUIC.

use crate::packet::{TCP, UDP};

pub mod coalesce;
pub mod segment;
pub mod virtio;

pub use self::coalesce::{Coalescer, Group};
pub use self::segment::{Segmenter, Uncuttable};
pub use self::virtio::{Gso, VirtioHeader};

/// What a TUN gives and takes uncut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    pub tcp: bool,
    /// Since Linux 6.2.
    pub udp: bool,
}

impl Offload {
    fn takes(self, protocol: u8) -> bool {
        match protocol {
            TCP => self.tcp,
            UDP => self.udp,
            _ => false,
        }
    }
}

/// Headers of a packet that are looked at: an IPv4 header with all options or an IPv6 one with some extensions, and a TCP
/// header with all options. Packets with longer ones are neither cut nor put together.
pub const MAX_HEADERS: usize = 160;

#[cfg(test)]
mod tests;
