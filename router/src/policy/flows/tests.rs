use super::*;
use crate::policy::tests::flow;
use proptest::prelude::*;

const SEED: [u64; 2] = [7, 11];

fn at(second: u64) -> Mono {
    Mono(second * 1_000_000)
}

fn key(number: u16) -> (Key, bool) {
    Key::of(&flow("10.0.0.1", "10.0.0.2", UDP, Ports::Pair { source: number, destination: 53 })).unwrap()
}

fn begin(flows: &mut Flows, number: u16, now: Mono) {
    let (key, by_low) = key(number);
    flows.begin(Begun { key, by_low, noted: false }, Signal::Nothing, 1, now);
}

fn answer(flows: &mut Flows, number: u16, now: Mono) {
    let (key, by_low) = key(number);
    flows.find(&key, now).unwrap().advance(Signal::Nothing, !by_low, now);
}

fn has(flows: &mut Flows, number: u16, now: Mono) -> bool {
    flows.find(&key(number).0, now).is_some()
}

#[test]
fn a_hub_with_its_table_full_takes_four_megabytes() {
    let flows = Flows::new(Flows::AT_HUB, SEED);
    assert_eq!(size_of_val(&*flows.sets), 4 << 20);
}

#[test]
fn a_conversation_is_forgotten_when_it_was_silent_for_its_lifetime() {
    let mut flows = Flows::new(64, SEED);
    begin(&mut flows, 1, at(0));
    let last = u64::from(lifetime(UDP, Stage::Asked));
    assert!(has(&mut flows, 1, at(last - 1)));
    assert!(!has(&mut flows, 1, at(last)));
    begin(&mut flows, 1, at(last));
    flows.find(&key(1).0, at(last + 100)).unwrap().advance(Signal::Nothing, key(1).1, at(last + 100));
    assert!(has(&mut flows, 1, at(2 * last)), "it was heard in between");
    assert_eq!((flows.count(at(2 * last)), flows.count(at(9 * last))), (1, 0));
}

#[test]
fn beginning_again_takes_the_place_that_it_has() {
    let mut flows = Flows::new(WAYS, SEED);
    (0..8).for_each(|number| begin(&mut flows, number, at(0)));
    begin(&mut flows, 3, at(1));
    assert!((0..8).all(|number| has(&mut flows, number, at(1))));
}

#[test]
fn in_a_full_set_the_unanswered_go_first_and_of_several_the_longest_silent() {
    let mut flows = Flows::new(WAYS, SEED);
    for number in 0..8u16 {
        begin(&mut flows, number, at(u64::from(number)));
    }
    for number in [0, 1, 2, 4, 5, 6, 7] {
        answer(&mut flows, number, at(10));
    }
    begin(&mut flows, 100, at(20));
    assert!(!has(&mut flows, 3, at(20)), "nobody had answered it");
    begin(&mut flows, 101, at(21));
    assert!(!has(&mut flows, 100, at(21)), "a flood pushes out its own");
    answer(&mut flows, 101, at(21));
    answer(&mut flows, 0, at(22));
    begin(&mut flows, 102, at(23));
    assert!(has(&mut flows, 0, at(23)) && has(&mut flows, 101, at(23)), "they spoke last");
}

#[test]
fn what_cannot_be_answered_has_no_key() {
    for (protocol, ports) in
        [(1, Ports::IcmpError), (58, Ports::None), (TCP, Ports::None), (UDP, Ports::None), (1, Ports::None)]
    {
        assert_eq!(Key::of(&flow("10.0.0.1", "10.0.0.2", protocol, ports)), None, "{protocol} {ports:?}");
    }
    assert!(Key::of(&flow("10.0.0.1", "10.0.0.2", 47, Ports::None)).is_some());
}

proptest! {
    #[test]
    fn an_answer_has_the_key_of_its_question_and_comes_from_the_other_end(
        a: u32, b: u32, v6: bool, source: u16, destination: u16,
    ) {
        let address = |bits: u32| -> IpAddr {
            if v6 { std::net::Ipv6Addr::from_bits(bits.into()).into() } else { std::net::Ipv4Addr::from_bits(bits).into() }
        };
        prop_assume!((a, source) != (b, destination));
        let asked = Flow {
            source: address(a), destination: address(b), protocol: TCP, ports: Ports::Pair { source, destination },
        };
        let ((one, from_low), (other, answered_from_low)) =
            (Key::of(&asked).unwrap(), Key::of(&asked.reversed()).unwrap());
        prop_assert_eq!(one, other);
        prop_assert_ne!(from_low, answered_from_low);
    }

    #[test]
    fn whatever_begins_the_table_stays_in_its_bounds_and_has_the_newest(
        numbers in proptest::collection::vec(any::<u16>(), 1..200),
    ) {
        let mut flows = Flows::new(32, SEED);
        for (second, number) in numbers.iter().enumerate() {
            let now = at(second as u64);
            begin(&mut flows, *number, now);
            prop_assert!(has(&mut flows, *number, now));
            prop_assert!(flows.count(now) <= 32);
        }
    }
}
