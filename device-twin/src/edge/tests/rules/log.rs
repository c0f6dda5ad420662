//! The log of a whole edge.

use proptest::prelude::*;

use super::*;
use crate::rule::{Replay, replay};

const GUARD: &str = "{apiVersion: kubebus.io/v1alpha1, kind: Rule, metadata: {name: guard, namespace: water}, spec: {
    inputs: {pressure: {device: junction, property: pressure, maxAge: 5s},
             position: {device: valve, property: position}},
    output: {device: valve, property: position, slot: 2, ttl: 5s},
    onUnknown: trip,
    cases: [
        {name: high, latch: true, when: {input: pressure, op: above, value: 7, for: 2s}, then: {value: 0}},
        {name: fast, latch: true, when: {input: pressure, changeIn: 4s, op: above, value: 3}, then: {value: 10}}]}}";

#[derive(Debug, Clone)]
enum Step {
    Pressure(f64),
    Level(f64),
    Position(u8),
    Pass(u64),
    Mapper(bool),
    Restart,
    Reset,
    /// The rule is written anew, with another value.
    Change(u8),
    NewFile,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0.0..9.0f64).prop_map(Step::Pressure),
        3 => (0.0..5.0f64).prop_map(Step::Level),
        1 => (0u8..100).prop_map(Step::Position),
        6 => (1u64..3000).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Mapper),
        1 => Just(Step::Restart),
        1 => Just(Step::Reset),
        1 => (0u8..3).prop_map(Step::Change),
        1 => Just(Step::NewFile),
    ]
}

fn guard(value: u8) -> Bytes {
    json(&GUARD.replace("then: {value: 10}", &format!("then: {{value: {value}}}")))
}

impl World {
    fn begin_log(&mut self) {
        let now = self.now();
        self.twins.begin_rule_log(now);
        self.drain();
    }

    fn lines(&self) -> Vec<Bytes> {
        let lines = |output: &Output| {
            if let Output::RuleLog(line) = output {
                vec![line.clone()]
            } else if let Output::RuleHeads(lines) = output {
                lines.clone()
            } else {
                Vec::new()
            }
        };
        self.seen.iter().flat_map(lines).collect()
    }

    fn perform(&mut self, step: &Step) {
        match step {
            Step::Pressure(pressure) => {
                self.say("twin/water/junction/report/pressure", &pressure.to_string());
            }
            Step::Level(level) => self.level(*level, 300),
            Step::Position(position) => {
                self.say("twin/water/valve/report/position", &position.to_string());
            }
            Step::Pass(ms) => self.pass(Duration::from_millis(*ms)),
            Step::Mapper(online) => self.mapper(if *online { "online" } else { "offline" }),
            Step::Restart => {
                self.twins = fresh();
                let now = self.now();
                self.twins.load(&mut self.ks, now);
                self.begin_log();
            }
            Step::Reset => {
                let now = self.now();
                let _ = self.twins.reset_rule(&"water/guard".parse().unwrap(), &mut self.ks, now);
                self.drain();
            }
            Step::Change(value) => self.put("/m/rule/water/guard", guard(*value)),
            Step::NewFile => self.begin_log(),
        }
    }
}

#[test]
fn nothing_is_logged_before_somebody_keeps_the_log() {
    let mut world = World::ruled();
    world.here(50.0, 4.0);
    world.level(2.5, 0);
    assert_eq!(world.lines(), [""; 0]);
    world.begin_log();
    world.seconds(3);
    assert_eq!(world.lines().len(), 1, "one rule, and nothing changed");
    world.level(2.6, 0);
    world.level(2.6, 0);
    world.seconds(3);
    let replayed = replay(world.lines());
    assert_eq!(replayed, Replay { lines: 2, heads: 1, evaluations: 1, ..Replay::default() });
    world.seen.clear();
    world.twins.end_rule_log();
    world.level(2.7, 0);
    assert_eq!(world.lines(), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_an_edge_goes_through_its_log_replays(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::ruled();
        world.put("/m/rule/water/guard", guard(10));
        world.seen.clear();
        world.begin_log();
        steps.iter().for_each(|step| world.perform(step));
        let replayed = replay(world.lines());
        prop_assert_eq!(&replayed.findings, &[]);
        prop_assert_eq!(replayed.lines, replayed.heads + replayed.evaluations + replayed.resets);
    }
}
