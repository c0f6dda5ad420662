//! Whatever a peer or a passer-by sends costs at most its own connection.

use std::net::{SocketAddr, UdpSocket};

use bus::Class;
use bus::backoff::Jitter;
use bus::bus::LinkId;
use router::io::shard::{Credentials, Event, Expect, Lane};

use crate::cluster::{Ca, Node, connect, frame, loopback, up};
use crate::raw::RawPeer;
use crate::relay::Relay;

/// A hub with a well-behaved edge, and credentials for a badly behaved one.
struct Scene {
    hub: Node,
    good: Node,
    link: LinkId,
    bad: Credentials,
}

impl Scene {
    fn new() -> Self {
        let ca = Ca::new();
        let (mut hub, mut good) = (Node::cloud(ca.issue("c/cloud/hub")), Node::edge(ca.issue("c/edge/good")));
        let (link, _) = connect(&mut good, &mut hub, Lane::Bus);
        Self { hub, good, link, bad: ca.issue("c/edge/bad") }
    }

    fn intruder(&mut self, lane: Lane) -> RawPeer {
        let credentials = (lane != Lane::Join).then_some(&self.bad);
        let peer = RawPeer::connect(self.hub.address(), lane.alpn(), credentials);
        up(&mut self.hub, None, credentials.map(|own| own.identity.node.clone()), lane);
        peer
    }

    /// What the hub makes of `act`; the good edge must not feel it.
    fn verdict(&mut self, lane: Lane, act: impl FnOnce(&mut RawPeer)) -> String {
        let mut peer = self.intruder(lane);
        act(&mut peer);
        let told = peer.closed();
        let why = self.hub.next_down();
        assert!(told.contains(&why), "both hear the same: {told} / {why}");
        self.good_edge_lives();
        why
    }

    fn good_edge_lives(&mut self) {
        self.good.send(self.link, Class::Event, frame("here"));
        assert_eq!(self.hub.next_frame(), frame("here"));
    }
}

#[test]
fn a_peer_that_breaks_the_protocol_loses_its_connection_only() {
    let mut scene = Scene::new();
    let mut say = |bytes: &[u8]| {
        scene.verdict(Lane::Bus, |peer| {
            peer.say(bytes);
        })
    };
    assert_eq!(say(&[6]), "the peer opened a stream of unknown class 6");
    assert_eq!(
        say(b"\x00\xff\xff\xff\xff"),
        "the peer sent a malformed frame: frame of 4294967295 bytes is over the limit"
    );
    assert_eq!(say(b"\x00\x00\x00\x00\x00"), "the peer sent a malformed frame: empty frame");
    assert_eq!(say(b"\x05\x00\x00\x00\x01\x09"), "the peer sent a malformed frame: unknown channel 9");
    let twice = scene.verdict(Lane::Bus, |peer| {
        peer.say(&[2]);
        peer.say(&[2]);
    });
    assert_eq!(twice, "the peer opened a second State stream");
    let abandoned = scene.verdict(Lane::Bus, |peer| {
        let stream = peer.say(b"\x02\x00\x00\x10\x00");
        peer.abandon(stream);
    });
    assert_eq!(abandoned, "the peer abandoned a stream");
    let datagram = scene.verdict(Lane::Bus, |peer| peer.send_datagram(b"packet?"));
    assert_eq!(datagram, "the peer sent packets on a stream lane");
    let stream = scene.verdict(Lane::Packets, |peer| {
        peer.say(&[0]);
    });
    assert_eq!(stream, "the peer sent streams on the packets lane");
    scene.hub.wait_for(|stats| stats.peer_faults == 8);
}

#[test]
fn a_joiner_can_neither_talk_for_long_nor_use_other_classes() {
    let mut scene = Scene::new();
    let class = scene.verdict(Lane::Join, |peer| {
        peer.say(&[Class::Bulk as u8]);
    });
    assert_eq!(class, "the peer used another class than control to join");
    // One frame of 1 MiB, announced truly.
    let flood = scene.verdict(Lane::Join, |peer| {
        let stream = peer.say(b"\x00\x00\x0f\xff\xff\x02");
        peer.say_more(stream, &vec![0; 80 << 10]);
    });
    assert_eq!(flood, "the peer said too much to join");
    let packet = scene.verdict(Lane::Join, |peer| peer.send_datagram(b"packet?"));
    assert_eq!(packet, "the peer sent packets on a stream lane");
}

#[test]
fn any_bytes_on_a_stream_or_as_a_packet_leave_the_hub_standing() {
    let mut scene = Scene::new();
    let mut random = Jitter::new(11);
    for round in 0..20 {
        let mut peer = RawPeer::connect(scene.hub.address(), Lane::Bus.alpn(), Some(&scene.bad));
        let mut bytes: Vec<u8> = (0..600).map(|_| random.next_u64() as u8).collect();
        bytes[0] = round % 6;
        // Often a plausible length, so that the frame itself is looked at.
        bytes[1..4].fill(0);
        peer.say(&bytes);
    }
    let mut peer = RawPeer::connect(scene.hub.address(), Lane::Packets.alpn(), Some(&scene.bad));
    for bytes in [&b""[..], b"\x45", &[0x60; 1000]] {
        peer.send_datagram(bytes);
    }
    scene.good.send(scene.link, Class::Event, frame("here"));
    let here = frame("here");
    while !matches!(scene.hub.next(), Event::Frame { frame, .. } if frame == here) {}
}

fn throw_garbage(at: SocketAddr, seed: u64) {
    let (socket, mut random) = (UdpSocket::bind(loopback()).unwrap(), Jitter::new(seed));
    for round in 0..3000u64 {
        let len = random.next_u64() as usize % 1500;
        let mut bytes: Vec<u8> = (0..len).map(|_| random.next_u64() as u8).collect();
        // Two of three look like QUIC: a long head of version 1, or a short head.
        match (round % 3, bytes.first_chunk_mut::<5>()) {
            (0, Some(head)) => *head = [0xc0 | head[0], 0, 0, 0, 1],
            (1, Some(head)) => head[0] = 0x40 | (head[0] & 0x3f),
            _ => {}
        }
        let _ = socket.send_to(&bytes, at);
    }
}

#[test]
fn garbage_from_anywhere_changes_nothing_for_a_live_link() {
    let mut scene = Scene::new();
    for round in 0..4 {
        throw_garbage(scene.hub.address(), round);
        throw_garbage(scene.good.address(), round + 100);
        scene.good_edge_lives();
    }
    scene.hub.wait_for(|stats| (stats.links, stats.links_up) == (1, 1) && stats.udp_received > 1000);
}

#[test]
fn damaged_copies_of_real_packets_change_nothing_for_a_live_link() {
    let ca = Ca::new();
    let (mut hub, mut edge) = (Node::cloud(ca.issue("c/cloud/hub")), Node::edge(ca.issue("c/edge/a")));
    let relay = Relay::before(hub.address());
    relay.damage();
    edge.dial(1, relay.address, Expect::Node(hub.id.clone().unwrap()), Lane::Bus);
    let to_hub = up(&mut edge, Some(1), Some(hub.id()), Lane::Bus);
    let to_edge = up(&mut hub, None, Some(edge.id()), Lane::Bus);
    for round in 0..10u8 {
        edge.send(to_hub, Class::State, frame(vec![round; 50_000]));
        hub.send(to_edge, Class::State, frame(vec![round; 50_000]));
        assert!(hub.next_frame() == frame(vec![round; 50_000]));
        assert!(edge.next_frame() == frame(vec![round; 50_000]));
    }
}
