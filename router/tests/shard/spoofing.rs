//! An edge with a true certificate that sends packets in the names of others (as in Nebula CVE-2025-62820, and gotatun
//! before 0.7.2): none arrives anywhere, and each is counted by its reason.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bus::access::{PortRange, Protocol};
use bus::{AccessRule, NodeId, Route, SubnetKind};
use router::DropReason::{
    self, Denied, LinkLocal, Loop, Malformed, Martian, Multicast, NoRoute, SpoofedSource, UnknownSource,
};
use router::io::Netlink;
use router::io::shard::{Command, Lane, PacketStats};
use router::policy::Sites;
use router::{Policy, Table};

use crate::cluster::{Ca, Node, connect, up};
use crate::namespace::in_own_network;
use crate::packets::{Edge, carry, name, rule, sites};
use crate::raw::RawPeer;

const UDP: u8 = 17;
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// What the hostile edge truly has.
const OWN: &str = "10.86.0.4";
const OWN_V6: &str = "fd86::4";
/// The only port of `b` that a policy lets it call.
const OPEN: u16 = 7000;
const CLOSED: u16 = 7001;

/// Two honest edges that may talk to each other, and the hostile one.
struct Scene {
    hub: Node,
    a: Edge,
    b: Edge,
    bad: RawPeer,
}

fn route(prefix: &str, owner: &NodeId, kind: SubnetKind, real: Option<&str>) -> Route {
    let real = real.map(|prefix| prefix.parse().unwrap());
    Route { prefix: prefix.parse().unwrap(), owner: owner.clone(), kind, real, peer: None }
}

/// The hostile edge's LAN is wide, and `b` has a part of it. `a` has one that is known by a virtual prefix.
fn routes(hub: &Node, a: &Edge, b: &Edge) -> Vec<Route> {
    let bad = NodeId::edge(name("bad"));
    let (hub, id_a, id_b) = (hub.id(), a.node.id(), b.node.id());
    let others = [
        route("10.86.0.1/32", &hub, SubnetKind::EdgeNode, None),
        route("fd86::1/128", &hub, SubnetKind::EdgeNode, None),
        route("10.50.1.0/24", &hub, SubnetKind::CloudVm, None),
        route("10.86.130.0/24", &id_a, SubnetKind::EdgeContainer, None),
        route("10.86.64.0/24", &id_a, SubnetKind::Lan, Some("192.168.10.0/24")),
        route("172.16.7.0/24", &id_b, SubnetKind::Lan, None),
        route("172.16.0.0/16", &bad, SubnetKind::Lan, None),
        route("10.86.0.4/32", &bad, SubnetKind::EdgeNode, None),
        route("fd86::4/128", &bad, SubnetKind::EdgeNode, None),
    ];
    a.routes().into_iter().chain(b.routes()).chain(others).collect()
}

impl Scene {
    fn new() -> Self {
        Netlink::open().unwrap().link_up("lo").unwrap();
        let ca = Ca::new();
        let mut hub = Node::cloud(ca.issue("c/cloud/hub"));
        let mut a = Edge::start(&ca, "c/edge/a", 2, &hub.id());
        let mut b = Edge::start(&ca, "c/edge/b", 3, &hub.id());
        let (routes, rules) = (routes(&hub, &a, &b), rules());
        let mut places: Sites = sites();
        places.insert(NodeId::edge(name("bad")), name("bad"));
        hub.shard.send(Command::SetTable(Arc::new(Table::new(hub.id(), routes.clone(), None)))).unwrap();
        let policy = Policy::for_hub(&routes, &places, &rules);
        hub.shard.send(Command::SetPolicy(Arc::new(policy))).unwrap();
        for edge in [&mut a, &mut b] {
            edge.set_routes(&routes, &hub.id());
            let policy = Policy::for_edge(&routes, &places, &rules);
            edge.node.shard.send(Command::SetPolicy(Arc::new(policy))).unwrap();
            connect(&mut edge.node, &mut hub, Lane::Packets);
        }
        let bad = ca.issue("c/edge/bad");
        let peer = RawPeer::connect(hub.address(), Lane::Packets.alpn(), Some(&bad));
        up(&mut hub, None, Some(bad.identity.node), Lane::Packets);
        Self { hub, a, b, bad: peer }
    }

    /// The hub drops what the hostile edge sends, for this reason, and does nothing else.
    fn drops(&mut self, what: &str, datagrams: &[Vec<u8>], reason: DropReason) {
        let mut expected = settled(&self.hub);
        expected.dropped[reason.index()] += 1;
        datagrams.iter().for_each(|datagram| self.bad.send_datagram(datagram));
        let is_settled = |packets: &PacketStats| packets.dropped.iter().sum::<u64>() + packets.forwarded;
        let (wanted, hub) = (is_settled(&expected), &self.hub);
        hub.wait_for(|stats| is_settled(&stats.packets) >= wanted || stats.packets.no_tun > 0);
        assert_eq!(hub.shard.stats().packets, expected, "{what}: should be {reason:?}");
    }

    fn drops_packet(&mut self, what: &str, packet: &[u8], reason: DropReason) {
        self.drops(what, &[whole(packet)], reason);
    }

    /// What is its own and allowed does arrive: nothing above was dropped because nothing passes.
    fn honest_packet_arrives(&mut self, at: &UdpSocket) {
        let IpAddr::V4(to) = at.local_addr().unwrap().ip() else { panic!("an IPv4 socket") };
        for attempt in 0.. {
            self.bad.send_datagram(&whole(&packet(OWN, &to.to_string(), UDP, &udp(OPEN))));
            match at.recv_from(&mut [0; 100]) {
                Ok((_, from)) => return assert_eq!(from.ip(), OWN.parse::<IpAddr>().unwrap()),
                Err(error) => assert!(attempt < 50, "an honest packet never arrived: {error}"),
            }
        }
    }
}

/// The counters once nothing happens any more: they are copied out at the end of a turn, and packets leave in its middle.
fn settled(hub: &Node) -> PacketStats {
    let mut seen = hub.shard.stats().packets;
    loop {
        thread::sleep(Duration::from_millis(5));
        let now = hub.shard.stats().packets;
        if now == seen {
            return now;
        }
        seen = now;
    }
}

fn rules() -> Vec<AccessRule> {
    let open = PortRange { protocol: Protocol::Udp, ports: Some((OPEN, OPEN)) };
    let bad = AccessRule { ports: vec![open], ..rule("bad", "b") };
    vec![rule("a", "b"), rule("b", "a"), bad]
}

/// As a datagram of the lane.
fn whole(packet: &[u8]) -> Vec<u8> {
    [&[0], packet].concat()
}

fn packet(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let len = (20 + payload.len() as u16).to_be_bytes();
            let start = [0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, protocol, 0, 0];
            let mut packet = [&start, &source.octets()[..], &destination.octets(), payload].concat();
            let sum = !router::checksum::sum(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let len = (payload.len() as u16).to_be_bytes();
            let start = [0x60, 0, 0, 0, len[0], len[1], protocol, 64];
            [&start, &source.octets()[..], &destination.octets(), payload].concat()
        }
        pair => panic!("two families in one packet: {pair:?}"),
    }
}

/// Without a checksum, which IPv4 allows.
fn udp(port: u16) -> Vec<u8> {
    [&7000u16.to_be_bytes()[..], &port.to_be_bytes(), &[0, 12, 0, 0], b"fake"].concat()
}

#[test]
fn sources_that_are_not_the_senders_own_never_arrive() {
    in_own_network("spoofing::sources_that_are_not_the_senders_own_never_arrive", || {
        let mut scene = Scene::new();
        let (a, b) = (scene.a.udp(scene.a.lease.v4.into()), scene.b.udp(scene.b.lease.v4.into()));
        // So that the hub remembers the way of the very flow that is forged below.
        carry(&a, &b, 100);
        for (what, source, reason) in [
            ("the cloud", "10.86.0.1", SpoofedSource),
            ("the cloud's VMs", "10.50.1.10", SpoofedSource),
            ("another edge", "10.86.0.2", SpoofedSource),
            ("the receiver itself", "10.86.0.3", SpoofedSource),
            ("another edge's containers", "10.86.130.5", SpoofedSource),
            ("a LAN by its virtual prefix", "10.86.64.20", SpoofedSource),
            ("a LAN by the prefix it has at home", "192.168.10.20", UnknownSource),
            ("a LAN that is a part of its own", "172.16.7.9", SpoofedSource),
            ("nobody of the pool", "10.86.0.99", UnknownSource),
            ("the internet", "8.8.8.8", UnknownSource),
            ("multicast", "224.0.0.251", Martian),
            ("loopback", "127.0.0.1", Martian),
            ("unspecified", "0.0.0.0", Martian),
            ("broadcast", "255.255.255.255", Martian),
            ("link-local", "169.254.1.1", LinkLocal),
        ] {
            scene.drops_packet(what, &packet(source, "10.86.0.3", UDP, &udp(OPEN)), reason);
        }
        for (what, source, reason) in [
            ("the cloud", "fd86::1", SpoofedSource),
            ("another edge", "fd86::2", SpoofedSource),
            ("an IPv4 address in IPv6", "::ffff:10.86.0.2", Martian),
            ("its own IPv4 address in IPv6", "::ffff:10.86.0.4", Martian),
            ("multicast", "ff02::1", Martian),
            ("loopback", "::1", Martian),
            ("unspecified", "::", Martian),
            ("link-local", "fe80::4", LinkLocal),
        ] {
            scene.drops_packet(what, &packet(source, "fd86::3", UDP, &udp(OPEN)), reason);
        }
        let forged = whole(&packet("10.86.0.2", "10.86.0.3", UDP, &udp(OPEN)));
        let (first, second) = forged.split_at(forged.len().div_ceil(2));
        let parts = [[&[2, 0, 9], first].concat(), [&[6, 0, 9], second].concat()];
        scene.drops("another edge, in two parts", &parts, SpoofedSource);
        nothing_arrived(&[&a, &b]);
        scene.honest_packet_arrives(&b);
    });
}

#[test]
fn packets_that_lie_about_themselves_or_go_where_none_may_never_arrive() {
    in_own_network("spoofing::packets_that_lie_about_themselves_or_go_where_none_may_never_arrive", || {
        let mut scene = Scene::new();
        let (a, b) = (scene.a.udp(scene.a.lease.v4.into()), scene.b.udp(scene.b.lease.v4.into()));
        let own = packet("172.16.1.9", "10.86.0.3", UDP, &udp(OPEN));
        let own_v6 = packet(OWN_V6, "fd86::3", UDP, &udp(OPEN));
        let with = |at: usize, byte: u8| {
            let mut packet = own.clone();
            packet[at] = byte;
            packet
        };
        for (what, bytes) in [
            ("nothing", vec![]),
            ("one byte", vec![0x45]),
            ("its LAN's, cut off in the header", own[..19].to_vec()),
            ("its LAN's, cut off behind the header", own[..20].to_vec()),
            ("its LAN's, with bytes behind its end", [&own[..], &[0]].concat()),
            ("a header of 16 bytes", with(0, 0x44)),
            ("options that end behind the packet", with(0, 0x4f)),
            ("of version 5", with(0, 0x55)),
            ("IPv6, cut off in the header", own_v6[..39].to_vec()),
            ("IPv6, cut off behind the header", own_v6[..40].to_vec()),
        ] {
            scene.drops_packet(what, &bytes, Malformed);
        }
        scene.drops("an empty datagram", &[vec![]], Malformed);
        scene.drops("a head of later versions", &[[&[8], &own[..]].concat()], Malformed);
        for (what, packet, reason) in [
            ("to multicast", packet(OWN, "224.0.0.251", UDP, &udp(OPEN)), Multicast),
            ("to all nodes", packet(OWN_V6, "ff02::1", UDP, &udp(OPEN)), Multicast),
            ("to loopback", packet(OWN, "127.0.0.1", UDP, &udp(OPEN)), Martian),
            ("to broadcast", packet(OWN, "255.255.255.255", UDP, &udp(OPEN)), Martian),
            ("to an IPv4 address in IPv6", packet(OWN_V6, "::ffff:10.86.0.3", UDP, &udp(OPEN)), Martian),
            ("to link-local", packet(OWN_V6, "fe80::3", UDP, &udp(OPEN)), LinkLocal),
            ("to itself", packet(OWN, "172.16.1.9", UDP, &udp(OPEN)), Loop),
            ("to nobody", packet(OWN, "10.86.0.99", UDP, &udp(OPEN)), NoRoute),
            ("to a LAN by the prefix it has at home", packet(OWN, "192.168.10.20", UDP, &udp(OPEN)), NoRoute),
            ("to a closed port", packet(OWN, "10.86.0.3", UDP, &udp(CLOSED)), Denied),
            ("with half a UDP header", packet(OWN, "10.86.0.3", UDP, &udp(OPEN)[..3]), Denied),
            ("with half a TCP header", packet("172.16.1.9", "10.86.0.3", TCP, &udp(OPEN)[..4]), Denied),
            ("to who has no rule", packet(OWN, "10.86.0.2", UDP, &udp(OPEN)), Denied),
        ] {
            scene.drops_packet(what, &packet, reason);
        }
        nothing_arrived(&[&a, &b]);
        scene.honest_packet_arrives(&b);
    });
}

/// ICMP errors may pass without a rule: when they come from the way of a conversation that goes on.
#[test]
fn icmp_errors_about_conversations_of_others_never_arrive() {
    in_own_network("spoofing::icmp_errors_about_conversations_of_others_never_arrive", || {
        let mut scene = Scene::new();
        let (a, b) = (scene.a.udp(scene.a.lease.v4.into()), scene.b.udp(scene.b.lease.v4.into()));
        let (a6, b6) = (scene.a.udp(scene.a.lease.v6.into()), scene.b.udp(scene.b.lease.v6.into()));
        carry(&a, &b, 100);
        carry(&a6, &b6, 100);
        let a_asked_b = packet("10.86.0.2", "10.86.0.3", UDP, &udp(OPEN));
        let b_answered = packet("10.86.0.3", "10.86.0.2", UDP, &udp(OPEN));
        let a_asked_b_v6 = packet("fd86::2", "fd86::3", UDP, &udp(OPEN));
        let port_unreachable = |quoted: &[u8]| [&[3, 3, 0, 0, 0, 0, 0, 0], quoted].concat();
        let fragmentation_needed = |quoted: &[u8]| [&[3, 4, 0, 0, 0, 0, 0, 68], quoted].concat();
        let redirect = |quoted: &[u8]| [&[5, 1, 0, 0, 10, 86, 0, 4], quoted].concat();
        let too_big = |quoted: &[u8]| [&[2, 0, 0, 0, 0, 0, 5, 0], quoted].concat();
        for (what, source, destination, message, reason) in [
            ("unreachable", OWN, "10.86.0.2", port_unreachable(&a_asked_b), Denied),
            ("too big", OWN, "10.86.0.2", fragmentation_needed(&a_asked_b), Denied),
            ("redirect", OWN, "10.86.0.2", redirect(&a_asked_b), Denied),
            ("to the end that it does not concern", OWN, "10.86.0.3", port_unreachable(&a_asked_b), Denied),
            ("about the answer", OWN, "10.86.0.3", port_unreachable(&b_answered), Denied),
            ("that quotes nothing", OWN, "10.86.0.2", port_unreachable(&[]), Denied),
            ("that quotes half a header", OWN, "10.86.0.2", port_unreachable(&a_asked_b[..19]), Denied),
            (
                "in the other end's name",
                "10.86.0.3",
                "10.86.0.2",
                port_unreachable(&a_asked_b),
                SpoofedSource,
            ),
            (
                "in the cloud's name",
                "10.86.0.1",
                "10.86.0.2",
                fragmentation_needed(&a_asked_b),
                SpoofedSource,
            ),
        ] {
            scene.drops_packet(what, &packet(source, destination, ICMP, &message), reason);
        }
        for (source, reason) in [(OWN_V6, Denied), ("fd86::3", SpoofedSource)] {
            let packet = packet(source, "fd86::2", ICMPV6, &too_big(&a_asked_b_v6));
            scene.drops_packet("too big over IPv6", &packet, reason);
        }
        nothing_arrived(&[&a, &b, &a6, &b6]);
        scene.honest_packet_arrives(&b);
    });
}

/// Neither a datagram nor an error.
fn nothing_arrived(sockets: &[&UdpSocket]) {
    for socket in sockets {
        let heard = socket.recv_from(&mut [0; 2000]).map_err(|error| error.kind());
        assert_eq!(heard, Err(ErrorKind::WouldBlock), "{socket:?}");
        assert!(socket.take_error().unwrap().is_none());
    }
}
