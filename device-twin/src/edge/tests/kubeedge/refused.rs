//! Whatever a client says, it is answered where it spoke, and nothing of a message that is wrong is taken.

use proptest::prelude::*;
use serde_json::json as json_value;

use super::*;
use crate::gate::access::Who;
use crate::twin::Said;

/// Code and reason of the one answer to a message that is refused, on the topic `answer`.
#[track_caller]
fn refusal(
    world: &mut World,
    topic: &str,
    payload: &[u8],
    (answer, event_id): (&str, &str),
) -> (u64, String) {
    let (from, now) = (world.seen.len(), world.now());
    let topic = Topic::new(topic).unwrap();
    world.twins.handle_publish(
        Some(Ticket(7)),
        &Who::Anonymous,
        &topic,
        Said::plain(payload),
        &mut world.ks,
        now,
    );
    world.drain();
    let said = &world.seen[from..];
    assert!(said.iter().any(|output| matches!(output, Output::Reject(Ticket(7), _))), "{said:?}");
    let lines = lines(said);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let (at, body) = line.split_once(' ').unwrap();
    assert_eq!(at, answer);
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["event_id"], event_id, "{line}");
    (body["code"].as_u64().unwrap(), body["reason"].as_str().unwrap().to_owned())
}

#[test]
fn each_wrong_update_is_answered_with_its_reason() {
    let mut world = world();
    let long = "x".repeat(crate::kubeedge::update::MAX_VALUE + 1);
    let long = format!(r#"{{"event_id":"e","twin":{{"note":{{"actual":{{"value":"{long}"}}}}}}}}"#);
    let body = "Unmarshal update request body failed, please check the request";
    let table = [
        (r#"{"event_id":"e"}"#, 400, "Update twin error, key:twin does not exist".to_owned()),
        (r#"{"event_id":"e","twin":null}"#, 400, "Update twin error, key:twin does not exist".to_owned()),
        (r#"{"event_id":"e","twin":7}"#, 400, format!("{body} (invalid type: integer `7`, expected a map at line 1 column 24)")),
        (
            r#"{"event_id":"e","twin":{"temp":{"actual":{"value":25}}}}"#,
            400,
            format!("{body} (invalid type: integer `25`, expected a string at line 1 column 52)"),
        ),
        (
            r#"{"event_id":"e","twin":{"temp":{"actual":{"value":"25"}},"humidity":{"actual":{"value":"1"}}}}"#,
            400,
            "'humidity' is no property of the device; add it to the DeviceModel and apply that".to_owned(),
        ),
        (
            r#"{"event_id":"e","twin":{"temp":null}}"#,
            400,
            "'temp' is a property of the DeviceModel and is not deleted here; take it out there and apply that".to_owned(),
        ),
        (r#"{"event_id":"e","twin":{"temp":{"actual":{}}}}"#, 400, "'temp' has an actual without a value".to_owned()),
        (
            r#"{"event_id":"e","twin":{"on":{"actual":{"value":"true"}},"temp":{"actual":{"value":"2.5"}}}}"#,
            400,
            "the value is not int or integer (temp: '2.5' cannot be read as Int)".to_owned(),
        ),
        (
            r#"{"event_id":"e","twin":{"temp":{"expected":{"value":"x"}}}}"#,
            400,
            "the value is not int or integer (temp: 'x' cannot be read as Int)".to_owned(),
        ),
        (
            r#"{"event_id":"e","twin":{"ratio":{"actual":{"value":"NaN"}}}}"#,
            400,
            "the value is not float (ratio: wrong type: not a finite number)".to_owned(),
        ),
        (
            r#"{"event_id":"e","twin":{"on":{"actual":{"value":"True"}}}}"#,
            400,
            "the bool value must be true or false (on: 'True' cannot be read as Bool)".to_owned(),
        ),
        (
            r#"{"event_id":"e","twin":{"temp":{"expected":{"value":"101"}}}}"#,
            400,
            "temp: 101 is outside -50 to 100".to_owned(),
        ),
        (
            r#"{"event_id":"e","twin":{"seen":{"expected":{"value":"1"}}}}"#,
            400,
            "seen: the property is read-only".to_owned(),
        ),
        (&long, 400, "a value of 'note' is longer than 65536 bytes".to_owned()),
    ];
    for (payload, code, reason) in table {
        let answer = ("device/default/dev1/twin/update/result", "e");
        let told = refusal(&mut world, &format!("{DEV1}/twin/update"), payload.as_bytes(), answer);
        assert_eq!(told, (code, reason), "{payload}");
    }
    assert!(last(&world.seen, "twin/default/dev1/reported/temp").is_none(), "nothing of them was taken");
}

#[test]
fn a_refusal_is_written_as_kubeedge_writes_it() {
    let mut world = world();
    let said = world.say("$hw/events/device/default/devX/twin/update", r#"{"event_id":"e1","twin":{}}"#);
    assert_eq!(
        lines(&said),
        [
            r#"device/default/devX/twin/update/result {"event_id":"e1","timestamp":1000000000,"code":404,"reason":"update rejected due to the device is not existed"}"#
        ]
    );
    let said = world.say("$hw/events/device/devX/twin/get", r#"{"event_id":"g1","timestamp":0}"#);
    assert_eq!(
        lines(&said),
        [
            r#"device/devX/twin/get/result {"event_id":"g1","timestamp":1000000000,"code":404,"reason":"Device default/devX not found while getting twin"}"#
        ]
    );
}

#[test]
fn a_device_of_another_edge_is_not_known_here() {
    let mut world = world();
    let answer = ("device/water/tank/twin/get/result", "g");
    let told = refusal(&mut world, "$hw/events/device/water/tank/twin/get", br#"{"event_id":"g"}"#, answer);
    assert_eq!(told, (404, "Device water/tank not found while getting twin".to_owned()));
}

#[test]
fn namespaces_that_kubeedge_cannot_tell_from_the_topic_are_found() {
    let mut world = world();
    for namespace in ["hw", "event", "dev", "twin"] {
        let model = THERMOSTAT[0]
            .1
            .replace("{name: thermostat}", &format!("{{name: thermostat, namespace: {namespace}}}"));
        let device = THERMOSTAT[2].1.replace("{name: dev1}", &format!("{{name: e, namespace: {namespace}}}"));
        world.put(&format!("/m/model/{namespace}/thermostat"), json(&model));
        world.put(&format!("/m/device/{namespace}/e"), json(&device));
        let topic = format!("$hw/events/device/{namespace}/e/twin/update");
        let said = world.hw(&topic, r#"{"twin":{"temp":{"actual":{"value":"1"}}}}"#);
        assert_eq!(said.len(), 2, "{said:?}");
    }
}

#[test]
fn whatever_bytes_come_are_answered() {
    let mut world = world();
    let deep = "[".repeat(100_000);
    for payload in [&b""[..], b"{", b"[]", b"7", b"null", b"\xff\xfe", b"{\"event_id\":7}", deep.as_bytes()] {
        for (topic, answer, words) in [
            (
                format!("{DEV1}/twin/update"),
                "device/default/dev1/twin/update/result",
                "Unmarshal update request body failed",
            ),
            (
                format!("{SHORT}/twin/get"),
                "device/dev1/twin/get/result",
                "Unmarshal twin info failed , err: ",
            ),
            (
                format!("{SHORT}/state/update"),
                "device/dev1/state/update/result",
                "Unmarshal update request body failed",
            ),
            (
                "$hw/events/node/x/membership/get".to_owned(),
                "node/pump-house/membership/get/result",
                "Unmarshal get membership info failed , err: ",
            ),
        ] {
            let (code, reason) = refusal(&mut world, &topic, payload, (answer, ""));
            assert!(code == 400 && reason.starts_with(words), "{topic} {payload:?}: {code} {reason}");
        }
    }
}

/// A member of a message as a careless or hostile client may write it.
fn half() -> impl Strategy<Value = serde_json::Value> {
    let values = prop::sample::select(vec!["25", "", "true", "x", "-1e999", "nan", "\u{0}", "größe"]);
    prop_oneof![
        Just(json_value!(null)),
        Just(json_value!({})),
        Just(json_value!({"value": null, "metadata": {"timestamp": "then"}})),
        Just(json_value!([["25"]])),
        values.prop_map(|value| json_value!({ "value": value })),
        any::<f64>().prop_map(|value| json_value!({ "value": value })),
    ]
}

fn property() -> impl Strategy<Value = serde_json::Value> {
    let both = (half(), half(), any::<bool>()).prop_map(|(expected, actual, optional)| {
        json_value!({ "expected": expected, "actual": actual, "optional": optional, "metadata": { "type": "deleted" } })
    });
    prop_oneof![Just(json_value!(null)), half(), both]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn each_update_has_one_result_before_all_else(
        twins in prop::collection::vec(
            prop::collection::btree_map(prop::sample::select(vec!["temp", "on", "note", "valve", "seen", "ünknown"]), property(), 0..4),
            1..4,
        ),
        served in any::<bool>(),
    ) {
        let mut world = world();
        world.listen("$hw/#", true);
        world.listen(&format!("{SHORT}/twin/update/delta"), served);
        for twin in twins {
            let said = world.say(&format!("{SHORT}/twin/update"), &json_value!({ "event_id": "e", "twin": twin }).to_string());
            let lines = lines(&said);
            prop_assert!(lines[0].starts_with(r#"device/dev1/twin/update/result {"event_id":"e","#), "{lines:?}");
            prop_assert_eq!(lines.iter().filter(|line| line.contains("/result ")).count(), 1);
            let taken = said.contains(&Output::Accept(Ticket(7)));
            prop_assert_eq!(taken, !lines[0].contains(r#""code":"#), "{:?}", lines);
        }
    }
}

#[test]
fn a_state_that_is_none_and_a_device_that_is_none_are_answered() {
    let mut world = world();
    let answer = ("device/dev1/state/update/result", "s");
    let told =
        refusal(&mut world, &format!("{SHORT}/state/update"), br#"{"event_id":"s","state":"tired"}"#, answer);
    assert_eq!(
        told,
        (
            400,
            "'tired' is no state; there is online, offline, ok, unknown, unhealthy, error and disconnected"
                .to_owned()
        )
    );
    let answer = ("device/dev2/state/update/result", "s");
    let told = refusal(
        &mut world,
        "$hw/events/device/dev2/state/update",
        br#"{"event_id":"s","state":"online"}"#,
        answer,
    );
    assert_eq!(told, (404, "update rejected due to the device is not existed".to_owned()));
}

#[test]
fn what_the_node_says_nobody_else_may_say() {
    let mut world = world();
    for topic in ["twin/cloud_updated", "twin/update/delta", "updated"] {
        let said = world.say(
            &format!("{DEV1}/{topic}"),
            r#"{"event_id":"c1","twin":{"temp":{"expected":{"value":"31"}}}}"#,
        );
        assert_eq!(said, [Output::Reject(Ticket(7), "only nodes publish here".to_owned())]);
    }
    assert_eq!(world.twins.view(&dev1("temp").device, world.now())[4].desired, None);
}
