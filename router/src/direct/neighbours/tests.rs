use super::*;
use bus::Name;

fn edge(name: &str) -> NodeId {
    NodeId::edge(Name::new(name).unwrap())
}

fn at(seconds: u64) -> Mono {
    Mono(seconds * 1_000_000)
}

fn key() -> KeyHash {
    KeyHash::of_spki(b"b")
}

fn there() -> Vec<SocketAddr> {
    vec!["192.168.1.2:4000".parse().unwrap(), "192.0.2.2:1002".parse().unwrap()]
}

const PACKETS: LinkId = LinkId(10);
const BUS: LinkId = LinkId(11);

/// a, with its hub, which has talked enough to b to wish for it.
struct Edge(Neighbours);

impl Edge {
    fn talking() -> Self {
        let mut edge = Self(Neighbours::new(2, 7, true));
        edge.0.handle_hub(true, at(0));
        edge.0.handle_talk(&self::edge("b"), BULK, at(0));
        assert_eq!(edge.said(), [Output::Wish { peer: self::edge("b") }]);
        edge
    }

    /// Introduced to b.
    fn meeting(dials: bool) -> Self {
        let mut edge = Self::talking();
        edge.0.handle_meet(&self::edge("b"), key(), (there(), dials), at(1));
        edge
    }

    /// With both lanes.
    fn direct(dials: bool) -> Self {
        let mut edge = Self::meeting(dials);
        let b = (&self::edge("b"), key());
        if dials {
            let first = edge.dials(LaneOf::Packets)[0].0;
            edge.0.handle_failed(first, at(2));
            let second = edge.dials(LaneOf::Packets)[0].0;
            edge.0.handle_dialled(second, PACKETS, b, at(2));
            let attempts = edge.dials(LaneOf::Bus);
            edge.0.handle_dialled(attempts[0].0, BUS, b, at(2));
        } else {
            assert_eq!(edge.accept(LaneOf::Packets, PACKETS, 2), Accepted::Yes);
            assert_eq!(edge.accept(LaneOf::Bus, BUS, 2), Accepted::Yes);
        }
        let said = edge.said();
        assert!(said.contains(&Output::BusUp { link: BUS, peer: self::edge("b") }), "{said:?}");
        edge
    }

    fn said(&mut self) -> Vec<Output> {
        let said = std::iter::from_fn(|| self.0.poll_output());
        said.filter(|output| !matches!(output, Output::Note(_))).collect()
    }

    fn dials(&mut self, wanted: LaneOf) -> Vec<(u64, SocketAddr)> {
        let dial = |output| {
            let Output::Dial { attempt, lane, address, .. } = output else { return None };
            (lane == wanted).then_some((attempt, address))
        };
        self.said().into_iter().filter_map(dial).collect()
    }

    fn accept(&mut self, lane: LaneOf, link: LinkId, second: u64) -> Accepted {
        let b = (&edge("b"), key());
        match lane {
            LaneOf::Packets => self.0.handle_packets_accepted(link, b, there()[1], at(second)),
            LaneOf::Bus => self.0.handle_bus_accepted(link, b),
        }
    }

    /// No dial arrives; how many there were.
    fn fail_to_meet(&mut self, now: Mono) -> usize {
        let mut dials = 0;
        while let Some((attempt, _)) = self.dials(LaneOf::Packets).pop() {
            self.0.handle_failed(attempt, now);
            dials += 1;
        }
        dials
    }

    /// Lets time pass to its next step.
    fn pass(&mut self) -> Mono {
        let (at, _) = self.0.poll_timeout().expect("something is to come");
        self.0.handle_timeout(at);
        at
    }

    fn path(&self) -> PathView {
        self.0.views().into_iter().next().expect("b is known")
    }
}

#[test]
fn a_node_is_wished_for_after_seconds_of_talk_without_a_pause() {
    let mut edge = Edge(Neighbours::new(2, 7, true));
    edge.0.handle_hub(true, at(0));
    for second in [0, 1, 2, 3, 8, 9, 10, 11] {
        edge.0.handle_talk(&self::edge("b"), 100, at(second));
    }
    assert_eq!(edge.said(), []);
    edge.0.handle_talk(&self::edge("b"), 100, at(12));
    assert_eq!(edge.said(), [Output::Wish { peer: self::edge("b") }]);
    edge.0.handle_talk(&self::edge("b"), 100, at(13));
    assert_eq!(edge.said(), [], "not every second");
    for second in 14..28 {
        edge.0.handle_talk(&self::edge("b"), 100, at(second));
    }
    assert_eq!(edge.said(), [Output::Wish { peer: self::edge("b") }], "once in 15 s");
}

#[test]
fn without_a_hub_or_where_it_is_switched_off_nobody_is_wished_for() {
    for (is_enabled, hub) in [(true, false), (false, true)] {
        let mut edge = Edge(Neighbours::new(2, 7, is_enabled));
        edge.0.handle_hub(hub, at(0));
        edge.0.handle_talk(&self::edge("b"), BULK, at(0));
        assert_eq!(edge.said(), []);
    }
}

#[test]
fn who_dials_takes_the_first_way_that_answers_and_then_makes_the_second_lane() {
    let mut edge = Edge::meeting(true);
    let first = edge.dials(LaneOf::Packets);
    assert_eq!(first.iter().map(|(_, address)| *address).collect::<Vec<_>>(), there()[..1], "one at a time");
    edge.0.handle_failed(first[0].0, at(2));
    let second = edge.dials(LaneOf::Packets);
    assert_eq!(second.iter().map(|(_, address)| *address).collect::<Vec<_>>(), there()[1..]);
    assert!(edge.0.owns(first[0].0) && edge.0.owns(second[0].0));
    let b = self::edge("b");
    edge.0.handle_dialled(first[0].0, LinkId(12), (&b, key()), at(2));
    assert!(matches!(edge.said()[..], [Output::Close { link: LinkId(12), .. }]), "it had failed");
    edge.0.handle_dialled(second[0].0, PACKETS, (&b, key()), at(2));
    assert!(edge.0.is_direct(&b));
    let said = edge.said();
    assert_eq!(said[0], Output::Admit { link: PACKETS });
    let [_, Output::Dial { attempt, lane: LaneOf::Bus, address, .. }] = said[..] else { panic!("{said:?}") };
    assert_eq!(address, there()[1]);
    edge.0.handle_dialled(attempt, BUS, (&b, key()), at(3));
    let said = edge.said();
    assert_eq!(said[0], Output::BusUp { link: BUS, peer: b.clone() });
    assert_eq!(said[1], Output::Upstream { link: BUS, connected: true });
    assert_eq!(said[2], Output::Reserve { peer: b, in_reserve: true });
    assert_eq!(edge.path().direct, Some(there()[1]));
}

#[test]
fn who_waits_knocks_until_it_is_dialled_and_lets_nobody_else_in() {
    let mut edge = Edge::meeting(false);
    assert_eq!(edge.said(), [Output::Knock { addresses: there() }]);
    assert_eq!(edge.pass(), at(1) + KNOCK_EVERY);
    assert_eq!(edge.said(), [Output::Knock { addresses: there() }]);
    let remote = there()[0];
    let other_key = (&self::edge("b"), KeyHash::of_spki(b"other"));
    assert_eq!(edge.0.handle_packets_accepted(PACKETS, other_key, remote, at(2)), Accepted::No);
    let other_name = (&self::edge("c"), key());
    assert_eq!(edge.0.handle_packets_accepted(PACKETS, other_name, remote, at(2)), Accepted::No);
    assert_eq!(edge.accept(LaneOf::Bus, BUS, 2), Accepted::No, "packets first");
    assert_eq!(edge.accept(LaneOf::Packets, PACKETS, 2), Accepted::Yes);
    assert!(edge.0.is_direct(&self::edge("b")));
    assert_eq!(edge.accept(LaneOf::Bus, BUS, 2), Accepted::Yes);
}

#[test]
fn who_dials_is_not_dialled_and_an_uninvited_introduction_is_ignored() {
    let mut edge = Edge::meeting(true);
    assert_eq!(edge.accept(LaneOf::Packets, PACKETS, 2), Accepted::No);
    edge.said();
    edge.0.handle_meet(&self::edge("c"), key(), (there(), true), at(2));
    assert_eq!(edge.said(), []);
}

#[test]
fn another_key_than_the_hub_named_is_no_neighbour() {
    let mut edge = Edge::meeting(true);
    let attempt = edge.dials(LaneOf::Packets)[0].0;
    edge.0.handle_dialled(attempt, PACKETS, (&self::edge("b"), KeyHash::of_spki(b"other")), at(2));
    assert!(matches!(edge.said()[..], [Output::Close { link: PACKETS, .. }]));
    assert!(!edge.0.is_direct(&self::edge("b")));
}

#[test]
fn a_pair_that_cannot_meet_rests_longer_each_time_and_says_why_it_stays_with_the_hub() {
    let mut edge = Edge::talking();
    let (mut now, mut longest) = (at(1), Duration::ZERO);
    for failed in 1..12 {
        edge.0.handle_meet(&self::edge("b"), key(), (there(), true), now);
        edge.fail_to_meet(now);
        let path = edge.path();
        assert_eq!((path.direct, path.failed), (None, failed));
        assert!(path.because.unwrap().contains("symmetric NAT"), "{path:?}");
        let begun = now;
        while edge.said().is_empty() {
            now = now + Duration::from_secs(1);
            assert!(now.since(begun) <= REST + LONGEST_WAIT + Duration::from_secs(5));
            edge.0.handle_talk(&self::edge("b"), BULK, now);
        }
        assert!(now.since(begun) >= REST);
        longest = longest.max(now.since(begun));
    }
    assert!(longest > Duration::from_secs(60), "{longest:?}");
}

#[test]
fn a_meeting_that_nobody_came_to_is_over_after_a_while() {
    let mut edge = Edge::meeting(false);
    let mut last = at(1);
    while matches!(edge.0.known[&self::edge("b")].phase, Phase::Meeting { .. }) {
        last = edge.pass();
    }
    assert_eq!(last, at(1) + 2 * MEET_FOR, "for each of two addresses");
    assert_eq!(edge.accept(LaneOf::Packets, PACKETS, 20), Accepted::No);
}

#[test]
fn a_link_that_held_is_wished_for_again_soon_and_its_bus_lane_goes_with_it() {
    let mut edge = Edge::direct(true);
    let lost = at(2) + PROVEN_AFTER;
    edge.0.handle_down(PACKETS, lost);
    assert!(edge.said().contains(&Output::Close { link: BUS, why: "the other lane is gone" }));
    assert_eq!(edge.0.known[&self::edge("b")].failed, 0);
    edge.0.handle_talk(&self::edge("b"), BULK, lost + REST + FIRST_WAIT);
    assert_eq!(edge.said(), [Output::Wish { peer: self::edge("b") }]);
}

#[test]
fn a_bus_lane_that_is_lost_is_dialled_again_by_who_dialled_it() {
    let mut dialler = Edge::direct(true);
    dialler.0.handle_down(BUS, at(5));
    assert_eq!(dialler.said(), []);
    dialler.0.handle_timeout(at(5) + REST);
    let attempt = dialler.dials(LaneOf::Bus)[0].0;
    dialler.0.handle_failed(attempt, at(11));
    assert!(dialler.0.is_direct(&edge("b")), "packets go on");
    dialler.0.handle_timeout(at(11) + REST);
    assert_eq!(dialler.dials(LaneOf::Bus).len(), 1);

    let mut waiter = Edge::direct(false);
    waiter.0.handle_down(BUS, at(5));
    assert_eq!(waiter.accept(LaneOf::Bus, LinkId(12), 11), Accepted::Yes);
}

#[test]
fn a_neighbour_is_in_reserve_while_both_reach_the_hub() {
    let mut edge = Edge::direct(false);
    let reserve = |in_reserve| Output::Reserve { peer: self::edge("b"), in_reserve };
    edge.0.handle_upstream(BUS, false);
    assert_eq!(edge.said(), [reserve(false)]);
    edge.0.handle_upstream(BUS, true);
    assert_eq!(edge.said(), [reserve(true)]);
    edge.0.handle_hub(false, at(5));
    assert_eq!(edge.said(), [Output::Upstream { link: BUS, connected: false }, reserve(false)]);
    edge.0.handle_upstream(BUS, true);
    assert_eq!(edge.said(), [reserve(false)], "we do not reach it");
}

#[test]
fn without_a_hub_lost_neighbours_try_again_where_they_met() {
    let mut dialler = Edge::direct(true);
    dialler.0.handle_hub(false, at(5));
    dialler.0.handle_down(PACKETS, at(6));
    dialler.said();
    for _ in 0..5 {
        let began = dialler.pass();
        assert_eq!(dialler.fail_to_meet(began), 2, "{began:?}");
        let (next, _) = dialler.0.poll_timeout().unwrap();
        assert!(next.since(began) <= REST + LONGEST_WAIT_ALONE);
    }

    let mut waiter = Edge::direct(false);
    waiter.0.handle_hub(false, at(5));
    waiter.0.handle_down(PACKETS, at(6));
    waiter.said();
    let mut now = at(6);
    while now < at(120) {
        now = waiter.pass();
    }
    let knocks = waiter.said().len();
    assert!((20..40).contains(&knocks), "{knocks} in two minutes");
    assert_eq!(waiter.accept(LaneOf::Packets, PACKETS, 121), Accepted::Yes);
}

#[test]
fn a_link_on_which_nobody_talks_is_closed_unless_it_is_all_there_is() {
    let mut edge = Edge::direct(true);
    edge.0.handle_hub(false, at(5));
    edge.0.handle_timeout(at(2) + 2 * IDLE_AFTER);
    assert!(edge.0.is_direct(&self::edge("b")));
    edge.0.handle_hub(true, at(6));
    edge.said();
    assert_eq!(edge.pass(), at(2) + IDLE_AFTER);
    let closed = |link| Output::Close { link, why: "nobody talks on it" };
    assert_eq!(edge.said(), [closed(PACKETS), closed(BUS)]);
    edge.0.handle_down(PACKETS, at(700));
    assert_eq!((edge.said(), edge.0.views()), (vec![], vec![]));
}

#[test]
fn links_and_talk_are_bounded() {
    let mut edge = Edge(Neighbours::new(2, 7, true));
    edge.0.handle_hub(true, at(0));
    let name = |number: usize| self::edge(&format!("n{number}"));
    for number in 0..=MAX_DIRECT {
        edge.0.handle_talk(&name(number), BULK, at(0));
        edge.0.handle_meet(&name(number), key(), (there(), false), at(0));
        let link = LinkId(number as u64);
        let from = (&name(number), key());
        let accepted = edge.0.handle_packets_accepted(link, from, there()[0], at(0));
        assert_eq!(accepted, Accepted::Yes, "{number}");
        if number + 1 == MAX_DIRECT {
            edge.said();
            edge.0.handle_talk(&self::edge("late"), BULK, at(0));
            assert_eq!(edge.said(), [], "no room for another link");
            break;
        }
    }
    for number in 0..2 * MAX_KNOWN {
        edge.0.handle_talk(&name(number), 1, at(1));
    }
    assert_eq!(edge.0.known.len(), MAX_KNOWN);
    edge.0.handle_talk(&name(2 * MAX_KNOWN), 1, at(60));
    assert!(edge.0.known.len() <= MAX_DIRECT + 2, "those that fell silent made room");
}

#[test]
fn a_neighbour_that_lost_its_link_first_is_taken_back() {
    let mut waiter = Edge::direct(false);
    assert_eq!(waiter.accept(LaneOf::Packets, LinkId(20), 30), Accepted::Yes);
    let said = waiter.said();
    assert!(said.iter().any(|output| matches!(output, Output::Close { link: PACKETS, .. })), "{said:?}");
    waiter.0.handle_down(PACKETS, at(31));
    assert!(waiter.0.is_direct(&edge("b")));

    let mut dialler = Edge::direct(true);
    dialler.0.handle_meet(&edge("b"), key(), (there(), true), at(30));
    let said = dialler.said();
    let dials = said.iter().filter(|output| matches!(output, Output::Dial { .. })).count();
    let closes = said.iter().filter(|output| matches!(output, Output::Close { .. })).count();
    assert_eq!((dials, closes), (1, 2));
}

#[test]
fn who_is_no_member_any_more_is_no_neighbour() {
    let mut edge = Edge::direct(false);
    edge.0.retain(|node| *node == self::edge("b"));
    assert_eq!(edge.said(), []);
    edge.0.retain(|_| false);
    let closed = |link| Output::Close { link, why: "not a member of this cluster any more" };
    assert_eq!(edge.said(), [closed(PACKETS), closed(BUS)]);
    assert_eq!(edge.accept(LaneOf::Packets, PACKETS, 3), Accepted::No);
}

#[test]
fn what_was_wished_for_is_tried_where_they_met_once_the_hub_is_gone_but_not_for_ever() {
    let mut edge = Edge::direct(true);
    let lost = at(2) + PROVEN_AFTER;
    edge.0.handle_down(PACKETS, lost);
    let wished = lost + REST + FIRST_WAIT;
    edge.0.handle_talk(&self::edge("b"), BULK, wished);
    assert!(edge.said().contains(&Output::Wish { peer: self::edge("b") }));
    edge.0.handle_hub(false, wished);
    assert!(edge.pass() <= wished + REST);
    assert_eq!(edge.fail_to_meet(wished), 2);
    let mut now = wished;
    while let Some((at, _)) = edge.0.poll_timeout() {
        assert!(at > now, "time goes on");
        now = at;
        edge.0.handle_timeout(now);
        edge.fail_to_meet(now);
    }
    assert!(now.since(wished) < LOOKS_FOR + Duration::from_secs(60));
}

#[test]
fn a_neighbour_that_was_cut_off_from_the_hub_is_waited_for() {
    let mut waiter = Edge::direct(false);
    waiter.0.handle_upstream(BUS, false);
    waiter.0.handle_down(PACKETS, at(5));
    waiter.said();
    assert_eq!(waiter.pass(), at(5));
    assert_eq!(waiter.said(), [Output::Knock { addresses: there() }]);
    assert_eq!(waiter.accept(LaneOf::Packets, PACKETS, 30), Accepted::Yes);
}

#[test]
fn who_wishes_has_a_place_of_the_few_already() {
    let mut edge = Edge(Neighbours::new(2, 7, true));
    edge.0.handle_hub(true, at(0));
    for number in 0..2 * MAX_DIRECT {
        edge.0.handle_talk(&self::edge(&format!("n{number}")), BULK, at(0));
    }
    assert_eq!(edge.said().len(), MAX_DIRECT);
}
