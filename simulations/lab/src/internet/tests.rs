//! Two nodes and more on the emulator, in virtual time.

use std::net::SocketAddrV4;
use std::time::Duration;

use super::*;
use crate::link::Rate;
use crate::packets;
use proptest::prelude::*;

const CLOUD: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 10001);
const EDGE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 2), 5000);
const EDGE_PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

fn at_ms(ms: u64) -> Mono {
    Mono(ms * 1000)
}

struct Lab {
    internet: Internet,
    cloud: PortId,
    edge: PortId,
}

fn cloud(link: LinkSettings) -> Attachment {
    Attachment { name: "cloud".into(), public: *CLOUD.ip(), nat: None, link }
}

fn edge(kind: NatKind, link: LinkSettings) -> Attachment {
    let inside = Ipv4Net::new(*EDGE.ip(), 24).unwrap();
    Attachment { name: "edge".into(), public: EDGE_PUBLIC, nat: Some(NatSettings { kind, inside }), link }
}

impl Lab {
    fn new(link: LinkSettings) -> Self {
        let mut internet = Internet::new(1);
        let cloud = internet.attach(cloud(link)).unwrap();
        let edge = internet.attach(edge(NatKind::PortRestricted, link)).unwrap();
        Self { internet, cloud, edge }
    }

    /// Everything that arrives until nothing moves, with the time of its arrival.
    fn run(&mut self) -> Vec<(Mono, PortId, Vec<u8>)> {
        let mut seen = Vec::new();
        while let Some((due, _)) = self.internet.poll_timeout() {
            while let Some(delivery) = self.internet.poll_delivery(due) {
                seen.push((due, delivery.port, delivery.packet.to_vec()));
            }
        }
        seen
    }

    /// Sends from the edge and returns its public endpoint.
    fn knock(&mut self, now: Mono) -> SocketAddrV4 {
        self.internet.handle_packet(self.edge, &packets::udp(EDGE, CLOUD, b"knock"), now);
        let (_, _, packet) = self.run().pop().unwrap();
        let port = u16::from_be_bytes([packet[20], packet[21]]);
        SocketAddrV4::new(EDGE_PUBLIC, port)
    }
}

fn delay(ms: u64) -> LinkSettings {
    LinkSettings { delay: Duration::from_millis(ms), ..LinkSettings::default() }
}

#[test]
fn a_datagram_from_behind_a_nat_shows_its_public_address_and_its_answer_comes_back() {
    let mut lab = Lab::new(delay(10));
    let public = lab.knock(at_ms(0));
    lab.internet.handle_packet(lab.cloud, &packets::udp(CLOUD, public, b"answer"), at_ms(100));
    assert_eq!(lab.run(), [(at_ms(120), lab.edge, packets::udp(CLOUD, EDGE, b"answer"))]);
}

#[test]
fn an_edge_behind_nat_is_not_reached_unasked() {
    let mut lab = Lab::new(delay(1));
    let public = lab.knock(at_ms(0));
    let other_port = SocketAddrV4::new(*CLOUD.ip(), 10002);
    for packet in [
        packets::udp(other_port, public, b"not asked"),
        packets::tcp(CLOUD, public, b""),
        packets::echo_request(*CLOUD.ip(), EDGE_PUBLIC, 1),
        packets::unreachable(*CLOUD.ip(), EDGE_PUBLIC, &packets::udp(public, other_port, b"never sent")),
    ] {
        lab.internet.handle_packet(lab.cloud, &packet, at_ms(10));
    }
    assert_eq!(lab.run(), []);
    assert_eq!(
        lab.internet.stats(lab.edge),
        PortStats { sent: 1, forwarded: 1, nat_refused: 4, ..PortStats::default() }
    );
}

#[test]
fn a_ping_and_an_error_find_their_way_back_in() {
    let mut lab = Lab::new(delay(1));
    let public = lab.knock(at_ms(0));
    let quoted = packets::udp(public, CLOUD, b"knock");
    lab.internet.handle_packet(
        lab.cloud,
        &packets::unreachable(*CLOUD.ip(), EDGE_PUBLIC, &quoted),
        at_ms(10),
    );
    let expected = packets::unreachable(*CLOUD.ip(), *EDGE.ip(), &packets::udp(EDGE, CLOUD, b"knock"));
    assert_eq!(lab.run(), [(at_ms(12), lab.edge, expected)]);

    lab.internet.handle_packet(lab.edge, &packets::echo_request(*EDGE.ip(), *CLOUD.ip(), 9), at_ms(20));
    let (_, _, asked) = lab.run().pop().unwrap();
    let id = u16::from_be_bytes([asked[24], asked[25]]);
    lab.internet.handle_packet(lab.cloud, &packets::echo_reply(*CLOUD.ip(), EDGE_PUBLIC, id), at_ms(30));
    let expected = packets::echo_reply(*CLOUD.ip(), *EDGE.ip(), 9);
    assert_eq!(lab.run(), [(at_ms(32), lab.edge, expected)]);
}

#[test]
fn an_error_leaves_under_the_public_address() {
    let mut lab = Lab::new(delay(1));
    let public = lab.knock(at_ms(0));
    let inner = packets::udp(CLOUD, EDGE, b"to a closed port");
    lab.internet.handle_packet(lab.edge, &packets::unreachable(*EDGE.ip(), *CLOUD.ip(), &inner), at_ms(10));
    let outer = packets::udp(CLOUD, public, b"to a closed port");
    let expected = packets::unreachable(EDGE_PUBLIC, *CLOUD.ip(), &outer);
    assert_eq!(lab.run(), [(at_ms(12), lab.cloud, expected)]);
}

#[test]
fn an_error_about_nothing_does_not_leave_and_opens_nothing() {
    let mut lab = Lab::new(delay(1));
    let inner = packets::udp(CLOUD, EDGE, b"never came");
    lab.internet.handle_packet(lab.edge, &packets::unreachable(*EDGE.ip(), *CLOUD.ip(), &inner), at_ms(0));
    assert_eq!(lab.run(), []);
    assert_eq!(lab.internet.stats(lab.edge).nat_refused, 1);
    let mapped = lab.internet.ports[lab.edge.0].nat.as_ref().unwrap().0.mapped();
    assert_eq!(mapped, 0);
}

#[test]
fn private_unknown_and_forged_addresses_and_hairpins_are_routed_nowhere() {
    let mut lab = Lab::new(delay(1));
    let public = lab.knock(at_ms(0));
    let elsewhere = |ip: [u8; 4]| SocketAddrV4::new(ip.into(), 1);
    for packet in [
        packets::udp(EDGE, elsewhere([10, 0, 0, 1]), b"private"),
        packets::udp(EDGE, elsewhere([8, 8, 8, 8]), b"unknown"),
        packets::udp(elsewhere([192, 168, 2, 2]), CLOUD, b"forged"),
        packets::udp(EDGE, public, b"hairpin"),
    ] {
        lab.internet.handle_packet(lab.edge, &packet, at_ms(10));
    }
    lab.internet.handle_packet(
        lab.cloud,
        &packets::udp(elsewhere([8, 8, 8, 8]), CLOUD, b"forged"),
        at_ms(10),
    );
    lab.internet.handle_packet(lab.cloud, b"\x60 is IPv6", at_ms(10));
    assert_eq!(lab.run(), []);
    assert_eq!(
        lab.internet.stats(lab.edge),
        PortStats { sent: 5, forwarded: 1, unroutable: 4, ..PortStats::default() }
    );
    let expected = PortStats {
        sent: 2,
        delivered: 1,
        delivered_bytes: 33,
        unroutable: 1,
        malformed: 1,
        ..PortStats::default()
    };
    assert_eq!(lab.internet.stats(lab.cloud), expected);
}

#[test]
fn insiders_of_a_nat_that_hairpins_reach_each_other_by_their_public_endpoints() {
    let mut lab = Lab::new(delay(10));
    lab.internet.set_hairpin(lab.edge, true);
    let neighbour = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 3), 6000);
    let public = lab.knock(at_ms(0));
    lab.internet.handle_packet(lab.edge, &packets::udp(neighbour, public, b"filtered"), at_ms(100));
    assert_eq!((lab.run(), lab.internet.stats(lab.edge).nat_refused), (vec![], 1), "port-restricted");

    // Both have learned the other's public endpoint from the cloud. What was filtered has opened the neighbour's own side.
    lab.internet.handle_packet(lab.edge, &packets::udp(neighbour, CLOUD, b"knock"), at_ms(200));
    let (_, _, knock) = lab.run().pop().unwrap();
    let neighbours = SocketAddrV4::new(EDGE_PUBLIC, u16::from_be_bytes([knock[20], knock[21]]));
    lab.internet.handle_packet(lab.edge, &packets::udp(EDGE, neighbours, b"opens"), at_ms(300));
    lab.internet.handle_packet(lab.edge, &packets::udp(neighbour, public, b"passes"), at_ms(300));
    let mut arrived = || lab.internet.poll_delivery(at_ms(300)).unwrap().packet;
    assert_eq!(arrived(), packets::udp(public, neighbour, b"opens"), "no line was used");
    assert_eq!(arrived(), packets::udp(neighbours, EDGE, b"passes"));
    lab.internet.set_hairpin(lab.edge, false);
    lab.internet.handle_packet(lab.edge, &packets::udp(neighbour, public, b"lost"), at_ms(400));
    assert_eq!(lab.run(), []);
}

#[test]
fn a_cut_line_carries_nothing_loses_what_was_on_it_and_works_again_when_mended() {
    let mut lab = Lab::new(delay(10));
    let hello = packets::udp(EDGE, CLOUD, b"hello");
    lab.internet.handle_packet(lab.edge, &hello, at_ms(0));
    lab.internet.cut(lab.edge, true, at_ms(5));
    lab.internet.handle_packet(lab.edge, &hello, at_ms(6));
    assert_eq!(lab.run(), []);
    let PortStats { cut, cut_bytes, .. } = lab.internet.stats(lab.edge);
    assert_eq!((cut, cut_bytes, lab.internet.in_flight), (2, 2 * hello.len() as u64, 0));
    lab.internet.cut(lab.edge, false, at_ms(50));
    lab.internet.handle_packet(lab.edge, &hello, at_ms(50));
    assert_eq!(lab.run().len(), 1);
}

#[test]
fn a_flood_is_carried_at_the_slower_lines_rate() {
    let slow = LinkSettings { up: Some(Rate::mbit(3)), queue: 15_000, ..LinkSettings::default() };
    let mut internet = Internet::new(1);
    let cloud = internet.attach(cloud(LinkSettings::default())).unwrap();
    let edge = internet.attach(edge(NatKind::FullCone, slow)).unwrap();
    let packet = packets::udp(EDGE, CLOUD, &[0; 1472]);
    for ms in 0..5000 {
        internet.handle_packet(edge, &packet, at_ms(ms));
        while internet.poll_delivery(at_ms(ms)).is_some() {}
    }
    let carried = internet.stats(cloud).delivered_bytes;
    assert!((1_870_000..=1_880_000).contains(&carried), "{carried} bytes in 5 s at 375,000 bytes/s");
    let stats = internet.stats(edge);
    assert_eq!(stats.sent, 5000);
    assert_eq!(stats.queue_full, 5000 - stats.forwarded - 10, "ten packets still wait");
}

#[test]
fn what_waits_goes_on_at_the_new_rate_and_behind_what_travels() {
    // 1500 bytes at 150,000 bytes/s: 10 ms each.
    let slow = LinkSettings {
        up: Some(Rate::kbit(1200)),
        delay: Duration::from_millis(5),
        ..LinkSettings::default()
    };
    let mut lab = Lab::new(LinkSettings::default());
    let neighbour = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 20), 1);
    let other = lab.internet.attach(Attachment { public: *neighbour.ip(), ..cloud(slow) }).unwrap();
    lab.internet.set_link(lab.edge, slow, at_ms(0));
    for (port, from, count) in [(lab.edge, EDGE, 4), (other, neighbour, 2)] {
        for _ in 0..count {
            lab.internet.handle_packet(port, &packets::udp(from, CLOUD, &[0; 1472]), at_ms(0));
        }
    }
    // The edge's first is on its way; of the second, half is sent and sent again. The neighbour's keep their time.
    let fast = LinkSettings { up: Some(Rate::mbit(12)), delay: Duration::ZERO, ..slow };
    lab.internet.set_link(lab.edge, fast, at_ms(14));
    let arrivals: Vec<Mono> = lab.run().into_iter().map(|(at, ..)| at).collect();
    assert_eq!(arrivals, [15, 15, 15, 16, 17, 25].map(at_ms));
    assert_eq!(lab.internet.in_flight, 0);
}

#[test]
fn a_black_hole_takes_what_is_long_and_a_firewall_all_of_udp() {
    let narrow = LinkSettings { longest: 1228, ..delay(1) };
    let walled = LinkSettings { no_udp: true, ..delay(1) };
    for (link, passing) in [(narrow, 1), (walled, 0)] {
        let mut lab = Lab::new(link);
        for len in [1200, 1201] {
            lab.internet.handle_packet(lab.edge, &packets::udp(EDGE, CLOUD, &vec![0; len]), at_ms(0));
        }
        assert_eq!(
            (lab.run().len(), lab.internet.stats(lab.edge).lost),
            (passing, 2 - passing as u64),
            "{link:?}"
        );
    }
}

#[test]
fn what_follows_a_change_does_not_wait_for_what_is_held_up() {
    let held_up = LinkSettings {
        delay: Duration::from_millis(5),
        reorder_ppm: 1_000_000,
        reorder_delay: Duration::from_millis(50),
        ..LinkSettings::default()
    };
    let mut lab = Lab::new(LinkSettings::default());
    lab.internet.set_link(lab.edge, held_up, at_ms(0));
    lab.internet.handle_packet(lab.edge, &packets::udp(EDGE, CLOUD, b"first"), at_ms(0));
    lab.internet.set_link(lab.edge, delay(5), at_ms(1));
    lab.internet.handle_packet(lab.edge, &packets::udp(EDGE, CLOUD, b"second"), at_ms(1));
    let arrived: Vec<_> = lab.run().into_iter().map(|(at, _, packet)| (at, packet[28..].to_vec())).collect();
    assert_eq!(arrived, [(at_ms(6), b"second".to_vec()), (at_ms(55), b"first".to_vec())]);
}

#[test]
fn what_travels_is_bounded() {
    let mut lab = Lab::new(delay(1000));
    let packet = packets::udp(CLOUD, EDGE, &[0; 60_000]);
    for _ in 0..2 * MAX_IN_FLIGHT / packet.len() {
        lab.internet.handle_packet(lab.cloud, &packet, at_ms(0));
    }
    assert!(lab.internet.in_flight <= MAX_IN_FLIGHT);
    let taken = (MAX_IN_FLIGHT / packet.len()) as u64;
    assert_eq!(
        lab.internet.stats(lab.cloud).queue_full,
        2 * MAX_IN_FLIGHT as u64 / packet.len() as u64 - taken
    );
    lab.run();
    assert_eq!(lab.internet.in_flight, 0);
}

#[test]
fn an_address_is_given_once_and_only_if_it_is_public() {
    let mut lab = Lab::new(LinkSettings::default());
    let taken = AttachError::AddressTaken { public: *CLOUD.ip(), holder: "cloud".into() };
    assert_eq!(lab.internet.attach(cloud(LinkSettings::default())), Err(taken));
    let private = Attachment { public: *EDGE.ip(), ..cloud(LinkSettings::default()) };
    assert_eq!(lab.internet.attach(private), Err(AttachError::NotPublic(*EDGE.ip())));
}

fn any_link() -> impl Strategy<Value = LinkSettings> {
    (0u64..5, 0u64..20, 0u64..20, 0u32..300_000).prop_map(|(mbit, delay, jitter, loss_ppm)| LinkSettings {
        up: (mbit > 0).then(|| Rate::mbit(mbit as u32)),
        down: (mbit > 1).then(|| Rate::mbit(mbit as u32)),
        delay: Duration::from_millis(delay),
        jitter: Duration::from_millis(jitter),
        loss_ppm,
        reorder_ppm: loss_ppm,
        reorder_delay: Duration::from_millis(jitter),
        queue: 10_000,
        ..LinkSettings::default()
    })
}

proptest! {
    #[test]
    fn the_same_seed_gives_the_same_deliveries_however_seldom_it_is_polled(
        seed in any::<u64>(), link in any_link(), sends in prop::collection::vec((0u64..10, 0usize..1400), 1..60)
    ) {
        let run = |is_lazy: bool| {
            let mut internet = Internet::new(seed);
            internet.attach(cloud(link)).unwrap();
            let edge = internet.attach(edge(NatKind::Symmetric, link)).unwrap();
            let mut now = Mono::ZERO;
            let mut seen = Vec::new();
            for (wait, len) in &sends {
                now = now + Duration::from_millis(*wait);
                internet.handle_packet(edge, &packets::udp(EDGE, CLOUD, &vec![7; *len]), now);
                while !is_lazy && let Some(delivery) = internet.poll_delivery(now) {
                    seen.push(delivery);
                }
            }
            while let Some(delivery) = internet.poll_delivery(Mono(u64::MAX)) {
                seen.push(delivery);
            }
            (seen, internet.stats(edge), internet.in_flight)
        };
        let eager = run(false);
        prop_assert_eq!(&eager, &run(true));
        prop_assert_eq!(eager.2, 0);
        let stats = eager.1;
        prop_assert_eq!(stats.sent, stats.forwarded + stats.queue_full + stats.lost);
    }
}
