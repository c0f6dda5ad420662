//! Packets from one edge's network to another's, through real TUN interfaces and a hub.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bus::{AccessRule, Lease, Name, NodeId, Route, Selector, SubnetKind};
use router::io::shard::{Command, Congestion, Event, Expect, Lane, LinkReport, ShardConfig};
use router::io::{Netlink, Overlay};
use router::policy::Sites;
use router::{Policy, Table};

use crate::cluster::{Ca, Node, PATIENCE, connect, loopback, up};
use crate::namespace::{in_own_network, new_network, within};
use crate::relay::Relay;

/// An edge whose overlay interface is in a network of its own.
pub(crate) struct Edge {
    pub(crate) node: Node,
    pub(crate) network: OwnedFd,
    overlay: Overlay,
    pub(crate) lease: Lease,
}

fn lease(number: u8) -> Lease {
    Lease {
        v4: [10, 86, 0, number].into(),
        v6: format!("fd86::{number}").parse().unwrap(),
        container_v4: format!("10.86.{}.0/24", 128 + number).parse().unwrap(),
        container_v6: format!("fd86:0:0:{number}::/64").parse().unwrap(),
        pool_v4: "10.86.0.0/16".parse().unwrap(),
        pool_v6: "fd86::/48".parse().unwrap(),
    }
}

impl Edge {
    pub(crate) fn start(ca: &Ca, name: &str, number: u8, hub: &NodeId) -> Self {
        Self::start_with(Congestion::None, ca, name, number, hub)
    }

    fn start_with(congestion: Congestion, ca: &Ca, name: &str, number: u8, hub: &NodeId) -> Self {
        let (network, lease, credentials) = (new_network(), lease(number), ca.issue(name));
        let me = credentials.identity.node.clone();
        let overlay = within(network.as_fd(), || {
            let mut overlay = Overlay::open("kb0").unwrap();
            overlay.sync(&lease, &me, &[]).unwrap();
            overlay
        });
        let tun = Some(overlay.tun().unwrap());
        let node = Node::start(ShardConfig {
            tun,
            neighbours: true,
            congestion,
            ..ShardConfig::new(loopback(), Some(credentials))
        });
        let table = Table::new(me, [], Some(hub.clone())).with_lease(&lease);
        node.shard.send(Command::SetTable(Arc::new(table))).unwrap();
        Self { node, network, overlay, lease }
    }

    pub(crate) fn set_routes(&mut self, routes: &[Route], hub: &NodeId) {
        let Self { node, network, overlay, lease } = self;
        within(network.as_fd(), || overlay.sync(lease, &node.id(), routes).unwrap());
        let table = Table::new(node.id(), routes.to_vec(), Some(hub.clone())).with_lease(lease);
        node.shard.send(Command::SetTable(Arc::new(table))).unwrap();
    }

    /// An edge of the site that has its name.
    pub(crate) fn set_policy(&self, routes: &[Route], rules: &[AccessRule]) {
        let policy = Policy::for_edge(routes, &sites(), rules);
        self.node.shard.send(Command::SetPolicy(Arc::new(policy))).unwrap();
    }

    pub(crate) fn routes(&self) -> [Route; 2] {
        let route = |prefix: IpAddr| Route {
            prefix: prefix.into(),
            owner: self.node.id(),
            kind: SubnetKind::EdgeNode,
            real: None,
            peer: None,
        };
        [route(self.lease.v4.into()), route(self.lease.v6.into())]
    }

    pub(crate) fn udp(&self, address: IpAddr) -> UdpSocket {
        let socket = within(self.network.as_fd(), || UdpSocket::bind((address, 7000))).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn sites() -> Sites {
    ["a", "b"].map(|edge| (NodeId::edge(name(edge)), name(edge))).into()
}

/// The first site may begin to talk to the second.
pub(crate) fn rule(from: &str, to: &str) -> AccessRule {
    let site = |text| vec![Selector { site: Some(name(text)), ..Selector::default() }];
    AccessRule { name: format!("{from}-to-{to}"), from: site(from), to: site(to), ports: Vec::new() }
}

/// Tells all three who may begin to talk to whom.
fn allow(hub: &Node, a: &Edge, b: &Edge, rules: &[AccessRule]) {
    let routes: Vec<Route> = a.routes().into_iter().chain(b.routes()).collect();
    let policy = Policy::for_hub(&routes, &sites(), rules);
    hub.shard.send(Command::SetPolicy(Arc::new(policy))).unwrap();
    a.set_policy(&routes, rules);
    b.set_policy(&routes, rules);
}

/// A hub with two edges that are not linked yet, and may talk to each other.
pub(crate) fn unlinked_star() -> (Node, Edge, Edge) {
    unlinked_star_with(Congestion::None)
}

fn unlinked_star_with(congestion: Congestion) -> (Node, Edge, Edge) {
    Netlink::open().unwrap().link_up("lo").unwrap();
    let ca = Ca::new();
    let hub = Node::cloud(ca.issue("c/cloud/hub"));
    let a = Edge::start_with(congestion, &ca, "c/edge/a", 2, &hub.id());
    let b = Edge::start_with(congestion, &ca, "c/edge/b", 3, &hub.id());
    let table = Table::new(hub.id(), a.routes().into_iter().chain(b.routes()), None);
    hub.shard.send(Command::SetTable(Arc::new(table))).unwrap();
    allow(&hub, &a, &b, &[rule("a", "b"), rule("b", "a")]);
    (hub, a, b)
}

/// A hub with two edges, all lanes up.
pub(crate) fn star() -> (Node, Edge, Edge) {
    let (mut hub, mut a, mut b) = unlinked_star();
    connect(&mut a.node, &mut hub, Lane::Packets);
    connect(&mut b.node, &mut hub, Lane::Packets);
    (hub, a, b)
}

/// Sends `len` bytes until they arrive: discovery needs a round trip before the largest packets fit.
pub(crate) fn carry(from: &UdpSocket, to: &UdpSocket, len: usize) {
    let (payload, patience) = (vec![len as u8; len], Instant::now() + PATIENCE);
    let mut buffer = [0; 2000];
    loop {
        from.send_to(&payload, to.local_addr().unwrap()).unwrap();
        if let Ok((got, sender)) = to.recv_from(&mut buffer) {
            assert_eq!((&buffer[..got], sender), (&payload[..], from.local_addr().unwrap()));
            return;
        }
        assert!(Instant::now() < patience, "{len} bytes never arrived");
    }
}

#[test]
fn datagrams_cross_from_edge_to_edge_in_both_directions() {
    in_own_network("packets::datagrams_cross_from_edge_to_edge_in_both_directions", || {
        let (hub, a, b) = star();
        for (from, to, heads) in [
            (IpAddr::from(a.lease.v4), IpAddr::from(b.lease.v4), 28),
            (IpAddr::from(a.lease.v6), IpAddr::from(b.lease.v6), 48),
        ] {
            let (at_a, at_b) = (a.udp(from), b.udp(to));
            for len in [0, 1, 100, 1400 - heads] {
                carry(&at_a, &at_b, len);
                carry(&at_b, &at_a, len);
            }
        }
        hub.wait_for(|stats| stats.packets.forwarded >= 16 && stats.packets.received == 0);
    });
}

#[test]
fn a_megabyte_stream_of_tcp_crosses_whole() {
    in_own_network("packets::a_megabyte_stream_of_tcp_crosses_whole", || {
        let (hub, a, b) = star();
        stream_crosses(&hub, &a, &b);
    });
}

/// On a path that takes no more than its window allows, what comes from the TUN waits, and is not lost.
#[test]
fn a_stream_crosses_whole_where_the_lane_has_a_congestion_window() {
    in_own_network("packets::a_stream_crosses_whole_where_the_lane_has_a_congestion_window", || {
        let (mut hub, mut a, mut b) = unlinked_star_with(Congestion::Cubic);
        connect(&mut a.node, &mut hub, Lane::Packets);
        connect(&mut b.node, &mut hub, Lane::Packets);
        stream_crosses(&hub, &a, &b);
        let waited = path(&mut a).queue.unwrap();
        assert!(waited.classes.iter().any(|class| class.enqueued > 0), "{waited:?}");
    });
}

fn stream_crosses(hub: &Node, a: &Edge, b: &Edge) {
    let sent: Vec<u8> = (0..20 << 20).map(|n: u32| (n ^ (n >> 8)) as u8).collect();
    let listener = within(b.network.as_fd(), || TcpListener::bind((b.lease.v4, 8000))).unwrap();
    let mut client = within(a.network.as_fd(), || TcpStream::connect((b.lease.v4, 8000))).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let received = thread::scope(|scope| {
        scope.spawn(|| {
            client.write_all(&sent).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        server.read_to_end(&mut received).unwrap();
        received
    });
    assert!(received == sent);
    hub.wait_for(|stats| stats.packets.forwarded > (20 << 20) / 1400);
}

/// The largest UDP payload of the overlay's MTU.
const LARGEST: usize = 1400 - 28;

/// What `a` knows of its path.
fn path(a: &mut Edge) -> LinkReport {
    a.node.shard.send(Command::Report { id: 1 }).unwrap();
    let event = a.node.next();
    let Event::Report { id: 1, mut links } = event else { panic!("{event:?}") };
    links.pop().unwrap()
}

/// A star whose edge `a` has a box in its path.
fn star_behind_a_relay() -> (Node, Edge, Edge, Relay) {
    let (mut hub, mut a, mut b) = unlinked_star();
    let relay = Relay::before(hub.address());
    connect(&mut b.node, &mut hub, Lane::Packets);
    a.node.dial(1, relay.address, Expect::Node(hub.id.clone().unwrap()), Lane::Packets);
    up(&mut a.node, Some(1), Some(hub.id()), Lane::Packets);
    up(&mut hub, None, Some(a.node.id()), Lane::Packets);
    (hub, a, b, relay)
}

fn wait_for_path(a: &mut Edge, is_so: impl Fn(&LinkReport) -> bool, mut meanwhile: impl FnMut()) {
    let patience = Instant::now() + PATIENCE;
    while !is_so(&path(a)) {
        assert!(Instant::now() < patience, "{:?}", path(a));
        meanwhile();
        thread::sleep(Duration::from_millis(5));
    }
}

/// Overload looks the same to MTU discovery: what it does to the tunnel must not stop it.
#[test]
fn a_path_that_begins_to_swallow_large_packets_still_carries_them_and_says_so() {
    in_own_network(
        "packets::a_path_that_begins_to_swallow_large_packets_still_carries_them_and_says_so",
        || {
            let (_hub, mut a, b, relay) = star_behind_a_relay();
            let (at_a, at_b) = (a.udp(a.lease.v4.into()), b.udp(b.lease.v4.into()));
            let to = at_b.local_addr().unwrap();
            let send = |len: usize| assert_eq!(at_a.send_to(&vec![1; len], to).unwrap(), len);
            wait_for_path(&mut a, |path| path.mtu >= 1440, || send(100));
            relay.narrow(1250);
            wait_for_path(
                &mut a,
                |path| path.black_holes > 0 && path.mtu <= 1250,
                || [LARGEST, 100].into_iter().for_each(&send),
            );
            while at_b.recv(&mut [0; 2000]).is_ok() {}
            carry(&at_a, &at_b, LARGEST);
            carry(&at_b, &at_a, LARGEST);
            relay.narrow(0);
            wait_for_path(&mut a, |path| path.mtu >= 1440, || send(LARGEST));
        },
    );
}

#[test]
fn a_path_that_stays_narrow_carries_large_packets_until_their_sender_has_learnt_its_mtu() {
    in_own_network(
        "packets::a_path_that_stays_narrow_carries_large_packets_until_their_sender_has_learnt_its_mtu",
        || {
            let (mut hub, mut a, mut b) = unlinked_star();
            let relay = Relay::before(hub.address());
            relay.narrow(1300);
            connect(&mut b.node, &mut hub, Lane::Packets);
            a.node.dial(1, relay.address, Expect::Node(hub.id.clone().unwrap()), Lane::Packets);
            up(&mut a.node, Some(1), Some(hub.id()), Lane::Packets);
            up(&mut hub, None, Some(a.node.id()), Lane::Packets);
            let (at_a, at_b) = (a.udp(a.lease.v4.into()), b.udp(b.lease.v4.into()));
            carry(&at_a, &at_b, LARGEST);
            assert_eq!(a.node.shard.stats().packets.too_big, 0, "the path is not known yet");
            let patience = Instant::now() + PATIENCE;
            while a.node.shard.stats().packets.too_big == 0 {
                assert!(Instant::now() < patience, "{:?}", a.node.shard.stats());
                at_a.send_to(&[1; LARGEST], at_b.local_addr().unwrap()).unwrap();
                thread::sleep(Duration::from_millis(50));
            }
            while at_b.recv(&mut [0; 2000]).is_ok() {}
            // The sender's kernel cuts by itself now.
            let told = a.node.shard.stats().packets.too_big;
            carry(&at_a, &at_b, LARGEST);
            assert_eq!(a.node.shard.stats().packets.too_big, told);
        },
    );
}

#[test]
fn a_packet_with_no_lane_or_no_owner_is_dropped_and_counted() {
    in_own_network("packets::a_packet_with_no_lane_or_no_owner_is_dropped_and_counted", || {
        let (hub, a, b) = star();
        let at_a = a.udp(a.lease.v4.into());
        at_a.send_to(b"nobody has it", "10.86.0.77:9").unwrap();
        hub.wait_for(|stats| stats.packets.dropped[router::DropReason::NoRoute.index()] == 1);
        b.node.shard.send(Command::Stop).unwrap();
        hub.wait_for(|stats| stats.links == 1);
        at_a.send_to(b"its node is away", (b.lease.v4, 9)).unwrap();
        hub.wait_for(|stats| stats.packets.no_lane == 1);
    });
}

/// Whether a datagram gets from one to the other in a while.
fn gets_through(from: &UdpSocket, to: &UdpSocket) -> bool {
    (0..3).any(|_| {
        from.send_to(b"knock", to.local_addr().unwrap()).unwrap();
        to.recv(&mut [0; 100]).is_ok()
    })
}

fn denied(node: &Node) -> u64 {
    node.shard.stats().packets.dropped[router::DropReason::Denied.index()]
}

#[test]
fn a_site_that_may_begin_nothing_only_answers_until_the_rule_is_gone() {
    in_own_network("packets::a_site_that_may_begin_nothing_only_answers_until_the_rule_is_gone", || {
        let (hub, a, b) = star();
        let (at_a, at_b) = (a.udp(a.lease.v4.into()), b.udp(b.lease.v4.into()));
        allow(&hub, &a, &b, &[rule("a", "b")]);
        assert!(!gets_through(&at_b, &at_a), "b may begin nothing");
        hub.wait_for(|stats| stats.packets.dropped[router::DropReason::Denied.index()] >= 3);
        carry(&at_a, &at_b, 100);
        carry(&at_b, &at_a, 100);
        allow(&hub, &a, &b, &[]);
        assert!(!gets_through(&at_a, &at_b) && !gets_through(&at_b, &at_a));
        assert!(denied(&hub) >= 9);
    });
}

#[test]
fn the_receiver_denies_what_its_hub_lets_pass() {
    in_own_network("packets::the_receiver_denies_what_its_hub_lets_pass", || {
        let (_hub, a, b) = star();
        let (at_a, at_b) = (a.udp(a.lease.v4.into()), b.udp(b.lease.v4.into()));
        let routes: Vec<Route> = a.routes().into_iter().chain(b.routes()).collect();
        b.set_policy(&routes, &[]);
        assert!(!gets_through(&at_a, &at_b));
        b.node.wait_for(|stats| stats.packets.dropped[router::DropReason::Denied.index()] >= 3);
        carry(&at_b, &at_a, 100);
        carry(&at_a, &at_b, 100);
    });
}
