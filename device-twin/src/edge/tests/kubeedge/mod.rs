//! KubeEdge's topics on the twins of an edge: whole exchanges, text for text, in virtual time.

mod mapper;
mod members;
mod refused;

use bus::Filter;

use super::*;
use crate::twin::{Expiry, Publish};

/// A thermostat that KubeEdge's clients talk to, in the namespace that may be left out, and its valve: an actuator.
const THERMOSTAT: [(&str, &str); 3] = [
    ("/m/model/default/thermostat", "{apiVersion: devices.kubeedge.io/v1beta1, kind: DeviceModel, metadata: {name: thermostat}, spec: {properties: [
        {name: temp, type: INT, accessMode: ReadWrite, minimum: '-50', maximum: '100'},
        {name: ratio, type: DOUBLE, accessMode: ReadWrite},
        {name: 'on', type: BOOLEAN, accessMode: ReadWrite},
        {name: note, type: STRING, accessMode: ReadWrite},
        {name: seen, type: INT, accessMode: ReadOnly},
        {name: valve, type: INT, accessMode: ReadWrite}]}}"),
    ("/m/policy/default/valve", "{apiVersion: kubebus.io/v1alpha1, kind: TwinPolicy, metadata: {name: valve}, spec: {
        model: thermostat, property: valve, actuator: true, desiredMaxAge: 60s, failSafe: 0}}"),
    ("/m/device/default/dev1", "{apiVersion: devices.kubeedge.io/v1beta1, kind: Device, metadata: {name: dev1}, spec: {
        deviceModelRef: {name: thermostat}, nodeName: pump-house, protocol: {protocolName: gpio}}}"),
];

const DEV1: &str = "$hw/events/device/default/dev1";
const SHORT: &str = "$hw/events/device/dev1";

/// An edge with the thermostat; nobody listens yet.
fn world() -> World {
    let mut world = World::new();
    for (key, yaml) in THERMOSTAT {
        world.put(key, json(yaml));
    }
    world.seen.clear();
    world
}

/// A publish of KubeEdge's: its topic below `$hw/events/`, and the payload with `*` for a name of its own.
fn line(publish: &Publish) -> Option<String> {
    let topic = publish.topic.as_str().strip_prefix("$hw/events/")?;
    assert!(!publish.retain, "{topic}: nothing of KubeEdge's is retained");
    let is_delta = topic.ends_with("/delta");
    assert_eq!(publish.expiry, is_delta.then_some(Expiry(super::super::WRITE_TTL)), "{topic}");
    let payload = std::str::from_utf8(&publish.payload).unwrap();
    let rest = payload.strip_prefix(r#"{"event_id":""#).unwrap_or_else(|| panic!("{payload}"));
    let (id, rest) = rest.split_once('"').unwrap();
    let id = if id.len() == 36 && id.matches('-').count() == 4 { "*" } else { id };
    Some(format!(r#"{topic} {{"event_id":"{id}"{rest}"#))
}

fn lines(outputs: &[Output]) -> Vec<String> {
    let publishes = outputs
        .iter()
        .filter_map(|output| if let Output::Publish(publish) = output { Some(publish) } else { None });
    publishes.filter_map(line).collect()
}

impl World {
    /// A client publishes something that is taken; what is said on KubeEdge's topics.
    #[track_caller]
    fn hw(&mut self, topic: &str, payload: &str) -> Vec<String> {
        let said = self.say(topic, payload);
        assert!(said.contains(&Output::Accept(Ticket(7))), "{said:?}");
        lines(&said)
    }

    fn listen(&mut self, filter: &str, wanted: bool) -> Vec<String> {
        let (from, now) = (self.seen.len(), self.now());
        self.twins.handle_interest(&Filter::new(filter).unwrap(), wanted, &mut self.ks, now);
        self.drain();
        lines(&self.seen[from..])
    }

    /// What is said on KubeEdge's topics while `happens` does.
    fn heard(&mut self, happens: impl FnOnce(&mut Self)) -> Vec<String> {
        let from = self.seen.len();
        happens(self);
        lines(&self.seen[from..])
    }
}

fn dev1(property: &str) -> PropertyId {
    PropertyId::parse(&format!("default/dev1/{property}")).unwrap()
}

const TEMP: &str = r#"{"expected":{"value":"30","metadata":{"timestamp":1000000000}},"actual":{"value":"25","metadata":{"timestamp":1000000000}},"optional":true,"metadata":{"type":"int"}}"#;

#[test]
fn an_update_is_answered_by_result_document_and_delta_in_this_order() {
    let mut world = world();
    let said = world.hw(
        &format!("{DEV1}/twin/update"),
        r#"{"event_id":"e1","timestamp":1700000000000,"twin":{"temp":{"expected":{"value":"30"},"actual":{"value":"25"},"optional":true,"metadata":{"type":"int"}}}}"#,
    );
    assert_eq!(
        said,
        [
            format!(
                r#"device/default/dev1/twin/update/result {{"event_id":"e1","timestamp":1000000000,"twin":{{"temp":{TEMP}}}}}"#
            ),
            format!(
                r#"device/default/dev1/twin/update/document {{"event_id":"e1","timestamp":1000000000,"twin":{{"temp":{{"last":null,"current":{TEMP}}}}}}}"#
            ),
            format!(
                r#"device/default/dev1/twin/update/delta {{"event_id":"*","timestamp":1000000000,"twin":{{"temp":{TEMP}}},"delta":{{"temp":"30"}}}}"#
            ),
        ]
    );
}

#[test]
fn who_leaves_the_namespace_out_is_answered_without_it() {
    let mut world = world();
    let said = world.hw(
        &format!("{SHORT}/twin/update"),
        r#"{"event_id":"e1","timestamp":0,"twin":{"temp":{"expected":{"value":"30"},"actual":{"value":"25"}}}}"#,
    );
    assert_eq!(
        said,
        [
            format!(
                r#"device/dev1/twin/update/result {{"event_id":"e1","timestamp":1000000000,"twin":{{"temp":{TEMP}}}}}"#
            ),
            format!(
                r#"device/dev1/twin/update/document {{"event_id":"e1","timestamp":1000000000,"twin":{{"temp":{{"last":null,"current":{TEMP}}}}}}}"#
            ),
            format!(
                r#"device/dev1/twin/update/delta {{"event_id":"*","timestamp":1000000000,"twin":{{"temp":{TEMP}}},"delta":{{"temp":"30"}}}}"#
            ),
        ]
    );
    let got = world.hw(&format!("{SHORT}/twin/get"), r#"{"event_id":"g1","timestamp":0}"#);
    assert!(got[0].starts_with(r#"device/dev1/twin/get/result {"event_id":"g1""#), "{got:?}");
}

#[test]
fn both_forms_hear_what_happens_if_both_are_listened_to() {
    let mut world = world();
    world.listen(&format!("{DEV1}/twin/update/document"), true);
    world.listen("$hw/events/device/+/twin/update/#", true);
    let said = world.hw(&format!("{SHORT}/twin/update"), r#"{"twin":{"temp":{"expected":{"value":"30"}}}}"#);
    let topics: Vec<&str> = said.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(
        topics,
        [
            "device/dev1/twin/update/result",
            "device/default/dev1/twin/update/document",
            "device/dev1/twin/update/document",
            "device/dev1/twin/update/delta",
        ]
    );
}

#[test]
fn a_report_of_a_mapper_from_before_dmi_has_only_what_it_touches_in_its_result() {
    let mut world = world();
    world.hw(&format!("{DEV1}/twin/update"), r#"{"twin":{"temp":{"actual":{"value":"25"}}}}"#);
    world.seconds(1);
    let said = world.hw(
        &format!("{DEV1}/twin/update"),
        r#"{"event_id":"","timestamp":1700000001000,"twin":{"temp":{"actual":{"value":"26"},"metadata":{"type":"string"}}}}"#,
    );
    let now = r#"{"actual":{"value":"26","metadata":{"timestamp":1000001000}},"optional":true,"metadata":{"type":"int"}}"#;
    let last = r#"{"actual":{"value":"25","metadata":{"timestamp":1000000000}},"optional":true,"metadata":{"type":"int"}}"#;
    assert_eq!(
        said,
        [
            format!(
                r#"device/default/dev1/twin/update/result {{"event_id":"","timestamp":1000001000,"twin":{{"temp":{now}}}}}"#
            ),
            format!(
                r#"device/default/dev1/twin/update/document {{"event_id":"","timestamp":1000001000,"twin":{{"temp":{{"last":{last},"current":{now}}}}}}}"#
            ),
        ],
        "nothing is expected, so there is no delta"
    );
    assert_eq!(super::last(&world.seen, "twin/default/dev1/reported/temp").unwrap()["value"], 26);
}

#[test]
fn a_get_has_every_property_of_the_model() {
    let mut world = world();
    world.hw(&format!("{DEV1}/twin/update"), r#"{"twin":{"temp":{"expected":{"value":"30"},"actual":{"value":"25"}},"on":{"actual":{"value":"true"}}}}"#);
    world.seconds(60);
    let said = world.hw(&format!("{DEV1}/twin/get"), r#"{"event_id":"g1","timestamp":0}"#);
    let plain =
        |name: &str, kind: &str| format!(r#""{name}":{{"optional":true,"metadata":{{"type":"{kind}"}}}}"#);
    let on = r#""on":{"actual":{"value":"true","metadata":{"timestamp":1000000000}},"optional":true,"metadata":{"type":"boolean"}}"#;
    let twin = [
        plain("note", "string"),
        on.to_owned(),
        plain("ratio", "float"),
        plain("seen", "int"),
        format!(r#""temp":{TEMP}"#),
        plain("valve", "int"),
    ];
    assert_eq!(
        said,
        [format!(
            r#"device/default/dev1/twin/get/result {{"event_id":"g1","timestamp":1000060000,"twin":{{{}}}}}"#,
            twin.join(",")
        )]
    );
}

#[test]
fn values_are_any_text_and_come_back_in_the_result_as_they_came() {
    let mut world = world();
    let said = world.hw(
        &format!("{DEV1}/twin/update"),
        r#"{"twin":{"note":{"actual":{"value":"50 % \"größer\" {日本}"}},"ratio":{"actual":{"value":"2.50"}}}}"#,
    );
    assert_eq!(
        said[0],
        r#"device/default/dev1/twin/update/result {"event_id":"","timestamp":1000000000,"twin":{"note":{"actual":{"value":"50 % \"größer\" {日本}","metadata":{"timestamp":1000000000}},"optional":true,"metadata":{"type":"string"}},"ratio":{"actual":{"value":"2.50","metadata":{"timestamp":1000000000}},"optional":true,"metadata":{"type":"float"}}}}"#
    );
    assert!(said[1].contains(r#""current":{"actual":{"value":"2.5","#), "{}", said[1]);
}

#[test]
fn values_are_compared_by_their_type_and_not_as_text() {
    let mut world = world();
    world.hw(&format!("{DEV1}/twin/update"), r#"{"twin":{"ratio":{"expected":{"value":"2.50"}}}}"#);
    let said = world.hw(&format!("{DEV1}/twin/update"), r#"{"twin":{"ratio":{"actual":{"value":"2.5"}}}}"#);
    assert_eq!(said.len(), 2, "no delta: {said:?}");
}

#[test]
fn an_update_that_says_nothing_is_answered_by_an_empty_result() {
    let mut world = world();
    for twin in ["{}", r#"{"temp":{}}"#, r#"{"temp":{"metadata":{"type":"int"}}}"#] {
        let said = world.hw(&format!("{DEV1}/twin/update"), &format!(r#"{{"event_id":"e","twin":{twin}}}"#));
        assert_eq!(
            said,
            [r#"device/default/dev1/twin/update/result {"event_id":"e","timestamp":1000000000,"twin":{}}"#]
        );
    }
}

#[test]
fn a_wish_is_taken_back_by_an_empty_one() {
    let mut world = world();
    world.hw(&format!("{DEV1}/twin/update"), r#"{"twin":{"temp":{"expected":{"value":"30"}}}}"#);
    for empty in [r#"{"value":""}"#, "{}"] {
        let said = world
            .hw(&format!("{DEV1}/twin/update"), &format!(r#"{{"twin":{{"temp":{{"expected":{empty}}}}}}}"#));
        assert_eq!(
            said[0],
            r#"device/default/dev1/twin/update/result {"event_id":"","timestamp":1000000000,"twin":{"temp":{"expected":{"value":"","metadata":{"timestamp":1000000000}},"optional":true,"metadata":{"type":"int"}}}}"#
        );
        assert_eq!(said.len(), 2, "no delta: {said:?}");
    }
}

#[test]
fn a_wish_of_the_cloud_is_a_delta_for_whoever_listens_and_nothing_for_nobody() {
    let mut world = world();
    let desire = |world: &mut World, seq: u64| {
        let desired = Desired {
            value: Value::Int(30),
            version: version(seq),
            issued: UnixMillis(1_007_200_000),
            by: "ann".into(),
            group: None,
        };
        world.put("/m/desired/default/dev1/temp", crate::twin::cbor(&desired));
    };
    assert_eq!(world.heard(|world| desire(world, 1)), [""; 0]);
    world.listen("$hw/events/device/+/+/twin/update/delta", true);
    let told = world.heard(|world| desire(world, 2));
    assert_eq!(
        told,
        [
            r#"device/default/dev1/twin/update/delta {"event_id":"*","timestamp":1000000000,"twin":{"temp":{"expected":{"value":"30","metadata":{"timestamp":1007200000}},"optional":true,"metadata":{"type":"int"}}},"delta":{"temp":"30"}}"#
        ]
    );
    let told = world.heard(|world| drop(world.say("twin/default/dev1/report/temp", "30")));
    assert_eq!(told, [""; 0], "it is there");
    let told = world.heard(|world| drop(world.say("twin/default/dev1/report/temp", "29")));
    assert_eq!(told.len(), 1, "it went away again: {told:?}");
    world.listen("$hw/events/device/+/+/twin/update/delta", false);
    assert_eq!(world.heard(|world| drop(world.say("twin/default/dev1/report/temp", "28"))), [""; 0]);
}
