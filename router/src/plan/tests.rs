use super::*;
use bus::{Name, SubnetKind};

fn node(name: &str) -> NodeId {
    NodeId::edge(Name::new(name).unwrap())
}

fn route(prefix: &str, owner: &str) -> Route {
    Route {
        prefix: prefix.parse().unwrap(),
        owner: node(owner),
        kind: SubnetKind::Lan,
        real: None,
        peer: None,
    }
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

fn planned(routes: &[Route]) -> Vec<String> {
    Plan::new(&lease(), &node("me"), routes)
        .routes
        .into_iter()
        .map(|PlannedRoute { prefix, source }| format!("{prefix} from {source}"))
        .collect()
}

const POOLS: [&str; 2] = ["10.86.0.0/16 from 10.86.0.2", "fd00::/48 from fd00::2"];

#[test]
fn a_lease_alone_gives_its_addresses_and_the_pool() {
    let plan = Plan::new(&lease(), &node("me"), &[]);
    let addresses: [IpNet; 2] = ["10.86.0.2/32".parse().unwrap(), "fd00::2/128".parse().unwrap()];
    assert_eq!(plan.addresses, addresses.into());
    assert_eq!(planned(&[]), POOLS);
}

#[test]
fn remote_prefixes_are_routed_and_own_ones_are_not() {
    let routes = [
        route("192.168.1.0/24", "me"),
        route("192.168.2.0/24", "b"),
        route("2001:db8::/64", "b"),
        route("10.86.129.0/24", "b"),
    ];
    let want = [POOLS[0], "192.168.2.0/24 from 10.86.0.2", "2001:db8::/64 from fd00::2", POOLS[1]];
    assert_eq!(planned(&routes), want);
}

#[test]
fn what_the_pool_covers_needs_no_route_of_its_own() {
    assert_eq!(planned(&[route("10.86.0.3/32", "b"), route("fd00:0:0:7::/64", "b")]), POOLS);
    let nested = [route("172.16.0.0/12", "b"), route("172.16.5.0/24", "c"), route("172.16.5.7/32", "b")];
    assert_eq!(planned(&nested), [POOLS[0], "172.16.0.0/12 from 10.86.0.2", POOLS[1]]);
}

#[test]
fn a_remote_part_of_an_own_prefix_is_routed() {
    let routes = [route("192.168.0.0/16", "me"), route("192.168.7.0/24", "b"), route("192.168.7.9/32", "me")];
    assert_eq!(planned(&routes), [POOLS[0], "192.168.7.0/24 from 10.86.0.2", POOLS[1]]);
}

#[test]
fn a_default_route_is_left_out_and_covers_nothing() {
    let routes = [route("0.0.0.0/0", "b"), route("::/0", "b"), route("192.168.7.0/24", "b")];
    assert_eq!(planned(&routes), [POOLS[0], "192.168.7.0/24 from 10.86.0.2", POOLS[1]]);
}

#[test]
fn without_ipv6_only_ipv4_is_planned() {
    let plan = Plan::new(&lease(), &node("me"), &[route("2001:db8::/64", "b")]).without_ipv6();
    let want = Plan {
        addresses: ["10.86.0.2/32".parse().unwrap()].into(),
        routes: [PlannedRoute {
            prefix: "10.86.0.0/16".parse().unwrap(),
            source: "10.86.0.2".parse().unwrap(),
        }]
        .into(),
    };
    assert_eq!(plan, want);
}
