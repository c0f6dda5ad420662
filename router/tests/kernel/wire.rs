//! UDP packets as they cross the TUN.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use router::Packet;
use router::io::Tun;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

const UDP: u8 = 17;

/// An IP packet with one UDP datagram (RFC 768), checksums and all.
pub(crate) fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let addresses = [octets(from.ip()), octets(to.ip())].concat();
    let start = [from.port(), to.port(), length].map(u16::to_be_bytes).concat();
    let pseudo = [&addresses[..], &length.to_be_bytes(), &[0, UDP]].concat();
    let sum = checksum(&[&pseudo[..], &start, &[0, 0], payload].concat());
    [&ip_header(from.ip(), &addresses, length)[..], &start, &sum.to_be_bytes(), payload].concat()
}

fn ip_header(family: IpAddr, addresses: &[u8], length: u16) -> Vec<u8> {
    if family.is_ipv6() {
        return [&[0x60, 0, 0, 0], &length.to_be_bytes()[..], &[UDP, 64], addresses].concat();
    }
    let total = (20 + length).to_be_bytes();
    let mut header = [&[0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, UDP, 0, 0], addresses].concat();
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    header
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().into(),
        IpAddr::V6(v6) => v6.octets().into(),
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The next packet from the TUN that goes to `to`, skipping what the kernel says on its own (neighbour discovery).
pub(crate) fn read_packet_to(tun: &Tun, to: IpAddr) -> Vec<u8> {
    read_packet_where(tun, |packet| packet.destination() == to)
}

/// The next packet from the TUN that is wanted.
pub(crate) fn read_packet_where(tun: &Tun, is_wanted: impl Fn(&Packet<'_>) -> bool) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let packet = read_packet(tun, deadline);
        if is_wanted(&Packet::parse(&packet).unwrap()) {
            return packet;
        }
    }
}

fn read_packet(tun: &Tun, deadline: Instant) -> Vec<u8> {
    let left = deadline.saturating_duration_since(Instant::now());
    let wait = Timespec::try_from(left).unwrap();
    assert_ne!(poll(&mut [PollFd::new(tun, PollFlags::IN)], Some(&wait)).unwrap(), 0, "no packet came");
    let mut buffer = vec![0; 2048];
    let length = tun.read(&mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

/// The ports and the payload of a UDP packet.
pub(crate) fn udp_parts(packet: &[u8]) -> (u16, u16, &[u8]) {
    let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    (port(header), port(header + 2), &packet[header + 8..])
}
