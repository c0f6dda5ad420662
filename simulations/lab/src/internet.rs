//! The internet between a few nodes: attachments, routing by address, and what is lost on the way.
//!
//! ```text
//! handle_packet -> NAT out -> up line ->|-> route by destination -> down line -> NAT in -> poll_delivery
//!                    \                  |  (at the time it leaves the up line)     /
//!                     `---------------- hairpin, where the NAT has it -----------'
//! ```
//! What an insider's junk costs is therefore paid where it is in reality: a packet that the far NAT refuses has
//! used the far line. Time is virtual: nothing happens but in `handle_packet` and `poll_delivery`, and what happens
//! there happens at the packets' own times, however seldom they are called.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use bus::Mono;
use bytes::{Bytes, BytesMut};
use ipnet::Ipv4Net;
use thiserror::Error;

use crate::ipv4::Packet;
use crate::link::{Direction, Fate, Line, LinkSettings, Passage};
use crate::nat::{Nat, NatKind};
use crate::translate;

/// Bytes on all lines together, waiting or travelling: an unlimited line with a delay would otherwise hold as much as
/// its senders send. 64 MiB is 5 Gbit/s at 100 ms; what does not fit is dropped as [`DropReason::QueueFull`].
pub const MAX_IN_FLIGHT: usize = 64 << 20;

/// One node's place on the internet, given out by [`Internet::attach`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(usize);

/// The NAT in front of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatSettings {
    pub kind: NatKind,
    /// The node's own address, and with its prefix the net whose addresses may leave through the NAT:
    /// `192.168.1.2/24`. Others of that net share the NAT if the node forwards for them.
    pub inside: Ipv4Net,
}

/// How a node is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// For people.
    pub name: String,
    /// The address by which others know it: the NAT's if there is one, else the node's own.
    pub public: Ipv4Addr,
    pub nat: Option<NatSettings>,
    pub link: LinkSettings,
}

impl Attachment {
    /// The address that the node itself sees.
    pub fn node_address(&self) -> Ipv4Addr {
        self.nat.map_or(self.public, |nat| nat.inside.addr())
    }
}

/// Why a node cannot be attached.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AttachError {
    #[error("{public} is already the address of '{holder}'")]
    AddressTaken { public: Ipv4Addr, holder: String },
    #[error("{0} is no public address: private, loopback, link-local and multicast ones are routed nowhere")]
    NotPublic(Ipv4Addr),
}

/// Why a packet did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// No IPv4 packet, or its lengths contradict each other.
    Malformed,
    /// Nobody has the destination, or the source is not the sender's (RFC 2827); hairpins too, unless the NAT
    /// [has them](Internet::set_hairpin).
    Unroutable,
    /// The NAT admits it not, in either direction.
    NatRefused,
    /// The line is cut, or was while the packet was on it.
    Cut,
    /// No room before a line.
    QueueFull,
    /// By the line's loss.
    Lost,
}

/// Counters of one port, since it was attached. A packet is counted at the port where it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortStats {
    /// Packets that the node sent, whatever became of them.
    pub sent: u64,
    /// Of these, those that reached the line of another port.
    pub forwarded: u64,
    /// Packets that the node was given.
    pub delivered: u64,
    /// Bytes of them.
    pub delivered_bytes: u64,
    pub malformed: u64,
    pub unroutable: u64,
    pub nat_refused: u64,
    pub cut: u64,
    /// Bytes of them.
    pub cut_bytes: u64,
    pub queue_full: u64,
    pub lost: u64,
}

impl PortStats {
    fn count(&mut self, reason: DropReason, len: usize) {
        if reason == DropReason::Cut {
            self.cut_bytes += len as u64;
        }
        let counter = match reason {
            DropReason::Malformed => &mut self.malformed,
            DropReason::Unroutable => &mut self.unroutable,
            DropReason::NatRefused => &mut self.nat_refused,
            DropReason::Cut => &mut self.cut,
            DropReason::QueueFull => &mut self.queue_full,
            DropReason::Lost => &mut self.lost,
        };
        *counter += 1;
    }
}

/// A packet for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub port: PortId,
    pub packet: Bytes,
}

#[derive(Debug)]
struct Port {
    name: String,
    public: Ipv4Addr,
    nat: Option<(Nat, Ipv4Net)>,
    hairpins: bool,
    up: Line,
    down: Line,
    is_cut: bool,
    stats: PortStats,
}

/// Where a packet goes from its sender's NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Line,
    /// Back to the net that it came from.
    Hairpin,
}

/// A packet on a line.
#[derive(Debug)]
struct Flight {
    port: PortId,
    direction: Direction,
    /// When it leaves the line's queue.
    departs: Mono,
    is_held_up: bool,
    packet: BytesMut,
}

/// The whole small internet.
#[derive(Debug)]
pub struct Internet {
    seed: u64,
    ports: Vec<Port>,
    by_public: BTreeMap<Ipv4Addr, PortId>,
    /// By time, then by the order in which they took off.
    flights: BTreeMap<(Mono, u64), Flight>,
    taken_off: u64,
    arrived: VecDeque<Delivery>,
    /// Bytes in `flights` and `arrived`, at most [`MAX_IN_FLIGHT`].
    in_flight: usize,
}

impl Internet {
    /// The same seed and the same calls give the same deliveries at the same times.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            ports: Vec::new(),
            by_public: BTreeMap::new(),
            flights: BTreeMap::new(),
            taken_off: 0,
            arrived: VecDeque::new(),
            in_flight: 0,
        }
    }

    pub fn attach(&mut self, attachment: Attachment) -> Result<PortId, AttachError> {
        let Attachment { name, public, nat, link } = attachment;
        if !is_public(public) {
            return Err(AttachError::NotPublic(public));
        }
        if let Some(PortId(holder)) = self.by_public.get(&public) {
            return Err(AttachError::AddressTaken { public, holder: self.ports[*holder].name.clone() });
        }
        let id = PortId(self.ports.len());
        let stream = 2 * id.0 as u64;
        let nat = nat.map(|nat| (Nat::new(nat.kind, public, self.seed ^ stream), nat.inside.trunc()));
        let up = Line::new(Direction::Up, link, self.seed, stream);
        let down = Line::new(Direction::Down, link, self.seed, stream + 1);
        let stats = PortStats::default();
        self.ports.push(Port { name, public, nat, hairpins: false, up, down, is_cut: false, stats });
        self.by_public.insert(public, id);
        Ok(id)
    }

    /// The node at `port` sends a packet. A port of another internet is nobody's, and its packets go nowhere.
    pub fn handle_packet(&mut self, port: PortId, packet: &[u8], now: Mono) {
        self.advance(now);
        let Some(sender) = self.ports.get_mut(port.0) else { return };
        sender.stats.sent += 1;
        let mut packet = BytesMut::from(packet);
        match sender.translate_out(&mut packet, now) {
            Ok(Exit::Line) => self.take_off(port, Direction::Up, packet, now),
            Ok(Exit::Hairpin) if self.in_flight + packet.len() > MAX_IN_FLIGHT => {
                sender.stats.count(DropReason::QueueFull, packet.len());
            }
            Ok(Exit::Hairpin) => self.land(port, packet, now),
            Err(reason) => sender.stats.count(reason, packet.len()),
        }
    }

    /// The next packet that has arrived by `now`; call until `None`.
    pub fn poll_delivery(&mut self, now: Mono) -> Option<Delivery> {
        self.advance(now);
        let delivery = self.arrived.pop_front()?;
        self.in_flight -= delivery.packet.len();
        Some(delivery)
    }

    /// When to call [`Self::poll_delivery`] next, and why, if it has just said `None`.
    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        let ((due, _), _) = self.flights.first_key_value()?;
        Some((*due, "a packet reaches the end of a line"))
    }

    /// Changes a line. What waits in its queue goes on at the new rate, one begun packet from its beginning.
    pub fn set_link(&mut self, port: PortId, link: LinkSettings, now: Mono) {
        self.advance(now);
        if port.0 < self.ports.len() {
            self.set_line(port, Direction::Up, link, now);
            self.set_line(port, Direction::Down, link, now);
        }
    }

    /// Cuts a line, or mends it. What was on it is gone.
    pub fn cut(&mut self, port: PortId, is_cut: bool, now: Mono) {
        self.advance(now);
        let Some(cut) = self.ports.get_mut(port.0) else { return };
        cut.is_cut = is_cut;
        if is_cut {
            self.drop_flights_of(port);
        }
    }

    /// Whether the NAT at `port` lets its insiders reach each other by their public endpoints, which show as such
    /// to the other (RFC 4787 REQ-9). Many do not, and none does so before it is told here. No line is used.
    pub fn set_hairpin(&mut self, port: PortId, is_on: bool) {
        if let Some(port) = self.ports.get_mut(port.0) {
            port.hairpins = is_on;
        }
    }

    pub fn stats(&self, port: PortId) -> PortStats {
        self.ports.get(port.0).map_or_else(PortStats::default, |port| port.stats)
    }

    /// Ports in the order in which they were attached, with their names.
    pub fn ports(&self) -> impl Iterator<Item = (PortId, &str)> {
        self.ports.iter().enumerate().map(|(index, port)| (PortId(index), port.name.as_str()))
    }

    fn set_line(&mut self, port: PortId, direction: Direction, link: LinkSettings, now: Mono) {
        let is_on_it = |flight: &Flight| flight.port == port && flight.direction == direction;
        let is_waiting = |flight: &Flight| is_on_it(flight) && flight.departs > now;
        let waiting: Vec<Flight> =
            self.flights.extract_if(.., |_, flight| is_waiting(flight)).map(|(_, flight)| flight).collect();
        let travelling = self.flights.iter().filter(|(_, flight)| is_on_it(flight) && !flight.is_held_up);
        let last_out = travelling.map(|((due, _), _)| *due).max().unwrap_or(now);
        self.ports[port.0].line(direction).set(direction, link, last_out);
        for flight in waiting {
            let passage = self.ports[port.0].line(direction).send_again(flight.packet.len(), now);
            self.fly(port, direction, flight.packet, passage);
        }
    }

    fn fly(&mut self, port: PortId, direction: Direction, packet: BytesMut, passage: Passage) {
        let Passage { departs, arrives, is_held_up } = passage;
        self.taken_off += 1;
        let flight = Flight { port, direction, departs, is_held_up, packet };
        self.flights.insert((arrives, self.taken_off), flight);
    }

    fn drop_flights_of(&mut self, port: PortId) {
        let (mut dropped, mut bytes) = (0, 0);
        self.flights.retain(|_, flight| {
            let is_kept = flight.port != port;
            if !is_kept {
                dropped += 1;
                bytes += flight.packet.len();
            }
            is_kept
        });
        self.in_flight -= bytes;
        let stats = &mut self.ports[port.0].stats;
        stats.cut += dropped;
        stats.cut_bytes += bytes as u64;
    }

    /// Lets everything happen that is due by `now`.
    fn advance(&mut self, now: Mono) {
        while let Some(flight) = self.flights.first_entry().filter(|flight| flight.key().0 <= now) {
            let ((due, _), flight) = flight.remove_entry();
            self.in_flight -= flight.packet.len();
            match flight.direction {
                Direction::Up => self.route(flight.port, flight.packet, due),
                Direction::Down => self.land(flight.port, flight.packet, due),
            }
        }
    }

    /// Puts a packet on a line of `port`.
    fn take_off(&mut self, port: PortId, direction: Direction, packet: BytesMut, now: Mono) {
        let len = packet.len();
        let is_room = self.in_flight + len <= MAX_IN_FLIGHT;
        let owner = &mut self.ports[port.0];
        if !owner.line(direction).lets_pass(&packet) {
            return owner.stats.count(DropReason::Lost, len);
        }
        match owner.put_on_line(direction, len, is_room, now) {
            Ok(passage) => {
                self.in_flight += len;
                self.fly(port, direction, packet, passage);
            }
            Err(reason) => owner.stats.count(reason, len),
        }
    }

    /// A packet has left its sender's line.
    fn route(&mut self, from: PortId, mut packet: BytesMut, now: Mono) {
        let destination = Packet::parse(&mut packet).ok().map(|packet| packet.destination());
        let to = destination.and_then(|address| self.by_public.get(&address).copied());
        match to.filter(|to| *to != from) {
            Some(to) => {
                self.ports[from.0].stats.forwarded += 1;
                self.take_off(to, Direction::Down, packet, now);
            }
            None => self.ports[from.0].stats.count(DropReason::Unroutable, packet.len()),
        }
    }

    /// A packet has left its receiver's line.
    fn land(&mut self, port: PortId, mut packet: BytesMut, now: Mono) {
        let receiver = &mut self.ports[port.0];
        match receiver.translate_in(&mut packet, now) {
            Ok(()) => {
                receiver.stats.delivered += 1;
                receiver.stats.delivered_bytes += packet.len() as u64;
                self.in_flight += packet.len();
                self.arrived.push_back(Delivery { port, packet: packet.freeze() });
            }
            Err(reason) => receiver.stats.count(reason, packet.len()),
        }
    }
}

impl Port {
    fn line(&mut self, direction: Direction) -> &mut Line {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    fn put_on_line(
        &mut self,
        direction: Direction,
        len: usize,
        is_room: bool,
        now: Mono,
    ) -> Result<Passage, DropReason> {
        if self.is_cut {
            return Err(DropReason::Cut);
        }
        if !is_room {
            return Err(DropReason::QueueFull);
        }
        match self.line(direction).send(len, now) {
            Fate::Passes(passage) => Ok(passage),
            Fate::Lost => Err(DropReason::Lost),
            Fate::QueueFull => Err(DropReason::QueueFull),
        }
    }

    /// Checks the source and lets the NAT replace it.
    fn translate_out(&mut self, bytes: &mut [u8], now: Mono) -> Result<Exit, DropReason> {
        let mut packet = Packet::parse(bytes).map_err(|_| DropReason::Malformed)?;
        match &mut self.nat {
            Some((nat, inside)) if inside.contains(&packet.source()) => {
                translate::outbound(nat, &mut packet, now)?;
                let turns_back = self.hairpins && packet.destination() == self.public;
                Ok(if turns_back { Exit::Hairpin } else { Exit::Line })
            }
            None if packet.source() == self.public => Ok(Exit::Line),
            Some(_) | None => Err(DropReason::Unroutable),
        }
    }

    fn translate_in(&self, bytes: &mut [u8], now: Mono) -> Result<(), DropReason> {
        let Some((nat, _)) = &self.nat else { return Ok(()) };
        let mut packet = Packet::parse(bytes).map_err(|_| DropReason::Malformed)?;
        translate::inbound(nat, &mut packet, now)
    }
}

/// What a router of the real internet would carry; the documentation ranges, which labs use, count as public.
fn is_public(address: Ipv4Addr) -> bool {
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.octets()[0] == 0)
}

#[cfg(test)]
mod tests;
