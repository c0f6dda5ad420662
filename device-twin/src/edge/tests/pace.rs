//! How fast the valve may be moved.

use serde_json::json;

use super::*;
use crate::command::{Command, CommandId, Order};

const NONE: [f64; 0] = [];

impl World {
    /// A valve that moves 10 percent a second at most, and stands at 20.
    fn slow() -> Self {
        Self::paced("slew: 10", Some(20.0))
    }

    fn paced(policy: &str, stands: Option<f64>) -> Self {
        let mut world = Self::new();
        world.govern(policy);
        if let Some(position) = stands {
            world.say("twin/water/valve/report/position", &position.to_string());
        }
        world.seen.clear();
        world
    }

    /// Positions that the mapper is asked for at once, which it answers and which are then read.
    fn steps(&mut self) -> Vec<f64> {
        let positions: Vec<f64> = self.carry_out().into_iter().map(|(_, position)| position).collect();
        for position in &positions {
            self.say("twin/water/valve/report/position", &position.to_string());
        }
        self.seen.clear();
        positions
    }

    /// Positions, one list a second.
    fn each_second(&mut self, seconds: usize) -> Vec<Vec<f64>> {
        let mut all = vec![self.steps()];
        for _ in 0..seconds {
            self.seconds(1);
            all.push(self.steps());
        }
        all
    }

    fn command_position(&mut self, id: &str, position: f64, ttl_ms: u64) {
        let order: Order =
            serde_json::from_value(json!({"args": {"position": position}, "ttlMs": ttl_ms})).unwrap();
        let issued = self.now().wall.shifted(AHEAD);
        let command = Command::new("set", order, CommandId::new(id).unwrap(), "ann", issued).unwrap();
        self.put(&format!("/m/command/water/valve/{id}"), crate::twin::json(&command));
    }

    fn end_of(&self, id: &str) -> Option<(Outcome, String)> {
        let all = self.twins.commands(None, self.now());
        let view = all.into_iter().find(|view| view.command.id.to_string() == id)?;
        Some((view.outcome?, view.detail))
    }
}

#[test]
fn a_large_change_goes_out_in_steps_and_is_acknowledged_with_the_last() {
    let mut world = World::slow();
    world.desire("valve/position", 45.0, 1, 0);
    assert_eq!(world.steps(), [30.0]);
    for (after_ms, expected) in [(999, None), (1, Some(40.0)), (999, None), (1, Some(45.0))] {
        assert_eq!(world.ack("valve/position"), None);
        world.pass(Duration::from_millis(after_ms));
        assert_eq!(world.steps(), expected.into_iter().collect::<Vec<_>>());
    }
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Succeeded)));
    world.seconds(20);
    assert_eq!(world.steps(), NONE);
}

#[test]
fn whoever_wants_it_moves_it_in_steps() {
    let mut world = World::slow();
    world.command_position("c1", 41.0, 10_000);
    assert_eq!(world.each_second(3), [vec![30.0], vec![40.0], vec![41.0], vec![]]);
    assert_eq!(world.end_of("c1"), Some((Outcome::Succeeded, String::new())));
    world.say("twin/water/valve/set/position", "20");
    assert_eq!(world.each_second(3), [vec![31.0], vec![21.0], vec![20.0], vec![]]);
    world.say("twin/water/valve/set/position", "");
    let to_safety = [30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0];
    assert_eq!(world.each_second(8).concat(), to_safety, "the fail-safe value");
}

const TRIP: &str =
    "{apiVersion: kubebus.io/v1alpha1, kind: Rule, metadata: {name: trip, namespace: water}, spec: {
    inputs: {pressure: {device: junction, property: pressure, maxAge: 10s}},
    output: {device: valve, property: position, ttl: 20s, slot: 2},
    onUnknown: hold,
    cases: [{name: pressure is high, when: {input: pressure, op: above, value: 6}, then: {value: 100}}]}}";

const REGULATE: &str =
    "{apiVersion: kubebus.io/v1alpha1, kind: Rule, metadata: {name: regulate, namespace: water}, spec: {
    inputs: {pressure: {device: junction, property: pressure, maxAge: 10s}},
    output: {device: valve, property: position, ttl: 20s},
    onUnknown: hold,
    cases: [{name: level, then: {value: {input: pressure, gain: 10, offset: 0}}}]}}";

#[test]
fn an_interlock_goes_in_steps_too() {
    let mut world = World::slow();
    world.put("/m/rule/water/trip", json(TRIP));
    world.say("twin/water/junction/report/pressure", "7");
    assert_eq!(world.each_second(4), [vec![30.0], vec![40.0], vec![50.0], vec![60.0], vec![70.0]]);
}

#[test]
fn a_new_target_in_mid_change_is_gone_to_from_where_the_valve_was_sent() {
    let mut world = World::slow();
    world.desire("valve/position", 80.0, 1, 0);
    assert_eq!(world.each_second(2), [vec![30.0], vec![40.0], vec![50.0]]);
    world.desire("valve/position", 45.0, 2, 0);
    assert_eq!(world.steps(), NONE, "not twice a second");
    assert_eq!(world.each_second(2), [vec![], vec![45.0], vec![]]);
    assert_eq!(world.ack("valve/position"), Some((2, Outcome::Succeeded)));
}

#[test]
fn a_new_target_while_a_step_is_not_answered_is_as_far_as_one_step_from_it() {
    let mut world = World::slow();
    world.desire("valve/position", 80.0, 1, 0);
    assert_eq!(world.each_second(2), [vec![30.0], vec![40.0], vec![50.0]]);
    world.seconds(1);
    let step = world.writes();
    assert_eq!(step[0].value, Value::Float(60.0));
    world.desire("valve/position", 0.0, 2, 0);
    assert!(world.results().is_empty() && world.writes().is_empty());
    world.seconds(1);
    assert_eq!(world.results(), ["position 0.1 Superseded: a newer write took its place"]);
    let next = world.writes();
    assert_eq!(next[0].value, Value::Float(50.0));
}

#[test]
fn where_nobody_reads_the_position_it_stands_where_it_was_sent_last() {
    let mut world = World::slow();
    world.seconds(5);
    world.desire("valve/position", 60.0, 1, 0);
    let mut all = Vec::new();
    for _ in 0..5 {
        all.extend(world.carry_out());
        world.seconds(1);
    }
    assert_eq!(all.last().unwrap().1, 60.0);
    world.desire("valve/position", 100.0, 2, 0);
    assert_eq!(world.carry_out()[0].1, 70.0, "not one step from what was read before it moved");
    world.seconds(1);
    let writes = world.writes();
    assert_eq!(writes[0].value, Value::Float(80.0));
    world.answer(&writes[0], Outcome::Failed);
    assert_eq!(world.ack("valve/position"), Some((2, Outcome::Failed)));
    world.seconds(1);
    world.desire("valve/position", 0.0, 3, 0);
    assert_eq!(world.carry_out()[0].1, 70.0, "nor after a failure");
    world.restart();
    world.mapper("online");
    world.clock(true);
    world.desire("valve/position", 0.0, 4, 0);
    world.seconds(1);
    assert_eq!(world.carry_out()[0].1, 60.0, "nor after a restart");
    world.say("twin/water/valve/report/position", "66");
    world.seconds(1);
    assert_eq!(world.carry_out()[0].1, 50.0, "a change goes on from its own steps");
}

#[test]
fn a_position_that_is_not_known_at_all_is_gone_to_at_once() {
    let mut world = World::paced("slew: 10", None);
    world.desire("valve/position", 80.0, 1, 0);
    assert_eq!(world.each_second(2), [vec![80.0], vec![], vec![]]);
    world.desire("valve/position", 60.0, 2, 0);
    assert_eq!(world.each_second(2), [vec![70.0], vec![60.0], vec![]]);
}

#[test]
fn a_step_that_fails_ends_the_change() {
    let mut world = World::slow();
    world.desire("valve/position", 80.0, 1, 0);
    world.steps();
    world.seconds(1);
    let writes = world.writes();
    world.answer(&writes[0], Outcome::Failed);
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Failed)));
    world.seconds(30);
    assert_eq!(world.steps(), NONE);
}

#[test]
fn a_restart_in_mid_change_leaves_it_unknown_and_it_is_not_gone_on_with() {
    for in_mid_step in [true, false] {
        let mut world = World::slow();
        world.desire("valve/position", 80.0, 1, 0);
        assert_eq!(world.each_second(2).concat(), [30.0, 40.0, 50.0]);
        if in_mid_step {
            world.seconds(1);
            assert_eq!(world.writes().len(), 1);
        }
        world.seen.clear();
        world.restart();
        assert_eq!(world.ack("valve/position"), Some((1, Outcome::Unknown)), "{in_mid_step}");
        assert_eq!(world.results().len(), 1);
        world.mapper("online");
        world.clock(true);
        world.seconds(30);
        assert_eq!(world.steps(), NONE);
    }
}

#[test]
fn a_wish_that_waited_for_its_turn_when_the_node_restarted_ends_as_failed() {
    let mut world = World::paced("writeInterval: 30s", Some(20.0));
    world.desire("valve/position", 30.0, 1, 0);
    world.steps();
    world.desire("valve/position", 80.0, 2, 0);
    world.restart();
    assert_eq!(world.ack("valve/position"), Some((2, Outcome::Failed)));
    assert_eq!(
        world.results(),
        ["position 0.2 Failed: the node restarted before it was written; set it again"]
    );
    world.mapper("online");
    world.seconds(100);
    assert_eq!(world.steps(), NONE);
}

#[test]
fn the_time_between_writes_binds_rules_and_wishes_but_no_interlock() {
    let mut world = World::paced("writeInterval: 30s", Some(20.0));
    world.put("/m/rule/water/regulate", json(REGULATE));
    world.put("/m/rule/water/trip", json(TRIP));
    world.say("twin/water/junction/report/pressure", "4");
    assert_eq!(world.steps(), [40.0]);
    for _ in 0..3 {
        world.seconds(5);
        world.say("twin/water/junction/report/pressure", "5");
        assert_eq!(world.steps(), NONE);
    }
    world.say("twin/water/junction/report/pressure", "7");
    assert_eq!(world.steps(), [100.0], "slot 2 does not wait");
    for _ in 0..29 {
        world.seconds(1);
        world.say("twin/water/junction/report/pressure", "5");
        assert_eq!(world.steps(), NONE, "slot 10 waits, from the last write on");
    }
    world.seconds(1);
    assert_eq!(world.steps(), [50.0]);
}

#[test]
fn the_time_between_writes_goes_on_over_a_restart() {
    let mut world = World::paced("writeInterval: 30s", Some(20.0));
    world.desire("valve/position", 40.0, 1, 0);
    world.steps();
    world.seconds(10);
    world.twins = fresh();
    world.ms += 5_000;
    world.restart();
    world.mapper("online");
    world.clock(true);
    world.desire("valve/position", 50.0, 2, 0);
    world.seconds(14);
    assert_eq!(world.steps(), NONE);
    world.seconds(1);
    assert_eq!(world.steps(), [50.0]);
}

#[test]
fn a_command_that_cannot_be_done_in_its_time_moves_nothing() {
    let mut world = World::slow();
    world.command_position("c1", 80.0, 5_000);
    let why = "position: it cannot be moved there within the command's time".to_owned();
    assert_eq!((world.steps(), world.end_of("c1")), (vec![], Some((Outcome::Expired, why))));
    world.command_position("c2", 80.0, 5_001);
    assert_eq!(world.each_second(5).concat(), [30.0, 40.0, 50.0, 60.0, 70.0, 80.0]);
}

#[test]
fn a_command_whose_time_ends_in_mid_change_stops_there_and_says_so() {
    let mut world = World::slow();
    world.command_position("c1", 80.0, 6_000);
    for _ in 0..3 {
        let writes = world.writes();
        world.pass(Duration::from_millis(1_700));
        world.answer(&writes[0], Outcome::Succeeded);
    }
    let writes = world.writes();
    assert_eq!((writes[0].value.clone(), writes[0].ttl_ms), (Value::Float(60.0), 900));
    world.answer(&writes[0], Outcome::Succeeded);
    world.seconds(30);
    let causes: Vec<String> = world.writes().into_iter().map(|write| write.cause).collect();
    assert_eq!(causes, ["fail-safe"], "nobody says anything any more");
    let why = "position: its time was over in the middle of the change".to_owned();
    assert_eq!(world.end_of("c1"), Some((Outcome::Unknown, why)));
}

/// A model whose position counts in whole numbers.
fn whole_numbers(world: &mut World) {
    let (key, model) = MANIFESTS[0];
    world.put(key, json(&model.replace("position, type: FLOAT", "position, type: INT")));
}

#[test]
fn whole_numbers_go_in_whole_steps_and_no_faster() {
    let mut world = World::paced("slew: 2.9", None);
    whole_numbers(&mut world);
    world.say("twin/water/valve/report/position", "20");
    world.seen.clear();
    world.say("twin/water/valve/set/position", "25");
    assert_eq!(world.each_second(3), [vec![22.0], vec![24.0], vec![25.0], vec![]]);
    world.govern("slew: 0.4");
    world.seen.clear();
    world.say("twin/water/valve/set/position", "23");
    let expected = [vec![], vec![], vec![24.0], vec![], vec![23.0]];
    assert_eq!(world.each_second(4), expected, "2.5 s a step, the last was a second ago");
}

#[test]
fn what_is_no_number_is_not_stepped() {
    let mut world = World::paced("slew: 1", None);
    let (key, model) = MANIFESTS[0];
    let text = model.replace("position, type: FLOAT", "position, type: BOOLEAN");
    world.put(key, json(&text.replace("minimum: '0', maximum: '100', ", "")));
    world.say("twin/water/valve/report/position", "false");
    world.seen.clear();
    world.say("twin/water/valve/set/position", "true");
    assert_eq!(world.written().len(), 1);
}

#[test]
fn a_wish_that_was_told_to_be_replaced_is_not_carried_out_when_the_newer_one_is_refused() {
    let mut world = World::paced("writeInterval: 30s", Some(20.0));
    world.desire("valve/position", 30.0, 1, 0);
    assert_eq!(world.steps(), [30.0]);
    world.desire("valve/position", 80.0, 2, 0);
    world.desire("valve/position", 90.0, 3, 3600);
    let results = world.results();
    assert_eq!(results[0], "position 0.2 Superseded: a newer write took its place");
    assert!(results[1].starts_with("position 0.3 Expired"), "{results:?}");
    assert_eq!(results.len(), 2);
    world.seconds(31);
    assert_eq!(world.steps(), [100.0], "nobody says anything: the fail-safe");
}

#[test]
fn a_change_that_is_under_way_goes_on_when_a_newer_wish_is_refused_and_is_answered_once() {
    let mut world = World::slow();
    world.desire("valve/position", 50.0, 1, 0);
    world.desire("valve/position", 90.0, 2, 3600);
    let mut told = world.results();
    let first = world.carry_out();
    assert_eq!(first, [("position".to_owned(), 30.0)]);
    for _ in 0..4 {
        world.seconds(1);
        world.writes().iter().for_each(|write| world.answer(write, Outcome::Succeeded));
        told.extend(world.results());
        world.seen.clear();
    }
    told.retain(|result| result.contains(" 0.1 "));
    assert_eq!(told, ["position 0.1 Succeeded"]);
}

#[test]
fn a_change_that_was_given_up_is_not_gone_on_with_from_where_it_was() {
    let mut world = World::slow();
    world.desire("valve/position", 80.0, 1, 0);
    assert_eq!(world.each_second(1).concat(), [30.0, 40.0]);
    world.mapper("offline");
    world.seconds(20);
    world.mapper("online");
    world.seen.clear();
    world.say("twin/water/valve/report/position", "0");
    world.desire("valve/position", 60.0, 2, 0);
    assert_eq!(world.steps(), [10.0], "from where the valve was moved by hand");
}
