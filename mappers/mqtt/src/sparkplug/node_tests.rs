use super::*;
use proptest::prelude::*;

const INT32: u32 = 3;
const NOW: UnixMillis = UnixMillis(1_709_208_000_000);

fn metric(name: Option<&str>, alias: Option<u64>, wire: Wire) -> Metric {
    let datatype = name.is_some().then_some(INT32);
    let name = name.map(str::to_owned);
    Metric { name, alias, timestamp: None, datatype, is_historical: None, is_null: None, value: Some(wire) }
}

fn bytes(seq: Option<u64>, metrics: Vec<Metric>) -> Vec<u8> {
    Payload { timestamp: Some(NOW.0), metrics, seq }.encode_to_vec()
}

fn bd_seq(seq: u64) -> Metric {
    Metric { datatype: Some(4), ..metric(Some(BD_SEQ), None, Wire::Long(seq)) }
}

fn pump() -> Option<String> {
    Some("pump".to_owned())
}

fn born() -> Node {
    let mut node = Node::default();
    node.handle(None, Kind::Birth, &bytes(Some(0), vec![bd_seq(7)]));
    let speed = metric(Some("speed"), Some(5), Wire::Int(10));
    node.handle(pump(), Kind::Birth, &bytes(Some(1), vec![speed]));
    node
}

fn data(node: &mut Node, seq: u64, alias: u64, speed: u32) -> Vec<Effect> {
    node.handle(pump(), Kind::Data, &bytes(Some(seq), vec![metric(None, Some(alias), Wire::Int(speed))]))
}

fn named(node: &mut Node, seq: u64, speed: u32) -> Vec<Effect> {
    node.handle(pump(), Kind::Data, &bytes(Some(seq), vec![metric(Some("speed"), None, Wire::Int(speed))]))
}

fn speed(int: i64) -> Effect {
    let said = Said::Value { value: Value::Int(int), time: Some(NOW), quality: Quality::Good };
    Effect::Said { device: pump(), metric: "speed".into(), said }
}

#[test]
fn births_tell_and_data_goes_by_alias() {
    let mut node = Node::default();
    let effects = node.handle(None, Kind::Birth, &bytes(Some(0), vec![bd_seq(7)]));
    assert_eq!(effects[..2], [Effect::Missed, Effect::Online(None)]);
    let born = vec![metric(Some("speed"), Some(5), Wire::Int(10))];
    let effects = node.handle(pump(), Kind::Birth, &bytes(Some(1), born));
    assert_eq!(effects, [Effect::Online(pump()), speed(10)]);
    assert_eq!(data(&mut node, 2, 5, 20), [speed(20)]);
    assert_eq!(data(&mut node, 3, 5, u32::MAX), [speed(-1)]);
}

#[test]
fn the_sequence_wraps_after_255() {
    let mut node = born();
    for seq in 2..600_u64 {
        assert_eq!(data(&mut node, seq % 256, 5, 1), [speed(1)], "{seq}");
    }
}

#[test]
fn a_gap_makes_the_rest_uncertain_and_asks_for_a_rebirth() {
    let mut node = born();
    assert_eq!(named(&mut node, 4, 20), [Effect::Missed, Effect::Rebirth, speed(20)]);
    assert_eq!(named(&mut node, 5, 30), [speed(30)], "and then it goes on");
}

#[test]
fn repetitions_and_latecomers_count_for_nothing() {
    let mut node = born();
    assert_eq!(data(&mut node, 2, 5, 20), [speed(20)]);
    assert_eq!(data(&mut node, 2, 5, 99), [Effect::Missed, Effect::Rebirth]);
    assert_eq!(data(&mut node, 1, 5, 99), [Effect::Rebirth]);
    assert_eq!(named(&mut node, 3, 30), [speed(30)]);
}

#[test]
fn after_a_gap_or_a_latecomer_aliases_count_from_the_next_birth_on() {
    for seq in [4, 1] {
        let mut node = born();
        let fan = || Some("fan".to_owned());
        let mode = || metric(Some("mode"), Some(6), Wire::Int(1));
        node.handle(fan(), Kind::Birth, &bytes(Some(2), vec![mode()]));
        assert_eq!(data(&mut node, seq, 5, 20), [Effect::Missed, Effect::Rebirth]);
        let next = seq.max(2) + 1;
        assert_eq!(data(&mut node, next, 5, 20), [Effect::Rebirth], "by alias");
        let set = |node: &Node, device, metric| node.command(Some(device), metric, &Value::Int(1), NOW);
        assert!(matches!(set(&node, "pump", "speed"), Err(Error::Transient { .. })));
        let unaliased = metric(Some("level"), None, Wire::Int(1));
        node.handle(fan(), Kind::Birth, &bytes(Some(next + 1), vec![mode(), unaliased]));
        assert!(set(&node, "fan", "mode").is_ok(), "it is born again");
        assert!(matches!(set(&node, "pump", "speed"), Err(Error::Transient { .. })), "this one is not");
        node.handle(pump(), Kind::Data, &bytes(Some(next + 9), vec![]));
        assert!(matches!(set(&node, "fan", "mode"), Err(Error::Transient { .. })), "missed once more");
        assert!(set(&node, "fan", "level").is_ok(), "it goes by name");
        node.handle(None, Kind::Birth, &bytes(Some(0), vec![bd_seq(7)]));
        node.handle(pump(), Kind::Birth, &bytes(Some(1), vec![metric(Some("speed"), Some(8), Wire::Int(1))]));
        assert_eq!(data(&mut node, 2, 8, 30), [speed(30)]);
        assert!(set(&node, "pump", "speed").is_ok());
    }
}

#[test]
fn what_cannot_be_placed_asks_for_a_rebirth() {
    assert_eq!(data(&mut Node::default(), 0, 5, 1), [Effect::Rebirth], "not born");
    let mut node = born();
    assert_eq!(data(&mut node, 2, 6, 1), [Effect::Rebirth], "an alias that nobody was born with");
    let stranger = node.handle(Some("fan".into()), Kind::Data, &bytes(Some(3), vec![]));
    assert_eq!(stranger, [Effect::Rebirth], "a device that was not born");
    assert_eq!(
        node.handle(pump(), Kind::Data, &bytes(None, vec![])),
        [Effect::Rebirth],
        "no sequence number"
    );
    assert_eq!(node.handle(pump(), Kind::Data, &bytes(Some(256), vec![])), [Effect::Rebirth]);
    assert_eq!(node.handle(pump(), Kind::Data, b"\xff\xff"), [Effect::Rebirth], "no payload");
}

#[test]
fn an_alias_of_another_device_is_not_taken_for_ones_own() {
    let mut node = born();
    let fan = || Some("fan".to_owned());
    node.handle(fan(), Kind::Birth, &bytes(Some(2), vec![metric(Some("speed"), Some(6), Wire::Int(1))]));
    assert_eq!(data(&mut node, 3, 6, 9), [Effect::Rebirth]);
}

#[test]
fn a_death_counts_for_its_own_birth_only() {
    let mut node = born();
    assert_eq!(node.handle(None, Kind::Death, &bytes(None, vec![bd_seq(6)])), []);
    assert_eq!(data(&mut node, 2, 5, 1), [speed(1)]);
    assert_eq!(node.handle(None, Kind::Death, &bytes(None, vec![bd_seq(7)])), [Effect::AllOffline]);
    assert_eq!(data(&mut node, 3, 5, 1), [Effect::Rebirth]);

    let mut node = born();
    assert_eq!(node.handle(pump(), Kind::Death, &bytes(Some(2), vec![])), [Effect::Offline(pump())]);
    assert!(node.command(Some("pump"), "speed", &Value::Int(1), NOW).is_err());
}

#[test]
fn the_past_and_nothing_are_no_values() {
    let mut node = born();
    let old = Metric { is_historical: Some(true), ..metric(None, Some(5), Wire::Int(1)) };
    assert_eq!(node.handle(pump(), Kind::Data, &bytes(Some(2), vec![old])), []);
    let null = Metric { is_null: Some(true), value: None, ..metric(None, Some(5), Wire::Int(1)) };
    let effects = node.handle(pump(), Kind::Data, &bytes(Some(3), vec![null]));
    assert!(matches!(&effects[..], [Effect::Said { said: Said::Fault(_), .. }]), "{effects:?}");
}

#[test]
fn a_command_goes_by_alias_if_there_is_one() {
    let mut node = born();
    let sent = node.command(Some("pump"), "speed", &Value::Int(-3), NOW).unwrap();
    let Payload { metrics, seq, timestamp } = Payload::decode(&sent[..]).unwrap();
    assert_eq!((metrics.len(), seq, timestamp), (1, None, Some(NOW.0)));
    assert_eq!((&metrics[0].name, metrics[0].alias), (&None, Some(5)));
    assert_eq!(metrics[0].value, Some(Wire::Int(u32::MAX - 2)));
    node.handle(pump(), Kind::Birth, &bytes(Some(2), vec![metric(Some("mode"), None, Wire::Int(1))]));
    let sent = node.command(Some("pump"), "mode", &Value::Int(1), NOW).unwrap();
    assert_eq!(Payload::decode(&sent[..]).unwrap().metrics[0].name.as_deref(), Some("mode"));
    assert!(
        node.command(Some("pump"), "speed", &Value::Int(1), NOW).is_err(),
        "a new birth replaces the old"
    );
    assert!(node.command(Some("pump"), "mode", &Value::Float(0.5), NOW).is_err());
}

#[test]
fn what_is_too_much_is_passed_over() {
    let mut node = born();
    let lost = vec![metric(Some("x"), None, Wire::Int(1)); 3];
    assert_eq!(node.handle(pump(), Kind::Data, &bytes(Some(2), lost)), [Effect::Rebirth], "once");

    let long = "x".repeat(MAX_NAME + 1);
    let device = node.handle(Some(long.clone()), Kind::Birth, &bytes(Some(3), vec![]));
    assert_eq!((device, node.born.len()), (vec![], 1));

    let mut metrics: Vec<_> =
        (0..MAX_METRICS_AT_ONCE).map(|i| metric(Some(&format!("m{i}")), None, Wire::Int(1))).collect();
    metrics[0].name = Some(long);
    metrics.push(metric(Some("speed"), Some(5), Wire::Int(1)));
    let effects = node.handle(pump(), Kind::Birth, &bytes(Some(4), metrics));
    assert_eq!(effects[..2], [Effect::Online(pump()), Effect::Missed]);
    assert_eq!((effects.len(), node.metrics.len()), (MAX_METRICS_AT_ONCE + 1, MAX_METRICS_AT_ONCE));
    assert_eq!(data(&mut node, 5, 5, 20), [], "a rebirth would not tell more");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(messages in proptest::collection::vec(
        (0..3usize, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..60)), 0..20,
    )) {
        let mut node = born();
        for (kind, of_device, bytes) in messages {
            let kind = [Kind::Birth, Kind::Data, Kind::Death][kind];
            drop(node.handle(of_device.then(|| "pump".to_owned()), kind, &bytes));
        }
    }

    /// Whatever is lost or repeated on the way, no value is told that was not the last one sent of those that came.
    #[test]
    fn a_value_never_goes_back(losses in proptest::collection::vec(any::<(bool, bool)>(), 1..100)) {
        let mut node = born();
        let mut last = 10;
        for (i, (lost, again)) in losses.into_iter().enumerate() {
            let (seq, speed) = ((i as u64 + 2) % 256, i as u32 + 100);
            for _ in 0..(usize::from(!lost) * (1 + usize::from(again))) {
                for effect in named(&mut node, seq, speed) {
                    if let Effect::Said { said: Said::Value { value: Value::Int(told), .. }, .. } = effect {
                        prop_assert!(told > last, "{told} after {last}");
                        last = told;
                    }
                }
            }
        }
    }
}
