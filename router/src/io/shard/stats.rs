//! What a shard counts.

use crate::DropReason;

/// Counters since the shard's start, and a few present numbers. Copied out whole by
/// [`ShardHandle::stats`](super::ShardHandle::stats).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Links that are up now.
    pub links: u64,
    /// Connections of peers that have not proven who they are, now.
    pub unproven: u64,
    /// Connections that were asked to come again with proof of their address.
    pub retried: u64,
    /// Connections refused because too many were unproven, or because the owner was behind.
    pub refused_busy: u64,
    /// Accepted connections that ended before their link was up: no or bad certificate, wrong lane, silence.
    pub refused: u64,
    /// First packets from addresses that were not expected, at a node that is not dialled by everybody.
    pub uninvited: u64,
    /// Dials that made no link.
    pub dials_failed: u64,
    /// Links that came up.
    pub links_up: u64,
    /// Links closed because of what the peer sent.
    pub peer_faults: u64,
    pub frames_sent: u64,
    pub frames_received: u64,
    /// Frames of droppable classes for which the link's queue was full.
    pub frames_dropped: u64,
    /// Frames for a link that was gone.
    pub frames_without_link: u64,
    pub udp_sent: u64,
    pub udp_received: u64,
    pub udp_errors: u64,
    pub packets: PacketStats,
}

/// Overlay packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PacketStats {
    /// From our TUN on their way to a peer; some of them may still be dropped in its lane's queue, which counts for itself.
    pub sent: u64,
    /// Received from a peer and written to our TUN.
    pub received: u64,
    /// Passed from one peer to another.
    pub forwarded: u64,
    /// Dropped by table or policy, by [`DropReason::index`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Dropped: from a node that the owner has not admitted yet.
    pub not_admitted: u64,
    /// Dropped: no table yet.
    pub no_table: u64,
    /// Dropped: the next hop has no packets lane up.
    pub no_lane: u64,
    /// Dropped: longer than what the path to the next hop carries; where its sender may be told, it was.
    pub too_big: u64,
    /// Dropped: longer than all that may wait for the lane, or refused by its connection.
    pub queue_full: u64,
    /// Dropped: our TUN did not take it, or there is none.
    pub no_tun: u64,
}
