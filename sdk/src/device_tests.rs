use bus::twin::{DeviceCondition, Json};
use bus::{Quality, UnixMillis, ValueType};

use super::*;
use crate::Point;
use crate::scale::Scale;

fn property(name: &str, poll_ms: u64) -> PropertyConfig {
    PropertyConfig { poll_ms, ..crate::tests::property(name) }
}

const PUSHES: Manifest = Manifest::new("test", "1").pushes();

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms * 1000), wall: UnixMillis(1_000_000 + ms) }
}

fn ms(ms: u64) -> Mono {
    Mono(ms * 1000)
}

/// A device with two properties of one and two seconds, open; its first tick is at the returned time.
fn open_device() -> (Device, u64) {
    let mut device = Device::new(Duration::ZERO, at(0), 1, &PUSHES);
    device.configure(&[property("a", 1000), property("b", 2000)], ms(0));
    assert_eq!(device.step(ms(0)), Step::Open);
    device.handle_opened(ms(0));
    let Step::Wait(Some(first)) = device.step(ms(0)) else { panic!("the start is spread") };
    assert!(first <= Mono::ZERO + START_SPREAD);
    (device, first.0.div_ceil(1000))
}

fn samples(values: &[(&str, f64)]) -> Samples {
    let mut samples = Samples::default();
    for (name, value) in values {
        let point =
            Point { name: (*name).into(), value_type: ValueType::Float, address: (), scale: Scale::NONE };
        samples.good(&point, Value::Float(*value));
    }
    samples
}

fn sample(value: f64, read_ms: u64, quality: Quality) -> Sample {
    Sample { value: Value::Float(value), time: at(read_ms).wall, quality }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn read(device: &mut Device, batch: &[String], samples: Samples, now: Now) {
    device.handle_read(batch, samples, None, now);
}

#[test]
fn an_open_device_is_read_in_batches_and_reported() {
    let (mut device, first) = open_device();
    assert_eq!(device.step(ms(first)), Step::Read(names(&["a", "b"])));
    read(&mut device, &names(&["a", "b"]), samples(&[("a", 1.0), ("b", 2.0)]), at(first));
    let expected =
        [("a", 1.0), ("b", 2.0)].map(|(n, v)| (n.to_owned(), sample(v, first, Quality::Good))).into();
    assert_eq!(device.take_report(), expected);
    assert_eq!(device.step(ms(first + 1000)), Step::Read(names(&["a"])));
    assert!(device.take_report().is_empty());
}

#[test]
fn what_the_driver_leaves_out_turns_bad_and_nothing_is_invented() {
    let (mut device, first) = open_device();
    device.step(ms(first));
    read(&mut device, &names(&["a", "b"]), samples(&[("a", 1.0)]), at(first));
    device.take_report();
    for second in 1..=2 {
        device.step(ms(first + second * 1000));
        read(&mut device, &names(&["a", "b"]), Samples::default(), at(first + second * 1000));
        assert!(device.take_report().is_empty());
    }
    device.step(ms(first + 3000));
    let bad = [("a".to_owned(), sample(1.0, first, Quality::Bad))].into();
    assert_eq!(device.take_report(), bad, "with its own time; b was never read");
    device.step(ms(first + 9000));
    assert!(device.take_report().is_empty(), "said once");
}

#[test]
fn values_turn_bad_while_the_session_is_lost() {
    let (mut device, first) = open_device();
    device.step(ms(first));
    read(&mut device, &names(&["a"]), samples(&[("a", 1.0)]), at(first));
    device.take_report();
    device.handle_lost(&Error::Config("nonsense".into()), ms(first + 10));
    assert_eq!(device.step(ms(first + 10)), Step::Wait(Some(ms(first + 3000))));
    assert_eq!(device.step(ms(first + 3000)), Step::Wait(None));
    assert_eq!(device.take_report(), [("a".to_owned(), sample(1.0, first, Quality::Bad))].into());
}

#[test]
fn the_kind_of_an_error_decides_when_the_session_is_opened_again() {
    let (minute, day) = (Duration::from_secs(60), Duration::from_secs(86_400));
    let text = || "x".to_owned();
    let table = [
        (Error::transient("x"), Some((Duration::ZERO, FIRST_WAIT))),
        (Error::Timeout(text()), Some((Duration::ZERO, FIRST_WAIT))),
        (Error::Transient { why: text(), retry_after: Some(day) }, Some((day, day))),
        (Error::Auth(text()), Some((minute, minute))),
        (Error::Bug(text()), Some((minute, minute))),
        (Error::Config(text()), None),
    ];
    for (error, expected) in table {
        let mut device = Device::new(Duration::ZERO, at(0), 3, &PUSHES);
        device.handle_lost(&error, ms(0));
        assert_eq!(device.unreachable(), Some(error.to_string().as_str()));
        match (device.step(Mono(0)), expected) {
            (Step::Wait(Some(until)), Some((least, most))) => {
                let wait = until.since(Mono(0));
                assert!((least..=most).contains(&wait), "{error:?}: {wait:?}");
                assert_eq!(device.step(until), Step::Open);
            }
            (Step::Wait(None), None) => {}
            (step, _) => panic!("{error:?}: {step:?}"),
        }
    }
}

#[test]
fn waits_grow_to_a_minute_and_start_anew_after_a_reading() {
    let longest = |tries: u32, recovers: bool| {
        let mut longest = Duration::ZERO;
        for seed in 0..40 {
            let mut device = Device::new(Duration::ZERO, at(0), seed, &PUSHES);
            for _ in 0..tries {
                device.handle_opened(ms(0));
                read(&mut device, &names(&["a"]), Samples::default(), at(0));
                device.handle_lost(&Error::transient("x"), ms(0));
            }
            if recovers {
                read(&mut device, &names(&["a"]), samples(&[("a", 1.0)]), at(0));
                device.handle_lost(&Error::transient("x"), ms(0));
            }
            longest = longest.max(device.pause(ms(0)).unwrap());
        }
        longest
    };
    assert!(longest(20, false) > LONGEST_WAIT / 2 && longest(20, false) <= LONGEST_WAIT);
    assert!(longest(20, true) <= FIRST_WAIT);
}

#[test]
fn a_bad_address_leaves_out_one_property_until_it_is_configured_anew() {
    let (mut device, first) = open_device();
    device.step(ms(first));
    let mut found = samples(&[("b", 2.0)]);
    let point = Point { name: "a".into(), value_type: ValueType::Float, address: (), scale: Scale::NONE };
    found.failed(&point, Error::BadAddress { point: "a".into(), why: "no such register".into() });
    read(&mut device, &names(&["a", "b"]), found, at(first));
    assert_eq!(device.step(ms(first + 4000)), Step::Read(names(&["b"])));
    device.configure(&[property("a", 1000), property("b", 2000)], ms(first + 4100));
    assert_eq!(device.step(ms(first + 4100)), Step::Read(names(&["a"])));
    let refused = Error::Unsupported("reading".into());
    device.handle_read(&names(&["a"]), Samples::default(), Some(&refused), at(first));
    assert_eq!(device.step(ms(first + 20_000)), Step::Read(names(&["b"])));
}

#[test]
fn a_new_configuration_keeps_what_did_not_change() {
    let (mut device, first) = open_device();
    device.step(ms(first));
    read(&mut device, &names(&["a", "b"]), samples(&[("a", 1.0), ("b", 2.0)]), at(first));
    device.take_report();
    let moved = PropertyConfig { address: Json::Int(7), ..property("b", 2000) };
    device.configure(&[property("a", 1000), moved], ms(first + 10));
    assert!(device.is_open());
    device.step(ms(first + 60_000));
    let bad = [("a".to_owned(), sample(1.0, first, Quality::Bad))].into();
    assert_eq!(device.take_report(), bad, "b's old value says nothing about its new address");
}

#[test]
fn a_written_property_is_reported_as_read_back_and_read_at_once() {
    let (mut device, first) = open_device();
    device.step(ms(first));
    read(&mut device, &names(&["a", "b"]), samples(&[("a", 1.0), ("b", 2.0)]), at(first));
    device.take_report();
    device.handle_written("b", Some(Value::Float(5.0)), at(first + 100));
    assert_eq!(device.take_report(), [("b".to_owned(), sample(5.0, first + 100, Quality::Good))].into());
    assert_eq!(device.step(ms(first + 100)), Step::Read(names(&["b"])));
}

#[test]
fn a_crashed_driver_is_left_alone_for_a_while() {
    let mut device = Device::new(LONGEST_WAIT, at(0), 1, &PUSHES);
    assert_eq!(device.step(ms(0)), Step::Wait(Some(Mono::ZERO + LONGEST_WAIT)));
    assert_eq!(device.unreachable(), Some("the driver crashed"));
    assert_eq!(device.step(Mono::ZERO + LONGEST_WAIT), Step::Open);
}

#[test]
fn the_log_hears_of_a_failure_once_until_a_value_comes() {
    let (mut device, first) = open_device();
    let (batch, busy) = (names(&["a", "b"]), Error::Device("busy".into()));
    let mut complaints =
        |found: &[(&str, f64)]| device.handle_read(&batch, samples(found), Some(&busy), at(first));
    assert_eq!(complaints(&[("a", 1.0)]), [("b".to_owned(), busy.clone())]);
    assert_eq!(complaints(&[("a", 1.0)]), []);
    assert_eq!(complaints(&[("b", 1.0)]), [("a".to_owned(), busy.clone())]);
    assert_eq!(complaints(&[]), [("b".to_owned(), busy.clone())]);
}

#[test]
fn a_bad_address_in_a_batch_is_one_points_fault() {
    let (mut device, first) = open_device();
    device.step(ms(first));
    let fault = Error::BadAddress { point: "a".into(), why: "no such register".into() };
    let complaints = device.handle_read(&names(&["a", "b"]), Samples::default(), Some(&fault), at(first));
    assert_eq!(complaints, [("a".to_owned(), fault)]);
    assert_eq!(device.step(ms(first + 20_000)), Step::Read(names(&["b"])));
}

#[test]
fn what_is_pushed_is_asked_for_first_and_reported_like_a_reading() {
    let mut device = Device::new(Duration::ZERO, at(0), 1, &PUSHES);
    device.configure(&[property("polled", 1000), property("pushed", 0)], ms(0));
    device.handle_opened(ms(0));
    assert_eq!(device.step(ms(0)), Step::Subscribe);
    device.handle_subscribed(ms(0));
    assert!(matches!(device.step(ms(0)), Step::Wait(_)));
    let value = |value| Reading::Value { value: Value::Float(value), quality: Quality::Good, time: None };
    assert_eq!(device.handle_reading("pushed", value(3.0), at(5)), None);
    assert_eq!(device.take_report(), [("pushed".to_owned(), sample(3.0, 5, Quality::Good))].into());
    let refused = Error::Device("no".into());
    assert_eq!(
        device.handle_reading("pushed", Reading::Failed(refused.clone()), at(6)),
        Some(refused.clone())
    );
    assert_eq!(device.handle_reading("pushed", Reading::Failed(refused), at(7)), None, "said once");
    let bad_after = |device: &mut Device, end: u64, taken: u64| {
        device.expire(ms(end - 1));
        assert!(device.take_report().is_empty());
        device.expire(ms(end));
        assert_eq!(device.take_report(), [("pushed".to_owned(), sample(3.0, taken, Quality::Bad))].into());
    };
    bad_after(&mut device, 10_006, 5);

    device.handle_reading("pushed", value(3.0), at(10_100));
    device.take_report();
    device.handle_lost(&Error::Config("cut".into()), ms(11_000));
    bad_after(&mut device, 21_000, 10_100);
}

#[test]
fn a_point_that_cannot_be_pushed_is_left_out_and_the_others_are_asked_for() {
    let mut device = Device::new(Duration::ZERO, at(0), 1, &PUSHES);
    device.configure(&[property("a", 0), property("b", 0)], ms(0));
    device.handle_opened(ms(0));
    let fault = Error::BadAddress { point: "a".into(), why: "no such topic".into() };
    device.handle_unsubscribed(&fault, ms(0));
    assert_eq!(device.step(ms(0)), Step::Subscribe);
    assert_eq!(device.pushed().keys().collect::<Vec<_>>(), ["b"]);
    device.handle_unsubscribed(&Error::Device("busy".into()), ms(0));
    assert_eq!(device.step(ms(0)), Step::Wait(Some(ms(30_000))), "the probe comes before the next try");
}

#[test]
fn a_silent_device_is_probed_and_one_that_speaks_is_not() {
    let mut device = Device::new(Duration::ZERO, at(0), 1, &PUSHES);
    device.configure(&[property("a", 3_600_000)], ms(0));
    device.handle_opened(ms(0));
    let Step::Wait(Some(first)) = device.step(ms(0)) else { panic!("the start is spread") };
    assert_eq!(device.step(first), Step::Read(names(&["a"])));
    let no = Error::Device("no".into());
    device.handle_read(&names(&["a"]), Samples::default(), Some(&no), at(2000));
    assert_eq!(device.step(ms(31_999)), Step::Wait(Some(ms(32_000))), "a no is an answer");
    assert_eq!(device.step(ms(32_000)), Step::Probe);
    device.handle_answered(ms(32_000));
    assert_eq!(device.step(ms(32_000)), Step::Wait(Some(ms(62_000))));
}

#[test]
fn ticks_that_a_slow_reading_outlasts_are_missed_and_those_without_a_session_are_not() {
    let (mut device, first) = open_device();
    device.step(ms(first));
    device.step(ms(first + 3500));
    assert_eq!(device.take_counts().missed, 2, "of a; the first tick of each is only late");
    device.handle_lost(&Error::Config("cut".into()), ms(first + 3600));
    device.reopen(ms(first + 60_000));
    device.handle_opened(ms(first + 60_000));
    assert_eq!(device.step(ms(first + 60_000)), Step::Read(names(&["a", "b"])));
    assert_eq!(device.take_counts(), MapperCounts::default());
}

#[test]
fn health_says_since_when_and_why() {
    let mut device = Device::new(Duration::ZERO, at(0), 1, &PUSHES);
    let told = |device: &mut Device, ms: u64| {
        let DeviceHealth { state, since, failures, error, last_read: _ } = device.health(at(ms).wall);
        (state, since.0 - 1_000_000, failures, error)
    };
    let is = |state, since, failures, error: &str| (state, since, failures, error.to_owned());
    assert_eq!(told(&mut device, 1), is(DeviceCondition::Unconfigured, 1, 0, "it has no properties"));
    device.configure(&[property("a", 1000), property("b", 1000)], ms(2));
    assert_eq!(told(&mut device, 2), is(DeviceCondition::Offline, 2, 0, ""));
    device.handle_lost(&Error::transient("refused"), ms(3));
    device.handle_opened(ms(4));
    assert_eq!(told(&mut device, 5), is(DeviceCondition::Offline, 2, 1, "refused"), "open, but nothing came");
    read(&mut device, &names(&["a", "b"]), samples(&[("a", 1.0)]), at(6));
    assert_eq!(told(&mut device, 6), is(DeviceCondition::Online, 6, 0, ""));
    let no = Error::Device("no".into());
    device.handle_read(&names(&["a", "b"]), Samples::default(), Some(&no), at(7));
    assert_eq!(told(&mut device, 8), is(DeviceCondition::Degraded, 8, 0, "a: device: no; and 1 more"));
}

#[test]
fn within_the_deadband_a_property_is_not_told_and_does_not_grow_old() {
    let (mut device, first) = open_device();
    let banded = PropertyConfig { deadband: Some(0.5), max_age_ms: Some(6000), ..property("a", 1000) };
    device.configure(&[banded], ms(first));
    let mut told = Vec::new();
    for second in 0..5 {
        device.step(ms(first + second * 1000));
        read(
            &mut device,
            &names(&["a"]),
            samples(&[("a", 1.0 + 0.1 * second as f64)]),
            at(first + second * 1000),
        );
        told.extend(device.take_report().into_values().map(|sample| (second, sample.quality)));
    }
    assert_eq!(told, [0, 2, 4].map(|second| (second, Quality::Good)));
}
