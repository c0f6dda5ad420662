//! Who gets through, when, and that no two insiders ever share a public endpoint.

use super::*;
use proptest::prelude::*;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const INSIDE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 2), 5000);
const FRIEND: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 10001);
const FRIENDS_OTHER_PORT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 10002);
const STRANGER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 66), 10001);
const KINDS: [NatKind; 4] =
    [NatKind::FullCone, NatKind::RestrictedCone, NatKind::PortRestricted, NatKind::Symmetric];

fn at(seconds: u64) -> Mono {
    Mono::ZERO + Duration::from_secs(seconds)
}

fn flow(protocol: Protocol, source: SocketAddrV4, destination: SocketAddrV4) -> Flow {
    Flow { protocol, source, destination }
}

fn udp(source: SocketAddrV4, destination: SocketAddrV4) -> Flow {
    flow(Protocol::Udp, source, destination)
}

#[test]
fn each_kind_lets_through_whom_its_filtering_allows() {
    let table = [
        // kind, friend, the friend's other port, stranger
        (NatKind::FullCone, true, true, true),
        (NatKind::RestrictedCone, true, true, false),
        (NatKind::PortRestricted, true, false, false),
        (NatKind::Symmetric, true, false, false),
    ];
    for (kind, friend, other_port, stranger) in table {
        let mut nat = Nat::new(kind, PUBLIC, 1);
        let public = nat.outbound(udp(INSIDE, FRIEND), at(0)).unwrap();
        for (from, passes) in [(FRIEND, friend), (FRIENDS_OTHER_PORT, other_port), (STRANGER, stranger)] {
            let expected = if passes { Ok(INSIDE) } else { Err(Refusal::Filtered) };
            assert_eq!(nat.inbound(udp(from, public), at(1)), expected, "{kind:?} {from}");
        }
    }
}

#[test]
fn nothing_unasked_for_gets_in_whatever_the_kind() {
    for kind in KINDS {
        let mut nat = Nat::new(kind, PUBLIC, 1);
        nat.outbound(udp(INSIDE, FRIEND), at(0)).unwrap();
        let tcp = flow(Protocol::Tcp, FRIEND, SocketAddrV4::new(PUBLIC, 22));
        assert_eq!(nat.inbound(tcp, at(0)), Err(Refusal::NoMapping));
        let own_port = udp(FRIEND, SocketAddrV4::new(PUBLIC, INSIDE.port()));
        assert_eq!(nat.inbound(own_port, at(0)), Err(Refusal::NoMapping), "{kind:?}");
        let other_address = udp(FRIEND, SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 8), 2000));
        assert_eq!(nat.inbound(other_address, at(0)), Err(Refusal::NoMapping));
    }
}

#[test]
fn only_a_symmetric_nat_shows_each_remote_another_port() {
    for kind in KINDS {
        let mut nat = Nat::new(kind, PUBLIC, 1);
        let first = nat.outbound(udp(INSIDE, FRIEND), at(0)).unwrap();
        let second = nat.outbound(udp(INSIDE, STRANGER), at(0)).unwrap();
        assert_eq!(first == second, kind != NatKind::Symmetric, "{kind:?}");
        assert_ne!(first.port(), INSIDE.port(), "{kind:?} preserves no port");
    }
}

#[test]
fn two_port_restricted_nats_are_punched_through_and_two_symmetric_ones_are_not() {
    let other_inside = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 5), 5000);
    for (kind, passes) in [(NatKind::PortRestricted, true), (NatKind::Symmetric, false)] {
        let mut left = Nat::new(kind, PUBLIC, 1);
        let mut right = Nat::new(kind, Ipv4Addr::new(198, 51, 100, 8), 2);
        // Both learn their public endpoint from the friend, then send to the other's.
        let seen_left = left.outbound(udp(INSIDE, FRIEND), at(0)).unwrap();
        let seen_right = right.outbound(udp(other_inside, FRIEND), at(0)).unwrap();
        let from_left = left.outbound(udp(INSIDE, seen_right), at(1)).unwrap();
        right.outbound(udp(other_inside, seen_left), at(1)).unwrap();
        let got = right.inbound(udp(from_left, seen_right), at(1));
        assert_eq!(got.is_ok(), passes, "{kind:?}: {got:?}");
    }
}

#[test]
fn a_mapping_ends_with_its_protocols_timeout_and_comes_back_on_another_port() {
    for (protocol, seconds) in [(Protocol::Udp, 30), (Protocol::Tcp, 7440), (Protocol::Echo, 60)] {
        let mut nat = Nat::new(NatKind::PortRestricted, PUBLIC, 1);
        let out = flow(protocol, INSIDE, FRIEND);
        let public = nat.outbound(out, at(0)).unwrap();
        let back = flow(protocol, FRIEND, public);
        assert_eq!(nat.inbound(back, at(seconds - 1)), Ok(INSIDE));
        assert_eq!(nat.inbound(back, at(seconds)), Err(Refusal::NoMapping));
        assert_ne!(nat.outbound(out, at(seconds)), Ok(public), "{protocol:?}");
        assert_eq!(nat.mapped(), 1);
    }
}

#[test]
fn what_goes_out_keeps_a_mapping_and_what_comes_in_does_not() {
    let mut nat = Nat::new(NatKind::PortRestricted, PUBLIC, 1);
    let public = nat.outbound(udp(INSIDE, FRIEND), at(0)).unwrap();
    assert_eq!(nat.outbound(udp(INSIDE, FRIEND), at(25)), Ok(public));
    assert_eq!(nat.inbound(udp(FRIEND, public), at(50)), Ok(INSIDE));
    assert_eq!(nat.inbound(udp(FRIEND, public), at(55)), Err(Refusal::NoMapping));
}

#[test]
fn a_remote_that_was_long_not_spoken_to_is_filtered_while_the_mapping_lives() {
    let mut nat = Nat::new(NatKind::PortRestricted, PUBLIC, 1);
    let public = nat.outbound(udp(INSIDE, FRIEND), at(0)).unwrap();
    nat.outbound(udp(INSIDE, STRANGER), at(20)).unwrap();
    assert_eq!(nat.inbound(udp(FRIEND, public), at(31)), Err(Refusal::Filtered));
    assert_eq!(nat.inbound(udp(STRANGER, public), at(31)), Ok(INSIDE));
}

#[test]
fn ports_run_out_and_return_when_mappings_end() {
    let mut nat = Nat::with_ports(NatKind::FullCone, PUBLIC, 4000..=4003, 1);
    let inside = |port| udp(SocketAddrV4::new(*INSIDE.ip(), port), FRIEND);
    let mut ports: Vec<u16> = (1..=4).map(|p| nat.outbound(inside(p), at(0)).unwrap().port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [4000, 4001, 4002, 4003]);
    assert_eq!(nat.outbound(inside(5), at(1)), Err(Refusal::PortsExhausted));
    assert!(nat.outbound(flow(Protocol::Tcp, INSIDE, FRIEND), at(1)).is_ok(), "each protocol has its own");
    assert!(nat.outbound(inside(5), at(30)).is_ok());
}

#[test]
fn the_flow_table_is_bounded() {
    let mut nat = Nat::new(NatKind::FullCone, PUBLIC, 1);
    let remote = |n: usize| {
        let [a, b, c, d] = (n as u32).to_be_bytes();
        SocketAddrV4::new(Ipv4Addr::new(a.max(1), b, c, d), 1)
    };
    for n in 0..MAX_FLOWS {
        nat.outbound(udp(INSIDE, remote(n)), at(0)).unwrap();
    }
    assert_eq!(nat.outbound(udp(INSIDE, remote(MAX_FLOWS)), at(1)), Err(Refusal::FlowsFull));
    assert!(nat.outbound(udp(INSIDE, remote(0)), at(1)).is_ok(), "a known flow still passes");
    assert!(nat.outbound(udp(INSIDE, remote(MAX_FLOWS)), at(30)).is_ok());
}

#[test]
fn an_outgoing_error_finds_the_mapping_and_makes_none() {
    let mut nat = Nat::new(NatKind::Symmetric, PUBLIC, 1);
    assert_eq!(nat.existing(udp(INSIDE, FRIEND), at(0)), None);
    let public = nat.outbound(udp(INSIDE, FRIEND), at(0)).unwrap();
    assert_eq!(nat.existing(udp(INSIDE, FRIEND), at(1)), Some(public));
    assert_eq!(nat.existing(udp(INSIDE, FRIEND), at(30)), None);
}

fn any_kind() -> impl Strategy<Value = NatKind> {
    prop::sample::select(KINDS.to_vec())
}

proptest! {
    #[test]
    fn no_two_live_insiders_share_a_public_endpoint(
        kind in any_kind(), seed in any::<u64>(),
        sends in prop::collection::vec((0u16..12, 0u16..4, 0u64..20), 1..80)
    ) {
        let mut nat = Nat::with_ports(kind, PUBLIC, 4000..=4015, seed);
        let mut now = 0;
        let mut last: BTreeMap<u16, (u16, u64)> = BTreeMap::new(); // public port: inside port, when
        for (inside, remote, wait) in sends {
            now += wait;
            let out = udp(SocketAddrV4::new(*INSIDE.ip(), inside), SocketAddrV4::new(*FRIEND.ip(), remote));
            let Ok(public) = nat.outbound(out, at(now)) else { continue };
            if let Some((holder, sent)) = last.insert(public.port(), (inside, now)) {
                prop_assert!(holder == inside || now - sent >= 30, "{} taken from {holder}", public.port());
            }
            prop_assert_eq!(nat.inbound(udp(out.destination, public), at(now)).map(|to| to.port()), Ok(inside));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_ports(kind in any_kind(), seed in any::<u64>(), ports in prop::collection::vec(any::<u16>(), 1..30)) {
        let run = || {
            let mut nat = Nat::new(kind, PUBLIC, seed);
            ports.iter().map(|p| nat.outbound(udp(SocketAddrV4::new(*INSIDE.ip(), *p), FRIEND), at(0))).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(), run());
    }
}
