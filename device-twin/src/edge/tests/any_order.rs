//! Whatever happens in whatever order: stale never actuates, a start moves nothing, versions only grow.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::twin::{Reported, decode};

#[derive(Debug, Clone)]
enum Step {
    Desire {
        age: u64,
        value: u8,
    },
    /// The replica brings an older version once more.
    Old,
    Restart,
    Mapper(bool),
    Clock(bool),
    Answer(Outcome),
    Operator(u8),
    Report(u8),
    Pass(u64),
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Succeeded),
        Just(Outcome::Failed),
        Just(Outcome::Rejected),
        Just(Outcome::Expired)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..120, 0u8..100).prop_map(|(age, value)| Step::Desire { age, value }),
        1 => Just(Step::Old),
        1 => Just(Step::Restart),
        2 => any::<bool>().prop_map(Step::Mapper),
        2 => any::<bool>().prop_map(Step::Clock),
        3 => outcome().prop_map(Step::Answer),
        1 => (0u8..100).prop_map(Step::Operator),
        1 => (0u8..100).prop_map(Step::Report),
        4 => (0u64..70).prop_map(Step::Pass),
    ]
}

/// What the test knows beside the twins.
#[derive(Default)]
struct Truth {
    seq: u64,
    /// By version: when it stops being fresh, in milliseconds of the world.
    fresh_until: BTreeMap<u64, u64>,
    /// What lay in the keyspace, by version.
    said: BTreeMap<u64, (String, Bytes)>,
    /// Writes by version.
    written: BTreeMap<u64, u64>,
    acked: u64,
    requests: Vec<WriteRequest>,
}

fn perform(world: &mut World, truth: &mut Truth, step: &Step) {
    match step {
        Step::Desire { age, value } => {
            truth.seq += 1;
            truth.fresh_until.insert(truth.seq, (world.ms + 60_000).saturating_sub(age * 1000));
            world.desire("valve/position", f64::from(*value), truth.seq, *age);
            let key = "/m/desired/water/valve/position".to_owned();
            let bytes = world.ks.get(&key).cloned().unwrap();
            truth.said.insert(truth.seq, (key, bytes));
        }
        Step::Old => {
            if let Some((key, bytes)) = truth.said.get(&(truth.seq / 2)).cloned() {
                world.put(&key, bytes);
            }
        }
        Step::Restart => world.restart(),
        Step::Mapper(online) => world.mapper(if *online { "online" } else { "offline" }),
        Step::Clock(up) => world.clock(*up),
        Step::Answer(outcome) => {
            if let Some(request) = truth.requests.last().cloned() {
                world.answer(&request, *outcome);
            }
        }
        Step::Operator(value) => drop(world.say("twin/water/valve/set/position", &value.to_string())),
        Step::Report(value) => drop(world.say("twin/water/valve/report/position", &value.to_string())),
        Step::Pass(seconds) => world.seconds(*seconds),
    }
}

fn check_acks(world: &World, truth: &mut Truth) {
    for output in &world.seen {
        let Output::Up { key, payload, .. } = output else { continue };
        if key == "reported/water/valve/position" {
            let ack = decode::<Reported>(payload).unwrap().ack.map_or(0, |ack| ack.version.seq);
            assert!(ack >= truth.acked, "an acknowledgement went back from {} to {ack}", truth.acked);
            truth.acked = ack;
        }
    }
}

fn check_write(truth: &mut Truth, write: &WriteRequest, ms: u64) {
    let Some(version) = write.cause.strip_prefix("cloud desired 0.") else { return };
    let seq: u64 = version.split(' ').next().unwrap().parse().unwrap();
    let times = truth.written.entry(seq).or_default();
    *times += 1;
    assert_eq!(*times, 1, "version {seq} was written twice");
    assert!(write.sent.0 - EDGE_EPOCH <= truth.fresh_until[&seq], "version {seq} was written stale at {ms}");
    let newer = truth.written.range(seq + 1..).next();
    assert_eq!(newer, None, "version {seq} was written after a newer one");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn stale_never_actuates(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::cold();
        let mut truth = Truth::default();
        for step in &steps {
            perform(&mut world, &mut truth, step);
            check_acks(&world, &mut truth);
            let ms = world.ms;
            let writes = world.writes();
            writes.iter().for_each(|write| check_write(&mut truth, write, ms));
            if matches!(step, Step::Restart | Step::Mapper(_) | Step::Report(_) | Step::Old) {
                prop_assert_eq!(&writes, &[], "{:?} is no decision", step);
            }
            truth.requests.extend(writes);
        }
        let strip = |views: Vec<crate::TwinView>| -> Vec<_> {
            views.into_iter().map(|view| (view.device, view.property, view.reported)).collect()
        };
        let before = strip(world.twins.views(world.now()));
        world.restart();
        prop_assert_eq!(strip(world.twins.views(world.now())), before);
    }
}
