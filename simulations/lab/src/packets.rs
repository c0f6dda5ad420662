//! Packets for tests, made and checked from scratch.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::checksum::sum;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

pub(crate) fn udp(source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len() as u16;
    let mut body = [ports(source, destination), be(len), be(0), payload.to_vec()].concat();
    let check = match transport_sum(*source.ip(), *destination.ip(), UDP, &body) {
        0xffff => 0xffff, // zero would mean "none"
        sum => !sum,
    };
    body[6..8].copy_from_slice(&check.to_be_bytes());
    ip(UDP, *source.ip(), *destination.ip(), &body)
}

pub(crate) fn tcp(source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let fixed = [0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0x10, 0, 0, 0, 0, 0];
    let mut body = [ports(source, destination), fixed.to_vec(), payload.to_vec()].concat();
    let check = !transport_sum(*source.ip(), *destination.ip(), TCP, &body);
    body[16..18].copy_from_slice(&check.to_be_bytes());
    ip(TCP, *source.ip(), *destination.ip(), &body)
}

pub(crate) fn echo_request(source: Ipv4Addr, destination: Ipv4Addr, id: u16) -> Vec<u8> {
    icmp(source, destination, [8, 0], &[be(id), be(1), b"ping".to_vec()].concat())
}

pub(crate) fn echo_reply(source: Ipv4Addr, destination: Ipv4Addr, id: u16) -> Vec<u8> {
    icmp(source, destination, [0, 0], &[be(id), be(1), b"ping".to_vec()].concat())
}

/// "Port unreachable" that quotes `quoted`.
pub(crate) fn unreachable(source: Ipv4Addr, destination: Ipv4Addr, quoted: &[u8]) -> Vec<u8> {
    icmp(source, destination, [3, 3], &[&[0; 4], quoted].concat())
}

fn icmp(source: Ipv4Addr, destination: Ipv4Addr, type_and_code: [u8; 2], rest: &[u8]) -> Vec<u8> {
    let mut body = [&type_and_code, &[0, 0][..], rest].concat();
    let check = !sum(&body);
    body[2..4].copy_from_slice(&check.to_be_bytes());
    ip(ICMP, source, destination, &body)
}

pub(crate) fn ip(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, body: &[u8]) -> Vec<u8> {
    let total = 20 + body.len() as u16;
    let mut head = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0];
    head[2..4].copy_from_slice(&total.to_be_bytes());
    head.extend(source.octets());
    head.extend(destination.octets());
    let check = !sum(&head);
    head[10..12].copy_from_slice(&check.to_be_bytes());
    [&head, body].concat()
}

fn ports(source: SocketAddrV4, destination: SocketAddrV4) -> Vec<u8> {
    [be(source.port()), be(destination.port())].concat()
}

fn be(number: u16) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// The sum of pseudo header and body: 0xffff if the checksum within is right.
fn transport_sum(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, body: &[u8]) -> u16 {
    let length = (body.len() as u32).to_be_bytes();
    let pseudo = [&source.octets()[..], &destination.octets(), &length, &[0, 0, 0, protocol], body].concat();
    sum(&pseudo)
}

/// Whether every checksum of a packet made here is right, those of a whole quoted packet included.
pub(crate) fn is_valid(packet: &[u8]) -> bool {
    let (head, body) = packet.split_at(20);
    let address = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]);
    let is_body_valid = match head[9] {
        ICMP if body[0] == 3 => sum(body) == 0xffff && is_valid(&body[8..]),
        ICMP => sum(body) == 0xffff,
        UDP if body[6..8] == [0, 0] => true,
        protocol => transport_sum(address(12), address(16), protocol, body) == 0xffff,
    };
    sum(head) == 0xffff && is_body_valid
}
