//! Links between two edges, and who may make any link at all.

use std::time::{Duration, Instant};

use bus::Route;
use bus::bus::LinkId;
use router::io::shard::{Command, DialError, Event, Expect, Lane};

use crate::cluster::{Node, PATIENCE, connect, up};
use crate::namespace::in_own_network;
use crate::packets::{Edge, carry, star, unlinked_star};
use crate::relay::Relay;

/// A star whose edges know what lies behind the other.
fn acquainted() -> (Node, Edge, Edge) {
    let (hub, mut a, mut b) = star();
    let routes: Vec<Route> = a.routes().into_iter().chain(b.routes()).collect();
    for edge in [&mut a, &mut b] {
        edge.set_routes(&routes, &hub.id());
    }
    (hub, a, b)
}

/// `a` dials `b`, which lets it in, at `address`.
fn meet(a: &mut Edge, b: &mut Edge, address: std::net::SocketAddr) -> (LinkId, LinkId) {
    b.node.shard.send(Command::Knock { addresses: vec![a.node.address()] }).unwrap();
    a.node.dial(5, address, Expect::Node(b.node.id.clone().unwrap()), Lane::Packets);
    let at_a = up(&mut a.node, Some(5), Some(b.node.id()), Lane::Packets);
    a.node.admit(at_a);
    (at_a, up(&mut b.node, None, Some(a.node.id()), Lane::Packets))
}

#[test]
fn two_edges_that_have_met_need_no_hub() {
    in_own_network("neighbours::two_edges_that_have_met_need_no_hub", || {
        let (hub, mut a, mut b) = acquainted();
        let (at_a, at_b) = (a.udp(a.lease.v4.into()), b.udp(b.lease.v4.into()));
        carry(&at_a, &at_b, 100);
        carry(&at_b, &at_a, 100);
        let there = b.node.address();
        meet(&mut a, &mut b, there);
        hub.shard.send(Command::Stop).unwrap();
        hub.shard.join();
        for len in [1, 100, 1372] {
            carry(&at_a, &at_b, len);
            carry(&at_b, &at_a, len);
        }
    });
}

#[test]
fn an_edge_says_with_whom_its_hosts_talk() {
    in_own_network("neighbours::an_edge_says_with_whom_its_hosts_talk", || {
        let (_hub, mut a, mut b) = acquainted();
        let (at_a, at_b) = (a.udp(a.lease.v4.into()), b.udp(b.lease.v4.into()));
        let patience = Instant::now() + PATIENCE;
        while [&a, &b].iter().any(|edge| edge.node.talk.is_empty()) {
            carry(&at_a, &at_b, 1000);
            std::thread::sleep(Duration::from_millis(100));
            for edge in [&mut a, &mut b] {
                while let Ok(event) = edge.node.events.try_recv() {
                    let Event::Talk { peers } = event else { panic!("{event:?}") };
                    edge.node.talk.extend(peers);
                }
            }
            assert!(Instant::now() < patience, "nothing is said of talk");
        }
        assert!(matches!(&a.node.talk[0], (node, bytes) if *node == b.node.id() && *bytes >= 1028));
        assert!(matches!(&b.node.talk[0], (node, bytes) if *node == a.node.id() && *bytes >= 1028));
    });
}

#[test]
fn who_was_not_expected_gets_no_answer() {
    in_own_network("neighbours::who_was_not_expected_gets_no_answer", || {
        let (_hub, mut a, b) = unlinked_star();
        let expect = Expect::Node(b.node.id.clone().unwrap());
        // A knock at somebody else lets nobody but him in, and before one there is nothing to talk to at all.
        assert_eq!(a.node.fail(b.node.address(), expect.clone(), Lane::Packets), DialError::NoAnswer);
        b.node.shard.send(Command::Knock { addresses: vec!["192.0.2.1:1".parse().unwrap()] }).unwrap();
        assert_eq!(a.node.fail(b.node.address(), expect, Lane::Packets), DialError::NoAnswer);
        b.node.wait_for(|stats| stats.uninvited > 0 && stats.links == 0 && stats.unproven == 0);
    });
}

#[test]
fn packets_of_a_link_count_once_it_is_admitted() {
    in_own_network("neighbours::packets_of_a_link_count_once_it_is_admitted", || {
        let (mut hub, mut a, mut b) = unlinked_star();
        connect(&mut b.node, &mut hub, Lane::Packets);
        a.node.dial(1, hub.address(), Expect::Node(hub.id.clone().unwrap()), Lane::Packets);
        up(&mut a.node, Some(1), Some(hub.id()), Lane::Packets);
        let event = hub.next();
        let Event::Up { link, .. } = event else { panic!("{event:?}") };
        let (at_a, at_b) = (a.udp(a.lease.v4.into()), b.udp(b.lease.v4.into()));
        at_a.send_to(b"too early", at_b.local_addr().unwrap()).unwrap();
        hub.wait_for(|stats| stats.packets.not_admitted == 1);
        at_b.send_to(b"nowhere", at_a.local_addr().unwrap()).unwrap();
        hub.wait_for(|stats| stats.packets.no_lane == 1 && stats.packets.forwarded == 0);
        hub.admit(link);
        carry(&at_a, &at_b, 100);
        carry(&at_b, &at_a, 100);
    });
}

#[test]
fn a_neighbour_that_falls_silent_is_given_up_for_the_way_by_the_hub() {
    in_own_network("neighbours::a_neighbour_that_falls_silent_is_given_up_for_the_way_by_the_hub", || {
        let (hub, mut a, mut b) = acquainted();
        let (at_a, at_b) = (a.udp(a.lease.v4.into()), b.udp(b.lease.v4.into()));
        let relay = Relay::before(b.node.address());
        let (link, _) = meet(&mut a, &mut b, relay.address);
        carry(&at_a, &at_b, 100);
        let forwarded = hub.shard.stats().packets.forwarded;
        assert_eq!(forwarded, 0, "they are neighbours");
        relay.narrow(1);
        at_a.send_to(b"lost", at_b.local_addr().unwrap()).unwrap();
        let event = a.node.next();
        let Event::Down { link: gone, why, .. } = &event else { panic!("{event:?}") };
        assert_eq!((*gone, why.as_str()), (link, "no answer from the peer"));
        carry(&at_a, &at_b, 100);
        hub.wait_for(|stats| stats.packets.forwarded > 0);
    });
}

#[test]
fn a_peer_that_moves_is_told_of() {
    in_own_network("neighbours::a_peer_that_moves_is_told_of", || {
        let (mut hub, mut a, _b) = unlinked_star();
        let relay = Relay::before(hub.address());
        a.node.dial(1, relay.address, Expect::Node(hub.id.clone().unwrap()), Lane::Packets);
        up(&mut a.node, Some(1), Some(hub.id()), Lane::Packets);
        let link = up(&mut hub, None, Some(a.node.id()), Lane::Packets);
        relay.rebind();
        // Something must come from the new port.
        let at_a = a.udp(a.lease.v4.into());
        let patience = Instant::now() + PATIENCE;
        let event = loop {
            at_a.send_to(b"here", (hub_address(), 9)).unwrap();
            match hub.events.try_recv() {
                Ok(event) => break event,
                Err(_) => assert!(Instant::now() < patience, "no word of the move"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(matches!(&event, Event::Moved { link: moved, .. } if *moved == link), "{event:?}");
    });
}

/// Any address of the pool: it goes to the hub.
fn hub_address() -> std::net::Ipv4Addr {
    [10, 86, 0, 99].into()
}
