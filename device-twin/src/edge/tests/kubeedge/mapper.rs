//! Clients that act on deltas, as KubeEdge's mappers before DMI did: the arbiter decides what is in them.

use super::*;

/// A mapper subscribes to the delta of its device.
fn served() -> World {
    let mut world = world();
    world.listen(&format!("{SHORT}/twin/update/delta"), true);
    world.seen.clear();
    world
}

impl World {
    fn update(&mut self, twin: &str) -> Vec<String> {
        self.hw(&format!("{SHORT}/twin/update"), &format!(r#"{{"twin":{twin}}}"#))
    }

    /// The map `delta` of each delta that was told.
    fn deltas(lines: &[String]) -> Vec<String> {
        let deltas = lines.iter().filter(|line| line.contains("/delta "));
        deltas
            .map(|line| line.rsplit_once(r#""delta":"#).unwrap().1.trim_end_matches('}').to_owned() + "}")
            .collect()
    }

    fn outcomes(&self) -> Vec<String> {
        let results = self.seen.iter().filter_map(|output| {
            let Output::Publish(publish) = output else { return None };
            publish.as_result("default/dev1")
        });
        results.collect()
    }

    fn wish_of_cloud(&mut self, property: &str, value: i64, seq: u64, age: u64) {
        let issued = UnixMillis(self.now().wall.shifted(AHEAD).0 - age * 1000);
        let desired = Desired {
            value: Value::Int(value),
            version: version(seq),
            issued,
            by: "ann".into(),
            group: None,
        };
        self.put(&format!("/m/desired/default/dev1/{property}"), crate::twin::cbor(&desired));
    }

    fn availability(&self) -> serde_json::Value {
        last(&self.seen, "twin/default/dev1/state").unwrap_or_default()
    }
}

#[test]
fn a_wish_reaches_a_mapper_by_delta_and_its_report_is_the_answer() {
    let mut world = served();
    let told = world.heard(|world| world.wish_of_cloud("valve", 40, 1, 1));
    assert_eq!(World::deltas(&told), [r#"{"valve":"40"}"#]);
    assert_eq!(world.outcomes(), [""; 0]);
    let said = world.update(r#"{"valve":{"actual":{"value":"40"}}}"#);
    assert_eq!(World::deltas(&said), [""; 0]);
    assert_eq!(world.outcomes(), ["valve 0.1 Succeeded"]);
}

#[test]
fn a_mapper_that_does_not_get_there_has_not_answered() {
    let mut world = served();
    world.wish_of_cloud("valve", 40, 1, 1);
    world.update(r#"{"valve":{"actual":{"value":"12"}}}"#);
    world.seconds(12);
    assert_eq!(world.outcomes(), ["valve 0.1 Unknown: the mapper did not answer"]);
    let said = world.update(r#"{"valve":{"actual":{"value":"13"}}}"#);
    assert_eq!(World::deltas(&said), [""; 0], "what is over is not asked for again");
}

#[test]
fn a_device_that_says_it_is_there_already_is_asked_all_the_same_and_then_it_counts() {
    let mut world = served();
    world.update(r#"{"valve":{"actual":{"value":"40"}}}"#);
    let told = world.heard(|world| world.wish_of_cloud("valve", 40, 1, 1));
    assert_eq!(World::deltas(&told), [r#"{"valve":"40"}"#]);
    world.update(r#"{"valve":{"actual":{"value":"40"}}}"#);
    assert_eq!(world.outcomes(), ["valve 0.1 Succeeded"]);
}

#[test]
fn a_stale_wish_is_in_no_delta_and_in_no_answer() {
    let mut world = served();
    let told = world.heard(|world| world.wish_of_cloud("valve", 40, 1, 60));
    assert_eq!(told, [""; 0]);
    assert_eq!(world.outcomes(), ["valve 0.1 Expired: 1m old; rearm: set it again"]);
    let said = world.update(r#"{"valve":{"actual":{"value":"12"}}}"#);
    assert_eq!(World::deltas(&said), [""; 0]);
    let got = world.hw(&format!("{SHORT}/twin/get"), "{}");
    assert!(!got[0].contains("expected"), "{got:?}");
}

#[test]
fn a_start_of_mapper_or_node_moves_no_actuator_and_delivers_a_setting() {
    let mut world = served();
    world.wish_of_cloud("valve", 40, 1, 1);
    world.update(r#"{"valve":{"actual":{"value":"40"}}}"#);
    world.wish_of_cloud("temp", 21, 1, 1);
    world.listen(&format!("{SHORT}/twin/update/delta"), false);
    world.restart();
    world.clock(true);
    let told = world.listen(&format!("{SHORT}/twin/update/delta"), true);
    assert_eq!(World::deltas(&told), [r#"{"temp":"21"}"#]);
    let got = world.hw(&format!("{SHORT}/twin/get"), "{}");
    assert!(got[0].contains(r#""valve":{"actual""#), "nothing is expected of the valve: {got:?}");
}

#[test]
fn an_actuator_whose_mapper_is_away_is_not_wished_anything() {
    let mut world = world();
    world.listen("$hw/#", true);
    let said = world.say(
        &format!("{SHORT}/twin/update"),
        r#"{"event_id":"e","twin":{"valve":{"expected":{"value":"40"}}}}"#,
    );
    assert_eq!(
        lines(&said),
        [
            r#"device/dev1/twin/update/result {"event_id":"e","timestamp":1000000000,"code":409,"reason":"valve: the device is offline; set it again"}"#
        ],
        "who hears all is no mapper"
    );
}

#[test]
fn an_actuator_that_drifts_is_not_moved_again_by_a_wish_that_was_carried_out() {
    let mut world = served();
    world.wish_of_cloud("valve", 40, 1, 1);
    world.update(r#"{"valve":{"actual":{"value":"40"}}}"#);
    let got = world.hw(&format!("{SHORT}/twin/get"), "{}");
    assert!(got[0].contains(r#""valve":{"expected":{"value":"40""#), "it is there: {got:?}");
    let said = world.update(r#"{"valve":{"actual":{"value":"35"}}}"#);
    assert_eq!(World::deltas(&said), [""; 0]);
    for served in [false, true] {
        let told = world.listen(&format!("{SHORT}/twin/update/delta"), served);
        assert_eq!(told, [""; 0]);
        let got = world.hw(&format!("{SHORT}/twin/get"), "{}");
        assert!(got[0].contains(r#""valve":{"actual""#), "a mapper that reads it at its start: {got:?}");
    }
}

#[test]
fn a_setting_that_drifts_is_a_delta_at_each_update() {
    let mut world = served();
    world.wish_of_cloud("temp", 21, 1, 1);
    world.update(r#"{"temp":{"actual":{"value":"21"}}}"#);
    for _ in 0..2 {
        let said = world.update(r#"{"temp":{"actual":{"value":"20"}}}"#);
        assert_eq!(World::deltas(&said), [r#"{"temp":"21"}"#]);
    }
}

#[test]
fn what_a_rule_renews_is_not_said_again() {
    let mut world = served();
    world.put("/m/rule/default/shut", json("{apiVersion: kubebus.io/v1alpha1, kind: Rule, metadata: {name: shut}, spec: {
        inputs: {temp: {device: dev1, property: temp}}, output: {device: dev1, property: ratio, slot: 10, ttl: 10s}, onUnknown: hold,
        cases: [{when: {input: temp, op: above, value: 80}, then: {value: 2.5}}]}}"));
    let said = world.update(r#"{"temp":{"actual":{"value":"90"}}}"#);
    assert_eq!(World::deltas(&said), [r#"{"ratio":"2.5"}"#]);
    let told = world.heard(|world| world.seconds(4));
    assert_eq!(told, [""; 0]);
}

#[test]
fn an_interlock_goes_before_what_a_client_wishes() {
    let mut world = served();
    world.put("/m/rule/default/shut", json("{apiVersion: kubebus.io/v1alpha1, kind: Rule, metadata: {name: shut}, spec: {
        inputs: {temp: {device: dev1, property: temp}}, output: {device: dev1, property: valve, slot: 2, ttl: 10s}, onUnknown: hold,
        cases: [{when: {input: temp, op: above, value: 80}, then: {value: 0}}]}}"));
    let said = world.update(r#"{"temp":{"actual":{"value":"90"}}}"#);
    assert_eq!(World::deltas(&said), [r#"{"valve":"0"}"#]);
    world.update(r#"{"valve":{"actual":{"value":"0"}}}"#);
    let said =
        world.say(&format!("{SHORT}/twin/update"), r#"{"twin":{"valve":{"expected":{"value":"40"}}}}"#);
    assert_eq!(
        lines(&said),
        [
            r#"device/dev1/twin/update/result {"event_id":"","timestamp":1000000000,"code":409,"reason":"valve: slot 2 (rule default/shut: case 1) holds it"}"#
        ]
    );
}

#[test]
fn what_a_mapper_was_told_is_no_wish_when_it_comes_back_beside_a_reading() {
    let mut world = served();
    world.update(r#"{"temp":{"expected":{"value":"30"}}}"#);
    world.update(r#"{"temp":{"actual":{"value":"30"}}}"#);
    let said = world.update(r#"{"temp":{"expected":{"value":"29"},"actual":{"value":"30"}}}"#);
    assert_eq!(
        said[0],
        r#"device/dev1/twin/update/result {"event_id":"","timestamp":1000000000,"twin":{"temp":{"actual":{"value":"30","metadata":{"timestamp":1000000000}},"optional":true,"metadata":{"type":"int"}}}}"#
    );
    assert_eq!(World::deltas(&said), [""; 0]);
}

#[test]
fn of_an_actuator_what_stands_beside_a_reading_is_never_a_wish() {
    let mut world = served();
    let said = world.update(r#"{"valve":{"expected":{"value":"40"},"actual":{"value":"12"}}}"#);
    assert_eq!(World::deltas(&said), [""; 0]);
    world.restart();
    let said = world.update(r#"{"valve":{"expected":{"value":"40"},"actual":{"value":"12"}}}"#);
    assert_eq!(World::deltas(&said), [""; 0]);
}

#[test]
fn a_device_is_online_while_its_mapper_listens() {
    let mut world = world();
    world.update(r#"{"temp":{"actual":{"value":"25"}}}"#);
    world.listen(&format!("{DEV1}/twin/update/delta"), true);
    assert_eq!(world.availability()["state"], "online");
    world.hw(&format!("{DEV1}/state/update"), r#"{"state":"online"}"#);
    world.listen(&format!("{DEV1}/twin/update/delta"), false);
    assert_eq!(world.availability()["reason"], "mapper gpio is not connected");
    let reported = last(&world.seen, "twin/default/dev1/reported/temp").unwrap();
    assert_eq!(reported["quality"], "bad", "nobody reads it any more");
}

#[test]
fn a_mapper_that_speaks_our_topics_goes_before_one_that_hears_deltas() {
    let mut world = served();
    world.say("mapper/gpio/state", "online");
    world.seen.clear();
    world.wish_of_cloud("valve", 40, 1, 1);
    let write = last(&world.seen, "mapper/gpio/write").unwrap();
    assert_eq!((&write["property"], &write["value"]), (&"valve".into(), &40.into()));
    world.update(r#"{"valve":{"actual":{"value":"40"}}}"#);
    assert_eq!(world.outcomes(), [""; 0], "it answers its writes itself");
}

#[test]
fn values_are_counted_as_the_device_counts() {
    let mut world = served();
    world.put(
        "/m/policy/default/ratio",
        json(
            "{apiVersion: kubebus.io/v1alpha1, kind: TwinPolicy, metadata: {name: ratio}, spec: {
        model: thermostat, property: ratio, unit: bar, deviceUnit: kPa}}",
        ),
    );
    world.wish_of_cloud("ratio", 3, 1, 1);
    let said = world.update(r#"{"ratio":{"actual":{"value":"250"}}}"#);
    assert_eq!(World::deltas(&said), [r#"{"ratio":"300"}"#]);
    assert_eq!(last(&world.seen, "twin/default/dev1/reported/ratio").unwrap()["value"], 2.5);
}
