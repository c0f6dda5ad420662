use super::*;
use crate::packet::tests::packet;
use bus::{Name, SubnetKind};
use proptest::prelude::*;

fn edge(name: &str) -> NodeId {
    NodeId::edge(Name::new(name).unwrap())
}

fn hub() -> NodeId {
    NodeId::cloud(Name::new("hub").unwrap())
}

fn route(prefix: &str, owner: NodeId) -> Route {
    Route { prefix: prefix.parse().unwrap(), owner, kind: SubnetKind::Lan, real: None, peer: None }
}

/// Two edges with overlapping claims: `a` has a wide LAN, and `b` a part of it.
fn routes() -> Vec<Route> {
    vec![
        route("10.86.0.1/32", hub()),
        route("10.86.0.2/32", edge("a")),
        route("10.86.0.3/32", edge("b")),
        route("192.168.0.0/16", edge("a")),
        route("192.168.7.0/24", edge("b")),
        route("fd00::1/128", hub()),
        route("fd00::2/128", edge("a")),
        route("fd00::3/128", edge("b")),
    ]
}

fn at_hub() -> Table {
    Table::new(hub(), routes(), None)
}

fn at_edge_a() -> Table {
    Table::new(edge("a"), routes(), Some(hub()))
}

use DropReason::*;
use Verdict::{Drop, Local, Peer};

#[test]
fn the_hub_believes_a_source_only_from_its_longest_prefix_owner() {
    let (table, a, b) = (at_hub(), edge("a"), edge("b"));
    for (from, source, destination, want) in [
        (&a, "10.86.0.2", "10.86.0.3", Peer(&b)),
        (&a, "192.168.1.9", "10.86.0.3", Peer(&b)),
        (&b, "192.168.7.9", "10.86.0.2", Peer(&a)),
        (&a, "10.86.0.2", "10.86.0.1", Local),
        (&a, "fd00::2", "fd00::3", Peer(&b)),
        // Inside a's wide range, but b's.
        (&a, "192.168.7.9", "10.86.0.3", Drop(SpoofedSource)),
        (&b, "192.168.1.9", "10.86.0.2", Drop(SpoofedSource)),
        (&a, "10.86.0.3", "10.86.0.1", Drop(SpoofedSource)),
        (&a, "10.86.0.1", "10.86.0.3", Drop(SpoofedSource)),
        (&a, "fd00::3", "fd00::1", Drop(SpoofedSource)),
        (&a, "8.8.8.8", "10.86.0.3", Drop(UnknownSource)),
        (&a, "10.86.0.2", "10.86.0.99", Drop(NoRoute)),
        (&a, "10.86.0.2", "192.168.1.1", Drop(Loop)),
    ] {
        assert_eq!(
            table.accept(from, &packet(source, destination)),
            want,
            "{from}: {source} > {destination}"
        );
    }
}

#[test]
fn an_edge_takes_from_its_hub_every_source_but_its_own() {
    let (table, hub, b) = (at_edge_a(), hub(), edge("b"));
    for (from, source, destination, want) in [
        (&hub, "10.86.0.3", "10.86.0.2", Local),
        (&hub, "10.86.0.1", "192.168.1.9", Local),
        (&hub, "fd00::3", "fd00::2", Local),
        (&hub, "10.86.0.2", "192.168.1.9", Drop(SpoofedSource)),
        (&hub, "192.168.1.9", "10.86.0.2", Drop(SpoofedSource)),
        (&hub, "10.86.0.99", "10.86.0.2", Drop(UnknownSource)),
        // No transit: 192.168.7.0/24 is b's.
        (&hub, "10.86.0.1", "192.168.7.9", Drop(NotOurs)),
        (&hub, "10.86.0.1", "10.86.0.99", Drop(NoRoute)),
        // From another edge directly: only what is its own.
        (&b, "10.86.0.3", "10.86.0.2", Local),
        (&b, "10.86.0.1", "10.86.0.2", Drop(SpoofedSource)),
        (&b, "10.86.0.3", "10.86.0.1", Drop(NotOurs)),
    ] {
        assert_eq!(
            table.accept(from, &packet(source, destination)),
            want,
            "{from}: {source} > {destination}"
        );
    }
}

#[test]
fn what_leaves_an_edge_is_its_own_and_goes_to_the_hub() {
    let (table, hub) = (at_edge_a(), hub());
    for (source, destination, want) in [
        ("10.86.0.2", "10.86.0.1", Peer(&hub)),
        ("10.86.0.2", "10.86.0.3", Peer(&hub)),
        ("192.168.1.9", "192.168.7.9", Peer(&hub)),
        ("fd00::2", "fd00::3", Peer(&hub)),
        ("10.86.0.3", "10.86.0.1", Drop(SpoofedSource)),
        ("172.17.0.2", "10.86.0.1", Drop(UnknownSource)),
        ("10.86.0.2", "1.1.1.1", Drop(NoRoute)),
        ("10.86.0.2", "192.168.1.1", Drop(Loop)),
    ] {
        assert_eq!(table.forward(&packet(source, destination)), want, "{source} > {destination}");
    }
}

#[test]
fn what_leaves_the_hub_goes_to_the_owner() {
    let (table, a, b) = (at_hub(), edge("a"), edge("b"));
    assert_eq!(table.forward(&packet("10.86.0.1", "192.168.1.1")), Peer(&a));
    assert_eq!(table.forward(&packet("10.86.0.1", "192.168.7.1")), Peer(&b));
    assert_eq!(table.forward(&packet("10.86.0.1", "10.86.0.1")), Drop(Loop));
}

#[test]
fn addresses_that_must_not_travel_are_dropped_both_ways() {
    for (source, destination, why) in [
        ("10.86.0.2", "224.0.0.251", Multicast),
        ("::", "ff02::16", Multicast),
        ("169.254.1.1", "10.86.0.1", LinkLocal),
        ("10.86.0.2", "169.254.169.254", LinkLocal),
        ("fe80::1", "fd00::1", LinkLocal),
        ("10.86.0.2", "255.255.255.255", Martian),
        ("10.86.0.2", "127.0.0.1", Martian),
        ("0.0.0.0", "10.86.0.1", Martian),
        ("240.0.0.1", "10.86.0.1", Martian),
        ("224.0.0.1", "10.86.0.1", Martian),
        ("::1", "fd00::1", Martian),
        ("fd00::2", "::", Martian),
        ("fd00::2", "::ffff:10.86.0.1", Martian),
    ] {
        // Even where somebody put a route for it.
        let all = [route("0.0.0.0/0", edge("a")), route("::/0", edge("a"))];
        let table = Table::new(hub(), routes().into_iter().chain(all), None);
        let bytes = packet(source, destination);
        assert_eq!(table.accept(&edge("a"), &bytes), Drop(why), "{source} > {destination}");
        assert_eq!(table.forward(&bytes), Drop(why), "{source} > {destination}");
    }
    assert_eq!(at_hub().accept(&edge("a"), b"\x45"), Drop(Malformed));
}

fn lease() -> Lease {
    Lease {
        v4: "10.86.0.2".parse().unwrap(),
        v6: "fd00::2".parse().unwrap(),
        container_v4: "10.86.129.0/24".parse().unwrap(),
        container_v6: "fd00:0:0:1::/64".parse().unwrap(),
        pool_v4: "10.86.0.0/16".parse().unwrap(),
        pool_v6: "fd00::/48".parse().unwrap(),
    }
}

#[test]
fn a_lease_alone_lets_an_edge_talk_to_its_hub() {
    let (hub, a) = (hub(), edge("a"));
    let table =
        Table::new(a.clone(), [route("10.86.0.2/32", edge("b"))], Some(hub.clone())).with_lease(&lease());
    assert_eq!(table.lookup("10.86.0.2".parse().unwrap()), Some(&a));
    assert_eq!(table.forward(&packet("10.86.0.2", "10.86.0.77")), Peer(&hub));
    assert_eq!(table.forward(&packet("10.86.129.5", "10.86.0.77")), Peer(&hub));
    assert_eq!(table.accept(&hub, &packet("fd00::77", "fd00:0:0:1::5")), Local);
    assert_eq!(table.accept(&hub, &packet("10.86.129.5", "10.86.0.2")), Drop(SpoofedSource));
}

#[test]
fn the_unassigned_pool_goes_nowhere_at_the_hub() {
    let table = at_hub().with_lease(&Lease { v4: "10.86.0.1".parse().unwrap(), ..lease() });
    assert_eq!(table.accept(&edge("a"), &packet("10.86.0.2", "10.86.0.77")), Drop(NoRoute));
    assert_eq!(table.accept(&edge("a"), &packet("10.86.0.77", "10.86.0.1")), Drop(UnknownSource));
}

#[test]
fn host_bits_are_ignored_and_the_later_route_counts() {
    let table = Table::new(hub(), [route("10.1.0.0/16", edge("a")), route("10.1.2.3/16", edge("b"))], None);
    assert_eq!(table.lookup("10.1.9.9".parse().unwrap()), Some(&edge("b")));
}

#[test]
fn only_what_lies_behind_us_is_translated() {
    let virtual_ = |owner: NodeId, prefix: &str| Route {
        real: Some("192.168.1.0/24".parse().unwrap()),
        peer: None,
        ..route(prefix, owner)
    };
    let routes = [virtual_(edge("a"), "10.86.64.0/24"), virtual_(edge("b"), "10.86.65.0/24")];
    let real = "192.168.1.20".parse().unwrap();
    for (me, known_as) in [("a", Some("10.86.64.20")), ("b", Some("10.86.65.20")), ("c", None)] {
        let table = Table::new(edge(me), routes.clone(), Some(hub()));
        let known_as = known_as.map(|address| address.parse::<IpAddr>().unwrap());
        assert_eq!(table.translator().virtual_of(real), known_as);
        assert_eq!(table.lookup(real), None);
    }
}

#[test]
fn virtual_prefixes_that_make_no_translation_are_not_translated() {
    let odd = Route { real: Some("192.168.0.0/16".parse().unwrap()), ..route("10.86.64.0/24", edge("a")) };
    assert!(Table::new(edge("a"), [odd], Some(hub())).translator().is_empty());
}

/// Few different bits, so that prefixes nest and addresses hit.
fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[bool; 4]>().prop_map(|bits| {
            let octet = |i: usize| u8::from(bits[i]) * 0b1010_0001;
            Ipv4Addr::new(octet(0), octet(1), octet(2), octet(3)).into()
        }),
        any::<[bool; 4]>().prop_map(|bits| {
            let part = |i: usize| u16::from(bits[i]) * 0b1010_0000_0000_0001;
            Ipv6Addr::new(part(0), 0, part(1), 0, 0, part(2), 0, part(3)).into()
        }),
    ]
}

fn any_route() -> impl Strategy<Value = Route> {
    (any_address(), 0..=128u8, "[a-e]").prop_map(|(address, length, owner)| Route {
        prefix: IpNet::new(address, length.min(IpNet::from(address).max_prefix_len())).unwrap(),
        owner: edge(&owner),
        kind: SubnetKind::Lan,
        real: None,
        peer: None,
    })
}

fn linear_lookup(routes: &[Route], address: IpAddr) -> Option<&NodeId> {
    let holding = routes.iter().filter(|route| route.prefix.contains(&address));
    holding.max_by_key(|route| route.prefix.prefix_len()).map(|route| &route.owner)
}

proptest! {
    #[test]
    fn lookup_agrees_with_a_linear_search(
        routes in proptest::collection::vec(any_route(), 0..40),
        addresses in proptest::collection::vec(any_address(), 1..20),
    ) {
        let table = Table::new(hub(), routes.clone(), None);
        for address in addresses {
            prop_assert_eq!(table.lookup(address), linear_lookup(&routes, address), "{}", address);
        }
    }

    #[test]
    fn whatever_the_hub_accepts_was_sent_by_the_owner_of_its_source(
        routes in proptest::collection::vec(any_route(), 0..40),
        addresses in (any_address(), any_address()),
        from in "[a-e]",
    ) {
        let (source, destination) = addresses;
        prop_assume!(source.is_ipv4() == destination.is_ipv4());
        let table = Table::new(hub(), routes.clone(), None);
        let bytes = packet(&source.to_string(), &destination.to_string());
        if let Peer(next) = table.accept(&edge(&from), &bytes) {
            prop_assert_eq!(linear_lookup(&routes, source), Some(&edge(&from)));
            prop_assert_eq!(linear_lookup(&routes, destination), Some(next));
            prop_assert_ne!(next, &edge(&from));
        }
    }

    #[test]
    fn no_bytes_make_a_verdict_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        at_hub().forward(&bytes);
        at_edge_a().accept(&hub(), &bytes);
    }
}
