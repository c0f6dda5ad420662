//! Both halves of the twins with the real sync between them: whatever is cut and restarted, they agree in the end.

mod any_order;
mod scenarios;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::cloud::{Output as FromCloud, SetError, Wish, Wishes};
use crate::command::{CommandView, Order};
use crate::edge::Output as FromEdge;
use crate::gate::access::Who;
use crate::twin::Said;
use crate::{CloudTwins, EdgeTwins, PropertyId, TwinView};
use bus::bus::ClockOffset;
use bus::twin::{DesiredVersion, DeviceId, MapperTopic, Outcome, ResultBody, WriteRequest, WriteResult};
use bus::{Mono, Name, Now, Topic, UnixMillis, Value};
use bytes::Bytes;
use metadata::{Feed, FeedOutput, Key, Keyspace, Replica, ReplicaOutput};

const MODEL: &str = "{apiVersion: devices.kubeedge.io/v1beta1, kind: DeviceModel, metadata: {name: valve, namespace: water}, spec: {properties: [
    {name: position, type: FLOAT, accessMode: ReadWrite, minimum: '0', maximum: '100'},
    {name: setPoint, type: FLOAT, accessMode: ReadWrite}]}}";
const DEVICE: &str = "{apiVersion: devices.kubeedge.io/v1beta1, kind: Device, metadata: {name: valve, namespace: water}, spec: {
    deviceModelRef: {name: valve}, nodeName: pump-house, protocol: {protocolName: virtual}}}";
const POLICY: &str =
    "{apiVersion: kubebus.io/v1alpha1, kind: TwinPolicy, metadata: {name: position, namespace: water},
    spec: {model: valve, property: position, actuator: true, desiredMaxAge: 60s, localOverride: true}}";

fn json(yaml: &str) -> Bytes {
    let value: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
    serde_json::to_vec(&value).unwrap().into()
}

fn edge() -> Name {
    Name::new("pump-house").unwrap()
}

fn valve() -> DeviceId {
    "water/valve".parse().unwrap()
}

fn drain() -> DeviceId {
    "water/drain".parse().unwrap()
}

fn id(text: &str) -> PropertyId {
    PropertyId::parse(&format!("water/{text}")).unwrap()
}

/// The edge's wall clock is an hour behind the cloud's.
const BEHIND_MS: u64 = 3_600_000;

struct World {
    ms: u64,
    linked: bool,
    cloud: CloudTwins,
    cloud_ks: Keyspace,
    feed: Feed,
    edge: EdgeTwins,
    edge_ks: Keyspace,
    replica: Replica,
    mapper: VecDeque<WriteRequest>,
    /// All that mappers were ever asked for, and when.
    writes: Vec<(u64, WriteRequest)>,
    /// The last value each property was set to.
    device: BTreeMap<PropertyId, Value>,
    /// Wishes that the edge took on.
    accepted: BTreeSet<(PropertyId, DesiredVersion)>,
    /// What watchers at the cloud were told, except for what is retained.
    told: Vec<ResultBody>,
    restarts: u64,
}

impl World {
    fn new(more: &str) -> Self {
        let policy = POLICY.replace("localOverride: true", &format!("localOverride: true{more}"));
        let (mut cloud_ks, mut edge_ks) = (Keyspace::new(), Keyspace::new());
        let drain = DEVICE.replace("name: valve, namespace", "name: drain, namespace");
        for (cloud, edge, yaml) in [
            ("devicemodel/water/valve", "model/water/valve", MODEL),
            ("device/water/valve", "device/water/valve", DEVICE),
            ("device/water/drain", "device/water/drain", &drain),
            ("twinpolicy/water/position", "policy/water/position", &policy),
        ] {
            cloud_ks.put(Key::new(&format!("/c/resource/{cloud}")).unwrap(), json(yaml));
            cloud_ks.put(Key::new(&format!("/e/pump-house/{edge}")).unwrap(), json(yaml));
        }
        // The edge's disk has been in its place for long.
        edge_ks.put(Key::new("/t/rev").unwrap(), Bytes::from_static(&[1]));
        let feed = Feed::load(&mut cloud_ks, 1);
        let replica = Replica::load(&mut edge_ks, 2);
        let edge = EdgeTwins::new(edge(), replica.incarnation(), 2);
        let (mapper, device, writes, accepted, told) = Default::default();
        let mut world = Self {
            ms: 10,
            linked: false,
            cloud: CloudTwins::new(),
            cloud_ks,
            feed,
            edge,
            edge_ks,
            replica,
            mapper,
            writes,
            device,
            accepted,
            told,
            restarts: 2,
        };
        world.restart_cloud();
        world.restart_edge();
        world
    }

    /// Linked, with a mapper. The policy of positions says `more`.
    fn running(more: &str) -> Self {
        let mut world = Self::new(more);
        world.link();
        world.say("mapper/virtual/state", "online");
        world
    }

    fn cloud_now(&self) -> Now {
        Now { mono: Mono(self.ms * 1000), wall: UnixMillis(10_000_000 + self.ms) }
    }

    fn edge_now(&self) -> Now {
        Now { wall: UnixMillis(self.cloud_now().wall.0 - BEHIND_MS), ..self.cloud_now() }
    }

    fn restart_cloud(&mut self) {
        self.cut();
        self.restarts += 1;
        self.feed = Feed::load(&mut self.cloud_ks, self.restarts);
        self.cloud = CloudTwins::new();
        let now = self.cloud_now();
        self.cloud.load(&mut self.cloud_ks, now);
        self.run();
    }

    fn restart_edge(&mut self) {
        self.cut();
        self.restarts += 1;
        self.replica = Replica::load(&mut self.edge_ks, self.restarts);
        self.edge = EdgeTwins::new(edge(), self.replica.incarnation(), self.restarts);
        self.mapper.clear();
        let now = self.edge_now();
        self.edge.load(&mut self.edge_ks, now);
        self.run();
    }

    fn cut(&mut self) {
        self.linked = false;
        self.feed.handle_edge_down(&edge(), self.cloud_now());
        self.cloud.handle_edge_down(&edge());
        self.replica.handle_link_down();
    }

    fn link(&mut self) {
        if std::mem::replace(&mut self.linked, true) {
            return;
        }
        let now = self.edge_now();
        let cloud_now = self.cloud_now();
        self.cloud.handle_edge_up(&edge(), &mut self.cloud_ks, cloud_now);
        self.feed.handle_edge_up(&edge(), cloud_now);
        self.replica.handle_link_up(&self.edge_ks, now);
        let estimate = ClockOffset { offset_ms: BEHIND_MS as i64, uncertainty: Duration::from_millis(5) };
        self.edge.handle_clock(Some(estimate), &mut self.edge_ks, now);
        self.run();
    }

    fn set(&mut self, property: &str, value: f64) {
        self.wish(&[(&format!("valve/{property}"), Some(value))]).unwrap();
    }

    /// Somebody wishes all of it as one, at the cloud.
    fn wish(&mut self, all: &[(&str, Option<f64>)]) -> Result<(), SetError> {
        let wish = |(property, value): &(&str, Option<f64>)| Wish {
            id: id(property),
            value: value.map(|value| Value::Float(value).into()),
            if_version: None,
        };
        let wishes = all.iter().map(wish).collect();
        let (when, by, now) = (Vec::new(), "ann".to_owned(), self.cloud_now());
        let done = self.cloud.change(&Wishes { wishes, when, by }, &mut self.cloud_ks, now);
        self.run();
        done.map(drop)
    }

    /// Somebody sets it at the edge.
    fn set_here(&mut self, property: &str, value: f64) -> Option<DesiredVersion> {
        let now = self.edge_now();
        let done = self.edge.set(&id(property), Value::Float(value), "bob", &mut self.edge_ks, now);
        self.run();
        done.unwrap_or_default()
    }

    fn take(&mut self, lasting: Option<Duration>) {
        let now = self.edge_now();
        // Refused before the edge has heard of the device.
        let _ = self.edge.take_authority(&valve(), ("bob", "repairs"), lasting, &mut self.edge_ks, now);
        self.run();
    }

    fn hand_back(&mut self) {
        let now = self.edge_now();
        // Refused where it is not held.
        let _ = self.edge.hand_back(&valve(), ("bob", ""), &mut self.edge_ks, now);
        self.run();
    }

    fn take_at_cloud(&mut self) {
        let now = self.cloud_now();
        self.cloud.take_authority(&valve(), ("ann", "night shift"), &mut self.cloud_ks, now).unwrap();
        self.run();
    }

    /// Orders a position of the valve, at the cloud or at the edge.
    fn order(&mut self, at_cloud: bool, id: &str, position: f64, ttl_ms: u64) {
        let order = serde_json::json!({"id": id, "args": {"position": position}, "ttlMs": ttl_ms});
        let order: Order = serde_json::from_value(order).unwrap();
        let (cloud, edge) = (self.cloud_now(), self.edge_now());
        // Refused where the id was another command.
        if at_cloud {
            let _ = self.cloud.order(&valve(), "set", order, "ann", &mut self.cloud_ks, cloud);
        } else {
            let _ = self.edge.order(&valve(), "set", order, "bob", &mut self.edge_ks, edge);
        }
        self.run();
    }

    /// The cloud forgets deletions, so that an edge that is away copies its metadata anew.
    fn compact(&mut self) {
        let next = self.cloud_ks.revision().0 + 1;
        self.cloud_ks.compact(metadata::Revision(next));
        self.run();
    }

    fn commands(&self) -> Vec<CommandView> {
        self.cloud.commands(None, self.cloud_now())
    }

    /// The edge's disk is replaced by an empty one.
    fn wipe_edge(&mut self) {
        self.edge_ks = Keyspace::new();
        self.restart_edge();
    }

    /// Both halves' views of a device, without what is their own affair.
    fn both(&self, device: &DeviceId) -> [Vec<TwinView>; 2] {
        let said = |views: Vec<TwinView>| -> Vec<TwinView> {
            views.into_iter().map(|view| TwinView { age_ms: None, ..view }).collect()
        };
        let (cloud, edge) = (self.cloud_now(), self.edge_now());
        [said(self.cloud.view(device, cloud)), said(self.edge.view(device, edge))]
    }

    /// Each view of a property as both halves have it.
    fn view(&self, property: &str) -> TwinView {
        let [cloud, edge] = self.both(&id(property).device);
        assert_eq!(cloud, edge);
        cloud.into_iter().find(|view| view.property == *id(property).property).unwrap()
    }

    fn say(&mut self, topic: &str, payload: &str) {
        let now = self.edge_now();
        let topic = Topic::new(topic).unwrap();
        self.edge.handle_publish(
            None,
            &Who::Anonymous,
            &topic,
            Said::plain(payload.as_bytes()),
            &mut self.edge_ks,
            now,
        );
        self.run();
    }

    /// The mapper carries out what it was asked for and reports what it reads.
    fn mapper_works(&mut self, outcome: Outcome) {
        while let Some(request) = self.mapper.pop_front() {
            let WriteRequest { id, device, property, value, .. } = request;
            let (place, property_id) =
                (format!("{device}/report/{property}"), PropertyId::new(&device, &property));
            let result = WriteResult { id, device, property, outcome, detail: String::new() };
            self.say("mapper/virtual/result", &serde_json::to_string(&result).unwrap());
            if outcome == Outcome::Succeeded {
                self.say(&format!("twin/{place}"), &value.to_string());
                self.device.insert(property_id, value);
            }
        }
    }

    fn pass(&mut self, by: Duration) {
        let end = self.ms + by.as_millis() as u64;
        while self.ms < end {
            let timeouts = [
                self.feed.poll_timeout(),
                self.replica.poll_timeout(),
                self.edge.poll_timeout(),
                self.cloud.poll_timeout(),
            ];
            let next = timeouts.into_iter().flatten().map(|(at, _)| at.0.div_ceil(1000)).min();
            self.ms = next.unwrap_or(end).clamp(self.ms + 1, end);
            let (cloud, edge) = (self.cloud_now(), self.edge_now());
            self.feed.handle_timeout(&self.cloud_ks, cloud);
            self.replica.handle_timeout(&self.edge_ks, edge);
            self.edge.handle_timeout(&mut self.edge_ks, edge);
            self.cloud.handle_timeout(&mut self.cloud_ks, cloud);
            self.run();
        }
    }

    /// Until nobody has anything to say.
    fn run(&mut self) {
        while self.run_edge() | self.run_cloud() {
            self.look_at_accepted();
        }
    }

    /// No desired value is accepted under a lower epoch than the present one.
    fn look_at_accepted(&mut self) {
        for device in [valve(), drain()] {
            let epoch = self.edge.authority(&device).map_or(0, |authority| authority.epoch);
            for view in self.edge.view(&device, self.edge_now()) {
                let Some(version) = view.version else { continue };
                if self.accepted.insert((PropertyId::new(&device, &view.property), version)) {
                    assert!(version.epoch >= epoch, "{version} was accepted at epoch {epoch}");
                }
            }
        }
    }

    fn run_edge(&mut self) -> bool {
        let mut moved = false;
        while let Some(output) = self.edge.poll_output() {
            moved = true;
            self.heed_edge(output);
        }
        while let Some(output) = self.replica.poll_output() {
            moved = true;
            match output {
                ReplicaOutput::Send { payload, .. } if self.linked => {
                    let now = self.cloud_now();
                    self.feed.handle_frame(&edge(), &payload, &mut self.cloud_ks, now);
                }
                ReplicaOutput::Send { .. } => {}
                ReplicaOutput::Resynced => {
                    let now = self.edge_now();
                    self.edge.handle_resynced(self.replica.incarnation(), &mut self.edge_ks, now);
                }
                ReplicaOutput::Changed(keys) => {
                    let now = self.edge_now();
                    self.edge.handle_changed(&keys, &mut self.edge_ks, now);
                }
                ReplicaOutput::Misbehaved(what) => panic!("the cloud {what}"),
                wrong @ (ReplicaOutput::Outdated { .. } | ReplicaOutput::Repaired) => panic!("{wrong:?}"),
            }
        }
        self.edge_ks.seal();
        moved
    }

    fn heed_edge(&mut self, output: FromEdge) {
        let now = self.edge_now();
        let write = MapperTopic::Write { mapper: Name::new("virtual").unwrap() }.topic();
        if let FromEdge::Up { class, key, payload } = output {
            self.replica.push(class, &key, payload, &mut self.edge_ks, now).unwrap();
        } else if let FromEdge::Publish(publish) = output
            && publish.topic == write
        {
            let request: WriteRequest = serde_json::from_slice(&publish.payload).unwrap();
            self.writes.push((self.ms, request.clone()));
            self.mapper.push_back(request);
        }
    }

    fn run_cloud(&mut self) -> bool {
        let mut moved = false;
        while let Some(output) = self.cloud.poll_output() {
            moved = true;
            let publish = match output {
                FromCloud::Publish(publish) => publish,
                FromCloud::Audit(_) | FromCloud::Reply(_) => continue,
                other @ (FromCloud::Accept(_) | FromCloud::Reject(..)) => panic!("{other:?}"),
            };
            if publish.topic.as_str().ends_with("/result") {
                self.told.push(serde_json::from_slice(&publish.payload).unwrap());
            }
        }
        while let Some(output) = self.feed.poll_output() {
            moved = true;
            let now = self.cloud_now();
            if let FeedOutput::Send { payload, .. } = output {
                let now = self.edge_now();
                self.replica.handle_frame(&payload, &mut self.edge_ks, now);
            } else if let FeedOutput::Up { edge, incarnation, entry } = output {
                self.cloud.handle_up(&edge, incarnation, &entry.key, &entry.payload, &mut self.cloud_ks, now);
            }
        }
        if self.cloud_ks.seal().is_some() {
            self.feed.handle_commit(&self.cloud_ks, self.cloud_now());
            moved = true;
        }
        moved
    }
}

fn heal(world: &mut World) {
    world.link();
    world.say("mapper/virtual/state", "online");
    for _ in 0..10 {
        world.mapper_works(Outcome::Succeeded);
        world.pass(Duration::from_secs(10));
    }
}
