//! Latches and windows at an edge: over restarts, behind a deadband, and as people see them.

use bus::twin::DeviceId;

use super::*;
use crate::edge::ResetError;
use crate::rule::{Does, Refusal};

const RULE: &str = "/m/rule/water/burst";

/// A burst: the pressure falls, or is not known. The valve stays shut until somebody has looked.
const BURST: &str =
    "{apiVersion: kubebus.io/v1alpha1, kind: Rule, metadata: {name: burst, namespace: water}, spec: {
    inputs: {pressure: {device: junction, property: pressure, maxAge: 10s}},
    output: {device: valve, property: position, slot: 2, ttl: 5s},
    onUnknown: trip,
    cases: [{name: burst, latch: true, when: {input: pressure, op: below, value: 1}, then: {value: 0}}]}}";

/// A pressure that does not move at all is no pressure.
const FROZEN: &str = "{apiVersion: kubebus.io/v1alpha1, kind: Rule, metadata: {name: frozen, namespace: water}, spec: {
    inputs: {pressure: {device: junction, property: pressure, maxAge: 10s}},
    output: {device: valve, property: position, slot: 5, ttl: 5s},
    onUnknown: hold,
    cases: [{name: frozen, when: {input: pressure, spreadIn: 1m, op: at-most, value: 0.001}, then: {value: 20}}]}}";

fn burst() -> DeviceId {
    "water/burst".parse().unwrap()
}

impl World {
    fn guarded() -> Self {
        let mut world = Self::new();
        world.pressure(4.0);
        world.put(RULE, json(BURST));
        world.seconds(1);
        assert_eq!(world.positions(), NONE);
        world
    }

    fn rule(&self) -> RuleView {
        let all = self.twins.rule_views(self.now());
        assert_eq!(self.twins.first_rule_views(1, self.now()), (all.clone(), 1));
        assert_eq!(self.twins.first_rule_views(0, self.now()), (Vec::new(), 1));
        all.into_iter().next().unwrap()
    }

    fn reset(&mut self) -> Result<(), ResetError> {
        let now = self.now();
        let done = self.twins.reset_rule(&burst(), &mut self.ks, now);
        self.drain();
        done
    }
}

#[test]
fn a_trip_holds_over_a_restart_before_anything_else_is_decided() {
    let mut world = World::guarded();
    world.pressure(0.5);
    assert_eq!(world.positions(), [0.0]);
    world.pressure(4.0);
    world.seconds(60);
    assert_eq!(world.positions(), NONE, "latched");
    world.restart();
    world.mapper("online");
    world.clock(true);
    world.desire("valve/position", 80.0, 1, 0);
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Superseded)));
    world.seconds(1);
    assert_eq!(world.positions(), [0.0], "the device may have lost it");
}

#[test]
fn a_machine_that_stood_still_does_not_let_go_of_what_is_latched() {
    let mut world = World::guarded();
    world.pressure(0.5);
    assert_eq!(world.positions(), [0.0]);
    world.ms += 60_000;
    let now = world.now();
    world.twins.handle_timeout(&mut world.ks, now);
    world.drain();
    assert_eq!(world.positions(), NONE);
}

#[test]
fn a_reset_is_refused_with_its_reason_and_then_gives_way() {
    let mut world = World::guarded();
    world.pressure(0.5);
    assert_eq!(world.positions(), [0.0]);
    let why = bus::with_causes(&world.reset().unwrap_err());
    assert_eq!(why, "rule water/burst was not reset: 'burst' still holds (pressure 0.5, 0 s old)");
    world.pressure(4.0);
    world.seconds(9);
    assert_eq!(world.reset(), Ok(()));
    assert_eq!(world.positions(), [100.0], "the fail-safe holds again");
    let refused = ResetError::Refused { rule: burst(), why: Refusal::NotTripped };
    assert_eq!(world.reset(), Err(refused));
    world.restart();
    assert_eq!(world.rule().latched, [""; 0], "the reset is stored");
    world.take_back(RULE);
    assert_eq!(world.reset(), Err(ResetError::NotHere(burst())));
}

#[test]
fn silence_trips_and_people_see_why() {
    let mut world = World::guarded();
    let cold = world.rule();
    assert_eq!((cold.decision.map(|d| d.does), cold.tripped), (Some(Does::Relinquish), None));
    world.seen.clear();
    world.seconds(9);
    assert_eq!(world.positions(), [0.0], "nothing for ten seconds");
    let view = world.rule();
    assert_eq!(views(&world.seen), []);
    let expected = serde_json::json!({
        "rule": "water/burst", "output": "water/valve/position", "slot": 2,
        "decision": {"does": "set", "value": 0, "case": "burst", "because": "latched"},
        "latched": ["burst"],
        "tripped": {"case": "burst", "number": 0, "at": EDGE_EPOCH + 10_000, "unknown": true, "readings": [
            {"input": "pressure", "value": 4.0, "quality": "bad", "age_ms": 10_000}]},
        "unknown": ["pressure"],
        "since": EDGE_EPOCH + 10_000,
    });
    assert_eq!(serde_json::to_value(&view).unwrap(), expected);
    world.pressure(4.0);
    assert_eq!(world.rule().unknown, [""; 0]);
    assert_eq!(world.rule().tripped, view.tripped, "kept until it is reset");
}

#[test]
fn a_trip_is_told_to_the_cloud_at_once() {
    let mut world = World::guarded();
    world.pressure(0.5);
    let told = views(&world.seen);
    assert_eq!(told, [world.rule()]);
    assert_eq!(told[0].latched, ["burst"]);
    world.seen.clear();
    world.pressure(4.0);
    world.reset().unwrap();
    assert_eq!(views(&world.seen), [world.rule()]);
}

#[test]
fn a_latch_outlives_its_device_and_a_changed_document_but_not_its_rule() {
    let mut world = World::guarded();
    world.pressure(0.5);
    let device = world.ks.get("/m/device/water/valve").unwrap().clone();
    world.take_back("/m/device/water/valve");
    assert_eq!(world.twins.rule_views(world.now()), []);
    world.positions();
    world.put("/m/device/water/valve", device);
    assert_eq!(world.positions(), [0.0]);
    world.put(
        RULE,
        json(&BURST.replace("value: 1}", "value: 2}").replace("then: {value: 0}", "then: {value: 5}")),
    );
    assert_eq!(world.positions(), [5.0]);
    world.pressure(4.0);
    world.seconds(1);
    assert_eq!(world.rule().latched, ["burst"]);
    world.take_back(RULE);
    assert!(world.ks.get("/t/rule/water/burst").is_none());
}

#[test]
fn a_frozen_sensor_is_told_from_one_that_moves_within_its_deadband() {
    let mut world = World::new();
    world.put("/m/rule/water/frozen", json(FROZEN));
    let mut reports = |wobble: f64, seconds: u64| {
        for second in 0..seconds {
            world.pressure(4.0 + wobble * (second % 2) as f64);
            world.seconds(1);
        }
        world.positions()
    };
    assert_eq!(reports(0.05, 70), NONE, "the deadband is 0.1: one report of all is stored");
    assert_eq!(reports(0.0, 59), NONE, "not for a minute yet");
    assert_eq!(reports(0.0, 3), [20.0]);
    assert_eq!(reports(0.05, 2), [100.0], "it moves");
    assert_eq!(reports(0.0, 70), [20.0]);
    world.restart();
    world.mapper("online");
    let mut reports = |seconds: u64| {
        for _ in 0..seconds {
            world.pressure(4.0);
            world.seconds(1);
        }
        world.positions()
    };
    assert_eq!(reports(59), NONE, "the window began anew");
    assert_eq!(reports(2), [20.0]);
}

#[test]
fn the_history_of_another_site_is_one_of_what_it_published() {
    let mut world = World::new();
    world.put("/m/rule/water/frozen", json(&FROZEN.replace("device: junction", "device: tank")));
    for _ in 0..62 {
        world.level(2.0, 500);
        world.seconds(1);
    }
    assert_eq!(world.positions(), [20.0]);
    world.hear("twin/water/tank/reported/pressure", "");
    world.seconds(1);
    assert_eq!(world.positions(), NONE, "unknown: it holds");
    for _ in 0..59 {
        world.level(2.0, 500);
        world.seconds(1);
    }
    assert_eq!(world.rule().decision.unwrap().because, Because::Unknown, "not covered yet");
}
