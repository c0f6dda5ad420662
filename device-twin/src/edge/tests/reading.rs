use bus::{Class, Filter};
use serde_json::json;

use super::*;
use crate::twin::{Reported, decode};

#[test]
fn a_mapper_is_told_its_devices_once() {
    let world = World::cold();
    let config = last(&world.seen, "mapper/virtual/config").unwrap();
    let devices: Vec<&str> =
        config["devices"].as_array().unwrap().iter().map(|d| d["device"]["name"].as_str().unwrap()).collect();
    assert_eq!(devices, ["junction", "valve"], "the tank is another edge's");
    assert_eq!(config["devices"][1]["connection"], json!({"socket": "/run/valve"}));
    let position = &config["devices"][1]["properties"][0];
    assert_eq!(position["name"], "position");
    assert_eq!(
        (&position["type"], &position["writable"], &position["maximum"]),
        (&json!("float"), &json!(true), &json!(100.0))
    );
}

#[test]
fn a_mapper_keeps_to_itself_what_stays_within_the_deadband_unless_a_rule_looks() {
    const WATCH: &str =
        "{apiVersion: kubebus.io/v1alpha1, kind: Rule, metadata: {name: watch, namespace: water}, spec: {
        inputs: {pressure: {device: junction, property: pressure, maxAge: 10s}},
        output: {device: valve, property: position, slot: 5, ttl: 5s},
        onUnknown: hold,
        cases: [{name: low, when: {input: pressure, op: below, value: 1}, then: {value: 20}}]}}";
    let mut world = World::cold();
    let told = |world: &World| {
        let config = last(&world.seen, "mapper/virtual/config").unwrap();
        let pressure = &config["devices"][0]["properties"][0];
        assert_eq!(pressure["name"], "pressure");
        [pressure["deadband"].clone(), pressure["max_age_ms"].clone()]
    };
    let half_of_max_age = [json!(0.1), json!(5000)];
    assert_eq!(told(&world), half_of_max_age);
    world.seconds(1);
    world.put("/m/rule/water/watch", json(WATCH));
    assert_eq!(told(&world), [json!(null), json!(null)]);
    world.seconds(1);
    world.take_back("/m/rule/water/watch");
    assert_eq!(told(&world), half_of_max_age);
}

#[test]
fn a_mapper_that_was_there_first_hears_of_a_device_before_it_is_asked_to_write() {
    let mut world = World::new();
    world.say("mapper/modbus/state", "online");
    world.desire("pump/setPoint", 3.0, 1, 0);
    world.seen.clear();
    let pump = MANIFESTS[2]
        .1
        .replace("name: valve, namespace", "name: pump, namespace")
        .replace("virtual", "modbus");
    world.put("/m/device/water/pump", json(&pump));
    let topics: Vec<&str> = world
        .seen
        .iter()
        .filter_map(|o| if let Output::Publish(p) = o { Some(p.topic.as_str()) } else { None })
        .collect();
    assert_eq!(
        topics,
        [
            "twin/water/pump/desired/setPoint",
            "mapper/modbus/config",
            "mapper/modbus/write",
            "twin/water/pump/state"
        ]
    );
}

#[test]
fn a_mapper_hears_of_a_burst_of_changes_once_and_before_the_next_write() {
    let valve = |name: &str| {
        json(&MANIFESTS[2].1.replace("name: valve, namespace", &format!("name: {name}, namespace")))
    };
    // How many devices each configuration has, and where between them it was asked to write.
    let heard = |world: &World| -> Vec<Option<usize>> {
        let published =
            world.seen.iter().filter_map(|o| if let Output::Publish(p) = o { Some(p) } else { None });
        let said = published.filter_map(|p| match p.topic.as_str() {
            "mapper/virtual/config" => {
                let config: serde_json::Value = serde_json::from_slice(&p.payload).unwrap();
                Some(Some(config["devices"].as_array().unwrap().len()))
            }
            "mapper/virtual/write" => Some(None),
            _ => None,
        });
        said.collect()
    };
    let mut world = World::new();
    world.seconds(1);
    world.seen.clear();
    for name in ["v1", "v2", "v3"] {
        world.put(&format!("/m/device/water/{name}"), valve(name));
    }
    assert_eq!(heard(&world), [Some(3)], "the first of them at once");
    world.desire("v3/setPoint", 3.0, 1, 0);
    assert_eq!(heard(&world), [Some(3), Some(5), None]);
    world.put("/m/device/water/v4", valve("v4"));
    world.put("/m/device/water/v5", valve("v5"));
    world.seconds(1);
    assert_eq!(heard(&world), [Some(3), Some(5), None, Some(7)]);
}

#[test]
fn a_device_that_is_taken_away_leaves_configuration_topics_and_store() {
    let mut world = World::new();
    world.say("twin/water/junction/report/pressure", "4");
    world.seen.clear();
    world.seconds(1);
    world.take_back("/m/device/water/junction");
    assert_eq!(last(&world.seen, "mapper/virtual/config").unwrap()["devices"].as_array().unwrap().len(), 1);
    let cleared = |topic: &str| {
        world
            .seen
            .iter()
            .any(|o| matches!(o, Output::Publish(p) if p.topic.as_str() == topic && p.payload.is_empty()))
    };
    assert!(cleared("twin/water/junction/reported/pressure") && cleared("twin/water/junction/state"));
    assert!(world.ks.get("/t/reported/water/junction/pressure").is_none());
    world.seconds(60);
}

#[test]
fn a_report_is_stored_published_and_sent_up() {
    let mut world = World::new();
    let said = world.say("twin/water/junction/report/pressure", r#"{"value": 4.2, "time": 5}"#);
    assert_eq!(said.last(), Some(&Output::Accept(Ticket(7))));
    let Output::Publish(publish) = &said[0] else { panic!("{said:?}") };
    assert!(publish.retain);
    assert_eq!(
        last(&said, "twin/water/junction/reported/pressure").unwrap(),
        json!({"value": 4.2, "time": 5, "quality": "good", "rev": 1, "age_ms": 0})
    );
    let Output::Up { class, key, payload } = &said[1] else { panic!("{said:?}") };
    assert_eq!((class, key.as_str()), (&Class::State, "reported/water/junction/pressure"));
    assert_eq!(world.ks.get("/t/reported/water/junction/pressure"), Some(payload));
    assert_eq!(decode::<Reported>(payload).unwrap().version.rev, 1);
}

#[test]
fn an_unchanged_report_costs_no_write_but_shows_life() {
    let mut world = World::new();
    world.say("twin/water/junction/report/pressure", "4.0");
    let revision = world.ks.revision();
    for _ in 0..60 {
        world.seconds(1);
        let said = world.say("twin/water/junction/report/pressure", "4.05");
        assert!(!said.iter().any(|o| matches!(o, Output::Up { .. })));
        assert_eq!(
            last(&said, "twin/water/junction/reported/pressure")
                .map(|b| b["age_ms"].clone())
                .unwrap_or(json!(0)),
            0
        );
    }
    assert_eq!(world.ks.revision(), revision);
    assert_eq!(world.twins.stats().unchanged, 60);
    let topic = "twin/water/junction/reported/pressure";
    let refreshed =
        world.seen.iter().filter(|o| matches!(o, Output::Publish(p) if p.topic.as_str() == topic)).count();
    assert_eq!(refreshed, 1 + 15, "every four seconds: a third of maxAge, at the next report");
}

#[test]
fn silence_turns_a_value_bad_and_a_report_makes_it_good() {
    let mut world = World::new();
    let state = |world: &World| {
        let mut state = last(&world.seen, "twin/water/junction/state").unwrap();
        state.as_object_mut().unwrap().remove("last_seen");
        state
    };
    world.say("twin/water/junction/report/pressure", "4.0");
    assert_eq!(state(&world), json!({"state": "online"}));
    world.seconds(9);
    world.say("twin/water/junction/report/pressure", "4.0");
    world.seconds(9);
    assert_eq!(last(&world.seen, "twin/water/junction/reported/pressure").unwrap()["quality"], "good");
    world.seconds(1);
    assert_eq!(last(&world.seen, "twin/water/junction/reported/pressure").unwrap()["quality"], "bad");
    assert_eq!(state(&world), json!({"state": "degraded", "reason": "not heard of: pressure"}));
    world.say("twin/water/junction/report/pressure", "4.0");
    assert_eq!(last(&world.seen, "twin/water/junction/reported/pressure").unwrap()["quality"], "good");
    world.mapper("offline");
    assert_eq!(last(&world.seen, "twin/water/junction/reported/pressure").unwrap()["quality"], "bad");
    assert_eq!(state(&world), json!({"state": "offline", "reason": "mapper virtual is not connected"}));
}

#[test]
fn several_readings_come_at_once_and_a_wrong_one_does_not_cost_the_others() {
    let mut world = World::new();
    let said = world
        .say("twin/water/valve/report", r#"{"colour": 1, "position": {"value": 30}, "setPoint": "high"}"#);
    assert_eq!(
        said.last(),
        Some(&Output::Reject(Ticket(7), "device water/valve has no property 'colour'".to_owned()))
    );
    assert_eq!(last(&said, "twin/water/valve/reported/position").unwrap()["value"], 30.0);
    assert_eq!(last(&said, "twin/water/valve/result").unwrap()["property"], "setPoint");
}

#[test]
fn a_reading_outside_its_range_is_uncertain_and_one_of_another_type_refused() {
    let mut world = World::new();
    world.say("twin/water/valve/report/position", "104.5");
    assert_eq!(last(&world.seen, "twin/water/valve/reported/position").unwrap()["quality"], "uncertain");
    let said = world.say("twin/water/valve/report/position", "true");
    assert_eq!(
        said.last(),
        Some(&Output::Reject(Ticket(7), "wrong type: expected Float, got true".to_owned()))
    );
}

#[test]
fn what_was_reported_is_there_after_a_restart_and_revisions_go_on() {
    let mut world = World::new();
    world.say("twin/water/junction/report/pressure", "4.0");
    let before = world.twins.views(world.now());
    world.restart();
    let after = world.twins.views(world.now());
    // No mapper is there after a restart.
    let without_age = |views: Vec<crate::TwinView>| -> Vec<_> {
        views.into_iter().map(|view| crate::TwinView { age_ms: None, state: None, ..view }).collect()
    };
    assert_eq!(without_age(after), without_age(before));
    world.mapper("online");
    world.say("twin/water/junction/report/pressure", "5.0");
    let rev = last(&world.seen, "twin/water/junction/reported/pressure").unwrap()["rev"].as_u64().unwrap();
    assert!(rev > 1, "{rev}");
}

#[test]
fn a_value_from_before_the_restart_turns_bad_if_nobody_confirms_it() {
    let mut world = World::new();
    world.say("twin/water/junction/report/pressure", "4.0");
    world.seconds(3);
    world.restart();
    world.seconds(10);
    assert_eq!(last(&world.seen, "twin/water/junction/reported/pressure").unwrap()["quality"], "bad");
}

#[test]
fn a_cloud_that_may_have_forgotten_is_told_again() {
    let mut world = World::new();
    world.say("twin/water/junction/report/pressure", "4.0");
    let up = |world: &World| -> std::collections::BTreeMap<String, Bytes> {
        let up = |o: &Output| match o {
            Output::Up { key, payload, .. } => Some((key.clone(), payload.clone())),
            Output::Publish(_)
            | Output::Reply(_)
            | Output::Accept(_)
            | Output::Reject(..)
            | Output::Watch(_)
            | Output::Unwatch(_)
            | Output::Sample { .. }
            | Output::Audit(_)
            | Output::RuleHeads(_)
            | Output::RuleLog(_) => None,
        };
        world.seen.iter().filter_map(up).collect()
    };
    let before = up(&world);
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        ["reported/water/junction/pressure", "state/water/junction"]
    );
    world.seen.clear();
    let now = world.now();
    world.twins.handle_resynced(Incarnation(9), &mut world.ks, now);
    world.drain();
    let again = up(&world);
    assert!(before.iter().all(|told| again.get(told.0) == Some(told.1)), "{again:?}");
    assert!(again.contains_key("state/water/valve"));
}

#[test]
fn what_is_retained_can_be_replayed_by_filter() {
    let mut world = World::new();
    world.say("twin/water/junction/report/pressure", "4.0");
    world.desire("valve/setPoint", 3.0, 1, 0);
    world.seconds(2);
    let topics = |filter: &str| -> Vec<String> {
        let all = world.twins.retained(&Filter::new(filter).unwrap(), world.now());
        all.into_iter().map(|publish| publish.topic.to_string()).collect()
    };
    assert_eq!(topics("twin/+/+/reported/#"), ["twin/water/junction/reported/pressure"]);
    assert_eq!(topics("twin/water/valve/#"), ["twin/water/valve/desired/setPoint", "twin/water/valve/state"]);
    let replayed = world.twins.retained(&Filter::new("twin/water/junction/reported/#").unwrap(), world.now());
    let body: serde_json::Value = serde_json::from_slice(&replayed[0].payload).unwrap();
    assert_eq!(body["age_ms"], 2000);
}

#[test]
fn a_reading_that_its_mapper_says_again_is_as_old_as_it_is() {
    let mut world = World::new();
    world.seconds(100);
    let earlier = world.now().wall.0 - 20_000;
    world.say("twin/water/junction/report/pressure", &format!(r#"{{"value": 4.0, "time": {earlier}}}"#));
    let age = world.twins.views(world.now()).iter().find(|v| v.property == "pressure").unwrap().age_ms;
    assert_eq!(age, Some(20_000));
    world.say("twin/water/junction/report/pressure", "4.0");
    let age = world.twins.views(world.now()).iter().find(|v| v.property == "pressure").unwrap().age_ms;
    assert_eq!(age, Some(0));
}

#[test]
fn what_the_outbox_had_no_room_for_is_told_again_as_it_is_now() {
    let mut world = World::new();
    world.say("twin/water/junction/report/pressure", "4");
    world.say("twin/water/valve/report/position", "10");
    world.seen.clear();
    world
        .twins
        .tell_again(|key| key == "reported/water/junction/pressure" || key == "state/water/valve", &world.ks);
    world.drain();
    let told: Vec<&str> = world
        .seen
        .iter()
        .map(|o| if let Output::Up { class: Class::State, key, .. } = o { key.as_str() } else { "?" })
        .collect();
    assert_eq!(told, ["reported/water/junction/pressure", "state/water/valve"]);
}

impl World {
    /// Pressures are told once in five seconds at most.
    fn sparing() -> Self {
        let mut world = Self::new();
        let (key, policy) = MANIFESTS[6];
        world.put(key, json(&policy.replace("maxAge: 10s", "maxAge: 60s, reportInterval: 5s")));
        world.seen.clear();
        world
    }

    pub(super) fn pressure(&mut self, value: f64) {
        self.say("twin/water/junction/report/pressure", &value.to_string());
    }

    /// Pressures that the cloud was told since the last look.
    fn pressures_told(&mut self) -> Vec<(f64, bus::Quality)> {
        let told = std::mem::take(&mut self.seen).into_iter().filter_map(|output| {
            let Output::Up { key, payload, .. } = output else { return None };
            let is_it = key == "reported/water/junction/pressure";
            is_it.then(|| decode::<Reported>(&payload).unwrap().sample.unwrap())
        });
        told.map(|sample| (sample.value.as_f64().unwrap(), sample.quality)).collect()
    }
}

fn good(values: &[f64]) -> Vec<(f64, bus::Quality)> {
    values.iter().map(|value| (*value, bus::Quality::Good)).collect()
}

#[test]
fn the_last_of_a_burst_is_told_when_the_interval_is_over() {
    let mut world = World::sparing();
    world.pressure(4.0);
    assert_eq!(world.pressures_told(), good(&[4.0]));
    let revision = world.ks.revision();
    for value in [5.0, 6.0, 7.0] {
        world.seconds(1);
        world.pressure(value);
    }
    assert_eq!((world.pressures_told(), world.ks.revision()), (vec![], revision));
    world.pass(Duration::from_millis(1_999));
    assert_eq!(world.pressures_told(), []);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.pressures_told(), good(&[7.0]));
    world.seconds(1);
    world.pressure(8.0);
    world.pressure(7.0);
    world.seconds(4);
    assert_eq!(world.pressures_told(), good(&[7.0]), "back where it was");
    world.seconds(30);
    world.pressure(8.0);
    assert_eq!(world.pressures_told(), good(&[8.0]), "after a quiet time at once");
}

#[test]
fn another_quality_is_told_at_once() {
    let mut world = World::sparing();
    world.pressure(4.0);
    world.pressure(5.0);
    world.seen.clear();
    world.say("twin/water/junction/report/pressure", r#"{"value": 6, "quality": "uncertain"}"#);
    assert_eq!(world.pressures_told(), [(6.0, bus::Quality::Uncertain)]);
    world.seconds(5);
    assert_eq!(world.pressures_told(), [], "what waited is over");
    world.pressure(5.0);
    world.pressure(6.0);
    world.mapper("offline");
    assert_eq!(world.pressures_told(), [(5.0, bus::Quality::Good), (6.0, bus::Quality::Bad)]);
    world.seconds(30);
    assert_eq!(world.pressures_told(), []);
}

#[test]
fn rules_see_each_report() {
    const FOLLOW: &str =
        "{apiVersion: kubebus.io/v1alpha1, kind: Rule, metadata: {name: follow, namespace: water}, spec: {
        inputs: {pressure: {device: junction, property: pressure, maxAge: 10s}},
        output: {device: valve, property: position, ttl: 20s},
        onUnknown: hold,
        cases: [{name: follow, then: {value: {input: pressure, gain: 10, offset: 0}}}]}}";
    let mut world = World::sparing();
    world.put("/m/rule/water/follow", json(FOLLOW));
    let mut positions = Vec::new();
    for value in [4.0, 5.0, 6.0] {
        world.pressure(value);
        positions.extend(world.carry_out());
    }
    assert_eq!(positions.iter().map(|(_, value)| *value).collect::<Vec<_>>(), [40.0, 50.0, 60.0]);
    let view = world.twins.view(&id("junction/pressure").device, world.now());
    assert_eq!(view[0].reported.as_ref().unwrap().value, Value::Float(4.0), "told once");
}
