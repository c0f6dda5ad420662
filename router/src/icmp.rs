//! What a router says to a packet's sender: that the packet is too big, unwanted, or bound for nowhere.
//!
//! TCP and QUIC find the MTU of the overlay by these messages, and people find their mistakes by them. They are sent
//! sparingly: never about what could make two routers talk to each other for ever, and no more than a [`Budget`]
//! allows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use bus::Mono;

use crate::checksum;
use crate::packet::{Fragment, ICMP, ICMPV6, Packet, Ports, Upper};

/// The longest message in bytes over IPv4: every host takes it whole (RFC 1812 §4.3.2.3).
pub const MAX_V4: usize = 576;

/// The longest message in bytes over IPv6: its minimum MTU (RFC 4443 §3).
pub const MAX_V6: usize = 1280;

/// The least MTU in bytes that IPv4 hosts believe in (RFC 1191 §3).
const MIN_MTU_V4: u16 = 68;

/// The least MTU in bytes that IPv6 hosts go down to (RFC 8200 §5): a path below it must carry packets in parts.
const MIN_MTU_V6: u16 = 1280;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;

/// TTL and hop limit of our own packets (RFC 1700, RFC 8200 §3: up to the sender).
const HOPS: u8 = 64;

/// "Internetwork control" (CS6): RFC 1812 §4.3.2.5 wants errors ahead of the queues that caused them.
const TRAFFIC_CLASS: u8 = 0xc0;

/// What went wrong with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Problem {
    /// Longer than `mtu` bytes, its own header included, and not to be cut: IPv4's "fragmentation needed" (RFC 1191
    /// §4) and IPv6's "packet too big" (RFC 4443 §3.2). No host is told less than its IP version's least MTU.
    TooBig { mtu: u16 },
    /// A policy is against it: "communication administratively prohibited" (RFC 1812 §5.2.7.1, RFC 4443 §3.1).
    Prohibited,
    /// No prefix holds its destination (RFC 792, RFC 4443 §3.1).
    NoRoute,
}

impl Problem {
    /// Type, code, and the second half of the header.
    fn header_v4(self) -> (u8, u8, [u8; 4]) {
        match self {
            Self::TooBig { mtu } => (3, 4, u32::from(mtu.max(MIN_MTU_V4)).to_be_bytes()),
            Self::Prohibited => (3, 13, [0; 4]),
            Self::NoRoute => (3, 0, [0; 4]),
        }
    }

    fn header_v6(self) -> (u8, u8, [u8; 4]) {
        match self {
            Self::TooBig { mtu } => (2, 0, u32::from(mtu.max(MIN_MTU_V6)).to_be_bytes()),
            Self::Prohibited => (1, 1, [0; 4]),
            Self::NoRoute => (1, 0, [0; 4]),
        }
    }
}

/// The message to the sender of `packet` about its `problem`, as a packet from `router`, this router's own address of
/// the same family. It quotes as much of `packet`, as it is now, as fits.
///
/// None if nothing may be said (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)):
/// 1. about bytes that are no packet, or one whose inside is hidden behind extension headers;
/// 2. about an ICMP error or redirect, or what might be one;
/// 3. about a later fragment: its first one is answered;
/// 4. to a sender that is not one host: unspecified, loopback, multicast, broadcast, reserved;
/// 5. about a packet to many hosts, except that an IPv6 one is too big: its MTU has to be found, too.
pub fn about(packet: &[u8], problem: Problem, router: IpAddr) -> Option<Vec<u8>> {
    let parsed = Packet::parse(packet).ok()?;
    let is_mtu = parsed.source().is_ipv6() && matches!(problem, Problem::TooBig { .. });
    if !may_be_answered(&parsed) || !is_one_host(parsed.source()) {
        return None;
    }
    if is_to_many(parsed.destination()) && !is_mtu {
        return None;
    }
    match (router, parsed.source()) {
        (IpAddr::V4(router), IpAddr::V4(sender)) => Some(message_v4(packet, problem, router, sender)),
        (IpAddr::V6(router), IpAddr::V6(sender)) => Some(message_v6(packet, problem, router, sender)),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

fn may_be_answered(packet: &Packet<'_>) -> bool {
    let upper = packet.upper();
    let is_question = match upper.protocol {
        ICMP => kind(packet, &upper).is_some_and(is_question_v4),
        ICMPV6 => kind(packet, &upper).is_some_and(|kind| kind >= 128 && kind != 137),
        _ => true,
    };
    is_question && upper.fragment != Fragment::Later && upper.ports != Ports::IcmpError && !upper.is_hidden()
}

fn kind(packet: &Packet<'_>, upper: &Upper) -> Option<u8> {
    packet.bytes().get(upper.offset).copied()
}

/// Echo, router discovery, timestamp, information and address mask. Of an unknown type nobody knows that it is no
/// error.
fn is_question_v4(kind: u8) -> bool {
    matches!(kind, 0 | 8..=10 | 13..=18)
}

fn is_one_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast(),
    }
}

fn is_to_many(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    }
}

fn message_v4(packet: &[u8], problem: Problem, router: Ipv4Addr, sender: Ipv4Addr) -> Vec<u8> {
    let quoted = start(packet, MAX_V4 - IPV4_HEADER - ICMP_HEADER);
    let [high, low] = length(IPV4_HEADER + ICMP_HEADER + quoted.len());
    let (kind, code, rest) = problem.header_v4();
    // Never cut: shorter than what every path takes, so an identification of zero will do (RFC 6864 §4.1).
    let fields = [0x45, TRAFFIC_CLASS, high, low, 0, 0, 0x40, 0, HOPS, ICMP, 0, 0];
    let mut message = Vec::with_capacity(IPV4_HEADER + ICMP_HEADER + quoted.len());
    message.extend(fields);
    message.extend(router.octets());
    message.extend(sender.octets());
    let checksum = !checksum::sum(&message);
    put(&mut message, 10, checksum);
    append_icmp(&mut message, kind, code, rest, quoted);
    message
}

fn message_v6(packet: &[u8], problem: Problem, router: Ipv6Addr, sender: Ipv6Addr) -> Vec<u8> {
    let quoted = start(packet, MAX_V6 - IPV6_HEADER - ICMP_HEADER);
    let [high, low] = length(ICMP_HEADER + quoted.len());
    let (kind, code, rest) = problem.header_v6();
    let fields = [0x60 | TRAFFIC_CLASS >> 4, TRAFFIC_CLASS << 4, 0, 0, high, low, ICMPV6, HOPS];
    let mut message = Vec::with_capacity(IPV6_HEADER + ICMP_HEADER + quoted.len());
    message.extend(fields);
    message.extend(router.octets());
    message.extend(sender.octets());
    append_icmp(&mut message, kind, code, rest, quoted);
    message
}

fn append_icmp(message: &mut Vec<u8>, kind: u8, code: u8, rest: [u8; 4], quoted: &[u8]) {
    message.extend([kind, code, 0, 0]);
    message.extend(rest);
    message.extend(quoted);
    checksum::complete(message);
}

fn start(bytes: &[u8], longest: usize) -> &[u8] {
    bytes.get(..longest).unwrap_or(bytes)
}

/// Of a message, at most [`MAX_V6`].
fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

fn put(bytes: &mut [u8], at: usize, number: u16) {
    if let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = number.to_be_bytes();
    }
}

/// How often messages are sent at most: a bucket of [`Budget::BURST`] that fills at one every [`Budget::INTERVAL`].
///
/// Without it a scan of an empty prefix, or a loop, would be answered packet by packet. These are Linux's bounds of
/// long standing (`icmp_msgs_per_sec`, `icmp_msgs_burst`).
#[derive(Debug, Clone, Default)]
pub struct Budget {
    /// When the bucket is full again.
    full_at: Mono,
}

impl Budget {
    /// 1000 a second.
    pub const INTERVAL: Duration = Duration::from_millis(1);

    /// At once, after a silence of as many intervals.
    pub const BURST: u32 = 50;

    /// A full bucket.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one message's worth. False: say nothing.
    pub fn take(&mut self, now: Mono) -> bool {
        let full_at = self.full_at.max(now) + Self::INTERVAL;
        let may = full_at - now <= Self::INTERVAL * Self::BURST;
        if may {
            self.full_at = full_at;
        }
        may
    }
}

#[cfg(test)]
mod tests;
