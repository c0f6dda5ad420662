//! Who registers, what a mapper hears afterwards, and what a restart changes.

use super::*;

#[test]
fn a_registration_that_cannot_be_is_refused_in_kubeedges_words() {
    let mut world = World::new();
    let mut refused = |request: Request| {
        let ticket = world.ask(&request);
        let outputs = world.outputs();
        let [Output::Reject(answered, why)] = &outputs[..] else { panic!("{outputs:?}") };
        assert_eq!(*answered, ticket);
        why.clone()
    };
    let nil = "fail to register mapper modbus-mapper because the protocol is nil";
    assert_eq!(refused(registration("", "/run/m.sock")), nil);
    let no_path = "fail to register mapper modbus-mapper: its address is no absolute path of a socket";
    assert_eq!(refused(registration("modbus", "localhost:80")), no_path);
    assert_eq!(refused(registration("modbus", &"/x".repeat(60))), no_path);
    let nobody = Request::Register(MapperRegisterRequest { with_data: true, mapper: None });
    assert_eq!(refused(nobody), "fail to register mapper because it says nothing of itself");
    for at in 0..MAX_MAPPERS {
        world.ask(&registration(&format!("p{at}"), "/run/m.sock"));
    }
    world.outputs();
    world.ask(&registration("one-more", "/run/m.sock"));
    assert!(matches!(&world.outputs()[..], [Output::Reject(_, why)] if why.contains("too many protocols")));
    world.ask(&registration("p1", "/run/new.sock"));
    assert!(matches!(world.outputs()[..], [Output::Say(..), Output::Registered(..), Output::Say(..)]));
}

#[test]
fn who_wants_no_data_gets_none_and_is_told_of_nothing_later() {
    let mut world = World::new();
    let Request::Register(mut request) = registration("modbus", "/run/m.sock") else { unreachable!() };
    request.with_data = false;
    let ticket = world.ask(&Request::Register(request));
    assert_eq!(world.outputs(), [Output::Registered(ticket, Bytes::new())]);
    world.put(Kind::Model, "valve", Some(model()));
    world.put(Kind::Device, "v1", Some(valve("v1")));
    world.quiet();
    assert!(!world.dmi.serves(&name("modbus")));
}

#[test]
fn a_device_that_comes_later_is_told_with_its_model_first_whichever_came_first() {
    for kinds in [[Kind::Model, Kind::Device], [Kind::Device, Kind::Model]] {
        let mut world = World::new();
        world.register();
        world.outputs();
        for kind in kinds {
            world.quiet();
            let (named, manifest) =
                if kind == Kind::Model { ("valve", model()) } else { ("v1", valve("v1")) };
            world.put(kind, named, Some(manifest));
        }
        let (method, body) = world.takes();
        assert_eq!((method, access(&body)), (Method::CreateDeviceModel, pairs(&SHUT)));
        let (method, body) = world.takes();
        assert_eq!((method, desired(&body)), (Method::RegisterDevice, pairs(&NO_WISH)));
        world.quiet();
    }
}

#[test]
fn what_changes_is_told_what_does_not_is_not_and_what_goes_is_taken_away() {
    let mut world = World::registered();
    world.put(Kind::Device, "v1", Some(valve("v1")));
    // Its model was not told by a call yet.
    assert_eq!(world.takes().0, Method::CreateDeviceModel);
    world.quiet();
    let mut changed = valve("v1");
    changed["spec"]["protocol"]["configData"]["slaveID"] = json!(7);
    world.put(Kind::Device, "v1", Some(changed));
    assert_eq!(world.takes().0, Method::UpdateDevice);
    world.pass(GAP);
    let mut wider = model();
    wider["spec"]["properties"][0]["maximum"] = json!("200");
    world.put(Kind::Model, "valve", Some(wider));
    assert_eq!(world.takes().0, Method::CreateDeviceModel);
    assert_eq!(world.takes().0, Method::UpdateDevice);
    world.pass(GAP);
    world.put(Kind::Device, "v1", None);
    let (method, body) = world.takes();
    assert_eq!(method, Method::RemoveDevice);
    let gone = api::RemoveRequest { name: "v1".to_owned(), namespace: "plant".to_owned() };
    assert_eq!(api::RemoveRequest::decode(body), Ok(gone));
    assert_eq!(world.takes().0, Method::RemoveDeviceModel);
    world.quiet();
    assert_eq!(world.ks.range(TOLD).count(), 0);
}

#[test]
fn a_mapper_that_does_not_answer_is_asked_again_less_and_less_often() {
    let mut world = World::registered();
    world.put(Kind::Device, "v2", Some(valve("v2")));
    let mut waits = Vec::new();
    let mut said = Vec::new();
    for _ in 0..9 {
        let (call, beside) = world.call();
        said.extend(beside);
        world.answer(&call, Answer::Unreachable("connection refused".to_owned()));
        said.extend(world.outputs());
        let (next, _) = world.dmi.poll_timeout().unwrap();
        waits.push(next.since(world.now).as_millis());
        world.now = next;
    }
    assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
    let note = Output::Note("DMI mapper modbus-mapper is away: connection refused".to_owned());
    assert_eq!(said, [note, state("offline")]);
    assert_eq!(world.takes().0, Method::CreateDeviceModel);
    let (call, beside) = world.call();
    assert_eq!((call.method, beside), (Method::RegisterDevice, vec![state("online")]));
}

#[test]
fn a_device_that_its_mapper_refuses_does_not_hold_up_the_others() {
    let mut world = World::registered();
    world.put(Kind::Device, "v2", Some(valve("v2")));
    world.put(Kind::Device, "v3", Some(valve("v3")));
    assert_eq!(world.takes().0, Method::CreateDeviceModel);
    let (call, _) = world.call();
    world.answer(&call, Answer::Refused("no such line".to_owned()));
    let (other, beside) = world.call();
    let note = "DMI mapper modbus-mapper refuses device plant/v2: no such line";
    assert_eq!(beside, [Output::Note(note.to_owned())]);
    let named = |call: &Call| api::DeviceRequest::decode(call.body.clone()).unwrap().device.unwrap().name;
    assert_eq!((named(&call), named(&other)), ("v2".to_owned(), "v3".to_owned()));
    world.answer(&other, Answer::Taken);
    world.quiet();
    world.pass(mapper::MIN_BACKOFF);
    let (again, _) = world.call();
    assert_eq!((again.method, named(&again)), (Method::RegisterDevice, "v2".to_owned()));
}

#[test]
fn after_a_restart_of_the_edge_a_mapper_is_found_again_and_hears_what_it_missed() {
    let mut world = World::registered();
    let mut changed = valve("v1");
    changed["spec"]["protocol"]["configData"]["slaveID"] = json!(7);
    world.put(Kind::Device, "v1", Some(changed));
    world.put(Kind::Device, "v2", Some(valve("v2")));
    // None of it was said when the process ended.
    world.restart();
    assert!(world.dmi.serves(&name("modbus")));
    let methods: Vec<Method> = (0..3).map(|_| world.takes().0).collect();
    assert_eq!(methods, [Method::CreateDeviceModel, Method::UpdateDevice, Method::RegisterDevice]);
    assert_eq!(world.outputs(), [], "and it is online since its first answer");
    // Nothing changed: it is only looked for.
    world.restart();
    let (call, beside) = world.call();
    assert_eq!((call.method, beside), (Method::CreateDeviceModel, vec![]));
    world.answer(&call, Answer::Taken);
    assert_eq!(world.outputs(), [state("online")]);
}

#[test]
fn the_last_registration_for_a_protocol_holds() {
    let mut world = World::registered();
    let ticket = world.ask(&registration("modbus", "/run/other.sock"));
    let outputs = world.outputs();
    let [went, Output::Registered(answered, _), came] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((went, answered, came), (&state("offline"), &ticket, &state("online")));
    world.put(Kind::Device, "v2", Some(valve("v2")));
    assert_eq!(world.call().0.address, "/run/other.sock");
}

#[test]
fn a_silent_mapper_is_looked_for_and_one_that_reports_is_not() {
    let mut world = World::registered();
    let report = Request::States(api::ReportDeviceStatesRequest {
        device_name: "v1".to_owned(),
        device_namespace: "plant".to_owned(),
        state: "OK".to_owned(),
    });
    for _ in 0..10 {
        world.pass(mapper::SILENCE / 2);
        world.ask(&report);
        assert!(matches!(&world.outputs()[..], [Output::State(..)]));
    }
    world.pass(mapper::SILENCE);
    let (call, _) = world.call();
    assert_eq!((call.method, call.body.len()), (Method::Probe, 0));
}
