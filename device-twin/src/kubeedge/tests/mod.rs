//! KubeEdge's JSON, text for text; what the node does with it is in `edge/tests/kubeedge/`.

use std::collections::BTreeMap;

use bus::UnixMillis;
use serde::Serialize;

use super::wire::*;
use super::*;

const AT: UnixMillis = UnixMillis(1_700_000_000_111);

fn json_of(body: &impl Serialize) -> String {
    serde_json::to_string(body).unwrap()
}

/// As KubeEdge shows `temp`, expected to be 30 and being 25.
fn temp() -> MsgTwin {
    MsgTwin {
        expected: Some(TwinValue::new("30".into(), Some(AT))),
        actual: Some(TwinValue::new("25".into(), Some(AT))),
        optional: Some(true),
        metadata: Some(TypeMetadata { type_name: Some("int".into()) }),
    }
}

const TEMP: &str = r#"{"expected":{"value":"30","metadata":{"timestamp":1700000000111}},"actual":{"value":"25","metadata":{"timestamp":1700000000111}},"optional":true,"metadata":{"type":"int"}}"#;

#[test]
fn a_result_is_written_as_kubeedge_writes_it() {
    let body = TwinResult {
        event_id: "e1".into(),
        timestamp: AT,
        twin: BTreeMap::from([("temp".to_owned(), Some(temp()))]),
    };
    assert_eq!(
        json_of(&body),
        format!(r#"{{"event_id":"e1","timestamp":1700000000111,"twin":{{"temp":{TEMP}}}}}"#)
    );
    let nothing = TwinResult { event_id: String::new(), timestamp: AT, twin: BTreeMap::new() };
    assert_eq!(json_of(&nothing), r#"{"event_id":"","timestamp":1700000000111,"twin":{}}"#);
    let deleted = TwinResult { twin: BTreeMap::from([("temp".to_owned(), None)]), ..nothing };
    assert_eq!(json_of(&deleted), r#"{"event_id":"","timestamp":1700000000111,"twin":{"temp":null}}"#);
}

#[test]
fn what_is_not_known_of_a_property_is_left_out() {
    let only = MsgTwin { actual: Some(TwinValue::new("26".into(), None)), ..MsgTwin::default() };
    assert_eq!(json_of(&only), r#"{"actual":{"value":"26"}}"#);
    assert_eq!(
        json_of(&MsgTwin { expected: Some(TwinValue::default()), ..MsgTwin::default() }),
        r#"{"expected":{}}"#
    );
    assert_eq!(json_of(&MsgTwin::default()), "{}");
}

#[test]
fn a_document_says_null_for_what_was_not_there() {
    let both = LastAndCurrent { last: None, current: Some(temp()) };
    let body = TwinDocument {
        event_id: "e1".into(),
        timestamp: AT,
        twin: BTreeMap::from([("temp".to_owned(), both)]),
    };
    assert_eq!(
        json_of(&body),
        format!(
            r#"{{"event_id":"e1","timestamp":1700000000111,"twin":{{"temp":{{"last":null,"current":{TEMP}}}}}}}"#
        )
    );
}

#[test]
fn a_delta_has_the_properties_and_then_what_is_expected_of_them() {
    let body = TwinDelta {
        event_id: "5f0c".into(),
        timestamp: UnixMillis(1_700_000_000_112),
        twin: BTreeMap::from([("temp".to_owned(), temp())]),
        delta: BTreeMap::from([("temp".to_owned(), "30".to_owned())]),
    };
    assert_eq!(
        json_of(&body),
        format!(
            r#"{{"event_id":"5f0c","timestamp":1700000000112,"twin":{{"temp":{TEMP}}},"delta":{{"temp":"30"}}}}"#
        )
    );
}

#[test]
fn an_error_has_a_code_and_a_reason() {
    let body = ErrorResult {
        event_id: "e1".into(),
        timestamp: AT,
        code: Refused::NoDevice.code(),
        reason: Refused::NoDevice.to_string(),
    };
    assert_eq!(
        json_of(&body),
        r#"{"event_id":"e1","timestamp":1700000000111,"code":404,"reason":"update rejected due to the device is not existed"}"#
    );
}

#[test]
fn states_and_members_name_their_last_time_differently() {
    let online = || Some("2026-01-01T00:00:00Z".to_owned());
    let body = StateResult {
        event_id: "u".into(),
        timestamp: AT,
        device: StateDevice { name: "dev1".into(), state: "online".into(), last_online_time: online() },
    };
    assert_eq!(
        json_of(&body),
        r#"{"event_id":"u","timestamp":1700000000111,"device":{"name":"dev1","state":"online","lastOnlineTime":"2026-01-01T00:00:00Z"}}"#
    );
    let member = Device {
        id: "default/dev1".into(),
        name: "dev1".into(),
        state: Some("online".into()),
        last_online: online(),
    };
    let body = MembershipGetResult { event_id: "m1".into(), timestamp: AT, devices: vec![member] };
    assert_eq!(
        json_of(&body),
        r#"{"event_id":"m1","timestamp":1700000000111,"devices":[{"id":"default/dev1","name":"dev1","state":"online","last_online":"2026-01-01T00:00:00Z"}]}"#
    );
    let none = MembershipGetResult { devices: vec![], ..body };
    assert_eq!(json_of(&none), r#"{"event_id":"m1","timestamp":1700000000111,"devices":[]}"#);
}

#[test]
fn a_change_of_membership_says_null_for_the_other_half() {
    let device = || Device { id: "default/dev1".into(), name: "dev1".into(), ..Device::default() };
    let added = MembershipUpdate {
        event_id: "u".into(),
        timestamp: AT,
        added_devices: Some(vec![device()]),
        removed_devices: None,
    };
    assert_eq!(
        json_of(&added),
        r#"{"event_id":"u","timestamp":1700000000111,"added_devices":[{"id":"default/dev1","name":"dev1"}],"removed_devices":null}"#
    );
    let removed = MembershipUpdate { added_devices: None, removed_devices: Some(vec![device()]), ..added };
    assert_eq!(
        json_of(&removed),
        r#"{"event_id":"u","timestamp":1700000000111,"added_devices":null,"removed_devices":[{"id":"default/dev1","name":"dev1"}]}"#
    );
}

#[test]
fn what_clients_send_is_read_whatever_else_is_in_it() {
    let read = |json: &str| serde_json::from_str::<TwinUpdate>(json).unwrap();
    let whole = format!(
        r#"{{"event_id":"e1","timestamp":1,"twin":{{"temp":{}}},"more":[1]}}"#,
        TEMP.replace("\"optional\"", "\"expected_version\":{\"cloud\":7,\"edge\":1},\"optional\"")
    );
    let update = read(&whole);
    assert_eq!(update.event_id.as_deref(), Some("e1"));
    assert_eq!(update.twin, Some(BTreeMap::from([("temp".to_owned(), Some(temp()))])));
    let nulls = read(
        r#"{"event_id":null,"twin":{"a":null,"b":{"expected":null,"actual":{"value":null,"metadata":null}}}}"#,
    );
    let b = MsgTwin { actual: Some(TwinValue::default()), ..MsgTwin::default() };
    assert_eq!(nulls.twin, Some(BTreeMap::from([("a".to_owned(), None), ("b".to_owned(), Some(b))])));
}

#[test]
fn an_event_id_is_read_from_what_else_is_wrong() {
    assert_eq!(event_id_of(br#"{"event_id":"e1","twin":7}"#), "e1");
    for bad in [&b"{"[..], b"", b"[]", br#"{"event_id":7}"#, b"\xff"] {
        assert_eq!(event_id_of(bad), "");
    }
}

#[test]
fn a_fresh_event_id_looks_like_a_random_uuid_and_comes_once() {
    let ids: Vec<String> = (0..100).map(|number| fresh_event_id(5, number)).collect();
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 100);
    assert_ne!(fresh_event_id(6, 0), ids[0]);
    for id in &ids {
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
        assert!(id[14..].starts_with('4') && "89ab".contains(&id[19..20]), "{id}");
    }
}
