use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::super::testing::{Build, tag, v4, v6};
use super::*;
use crate::packet::{TCP, UDP};

const FULL: usize = 1514;
const ROOM: usize = 1 << 16;

fn enqueue(queue: &mut Queue<Vec<u8>>, build: Build, now: Mono) {
    let bytes = build.bytes();
    queue.enqueue(&Packet::parse(&bytes).unwrap(), bytes.clone(), now).unwrap();
}

/// A packet of `class`, whatever its size.
fn of(class: Class, len: usize) -> Build {
    let dscp = match class {
        Class::Control => 48,
        Class::Interactive => 46,
        Class::Default => 10,
        Class::Bulk => 8,
    };
    v4(UDP).len(len).dscp(dscp)
}

fn class_of(packet: &[u8]) -> Class {
    Class::of(&Packet::parse(packet).unwrap())
}

#[test]
fn under_full_load_each_class_has_its_weight() {
    let mut queue = Queue::new(1, 1 << 20);
    for _ in 0..100 {
        for class in Class::ALL {
            enqueue(&mut queue, of(class, FULL), Mono::ZERO);
        }
    }
    let mut sent = BTreeMap::new();
    for _ in 0..170 {
        let (packet, _) = queue.dequeue(Mono::ZERO, ROOM).unwrap();
        *sent.entry(class_of(&packet)).or_insert(0) += 1;
    }
    assert_eq!(sent, Class::ALL.map(|class| (class, u64::from(class.weight()) * 10)).into());
}

#[test]
fn within_its_share_a_higher_class_waits_for_nobody() {
    let mut queue = Queue::new(1, 1 << 20);
    for _ in 0..200 {
        enqueue(&mut queue, of(Class::Default, FULL), Mono::ZERO);
    }
    for n in 0..100 {
        enqueue(&mut queue, of(Class::Interactive, 200), Mono::ZERO);
        let first = queue.dequeue(Mono::ZERO, ROOM).unwrap().0;
        assert_eq!(class_of(&first), Class::Interactive, "at packet {n}");
        assert_eq!(class_of(&queue.dequeue(Mono::ZERO, ROOM).unwrap().0), Class::Default);
    }
}

#[test]
fn what_a_class_leaves_goes_to_the_others() {
    let mut queue = Queue::new(1, 1 << 20);
    for _ in 0..50 {
        enqueue(&mut queue, of(Class::Bulk, FULL), Mono::ZERO);
    }
    assert_eq!(std::iter::from_fn(|| queue.dequeue(Mono::ZERO, ROOM)).count(), 50);
}

#[test]
fn flows_share_by_bytes_and_not_by_packets() {
    let mut queue = Queue::new(1, 1 << 20);
    for _ in 0..400 {
        enqueue(&mut queue, of(Class::Default, FULL).ports(1, 1), Mono::ZERO);
        enqueue(&mut queue, of(Class::Default, 300).ports(2, 2), Mono::ZERO);
    }
    let mut sent: BTreeMap<u16, u64> = BTreeMap::new();
    for _ in 0..400 {
        let (packet, _) = queue.dequeue(Mono::ZERO, ROOM).unwrap();
        let port = u16::from_be_bytes([packet[20], packet[21]]);
        *sent.entry(port).or_default() += packet.len() as u64 + OVERHEAD;
    }
    assert!(sent[&1].abs_diff(sent[&2]) <= 2 * ONE_PACKET, "{sent:?}");
}

#[test]
fn a_flow_that_has_just_begun_goes_before_those_that_have_much() {
    let mut queue = Queue::new(1, 1 << 20);
    for flow in 1..9 {
        for _ in 0..20 {
            enqueue(&mut queue, of(Class::Default, FULL).ports(flow, 1), Mono::ZERO);
        }
    }
    for _ in 0..16 {
        queue.dequeue(Mono::ZERO, ROOM).unwrap();
    }
    enqueue(&mut queue, v4(TCP).tcp(0x18, 200).ports(700, 22).tag(77), Mono::ZERO);
    assert_eq!(tag(&queue.dequeue(Mono::ZERO, ROOM).unwrap().0), 77);
}

#[test]
fn who_fills_the_queue_pays_with_his_oldest_packet() {
    let mut queue = Queue::new(1, 20 * ONE_PACKET);
    enqueue(&mut queue, of(Class::Bulk, FULL).ports(5, 5).tag(99), Mono::ZERO);
    for n in 0..100 {
        enqueue(&mut queue, of(Class::Control, FULL).ports(9, 9).tag(n), Mono::ZERO);
    }
    let stats = queue.stats();
    assert_eq!(
        (stats[Class::Control.index()].dropped_full, stats[Class::Bulk.index()].dropped_full),
        (81, 0)
    );
    let left: Vec<_> =
        std::iter::from_fn(|| queue.dequeue(Mono::ZERO, ROOM)).map(|one| tag(&one.0)).collect();
    assert_eq!(left.len(), 20);
    assert!(left.contains(&99) && (81..100).all(|tag| left.contains(&tag)), "{left:?}");
}

#[test]
fn a_smaller_bound_holds_at_once_and_what_never_fits_is_refused() {
    let mut queue = Queue::new(1, 100 * ONE_PACKET);
    for _ in 0..50 {
        enqueue(&mut queue, of(Class::Default, FULL), Mono::ZERO);
    }
    queue.set_bound(10 * ONE_PACKET);
    assert_eq!(queue.bytes(), 10 * ONE_PACKET);
    queue.set_bound(1000);
    let bytes = of(Class::Default, FULL).bytes();
    let refused = queue.enqueue(&Packet::parse(&bytes).unwrap(), bytes.clone(), Mono::ZERO);
    assert_eq!((refused, queue.is_empty()), (Err(Dropped::TooLarge), true));
}

#[test]
fn a_packet_for_which_there_is_no_room_stays_the_next() {
    let mut queue = Queue::new(1, 1 << 20);
    enqueue(&mut queue, of(Class::Default, 1200).tag(1), Mono::ZERO);
    enqueue(&mut queue, of(Class::Default, 200).tag(2), Mono::ZERO);
    assert_eq!(queue.dequeue(Mono::ZERO, 1199), None);
    assert_eq!(queue.dequeue(Mono::ZERO, 1200).map(|one| tag(&one.0)), Some(1));
    assert_eq!(queue.dequeue(Mono::ZERO, 1200).map(|one| tag(&one.0)), Some(2));
}

#[test]
fn a_flow_that_waits_too_long_for_too_long_is_told_by_loss_or_by_mark() {
    for (ecn, marked, dropped) in [(0, 0, 2), (1, 2, 0), (2, 2, 0)] {
        let mut queue = Queue::new(1, 1 << 20);
        let at = |ms: u64| Mono(ms * 1000);
        for _ in 0..300 {
            enqueue(&mut queue, of(Class::Default, FULL).ecn(ecn), Mono::ZERO);
        }
        for ms in 0..135 {
            assert!(queue.dequeue(at(50 + 2 * ms), ROOM).is_some());
        }
        let stats = queue.stats()[Class::Default.index()];
        assert_eq!((stats.marked, stats.dropped_codel), (marked, dropped), "ECN {ecn}");
        assert_eq!(stats.sojourn_max, Duration::from_millis(50 + 2 * 134));
    }
}

#[test]
fn a_packet_and_its_fragments_are_one_flow_in_both_families() {
    for build in [v4(UDP).len(1400).fragment(0x2000), v6(UDP).len(1400)] {
        let mut queue = Queue::new(1, 1 << 20);
        for n in 0..20 {
            enqueue(&mut queue, build.clone().tag(n), Mono::ZERO);
            if n % 2 == 0 && build.clone().bytes()[0] == 0x45 {
                enqueue(&mut queue, v4(UDP).len(1400).fragment(100).ports(n as u16, 7).tag(n), Mono::ZERO);
            }
        }
        let order: Vec<_> =
            std::iter::from_fn(|| queue.dequeue(Mono::ZERO, ROOM)).map(|one| tag(&one.0)).collect();
        assert!(order.is_sorted(), "{order:?}");
    }
}

/// Something to do: enqueue (class, flow, length, ECN), or take so many.
#[derive(Debug, Clone)]
enum Step {
    Put(usize, u16, usize, u8),
    Take(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let put = (0usize..4, 1u16..6, 36usize..FULL, 0u8..4).prop_map(|(c, f, l, e)| Step::Put(c, f, l, e));
    let take = (0usize..4).prop_map(Step::Take);
    proptest::collection::vec(prop_oneof![3 => put, 2 => take], 1..400)
}

proptest! {
    #[test]
    fn no_packet_is_forgotten_none_overtakes_its_flow_and_the_bound_holds(steps in steps(), seed: u64, bound in 3u64..60) {
        let bound = bound * ONE_PACKET;
        let mut queue = Queue::new(seed, bound);
        let (mut now, mut last) = (Mono::ZERO, BTreeMap::new());
        for (n, step) in steps.into_iter().enumerate() {
            now = now + Duration::from_millis(3);
            match step {
                Step::Put(class, flow, len, ecn) => {
                    let build = of(Class::ALL[class], len).ports(flow, 1).ecn(ecn).tag(n as u64);
                    enqueue(&mut queue, build, now);
                }
                Step::Take(count) => for _ in 0..count {
                    let Some((packet, mark)) = queue.dequeue(now, ROOM) else { break };
                    let flow = (class_of(&packet), [packet[20], packet[21]]);
                    prop_assert!(last.insert(flow, tag(&packet)).is_none_or(|before| before < tag(&packet)));
                    prop_assert!(mark == Mark::Keep || packet[1] & 3 != 0);
                }
            }
            prop_assert!(queue.bytes() <= bound);
            let stats = queue.stats();
            prop_assert_eq!(stats.iter().map(|class| class.bytes).sum::<u64>(), queue.bytes());
            for class in stats {
                let gone = class.sent + class.dropped_codel + class.dropped_full;
                prop_assert_eq!(class.enqueued, gone + class.packets);
            }
        }
        while queue.dequeue(now, ROOM).is_some() {}
        prop_assert!(queue.is_empty() && queue.stats().iter().all(|class| class.packets == 0));
    }

    #[test]
    fn no_class_and_no_flow_starves(
        seed: u64, hog in 0usize..4, victim in 0usize..4, hog_len in 36usize..FULL, len in 36usize..FULL,
    ) {
        let mut queue = Queue::new(seed, 1 << 19);
        enqueue(&mut queue, of(Class::ALL[victim], len).ports(7, 7).tag(u64::MAX), Mono::ZERO);
        let mut served = None;
        // The hog's queue is never empty. A round has 17 packets.
        let round = 17 * ONE_PACKET;
        let mut sent = 0;
        while sent <= 3 * round {
            for flow in 0..3 {
                enqueue(&mut queue, of(Class::ALL[hog], hog_len).ports(100 + flow, 1).tag(0), Mono::ZERO);
            }
            let (packet, _) = queue.dequeue(Mono::ZERO, ROOM).unwrap();
            sent += packet.len() as u64 + OVERHEAD;
            if tag(&packet) == u64::MAX {
                served = Some(sent);
                break;
            }
        }
        prop_assert!(served.is_some_and(|at| at <= round), "{served:?} of {round}");
    }
}
