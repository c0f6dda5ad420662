use super::*;

#[test]
fn a_state_is_answered_under_a_name_of_its_own_and_kept_in_the_senders_words() {
    let mut world = world();
    let said =
        world.hw(&format!("{DEV1}/state/update"), r#"{"event_id":"s1","timestamp":0,"state":"Online"}"#);
    assert_eq!(
        said,
        [
            r#"device/default/dev1/state/update/result {"event_id":"*","timestamp":1000000000,"device":{"name":"dev1","state":"Online","lastOnlineTime":"1970-01-12T13:46:40Z"}}"#
        ]
    );
    world.seconds(60);
    let said = world.hw(&format!("{SHORT}/state/update"), r#"{"event_id":"s2","state":"UNHEALTHY"}"#);
    assert_eq!(
        said,
        [
            r#"device/dev1/state/update/result {"event_id":"*","timestamp":1000060000,"device":{"name":"dev1","state":"UNHEALTHY"}}"#
        ]
    );
}

#[test]
fn what_a_mapper_says_of_its_device_is_the_devices_state() {
    let mut world = world();
    let mut says = |text: &str| {
        world.hw(&format!("{DEV1}/state/update"), &format!(r#"{{"state":"{text}"}}"#));
        let state = last(&world.seen, "twin/default/dev1/state").unwrap();
        (state["state"].clone(), state["reason"].clone())
    };
    let unwell = |text: &str| ("degraded".into(), format!("its mapper says '{text}'").into());
    let away = |text: &str| ("offline".into(), format!("its mapper says '{text}'").into());
    assert_eq!(says("OK"), ("online".into(), serde_json::Value::Null));
    for text in ["unknown", "unhealthy", "ERROR"] {
        assert_eq!(says(text), unwell(text));
    }
    for text in ["offline", "DISCONNECTED"] {
        assert_eq!(says(text), away(text));
    }
    assert_eq!(says("online"), ("online".into(), serde_json::Value::Null));
}

#[test]
fn members_are_told_under_the_nodes_own_name_whatever_it_was_asked_by() {
    let mut world = world();
    world.hw(&format!("{DEV1}/state/update"), r#"{"state":"online"}"#);
    let said = world.hw("$hw/events/node/somebody/membership/get", r#"{"event_id":"m1","timestamp":0}"#);
    assert_eq!(
        said,
        [
            r#"node/pump-house/membership/get/result {"event_id":"m1","timestamp":1000000000,"devices":[{"id":"default/dev1","name":"dev1","state":"online","last_online":"1970-01-12T13:46:40Z"},{"id":"water/junction","name":"junction","state":"unhealthy"},{"id":"water/valve","name":"valve","state":"online"}]}"#
        ]
    );
}

#[test]
fn a_node_without_devices_has_an_empty_list() {
    let mut world = World { twins: fresh(), ks: Keyspace::new(), ms: 0, seen: Vec::new() };
    world.restart();
    let said = world.hw("$hw/events/node/pump-house/membership/get", r#"{"event_id":"m1"}"#);
    assert_eq!(
        said,
        [r#"node/pump-house/membership/get/result {"event_id":"m1","timestamp":1000000000,"devices":[]}"#]
    );
}

#[test]
fn a_device_that_comes_or_goes_is_told_to_whoever_listens() {
    let mut world = world();
    let device = json(THERMOSTAT[2].1);
    world.take_back("/m/device/default/dev1");
    assert_eq!(lines(&world.seen), [""; 0]);
    world.listen("$hw/events/node/+/membership/updated", true);
    assert_eq!(
        world.heard(|world| world.put("/m/device/default/dev1", device.clone())),
        [
            r#"node/pump-house/membership/updated {"event_id":"*","timestamp":1000000000,"added_devices":[{"id":"default/dev1","name":"dev1"}],"removed_devices":null}"#
        ]
    );
    assert_eq!(world.heard(|world| world.put("/m/device/default/dev1", device)), [""; 0], "it was there");
    assert_eq!(
        world.heard(|world| world.take_back("/m/device/default/dev1")),
        [
            r#"node/pump-house/membership/updated {"event_id":"*","timestamp":1000000000,"added_devices":null,"removed_devices":[{"id":"default/dev1","name":"dev1"}]}"#
        ]
    );
}
