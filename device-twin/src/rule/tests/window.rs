use super::*;
use crate::model::Span;

const SPAN: Duration = Duration::from_secs(10);
const MAX_AGE: Duration = Duration::from_secs(2);

fn change() -> Over {
    Over::Change(Span(SPAN))
}

fn spread() -> Over {
    Over::Spread(Span(SPAN))
}

fn ms(ms: u64) -> Mono {
    Mono(ms * 1000)
}

/// Readings every second from 0 on.
fn each_second(values: &[f64]) -> Window {
    let mut window = Window::new(SPAN, MAX_AGE);
    for (at, value) in (0..).zip(values) {
        window.observe(Some(*value), ms(at * 1000));
    }
    window
}

#[test]
fn a_window_is_unknown_until_its_span_is_covered() {
    let values: Vec<f64> = (0..=10).map(f64::from).collect();
    let window = each_second(&values[..10]);
    assert_eq!(window.read(change(), ms(9999)), None);
    let window = each_second(&values);
    assert_eq!(window.read(change(), ms(10_000)), Some(10.0));
    assert_eq!(window.read(change(), ms(10_999)), Some(10.0), "what held when the span began");
    assert_eq!(window.read(change(), ms(11_000)), Some(9.0));
    assert_eq!(window.read(change(), ms(12_000)), Some(8.0));
    assert_eq!(window.read(change(), ms(12_001)), None, "the newest is too old");
}

#[test]
fn a_gap_or_a_bad_reading_begins_it_anew() {
    let broken = [
        |window: &mut Window| window.observe(None, ms(11_000)),
        |window: &mut Window| window.observe(Some(f64::NAN), ms(11_000)),
        |window: &mut Window| window.observe(Some(1.0), ms(12_001)),
    ];
    for breaks in broken {
        let mut window = each_second(&[1.0; 11]);
        assert_eq!(window.read(spread(), ms(10_000)), Some(0.0));
        breaks(&mut window);
        for at in 13..=22 {
            window.observe(Some(1.0), ms(at * 1000));
            assert_eq!(window.read(spread(), ms(at * 1000)), None);
        }
        window.observe(Some(1.0), ms(23_000));
        assert_eq!(window.read(spread(), ms(23_000)), Some(0.0));
    }
}

#[test]
fn a_reading_that_came_late_covers_no_time() {
    let mut window = each_second(&[1.0; 11]);
    window.observe(Some(4.0), ms(3000));
    assert_eq!(window.read(spread(), ms(12_000)), Some(3.0), "it is what is known now");
    assert_eq!(window.read(spread(), ms(12_001)), None, "but nothing was heard since");
}

#[test]
fn the_spread_forgets_what_lies_before_the_span() {
    let mut window = each_second(&[1.0, 9.0, 1.0, -3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    assert_eq!(window.read(spread(), ms(10_000)), Some(12.0));
    for (at, expected) in [(11, 12.0), (12, 4.0), (13, 4.0), (14, 0.0)] {
        window.observe(Some(1.0), ms(at * 1000));
        assert_eq!(window.read(spread(), ms(at * 1000)), Some(expected), "at {at} s");
    }
}

#[test]
fn documents_about_windows_and_votes_without_sense_are_refused() {
    const WATCH: &str = "
inputs: {a: {device: t, property: a, maxAge: 5s}, b: {device: t, property: b}, c: {device: t, property: c, from: desired, maxAge: 5s}}
output: {device: d, property: p, ttl: 1s}
onUnknown: hold
cases:
  - when: {atLeast: 1, of: [{input: a, changeIn: 60s, op: above, value: 1}, {input: b, op: above, value: 1}]}
    then: {value: 1}
";
    rule(WATCH).unwrap();
    refused(
        WATCH,
        &[
            ("changeIn: 60s", "changeIn: 0s", "longer than nothing"),
            ("changeIn: 60s", "changeIn: 60s, spreadIn: 60s", "either 'changeIn' or 'spreadIn'"),
            ("input: a, changeIn", "input: b, changeIn", "with a 'maxAge'"),
            ("input: a, changeIn", "input: c, changeIn", "a reported input"),
            ("op: above, value: 1}, {", "op: equal, value: high}, {", "only numbers have"),
            ("atLeast: 1", "atLeast: 0", "spec.cases[0].when: 'atLeast: 0' of 2"),
            ("atLeast: 1", "atLeast: 3", "'atLeast: 3' of 2"),
        ],
    );
    let one = "{input: a, spreadIn: 1m, op: above, value: 1}";
    let many = [one; 9].join(", ");
    refused(
        WATCH,
        &[("{input: a, changeIn: 60s, op: above, value: 1}", &many, "more than 8 predicates with")],
    );
    let groups = ["{all: []}"; 256].join(", ");
    refused(WATCH, &[("{input: a, changeIn: 60s, op: above, value: 1}", &groups, "predicates and groups")]);
}

proptest! {
    /// What is lost of readings that come faster than the slices is what the module says, and no more.
    #[test]
    fn of_fast_readings_no_extreme_is_missed(
        steps in prop::collection::vec((1u64..200, -50i32..50), 100..400),
    ) {
        let grain = SPAN / SLICES;
        let mut window = Window::new(SPAN, MAX_AGE);
        let (mut at, mut all) = (0, Vec::new());
        for (after, value) in steps {
            at += after * 1000;
            let (now, value) = (Mono(at), f64::from(value));
            window.observe(Some(value), now);
            all.push((now, value));
            let exact = |span: Duration| {
                let begin = Mono(at.checked_sub(span.as_micros() as u64)?);
                let held = all.iter().rposition(|(at, _)| *at <= begin)?;
                let values = || all[held..].iter().map(|(_, value)| *value);
                Some(values().fold(f64::MIN, f64::max) - values().fold(f64::MAX, f64::min))
            };
            let (least, greatest) = (exact(SPAN), exact(SPAN + 2 * grain));
            match window.read(spread(), now) {
                Some(spread) => {
                    prop_assert!(least.is_some_and(|least| spread >= least - 1e-9));
                    prop_assert!(greatest.is_none_or(|greatest| spread <= greatest + 1e-9));
                }
                None => prop_assert_eq!(greatest, None),
            }
            if let (Some(change), Some(_)) = (window.read(change(), now), greatest) {
                let begin = at - SPAN.as_micros() as u64;
                let first = value - change;
                let early = begin - 2 * grain.as_micros() as u64;
                let possible = all.iter().rev().skip_while(|(at, _)| at.0 > begin);
                let mut possible = possible.take_while(|(at, _)| at.0 + MAX_AGE.as_micros() as u64 >= early);
                prop_assert!(possible.any(|(_, value)| *value == first));
            }
        }
    }
}
