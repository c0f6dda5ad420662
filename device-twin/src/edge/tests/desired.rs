use bus::twin::Outcome;
use bus::{UnixMillis, Value};

use super::super::desired::{Freshness, freshness};
use super::*;
use crate::model::{OnStale, Policy};

#[test]
fn the_table_of_ages() {
    let s = Duration::from_secs;
    let policy = |on_stale, actuator, max: Option<u64>| Policy {
        actuator,
        on_stale,
        desired_max_age: max.map(s),
        max_age: None,
        deadband: 0.0,
        report_interval: None,
        write_interval: None,
        slew: None,
        local_override: false,
        fail_safe: None,
    };
    let stale = |text: &str| Freshness::Stale(text.to_owned());
    let table = [
        (policy(OnStale::Apply, false, None), None, Freshness::Fresh(None)),
        (policy(OnStale::Apply, false, Some(60)), Some(s(3600)), Freshness::Fresh(None)),
        (policy(OnStale::Apply, true, Some(60)), Some(s(3600)), Freshness::Fresh(Some(s(60)))),
        (policy(OnStale::Rearm, true, Some(60)), None, Freshness::Untold),
        (policy(OnStale::Rearm, true, Some(60)), Some(s(20)), Freshness::Fresh(Some(s(40)))),
        (policy(OnStale::Rearm, true, Some(60)), Some(s(60)), stale("1m old; rearm: set it again")),
        (policy(OnStale::Rearm, true, Some(60)), Some(s(61)), stale("1m 1s old; rearm: set it again")),
        (policy(OnStale::Hold, true, Some(60)), Some(s(3600)), stale("1h old; hold: what holds stays")),
        (policy(OnStale::Hold, false, Some(60)), Some(s(59)), Freshness::Fresh(None)),
        (policy(OnStale::Hold, false, None), None, Freshness::Fresh(None)),
    ];
    for (policy, age, expected) in table {
        assert_eq!(freshness(&policy, age), expected, "{policy:?} {age:?}");
    }
}

#[test]
fn a_fresh_desired_value_is_written_once_and_acknowledged_by_version() {
    let mut world = World::new();
    world.desire("valve/position", 40.0, 1, 5);
    let published = last(&world.seen, "twin/water/valve/desired/position").unwrap();
    assert_eq!((published["value"].as_f64(), published["version"].as_str()), (Some(40.0), Some("0.1")));
    let writes = world.writes();
    assert_eq!(writes.len(), 1);
    assert_eq!(
        (writes[0].value.clone(), writes[0].cause.as_str()),
        (Value::Float(40.0), "cloud desired 0.1 by ann")
    );
    world.answer(&writes[0], Outcome::Succeeded);
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Succeeded)));
    assert_eq!(last(&world.seen, "twin/water/valve/result").unwrap()["outcome"], "succeeded");
    let up: Vec<&str> = world
        .seen
        .iter()
        .filter_map(|o| if let Output::Up { key, .. } = o { Some(key.as_str()) } else { None })
        .collect();
    assert_eq!(up, ["result/water/valve/position", "reported/water/valve/position"]);
    world.changed(&Key::new("/m/desired/water/valve/position").unwrap());
    world.seconds(30);
    assert_eq!(world.written(), [], "the same version again");
    assert_eq!(world.twins.stats().repeated_desired, 1);
}

#[test]
fn a_desired_value_that_was_on_its_way_too_long_moves_nothing_and_says_so() {
    let mut world = World::new();
    world.desire("valve/position", 40.0, 1, 6 * 3600);
    let result = last(&world.seen, "twin/water/valve/result").unwrap();
    assert_eq!(result["outcome"], "expired");
    assert_eq!(result["detail"], "6h old; rearm: set it again");
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Expired)));
    world.mapper("offline");
    world.mapper("online");
    world.seconds(1000);
    world.restart();
    world.mapper("online");
    world.clock(true);
    world.seconds(1000);
    assert_eq!(world.written(), []);
    world.desire("valve/position", 40.0, 2, 0);
    assert_eq!(world.written(), [("position".to_owned(), 40.0)], "set again");
}

#[test]
fn without_the_clouds_clock_an_actuator_waits_and_is_then_not_moved() {
    let mut world = World::cold();
    world.mapper("online");
    world.desire("valve/position", 40.0, 1, 1);
    world.desire("valve/setPoint", 3.0, 1, 100_000);
    assert_eq!(world.written(), [("setPoint".to_owned(), 3.0)], "a setting needs no clock");
    world.seconds(9);
    assert_eq!(world.ack("valve/position"), None);
    world.seconds(1);
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Expired)));
    world.clock(true);
    world.seconds(60);
    assert!(!world.written().iter().any(|(property, _)| property == "position"));
}

#[test]
fn a_desired_value_that_overtook_the_clock_is_judged_when_it_comes() {
    for (age, expected) in [(50, vec![("position".to_owned(), 40.0)]), (59, vec![])] {
        let mut world = World::cold();
        world.mapper("online");
        world.desire("valve/position", 40.0, 1, age);
        world.seconds(3);
        assert_eq!(world.written(), []);
        world.clock(true);
        assert_eq!(world.written(), expected, "{age} s old when it came");
    }
}

#[test]
fn an_edge_whose_wall_clock_was_set_back_does_not_take_old_for_new() {
    let mut world = World::new();
    world.seconds(3600);
    let cloud = world.now().wall.shifted(AHEAD);
    let desired = Desired {
        value: Value::Float(40.0),
        version: version(1),
        issued: UnixMillis(cloud.0 - 1_800_000),
        by: "ann".into(),
        group: None,
    };
    let key = Key::new("/m/desired/water/valve/position").unwrap();
    world.ks.put(key.clone(), crate::twin::cbor(&desired));
    let set_back = Now { wall: UnixMillis(world.now().wall.0 - 1_800_000), ..world.now() };
    world.twins.handle_changed(&[key], &mut world.ks, set_back);
    world.drain();
    world.seconds(60);
    assert_eq!(world.written(), []);
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Expired)));
}

#[test]
fn versions_never_go_back() {
    let mut world = World::new();
    world.desire("valve/setPoint", 3.0, 5, 0);
    world.desire("valve/setPoint", 9.0, 4, 0);
    world.restart();
    world.desire("valve/setPoint", 9.0, 4, 0);
    world.mapper("online");
    let settings: Vec<f64> = world.written().into_iter().map(|(_, value)| value).collect();
    assert_eq!(settings, [3.0], "asked for before the restart, and nothing older after");
    world.desire("valve/setPoint", 2.0, 6, 0);
    assert_eq!(world.written(), [("setPoint".to_owned(), 2.0)]);
}

#[test]
fn a_value_that_the_model_does_not_allow_is_rejected() {
    let mut world = World::new();
    world.desire("valve/position", 101.0, 1, 0);
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Rejected)));
    world.desire("junction/pressure", 1.0, 1, 0);
    assert_eq!(world.ack("junction/pressure"), Some((1, Outcome::Rejected)));
    assert_eq!(
        last(&world.seen, "twin/water/junction/result").unwrap()["detail"],
        "the property is read-only"
    );
    assert_eq!(world.written(), []);
}

#[test]
fn an_unacknowledged_setting_is_delivered_again_after_a_restart_and_an_acknowledged_one_is_not() {
    let mut world = World::new();
    world.desire("valve/setPoint", 3.0, 1, 0);
    assert_eq!(world.writes().len(), 1);
    world.restart();
    assert_eq!(world.ack("valve/setPoint"), Some((1, Outcome::Unknown)), "it was in mid-write");
    assert_eq!(world.written(), [], "the mapper is not there");
    world.mapper("online");
    let writes = world.writes();
    assert_eq!(writes.len(), 1);
    world.answer(&writes[0], Outcome::Succeeded);
    world.restart();
    world.mapper("online");
    world.seconds(100);
    assert_eq!(world.written(), []);
    assert_eq!(world.ack("valve/setPoint"), Some((1, Outcome::Succeeded)));
}

#[test]
fn an_actuator_is_not_moved_by_a_restart_even_if_its_desired_value_is_still_fresh() {
    let mut world = World::new();
    world.desire("valve/position", 40.0, 1, 0);
    assert_eq!(world.writes().len(), 1);
    world.restart();
    world.mapper("online");
    world.clock(true);
    world.seconds(1000);
    assert_eq!(world.written(), [], "not the value, and not the fail-safe");
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Unknown)));
}

#[test]
fn a_desired_value_for_an_actuator_ends_after_its_time_and_the_fail_safe_holds() {
    let mut world = World::new();
    world.desire("valve/position", 40.0, 1, 20);
    let writes = world.writes();
    world.answer(&writes[0], Outcome::Succeeded);
    world.seconds(39);
    assert_eq!(world.written(), []);
    world.seconds(1);
    assert_eq!(world.written(), [("position".to_owned(), 100.0)]);
}

#[test]
fn a_wish_that_is_taken_back_lets_go_of_its_slot() {
    let mut world = World::new();
    world.desire("valve/position", 40.0, 1, 0);
    world.writes();
    world.take_back("/m/desired/water/valve/position");
    assert!(world.seen.iter().any(|o| matches!(o, Output::Publish(p)
        if p.topic.as_str() == "twin/water/valve/desired/position" && p.payload.is_empty() && p.retain)));
    assert_eq!(world.written(), [("position".to_owned(), 100.0)]);
}

#[test]
fn a_stronger_slot_supersedes_the_cloud_for_good() {
    let mut world = World::new();
    let said = world.say("twin/water/valve/set/position", "70");
    assert!(said.contains(&Output::Accept(Ticket(7))));
    world.desire("valve/position", 40.0, 1, 0);
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Superseded)));
    let writes = world.writes();
    assert_eq!(writes.iter().map(|w| w.value.clone()).collect::<Vec<_>>(), [Value::Float(70.0)]);
    world.answer(&writes[0], Outcome::Succeeded);
    world.seconds(600);
    assert_eq!(
        world.written(),
        [("position".to_owned(), 100.0)],
        "when the operator's hold is over, the fail-safe holds and not the old wish"
    );
}

#[test]
fn a_setting_of_the_cloud_comes_back_when_the_operators_hold_is_over() {
    let mut world = World::new();
    world.say("twin/water/valve/set/setPoint", r#"{"value": 5}"#);
    world.desire("valve/setPoint", 3.0, 1, 0);
    for write in world.writes() {
        world.answer(&write, Outcome::Succeeded);
    }
    assert_eq!(world.ack("valve/setPoint"), None);
    world.seconds(600);
    let writes = world.writes();
    assert_eq!(writes.iter().map(|w| w.value.clone()).collect::<Vec<_>>(), [Value::Float(3.0)]);
    world.answer(&writes[0], Outcome::Succeeded);
    assert_eq!(world.ack("valve/setPoint"), Some((1, Outcome::Succeeded)));
}

#[test]
fn a_wish_that_waits_for_the_clock_ends_when_somebody_here_takes_the_authority() {
    let mut world = World::cold();
    let policy = "{apiVersion: kubebus.io/v1alpha1, kind: TwinPolicy, metadata: {name: position, namespace: water}, spec: {
        model: valve, property: position, actuator: true, desiredMaxAge: 60s, localOverride: true}}";
    world.put("/m/policy/water/position", json(policy));
    world.mapper("online");
    world.desire("valve/position", 30.0, 1, 0);
    let (device, now) = ("water/valve".parse().unwrap(), world.now());
    world.twins.take_authority(&device, ("ann", "repair"), None, &mut world.ks, now).unwrap();
    world.clock(true);
    assert_eq!(world.writes(), []);
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Superseded)));
}
