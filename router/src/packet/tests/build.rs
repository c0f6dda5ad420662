//! Packets for the tests of all modules, and a plain reckoning of their checksums to hold the fast ones against.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::{ICMP, ICMPV6, Packet, TCP, UDP};

/// ESP: a protocol whose inside nobody knows.
const OPAQUE: u8 = 50;

pub(crate) fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

/// An IP packet around `upper`, with all checksums made; both addresses of one family.
pub(crate) fn whole(source: IpAddr, destination: IpAddr, protocol: u8, upper: &[u8]) -> Vec<u8> {
    let mut packet = super::build(source, destination, upper);
    if source.is_ipv4() {
        packet[9] = protocol;
        fill_header_checksum(&mut packet);
    } else {
        packet[6] = protocol;
    }
    fill_upper_checksum(&mut packet, protocol);
    packet
}

pub(crate) fn udp(source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    let header = [0x13, 0x88, 0, 53, length[0], length[1], 0, 0];
    whole(source, destination, UDP, &[&header, payload].concat())
}

/// `options` must be a multiple of 4 bytes long.
pub(crate) fn tcp(source: IpAddr, destination: IpAddr, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).unwrap();
    let header = [0x13, 0x88, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, words << 4, flags, 0xff, 0xff, 0, 0, 0, 0];
    whole(source, destination, TCP, &[&header, options, payload].concat())
}

/// `rest` is the second half of the ICMP header. The protocol is the one of the addresses' family.
pub(crate) fn icmp(
    source: IpAddr,
    destination: IpAddr,
    kind: u8,
    code: u8,
    rest: [u8; 4],
    body: &[u8],
) -> Vec<u8> {
    let protocol = if source.is_ipv4() { ICMP } else { ICMPV6 };
    whole(source, destination, protocol, &[&[kind, code, 0, 0], &rest[..], body].concat())
}

/// An unreachable port, about as much of `quoted` as is given.
pub(crate) fn icmp_error(source: IpAddr, destination: IpAddr, quoted: &[u8]) -> Vec<u8> {
    let (kind, code) = if source.is_ipv4() { (3, 3) } else { (1, 4) };
    icmp(source, destination, kind, code, [0; 4], quoted)
}

/// An IPv4 packet with `options`, a multiple of 4 bytes long, put into its header.
pub(crate) fn with_ip_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut longer = [&packet[..20], options, &packet[20..]].concat();
    let total = u16::try_from(longer.len()).unwrap();
    longer[0] += u8::try_from(options.len() / 4).unwrap();
    longer[2..4].copy_from_slice(&total.to_be_bytes());
    fill_header_checksum(&mut longer);
    longer
}

/// Sets flags and offset of an IPv4 packet.
pub(crate) fn with_fragment(mut packet: Vec<u8>, place: u16) -> Vec<u8> {
    packet[6..8].copy_from_slice(&place.to_be_bytes());
    fill_header_checksum(&mut packet);
    packet
}

/// A later fragment in the same bytes: nothing of what follows the header is one.
fn as_later_fragment(packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        return with_fragment(packet, 0x2005);
    }
    let mut longer = [&packet[..40], &[packet[6], 0, 0, 41, 0, 0, 0, 7], &packet[40..]].concat();
    let payload = u16::try_from(longer.len() - 40).unwrap();
    longer[4..6].copy_from_slice(&payload.to_be_bytes());
    longer[6] = 44;
    longer
}

/// A packet of every kind that translation treats in its own way. What an ICMP error quotes went the other way, as
/// it does in the world, and may be cut off.
pub(crate) fn any_packet(source: IpAddr, destination: IpAddr) -> impl Strategy<Value = Vec<u8>> {
    let inputs = (0..8u8, vec(any::<u8>(), 0..200), select(vec![8, 28, 40, 48, 60, 1000]));
    inputs.prop_map(move |(kind, payload, cut)| match kind {
        0 => udp(source, destination, &payload),
        1 => without_checksum(udp(source, destination, &payload)),
        2 => tcp(source, destination, 0x10, &[1, 1, 1, 0], &payload),
        3 => echo(source, destination, &payload),
        4 => whole(source, destination, OPAQUE, &payload),
        5 => as_later_fragment(udp(source, destination, &payload)),
        6 => icmp_error(source, destination, start(&echo(destination, source, &payload), cut)),
        _ => icmp_error(source, destination, start(&tcp(destination, source, 0x10, &[], &payload), cut)),
    })
}

fn start(bytes: &[u8], len: usize) -> &[u8] {
    bytes.get(..len).unwrap_or(bytes)
}

fn echo(source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    icmp(source, destination, if source.is_ipv4() { 8 } else { 128 }, 0, [0, 7, 0, 1], payload)
}

pub(crate) fn without_checksum(mut udp: Vec<u8>) -> Vec<u8> {
    let at = header_len(&udp) + 6;
    udp[at..at + 2].fill(0);
    udp
}

/// RFC 1071 word by word.
pub(crate) fn naive_sum(bytes: &[u8]) -> u16 {
    let mut total = 0u32;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        if total > 0xffff {
            total -= 0xffff;
        }
    }
    u16::try_from(total).unwrap()
}

pub(crate) fn assert_checksums(packet: &[u8]) {
    assert_eq!(wrong_checksums(packet), [""; 0], "in {packet:02x?}");
}

/// Reckons all checksums of a packet anew, and of what it quotes as far as it is quoted. Names the wrong ones.
pub(crate) fn wrong_checksums(packet: &[u8]) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    let upper = packet.get(header_len(packet)..).unwrap_or_default();
    if packet[0] >> 4 == 4 && naive_sum(&packet[..packet.len() - upper.len()]) != 0xffff {
        wrong.push("header");
    }
    if is_later(packet) {
        return wrong;
    }
    let protocol = protocol(packet);
    let is_without = protocol == UDP && upper.get(6..8) == Some(&[0, 0]);
    if [ICMP, ICMPV6, TCP, UDP].contains(&protocol) && !is_without && upper_sum(packet, protocol) != 0xffff {
        wrong.push("upper");
    }
    let quoted = match (protocol, upper) {
        (ICMP, [3, _, _, _, _, _, _, _, quoted @ ..]) => quoted,
        (ICMPV6, [1, _, _, _, _, _, _, _, quoted @ ..]) => quoted,
        _ => return wrong,
    };
    if Packet::parse(quoted).is_ok() {
        wrong.extend(wrong_checksums(quoted).iter().map(|what| match *what {
            "header" => "quoted header",
            _ => "quoted upper",
        }));
    }
    wrong
}

fn fill_header_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let checksum = !naive_sum(&packet[..header_len(packet)]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn fill_upper_checksum(packet: &mut [u8], protocol: u8) {
    let at = header_len(packet)
        + match protocol {
            TCP => 16,
            UDP => 6,
            ICMP | ICMPV6 => 2,
            _ => return,
        };
    packet[at..at + 2].fill(0);
    let checksum = match !upper_sum(packet, protocol) {
        0 if protocol == UDP => 0xffff,
        checksum => checksum,
    };
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn upper_sum(packet: &[u8], protocol: u8) -> u16 {
    let upper = packet.get(header_len(packet)..).unwrap_or_default();
    if protocol == ICMP {
        return naive_sum(upper);
    }
    let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
    let length = u32::try_from(upper.len()).unwrap().to_be_bytes();
    naive_sum(&[addresses, &length, &[0, protocol], upper].concat())
}

fn header_len(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { usize::from(packet[0] & 0xf) * 4 } else { 40 }
}

fn protocol(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 { packet[9] } else { packet[6] }
}

fn is_later(packet: &[u8]) -> bool {
    if packet[0] >> 4 == 4 { packet[6] & 0x1f != 0 || packet[7] != 0 } else { packet[6] == 44 }
}
