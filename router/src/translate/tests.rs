use super::*;
use crate::packet::tests::build::{
    any_packet, assert_checksums, icmp, icmp_error, ip, tcp, udp, with_fragment, without_checksum,
    wrong_checksums,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn net(prefix: &str) -> IpNet {
    prefix.parse().unwrap()
}

fn mapping(real: &str, virtual_: &str) -> Mapping {
    Mapping::new(net(real), net(virtual_)).unwrap()
}

fn translator(mappings: &[(&str, &str)]) -> Translator {
    Translator::new(mappings.iter().map(|(real, virtual_)| mapping(real, virtual_))).unwrap()
}

fn site() -> Translator {
    translator(&[
        ("192.168.1.0/24", "10.86.7.0/24"),
        ("172.16.0.0/13", "10.64.0.0/13"),
        ("fd01:0:0:1::/64", "fd86:7::/64"),
    ])
}

fn outbound(translator: &Translator, mut packet: Vec<u8>) -> Vec<u8> {
    translator.outbound(&mut packet, false);
    packet
}

fn inbound(translator: &Translator, mut packet: Vec<u8>) -> Vec<u8> {
    translator.inbound(&mut packet, false);
    packet
}

#[test]
fn a_mapping_must_be_of_one_family_and_one_length() {
    let error = |real, virtual_| Mapping::new(net(real), net(virtual_)).unwrap_err().to_string();
    assert_eq!(error("10.0.0.0/24", "fd00::/64"), "10.0.0.0/24 and fd00::/64 are not of one IP version");
    assert_eq!(error("10.0.0.0/24", "10.1.0.9/16"), "10.0.0.0/24 and 10.1.0.0/16 are not of one length");
    assert_eq!(mapping("10.0.0.7/24", "10.1.0.0/24").real(), net("10.0.0.0/24"), "host bits are ignored");
}

#[test]
fn mappings_that_contradict_each_other_are_refused() {
    let error = |mappings: &[(&str, &str)]| {
        let mappings = mappings.iter().map(|(real, virtual_)| mapping(real, virtual_));
        Translator::new(mappings).unwrap_err().to_string()
    };
    assert_eq!(
        error(&[("10.1.0.0/24", "10.86.1.0/24"), ("10.1.0.0/24", "10.86.2.0/24")]),
        "10.1.0.0/24 is mapped twice"
    );
    assert_eq!(
        error(&[("10.1.0.0/24", "10.86.1.0/24"), ("10.2.0.0/25", "10.86.1.128/25")]),
        "the virtual prefixes 10.86.1.128/25 and 10.86.1.0/24 overlap"
    );
    let many = (0..=MAX_MAPPINGS).map(|n| mapping(&format!("10.1.{n}.0/24"), &format!("10.2.{n}.0/24")));
    assert_eq!(Translator::new(many).unwrap_err(), InvalidMappings::TooMany);
}

#[test]
fn the_longest_real_prefix_counts() {
    let nested = translator(&[("10.1.0.0/16", "10.86.0.0/16"), ("10.1.2.0/24", "10.99.2.0/24")]);
    assert_eq!(nested.virtual_of(ip("10.1.2.3")), Some(ip("10.99.2.3")));
    assert_eq!(nested.virtual_of(ip("10.1.3.3")), Some(ip("10.86.3.3")));
    assert_eq!(nested.virtual_of(ip("10.2.0.1")), None);
    assert_eq!(nested.real_of(ip("10.99.2.3")), Some(ip("10.1.2.3")));
    assert_eq!(nested.real_of(ip("fd00::1")), None);
}

#[test]
fn everything_and_a_single_host_are_prefixes_too() {
    let all = translator(&[("::/0", "::/0"), ("10.0.0.1/32", "10.86.0.9/32")]);
    assert_eq!(all.virtual_of(ip("fd00::1")), Some(ip("fd00::1")));
    assert_eq!(all.virtual_of(ip("10.0.0.1")), Some(ip("10.86.0.9")));
    assert_eq!(all.virtual_of(ip("10.0.0.2")), None);
}

#[test]
fn a_site_that_clashes_is_reached_and_answers_under_its_virtual_prefix() {
    for (real, virtual_, peer) in
        [("192.168.1.20", "10.86.7.20", "10.86.3.9"), ("fd01:0:0:1::20", "fd86:7::20", "fd86:3::9")]
    {
        let (real, virtual_, peer) = (ip(real), ip(virtual_), ip(peer));
        assert_eq!(outbound(&site(), udp(real, peer, b"a")), udp(virtual_, peer, b"a"));
        assert_eq!(inbound(&site(), udp(peer, virtual_, b"a")), udp(peer, real, b"a"));
        let syn = |source, destination| tcp(source, destination, 2, &[2, 4, 5, 180], b"");
        assert_eq!(outbound(&site(), syn(real, peer)), syn(virtual_, peer));
        assert_eq!(inbound(&site(), syn(peer, virtual_)), syn(peer, real));
        let ping = |source, destination| icmp(source, destination, 128, 0, [0, 7, 0, 1], b"ping");
        assert_eq!(outbound(&site(), ping(real, peer)), ping(virtual_, peer));
    }
}

#[test]
fn an_error_about_a_packet_speaks_of_the_addresses_that_its_receiver_knows() {
    for (real, virtual_, router, peer) in [
        ("192.168.1.20", "10.86.7.20", "192.168.1.1", "10.86.3.9"),
        ("fd01:0:0:1::20", "fd86:7::20", "fd01:0:0:2::1", "fd86:3::9"),
    ] {
        let (real, virtual_, router, peer) = (ip(real), ip(virtual_), ip(router), ip(peer));
        let translated = site().virtual_of(router).unwrap_or(router);
        // The peer's packet found no port at the host, said by the site's own router.
        let said = icmp_error(router, peer, &udp(peer, real, b"question"));
        assert_eq!(outbound(&site(), said), icmp_error(translated, peer, &udp(peer, virtual_, b"question")));
        // The host's packet found none in the overlay.
        let said = icmp_error(peer, virtual_, &udp(virtual_, peer, b"question"));
        assert_eq!(inbound(&site(), said), icmp_error(peer, real, &udp(real, peer, b"question")));
    }
}

#[test]
fn of_a_later_fragment_only_the_header_is_rewritten() {
    let (real, virtual_, peer) = (ip("192.168.1.20"), ip("10.86.7.20"), ip("10.86.3.9"));
    let fragment = |source| with_fragment(udp(source, peer, b"looks like a header"), 0x2005);
    let (before, after) = (fragment(real), outbound(&site(), fragment(real)));
    assert_eq!(after[..20], fragment(virtual_)[..20]);
    assert_eq!(after[20..], before[20..]);
}

#[test]
fn udp_without_a_checksum_gets_none() {
    let (real, virtual_, peer) = (ip("192.168.1.20"), ip("10.86.7.20"), ip("10.86.3.9"));
    let bare = |source| without_checksum(udp(source, peer, b"a"));
    assert_eq!(outbound(&site(), bare(real)), bare(virtual_));
}

#[test]
fn a_partial_checksum_is_left_for_the_caller_to_make() {
    let (real, virtual_, peer) = (ip("192.168.1.20"), ip("10.86.7.20"), ip("10.86.3.9"));
    let mut packet = udp(real, peer, b"a");
    packet[26..28].copy_from_slice(&[0x12, 0x34]);
    assert!(site().outbound(&mut packet, true));
    assert_eq!(packet[26..28], [0x12, 0x34]);
    assert!(checksum::complete(&mut packet));
    assert_eq!(packet, udp(virtual_, peer, b"a"));
}

#[test]
fn a_malformed_quoted_packet_is_left_alone() {
    let (real, virtual_, peer) = (ip("192.168.1.20"), ip("10.86.7.20"), ip("10.86.3.9"));
    let mut short = udp(peer, real, b"");
    short[0] = 0x44;
    let six = udp(ip("fd86:3::9"), ip("fd01:0:0:1::20"), b"");
    for quoted in [&udp(peer, real, b"")[..19], &short, &six, &[]] {
        assert_eq!(outbound(&site(), icmp_error(real, peer, quoted)), icmp_error(virtual_, peer, quoted));
    }
}

/// A host of the site and a peer in the overlay.
fn any_pair() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    (0..3u8, any::<u16>(), any::<u8>()).prop_map(|(prefix, host, peer)| {
        let (high, low) = (host >> 8, host & 0xff);
        match prefix {
            0 => (ip(&format!("192.168.1.{low}")), ip(&format!("10.86.3.{peer}"))),
            1 => (ip(&format!("172.{}.3.{low}", 16 + high % 8)), ip(&format!("10.86.3.{peer}"))),
            _ => (ip(&format!("fd01:0:0:1::{host:x}")), ip(&format!("fd86:3::{peer:x}"))),
        }
    })
}

fn any_outbound() -> impl Strategy<Value = Vec<u8>> {
    any_pair().prop_flat_map(|(host, peer)| any_packet(host, peer))
}

fn any_inbound() -> impl Strategy<Value = Vec<u8>> {
    any_pair().prop_flat_map(|(host, peer)| any_packet(peer, site().virtual_of(host).unwrap()))
}

proptest! {
    #[test]
    fn after_translation_every_checksum_is_that_of_a_new_packet(packet in any_outbound()) {
        let mut translated = packet.clone();
        prop_assert!(site().outbound(&mut translated, false));
        let (before, after) = (Packet::parse(&packet).unwrap(), Packet::parse(&translated).unwrap());
        prop_assert_eq!(Some(after.source()), site().virtual_of(before.source()));
        prop_assert_eq!(after.destination(), before.destination());
        assert_checksums(&translated);
    }

    #[test]
    fn the_opposite_mapping_restores_every_packet(packet in any_outbound(), arrived in any_inbound()) {
        let back = Translator::new(site().mappings.iter().map(|mapping| {
            Mapping::new(mapping.virtual_(), mapping.real()).unwrap()
        })).unwrap();
        prop_assert_eq!(outbound(&back, outbound(&site(), packet.clone())), packet);
        let delivered = inbound(&site(), arrived.clone());
        prop_assert_ne!(&delivered, &arrived);
        assert_checksums(&delivered);
        prop_assert_eq!(inbound(&back, delivered), arrived);
    }

    #[test]
    fn hosts_outside_every_mapping_keep_their_packets(
        packet in any_packet(ip("192.168.2.1"), ip("10.86.3.9")), six in any_packet(ip("fd02::1"), ip("fd03::1")),
    ) {
        for packet in [packet, six] {
            let mut same = packet.clone();
            prop_assert!(!site().outbound(&mut same, false) && !site().inbound(&mut same, false));
            prop_assert_eq!(same, packet);
        }
    }

    #[test]
    fn a_corrupt_packet_stays_corrupt(packet in any_outbound(), at: usize, bit in 0u8..8) {
        let (mut broken, header) = (packet.clone(), if packet[0] >> 4 == 4 { 20 } else { 40 });
        prop_assume!(packet.len() > header);
        broken[header + at % (packet.len() - header)] ^= 1 << bit;
        let wrong = wrong_checksums(&broken);
        prop_assert_eq!(wrong_checksums(&outbound(&site(), broken)), wrong);
    }

    #[test]
    fn no_bytes_make_it_panic(
        v6: bool, protocol in prop_oneof![Just(1u8), Just(6), Just(17), Just(44), Just(58), any::<u8>()],
        mut upper in vec(any::<u8>(), 0..120), kind in 0u8..5,
        version in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
        partial: bool, any_bytes in vec(any::<u8>(), 0..120),
    ) {
        if let [first, .., _, _, _] = &mut upper[..] { *first = kind; }
        if let Some(quoted) = upper.get_mut(8) { *quoted = version; }
        let all = translator(&[("0.0.0.0/0", "0.0.0.0/0"), ("::/1", "8000::/1")]);
        let (source, destination) = if v6 { ("1::1", "1::2") } else { ("10.0.0.1", "10.0.0.2") };
        let mut packet = crate::packet::tests::build::whole(ip(source), ip(destination), 50, &upper);
        packet[if v6 { 6 } else { 9 }] = protocol;
        for mut bytes in [packet, any_bytes] {
            let len = bytes.len();
            all.outbound(&mut bytes, partial);
            all.inbound(&mut bytes, partial);
            prop_assert_eq!(bytes.len(), len);
        }
    }
}
