use super::*;
use crate::packet::tests::build::{
    any_packet, assert_checksums, icmp, ip, udp, whole, with_fragment, with_ip_options,
};
use proptest::collection::vec;
use proptest::prelude::*;

const ALL: [Problem; 3] = [Problem::TooBig { mtu: 1400 }, Problem::Prohibited, Problem::NoRoute];

fn v4(payload: &[u8]) -> Vec<u8> {
    udp(ip("10.86.1.2"), ip("10.86.2.3"), payload)
}

fn v6(payload: &[u8]) -> Vec<u8> {
    udp(ip("fd86:1::2"), ip("fd86:2::3"), payload)
}

fn answer(packet: &[u8], problem: Problem) -> Option<Vec<u8>> {
    let router = if packet[0] >> 4 == 4 { "10.86.0.1" } else { "fd86::1" };
    about(packet, problem, ip(router))
}

#[test]
fn every_problem_has_the_type_and_code_of_its_standard() {
    let header = |packet: &[u8], problem, at: usize| answer(packet, problem).unwrap()[at..at + 8].to_vec();
    let without_checksum = |mut header: Vec<u8>| {
        header[2..4].fill(0);
        header
    };
    for (problem, four, six) in [
        (Problem::TooBig { mtu: 1400 }, [3, 4, 0, 0, 0, 0, 5, 120], [2, 0, 0, 0, 0, 0, 5, 120]),
        (Problem::TooBig { mtu: 9 }, [3, 4, 0, 0, 0, 0, 0, 68], [2, 0, 0, 0, 0, 0, 5, 0]),
        (Problem::Prohibited, [3, 13, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]),
        (Problem::NoRoute, [3, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]),
    ] {
        assert_eq!(without_checksum(header(&v4(b"a"), problem, 20)), four, "{problem:?}");
        assert_eq!(without_checksum(header(&v6(b"a"), problem, 40)), six, "{problem:?}");
    }
}

#[test]
fn a_message_goes_from_the_router_to_the_sender_and_quotes_what_fits() {
    for (packet, longest, header) in [(v4(&[7; 3000]), MAX_V4, 28), (v6(&[7; 3000]), MAX_V6, 48)] {
        let message = answer(&packet, Problem::NoRoute).unwrap();
        let parsed = Packet::parse(&message).unwrap();
        assert_eq!(parsed.destination(), Packet::parse(&packet).unwrap().source());
        assert!([ip("10.86.0.1"), ip("fd86::1")].contains(&parsed.source()));
        assert_eq!((message.len(), &message[header..]), (longest, &packet[..longest - header]));
        assert_eq!((parsed.upper().ports, parsed.dscp()), (Ports::IcmpError, 48));
    }
    let short = v4(b"short");
    assert_eq!(answer(&short, Problem::NoRoute).unwrap()[28..], short);
    let with_options = with_ip_options(&short, &[7, 7, 4, 0, 0, 0, 0, 0]);
    assert_eq!(answer(&with_options, Problem::Prohibited).unwrap()[28..], with_options);
}

#[test]
fn questions_of_icmp_are_answered_and_errors_never() {
    for (source, destination, questions, errors) in [
        ("10.86.1.2", "10.86.2.3", [0, 8, 13], [3, 4, 5, 11, 12, 40]),
        ("fd86:1::2", "fd86:2::3", [128, 129, 135], [1, 2, 3, 4, 137, 100]),
    ] {
        let message = |kind, body: &[u8]| icmp(ip(source), ip(destination), kind, 0, [0; 4], body);
        for kind in questions {
            assert!(answer(&message(kind, b""), Problem::NoRoute).is_some(), "{kind}");
        }
        for kind in errors {
            assert!(answer(&message(kind, b"quoted"), Problem::NoRoute).is_none(), "{kind}");
        }
        let protocol = if source.contains(':') { ICMPV6 } else { ICMP };
        let mut cut_off = whole(ip(source), ip(destination), 50, b"");
        cut_off[if source.contains(':') { 6 } else { 9 }] = protocol;
        assert!(answer(&cut_off, Problem::NoRoute).is_none(), "it may be an error");
    }
}

#[test]
fn later_fragments_and_hidden_packets_are_not_answered() {
    let part = |place| with_fragment(v4(b"part"), place);
    assert!(answer(&part(0x2000), Problem::Prohibited).is_some());
    assert!(answer(&part(0x0001), Problem::Prohibited).is_none());
    let hidden = whole(ip("fd86:1::2"), ip("fd86:2::3"), 60, &[ICMPV6, 200, 0, 0, 0, 0, 0, 0]);
    assert!(answer(&hidden, Problem::NoRoute).is_none());
}

#[test]
fn only_a_single_sender_is_answered() {
    for source in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"] {
        assert!(answer(&udp(ip(source), ip("10.0.0.1"), b""), Problem::NoRoute).is_none(), "{source}");
    }
    for source in ["::", "::1", "ff02::1"] {
        assert!(answer(&udp(ip(source), ip("fd00::1"), b""), Problem::NoRoute).is_none(), "{source}");
    }
}

#[test]
fn about_packets_to_many_hosts_only_their_size_over_ipv6_is_told() {
    for problem in ALL {
        for destination in ["224.0.0.1", "255.255.255.255"] {
            assert!(answer(&udp(ip("10.0.0.1"), ip(destination), b""), problem).is_none());
        }
        let six = answer(&udp(ip("fd00::1"), ip("ff05::1"), b""), problem);
        assert_eq!(six.is_some(), matches!(problem, Problem::TooBig { .. }));
    }
}

#[test]
fn a_router_without_an_address_of_the_family_is_silent() {
    assert_eq!(about(&v4(b""), Problem::NoRoute, ip("fd86::1")), None);
    assert_eq!(about(&v6(b""), Problem::NoRoute, ip("10.86.0.1")), None);
}

#[test]
fn a_budget_allows_a_burst_and_then_a_thousand_a_second() {
    let mut budget = Budget::new();
    let taken = |budget: &mut Budget, now| (0..1000).filter(|_| budget.take(Mono(now))).count();
    assert_eq!(taken(&mut budget, 5_000_000), 50);
    assert_eq!(taken(&mut budget, 5_000_999), 0);
    assert_eq!(taken(&mut budget, 5_001_000), 1);
    assert_eq!(taken(&mut budget, 5_011_000), 10);
    assert_eq!(taken(&mut budget, 5_010_000), 0, "a clock that steps back is no refill");
    assert_eq!(taken(&mut budget, 9_000_000), 50, "no more than the burst is saved up");
    let over_a_second: usize = (9_000_000..=10_000_000).step_by(100).map(|now| taken(&mut budget, now)).sum();
    assert_eq!(over_a_second, 1000);
}

proptest! {
    #[test]
    fn every_message_is_a_sound_packet_and_is_not_answered_itself(
        packet in any_packet(ip("10.1.0.9"), ip("10.2.0.9")), six in any_packet(ip("fd00:1::9"), ip("fd00:2::9")),
        problem in 0..ALL.len(),
    ) {
        for packet in [packet, six] {
            let Some(message) = answer(&packet, ALL[problem]) else { continue };
            assert_checksums(&message);
            prop_assert_eq!(answer(&message, Problem::NoRoute), None);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(mut bytes in vec(any::<u8>(), 0..100), v6: bool, problem in 0..ALL.len()) {
        let _ = answer(&[&[0x45][..], &bytes].concat(), ALL[problem]);
        let len = bytes.len() as u8;
        if v6 && let [first, _, _, _, high, low, ..] = &mut bytes[..] {
            (*first, *high, *low) = (0x60, 0, len.saturating_sub(40));
        } else if let [first, _, high, low, ..] = &mut bytes[..] {
            (*first, *high, *low) = (0x40 | *first & 0xf, 0, len);
        }
        let _ = about(&bytes, ALL[problem], ip(if v6 { "fd86::1" } else { "10.86.0.1" }));
    }
}
