use std::collections::BTreeSet;

use bus::{Name, UnixMillis};
use metadata::{Feed, FeedOutput, Revision};
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
