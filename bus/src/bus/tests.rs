//! A hub and its leaves in one thread: links are queues that never lose.

use std::time::Duration;

use super::*;
use crate::{Name, Topic};

fn now(ms: u64) -> Now {
    Now { mono: Mono(ms * 1000), wall: UnixMillis(1_000_000 + ms) }
}

fn edge(name: &str) -> NodeId {
    NodeId::edge(Name::new(name).unwrap())
}

fn filter(text: &str) -> Filter {
    Filter::new(text).unwrap()
}

fn message(topic: &str, origin: &NodeId) -> Message {
    Message::new(Topic::new(topic).unwrap(), "x".into(), false, origin.clone())
}

/// A star: node 0 is the hub, link n joins hub and node n.
struct Star {
    nodes: Vec<Bus>,
    seen: Vec<(usize, Output)>,
    may_speak: bool,
}

impl Star {
    fn new(leaves: &[&str]) -> Self {
        let hub = Bus::new(NodeId::cloud(Name::new("hub").unwrap()), Role::Hub);
        let mut nodes = vec![hub];
        nodes.extend(leaves.iter().map(|name| Bus::new(edge(name), Role::Leaf)));
        Self { nodes, seen: Vec::new(), may_speak: true }
    }

    fn link(&mut self, leaf: usize, link: u64) {
        let (hub, id) = (self.nodes[0].me.clone(), self.nodes[leaf].me.clone());
        self.nodes[0].handle_link_up(LinkId(link), id, now(0));
        self.nodes[leaf].handle_link_up(LinkId(link), hub, now(0));
        self.run();
    }

    fn run(&mut self) {
        loop {
            let mut moved = false;
            for index in 0..self.nodes.len() {
                while let Some(output) = self.nodes[index].poll_output() {
                    moved = true;
                    if let Output::Send { link, frame, .. } = &output {
                        let other = if index == 0 { (link.0 % 100) as usize } else { 0 };
                        self.nodes[other].handle_frame(*link, &frame.payload, now(10));
                    } else {
                        // This hub lets everybody speak.
                        if let Output::Offered { from, message } = &output
                            && self.may_speak
                        {
                            self.nodes[index].relay(from, message.clone(), now(10));
                        }
                        self.seen.push((index, output));
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn delivered(&mut self) -> Vec<(usize, String)> {
        let all = std::mem::take(&mut self.seen);
        all.into_iter()
            .filter_map(|(at, output)| {
                let Output::Deliver(m) = output else { return None };
                Some((at, m.topic.to_string()))
            })
            .collect()
    }
}

#[test]
fn a_message_reaches_those_who_asked_and_nobody_else() {
    let mut star = Star::new(&["a", "b", "c"]);
    (1..=3).for_each(|n| star.link(n, n as u64));
    star.nodes[2].subscribe(&filter("mesh/#"));
    star.run();
    let a = edge("a");
    star.nodes[1].publish(message("mesh/x", &a), now(0));
    star.run();
    assert_eq!(star.delivered(), [(2, "mesh/x".to_owned())]);
    assert_eq!(star.nodes[0].stats().forwarded, 1);
    assert_eq!(star.nodes[3].stats().delivered, 0);
}

#[test]
fn a_leaf_that_nobody_listens_to_sends_nothing() {
    let mut star = Star::new(&["a", "b"]);
    (1..=2).for_each(|n| star.link(n, n as u64));
    star.nodes[1].publish(message("mesh/x", &edge("a")), now(0));
    assert_eq!(star.nodes[1].poll_output(), None);
}

#[test]
fn interest_is_taken_back_with_the_last_subscriber() {
    let mut star = Star::new(&["a", "b"]);
    (1..=2).for_each(|n| star.link(n, n as u64));
    star.nodes[2].subscribe(&filter("mesh/#"));
    star.run();
    star.nodes[2].unsubscribe(&filter("mesh/#"));
    star.run();
    star.nodes[1].publish(message("mesh/x", &edge("a")), now(0));
    assert_eq!(star.nodes[1].poll_output(), None);
}

#[test]
fn a_subscriber_that_reconnects_is_asked_for_again() {
    let mut star = Star::new(&["a", "b"]);
    (1..=2).for_each(|n| star.link(n, n as u64));
    star.nodes[2].subscribe(&filter("mesh/#"));
    star.run();
    star.nodes[0].handle_link_down(LinkId(2), now(1));
    star.nodes[2].handle_link_down(LinkId(2), now(1));
    star.run();
    star.nodes[1].publish(message("mesh/lost", &edge("a")), now(0));
    star.run();
    star.link(2, 102);
    star.nodes[1].publish(message("mesh/x", &edge("a")), now(0));
    star.run();
    assert_eq!(star.delivered(), [(2, "mesh/x".to_owned())]);
}

#[test]
fn a_newer_link_replaces_a_half_open_one() {
    let mut star = Star::new(&["a"]);
    star.link(1, 1);
    star.link(1, 101);
    let hub_saw: Vec<_> = star.seen.iter().filter(|(at, _)| *at == 0).map(|(_, o)| o.clone()).collect();
    let a = edge("a");
    assert_eq!(
        hub_saw,
        [
            Output::PeerUp { peer: a.clone(), link: LinkId(1) },
            Output::Close { link: LinkId(1), why: CloseReason::Replaced },
            Output::PeerDown { peer: a.clone(), link: LinkId(1) },
            Output::PeerUp { peer: a.clone(), link: LinkId(101) },
        ]
    );
    assert_eq!(star.nodes[0].link_of(&a), Some(LinkId(101)));
}

#[test]
fn bytes_that_are_no_packet_close_the_link_and_only_that() {
    let mut star = Star::new(&["a", "b"]);
    (1..=2).for_each(|n| star.link(n, n as u64));
    star.seen.clear();
    star.nodes[0].handle_frame(LinkId(1), b"\xff\x00garbage", now(1));
    star.run();
    assert!(star.seen.contains(&(
        0,
        Output::Close { link: LinkId(1), why: CloseReason::Misbehaved(Misbehaviour::Malformed) }
    )));
    assert_eq!(star.nodes[0].peers().count(), 1);
}

#[test]
fn the_peers_clock_is_known_within_half_a_round_trip() {
    let mut star = Star::new(&["a"]);
    star.link(1, 1);
    let clock = star.nodes[1].clock_of(&star.nodes[0].me.clone(), now(10)).unwrap();
    assert!(clock.offset_ms.unsigned_abs() <= 10, "{clock:?}");
    assert!(clock.uncertainty <= Duration::from_millis(5));
}

#[test]
fn a_newly_wanted_filter_is_told_to_the_shell_for_replay() {
    let mut star = Star::new(&["a"]);
    star.link(1, 1);
    star.nodes[1].subscribe(&filter("twin/#"));
    star.run();
    assert!(star.seen.contains(&(0, Output::Wanted { peer: edge("a"), filter: filter("twin/#") })));
}

/// A message from `a` that the hub gets `delay_ms` after it was sent.
fn relayed_after(delay_ms: u64) -> Message {
    let mut star = Star::new(&["a", "b"]);
    (1..=2).for_each(|n| star.link(n, n as u64));
    star.nodes[2].subscribe(&filter("mesh/#"));
    star.run();
    star.nodes[1].publish(message("mesh/x", &edge("a")), now(20));
    let Some(Output::Send { link, frame, .. }) = star.nodes[1].poll_output() else { panic!("sent") };
    star.nodes[0].handle_frame(link, &frame.payload, now(20 + delay_ms));
    let Some(Output::Offered { from, message }) = star.nodes[0].poll_output() else { panic!("offered") };
    star.nodes[0].relay(&from, message, now(20 + delay_ms));
    let Some(Output::Send { link, frame, .. }) = star.nodes[0].poll_output() else { panic!("passed on") };
    star.nodes[2].handle_frame(link, &frame.payload, now(20 + delay_ms));
    let Some(Output::Deliver(message)) = star.nodes[2].poll_output() else { panic!("delivered") };
    message
}

#[test]
fn a_message_that_waited_for_its_link_says_so() {
    let near = |delay_ms: u64| {
        let travelled = relayed_after(delay_ms).travelled.unwrap();
        travelled.abs_diff(Duration::from_millis(delay_ms)) <= Duration::from_millis(20)
    };
    assert!(near(0));
    assert!(near(30_000));
}

#[test]
fn what_a_peer_says_is_passed_on_only_by_leave() {
    let mut star = Star::new(&["a", "b"]);
    star.may_speak = false;
    (1..=2).for_each(|n| star.link(n, n as u64));
    star.nodes[2].subscribe(&filter("twin/#"));
    star.run();
    star.nodes[1].publish(message("twin/x", &edge("a")), now(0));
    star.run();
    let offered = star.seen.iter().find_map(|(at, output)| {
        let Output::Offered { from, message } = output else { return None };
        (*at == 0).then(|| (from.clone(), message.clone()))
    });
    let (from, message) = offered.expect("offered to the hub's shell");
    assert_eq!(from, edge("a"));
    assert_eq!(star.delivered(), []);
    star.nodes[0].relay(&from, message, now(0));
    star.run();
    assert_eq!(star.delivered(), [(2, "twin/x".to_owned())]);
}

#[test]
fn many_filters_are_told_in_parts_and_too_many_cost_nobody_its_link() {
    let mut star = Star::new(&["a", "b", "c"]);
    star.link(1, 1);
    star.link(2, 2);
    for leaf in 1..=2 {
        (0..MAX_FILTERS_PER_PEER + 9)
            .for_each(|n| star.nodes[leaf].subscribe(&filter(&format!("mesh/{leaf}/{n}"))));
    }
    star.run();
    assert_eq!(star.nodes[0].stats().filters_refused, 18);
    star.link(3, 3);
    assert_eq!(star.nodes[0].peers().count(), 3, "the third hears of more filters than one may ask for");
    star.nodes[3].publish(message("mesh/2/77", &edge("c")), now(0));
    star.run();
    assert_eq!(star.delivered(), [(2, "mesh/2/77".to_owned())]);
}

/// Two leaves with a link of their own and no hub.
struct Neighbours([Bus; 2]);

impl Neighbours {
    fn new() -> Self {
        let mut nodes = ["a", "b"].map(|name| Bus::new(edge(name), Role::Leaf));
        nodes[0].handle_link_up(LinkId(1), edge("b"), now(0));
        nodes[1].handle_link_up(LinkId(1), edge("a"), now(0));
        let mut neighbours = Self(nodes);
        neighbours.run();
        neighbours
    }

    /// What is not said to each other.
    fn run(&mut self) -> Vec<(usize, Output)> {
        let mut seen = Vec::new();
        while let Some((at, output)) = (0..2).find_map(|at| Some((at, self.0[at].poll_output()?))) {
            if let Output::Send { frame, .. } = output {
                self.0[1 - at].handle_frame(LinkId(1), &frame.payload, now(10));
            } else if !matches!(output, Output::PeerUp { .. }) {
                seen.push((at, output));
            }
        }
        seen
    }
}

#[test]
fn a_neighbour_hears_by_the_hub_until_it_is_no_longer_in_reserve() {
    let mut both = Neighbours::new();
    both.0[1].subscribe(&filter("twin/#"));
    assert_eq!(both.run(), [], "nobody is asked for a replay yet");
    let said = message("twin/x", &edge("a"));
    both.0[0].publish(said.clone(), now(20));
    assert_eq!(both.run(), []);

    both.0[0].set_in_reserve(&edge("b"), false);
    let wanted = Output::Wanted { peer: edge("b"), filter: filter("twin/#") };
    assert_eq!(both.run(), [(0, wanted)]);
    both.0[0].set_in_reserve(&edge("b"), false);
    both.0[0].publish(said, now(30));
    let [(1, Output::Offered { from, message })] = &both.run()[..] else { panic!("not offered") };
    let (from, message) = (from.clone(), message.clone());
    assert_eq!(from, edge("a"));
    // It is for this leaf alone: it goes to no peer.
    both.0[1].relay(&from, message, now(40));
    assert!(matches!(&both.run()[..], [(1, Output::Deliver(_))]));

    both.0[0].set_in_reserve(&edge("b"), true);
    both.0[0].publish(self::message("twin/x", &edge("a")), now(50));
    assert_eq!(both.run(), []);
}

#[test]
fn a_neighbour_may_ask_for_as_much_as_any_leaf_and_a_hub_is_never_in_reserve() {
    let mut both = Neighbours::new();
    for number in 0..=MAX_FILTERS_PER_PEER {
        both.0[1].subscribe(&filter(&format!("twin/{number}")));
    }
    both.run();
    assert_eq!(both.0[0].stats().filters_refused, 1);

    let mut star = Star::new(&["a"]);
    star.link(1, 1);
    let hub = star.nodes[0].me.clone();
    star.nodes[1].set_in_reserve(&hub, true);
    star.nodes[0].subscribe(&filter("twin/#"));
    star.run();
    star.nodes[1].publish(message("twin/x", &edge("a")), now(20));
    star.run();
    assert!(star.seen.iter().any(|(at, output)| *at == 0 && matches!(output, Output::Offered { .. })));
}

#[test]
fn a_leaf_whose_peers_all_want_what_its_own_client_asks_for_tells_them_too() {
    let mut leaf = Bus::new(edge("c"), Role::Leaf);
    let peers = [NodeId::cloud(Name::new("hub").unwrap()), edge("n1"), edge("n2")];
    for (number, peer) in (1..).zip(&peers) {
        leaf.handle_link_up(LinkId(number), peer.clone(), now(0));
        let wish = Packet::Interest { add: vec![filter("twin/#")], remove: vec![] };
        leaf.handle_frame(LinkId(number), &minicbor::to_vec(&wish).unwrap(), now(0));
    }
    while leaf.poll_output().is_some() {}
    leaf.subscribe(&filter("twin/#"));
    let told =
        std::iter::from_fn(|| leaf.poll_output()).filter(|output| matches!(output, Output::Send { .. }));
    assert_eq!(told.count(), peers.len());
}
