//! Commands for the valve: carried out once and in time, or not at all.

use serde_json::json;

use super::super::command::MAX_COMMANDS;
use super::*;
use crate::command::{Account, Command, CommandId, Order, Progress, State};
use crate::reply::ReplyTo;
use crate::twin::{Expiry, Said};

const NONE: [(String, f64); 0] = [];

fn place(id: &str) -> String {
    format!("/m/command/water/valve/{id}")
}

impl World {
    /// Somebody here orders it.
    fn order(&mut self, order: serde_json::Value) -> Result<String, String> {
        self.order_named("set", order)
    }

    fn order_named(&mut self, name: &str, order: serde_json::Value) -> Result<String, String> {
        let (now, order) = (self.now(), serde_json::from_value::<Order>(order).unwrap());
        let taken = self.twins.order(&valve(), name, order, "bob", &mut self.ks, now);
        self.drain();
        taken.map(|id| id.to_string())
    }

    /// The cloud orders it; the replica brings it here `age` seconds later.
    fn command(&mut self, id: &str, order: serde_json::Value, age: u64) {
        let json = self.command_row(id, order, age);
        self.put(&place(id), json);
    }

    fn command_row(&self, id: &str, order: serde_json::Value, age: u64) -> Bytes {
        let issued = UnixMillis(self.now().wall.shifted(AHEAD).0 - age * 1000);
        let order: Order = serde_json::from_value(order).unwrap();
        let id = CommandId::new(id).unwrap();
        crate::twin::json(&Command::new("set", order, id, "ann", issued).unwrap())
    }

    /// How a command stands here.
    fn state(&self, id: &str) -> Option<(State, Option<Outcome>)> {
        let all = self.twins.commands(Some(&valve()), self.now());
        all.into_iter().find(|view| view.command.id.to_string() == id).map(|view| (view.state, view.outcome))
    }

    fn ended(&self, id: &str) -> Option<Outcome> {
        self.state(id).filter(|(state, _)| *state == State::Ended).and_then(|(_, outcome)| outcome)
    }

    /// What the cloud was told of a command since the last look at writes.
    fn accounts(&self, id: &str) -> Vec<Progress> {
        let key = format!("command/water/valve/{id}");
        let account = |output: &Output| {
            let Output::Up { key: told, payload, .. } = output else { return None };
            (*told == key).then(|| crate::twin::decode::<Account>(payload).unwrap().progress)
        };
        self.seen.iter().filter_map(account).collect()
    }

    fn stored(&self) -> Vec<String> {
        let rows = ["/t/command/", "/t/order/"].into_iter().flat_map(|prefix| self.ks.range(prefix));
        rows.map(|(key, _)| key.to_string()).collect()
    }
}

#[test]
fn a_command_is_written_once_with_its_own_time_and_its_end_is_told() {
    let mut world = World::new();
    world.command("c1", json!({"args": {"position": 40}, "ttlMs": 5000}), 1);
    assert_eq!(world.accounts("c1"), [Progress::Executing]);
    assert_eq!(world.state("c1"), Some((State::Executing, None)));
    let writes = world.writes();
    let [write] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!((write.value.clone(), write.ttl_ms), (Value::Float(40.0), 4000));
    assert_eq!(write.cause, "command c1 by ann");
    world.answer(write, Outcome::Succeeded);
    assert_eq!(world.accounts("c1"), [Progress::Ended(Outcome::Succeeded)]);
    assert_eq!(
        (world.results(), world.ended("c1")),
        (vec!["c1 Succeeded".to_owned()], Some(Outcome::Succeeded))
    );
    world.changed(&Key::new(&place("c1")).unwrap());
    world.seconds(30);
    assert_eq!(world.written(), NONE);
    world.take_back(&place("c1"));
    assert_eq!((world.state("c1"), world.stored()), (None, vec![]), "the cloud knows, and its time is over");
}

#[test]
fn a_command_without_an_expiry_is_refused_and_that_of_its_message_will_do() {
    let mut world = World::new();
    let topic = Topic::new("twin/water/valve/command/set").unwrap();
    let order = br#"{"id": "c1", "args": {"position": 40}}"#;
    for (expiry, written) in [(None, vec![]), (Some(Expiry(Duration::from_secs(3))), vec![position(40.0)])] {
        let now = world.now();
        world.twins.handle_publish(
            Some(Ticket(1)),
            &Who::Anonymous,
            &topic,
            Said { expiry, ..Said::plain(order) },
            &mut world.ks,
            now,
        );
        world.drain();
        assert_eq!(
            world.seen.last(),
            Some(&Output::Accept(Ticket(1))).filter(|_| expiry.is_some()).or(Some(&Output::Reject(
                Ticket(1),
                "a command needs an expiry (ttlMs, or the message expiry of MQTT 5.0): \
                without one it might act at any later time"
                    .to_owned()
            )))
        );
        assert_eq!(world.written(), written);
    }
}

#[test]
fn what_comes_too_late_expires_and_moves_nothing() {
    let mut world = World::new();
    let order = json!({"args": {"position": 40}, "ttlMs": 5000});
    for (id, age, written) in [("c1", 4, vec![position(40.0)]), ("c2", 5, vec![]), ("c3", 18_000, vec![])] {
        world.command(id, order.clone(), age);
        assert_eq!(world.carry_out(), written, "{age} s old");
    }
    assert_eq!((world.ended("c1"), world.ended("c2")), (Some(Outcome::Succeeded), Some(Outcome::Expired)));
    let views = world.twins.commands(None, world.now());
    assert_eq!(views[0].detail, "5h old");
    assert_eq!(world.twins.stats().expired_commands, 2);
}

#[test]
fn without_the_clouds_clock_a_command_waits_for_a_moment_and_is_then_expired() {
    for (ttl_ms, waits, clock_comes, expected) in [
        (8_000, 3, true, Outcome::Succeeded),
        (8_000, 7, true, Outcome::Expired),
        (8_000, 7, false, Outcome::Expired),
        (60_000, 9, false, Outcome::Expired),
    ] {
        let mut world = World::cold();
        world.mapper("online");
        world.command("c1", json!({"args": {"position": 40}, "ttlMs": ttl_ms}), 1);
        let revision = world.ks.revision();
        for _ in 0..waits {
            world.seconds(1);
            world.clock(false);
        }
        assert_eq!((world.state("c1"), world.written()), (Some((State::Accepted, None)), vec![]));
        assert_eq!(world.ks.revision(), revision, "waiting wears no disk");
        if clock_comes {
            world.clock(true);
            world.carry_out();
        }
        world.seconds(1);
        assert_eq!(world.ended("c1"), Some(expected), "{ttl_ms} {waits} {clock_comes}");
        world.clock(true);
        world.seconds(60);
        assert_eq!(world.ended("c1"), Some(expected));
    }
}

#[test]
fn what_is_ordered_here_needs_no_clock_of_the_cloud() {
    let mut world = World::cold();
    world.mapper("online");
    assert_eq!(
        world.order(json!({"id": "c1", "args": {"position": 40}, "ttlMs": 5000})),
        Ok("c1".to_owned())
    );
    let writes = world.writes();
    world.answer(&writes[0], Outcome::Succeeded);
    assert_eq!(world.accounts("c1"), [Progress::Ended(Outcome::Succeeded)]);
}

#[test]
fn the_same_id_is_carried_out_once_and_answered_again() {
    let mut world = World::new();
    let order = json!({"id": "c1", "args": {"position": 40}, "ttlMs": 60000});
    assert_eq!(world.order(order.clone()), Ok("c1".to_owned()));
    assert_eq!(world.order(order.clone()), Ok("c1".to_owned()), "while it is under way");
    assert_eq!(world.carry_out(), [position(40.0)]);
    for restarts in [false, true] {
        if restarts {
            world.restart();
            world.mapper("online");
        }
        world.seen.clear();
        assert_eq!(world.order(order.clone()), Ok("c1".to_owned()));
        assert_eq!((world.results(), world.written()), (vec!["c1 Succeeded".to_owned()], vec![]));
        let other = json!({"id": "c1", "args": {"position": 41}, "ttlMs": 60000});
        assert_eq!(world.order(other), Err("id c1 was another command".to_owned()));
    }
    world.seconds(60);
    assert_eq!((world.state("c1"), world.stored()), (None, vec![]), "its time is over");
}

#[test]
fn a_cloud_that_was_restored_and_orders_the_same_again_is_answered_and_nothing_moves() {
    for restarts in [false, true] {
        let mut world = World::new();
        let order = json!({"args": {"position": 40}, "ttlMs": 60000});
        world.command("c1", order.clone(), 10);
        let row = world.ks.get(&place("c1")).unwrap().clone();
        assert_eq!(world.carry_out(), [position(40.0)]);
        world.seconds(1);
        world.take_back(&place("c1"));
        if restarts {
            world.restart();
            world.mapper("online");
            world.clock(true);
        }
        world.seconds(20);
        world.seen.clear();
        world.put(&place("c1"), row);
        assert_eq!(world.accounts("c1"), [Progress::Ended(Outcome::Succeeded)], "{restarts}");
        assert_eq!(world.written(), NONE);
        world.take_back(&place("c1"));
        world.seconds(60);
        assert_eq!((world.state("c1"), world.stored()), (None, vec![]));
    }
}

#[test]
fn an_id_that_was_used_here_is_not_the_clouds() {
    let mut world = World::new();
    world.order(json!({"id": "c1", "args": {"position": 40}, "ttlMs": 60000})).unwrap();
    world.carry_out();
    world.command("c1", json!({"args": {"position": 50}, "ttlMs": 60000}), 0);
    assert_eq!(world.accounts("c1"), [Progress::Ended(Outcome::Rejected)]);
    assert_eq!(world.results(), ["c1 Rejected: id c1 was another command"]);
    world.seen.clear();
    world.command("c1", json!({"args": {"position": 40}, "ttlMs": 60000}), 0);
    assert_eq!(
        world.accounts("c1"),
        [Progress::Ended(Outcome::Succeeded)],
        "the same order is the same command"
    );
    assert_eq!(world.written(), NONE);
}

#[test]
fn what_was_refused_for_its_id_stays_refused_when_the_one_from_here_is_forgotten() {
    for restarts in [false, true] {
        let mut world = World::new();
        world.order(json!({"id": "c1", "args": {"position": 40}, "ttlMs": 5000})).unwrap();
        world.carry_out();
        world.command("c1", json!({"args": {"position": 50}, "ttlMs": 600_000}), 0);
        world.seconds(10);
        assert_eq!(world.state("c1"), None, "the time of the one from here is over");
        if restarts {
            world.restart();
            world.mapper("online");
            world.clock(true);
        }
        // Nor is it forgotten to say so, to a cloud that may not have heard it.
        world.seen.clear();
        let now = world.now();
        world.twins.handle_resynced(Incarnation(9), &mut world.ks, now);
        world.drain();
        assert_eq!(world.accounts("c1"), [Progress::Ended(Outcome::Rejected)], "{restarts}");
        world.seen.clear();
        let row = world.ks.get(&place("c1")).unwrap().clone();
        world.put(&place("c1"), row);
        world.seconds(1);
        assert_eq!((world.ended("c1"), world.written()), (Some(Outcome::Rejected), vec![]), "{restarts}");
        world.take_back(&place("c1"));
        world.seconds(600);
        assert_eq!((world.state("c1"), world.stored()), (None, vec![]));
    }
}

/// Answers to who asked, as they are said: topic, correlation data, outcome.
fn replies(world: &World) -> Vec<(String, Vec<u8>, Outcome)> {
    let reply = |output: &Output| {
        let Output::Reply(said) = output else { return None };
        assert!(!said.retain);
        let body: bus::twin::ResultBody = serde_json::from_slice(&said.payload).unwrap();
        Some((said.topic.to_string(), said.properties.correlation.clone()?, body.outcome))
    };
    world.seen.iter().filter_map(reply).collect()
}

#[test]
fn who_asks_to_be_answered_hears_the_end_where_it_asked() {
    let mut world = World::new();
    let ask = |world: &mut World, order: &str, correlation: u8, topic: &str| {
        let properties = bus::Properties {
            response_topic: Some(topic.to_owned()),
            correlation: Some(vec![correlation]),
            ..bus::Properties::default()
        };
        let said = Said { reply: ReplyTo::of(&properties), ..Said::plain(order.as_bytes()) };
        let (topic, now) = (Topic::new("twin/water/valve/command/set").unwrap(), world.now());
        world.twins.handle_publish(None, &Who::Anonymous, &topic, said, &mut world.ks, now);
        world.drain();
    };
    let order = r#"{"id": "c1", "args": {"position": 40}, "ttlMs": 60000}"#;
    ask(&mut world, order, 1, "answers/me");
    assert_eq!(replies(&world), [], "it is under way");
    // The same again, as a client does that lost its connection: who asked last is answered.
    ask(&mut world, order, 2, "answers/me");
    let writes = world.writes();
    world.answer(&writes[0], Outcome::Succeeded);
    let succeeded = |correlation| ("answers/me".to_owned(), vec![correlation], Outcome::Succeeded);
    assert_eq!(replies(&world), [succeeded(2)]);
    world.restart();
    world.mapper("online");
    world.seen.clear();
    ask(&mut world, order, 3, "answers/me");
    assert_eq!(replies(&world), [succeeded(3)]);
    world.seen.clear();
    ask(&mut world, r#"{"id": "c2", "args": {"position": 40}}"#, 4, "answers/me");
    ask(&mut world, "{", 5, "answers/me");
    let rejected = |correlation| ("answers/me".to_owned(), vec![correlation], Outcome::Rejected);
    assert_eq!(replies(&world), [rejected(4), rejected(5)]);
    world.seen.clear();
    let order = r#"{"id": "c3", "args": {"position": 50}, "ttlMs": 60000}"#;
    ask(&mut world, order, 6, "mapper/virtual/write");
    assert_eq!(replies(&world), [], "nobody is answered there");
    assert!(world.results().last().unwrap().contains("the response topic is none that apps may publish on"));
    assert_eq!(world.written(), NONE);
}

#[test]
fn a_condition_that_does_not_hold_or_cannot_be_told_rejects() {
    let level = |max_age: &str| json!({"device": "water/junction", "property": "pressure", "op": "below", "value": 5, "maxAge": max_age});
    let order = |when: serde_json::Value| json!({"args": {"position": 40}, "ttlMs": 60000, "when": [when]});
    let mut world = World::new();
    let mut ends = Vec::new();
    let mut try_it = |world: &mut World, when: serde_json::Value| {
        let id = format!("c{}", ends.len());
        world.command(&id, order(when), 0);
        world.carry_out();
        ends.push((
            world.ended(&id).unwrap(),
            world.twins.commands(None, world.now()).last().unwrap().detail.clone(),
        ));
        world.seconds(1);
    };
    try_it(&mut world, level("10s"));
    world.say("twin/water/junction/report/pressure", "4");
    world.seconds(6);
    try_it(&mut world, level("5s"));
    try_it(&mut world, level("9s"));
    world.say("twin/water/junction/report/pressure", "5.5");
    try_it(&mut world, level("9s"));
    world.say("twin/water/junction/report/pressure", r#"{"value": 4, "quality": "bad"}"#);
    try_it(&mut world, level("9s"));
    world.say("twin/water/valve/report/setPoint", "3");
    try_it(&mut world, json!({"property": "setPoint", "op": "equal", "value": 3}));
    let untold = "whether 'water/junction/pressure<5' holds cannot be told: no good and recent value";
    let expected = [
        (Outcome::Rejected, untold),
        (Outcome::Rejected, untold),
        (Outcome::Succeeded, ""),
        (Outcome::Rejected, "'water/junction/pressure<5' does not hold: it is 5.5"),
        (Outcome::Rejected, untold),
        (Outcome::Succeeded, ""),
    ];
    assert_eq!(ends.iter().map(|(end, why)| (*end, why.as_str())).collect::<Vec<_>>(), expected);
}

#[test]
fn a_command_that_a_stronger_slot_would_mask_is_superseded() {
    let mut world = World::new();
    world.say("twin/water/valve/set/position", "70");
    world.carry_out();
    world.command("c1", json!({"args": {"position": 40, "setPoint": 3}, "ttlMs": 60000}), 0);
    assert_eq!(world.results(), ["c1 Superseded: position: slot 8 (local operator: local app) holds it"]);
    world.say("twin/water/valve/set/position", "");
    world.seconds(60);
    assert_eq!(world.carry_out(), [position(100.0)], "not the set point either, nor later");
}

#[test]
fn all_properties_of_a_command_or_none() {
    let mut world = World::new();
    world.command("c1", json!({"args": {"position": 101, "setPoint": 3}, "ttlMs": 60000}), 0);
    world.command("c2", json!({"args": {"position": 40, "colour": 3}, "ttlMs": 60000}), 0);
    assert_eq!(
        world.results(),
        ["c1 Rejected: position: 101 is outside 0 to 100", "c2 Rejected: 'colour' is no property of 'set'"]
    );
    world.mapper("offline");
    world.command("c3", json!({"args": {"position": 40, "setPoint": 3}, "ttlMs": 60000}), 0);
    assert_eq!(world.results().last().unwrap(), "c3 Failed: the device is offline; send it again");
    world.mapper("online");
    assert_eq!(world.written(), NONE);
    world.command("c4", json!({"args": {"position": 40, "setPoint": 3}, "ttlMs": 60000}), 0);
    let writes = world.writes();
    assert_eq!(writes.len(), 2);
    world.answer(&writes[0], Outcome::Succeeded);
    assert_eq!(world.ended("c4"), None, "one of two");
    world.answer(&writes[1], Outcome::Succeeded);
    assert_eq!(world.results(), ["c4 Succeeded"]);
    world.command("c5", json!({"args": {"position": 50, "setPoint": 4}, "ttlMs": 60000}), 0);
    let writes = world.writes();
    world.answer(&writes[1], Outcome::Failed);
    world.answer(&writes[0], Outcome::Succeeded);
    assert_eq!(world.results(), ["c5 Failed: setPoint: failed"]);
}

#[test]
fn a_restart_in_the_middle_ends_it_as_unknown_and_does_not_repeat_it() {
    for is_local in [false, true] {
        let mut world = World::new();
        let order = json!({"id": "c1", "args": {"position": 40, "setPoint": 3}, "ttlMs": 600_000});
        if is_local {
            world.order(order).unwrap();
        } else {
            world.command("c1", order, 0);
        }
        let writes = world.writes();
        world.answer(&writes[0], Outcome::Succeeded);
        world.seen.clear();
        world.restart();
        assert_eq!(world.accounts("c1"), [Progress::Ended(Outcome::Unknown)]);
        world.mapper("online");
        world.clock(true);
        world.seconds(500);
        assert_eq!((world.ended("c1"), world.written()), (Some(Outcome::Unknown), vec![]));
    }
}

#[test]
fn a_mapper_that_does_not_answer_or_goes_away_leaves_it_unknown() {
    let mut world = World::new();
    world.command("c1", json!({"args": {"position": 40}, "ttlMs": 5000}), 0);
    world.seconds(6);
    assert_eq!(world.ended("c1"), None);
    world.seconds(1);
    assert_eq!(world.ended("c1"), Some(Outcome::Unknown), "its time and the time for an answer");
    world.command("c2", json!({"args": {"position": 40}, "ttlMs": 5000}), 0);
    world.mapper("offline");
    assert_eq!(world.ended("c2"), Some(Outcome::Unknown));
}

/// Whatever happens after the end of a command, it is not written again.
#[test]
fn a_command_that_ended_is_never_written_again() {
    for (outcome, property) in [
        (Outcome::Succeeded, "position"),
        (Outcome::Failed, "position"),
        (Outcome::Succeeded, "setPoint"),
        (Outcome::Failed, "setPoint"),
    ] {
        let mut world = World::new();
        world.command("c1", json!({"args": {property: 40}, "ttlMs": 20_000, "holdMs": 500_000}), 0);
        let writes = world.writes();
        world.answer(&writes[0], outcome);
        assert_eq!(world.ended("c1"), Some(outcome));
        world.seconds(30);
        world.mapper("offline");
        world.mapper("online");
        world.say(&format!("twin/water/valve/set/{property}"), "70");
        world.carry_out();
        world.say(&format!("twin/water/valve/set/{property}"), "");
        world.seconds(1000);
        let again = world.writes().into_iter().filter(|write| write.cause.starts_with("command"));
        assert_eq!(again.count(), 0, "{outcome:?} {property}");
        assert_eq!(world.ended("c1"), Some(outcome), "terminal");
    }
}

#[test]
fn an_operator_who_takes_over_in_mid_write_supersedes_it_for_good() {
    let mut world = World::new();
    world.command("c1", json!({"args": {"position": 40}, "ttlMs": 50_000}), 0);
    world.say("twin/water/valve/set/position", "70");
    assert_eq!(world.ended("c1"), Some(Outcome::Superseded));
    assert_eq!(world.carry_out(), [position(40.0), position(70.0)]);
    world.say("twin/water/valve/set/position", "");
    assert_eq!(world.carry_out(), [position(100.0)]);
}

#[test]
fn the_newer_of_two_commands_wins_also_while_the_older_waits() {
    let mut world = World::new();
    world.govern("writeInterval: 30s");
    world.command("c1", json!({"args": {"position": 40}, "ttlMs": 60_000}), 0);
    world.command("c2", json!({"args": {"position": 50}, "ttlMs": 60_000}), 0);
    assert_eq!(world.carry_out(), [position(40.0)]);
    assert_eq!((world.ended("c1"), world.ended("c2")), (Some(Outcome::Succeeded), None), "it waits");
    world.command("c3", json!({"args": {"position": 60}, "ttlMs": 60_000}), 0);
    assert_eq!(world.ended("c2"), Some(Outcome::Superseded));
    world.seconds(30);
    assert_eq!(world.carry_out(), [position(60.0)]);
    assert_eq!(world.ended("c3"), Some(Outcome::Succeeded));
}

#[test]
fn an_actuator_that_may_not_be_written_in_time_ends_the_command_as_expired_with_all_its_properties() {
    let mut world = World::new();
    world.govern("writeInterval: 30s");
    world.desire("valve/position", 20.0, 1, 0);
    world.carry_out();
    world.seconds(10);
    world.command("c1", json!({"args": {"position": 40, "setPoint": 3}, "ttlMs": 20_000}), 0);
    assert_eq!(world.results(), ["c1 Expired: position: it cannot be moved there within the command's time"]);
    assert_eq!(world.written(), NONE);
    world.command("c2", json!({"args": {"position": 40}, "ttlMs": 20_001}), 0);
    world.seconds(20);
    assert_eq!(world.carry_out(), [position(40.0)]);
    assert_eq!(world.ended("c2"), Some(Outcome::Succeeded));
}

#[test]
fn nothing_is_written_for_a_command_whose_time_ended_while_it_waited() {
    let mut world = World::new();
    world.govern("writeInterval: 30s");
    world.desire("valve/position", 20.0, 1, 0);
    world.carry_out();
    world.command("c1", json!({"args": {"position": 40, "setPoint": 3}, "ttlMs": 40_000}), 0);
    assert_eq!(world.carry_out(), [set_point(3.0)]);
    world.seconds(29);
    world.say("twin/water/valve/set/position", "70");
    world.seconds(12);
    assert_eq!(world.ended("c1"), Some(Outcome::Superseded), "the operator's write took its turn");
    assert_eq!(world.carry_out(), [position(70.0)]);
    world.seconds(60);
    world.say("twin/water/valve/set/setPoint", "9");
    world.carry_out();
    world.say("twin/water/valve/set/setPoint", "");
    world.command("c2", json!({"args": {"setPoint": 4}, "ttlMs": 5_000}), 0);
    let writes = world.writes();
    world.answer(&writes[0], Outcome::Succeeded);
    assert_eq!(world.ended("c2"), Some(Outcome::Succeeded));
}

#[test]
fn a_command_that_waits_behind_a_stronger_slot_ends_with_its_time() {
    let mut world = World::new();
    world.govern("writeInterval: 30s");
    world.say("twin/water/valve/set/position", "70");
    world.carry_out();
    world.say("twin/water/valve/set/position", "");
    world.command("c1", json!({"args": {"position": 40}, "ttlMs": 40_000, "holdMs": 500_000}), 0);
    // The same as the device has: nothing is to be written for it.
    world.say("twin/water/valve/set/position", "70");
    world.seconds(39);
    assert_eq!(world.ended("c1"), None);
    world.seconds(1);
    assert_eq!(world.ended("c1"), Some(Outcome::Expired));
    world.say("twin/water/valve/set/position", "");
    world.seconds(100);
    let causes: Vec<String> = world.writes().into_iter().map(|write| write.cause).collect();
    assert_eq!(causes, ["fail-safe"], "not the command");
}

#[test]
fn a_command_holds_its_slot_for_a_time_and_then_lets_go() {
    let mut world = World::new();
    world.command("c1", json!({"args": {"position": 40}, "ttlMs": 10_000, "holdMs": 90_000}), 0);
    world.carry_out();
    world.seconds(80);
    world.desire("valve/position", 20.0, 1, 0);
    assert_eq!(
        world.results(),
        ["position 0.1 Superseded: slot 12 (command c1 by ann) holds it; set it again later"]
    );
    assert_eq!(world.written(), NONE);
    world.seconds(10);
    assert_eq!(world.carry_out(), [position(100.0)]);
}

#[test]
fn a_setting_that_was_commanded_gives_way_to_the_next_wish() {
    let mut world = World::new();
    world.desire("valve/setPoint", 3.0, 1, 0);
    world.command("c1", json!({"args": {"setPoint": 4}, "ttlMs": 10_000}), 0);
    assert_eq!(world.carry_out(), [set_point(3.0), set_point(4.0)]);
    world.seconds(1000);
    assert_eq!(world.written(), NONE, "until somebody wishes otherwise");
    world.desire("valve/setPoint", 5.0, 2, 0);
    assert_eq!(world.carry_out(), [set_point(5.0)]);
    assert_eq!(world.ack("valve/setPoint"), Some((2, Outcome::Succeeded)));
}

#[test]
fn more_commands_than_can_be_remembered_are_rejected() {
    let mut world = World::new();
    let order = |n: usize| json!({"id": format!("c{n}"), "args": {"setPoint": n}, "ttlMs": 60_000});
    for n in 0..MAX_COMMANDS - 1 {
        world.order(order(n)).unwrap();
        world.carry_out();
    }
    world.command("d1", json!({"args": {"setPoint": 3}, "ttlMs": 600_000}), 0);
    assert_eq!(world.carry_out(), [set_point(3.0)]);
    let full = "1024 commands are remembered already; send it again later".to_owned();
    assert_eq!(world.order(order(MAX_COMMANDS)), Err(full.clone()));
    world.command("d2", json!({"args": {"setPoint": 4}, "ttlMs": 600_000}), 0);
    assert_eq!(
        (world.accounts("d2"), world.results()),
        (vec![Progress::Ended(Outcome::Rejected)], vec![format!("d2 Rejected: {full}")])
    );
    world.seconds(61);
    world.restart();
    world.mapper("online");
    world.clock(true);
    world.changed(&Key::new(&place("d2")).unwrap());
    assert_eq!(world.written(), NONE, "what was rejected once is not carried out when there is room");
    assert_eq!(world.ended("d2"), Some(Outcome::Rejected));
    world.order(order(1)).unwrap();
    assert_eq!(world.carry_out(), [set_point(1.0)], "forgotten with its time");
    world.take_back(&place("d2"));
    world.take_back(&place("d1"));
    world.seconds(700);
    assert_eq!(world.stored(), Vec::<String>::new());
}

#[test]
fn a_device_that_is_taken_away_takes_its_commands_with_it() {
    let mut world = World::new();
    world.command("c1", json!({"args": {"position": 40}, "ttlMs": 60_000}), 0);
    world.order(json!({"id": "c2", "args": {"setPoint": 4}, "ttlMs": 60_000})).unwrap();
    world.take_back(MANIFESTS[2].0);
    assert_eq!((world.twins.commands(None, world.now()), world.stored()), (vec![], vec![]));
    world.seconds(100);
    let gone = world.order(json!({"args": {"setPoint": 4}, "ttlMs": 60_000}));
    assert_eq!(gone, Err("device water/valve is not of this edge".to_owned()));
}

#[test]
fn a_property_that_is_taken_away_ends_its_command() {
    let mut world = World::new();
    world.command("c1", json!({"args": {"setPoint": 4}, "ttlMs": 60_000}), 0);
    let (key, model) = MANIFESTS[0];
    world.put(key, json(&model.replace("{name: setPoint, type: FLOAT, accessMode: ReadWrite, unit: m}", "")));
    world.seconds(60);
    assert_eq!(world.ended("c1"), Some(Outcome::Unknown));
}

#[test]
fn a_cloud_that_may_have_forgotten_is_told_of_ends_again() {
    let mut world = World::new();
    world.command("c1", json!({"args": {"position": 40}, "ttlMs": 60_000}), 0);
    world.carry_out();
    world.seen.clear();
    let now = world.now();
    world.twins.handle_resynced(Incarnation(9), &mut world.ks, now);
    world.drain();
    assert_eq!(world.accounts("c1"), [Progress::Ended(Outcome::Succeeded)]);
}

#[test]
fn there_is_no_other_command() {
    let mut world = World::new();
    let order = json!({"id": "c1", "args": {"position": 40}, "ttlMs": 60_000});
    world.order_named("home", order).unwrap();
    assert_eq!(world.results(), ["c1 Rejected: there is no command 'home'; there is set, reset-rule"]);
    assert_eq!(world.written(), NONE);
}

#[test]
fn a_setting_comes_back_when_a_command_over_it_lets_go() {
    for both in [true, false] {
        let mut world = World::new();
        world.wish("setPoint", 28.0, 0, 1);
        assert_eq!(world.carry_out(), [set_point(28.0)]);
        let order = json!({"args": {"position": 5, "setPoint": 5}, "ttlMs": 1000, "holdMs": 47_000});
        world.command("c1", order, 0);
        let writes = world.writes();
        for write in writes.iter().filter(|write| both || write.property == "setPoint") {
            world.answer(write, Outcome::Succeeded);
        }
        world.seconds(40);
        let setting = |writes: Vec<(String, f64)>| writes.into_iter().filter(|(name, _)| name == "setPoint");
        assert_eq!(setting(world.carry_out()).count(), 0);
        world.seconds(10);
        let back: Vec<_> = setting(world.carry_out()).collect();
        assert_eq!(back, [set_point(28.0)], "both were answered: {both}");
    }
}

#[test]
fn a_new_disk_does_not_carry_out_what_the_one_before_may_have() {
    let order = || json!({"args": {"position": 40}, "ttlMs": 60_000});
    for is_new in [true, false] {
        let mut world = World::cold();
        if is_new {
            world.ks.delete(&Key::new(Numbers::KEY).unwrap());
            world.restart();
        }
        world.mapper("online");
        world.clock(true);
        world.seconds(5);
        world.command("before", order(), 6);
        let before = if is_new { Outcome::Unknown } else { Outcome::Succeeded };
        world.carry_out();
        assert_eq!(world.ended("before"), Some(before));
        world.command("since", order(), 4);
        world.carry_out();
        assert_eq!(world.ended("since"), Some(Outcome::Succeeded), "{is_new}");
    }
    // The same with an old copy of the disk, which the cloud tells to take a new life.
    let mut world = World::new();
    world.seconds(5);
    let now = world.now();
    world.twins.handle_resynced(Incarnation(8), &mut world.ks, now);
    world.seconds(5);
    world.command("before", order(), 6);
    assert_eq!(world.ended("before"), Some(Outcome::Unknown));
}

#[test]
fn an_end_that_the_outbox_had_no_room_for_is_told_when_there_is() {
    let mut world = World::new();
    world.command("c1", json!({"args": {"position": 40}, "ttlMs": 60_000}), 0);
    world.carry_out();
    world.seen.clear();
    world.twins.tell_again(|_| false, &world.ks);
    world.drain();
    assert_eq!(world.accounts("c1"), [Progress::Ended(Outcome::Succeeded)]);
}
