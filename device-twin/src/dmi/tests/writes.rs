//! Only a fresh write moves a device, and it moves nothing else.

use super::*;

const OPEN_POSITION: [(&str, &str); 3] =
    [("position", "ReadWrite"), ("pressure", "ReadOnly"), ("label", "ReadOnly")];

#[test]
fn a_write_opens_its_property_says_it_and_shuts_it_when_its_time_is_over() {
    let mut world = World::registered();
    world.write("w1", "position", Value::Int(40), TTL);
    let expires = Some(world.now + TTL);
    let (model, _) = world.call();
    assert_eq!((model.method, model.expires), (Method::CreateDeviceModel, expires));
    assert_eq!(access(&model.body), pairs(&OPEN_POSITION));
    world.answer(&model, Answer::Taken);
    let (update, _) = world.call();
    assert_eq!((update.method, update.expires), (Method::UpdateDevice, expires));
    assert_eq!(desired(&update.body), pairs(&[("position", "40"), ("pressure", ""), ("label", "")]));
    world.answer(&update, Answer::Taken);
    assert_eq!(world.outputs(), [ended("w1", "position", Outcome::Succeeded, "")]);
    world.pass(TTL);
    let (method, body) = world.takes();
    assert_eq!((method, access(&body)), (Method::CreateDeviceModel, pairs(&SHUT)));
    let (method, body) = world.takes();
    assert_eq!((method, desired(&body)), (Method::UpdateDevice, pairs(&NO_WISH)));
    world.quiet();
}

#[test]
fn what_cannot_be_delivered_in_time_is_expired_and_never_delivered() {
    let mut world = World::registered();
    world.write("w1", "position", Value::Int(40), TTL);
    let (call, _) = world.call();
    world.answer(&call, Answer::Unreachable("connection refused".to_owned()));
    world.pass(TTL);
    let why = "the mapper could not be reached in time";
    let outputs = world.outputs();
    assert_eq!(outputs[0], ended("w1", "position", Outcome::Expired, why));
    // The mapper is back: it hears that nothing is wished.
    let Some(Output::Call(call)) = outputs.into_iter().nth(1) else { panic!("a call") };
    assert_eq!(access(&call.body), pairs(&SHUT));
    world.answer(&call, Answer::Taken);
    world.quiet();
}

/// Its socket took the connection, and the time was over before the request.
#[test]
fn a_call_that_came_too_late_to_be_sent_ends_as_expired() {
    let mut world = World::registered();
    world.write("w1", "position", Value::Int(40), TTL);
    world.takes();
    let (call, _) = world.call();
    world.pass(TTL);
    world.answer(&call, Answer::Late);
    let expected = ended("w1", "position", Outcome::Expired, "the mapper could not be reached in time");
    assert!(world.outputs().contains(&expected));
}

#[test]
fn a_write_waits_for_a_mapper_that_comes_back_within_its_time() {
    let mut world = World::registered();
    world.write("w1", "position", Value::Int(40), TTL);
    let (call, _) = world.call();
    world.answer(&call, Answer::Unreachable("connection refused".to_owned()));
    world.quiet();
    world.pass(mapper::MIN_BACKOFF);
    assert_eq!(access(&world.takes().1), pairs(&OPEN_POSITION));
    assert_eq!(desired(&world.takes().1)[0].1, "40");
    assert_eq!(world.outputs(), [ended("w1", "position", Outcome::Succeeded, "")]);
}

#[test]
fn a_mapper_that_is_away_never_hears_of_what_was_answered() {
    let mut world = World::registered();
    world.write("w1", "position", Value::Int(40), TTL);
    for _ in 0..2 {
        let (call, _) = world.call();
        world.answer(&call, Answer::Unreachable("connection refused".to_owned()));
        world.pass(mapper::MIN_BACKOFF);
    }
    let note = Output::Note("DMI mapper modbus-mapper is away: connection refused".to_owned());
    let failed = ended("w1", "position", Outcome::Failed, "the mapper is away");
    assert_eq!(world.outputs(), [failed, note, state("offline")]);
    world.pass(mapper::MIN_BACKOFF);
    assert_eq!(access(&world.takes().1), pairs(&SHUT));
    assert_eq!(world.outputs(), [state("online")]);
}

#[test]
fn how_the_call_ends_is_how_the_write_ends() {
    for (answer, outcome, detail) in [
        (Answer::Refused("out of range".to_owned()), Outcome::Failed, "out of range"),
        (Answer::Lost("connection reset".to_owned()), Outcome::Unknown, "connection reset"),
    ] {
        let mut world = World::registered();
        world.write("w1", "position", Value::Int(40), TTL);
        world.takes();
        let (call, _) = world.call();
        world.answer(&call, answer);
        let mut outputs = world.outputs();
        assert_eq!(outputs.remove(0), ended("w1", "position", outcome, detail));
        world.pass(TTL);
        outputs.extend(world.outputs());
        outputs.retain(|output| matches!(output, Output::Call(_)));
        let mut wishes = Vec::new();
        while let Some(Output::Call(call)) = outputs.pop() {
            wishes.extend((call.method == Method::UpdateDevice).then(|| desired(&call.body)));
            world.answer(&call, Answer::Taken);
            outputs = world.outputs();
            outputs.retain(|output| matches!(output, Output::Call(_)));
            world.pass(GAP);
        }
        assert_eq!(wishes, [pairs(&NO_WISH)], "it is shut");
    }
}

#[test]
fn a_newer_write_takes_the_older_ones_place() {
    let mut world = World::registered();
    world.write("w1", "position", Value::Int(40), TTL);
    world.write("w2", "position", Value::Int(50), TTL);
    let (call, beside) = world.call();
    let why = "a newer write took its place";
    assert_eq!(beside, [ended("w1", "position", Outcome::Superseded, why)]);
    world.answer(&call, Answer::Taken);
    assert_eq!(desired(&world.takes().1)[0].1, "50");
}

/// Each `UpdateDevice` makes a mapper begin anew with the device, and may cut off the write before.
#[test]
fn writes_of_one_device_go_together_and_a_fresh_one_is_said_again() {
    let mut world = World::registered();
    world.write("w1", "position", Value::Int(40), TTL);
    world.write("w2", "label", Value::Text("north".to_owned()), TTL);
    world.takes();
    let both = pairs(&[("position", "40"), ("pressure", ""), ("label", "north")]);
    assert_eq!(desired(&world.takes().1), both);
    world.outputs();
    world.write("w3", "label", Value::Text("south".to_owned()), TTL);
    world.quiet();
    world.pass(GAP);
    let again = pairs(&[("position", "40"), ("pressure", ""), ("label", "south")]);
    assert_eq!(desired(&world.takes().1), again);
    world.outputs();
    world.pass(TTL - GAP);
    // The position had its time; the label has a second left.
    world.write("w4", "label", Value::Text("east".to_owned()), TTL);
    world.takes();
    assert_eq!(desired(&world.takes().1), pairs(&[("position", ""), ("pressure", ""), ("label", "east")]));
}

#[test]
fn a_restart_in_mid_write_shuts_what_was_open_and_writes_nothing() {
    let mut world = World::registered();
    world.write("w1", "position", Value::Int(40), TTL);
    world.takes();
    // The call is out when the process is killed.
    world.call();
    world.restart();
    let told = [world.takes(), world.takes()];
    assert_eq!((told[0].0, access(&told[0].1)), (Method::CreateDeviceModel, pairs(&SHUT)));
    assert_eq!((told[1].0, desired(&told[1].1)), (Method::UpdateDevice, pairs(&NO_WISH)));
    assert_eq!(world.outputs(), []);
}

#[test]
fn another_device_of_the_model_is_told_of_a_shut_one() {
    let mut world = World::registered();
    world.write("w1", "position", Value::Int(40), TTL);
    world.takes();
    world.takes();
    world.put(Kind::Device, "v2", Some(valve("v2")));
    assert_eq!(access(&world.takes().1), pairs(&SHUT));
    assert_eq!(world.takes().0, Method::RegisterDevice);
    // And a write opens it again.
    world.pass(GAP);
    world.write_to("v2", "w2", "position", Value::Int(60), TTL);
    assert_eq!(access(&world.takes().1), pairs(&OPEN_POSITION));
    assert_eq!(desired(&world.takes().1)[0].1, "60");
}

#[test]
fn a_write_for_a_device_that_is_gone_or_without_its_model_fails() {
    let mut world = World::registered();
    world.write("w1", "position", Value::Int(40), TTL);
    world.put(Kind::Device, "v1", None);
    let gone = ended("w1", "position", Outcome::Failed, "the device is gone");
    assert!(world.outputs().contains(&gone));
    let mut world = World::registered();
    world.put(Kind::Model, "valve", None);
    world.outputs();
    world.write("w2", "position", Value::Int(40), TTL);
    let unknown = ended("w2", "position", Outcome::Failed, "the device's model is not known here");
    assert_eq!(world.outputs(), [unknown]);
}

#[test]
fn a_mapper_that_registers_in_mid_write_gets_shut_devices() {
    let mut world = World::registered();
    world.write("w1", "position", Value::Int(40), TTL);
    world.takes();
    let (call, _) = world.call();
    world.register();
    let outputs = world.outputs();
    let Some(Output::Registered(_, body)) = outputs.get(1) else { panic!("{outputs:?}") };
    let reply = MapperRegisterResponse::decode(body.clone()).unwrap();
    assert_eq!(desired_of(&reply.devices[0]), pairs(&NO_WISH));
    // To the twins the mapper went away, so the write is over for them: its late answer says nothing.
    world.answer(&call, Answer::Taken);
    world.quiet();
}
