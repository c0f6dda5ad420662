//! Overlay packets between the TUN and the packets lanes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use bus::{Mono, NodeId};
use bytes::Bytes;
use quinn_proto::SendDatagramError;

use super::Lane;
use super::links::Links;
use super::stats::PacketStats;
use crate::io::tun::Tun;
use crate::{DropReason, Gate, Policy, Table, Verdict};

/// The largest packet a TUN gives.
const MAX_PACKET_LEN: usize = 1 << 16;

/// Packets read from the TUN before the connections get to send: amortises their work, and stays far below the
/// send buffer of one lane.
const TUN_BATCH: usize = 64;

/// What packets need: where they come from, where they go, and what was done with them.
#[derive(Debug)]
pub(super) struct Packets {
    tun: Option<Tun>,
    table: Option<Arc<Table>>,
    gate: Gate,
    /// When the present turn began.
    now: Mono,
    buffer: Vec<u8>,
    pub(super) stats: PacketStats,
}

impl Packets {
    pub(super) fn new(tun: Option<Tun>, gate: Gate) -> Self {
        let buffer = vec![0; MAX_PACKET_LEN];
        Self { tun, table: None, gate, now: Mono::ZERO, buffer, stats: PacketStats::default() }
    }

    pub(super) fn tun_fd(&self) -> Option<BorrowedFd<'_>> {
        self.tun.as_ref().map(AsFd::as_fd)
    }

    /// Gives the TUN up.
    pub(super) fn close_tun(&mut self) {
        self.tun = None;
    }

    pub(super) fn set_table(&mut self, table: Arc<Table>) {
        self.table = Some(table);
    }

    pub(super) fn set_policy(&mut self, policy: Arc<Policy>) {
        self.gate.set_policy(policy);
    }

    pub(super) fn begin_turn(&mut self, now: Mono) {
        self.now = now;
    }

    /// Reads a batch from the TUN and hands it to the lanes.
    pub(super) fn read_tun(&mut self, links: &mut Links) -> io::Result<()> {
        let Self { tun: Some(tun), table, gate, now, buffer, stats } = self else { return Ok(()) };
        for _ in 0..TUN_BATCH {
            let len = match tun.read(buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let packet = buffer.get(..len).unwrap_or_default();
            match table.as_deref().map(|table| gate.guard_leaving(table.forward(packet), packet, *now)) {
                None => stats.no_table += 1,
                Some(Verdict::Peer(node)) => {
                    stats.sent += stats.send(links, node, Bytes::copy_from_slice(packet));
                }
                // The kernel keeps what is for this host: what comes out for us would go in circles.
                Some(Verdict::Local) => stats.count_drop(DropReason::Loop),
                Some(Verdict::Drop(reason)) => stats.count_drop(reason),
            }
        }
        Ok(())
    }

    /// A packet from `peer`, whose link is taken out of `links`.
    pub(super) fn accept(&mut self, peer: &NodeId, packet: Bytes, links: &mut Links) {
        let Self { tun, table, gate, now, stats, .. } = self;
        match table.as_deref().map(|table| gate.guard(table.accept(peer, &packet), &packet, *now)) {
            None => stats.no_table += 1,
            Some(Verdict::Local) => match tun.as_ref().map(|tun| tun.write(&packet)) {
                Some(Ok(_)) => stats.received += 1,
                Some(Err(_)) | None => stats.no_tun += 1,
            },
            Some(Verdict::Peer(node)) => stats.forwarded += stats.send(links, node, packet),
            Some(Verdict::Drop(reason)) => stats.count_drop(reason),
        }
    }
}

impl PacketStats {
    fn count_drop(&mut self, reason: DropReason) {
        if let Some(count) = self.dropped.get_mut(reason.index()) {
            *count += 1;
        }
    }

    /// Queues a packet on `node`'s packets lane; returns how many it queued.
    fn send(&mut self, links: &mut Links, node: &NodeId, packet: Bytes) -> u64 {
        let handle = links.handle_of_node(Lane::Packets, node);
        let Some((handle, link)) = handle.and_then(|handle| Some((handle, links.get_mut(handle)?))) else {
            self.no_lane += 1;
            return 0;
        };
        let sent = link.connection.datagrams().send(packet, false);
        // Also when nothing was queued: only a turn lets quinn probe for a larger MTU.
        links.enqueue(handle);
        match sent {
            Ok(()) => return 1,
            Err(SendDatagramError::TooLarge) => self.too_big += 1,
            Err(SendDatagramError::Blocked(_)) => self.queue_full += 1,
            Err(SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled) => self.no_lane += 1,
        }
        0
    }
}
