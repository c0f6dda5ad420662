//! Wishes of one change: carried out together or not at all.

use super::*;
use crate::Authority;
use crate::twin::{Group, cbor};

const NONE: [(String, f64); 0] = [];

/// `valve` and `drain` have a position and a set point each.
const MEMBERS: [&str; 2] = ["valve/position", "drain/position"];

impl World {
    /// A world with two valves, on mappers of their own.
    fn pair() -> Self {
        let mut world = Self::new();
        world.add_drain();
        world.say("mapper/modbus/state", "online");
        world.seen.clear();
        world
    }

    fn cold_pair() -> Self {
        let mut world = Self::cold();
        world.add_drain();
        world.mapper("online");
        world.say("mapper/modbus/state", "online");
        world.seen.clear();
        world
    }

    fn add_drain(&mut self) {
        let drain = MANIFESTS[2].1.replace("name: valve, namespace", "name: drain, namespace");
        self.put("/m/device/water/drain", json(&drain.replace("virtual", "modbus")));
    }

    /// The cloud wishes all of these as one.
    fn change(&mut self, members: &[(&str, f64)], seq: u64, age: u64) {
        let rows = self.rows(members, seq, age);
        self.put_all(rows);
    }

    fn rows(&self, members: &[(&str, f64)], seq: u64, age: u64) -> Vec<(String, Bytes)> {
        let issued = UnixMillis(self.now().wall.shifted(AHEAD).0 - age * 1000);
        let names = members.iter().map(|(property, _)| format!("water/{property}")).collect();
        let group = Some(Group { id: format!("{}@0.{seq}", members[0].0), members: names });
        let row = |(property, value): &(&str, f64)| {
            let (by, group, value) = ("ann".to_owned(), group.clone(), Value::Float(*value));
            let desired = Desired { value, version: version(seq), issued, by, group };
            (format!("/m/desired/water/{property}"), cbor(&desired))
        };
        members.iter().map(row).collect()
    }

    /// What both mappers are asked for, since the last look.
    fn moves(&mut self) -> Vec<(String, f64)> {
        let mut all = Vec::new();
        for output in std::mem::take(&mut self.seen) {
            let Output::Publish(publish) = output else { continue };
            if publish.topic.as_str().ends_with("/write") {
                let request: WriteRequest = serde_json::from_slice(&publish.payload).unwrap();
                let property = format!("{}/{}", request.device.name, request.property);
                all.push((property, request.value.as_f64().unwrap()));
            }
        }
        all
    }

    fn acks(&self, members: &[&str]) -> Vec<Option<(u64, Outcome)>> {
        members.iter().map(|property| self.ack(property)).collect()
    }

    fn modbus(&mut self, state: &str) {
        self.say("mapper/modbus/state", state);
    }
}

fn both(outcome: Outcome, seq: u64) -> Vec<Option<(u64, Outcome)>> {
    vec![Some((seq, outcome)); 2]
}

fn moved(moves: &[(&str, f64)]) -> Vec<(String, f64)> {
    moves.iter().map(|(property, value)| ((*property).to_owned(), *value)).collect()
}

#[test]
fn two_valves_change_as_one() {
    let mut world = World::pair();
    world.change(&[("valve/position", 0.0), ("drain/position", 100.0)], 1, 0);
    assert_eq!(world.moves(), moved(&[("valve/position", 0.0), ("drain/position", 100.0)]));
}

#[test]
fn one_that_cannot_be_set_to_its_value_stops_both() {
    let mut world = World::pair();
    world.change(&[("valve/position", 0.0), ("drain/position", 101.0)], 1, 0);
    assert_eq!(world.results(), ["position 0.1 Rejected: water/drain/position: 101 is outside 0 to 100"]);
    assert_eq!(world.acks(&MEMBERS), both(Outcome::Rejected, 1));
    assert_eq!(world.moves(), NONE);
}

#[test]
fn one_that_is_held_by_a_stronger_slot_stops_both() {
    let mut world = World::pair();
    world.say("twin/water/drain/set/position", "70");
    world.seen.clear();
    world.change(&[("valve/position", 0.0), ("drain/position", 100.0)], 1, 0);
    assert_eq!(world.acks(&MEMBERS), both(Outcome::Superseded, 1));
    assert_eq!(world.moves(), NONE);
}

#[test]
fn one_that_is_offline_stops_both_and_neither_moves_when_it_comes() {
    for members in [MEMBERS, ["valve/setPoint", "drain/setPoint"]] {
        let mut world = World::pair();
        world.modbus("offline");
        world.change(&[(members[0], 0.0), (members[1], 100.0)], 1, 0);
        assert_eq!(world.acks(&members), both(Outcome::Failed, 1), "{members:?}");
        world.modbus("online");
        world.seconds(100);
        world.restart();
        world.mapper("online");
        world.modbus("online");
        world.seconds(100);
        assert_eq!(world.moves(), NONE, "{members:?}");
    }
}

#[test]
fn one_that_is_too_old_stops_both_also_after_a_restart() {
    let mut world = World::pair();
    let members = ["valve/setPoint", "drain/position"];
    world.change(&[(members[0], 3.0), (members[1], 100.0)], 1, 60);
    assert_eq!(world.acks(&members), both(Outcome::Expired, 1), "a setting by itself would apply at any age");
    world.restart();
    world.mapper("online");
    world.modbus("online");
    world.clock(true);
    world.seconds(100);
    assert_eq!(world.moves(), NONE);
}

#[test]
fn one_that_is_wished_otherwise_by_now_stops_the_others() {
    let mut world = World::pair();
    let mut rows = world.rows(&[("valve/position", 0.0), ("drain/position", 100.0)], 1, 0);
    let (key, _) = rows.pop().unwrap();
    let newer = Desired {
        value: Value::Float(50.0),
        version: version(2),
        issued: world.now().wall.shifted(AHEAD),
        by: "ann".to_owned(),
        group: None,
    };
    rows.push((key, cbor(&newer)));
    world.put_all(rows);
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Superseded)));
    assert_eq!(
        world.results(),
        [
            "position 0.1 Superseded: water/drain/position: changed as one with others, and wished otherwise by now"
        ]
    );
    assert_eq!(world.moves(), moved(&[("drain/position", 50.0)]));
}

#[test]
fn one_whose_device_is_not_here_stops_the_others() {
    let mut world = World::new();
    world.change(&[("valve/position", 0.0), ("drain/position", 100.0)], 1, 0);
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Superseded)));
    world.add_drain();
    world.modbus("online");
    assert_eq!(world.ack("drain/position"), Some((1, Outcome::Failed)));
    assert_eq!(world.moves(), NONE);
}

#[test]
fn one_that_the_edge_has_taken_over_stops_the_others() {
    let mut world = World::pair();
    world.govern("localOverride: true");
    let (drain, now) = (id("drain/position").device, world.now());
    world.twins.take_authority(&drain, ("bob", ""), None, &mut world.ks, now).unwrap();
    world.drain();
    world.change(&[("valve/position", 0.0), ("drain/position", 100.0)], 1, 0);
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Superseded)));
    assert_eq!(world.moves(), NONE);
    let told: Authority = world.twins.authority(&drain).cloned().unwrap();
    assert_eq!(told.epoch, 1);
}

#[test]
fn one_that_may_not_be_written_while_it_is_meant_stops_both() {
    let mut world = World::pair();
    world.govern("writeInterval: 2m");
    world.say("twin/water/drain/set/position", "70");
    world.say("twin/water/drain/set/position", "");
    world.seen.clear();
    world.change(&[("valve/position", 0.0), ("drain/position", 100.0)], 1, 0);
    assert_eq!(world.acks(&MEMBERS), both(Outcome::Expired, 1));
    assert_eq!(world.moves(), NONE);
}

#[test]
fn all_wait_for_the_clouds_clock_and_are_then_judged_as_one() {
    for (age, settings) in [(0, false), (58, false), (0, true)] {
        let mut world = World::cold_pair();
        let members = if settings { ["valve/setPoint", "drain/position"] } else { MEMBERS };
        world.change(&[(members[0], 0.0), (members[1], 100.0)], 1, age);
        world.seconds(5);
        assert_eq!(world.moves(), NONE, "a setting waits with the others");
        world.clock(true);
        let expected = if age == 58 { vec![] } else { moved(&[(members[0], 0.0), (members[1], 100.0)]) };
        assert_eq!(world.moves(), expected);
    }
    let mut world = World::cold_pair();
    world.change(&[("valve/position", 0.0), ("drain/position", 100.0)], 1, 0);
    world.seconds(10);
    assert_eq!(world.acks(&MEMBERS), both(Outcome::Expired, 1), "the clock never came");
    assert_eq!(world.moves(), NONE);
}

#[test]
fn a_change_that_a_restart_finds_undecided_is_decided_on_as_one() {
    for age in [0, 58] {
        let mut world = World::cold_pair();
        world.change(&[("valve/position", 0.0), ("drain/position", 100.0)], 1, age);
        world.seconds(3);
        world.restart();
        world.mapper("online");
        world.modbus("online");
        world.clock(true);
        let expected =
            if age == 58 { vec![] } else { moved(&[("valve/position", 0.0), ("drain/position", 100.0)]) };
        assert_eq!(world.moves(), expected);
        world.restart();
        world.mapper("online");
        world.modbus("online");
        world.clock(true);
        world.seconds(100);
        assert_eq!(world.moves(), NONE, "decided on once");
    }
}

#[test]
fn a_setting_of_a_change_that_was_carried_out_is_delivered_like_any_other() {
    let mut world = World::pair();
    world.change(&[("valve/setPoint", 3.0), ("drain/setPoint", 4.0)], 1, 0);
    world.carry_out();
    world.restart();
    world.mapper("online");
    world.modbus("online");
    assert_eq!(world.moves(), moved(&[("drain/setPoint", 4.0)]), "the one that had not been answered");
}
