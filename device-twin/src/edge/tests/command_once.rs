//! A command is carried out once: what became of it, its value does not come back.

use super::*;

const SPEED: &str = r#"{"id":"c","args":{"setPoint":4},"ttlMs":5000,"holdMs":60000}"#;
const VALVE: &str = r#"{"id":"c","args":{"position":40},"ttlMs":50000,"holdMs":60000}"#;

#[test]
fn a_command_that_failed_is_not_tried_again() {
    for outcome in [Outcome::Failed, Outcome::Expired, Outcome::Unknown, Outcome::Rejected] {
        let mut world = World::new();
        world.say("twin/water/valve/command/set", SPEED);
        let writes = world.writes();
        assert_eq!(writes.len(), 1);
        world.answer(&writes[0], outcome);
        world.seconds(300);
        assert_eq!(world.writes(), [], "{outcome:?}");
    }
}

#[test]
fn a_setting_goes_back_to_what_is_desired_after_a_command_that_failed() {
    let mut world = World::new();
    world.desire("valve/setPoint", 2.0, 1, 0);
    let writes = world.writes();
    world.answer(&writes[0], Outcome::Succeeded);
    world.say("twin/water/valve/command/set", SPEED);
    let writes = world.writes();
    world.answer(&writes[0], Outcome::Failed);
    world.seconds(10);
    let values: Vec<Value> = world.writes().into_iter().map(|write| write.value).collect();
    assert_eq!(values, [Value::Float(2.0)]);
}

#[test]
fn what_an_operator_took_over_a_command_does_not_take_back() {
    let mut world = World::new();
    world.say("twin/water/valve/command/set", VALVE);
    let writes = world.writes();
    world.answer(&writes[0], Outcome::Succeeded);
    world.say("twin/water/valve/set/position", "70");
    let writes = world.writes();
    world.answer(&writes[0], Outcome::Succeeded);
    world.say("twin/water/valve/set/position", "");
    let values: Vec<Value> = world.writes().into_iter().map(|write| write.value).collect();
    assert_eq!(values, [Value::Float(100.0)], "the fail-safe value: nobody else says anything");
}
