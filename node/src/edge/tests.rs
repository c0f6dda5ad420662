use std::collections::BTreeSet;

use bus::{Class, Name, Topic, UnixMillis, Value};
use bytes::Bytes;
use controller::advert;
use device_twin::PropertyId;
use metadata::{Feed, FeedOutput, Key, ReplicaOutput, Revision};
use serde_json::json;

use super::*;

const NOW: Now = Now { mono: Mono(0), wall: UnixMillis(0) };

fn edge(keyspace: Keyspace) -> Edge {
    edge_naming(&[], keyspace)
}

/// Its configuration has these networks.
fn edge_naming(lans: &[&str], keyspace: Keyspace) -> Edge {
    let lans = lans.iter().map(|lan| lan.parse().unwrap()).collect();
    let node = NodeId::edge(Name::new("pump-house").unwrap());
    let identity = Identity { cluster: Name::new("water").unwrap(), node };
    let cloud = NodeId::cloud(Name::new("cloud").unwrap());
    Edge::new(
        EdgeSettings { identity, cloud, seed: 1, direct: true, lans, standby: true, damaged_stores: vec![] },
        keyspace,
        NOW,
    )
}

/// What the next process finds on the disk.
fn kept(edge: &Edge) -> Keyspace {
    let rows = edge.keyspace.range("/").map(|(key, value)| (key.clone(), Revision(1), Some(value.clone())));
    Keyspace::load(rows)
}

fn report(edge: &mut Edge, value: &str) {
    let topic = Topic::new("twin/water/junction/report/pressure").unwrap();
    let payload = value.to_owned().into();
    edge.handle(Input::mqtt(None, topic, payload, false), NOW);
}

fn fill_the_outbox(edge: &mut Edge) {
    let mut filled = 0;
    while edge
        .replica
        .push(Class::State, &format!("other/{filled}"), "x".into(), &mut edge.keyspace, NOW)
        .is_ok()
    {
        filled += 1;
    }
}

/// The cloud's half of the sync.
struct Upstairs {
    keyspace: Keyspace,
    feed: Feed,
}

impl Upstairs {
    /// A cloud that has bound a pressure sensor to the edge.
    fn new() -> Self {
        let model = json!({ "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel",
            "metadata": { "name": "sensor", "namespace": "water" },
            "spec": { "properties": [{ "name": "pressure", "type": "FLOAT", "accessMode": "ReadOnly" }] } });
        let device = json!({ "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
            "metadata": { "name": "junction", "namespace": "water" },
            "spec": { "deviceModelRef": { "name": "sensor" }, "nodeName": "pump-house",
                      "protocol": { "protocolName": "virtual" } } });
        let mut keyspace = Keyspace::new();
        for (name, manifest) in [("model/water/sensor", model), ("device/water/junction", device)] {
            let key = Key::new(&format!("/e/pump-house/{name}")).unwrap();
            keyspace.put(key, manifest.to_string().into());
        }
        keyspace.seal();
        Self { feed: Feed::load(&mut keyspace, 7), keyspace }
    }

    /// Lets the edge tell everything on a new link; the keys that arrived.
    fn hear(&mut self, edge: &mut Edge) -> BTreeSet<String> {
        let name = &Name::new("pump-house").unwrap();
        self.feed.handle_edge_up(name, NOW);
        edge.replica.handle_link_up(&edge.keyspace, NOW);
        let mut arrived = BTreeSet::new();
        while let Some(output) = edge.replica.poll_output() {
            if let ReplicaOutput::Send { payload, .. } = output {
                self.feed.handle_frame(name, &payload, &mut self.keyspace, NOW);
            } else {
                edge.on_replica(output, NOW);
            }
            self.keyspace.seal();
            while let Some(output) = self.feed.poll_output() {
                if let FeedOutput::Send { payload, .. } = output {
                    edge.replica.handle_frame(&payload, &mut edge.keyspace, NOW);
                } else if let FeedOutput::Up { entry, .. } = output {
                    arrived.insert(entry.key);
                }
            }
            edge.tell_untold(NOW);
            while let Some(output) = edge.twins.poll_output() {
                edge.on_twins(output, NOW);
            }
            edge.keyspace.seal();
        }
        arrived
    }
}

const PRESSURE: &str = "reported/water/junction/pressure";

#[test]
fn a_value_that_found_the_outbox_full_is_told_when_there_is_room() {
    let (mut edge, mut cloud) = (edge(Keyspace::new()), Upstairs::new());
    assert!(!cloud.hear(&mut edge).contains(PRESSURE));
    fill_the_outbox(&mut edge);
    report(&mut edge, "4");
    assert!(matches!(&edge.untold, Untold::Values(keys) if keys.contains(PRESSURE)));
    assert!(cloud.hear(&mut edge).contains(PRESSURE));
    assert!(matches!(edge.untold, Untold::Nothing));
}

#[test]
fn a_restart_with_a_full_outbox_tells_all_values_when_there_is_room() {
    let (mut before, mut cloud) = (edge(Keyspace::new()), Upstairs::new());
    cloud.hear(&mut before);
    fill_the_outbox(&mut before);
    report(&mut before, "4");
    let mut edge = edge(kept(&before));
    assert!(matches!(edge.untold, Untold::AnyValue));
    assert!(cloud.hear(&mut edge).contains(PRESSURE));
}

/// Whether the cloud is still to hear which networks the configuration names.
fn waits_to_tell_lans(edge: &Edge) -> bool {
    let is_it = |row: &Bytes| row.windows(advert::UP.len()).any(|part| part == advert::UP.as_bytes());
    edge.keyspace.range("/o/state/").any(|(_, row)| is_it(row))
}

#[test]
fn networks_that_the_configuration_names_are_told_once_and_when_they_change() {
    let mut cloud = Upstairs::new();
    let mut edge = edge_naming(&["192.168.30.0/24"], Keyspace::new());
    edge.handle(Input::Timeout, NOW);
    assert!(waits_to_tell_lans(&edge));
    assert!(cloud.hear(&mut edge).contains(advert::UP));
    assert!(!waits_to_tell_lans(&edge), "the cloud has it");
    for (lans, is_told) in
        [(&["192.168.30.0/24"][..], false), (&["192.168.30.0/24", "192.168.31.0/24"], true), (&[], true)]
    {
        let mut next = edge_naming(lans, kept(&edge));
        next.handle(Input::Timeout, NOW);
        assert_eq!(waits_to_tell_lans(&next), is_told, "{lans:?}");
    }
    assert_eq!(edge.lans()["192.168.30.0/24"]["state"], "pending");
}

/// An edge to which the cloud has bound a valve, of which its manifest wishes this position.
struct Valve(Edge);

impl Valve {
    fn new() -> Self {
        let property = |name: &str| json!({ "name": name, "type": "FLOAT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "100" });
        let model = json!({ "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel",
            "metadata": { "name": "valve", "namespace": "water" },
            "spec": { "properties": [property("position"), property("speed")] } });
        let wish = |name: &str| json!({ "name": name, "desired": { "value": "40" } });
        let device = json!({ "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
            "metadata": { "name": "v", "namespace": "water" },
            "spec": { "deviceModelRef": { "name": "valve" }, "nodeName": "pump-house",
                      "protocol": { "protocolName": "virtual" },
                      "properties": [wish("position"), wish("speed")] } });
        let mut keyspace = Keyspace::new();
        for (name, manifest) in [("model/water/valve", model), ("device/water/v", device)] {
            keyspace.put(Key::new(&format!("/m/{name}")).unwrap(), manifest.to_string().into());
        }
        keyspace.seal();
        Self(edge(keyspace))
    }

    fn patch(&mut self, body: serde_json::Value) -> Result<serde_json::Value, controller::api::Refusal> {
        use controller::api::call::{Call, Request};
        let request = Request {
            method: controller::api::Method::Patch,
            path: "/apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/v",
            query: "",
            accept: "application/json",
            content_type: "application/strategic-merge-patch+json",
            user_agent: "test",
        };
        let Call::Write(write) = Call::parse(&request)? else { panic!("no write") };
        let order = crate::resources::Order {
            write,
            body,
            asker: crate::steering::asker("admin"),
            secret: Default::default(),
        };
        let answer = self.ask(crate::resources::ApiRequest::Write(Box::new(order)));
        let crate::resources::ApiAnswer::Written(done) = answer else { panic!("{answer:?}") };
        let (crate::resources::Outcome::Item(item) | crate::resources::Outcome::Gone(item)) = done?.outcome;
        Ok(controller::api::object::render(controller::api::Kind::Device, *item))
    }

    fn ask(&mut self, request: crate::resources::ApiRequest) -> crate::resources::ApiAnswer {
        self.0.handle(Input::Api { id: 7, request }, NOW);
        let mut answer = None;
        while let Some(output) = self.0.poll_output() {
            if let Output::Persist(commit) = output {
                self.0.handle(Input::Persisted(commit.revision), NOW);
            } else if let Output::Api { id: 7, answer: said } = output {
                answer = Some(said);
            }
        }
        answer.expect("an answer")
    }

    /// Of the part desired.
    fn steer(
        &mut self,
        method: controller::api::Method,
        body: serde_json::Value,
    ) -> Result<serde_json::Value, controller::api::Refusal> {
        use controller::api::call::{Call, Request};
        let request = Request {
            method,
            path: "/apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/v/desired",
            query: "",
            accept: "",
            content_type: "application/merge-patch+json",
            user_agent: "test",
        };
        let Call::Steer(call) = Call::parse(&request)? else { panic!("no part") };
        let steering = crate::steering::Steering { call, body, asker: crate::steering::asker("operator") };
        let answer = self.ask(crate::resources::ApiRequest::Steer(Box::new(steering)));
        let crate::resources::ApiAnswer::Steered(done) = answer else { panic!("{answer:?}") };
        done.map(|done| done.object)
    }

    fn held(&self, property: &str) -> Option<String> {
        let id = PropertyId::new(&"water/v".parse().unwrap(), property);
        self.0.twins.held_to(&id, NOW.mono).map(ToString::to_string)
    }

    fn wish(&mut self, wishes: &[(&str, &str)]) -> Result<serde_json::Value, controller::api::Refusal> {
        let wish = |(name, value): &(&str, &str)| json!({ "name": name, "desired": { "value": value } });
        self.patch(json!({ "spec": { "properties": wishes.iter().map(wish).collect::<Vec<_>>() } }))
    }

    fn holds(&self, property: &str) -> Option<String> {
        let id = PropertyId::new(&"water/v".parse().unwrap(), property);
        self.0.twins.replaced(&id, NOW.mono).map(ToString::to_string)
    }
}

#[test]
fn a_patch_at_an_edge_back_to_what_the_manifest_says_is_carried_out() {
    let mut valve = Valve::new();
    for position in ["50", "40", "60"] {
        valve.wish(&[("position", position)]).unwrap();
        assert_eq!(valve.holds("position").as_deref(), Some(position));
    }
    assert_eq!(valve.holds("speed"), None, "nobody named it");
}

#[test]
fn a_patch_of_several_properties_at_an_edge_is_carried_out_whole_or_not_at_all() {
    let mut valve = Valve::new();
    let refused = valve.wish(&[("position", "50"), ("speed", "101")]).unwrap_err();
    assert_eq!(refused.code, 422, "{refused:?}");
    assert_eq!(valve.holds("position"), None);
    valve.wish(&[("position", "50"), ("speed", "10")]).unwrap();
    assert_eq!(
        (valve.holds("position").as_deref(), valve.holds("speed").as_deref()),
        (Some("50"), Some("10"))
    );
}

#[test]
fn telemetry_makes_no_writer_at_an_edge_conflict() {
    let mut valve = Valve::new();
    let read = valve.patch(json!({})).unwrap();
    let topic = Topic::new("twin/water/v/report/speed").unwrap();
    valve.0.handle(Input::mqtt(None, topic, "7".into(), false), NOW);
    let mut patch =
        json!({ "spec": { "properties": [{ "name": "position", "desired": { "value": "50" } }] } });
    patch["metadata"]["resourceVersion"] = read["metadata"]["resourceVersion"].clone();
    valve.patch(patch).unwrap();
    assert_eq!(valve.holds("position").as_deref(), Some("50"));
}

#[test]
fn what_held_a_device_when_somebody_read_it_is_no_wish_of_who_sends_it_back() {
    use controller::api::Method;
    let mut valve = Valve::new();
    let version = bus::twin::DesiredVersion { epoch: 0, seq: 1 };
    let (value, by) = (Value::Float(40.0), "ann".to_owned());
    let wish = device_twin::twin::Desired { value, version, issued: NOW.wall, by, group: None };
    let row = Key::new("/m/desired/water/v/position").unwrap();
    valve.0.keyspace.put(row.clone(), minicbor::to_vec(&wish).unwrap().into());
    valve.0.keyspace.seal();
    valve = Valve(edge(kept(&valve.0)));
    let set = |valve: &mut Valve, payload: &'static str| {
        let topic = Topic::new("twin/water/v/set/position").unwrap();
        valve.0.handle(Input::mqtt(None, topic, payload.into(), false), NOW);
    };
    set(&mut valve, "0");
    let read = valve.steer(Method::Get, serde_json::Value::Null).unwrap();
    assert_eq!(
        (&read["spec"], &read["status"]["properties"][0]["value"]),
        (&json!({"position": 40.0}), &json!(0.0))
    );
    set(&mut valve, "");
    let mut sent = read;
    sent["spec"]["speed"] = 5.into();
    assert_eq!(valve.steer(Method::Put, sent.clone()).unwrap_err().code, 409, "something else is in force");
    sent["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let mut late = valve.steer(Method::Put, sent).unwrap();
    assert_eq!((valve.held("position").as_deref(), valve.held("speed").as_deref()), (Some("40"), Some("5")));
    // Another operator of the site, whose hold is in no row, is seen too.
    valve.steer(Method::Patch, json!({"spec": {"speed": 6}})).unwrap();
    late["spec"]["speed"] = 7.into();
    assert_eq!(valve.steer(Method::Put, late).unwrap_err().code, 409);
    // A wish that the cloud takes back is seen as one that it gives.
    let read = valve.steer(Method::Get, serde_json::Value::Null).unwrap();
    valve.0.keyspace.delete(&row);
    valve.0.keyspace.seal();
    valve = Valve(edge(kept(&valve.0)));
    let after = valve.steer(Method::Get, serde_json::Value::Null).unwrap();
    assert_ne!(read["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);
}
