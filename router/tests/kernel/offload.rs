//! The kernel's own segmentation, held against ours: what is written to one TUN as a super-packet and leaves by another
//! that takes none was cut by Linux.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use router::checksum;
use router::io::sysctl::enable_forwarding;
use router::io::{Netlink, Tun};
use router::offload::virtio::Partial;
use router::offload::{Coalescer, Gso, Segmenter, VirtioHeader};
use router::packet::{Flow, Packet, TCP, UDP};

use crate::namespace::in_own_network;
use crate::wire::read_packet_where;

const CASES: u32 = 150;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;

/// Two interfaces between which the kernel forwards: IPv4 and IPv6 from 10.1.0.0/24 to 10.2.0.0/24 and the like.
struct Forwarding {
    takes: Tun,
    gives: Tun,
}

impl Forwarding {
    fn new() -> Self {
        let mut netlink = Netlink::open().unwrap();
        let (mut takes, gives) = (Tun::open("kb0", 1500).unwrap(), Tun::open("kb1", 1500).unwrap());
        takes.enable_offload();
        assert!(takes.offload().udp, "this kernel's TUN cuts no UDP: Linux 6.2 and newer do");
        for (tun, v4, v6) in [(&takes, "10.1.0.1/24", "fd01::1/64"), (&gives, "10.2.0.1/24", "fd02::1/64")] {
            netlink.link_up(tun.name()).unwrap();
            netlink.address_add(tun.name(), v4.parse().unwrap()).unwrap();
            netlink.address_add(tun.name(), v6.parse().unwrap()).unwrap();
        }
        enable_forwarding().unwrap();
        Self { takes, gives }
    }

    /// Puts packets together, lets the kernel cut them, and returns what comes out.
    fn pass(&self, packets: &[(Vec<u8>, bool)]) -> Vec<Vec<u8>> {
        let mut coalescer = Coalescer::new(self.takes.offload());
        let mut write = |group: &router::offload::Group| self.takes.write_group(group).unwrap();
        for (packet, partial) in packets {
            coalescer.push(Bytes::copy_from_slice(packet), *partial, &mut write);
        }
        coalescer.flush(&mut write);
        packets.iter().map(|_| self.next()).collect()
    }

    /// Writes a super-packet whose checksum is still to be made.
    fn write_super(&self, mut packet: Vec<u8>, gso: Gso, protocol: u8) {
        let parsed = Packet::parse(&packet).unwrap();
        let (transport, is_v6) = (parsed.upper().offset, parsed.source().is_ipv6());
        let (headers, offset) = if protocol == TCP { (transport + 32, 16) } else { (transport + 8, 6) };
        let len = u32::try_from(packet.len() - transport).unwrap();
        let sum = checksum::pseudo_header(parsed.source(), parsed.destination(), protocol, len);
        packet[transport + offset..][..2].copy_from_slice(&sum.to_be_bytes());
        let partial = Partial { start: transport as u16, offset: offset as u16 };
        let virtio = VirtioHeader { gso, partial: Some(partial) }.encode(is_v6, headers as u16);
        rustix::io::write(&self.takes, &[&virtio[..], &packet].concat()).unwrap();
    }

    fn next(&self) -> Vec<u8> {
        let ours = ["10.2.0.9", "fd02::9"].map(|address| address.parse::<IpAddr>().unwrap());
        read_packet_where(&self.gives, |packet| ours.contains(&packet.destination()))
    }
}

/// A packet with all checksums right, of a stream that is at `sequence`.
fn packet(is_v6: bool, protocol: u8, flags: u8, sequence: u32, id: u16, payload: &[u8]) -> Vec<u8> {
    let transport = if protocol == TCP {
        let options = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        let numbers = [sequence.to_be_bytes(), 77u32.to_be_bytes()].concat();
        [&[0x13, 0x88, 0, 80][..], &numbers, &[8 << 4, flags, 1, 0, 0, 0, 0, 0], &options].concat()
    } else {
        let len = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
        vec![0x13, 0x88, 0, 53, len[0], len[1], 0, 0]
    };
    let len = transport.len() + payload.len();
    let mut bytes = if is_v6 {
        let len = u16::try_from(len).unwrap().to_be_bytes();
        let addresses =
            ["fd01::9", "fd02::9"].map(|a| a.parse::<std::net::Ipv6Addr>().unwrap().octets()).concat();
        [&[0x60, 0, 0, 0, len[0], len[1], protocol, 64][..], &addresses].concat()
    } else {
        let (len, id) = (u16::try_from(20 + len).unwrap().to_be_bytes(), id.to_be_bytes());
        let start = [0x45, 0, len[0], len[1], id[0], id[1], 0x40, 0, 64, protocol, 0, 0];
        [&start[..], &[10, 1, 0, 9, 10, 2, 0, 9]].concat()
    };
    bytes.extend(transport);
    bytes.extend(payload);
    completed(bytes)
}

fn completed(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let sum = !checksum::sum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    assert!(checksum::complete(&mut packet));
    packet
}

/// As it leaves the next router. The identification of a packet that may not be cut means nothing (RFC 6864).
fn forwarded(mut packet: Vec<u8>) -> Vec<u8> {
    let hops = if packet[0] >> 4 == 4 { 8 } else { 7 };
    packet[hops] -= 1;
    anonymous(packet)
}

fn anonymous(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[4..6].fill(0);
    }
    let before = packet.clone();
    let packet = completed(packet);
    let transport = if packet[0] >> 4 == 4 { 20 } else { 40 };
    assert!(before[transport..] == packet[transport..], "a wrong checksum came out");
    packet
}

fn by_flow(packets: impl IntoIterator<Item = Vec<u8>>) -> BTreeMap<Flow, Vec<Vec<u8>>> {
    let mut flows = BTreeMap::<Flow, Vec<Vec<u8>>>::new();
    for packet in packets {
        let flow = Packet::parse(&packet).unwrap().flow();
        flows.entry(flow).or_default().push(packet);
    }
    flows
}

type Step = (bool, bool, usize, u8, bool);

fn batch(steps: &[Step]) -> Vec<(Vec<u8>, bool)> {
    let (mut sequences, mut id) = ([u32::MAX - 5000; 2], 0);
    let make = |(is_v6, is_tcp, len, odd, partial): &Step| {
        let sequence = &mut sequences[usize::from(*is_v6)];
        let flags = ACK | [PSH, FIN, CWR, PSH | FIN].get(usize::from(*odd)).unwrap_or(&0);
        let payload: Vec<u8> = (0..*len).map(|n| n as u8 ^ odd).collect();
        let packet = packet(*is_v6, if *is_tcp { TCP } else { UDP }, flags, *sequence, id, &payload);
        id += 1;
        if *is_tcp {
            *sequence = sequence.wrapping_add(*len as u32);
        }
        (packet, *partial)
    };
    steps.iter().map(make).collect()
}

#[test]
fn linux_cuts_what_we_put_together_into_what_it_was() {
    in_own_network("offload::linux_cuts_what_we_put_together_into_what_it_was", || {
        let kernel = Forwarding::new();
        let sizes = select(vec![1usize, 64, 700, 700, 1348, 1348, 1348]);
        let steps = vec((any::<bool>(), any::<bool>(), sizes, 0..30u8, any::<bool>()), 1..60);
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        TestRunner::new(config)
            .run(&steps, |steps| {
                let packets = batch(&steps);
                let came_out = kernel.pass(&packets).into_iter().map(anonymous);
                let want = packets.into_iter().map(|(packet, _)| forwarded(packet));
                prop_assert_eq!(by_flow(came_out), by_flow(want));
                Ok(())
            })
            .unwrap();
    });
}

#[test]
fn we_cut_super_packets_as_linux_does() {
    in_own_network("offload::we_cut_super_packets_as_linux_does", || {
        let kernel = Forwarding::new();
        let shapes = (any::<bool>(), any::<bool>(), 1..1300u16, 1..20_000usize, any::<u8>());
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        TestRunner::new(config)
            .run(&shapes, |(is_v6, is_tcp, size, len, flags)| {
                // Two segments at least: what fits into one Linux takes for a super-packet if TCP's options bring it above
                // the size, and then drops it for being none. No more segments than it takes in one.
                let len = (usize::from(size) + len).min(usize::from(size) * 60);
                let flags = ACK | flags & (PSH | FIN | CWR);
                let protocol = if is_tcp { TCP } else { UDP };
                let payload: Vec<u8> = (0..len).map(|n| (n * 7) as u8).collect();
                let whole = packet(is_v6, protocol, flags, 0xffff_f000, 9, &payload);
                let parsed = Packet::parse(&whole).unwrap();
                let gso = if is_tcp { Gso::Tcp(size) } else { Gso::Udp(size) };
                let mut segments = Segmenter::new(&parsed, gso, 1500).unwrap();
                let mut ours = Vec::new();
                while let Some((headers, payload)) = segments.next_segment() {
                    ours.push(completed([headers, payload].concat()));
                }
                kernel.write_super(whole, gso, protocol);
                for packet in ours {
                    prop_assert_eq!(anonymous(kernel.next()), forwarded(packet));
                }
                Ok(())
            })
            .unwrap();
    });
}
