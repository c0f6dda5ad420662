//! Putting the segments of a flow together again, so that one write carries up to 64 of them.
//!
//! The rules are those of Linux' own GRO (`inet_gro_receive`, `ipv6_gro_receive`, `tcp_gro_receive`, `udp_gro_receive`):
//! what the kernel would not have merged on its way in is not merged here. Order within a flow is kept; across flows
//! it may change within one batch.

use bytes::Bytes;

use super::MAX_HEADERS;
use super::Offload;
use super::virtio::{Gso, Partial, VirtioHeader};
use crate::checksum;
use crate::packet::{Flow, Fragment, Packet, Ports, TCP, UDP};

/// Flows that are put together at the same time. A batch rarely has more; a further one ends the oldest.
const MAX_FLOWS: usize = 8;

/// Segments in one write. Linux takes no more datagrams in one (`UDP_MAX_SEGMENTS` was 64 before 6.9), and for TCP 64 KiB
/// of the usual size are 47.
const MAX_SEGMENTS: usize = 64;

/// The longest packet (RFC 791 §3.1).
const MAX_PACKET: usize = 65_535;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const URG: u8 = 0x20;
const CWR: u8 = 0x80;

/// Packets that wait for their neighbours. What is pushed comes out with the next [`Self::flush`] at the latest.
#[derive(Debug, Default)]
pub struct Coalescer {
    open: Vec<Group>,
    /// Lists of payloads to be used again.
    spare: Vec<Vec<Bytes>>,
    takes: Offload,
}

/// One write to the TUN: one packet, or several of one flow as a super-packet.
#[derive(Debug)]
pub struct Group {
    /// `None`: one packet that is not looked into, all in `payloads`.
    shape: Option<Shape>,
    headers: [u8; MAX_HEADERS],
    payloads: Vec<Bytes>,
    /// Whether the transport's checksum is to be computed by the kernel.
    partial: bool,
}

/// What is known of a packet that may be merged.
#[derive(Debug, Clone, Copy)]
struct Shape {
    flow: Flow,
    is_v6: bool,
    transport: usize,
    headers: usize,
    /// Payload of the first segment: all but the last have as much.
    size: usize,
    /// Payload of all.
    total: usize,
    /// Nothing may follow.
    is_closed: bool,
}

impl Coalescer {
    /// For a TUN that takes so much uncut: what it does not take is written packet by packet.
    pub fn new(takes: Offload) -> Self {
        Self { takes, ..Self::default() }
    }

    /// Takes a packet and hands what is complete to `write`. `partial` as in [`crate::offload`].
    pub fn push(&mut self, packet: Bytes, partial: bool, write: &mut impl FnMut(&Group)) {
        let Some(shape) = Shape::of(&packet).filter(|shape| self.takes.takes(shape.flow.protocol)) else {
            // Of which flow it is nobody knows: keep it behind all that came before.
            self.flush(write);
            return self.write_alone(packet, partial, write);
        };
        if let Some(place) = self.open.iter().position(|group| group.is_of(&shape.flow)) {
            if let Some(group) = self.open.get_mut(place)
                && group.try_add(&packet, &shape, partial)
            {
                if group.is_closed() {
                    self.end(place, write);
                }
                return;
            }
            self.end(place, write);
        }
        if self.open.len() == MAX_FLOWS {
            self.end(0, write);
        }
        let mut group = self.start(packet, shape, partial);
        if group.is_closed() {
            group.complete();
            write(&group);
            return self.reuse(group);
        }
        self.open.push(group);
    }

    /// Hands all that waits to `write`, flow by flow in the order in which they began.
    pub fn flush(&mut self, write: &mut impl FnMut(&Group)) {
        while !self.open.is_empty() {
            self.end(0, write);
        }
    }

    fn start(&mut self, packet: Bytes, shape: Shape, partial: bool) -> Group {
        let mut headers = [0; MAX_HEADERS];
        if let (Some(to), Some(from)) = (headers.get_mut(..shape.headers), packet.get(..shape.headers)) {
            to.copy_from_slice(from);
        }
        let mut payloads = self.spare.pop().unwrap_or_default();
        payloads.push(packet.slice(shape.headers..));
        Group { shape: Some(shape), headers, payloads, partial }
    }

    fn write_alone(&mut self, packet: Bytes, partial: bool, write: &mut impl FnMut(&Group)) {
        let mut payloads = self.spare.pop().unwrap_or_default();
        payloads.push(packet);
        let group = Group { shape: None, headers: [0; MAX_HEADERS], payloads, partial };
        write(&group);
        self.reuse(group);
    }

    fn end(&mut self, place: usize, write: &mut impl FnMut(&Group)) {
        let mut group = self.open.remove(place);
        group.complete();
        write(&group);
        self.reuse(group);
    }

    fn reuse(&mut self, mut group: Group) {
        group.payloads.clear();
        if self.spare.len() < MAX_FLOWS {
            self.spare.push(group.payloads);
        }
    }
}

impl Group {
    /// What the kernel is to know. For a packet alone whose checksum is partial its place is looked up.
    pub fn virtio(&self) -> [u8; VirtioHeader::LEN] {
        let Some(shape) = &self.shape else { return self.virtio_alone() };
        let gso = match (self.payloads.len(), shape.flow.protocol) {
            (0 | 1, _) => Gso::None,
            (_, TCP) => Gso::Tcp(short(shape.size)),
            (_, _) => Gso::Udp(short(shape.size)),
        };
        let partial = self.partial.then(|| place_of(shape.transport, shape.flow.protocol));
        VirtioHeader { gso, partial }.encode(shape.is_v6, short(shape.headers))
    }

    fn virtio_alone(&self) -> [u8; VirtioHeader::LEN] {
        let packet = self.payloads.first().filter(|_| self.partial);
        let upper = packet.and_then(|bytes| Packet::parse(bytes).ok()).map(|packet| packet.upper());
        let partial = upper
            .filter(|upper| matches!(upper.protocol, TCP | UDP) && upper.fragment == Fragment::Whole)
            .map(|upper| place_of(upper.offset, upper.protocol));
        VirtioHeader { gso: Gso::None, partial }.encode(false, 0)
    }

    /// The bytes of the write, after [`Self::virtio`]: headers, which may be empty, then payloads.
    pub fn parts(&self) -> (&[u8], &[Bytes]) {
        let headers = self.shape.as_ref().and_then(|shape| self.headers.get(..shape.headers));
        (headers.unwrap_or_default(), &self.payloads)
    }

    /// How many packets it carries.
    pub fn packets(&self) -> usize {
        self.payloads.len()
    }

    fn is_of(&self, flow: &Flow) -> bool {
        self.shape.as_ref().is_some_and(|shape| shape.flow == *flow)
    }

    fn is_closed(&self) -> bool {
        self.shape.as_ref().is_none_or(|shape| shape.is_closed)
    }

    fn try_add(&mut self, packet: &Bytes, new: &Shape, partial: bool) -> bool {
        let Some(shape) = &self.shape else { return false };
        let fits = !shape.is_closed
            && self.payloads.len() < MAX_SEGMENTS
            && (1..=shape.size).contains(&new.size)
            && shape.headers + shape.total + new.size <= MAX_PACKET
            && (shape.transport, shape.headers) == (new.transport, new.headers);
        let Some(headers) = packet.get(..new.headers).filter(|_| fits) else { return false };
        let follows = self.follows_in_ip(headers)
            && match shape.flow.protocol {
                TCP => self.follows_in_tcp(headers),
                _ => true,
            };
        if !follows || !self.may_merge(packet, shape, new, partial) {
            return false;
        }
        let flags = at(headers, new.transport + 13) & (FIN | PSH);
        if let Some(shape) = &mut self.shape {
            shape.total += new.size;
            shape.is_closed = new.is_closed || new.size < shape.size;
            if shape.flow.protocol == TCP
                && let Some(first) = self.headers.get_mut(shape.transport + 13)
            {
                *first |= flags;
            }
        }
        self.partial = true;
        self.payloads.push(packet.slice(new.headers..));
        true
    }

    /// The same in all that a router or a host looks at; IPv4's identification counts up, or stands still where it means
    /// nothing (RFC 6864 §4).
    fn follows_in_ip(&self, headers: &[u8]) -> bool {
        let Some(shape) = &self.shape else { return false };
        let first = |place| at(&self.headers, place);
        if shape.is_v6 {
            return self.headers.first_chunk::<4>() == headers.first_chunk() && first(7) == at(headers, 7);
        }
        let id = |bytes: &[u8]| u16::from_be_bytes([at(bytes, 4), at(bytes, 5)]);
        let unbreakable = first(6) & 0x40 != 0;
        let next = id(&self.headers).wrapping_add(short(self.payloads.len()));
        let in_order = id(headers) == next || (unbreakable && id(headers) == id(&self.headers));
        in_order && first(1) == at(headers, 1) && first(6) == at(headers, 6) && first(8) == at(headers, 8)
    }

    /// `tcp_gro_receive`: the next bytes, the same acknowledgement, window, flags but for FIN and PSH, and options.
    fn follows_in_tcp(&self, headers: &[u8]) -> bool {
        let Some(shape) = &self.shape else { return false };
        let (Some(first), Some(new)) =
            (self.headers.get(shape.transport..shape.headers), headers.get(shape.transport..))
        else {
            return false;
        };
        let sequence = |tcp: &[u8]| u32::from_be_bytes([at(tcp, 4), at(tcp, 5), at(tcp, 6), at(tcp, 7)]);
        let expected = sequence(first).wrapping_add(u32::try_from(shape.total).unwrap_or(u32::MAX));
        sequence(new) == expected
            && at(new, 13) & CWR == 0
            && (at(first, 13) ^ at(new, 13)) & !(CWR | FIN | PSH) == 0
            && first.get(8..13) == new.get(8..13)
            && first.get(14..16) == new.get(14..16)
            && first.get(20..) == new.get(20..)
    }

    /// A merged packet gets a new checksum, so that a complete one must be right before it goes; one that says nothing
    /// (UDP's zero) cannot be merged at all.
    fn may_merge(&self, packet: &Bytes, shape: &Shape, new: &Shape, partial: bool) -> bool {
        let first_is_right = self.partial
            || self.payloads.len() > 1
            || self.payloads.first().is_some_and(|payload| {
                let transport = self.headers.get(shape.transport..shape.headers).unwrap_or_default();
                is_right(&shape.flow, &[transport, payload])
            });
        first_is_right && (partial || is_right(&new.flow, &[packet.get(new.transport..).unwrap_or_default()]))
    }

    /// Writes the lengths and the pseudo-header's sum of the whole.
    fn complete(&mut self) {
        let Some(shape) = self.shape else { return };
        if self.payloads.len() > 1 {
            let len = shape.headers + shape.total;
            if shape.is_v6 {
                self.write(4, short(len - 40).to_be_bytes());
            } else {
                self.write(2, short(len).to_be_bytes());
                self.write(10, [0; 2]);
                let header = self.headers.get(..shape.transport).unwrap_or_default();
                let sum = !checksum::sum(header);
                self.write(10, sum.to_be_bytes());
            }
            if shape.flow.protocol == UDP {
                self.write(shape.transport + 4, short(len - shape.transport).to_be_bytes());
            }
        }
        if self.partial {
            let len = shape.headers - shape.transport + shape.total;
            let sum = pseudo_header(&shape.flow, len);
            let Partial { start, offset } = place_of(shape.transport, shape.flow.protocol);
            self.write(usize::from(start + offset), sum.to_be_bytes());
        }
    }

    fn write<const N: usize>(&mut self, place: usize, value: [u8; N]) {
        if let Some(place) = self.headers.get_mut(place..).and_then(|rest| rest.first_chunk_mut()) {
            *place = value;
        }
    }
}

impl Shape {
    /// `None` for what is never merged: no TCP or UDP with payload, IPv4 options, IPv6 extension headers, fragments.
    fn of(bytes: &Bytes) -> Option<Self> {
        let packet = Packet::parse(bytes).ok()?;
        let (flow, upper, is_v6) = (packet.flow(), packet.upper(), packet.source().is_ipv6());
        let plain = upper.fragment == Fragment::Whole && upper.offset == if is_v6 { 40 } else { 20 };
        let Ports::Pair { .. } = flow.ports else { return None };
        if !plain {
            return None;
        }
        let transport = bytes.get(upper.offset..)?;
        let (len, is_closed) = match upper.protocol {
            TCP => (
                usize::from(transport.get(12)? >> 4) * 4,
                transport.get(13)? & (URG | PSH | RST | SYN | FIN) != 0,
            ),
            _ => (8, false),
        };
        let headers = upper.offset + len;
        let size = bytes.len().checked_sub(headers)?;
        let whole = match upper.protocol {
            TCP => len >= 20,
            // A jumbogram or a lie, and UDP's "no checksum".
            _ => transport.get(4..6)? == short(8 + size).to_be_bytes() && transport.get(6..8)? != [0; 2],
        };
        let shape = Self {
            flow,
            is_v6,
            transport: upper.offset,
            headers,
            size,
            total: size,
            is_closed: is_closed || size == 0,
        };
        (whole && headers <= MAX_HEADERS).then_some(shape)
    }
}

fn place_of(transport: usize, protocol: u8) -> Partial {
    Partial { start: short(transport), offset: if protocol == TCP { 16 } else { 6 } }
}

/// Whether a complete checksum agrees with what it covers.
fn is_right(flow: &Flow, parts: &[&[u8]]) -> bool {
    let len = parts.iter().map(|part| part.len()).sum();
    // Headers are of even length, so that their sums may simply be added.
    parts.iter().fold(pseudo_header(flow, len), |sum, part| checksum::add(sum, checksum::sum(part))) == 0xffff
}

fn pseudo_header(flow: &Flow, len: usize) -> u16 {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    checksum::pseudo_header(flow.source, flow.destination, flow.protocol, len)
}

fn at(bytes: &[u8], place: usize) -> u8 {
    bytes.get(place).copied().unwrap_or_default()
}

fn short(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}
