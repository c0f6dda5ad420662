use super::*;
use crate::packet::{ICMP, Ports, TCP, UDP};
use bus::{PortRange, Protocol, Selector, SubnetKind};
use proptest::prelude::*;
use std::net::IpAddr;

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn route(prefix: &str, owner: NodeId, kind: SubnetKind) -> Route {
    Route { prefix: prefix.parse().unwrap(), owner, kind, real: None, peer: None }
}

/// The cloud `hq` with a VM's network; at `plant` the edges `scada` and `pumps`, the latter with a LAN; at `depot` one.
pub(super) fn routes() -> Vec<Route> {
    use SubnetKind::{CloudVm, EdgeNode, Lan};
    let edge = |text| NodeId::edge(name(text));
    vec![
        route("10.86.0.1/32", NodeId::cloud(name("hq")), CloudVm),
        route("10.9.0.0/24", NodeId::cloud(name("hq")), CloudVm),
        route("10.86.0.2/32", edge("scada"), EdgeNode),
        route("10.86.0.3/32", edge("pumps"), EdgeNode),
        route("192.168.10.0/24", edge("pumps"), Lan),
        route("10.86.0.4/32", edge("depot"), EdgeNode),
        route("fd00::3/128", edge("pumps"), EdgeNode),
        route("fd00::4/128", edge("depot"), EdgeNode),
    ]
}

pub(super) fn sites() -> Sites {
    let site = |id: NodeId, site: &str| (id, name(site));
    [
        site(NodeId::cloud(name("hq")), "hq"),
        site(NodeId::edge(name("scada")), "plant"),
        site(NodeId::edge(name("pumps")), "plant"),
        site(NodeId::edge(name("depot")), "depot"),
    ]
    .into()
}

pub(super) fn site(text: &str) -> Selector {
    Selector { site: Some(name(text)), ..Selector::default() }
}

pub(super) fn rule(text: &str, from: Selector, to: Selector, ports: &[PortRange]) -> AccessRule {
    AccessRule { name: text.into(), from: vec![from], to: vec![to], ports: ports.to_vec() }
}

pub(super) const MODBUS: PortRange = PortRange { protocol: Protocol::Tcp, ports: Some((502, 502)) };
pub(super) const PING: PortRange = PortRange { protocol: Protocol::Icmp, ports: None };

pub(super) fn policy(rules: &[AccessRule]) -> Policy {
    Policy::for_hub(&routes(), &sites(), rules)
}

pub(super) fn flow(source: &str, destination: &str, protocol: u8, ports: Ports) -> Flow {
    Flow { source: source.parse().unwrap(), destination: destination.parse().unwrap(), protocol, ports }
}

fn to_port(destination: u16) -> Ports {
    Ports::Pair { source: 40_000, destination }
}

#[test]
fn one_site_is_open_and_two_are_closed_to_each_other() {
    let policy = policy(&[]);
    for (from, to, want) in [
        ("10.86.0.2", "10.86.0.3", Decision::SameSite),
        ("10.86.0.2", "192.168.10.7", Decision::SameSite),
        ("10.86.0.1", "10.9.0.5", Decision::SameSite),
        ("10.86.0.2", "10.86.0.4", Decision::Deny),
        ("10.86.0.1", "10.86.0.4", Decision::Deny),
        ("10.86.0.4", "10.9.0.5", Decision::Deny),
        ("fd00::3", "fd00::4", Decision::Deny),
        ("10.86.0.99", "10.86.0.99", Decision::Deny),
    ] {
        assert_eq!(policy.decide(&flow(from, to, UDP, to_port(53))), want, "{from} to {to}");
    }
}

#[test]
fn without_any_policy_all_is_denied() {
    let nothing = Policy::default();
    assert_eq!(nothing.decide(&flow("10.86.0.2", "10.86.0.3", UDP, to_port(53))), Decision::Deny);
}

#[test]
fn a_rule_allows_its_own_direction_protocol_and_ports_alone() {
    let policy = policy(&[rule("modbus", site("depot"), site("plant"), &[MODBUS, PING])]);
    for (from, to, protocol, ports, want) in [
        ("10.86.0.4", "192.168.10.7", TCP, to_port(502), Decision::Rule(0)),
        ("10.86.0.4", "192.168.10.7", ICMP, Ports::Echo { id: 7 }, Decision::Rule(0)),
        ("fd00::4", "fd00::3", 58, Ports::Echo { id: 7 }, Decision::Rule(0)),
        ("10.86.0.4", "192.168.10.7", TCP, to_port(503), Decision::Deny),
        ("10.86.0.4", "192.168.10.7", UDP, to_port(502), Decision::Deny),
        ("10.86.0.4", "192.168.10.7", TCP, Ports::None, Decision::Deny),
        ("192.168.10.7", "10.86.0.4", TCP, to_port(502), Decision::Deny),
        ("10.86.0.1", "192.168.10.7", TCP, to_port(502), Decision::Deny),
    ] {
        assert_eq!(
            policy.decide(&flow(from, to, protocol, ports)),
            want,
            "{from} to {to} {protocol} {ports:?}"
        );
    }
}

#[test]
fn a_rule_without_ports_has_what_has_no_ports_too() {
    let policy = policy(&[rule("all", site("depot"), site("plant"), &[])]);
    for protocol in [TCP, 47, 50, 0] {
        let flow = flow("10.86.0.4", "10.86.0.3", protocol, Ports::None);
        assert_eq!(policy.decide(&flow), Decision::Rule(0));
    }
}

#[test]
fn a_selector_means_what_all_its_parts_mean() {
    let any = Selector::default;
    for (to, reached) in [
        (any(), &["10.86.0.2", "10.86.0.3", "192.168.10.7"][..]),
        (Selector { node: Some(name("pumps")), ..any() }, &["10.86.0.3", "192.168.10.7"]),
        (Selector { kind: Some(SubnetKind::Lan), ..any() }, &["192.168.10.7"]),
        (Selector { kind: Some(SubnetKind::EdgeNode), ..site("plant") }, &["10.86.0.2", "10.86.0.3"]),
        (Selector { cidr: Some("192.168.10.4/30".parse().unwrap()), ..any() }, &["192.168.10.7"]),
        (Selector { kind: Some(SubnetKind::Lan), node: Some(name("scada")), ..any() }, &[]),
        // A site is no node, though both are names.
        (Selector { node: Some(name("plant")), ..any() }, &[]),
    ] {
        let policy = policy(&[rule("r", site("depot"), to.clone(), &[])]);
        let is_reached = |to: &&str| policy.decide(&flow("10.86.0.4", to, UDP, to_port(1))) != Decision::Deny;
        let found: Vec<_> =
            ["10.86.0.2", "10.86.0.3", "192.168.10.7"].into_iter().filter(is_reached).collect();
        assert_eq!(found, reached, "{to:?}");
    }
}

#[test]
fn a_rule_about_who_has_not_joined_yet_means_nobody() {
    let policy = policy(&[rule("later", site("nowhere"), site("plant"), &[])]);
    for from in ["10.86.0.1", "10.86.0.4", "8.8.8.8"] {
        assert_eq!(policy.decide(&flow(from, "10.86.0.3", UDP, to_port(1))), Decision::Deny, "{from}");
    }
}

#[test]
fn an_explanation_names_the_rule_or_what_is_missing() {
    let policy = policy(&[rule("default/modbus", site("depot"), site("plant"), &[MODBUS])]);
    let address = |text: &str| -> IpAddr { text.parse().unwrap() };
    let explain = |from, to, protocol, port| policy.explain(address(from), address(to), protocol, port);
    let asked = explain("10.86.0.4", "192.168.10.7", Some(TCP), Some(502));
    assert_eq!(asked.there, Ruling::Rule { name: "default/modbus".into() });
    assert_eq!(asked.back, Ruling::NoRule);
    assert_eq!((asked.to.site, asked.to.edge), (Some(name("plant")), Some(name("pumps"))));
    let other = Ruling::OtherPorts { name: "default/modbus".into(), ports: vec![MODBUS] };
    assert_eq!(explain("10.86.0.4", "10.86.0.3", Some(TCP), Some(80)).there, other);
    assert_eq!(explain("10.86.0.4", "10.86.0.3", None, None).there, other);
    assert_eq!(explain("10.86.0.2", "10.86.0.3", None, None).there, Ruling::SameSite);
    assert_eq!(explain("10.86.0.4", "8.8.8.8", None, None).there, Ruling::Unknown(address("8.8.8.8")));
}

proptest! {
    #[test]
    fn what_is_explained_is_what_is_decided(
        from in 0usize..7, to in 0usize..7, protocol in prop_oneof![Just(TCP), Just(UDP), Just(47)], port in 500u16..505,
    ) {
        let addresses = ["10.86.0.1", "10.86.0.2", "10.86.0.3", "10.86.0.4", "192.168.10.7", "10.9.0.5", "8.8.8.8"];
        let policy = policy(&[rule("modbus", site("depot"), site("plant"), &[MODBUS])]);
        let asked = flow(addresses[from], addresses[to], protocol, to_port(port));
        let explained = policy.explain(asked.source, asked.destination, Some(protocol), Some(port));
        prop_assert_eq!(explained.there.is_allowed(), policy.decide(&asked) != Decision::Deny);
        let back = Flow { source: asked.destination, destination: asked.source, ..asked };
        prop_assert_eq!(explained.back.is_allowed(), policy.decide(&back) != Decision::Deny);
    }
}
