//! Overlay packets between the TUN and the packets lanes.
//!
//! A datagram is a [`Head`] and one packet. A super-packet from the TUN is routed once and cut into datagrams; what comes
//! in for this host is put together again and written at the end of its connection's turn.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use bus::NodeId;
use bytes::{BufMut, Bytes, BytesMut};
use quinn_proto::{Connection, ConnectionHandle, SendDatagramError};

use super::Lane;
use super::links::Links;
use super::stats::PacketStats;
use crate::flow_cache::FlowCache;
use crate::io::tun::Tun;
use crate::offload::{Coalescer, Gso, Segmenter, VirtioHeader};
use crate::{DropReason, Packet, Table, Verdict};

/// The largest packet a TUN gives.
const MAX_PACKET_LEN: usize = 1 << 16;

/// Bytes read from the TUN before the connections get to send: four super-packets took 11 % less time per GB than one.
const TUN_BATCH_BYTES: usize = 256 << 10;

/// Packets read from it in one turn, if they are small.
const TUN_BATCH_PACKETS: usize = 256;

/// Flows whose way is remembered: 100 KiB at every node. A hub with more that are busy at once looks some up anew.
const CACHED_FLOWS: usize = 1024;

/// What stands for the TUN where others have the number of their connection.
const FROM_TUN: usize = usize::MAX;

/// What packets need: where they come from, where they go, and what was done with them.
#[derive(Debug)]
pub(super) struct Packets {
    tun: Option<Tun>,
    table: Option<Arc<Table>>,
    cache: FlowCache<Way>,
    /// The generation of the links that the cache knows.
    links_seen: u64,
    inbound: Coalescer,
    buffer: Vec<u8>,
    /// Where datagrams are put together; used again when all of them have left.
    arena: BytesMut,
    pub(super) stats: PacketStats,
}

/// What becomes of a flow's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Local,
    Lane(ConnectionHandle),
    /// Its next hop has no lane.
    NoLane,
    NoTable,
    Drop(DropReason),
}

/// The first byte of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head(u8);

impl Head {
    const WHOLE: Self = Self(0);
    /// The transport's checksum covers the pseudo-header alone.
    const PARTIAL: u8 = 1;

    fn of(virtio: VirtioHeader) -> Self {
        Self(if virtio.partial.is_some() { Self::PARTIAL } else { 0 })
    }

    fn is_partial(self) -> bool {
        self.0 & Self::PARTIAL != 0
    }

    fn is_known(self) -> bool {
        self.0 & !Self::PARTIAL == 0
    }
}

impl Packets {
    /// `seed` is secret: it keeps strangers from choosing the places of their flows.
    pub(super) fn new(tun: Option<Tun>, seed: u64) -> Self {
        Self {
            tun,
            table: None,
            cache: FlowCache::new(CACHED_FLOWS, seed),
            links_seen: 0,
            inbound: Coalescer::default(),
            buffer: vec![0; MAX_PACKET_LEN],
            arena: BytesMut::new(),
            stats: PacketStats::default(),
        }
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
        self.cache.clear();
    }

    /// Reads a batch from the TUN and hands it to the lanes.
    pub(super) fn read_tun(&mut self, links: &mut Links) -> io::Result<()> {
        let (mut bytes, mut packets) = (0, 0);
        while bytes < TUN_BATCH_BYTES && packets < TUN_BATCH_PACKETS {
            let Some(tun) = &self.tun else { return Ok(()) };
            let (header, len) = match tun.read_super(&mut self.buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            bytes += len;
            packets += 1;
            match header {
                Some(header) => self.send_super(header, len, links),
                None => self.stats.count_drop(DropReason::Malformed),
            }
        }
        Ok(())
    }

    /// Sends the packet at the start of the buffer.
    fn send_super(&mut self, header: VirtioHeader, len: usize, links: &mut Links) {
        // Taken out so that the packet may be read while we write.
        let buffer = std::mem::take(&mut self.buffer);
        match Packet::parse(buffer.get(..len).unwrap_or_default()) {
            Err(_) => self.stats.count_drop(DropReason::Malformed),
            Ok(packet) => {
                let way = self.way(FROM_TUN, &packet, links, |table| table.forward(packet.bytes()));
                if let Some(handle) = self.lane(way) {
                    self.send_to(handle, header, &packet, links);
                }
            }
        }
        self.buffer = buffer;
    }

    fn send_to(
        &mut self,
        handle: ConnectionHandle,
        virtio: VirtioHeader,
        packet: &Packet<'_>,
        links: &mut Links,
    ) {
        let Some(link) = links.get_mut(handle) else { return self.stats.no_lane += 1 };
        let Self { arena, stats, .. } = self;
        let connection = &mut link.connection;
        let head = Head::of(virtio);
        let Some(room) = connection.datagrams().max_size().map(|size| size.saturating_sub(size_of::<Head>()))
        else {
            return stats.no_lane += 1;
        };
        if virtio.gso == Gso::None {
            let datagram = datagram(arena, head, packet.bytes(), &[]);
            stats.sent += stats.send(connection, datagram);
        } else {
            match Segmenter::new(packet, virtio.gso, room) {
                Err(_) => stats.too_big += 1,
                Ok(mut segments) => {
                    while let Some((headers, payload)) = segments.next_segment() {
                        let datagram = datagram(arena, head, headers, payload);
                        stats.sent += stats.send(connection, datagram);
                    }
                }
            }
        }
        // Also when nothing was queued: only a turn lets quinn probe for a larger MTU.
        links.enqueue(handle);
    }

    /// A datagram from `peer`, whose link `handle` is taken out of `links`.
    pub(super) fn accept(
        &mut self,
        handle: ConnectionHandle,
        peer: &NodeId,
        datagram: Bytes,
        links: &mut Links,
    ) {
        let head = datagram.first().map_or(Head::WHOLE, |first| Head(*first));
        let packet = datagram.get(1..).unwrap_or_default();
        let (true, Ok(parsed)) = (head.is_known(), Packet::parse(packet)) else {
            return self.stats.count_drop(DropReason::Malformed);
        };
        let way = self.way(handle.0, &parsed, links, |table| table.accept(peer, packet));
        if way == Way::Local {
            let Self { tun, inbound, stats, .. } = self;
            let packet = datagram.slice(1..);
            inbound.push(packet, head.is_partial(), &mut |group| stats.write(tun.as_ref(), group));
        } else if let Some(next) = self.lane(way)
            && let Some(link) = links.get_mut(next)
        {
            self.stats.forwarded += self.stats.send(&mut link.connection, datagram);
            links.enqueue(next);
        }
    }

    /// Writes what was put together of the packets that came in.
    pub(super) fn flush(&mut self) {
        let Self { tun, inbound, stats, .. } = self;
        inbound.flush(&mut |group| stats.write(tun.as_ref(), group));
    }

    /// The way of a packet, remembered or from the table.
    fn way(
        &mut self,
        from: usize,
        packet: &Packet<'_>,
        links: &Links,
        decide: impl FnOnce(&Table) -> Verdict<'_>,
    ) -> Way {
        if self.links_seen != links.generation() {
            self.links_seen = links.generation();
            self.cache.clear();
        }
        let flow = packet.flow();
        if let Some(way) = self.cache.get(from, &flow) {
            return way;
        }
        let way = match self.table.as_deref().map(decide) {
            None => Way::NoTable,
            // The kernel keeps what is for this host: what comes out for us would go in circles.
            Some(Verdict::Local) if from == FROM_TUN => Way::Drop(DropReason::Loop),
            Some(Verdict::Local) => Way::Local,
            Some(Verdict::Peer(node)) => {
                links.handle_of_node(Lane::Packets, node).map_or(Way::NoLane, Way::Lane)
            }
            Some(Verdict::Drop(reason)) => Way::Drop(reason),
        };
        self.cache.insert(from, flow, way);
        way
    }

    /// The lane to send on; counts why there is none.
    fn lane(&mut self, way: Way) -> Option<ConnectionHandle> {
        match way {
            Way::Lane(handle) => return Some(handle),
            Way::NoLane => self.stats.no_lane += 1,
            Way::NoTable => self.stats.no_table += 1,
            Way::Drop(reason) => self.stats.count_drop(reason),
            Way::Local => {}
        }
        None
    }
}

fn datagram(arena: &mut BytesMut, head: Head, headers: &[u8], payload: &[u8]) -> Bytes {
    let len = size_of::<Head>() + headers.len() + payload.len();
    if arena.capacity() < len {
        arena.reserve(len.max(2 * MAX_PACKET_LEN));
    }
    arena.put_u8(head.0);
    arena.put_slice(headers);
    arena.put_slice(payload);
    arena.split().freeze()
}

impl PacketStats {
    fn count_drop(&mut self, reason: DropReason) {
        if let Some(count) = self.dropped.get_mut(reason.index()) {
            *count += 1;
        }
    }

    /// Queues a datagram; returns how many it queued.
    fn send(&mut self, connection: &mut Connection, datagram: Bytes) -> u64 {
        match connection.datagrams().send(datagram, false) {
            Ok(()) => return 1,
            Err(SendDatagramError::TooLarge) => self.too_big += 1,
            Err(SendDatagramError::Blocked(_)) => self.queue_full += 1,
            Err(SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled) => self.no_lane += 1,
        }
        0
    }

    fn write(&mut self, tun: Option<&Tun>, group: &crate::offload::Group) {
        let packets = group.packets() as u64;
        match tun.map(|tun| tun.write_group(group)) {
            Some(Ok(())) => self.received += packets,
            Some(Err(_)) | None => self.no_tun += packets,
        }
    }
}
