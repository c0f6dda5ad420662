//! What is known of the links, for people.

use std::net::SocketAddr;
use std::time::Duration;

use bus::NodeId;
use bus::bus::LinkId;

use super::Lane;
use super::link::{Link, Phase};
use crate::io::udp::Socket;
use crate::queue;

/// One link that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkReport {
    pub link: LinkId,
    pub lane: Lane,
    /// Of a packets lane: nothing of it counts yet.
    pub in_reserve: bool,
    /// `None` for a client that joins.
    pub peer: Option<NodeId>,
    /// Where the peer is seen, behind whatever NAT.
    pub remote: SocketAddr,
    /// Smoothed, and the least seen (RFC 9002 §5).
    pub rtt: Duration,
    pub min_rtt: Duration,
    /// The largest UDP payload that the path carries, as far as is known, in bytes.
    pub mtu: u16,
    /// QUIC packets since the link came up, and how many of them were lost.
    pub sent: u64,
    pub lost: u64,
    /// Bytes of UDP payloads since the link came up.
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// How often large packets ceased to arrive while small ones did.
    pub black_holes: u64,
    /// QUIC packets that one system call sends: 1 if the kernel or the network card does not cut them.
    pub segments: usize,
    /// What waits for a packets lane, and what became of it.
    pub queue: Option<queue::Stats>,
}

impl LinkReport {
    /// `None` for a link that is not up.
    pub(super) fn of(link: &Link, socket: &Socket) -> Option<Self> {
        let Phase::Up(up) = &link.phase else { return None };
        let stats = link.connection.stats();
        let path = stats.path;
        Some(Self {
            link: link.id,
            lane: up.lane,
            in_reserve: up.lane == Lane::Packets && !link.admitted,
            peer: up.peer.clone(),
            remote: link.remote(),
            rtt: path.rtt,
            min_rtt: path.min_rtt,
            mtu: path.current_mtu,
            sent: path.sent_packets,
            lost: path.lost_packets,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            black_holes: path.black_holes_detected,
            segments: socket.max_segments(path.current_mtu),
            queue: link.packets.as_ref().map(|lane| lane.stats()),
        })
    }
}
