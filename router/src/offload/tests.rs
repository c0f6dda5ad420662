//! Cut and put together again, everything must be as it was. The kernel's own opinion is asked in `tests/kernel`.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::checksum;
use crate::packet::tests::build::{ip, tcp, udp};
use crate::packet::{Flow, Packet};

const ALL: Offload = Offload { tcp: true, udp: true };
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const FIN: u8 = 0x01;

fn with<const N: usize>(mut packet: Vec<u8>, at: usize, value: [u8; N]) -> Vec<u8> {
    packet[at..at + N].copy_from_slice(&value);
    completed(packet)
}

fn completed(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let sum = !checksum::sum(&packet[..usize::from(packet[0] & 15) * 4]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    checksum::complete(&mut packet);
    packet
}

/// A TCP segment of the stream from `source` that begins at `sequence`.
fn segment(source: &str, destination: &str, sequence: u32, flags: u8, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|n| (n as u32 + sequence) as u8).collect();
    let packet = tcp(ip(source), ip(destination), flags, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], &payload);
    let at = if packet[0] >> 4 == 4 { 24 } else { 44 };
    with(packet, at, sequence.to_be_bytes())
}

/// What is written for `packets`, each as (virtio header, bytes).
fn coalesced(packets: &[(Vec<u8>, bool)]) -> Vec<(VirtioHeader, Vec<u8>)> {
    let (mut coalescer, mut written) = (Coalescer::new(ALL), Vec::new());
    let mut write = |group: &Group| {
        let (headers, payloads) = group.parts();
        let bytes = payloads.iter().fold(headers.to_vec(), |all, part| [&all, &part[..]].concat());
        written.push((VirtioHeader::decode(group.virtio()).unwrap(), bytes));
    };
    for (packet, partial) in packets {
        coalescer.push(Bytes::copy_from_slice(packet), *partial, &mut write);
    }
    coalescer.flush(&mut write);
    written
}

/// What a path of `max_len` bytes carries of one write, with checksums made.
fn cut(virtio: VirtioHeader, bytes: &[u8], max_len: usize) -> Vec<Vec<u8>> {
    if virtio.gso == Gso::None {
        return vec![if virtio.partial.is_some() { completed(bytes.to_vec()) } else { bytes.to_vec() }];
    }
    let mut segments = Segmenter::new(&Packet::parse(bytes).unwrap(), virtio.gso, max_len).unwrap();
    let mut cut = Vec::new();
    while let Some((headers, payload)) = segments.next_segment() {
        cut.push(completed([headers, payload].concat()));
    }
    cut
}

fn by_flow(packets: impl IntoIterator<Item = Vec<u8>>) -> BTreeMap<Flow, Vec<Vec<u8>>> {
    let mut flows = BTreeMap::<Flow, Vec<Vec<u8>>>::new();
    for mut packet in packets {
        let parsed = Packet::parse(&packet).unwrap();
        let (flow, fixed) = (parsed.flow(), parsed.source().is_ipv4() && parsed.is_unbreakable());
        if fixed {
            // Means nothing then (RFC 6864), and may change.
            packet = with(packet, 4, [0; 2]);
        }
        flows.entry(flow).or_default().push(packet);
    }
    flows
}

#[test]
fn a_stream_becomes_one_super_packet_and_a_short_segment_ends_it() {
    for (a, b, headers) in [("10.86.0.2", "10.86.0.3", 52), ("fd86::2", "fd86::3", 72)] {
        let stream: Vec<_> = (0..5u32).map(|n| (segment(a, b, n * 1000, ACK, 1000), n % 2 == 0)).collect();
        let short = (segment(a, b, 5000, ACK | PSH, 10), true);
        let next = (segment(a, b, 5010, ACK, 1000), true);
        let mut packets = [&stream[..], &[short, next]].concat();
        if headers == 52 {
            for (n, (packet, _)) in (0u16..).zip(&mut packets) {
                *packet = with(packet.clone(), 4, n.to_be_bytes());
            }
        }
        let written = coalesced(&packets);
        let lens: Vec<usize> = written.iter().map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(lens, [headers + 5010, headers + 1000]);
        assert_eq!(written[0].0.gso, Gso::Tcp(1000));
        assert!(written[0].0.partial.is_some());
        assert_eq!(written[1].0.gso, Gso::None);
    }
}

#[test]
fn what_linux_does_not_merge_is_not_merged() {
    let first = segment("fd86::2", "fd86::3", 1000, ACK, 1000);
    let next = segment("fd86::2", "fd86::3", 2000, ACK, 1000);
    let merged = |second: Vec<u8>| coalesced(&[(first.clone(), true), (second, true)]).len() == 1;
    assert!(merged(next.clone()));
    let tcp = 40;
    for (what, second) in [
        ("a gap", with(next.clone(), tcp + 4, 2001u32.to_be_bytes())),
        ("another acknowledgement", with(next.clone(), tcp + 8, [9; 4])),
        ("another window", with(next.clone(), tcp + 14, [1, 1])),
        ("other options", with(next.clone(), tcp + 28, [7; 4])),
        ("CWR", with(next.clone(), tcp + 13, [ACK | 0x80])),
        ("URG", with(next.clone(), tcp + 13, [ACK | 0x20])),
        ("congestion marked", with(next.clone(), 1, [0x30])),
        ("another hop limit", with(next.clone(), 7, [3])),
        ("another port", with(next.clone(), tcp + 3, [81])),
        ("longer", segment("fd86::2", "fd86::3", 2000, ACK, 1001)),
        ("nothing in it", segment("fd86::2", "fd86::3", 2000, ACK, 0)),
    ] {
        assert!(!merged(second), "{what}");
    }
    let mut wrong = next;
    wrong[100] ^= 1;
    assert!(merged(wrong.clone()), "who says partial says that the sum is not there yet");
    assert_eq!(
        coalesced(&[(first, true), (wrong.clone(), false)])[1].1,
        wrong,
        "a wrong sum stays to be seen"
    );
}

#[test]
fn no_more_than_linux_takes_is_put_into_one_write() {
    let datagram = udp(ip("fd86::2"), ip("fd86::3"), &[7; 64]);
    let written = coalesced(&vec![(datagram.clone(), true); 100]);
    assert_eq!(written.iter().map(|(_, bytes)| (bytes.len() - 48) / 64).collect::<Vec<_>>(), [64, 36]);
    let large = udp(ip("fd86::2"), ip("fd86::3"), &[7; 1300]);
    let written = coalesced(&vec![(large, true); 60]);
    assert!(written.iter().all(|(_, bytes)| bytes.len() <= 65_535), "{}", written.len());
    let unsummed = with(datagram, 0, [0x60]);
    let unsummed = [&unsummed[..46], &[0, 0], &unsummed[48..]].concat();
    assert_eq!(coalesced(&vec![(unsummed, false); 2]).len(), 2, "without a checksum");
}

#[test]
fn what_a_tun_does_not_take_is_written_packet_by_packet() {
    let datagram = Bytes::from(udp(ip("fd86::2"), ip("fd86::3"), &[7; 64]));
    let segment = Bytes::from(segment("fd86::2", "fd86::3", 0, ACK, 700));
    let next = Bytes::from(self::segment("fd86::2", "fd86::3", 700, ACK, 700));
    for (takes, want) in [(ALL, 2), (Offload { udp: false, ..ALL }, 3), (Offload::default(), 4)] {
        let (mut coalescer, mut written) = (Coalescer::new(takes), 0);
        let mut write = |_: &Group| written += 1;
        for packet in [&segment, &next, &datagram, &datagram] {
            coalescer.push(packet.clone(), true, &mut write);
        }
        coalescer.flush(&mut write);
        assert_eq!(written, want, "{takes:?}");
    }
}

#[test]
fn flags_that_mean_a_place_in_the_stream_are_kept_at_it() {
    let whole =
        with(segment("fd86::2", "fd86::3", 7, ACK | PSH | FIN | 0x80, 2500), 4, (32u16 + 2500).to_be_bytes());
    let virtio =
        VirtioHeader { gso: Gso::Tcp(1000), partial: Some(virtio::Partial { start: 40, offset: 16 }) };
    let cut = cut(virtio, &whole, 1400);
    let seen: Vec<_> = cut.iter().map(|packet| (packet[53], packet.len() - 72, packet[47])).collect();
    assert_eq!(seen, [(ACK | 0x80, 1000, 7), (ACK, 1000, 0xef), (ACK | PSH | FIN, 500, 0xd7)]);
    let narrow = self::cut(virtio, &whole, 572);
    assert_eq!(narrow.iter().map(|packet| packet.len() - 72).collect::<Vec<_>>(), [500; 5], "a narrow path");
}

#[test]
fn a_datagram_is_never_made_smaller() {
    let packet = udp(ip("fd86::2"), ip("fd86::3"), &[1; 3000]);
    let packet = Packet::parse(&packet).unwrap();
    assert_eq!(Segmenter::new(&packet, Gso::Udp(1000), 1000).unwrap_err(), Uncuttable::NoRoom);
    assert!(Segmenter::new(&packet, Gso::Udp(1000), 1048).is_ok());
    assert_eq!(Segmenter::new(&packet, Gso::Tcp(1000), 1400).unwrap_err(), Uncuttable::Headers);
}

/// Packets of a few flows, mostly in order, with something odd now and then.
fn any_batch() -> impl Strategy<Value = Vec<(Vec<u8>, bool)>> {
    let step = (0..4usize, select(vec![1usize, 64, 700, 700, 700, 1400]), 0..24u8, any::<bool>());
    proptest::collection::vec(step, 1..80).prop_map(|steps| {
        let mut next = [0u32; 4];
        let mut id = 0u16;
        let steps = steps.into_iter().map(|(flow, len, odd, partial)| {
            let (a, b) = if flow % 2 == 0 { ("10.86.0.2", "10.86.0.3") } else { ("fd86::2", "fd86::3") };
            if odd == 0 {
                next[flow] += 1;
            }
            let flags = ACK | [PSH, FIN, 0x04, 0x40, 0x80].get(usize::from(odd)).unwrap_or(&0);
            let mut packet = match flow {
                0 | 1 => segment(a, b, next[flow], flags, if odd == 5 { 0 } else { len }),
                _ => udp(ip(a), ip(b), &vec![odd; len]),
            };
            next[flow] += len as u32;
            id += u16::from(odd != 6);
            if packet[0] == 0x45 {
                packet = with(packet, 4, id.to_be_bytes());
                packet = with(packet, 6, [if odd < 12 { 0x40 } else { 0 }, 0]);
                packet = with(packet, 8, [if odd == 7 { 9 } else { 64 }]);
            }
            (packet, partial)
        });
        steps.collect()
    })
}

proptest! {
    #[test]
    fn what_was_put_together_is_cut_into_what_it_was(batch in any_batch()) {
        let written = coalesced(&batch);
        let cut = written.into_iter().flat_map(|(virtio, bytes)| cut(virtio, &bytes, 65_535));
        prop_assert_eq!(by_flow(cut), by_flow(batch.into_iter().map(|(packet, _)| packet)));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), size in 1..100u16) {
        coalesced(&[(bytes.clone(), true), (bytes.clone(), false)]);
        if let Ok(packet) = Packet::parse(&bytes) {
            for gso in [Gso::Tcp(size), Gso::Udp(size)] {
                if let Ok(mut segments) = Segmenter::new(&packet, gso, 150) {
                    let mut payload = 0;
                    while let Some((headers, part)) = segments.next_segment() {
                        prop_assert!(headers.len() + part.len() <= 150);
                        payload += part.len();
                    }
                    prop_assert!(payload < bytes.len());
                }
            }
        }
    }
}
