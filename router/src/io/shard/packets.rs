//! Overlay packets between the TUN and the packets lanes.
//!
//! Networks of ours that the overlay knows by virtual prefixes are translated right at the TUN: table, gate and lanes see
//! virtual addresses alone.
//!
//! A super-packet from the TUN is routed once and cut into datagrams (`datagram`); what comes in for this host is put
//! together again and written at the end of its connection's turn. What is too long for its lane:
//!
//! 1. TCP super-packets are cut smaller, and TCP connections learn the lane's MTU as they begin;
//! 2. a sender that may be told "too big" is told so, once the lane's MTU has stood still for a while: what it learns it
//!    keeps for ten minutes;
//! 3. everything else goes in two parts.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use bus::{Mono, NodeId};
use bytes::{Bytes, BytesMut};
use quinn_proto::ConnectionHandle;

use super::Lane;
use super::datagram::{Head, Maker, Parts};
use super::link::Link;
use super::links::Links;
use super::stats::PacketStats;
use super::talk::{Place, Talk};
use crate::flow_cache::FlowCache;
use crate::icmp::{self, Problem};
use crate::io::device::OVERLAY_MTU;
use crate::io::tun::Tun;
use crate::offload::{Coalescer, Group, Gso, Segmenter, Uncuttable, VirtioHeader};
use crate::packet::{Fragment, Upper};
use crate::policy::{Allowed, Signal};
use crate::{DropReason, Flow, Gate, Packet, Policy, Table, Verdict, checksum, mss};

/// The largest packet a TUN gives.
const MAX_PACKET_LEN: usize = 1 << 16;

/// Bytes read from the TUN before the connections get to send: four super-packets took 11 % less time per GB than one.
const TUN_BATCH_BYTES: usize = 256 << 10;

/// Packets read from it in one turn, if they are small.
const TUN_BATCH_PACKETS: usize = 256;

/// Flows whose way is remembered: 100 KiB at every node. A hub with more that are busy at once looks some up anew.
const CACHED_FLOWS: usize = 1024;

/// The longest packets that are never answered with "too big": no host goes below the one (RFC 8200 §5), and few below the
/// other (RFC 1122 §3.3.3).
const LEAST_MTU_V6: usize = 1280;
const LEAST_MTU_V4: usize = 576;

/// For so long packets in the middle of a conversation pass without the gate: far less than any conversation may be silent
/// before it is forgotten.
const SHOWN_FOR: Duration = Duration::from_secs(1);

/// What stands for the TUN where others have the number of their connection.
const FROM_TUN: usize = usize::MAX;

/// What packets need: where they come from, where they go, and what was done with them.
#[derive(Debug)]
pub(super) struct Packets {
    tun: Option<Tun>,
    table: Option<Arc<Table>>,
    gate: Gate,
    cache: FlowCache<Known>,
    /// The generation of the links that the cache knows.
    links_seen: u64,
    seed: u64,
    /// At a node that may have neighbours.
    talk: Option<Talk>,
    inbound: Coalescer,
    buffer: Vec<u8>,
    maker: Maker,
    /// For what we say ourselves to senders of packets.
    budget: icmp::Budget,
    pub(super) stats: PacketStats,
}

/// What is remembered of a flow.
#[derive(Debug, Clone, Copy)]
struct Known {
    way: Way,
    /// Until when packets in the middle of the conversation need not be shown to the gate; `None`: none needs to.
    shown: Option<Mono>,
    /// Where its bytes count as talk.
    place: Option<Place>,
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

/// A datagram that came in.
#[derive(Debug)]
pub(super) struct Arrived<'a> {
    pub(super) from: ConnectionHandle,
    pub(super) peer: &'a NodeId,
    pub(super) datagram: Bytes,
}

impl Packets {
    /// `seed` is secret: it keeps strangers from choosing the places of their flows.
    pub(super) fn new(tun: Option<Tun>, gate: Gate, counts_talk: bool, seed: u64) -> Self {
        Self {
            table: None,
            gate,
            cache: FlowCache::new(CACHED_FLOWS, seed),
            links_seen: 0,
            seed,
            talk: counts_talk.then(Talk::default),
            inbound: Coalescer::new(tun.as_ref().map(Tun::offload).unwrap_or_default()),
            buffer: vec![0; MAX_PACKET_LEN],
            maker: Maker::default(),
            budget: icmp::Budget::new(),
            stats: PacketStats::default(),
            tun,
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
        self.forget();
    }

    pub(super) fn set_policy(&mut self, policy: Arc<Policy>) {
        self.gate.set_policy(policy);
        self.forget();
    }

    /// What was remembered of flows is true no more.
    fn forget(&mut self) {
        self.cache.clear();
        if let Some(talk) = &mut self.talk {
            talk.forget();
        }
    }

    /// With whom the hosts behind this node talk.
    pub(super) fn talk(&mut self, now: Mono) -> Vec<(NodeId, u64)> {
        self.talk.as_mut().map(|talk| talk.report(now)).unwrap_or_default()
    }

    /// Reads a batch from the TUN and hands it to the lanes.
    pub(super) fn read_tun(&mut self, links: &mut Links, now: Mono) -> io::Result<()> {
        let (mut bytes, mut packets) = (0, 0);
        while bytes < TUN_BATCH_BYTES && packets < TUN_BATCH_PACKETS {
            let Some(tun) = &self.tun else { return Ok(()) };
            let (virtio, len) = match tun.read_super(&mut self.buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            bytes += len;
            packets += 1;
            // Taken out so that the packet can be looked at while we are changed.
            let mut buffer = std::mem::take(&mut self.buffer);
            match virtio {
                Some(virtio) => {
                    let packet = buffer.get_mut(..len).unwrap_or_default();
                    self.make_virtual(virtio, packet);
                    self.send(virtio, packet, links, now);
                }
                None => self.stats.count_drop(DropReason::Malformed),
            }
            self.buffer = buffer;
        }
        Ok(())
    }

    /// Gives a packet from a network of ours the source that the overlay knows.
    fn make_virtual(&self, virtio: VirtioHeader, packet: &mut [u8]) {
        let Some(table) = &self.table else { return };
        let partial = virtio.partial.is_some();
        if table.translator().outbound(packet, partial) && partial {
            checksum::begin(packet);
        }
    }

    /// A packet for a network of ours, with the destination that it has there.
    fn made_real(&self, packet: Bytes, destination: IpAddr, partial: bool) -> Bytes {
        let translator = self.table.as_deref().map(Table::translator);
        let Some(translator) = translator.filter(|known| known.real_of(destination).is_some()) else {
            return packet;
        };
        let mut packet = BytesMut::from(packet);
        if translator.inbound(&mut packet, partial) && partial {
            checksum::begin(&mut packet);
        }
        packet.freeze()
    }

    /// Sends a packet of ours.
    fn send(&mut self, virtio: VirtioHeader, bytes: &mut [u8], links: &mut Links, now: Mono) {
        let Ok(packet) = Packet::parse(bytes) else { return self.stats.count_drop(DropReason::Malformed) };
        let (way, is_syn) = (
            self.way(FROM_TUN, &packet, links, now, |table| table.forward(packet.bytes())),
            packet.is_tcp_syn(),
        );
        let Some((handle, link)) = self.lane(way).and_then(|handle| Some((handle, links.get_mut(handle)?)))
        else {
            return self.refuse(way, bytes, now);
        };
        let Some(room) = Maker::room(link) else { return self.stats.no_lane += 1 };
        if is_syn {
            // For the connection's life: until the path is known, what does not fit is cut or carried in parts.
            let room =
                if link.has_settled_mtu(now) { u16::try_from(room).unwrap_or(u16::MAX) } else { OVERLAY_MTU };
            mss::clamp(bytes, room.min(OVERLAY_MTU), virtio.partial.is_some());
        }
        match virtio.gso {
            Gso::None if bytes.len() > room && self.tell_too_big(bytes, room, link, now) => {}
            Gso::None => {
                let datagram = self.maker.whole(Head::of(virtio), bytes, &[]);
                self.stats.sent +=
                    u64::from(link.send_packet(datagram, &mut self.maker, &mut self.stats, now));
            }
            gso @ (Gso::Tcp(_) | Gso::Udp(_)) => {
                self.send_super(Head::of(virtio), gso, (bytes, room), link, now);
            }
        }
        // Also when nothing was queued: only a turn lets quinn probe for a larger MTU.
        links.enqueue(handle);
    }

    fn send_super(
        &mut self,
        head: Head,
        gso: Gso,
        (bytes, room): (&[u8], usize),
        link: &mut Link,
        now: Mono,
    ) {
        let Self { maker, stats, .. } = self;
        let Ok(packet) = Packet::parse(bytes) else { return stats.count_drop(DropReason::Malformed) };
        // Datagrams keep their size, whatever the room.
        let max_len = if matches!(gso, Gso::Udp(_)) { usize::MAX } else { room };
        let mut segments = match Segmenter::new(&packet, gso, max_len) {
            Ok(segments) => segments,
            Err(Uncuttable::Headers) => return stats.count_drop(DropReason::Malformed),
            Err(Uncuttable::NoRoom) => return stats.too_big += 1,
        };
        while let Some((headers, payload)) = segments.next_segment() {
            let datagram = maker.whole(head, headers, payload);
            stats.sent += u64::from(link.send_packet(datagram, maker, stats, now));
        }
    }

    /// Answers a packet that is too long for a lane which will stay as it is. False: carry it nevertheless.
    fn tell_too_big(&mut self, packet: &[u8], room: usize, link: &Link, now: Mono) -> bool {
        let Ok(parsed) = Packet::parse(packet) else { return false };
        let least = if parsed.source().is_ipv6() { LEAST_MTU_V6 } else { LEAST_MTU_V4 };
        if !parsed.is_unbreakable() || packet.len() <= least || !link.has_settled_mtu(now) {
            return false;
        }
        let mtu = u16::try_from(room.max(least)).unwrap_or(u16::MAX);
        let told = self.answer(packet, Problem::TooBig { mtu }, now);
        self.stats.too_big += u64::from(told);
        told
    }

    /// Tells a sender of ours why its packet goes nowhere, where waiting would not help.
    fn refuse(&mut self, way: Way, packet: &[u8], now: Mono) {
        let problem = match way {
            Way::Drop(DropReason::Denied) => Problem::Prohibited,
            Way::Drop(DropReason::NoRoute) => Problem::NoRoute,
            Way::Drop(_) | Way::Local | Way::Lane(_) | Way::NoLane | Way::NoTable => return,
        };
        self.answer(packet, problem, now);
    }

    /// Writes a message about a packet of ours to the TUN, as often as the budget allows. False: nothing may be said.
    fn answer(&mut self, packet: &[u8], problem: Problem, now: Mono) -> bool {
        let Ok(parsed) = Packet::parse(packet) else { return false };
        // In the destination's name: from one of this host's own addresses the kernel would not take it.
        let Some(mut message) = icmp::about(packet, problem, parsed.destination()) else { return false };
        if let Some(table) = &self.table {
            table.translator().inbound(&mut message, false);
        }
        if self.budget.take(now)
            && let Some(tun) = &self.tun
        {
            // Lost like any packet if the interface is down.
            let _ = tun.write(&message);
        }
        true
    }

    /// Takes a datagram, or the half of one, from a link that is taken out of `links`.
    pub(super) fn accept(&mut self, arrived: Arrived<'_>, parts: &mut Parts, links: &mut Links, now: Mono) {
        let Arrived { from, peer, datagram } = arrived;
        let whole = if Head::read(&datagram).is_part() { parts.take(&datagram, now) } else { Some(datagram) };
        if let Some(datagram) = whole {
            self.accept_whole(Arrived { from, peer, datagram }, links, now);
        }
    }

    fn accept_whole(&mut self, arrived: Arrived<'_>, links: &mut Links, now: Mono) {
        let Arrived { from, peer, datagram } = arrived;
        let head = Head::read(&datagram);
        let packet = datagram.get(Head::LEN..).unwrap_or_default();
        let (true, Ok(parsed)) = (head.is_whole(), Packet::parse(packet)) else {
            return self.stats.count_drop(DropReason::Malformed);
        };
        let way = self.way(from.0, &parsed, links, now, |table| table.accept(peer, packet));
        if way == Way::Local {
            let packet = self.made_real(datagram.slice(Head::LEN..), parsed.destination(), head.is_partial());
            let Self { tun, inbound, stats, .. } = self;
            inbound.push(packet, head.is_partial(), &mut |group| stats.write(tun.as_ref(), group));
        } else if let Some(next) = self.lane(way) {
            let Some(link) = links.get_mut(next) else { return self.stats.no_lane += 1 };
            let sent = link.send_packet(datagram, &mut self.maker, &mut self.stats, now);
            self.stats.forwarded += u64::from(sent);
            links.enqueue(next);
        }
    }

    /// Lets packets go that waited for their turn on a link; returns whether there were any.
    pub(super) fn pump(&mut self, link: &mut Link, now: Mono) -> bool {
        link.pump_packets(&mut self.maker, &mut self.stats, now)
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// Writes what was put together of the packets that came in.
    pub(super) fn flush(&mut self) {
        let Self { tun, inbound, stats, .. } = self;
        inbound.flush(&mut |group| stats.write(tun.as_ref(), group));
    }

    /// The way of a packet: remembered, or the table's word and the gate's.
    fn way(
        &mut self,
        from: usize,
        packet: &Packet<'_>,
        links: &Links,
        now: Mono,
        decide: impl FnOnce(&Table) -> Verdict<'_>,
    ) -> Way {
        if self.links_seen != links.generation() {
            self.links_seen = links.generation();
            self.forget();
        }
        let upper = packet.upper();
        let flow = packet.flow_of(&upper);
        let known = self.cache.get(from, &flow);
        let place = known.map_or_else(|| self.place(from, packet), |known| known.place);
        let way = match known {
            Some(Known { way, shown: None, .. }) => way,
            Some(Known { way, shown: Some(until), .. })
                if now < until && is_in_the_middle(packet, &upper) =>
            {
                way
            }
            Some(Known { way, .. }) => self.guarded(way, (from, place), packet, flow, now),
            None => {
                let way = self.table_way(from, packet, links, decide);
                self.guarded(way, (from, place), packet, flow, now)
            }
        };
        // What goes nowhere is no talk.
        if let (Some(talk), Way::Local | Way::Lane(_)) = (&mut self.talk, way) {
            talk.count(place, packet.bytes().len());
        }
        way
    }

    /// Where a flow counts: with the node that the far end lies behind.
    fn place(&mut self, from: usize, packet: &Packet<'_>) -> Option<Place> {
        let (table, talk) = (self.table.as_deref()?, self.talk.as_mut()?);
        let far = if from == FROM_TUN { packet.destination() } else { packet.source() };
        let owner = table.lookup(far).filter(|owner| *owner != table.me() && table.via() != Some(owner))?;
        talk.place(owner)
    }

    fn table_way(
        &self,
        from: usize,
        packet: &Packet<'_>,
        links: &Links,
        decide: impl FnOnce(&Table) -> Verdict<'_>,
    ) -> Way {
        match self.table.as_deref().map(decide) {
            None => Way::NoTable,
            // The kernel keeps what is for this host: what comes out for us would go in circles.
            Some(Verdict::Local) if from == FROM_TUN => Way::Drop(DropReason::Loop),
            Some(Verdict::Local) => Way::Local,
            Some(Verdict::Peer(next)) => {
                let lane = |node| links.handle_of_node(Lane::Packets, node);
                // A neighbour is reached without the hub, which an edge alone has.
                let table = self.table.as_deref().filter(|table| table.via().is_some());
                let owner = table.and_then(|table| table.lookup(packet.destination()));
                owner.and_then(lane).or_else(|| lane(next)).map_or(Way::NoLane, Way::Lane)
            }
            Some(Verdict::Drop(reason)) => Way::Drop(reason),
        }
    }

    /// Asks the gate about a packet that has a way, and remembers what it says of the flow.
    fn guarded(
        &mut self,
        way: Way,
        (from, place): (usize, Option<Place>),
        packet: &Packet<'_>,
        flow: Flow,
        now: Mono,
    ) -> Way {
        let allowed = match way {
            Way::Local | Way::Lane(_) if from == FROM_TUN => self.gate.leaving(packet, now),
            Way::Local | Way::Lane(_) => self.gate.check(packet, now),
            Way::NoLane | Way::NoTable | Way::Drop(_) => Ok(Allowed::SameSite),
        };
        let shown = match allowed {
            Err(reason) => return Way::Drop(reason),
            Ok(Allowed::SameSite) => None,
            Ok(Allowed::Rule(_) | Allowed::Known | Allowed::Leaving) => Some(now + SHOWN_FOR),
            // True of this packet, not of the next.
            Ok(Allowed::Related | Allowed::Fragment) => return way,
        };
        self.cache.insert(from, flow, Known { way, shown, place });
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

/// Whether a packet tells the gate nothing new about its conversation: neither a beginning nor an end, no question, no
/// fragment, and its header is there.
fn is_in_the_middle(packet: &Packet<'_>, upper: &Upper) -> bool {
    upper.fragment == Fragment::Whole && Signal::of(packet, upper) == Signal::Nothing && !packet.is_tcp_syn()
}

impl PacketStats {
    pub(super) fn count_drop(&mut self, reason: DropReason) {
        if let Some(count) = self.dropped.get_mut(reason.index()) {
            *count += 1;
        }
    }

    fn write(&mut self, tun: Option<&Tun>, group: &Group) {
        let packets = group.packets() as u64;
        match tun.map(|tun| tun.write_group(group)) {
            Some(Ok(())) => self.received += packets,
            Some(Err(_)) | None => self.no_tun += packets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::TCP;
    use crate::packet::tests::build::{icmp, ip, tcp, udp, whole};

    /// What the gate would decide anew must be shown to it, whatever was said of its flow: an echo request has the flow of
    /// the answer before it.
    #[test]
    fn only_what_neither_begins_nor_ends_nor_asks_passes_without_the_gate() {
        let (a, b) = (ip("10.86.0.2"), ip("10.86.0.3"));
        let mut half = whole(a, b, 50, &[0x13, 0x88, 0, 80, 0, 0, 0, 1]);
        half[9] = TCP;
        let echo = |kind| icmp(a, b, kind, 0, [0, 7, 0, 1], b"data");
        for (what, packet, want) in [
            ("a segment", tcp(a, b, 0x10, &[], b"data"), true),
            ("a datagram", udp(a, b, b"data"), true),
            ("an echo's answer", echo(0), true),
            ("an echo's request", echo(8), false),
            ("SYN", tcp(a, b, 0x02, &[], b""), false),
            ("SYN and ACK", tcp(a, b, 0x12, &[], b""), false),
            ("FIN", tcp(a, b, 0x11, &[], b""), false),
            ("RST", tcp(a, b, 0x14, &[], b""), false),
            ("half a header", half, false),
        ] {
            let packet = Packet::parse(&packet).unwrap();
            assert_eq!(is_in_the_middle(&packet, &packet.upper()), want, "{what}");
        }
    }
}
