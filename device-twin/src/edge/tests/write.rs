use bus::Value;

use super::*;

#[test]
fn the_newest_write_wins_and_the_older_one_is_superseded() {
    let mut world = World::new();
    world.desire("valve/position", 40.0, 1, 0);
    world.desire("valve/position", 60.0, 2, 0);
    let result = last(&world.seen, "twin/water/valve/result").unwrap();
    assert_eq!((result["outcome"].as_str(), result["version"].as_str()), (Some("superseded"), Some("0.1")));
    let writes = world.writes();
    assert_eq!(
        writes.iter().map(|w| w.value.clone()).collect::<Vec<_>>(),
        [Value::Float(40.0), Value::Float(60.0)]
    );
    world.answer(&writes[0], Outcome::Succeeded);
    assert_eq!(world.ack("valve/position"), None, "an answer to what is over");
    world.answer(&writes[1], Outcome::Succeeded);
    world.answer(&writes[1], Outcome::Failed);
    assert_eq!(world.ack("valve/position"), Some((2, Outcome::Succeeded)), "an id ends once");
}

#[test]
fn a_write_without_an_answer_is_unknown_and_not_repeated() {
    let mut world = World::new();
    world.desire("valve/position", 40.0, 1, 0);
    let writes = world.writes();
    world.seconds(11);
    assert_eq!(world.ack("valve/position"), None);
    world.seconds(1);
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Unknown)));
    world.answer(&writes[0], Outcome::Succeeded);
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Unknown)), "terminal");
    world.seconds(300);
    assert_eq!(world.written(), []);
}

#[test]
fn a_write_lives_no_longer_than_the_decision_behind_it() {
    let mut world = World::new();
    world.desire("valve/position", 40.0, 1, 57);
    assert_eq!(world.writes()[0].ttl_ms, 3000);
}

#[test]
fn ids_are_unique_over_restarts() {
    let mut world = World::new();
    let mut ids = std::collections::BTreeSet::new();
    for seq in 1..=5 {
        world.desire("valve/position", seq as f64, seq, 0);
        for write in world.writes() {
            assert!(ids.insert(write.id));
        }
        world.restart();
        world.mapper("online");
        world.clock(true);
    }
    assert_eq!(ids.len(), 5);
}

#[test]
fn the_record_of_a_write_is_stored_before_it_is_spoken_and_when_it_ended() {
    let mut world = World::new();
    let record = |world: &World| {
        let record = super::super::device::read_record(&id("valve/position"), &world.ks);
        record.map(|record| (record.value, record.outcome))
    };
    assert_eq!(record(&world), None);
    world.desire("valve/position", 40.0, 1, 0);
    assert_eq!(record(&world), Some((Value::Float(40.0), None)));
    let writes = world.writes();
    world.answer(&writes[0], Outcome::Failed);
    assert_eq!(record(&world), Some((Value::Float(40.0), Some(Outcome::Failed))));
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Failed)));
}

#[test]
fn a_failed_setting_is_tried_again_and_a_rejected_one_is_not() {
    let mut world = World::new();
    world.desire("valve/setPoint", 3.0, 1, 0);
    let writes = world.writes();
    world.answer(&writes[0], Outcome::Failed);
    world.seconds(4);
    assert_eq!(world.writes(), []);
    world.seconds(1);
    let writes = world.writes();
    assert_eq!(writes.len(), 1);
    world.answer(&writes[0], Outcome::Rejected);
    world.seconds(100);
    assert_eq!(world.writes(), []);
}

#[test]
fn an_operator_lets_go_with_an_empty_set() {
    let mut world = World::new();
    world.say("twin/water/valve/set/position", "70");
    let writes = world.writes();
    world.answer(&writes[0], Outcome::Succeeded);
    world.say("twin/water/valve/set/position", "");
    assert_eq!(world.written(), [("position".to_owned(), 100.0)]);
}

#[test]
fn an_operators_setting_that_a_restart_cut_short_gives_way_to_the_clouds() {
    let mut world = World::new();
    world.desire("valve/setPoint", 3.0, 1, 0);
    for value in ["", "5"] {
        for write in world.writes() {
            world.answer(&write, Outcome::Succeeded);
        }
        world.say("twin/water/valve/set/setPoint", value);
    }
    for write in world.writes() {
        world.answer(&write, Outcome::Succeeded);
    }
    world.restart();
    world.mapper("online");
    assert_eq!(world.written(), [("setPoint".to_owned(), 3.0)], "the device still has 5");
}

#[test]
fn a_long_detail_of_a_mapper_is_cut() {
    let mut world = World::new();
    world.desire("valve/setPoint", 3.0, 1, 0);
    let request = world.writes().remove(0);
    let result = WriteResult {
        id: request.id,
        device: request.device,
        property: request.property,
        outcome: Outcome::Failed,
        detail: "x".repeat(100_000),
    };
    world.say("mapper/virtual/result", &serde_json::to_string(&result).unwrap());
    let told = last(&world.seen, "twin/water/valve/result").unwrap();
    assert_eq!(told["detail"].as_str().map(str::len), Some(256));
}

#[test]
fn a_mapper_that_comes_back_moves_no_actuator() {
    let mut world = World::new();
    world.desire("valve/position", 40.0, 1, 0);
    world.mapper("offline");
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Unknown)));
    world.writes();
    world.desire("valve/position", 50.0, 2, 0);
    assert_eq!(world.ack("valve/position"), Some((2, Outcome::Failed)), "the device is offline");
    world.mapper("online");
    world.seconds(300);
    assert_eq!(world.written(), []);
}

#[test]
fn only_the_devices_own_mapper_answers_for_it() {
    let mut world = World::new();
    world.desire("valve/position", 40.0, 1, 0);
    let request = world.writes().remove(0);
    let result = format!(
        r#"{{"id": "{}", "device": {{"namespace": "water", "name": "valve"}}, "property": "position", "outcome": "succeeded"}}"#,
        request.id
    );
    let said = world.say("mapper/other/result", &result);
    assert_eq!(
        said,
        [Output::Reject(Ticket(7), "device water/valve is not served by mapper other".to_owned())]
    );
    assert_eq!(world.ack("valve/position"), None);
}

#[test]
fn an_operators_set_is_checked_and_answered() {
    let mut world = World::new();
    let refused = [
        ("twin/water/valve/set/position", "101", "101 is outside 0 to 100"),
        ("twin/water/valve/set/position", "\"open\"", "wrong type: expected Float, got open"),
        ("twin/water/valve/set/position", "{", "malformed: EOF while parsing an object at line 1 column 1"),
        ("twin/water/junction/set/pressure", "1", "the property is read-only"),
        ("twin/water/tank/set/pressure", "1", "device water/tank is not of this edge"),
        ("twin/water/pump/set/speed", "1", "device water/pump is not known here"),
        ("twin/water/valve/set/colour", "1", "device water/valve has no property 'colour'"),
        (
            "twin/water/valve/command/home",
            "{}",
            "a command needs an expiry (ttlMs, or the message expiry of MQTT 5.0): without one it might act at any later time",
        ),
        ("twin/water/valve/reported/position", "1", "only nodes publish here"),
        ("mapper/virtual/state", "tired", "a mapper's state is 'online' or 'offline'"),
    ];
    for (topic, payload, why) in refused {
        let said = world.say(topic, payload);
        assert_eq!(said.last(), Some(&Output::Reject(Ticket(7), why.to_owned())), "{topic} {payload}");
    }
    assert_eq!(world.twins.stats().refused, 10);
    assert_eq!(world.written(), []);
}

#[test]
fn a_wish_for_an_actuator_that_was_overtaken_in_mid_write_does_not_come_back() {
    let mut world = World::new();
    world.desire("valve/position", 40.0, 1, 0);
    world.writes();
    world.say("twin/water/valve/set/position", "70");
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Superseded)));
    world.carry_out();
    world.say("twin/water/valve/set/position", "");
    assert_eq!(world.carry_out(), [("position".to_owned(), 100.0)], "the fail-safe, not the wish");
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Superseded)));
}

#[test]
fn a_wish_that_is_done_and_comes_back_when_an_operator_lets_go_is_not_answered_again() {
    let mut world = World::new();
    world.desire("valve/position", 40.0, 1, 0);
    world.carry_out();
    world.say("twin/water/valve/set/position", "70");
    world.carry_out();
    world.say("twin/water/valve/set/position", "");
    let writes = world.writes();
    assert_eq!(writes.len(), 1, "it is still meant");
    world.seen.clear();
    world.answer(&writes[0], Outcome::Failed);
    assert_eq!((world.results(), world.ack("valve/position")), (vec![], Some((1, Outcome::Succeeded))));
}

#[test]
fn a_wish_that_is_taken_back_before_it_was_carried_out_is_answered() {
    let mut world = World::cold();
    world.mapper("online");
    world.desire("valve/position", 40.0, 1, 0);
    let row = Key::new("/m/desired/water/valve/position").unwrap();
    world.ks.delete(&row);
    world.changed(&row);
    assert_eq!(world.results(), ["position 0.1 Superseded: it was taken back"]);
    world.seconds(60);
    assert_eq!(world.written(), []);
}
