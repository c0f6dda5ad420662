//! What a link does for its owner.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bus::bus::LinkId;
use bus::{Class, Frame};
use router::io::shard::{
    Command, Credentials, DialError, Event, Expect, Lane, ShardConfig, SpawnError, Stopped, spawn,
};

use crate::cluster::{Ca, Node, connect, frame, loopback, up};
use crate::relay::Relay;

/// A hub and one edge, not yet linked.
fn pair() -> (Node, Node) {
    let ca = Ca::new();
    (Node::cloud(ca.issue("c/cloud/hub")), Node::edge(ca.issue("c/edge/a")))
}

/// The same with a keepalive of 0.3 s and an idle time of 2 s.
fn impatient_pair() -> (Node, Node) {
    let ca = Ca::new();
    let config = |name| ShardConfig {
        keepalive: Duration::from_millis(300),
        idle: Duration::from_secs(2),
        ..ShardConfig::new(loopback(), Some(ca.issue(name)))
    };
    (Node::start(ShardConfig { accept: true, ..config("c/cloud/hub") }), Node::start(config("c/edge/a")))
}

/// Links `edge` to `cloud` through a relay.
fn connect_through(relay: &Relay, edge: &mut Node, cloud: &mut Node) -> (LinkId, LinkId) {
    edge.dial(1, relay.address, Expect::Node(cloud.id.clone().unwrap()), Lane::Bus);
    (up(edge, Some(1), Some(cloud.id()), Lane::Bus), up(cloud, None, Some(edge.id()), Lane::Bus))
}

/// Numbered frames of 64 KiB.
fn large(number: u32) -> Frame {
    let mut payload = vec![number as u8; 64 << 10];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    frame(payload)
}

fn number(frame: &Frame) -> u32 {
    u32::from_be_bytes(*frame.payload.first_chunk().unwrap())
}

#[test]
fn frames_of_every_class_arrive_in_both_directions() {
    let (mut cloud, mut edge) = pair();
    let (up, down) = connect(&mut edge, &mut cloud, Lane::Bus);
    for class in Class::ALL {
        edge.send(up, class, frame(format!("up {class:?}")));
        assert_eq!(cloud.next_frame(), frame(format!("up {class:?}")));
        cloud.send(down, class, frame(format!("down {class:?}")));
        assert_eq!(edge.next_frame(), frame(format!("down {class:?}")));
    }
}

#[test]
fn more_than_a_window_passes_in_both_directions_at_once() {
    let (mut cloud, mut edge) = pair();
    let (up, down) = connect(&mut edge, &mut cloud, Lane::Bus);
    let frames: Vec<Frame> = (0..30).map(large).collect();
    for frame in &frames {
        edge.send(up, Class::State, frame.clone());
        cloud.send(down, Class::Bulk, frame.clone());
    }
    let received = |node: &mut Node| (0..30).map(|_| node.next_frame()).collect::<Vec<_>>();
    assert!(received(&mut cloud) == frames);
    assert!(received(&mut edge) == frames);
}

#[test]
fn a_full_queue_drops_the_newest_of_a_class_that_may_lose_and_counts_them() {
    const SENT: u64 = 400;
    let (mut cloud, mut edge) = pair();
    let (up, _) = connect(&mut edge, &mut cloud, Lane::Bus);
    // The cloud's owner reads nothing, so frames pile up to every bound on the way.
    (0..SENT as u32).for_each(|n| edge.send(up, Class::Telemetry, large(n)));
    edge.wait_for(|stats| stats.frames_sent + stats.frames_dropped == SENT);
    let dropped = edge.shard.stats().frames_dropped;
    assert!((1..SENT).contains(&dropped), "{dropped}");
    let arrived: Vec<u32> = (dropped..SENT).map(|_| number(&cloud.next_frame())).collect();
    assert!(arrived.is_sorted_by(|a, b| a < b), "{arrived:?}");
    edge.send(up, Class::Telemetry, frame("still up"));
    assert_eq!(cloud.next_frame(), frame("still up"));
}

#[test]
fn a_full_queue_of_another_class_ends_the_link() {
    let (mut cloud, mut edge) = pair();
    let (up, _) = connect(&mut edge, &mut cloud, Lane::Bus);
    (0..400).for_each(|n| edge.send(up, Class::State, large(n)));
    assert_eq!(edge.next_down(), "too slow: its State frames no longer fit the send queue");
    let why = loop {
        match cloud.next() {
            Event::Frame { .. } => {}
            Event::Down { why, .. } => break why,
            other @ (Event::Up { .. }
            | Event::Failed { .. }
            | Event::Moved { .. }
            | Event::Talk { .. }
            | Event::Report { .. }) => panic!("{other:?}"),
        }
    };
    assert_eq!(why, "closed by the peer: too slow: its State frames no longer fit the send queue");
}

#[test]
fn a_frame_longer_than_any_peer_takes_ends_the_link_and_not_the_shard() {
    let (mut cloud, mut edge) = pair();
    let (up, _) = connect(&mut edge, &mut cloud, Lane::Bus);
    edge.send(up, Class::Bulk, frame(vec![0; bus::frame::MAX_FRAME_LEN]));
    assert_eq!(edge.next_down(), "cannot send a frame of 1048576 bytes");
    assert_eq!(cloud.next_down(), "closed by the peer: cannot send a frame of 1048576 bytes");
    connect(&mut edge, &mut cloud, Lane::Bus);
}

#[test]
fn a_closed_link_tells_both_ends_why_and_takes_no_more_frames() {
    let (mut cloud, mut edge) = pair();
    let (up, down) = connect(&mut edge, &mut cloud, Lane::Bus);
    cloud.shard.send(Command::Close { link: down, reason: "revoked".into() }).unwrap();
    let peer = Some(edge.id());
    assert_eq!(cloud.next(), Event::Down { link: down, peer, why: "revoked".into() });
    let peer = Some(cloud.id());
    assert_eq!(edge.next(), Event::Down { link: up, peer, why: "closed by the peer: revoked".into() });
    edge.send(up, Class::Control, frame("too late"));
    connect(&mut edge, &mut cloud, Lane::Bus);
    edge.wait_for(|stats| (stats.frames_without_link, stats.links) == (1, 1));
}

#[test]
fn a_stopping_node_delivers_what_was_queued_and_then_says_goodbye() {
    let (mut cloud, mut edge) = pair();
    let (up, _) = connect(&mut edge, &mut cloud, Lane::Bus);
    (0..20).for_each(|n| edge.send(up, Class::State, large(n)));
    edge.shard.send(Command::Stop).unwrap();
    let arrived: Vec<u32> = (0..20).map(|_| number(&cloud.next_frame())).collect();
    assert_eq!(arrived, (0..20).collect::<Vec<_>>());
    assert_eq!(cloud.next_down(), "closed by the peer: the node stops");
    edge.shard.join();
    assert_eq!(edge.next_down(), "the node stops");
    assert_eq!(edge.events.blocking_recv(), None);
    assert_eq!(edge.shard.send(Command::Stop), Err(Stopped));
}

#[test]
fn a_shard_that_nobody_holds_stops() {
    let (mut cloud, mut edge) = pair();
    connect(&mut edge, &mut cloud, Lane::Bus);
    let Node { shard, mut events, .. } = edge;
    drop(shard);
    assert!(matches!(events.blocking_recv(), Some(Event::Down { .. })));
    assert_eq!(events.blocking_recv(), None);
    assert_eq!(cloud.next_down(), "closed by the peer: the node stops");
}

#[test]
fn a_vanished_peer_is_noticed_by_either_side() {
    let (mut cloud, mut edge) = impatient_pair();
    let relay = Relay::before(cloud.address());
    connect_through(&relay, &mut edge, &mut cloud);
    drop(relay);
    assert_eq!(edge.next_down(), "no sign of life from the peer");
    assert_eq!(cloud.next_down(), "no sign of life from the peer");
}

#[test]
fn a_frame_that_waited_for_a_cut_path_arrives_soon_after_its_return() {
    let (mut cloud, mut edge) = pair();
    let relay = Relay::before(cloud.address());
    let (link, _) = connect_through(&relay, &mut edge, &mut cloud);
    relay.narrow(1);
    // Far more than the congestion window holds: it must not hold back the question whether the path is back.
    edge.send(link, Class::State, frame("waits"));
    (0..100).for_each(|_| edge.send(link, Class::Event, frame(vec![0; 2000])));
    std::thread::sleep(Duration::from_secs(9));
    relay.narrow(0);
    let back = Instant::now();
    assert_eq!(cloud.next_frame().payload, "waits");
    // By then QUIC's own probes are 8 s apart, or 13 s.
    assert!(back.elapsed() < Duration::from_secs(3), "{:?}", back.elapsed());
}

#[test]
fn a_restarted_peer_is_noticed_with_the_next_packet() {
    let ca = Ca::new();
    let (before, after) = (ca.issue("c/cloud/hub"), ca.issue("c/cloud/other"));
    let config = |own: &Credentials| ShardConfig {
        keepalive: Duration::from_millis(300),
        ..ShardConfig::new(loopback(), Some(own.clone()))
    };
    let mut cloud = Node::start(ShardConfig { accept: true, ..config(&before) });
    let mut edge = Node::start(config(&ca.issue("c/edge/a")));
    let relay = Relay::before(cloud.address());
    connect_through(&relay, &mut edge, &mut cloud);
    // Another node with another key cannot end what it does not know.
    let stranger = Node::cloud(after);
    relay.turn_to(stranger.address());
    stranger.wait_for(|stats| stats.udp_received > 2);
    assert!(edge.events.try_recv().is_err());
    let restarted = Node::cloud(before);
    relay.turn_to(restarted.address());
    assert_eq!(edge.next_down(), "the peer no longer knows this link: it was restarted");
}

#[test]
fn a_node_with_ipv6_reaches_clouds_of_both_families_and_one_without_says_so() {
    let ca = Ca::new();
    let mut cloud = Node::cloud(ca.issue("c/cloud/hub"));
    let any = "[::]:0".parse().unwrap();
    let mut edge = Node::start(ShardConfig::new(any, Some(ca.issue("c/edge/a"))));
    let expect = Expect::Node(cloud.id.clone().unwrap());
    edge.dial(1, cloud.address(), expect.clone(), Lane::Bus);
    let event = edge.next();
    assert!(matches!(&event, Event::Up { remote, .. } if *remote == cloud.address()), "{event:?}");
    let v6 = "[::1]:9".parse().unwrap();
    let why = "our socket is for IPv4 only".to_owned();
    let Event::Up { link, attempt: None, peer: Some((peer, _)), remote, lane: Lane::Bus } = cloud.next()
    else {
        panic!("the edge's link comes up");
    };
    let from = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, edge.address().port()));
    assert_eq!((link, peer, remote), (LinkId(1), edge.id(), from));
    assert_eq!(cloud.fail(v6, expect, Lane::Bus), DialError::Address { address: v6, why });
}

#[test]
fn a_quiet_link_stays_up() {
    let (mut cloud, mut edge) = impatient_pair();
    let (up, _) = connect(&mut edge, &mut cloud, Lane::Bus);
    std::thread::sleep(Duration::from_secs(4));
    edge.send(up, Class::Event, frame("still here"));
    assert_eq!(cloud.next_frame(), frame("still here"));
}

#[test]
fn a_link_survives_a_nat_that_forgets_it() {
    let (mut cloud, mut edge) = impatient_pair();
    let relay = Relay::before(cloud.address());
    let (up, down) = connect_through(&relay, &mut edge, &mut cloud);
    for round in 0..3 {
        relay.rebind();
        edge.send(up, Class::State, large(round));
        assert_eq!(cloud.next_frame(), large(round));
        cloud.send(down, Class::State, large(round));
        assert_eq!(edge.next_frame(), large(round));
    }
}

#[test]
fn a_newer_link_of_a_node_takes_the_place_of_the_older() {
    let (mut cloud, mut edge) = pair();
    let (_, older) = connect(&mut edge, &mut cloud, Lane::Bus);
    edge.dial(2, cloud.address(), Expect::Node(cloud.id.clone().unwrap()), Lane::Bus);
    let why = "replaced by a newer link of the same node".to_owned();
    assert_eq!(cloud.next(), Event::Down { link: older, peer: Some(edge.id()), why });
    let newer = up(&mut cloud, None, Some(edge.id()), Lane::Bus);
    cloud.send(newer, Class::Command, frame("on the newer"));
    let mut seen = [edge.next(), edge.next(), edge.next()];
    seen.sort_by_key(|event| match event {
        Event::Up { .. } => 0,
        Event::Frame { .. } => 1,
        Event::Down { .. }
        | Event::Failed { .. }
        | Event::Moved { .. }
        | Event::Talk { .. }
        | Event::Report { .. } => 2,
    });
    assert!(
        matches!(&seen, [Event::Up { link, .. }, Event::Frame { link: on, .. }, Event::Down { link: gone, .. }]
            if link == on && gone != on),
        "{seen:?}"
    );
    cloud.wait_for(|stats| stats.links == 1);
}

#[test]
fn one_of_a_nodes_name_that_is_turned_away_hides_none_of_its_links() {
    let ca = Ca::new();
    let mut cloud = Node::cloud(ca.issue("c/cloud/hub"));
    let [mut edge, mut former] = [(); 2].map(|()| Node::edge(ca.issue("c/edge/a")));
    let (_, older) = connect(&mut edge, &mut cloud, Lane::Bus);
    let (_, theirs) = connect(&mut former, &mut cloud, Lane::Bus);
    cloud.shard.send(Command::Close { link: theirs, reason: "not a member".into() }).unwrap();
    assert_eq!(cloud.next_down(), "not a member");
    edge.dial(2, cloud.address(), Expect::Node(cloud.id.clone().unwrap()), Lane::Bus);
    let why = "replaced by a newer link of the same node".to_owned();
    assert_eq!(cloud.next(), Event::Down { link: older, peer: Some(edge.id()), why });
}

#[test]
fn dialling_into_the_void_fails_for_want_of_an_answer() {
    let (Node { id, .. }, mut edge) = pair();
    let silent = std::net::UdpSocket::bind(loopback()).unwrap();
    let expect = Expect::Node(id.unwrap());
    assert_eq!(edge.fail(silent.local_addr().unwrap(), expect.clone(), Lane::Bus), DialError::NoAnswer);
    let nowhere = "127.0.0.1:0".parse().unwrap();
    let error = edge.fail(nowhere, expect, Lane::Bus);
    assert!(matches!(error, DialError::Address { address, .. } if address == nowhere), "{error}");
}

#[test]
fn a_config_that_would_storm_or_never_end_is_refused() {
    let ca = Ca::new();
    let config = || ShardConfig::new(loopback(), Some(ca.issue("c/edge/a")));
    let storm = spawn(ShardConfig { keepalive: Duration::ZERO, ..config() }).unwrap_err();
    assert!(matches!(storm, SpawnError::Keepalive));
    for idle in [Duration::from_secs(15), Duration::from_secs(601)] {
        assert!(matches!(spawn(ShardConfig { idle, ..config() }).unwrap_err(), SpawnError::Idle), "{idle:?}");
    }
    let nobody = ShardConfig { accept: true, ..ShardConfig::new(loopback(), None) };
    assert!(matches!(spawn(nobody).unwrap_err(), SpawnError::NoCredentials));
    let taken = Node::edge(ca.issue("c/edge/a"));
    let busy = spawn(ShardConfig { listen: taken.address(), ..config() }).unwrap_err();
    assert!(matches!(busy, SpawnError::Bind { address, .. } if address == taken.address()));
}
