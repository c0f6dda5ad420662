//! Both halves of the twins with the real sync between them: whatever is cut and restarted, they agree in the end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::cloud::Output as FromCloud;
use crate::edge::Output as FromEdge;
use crate::{CloudTwins, EdgeTwins, TwinView};
use bus::bus::ClockOffset;
use bus::twin::{DeviceId, MapperTopic, Outcome, WriteRequest, WriteResult};
use bus::{Mono, Name, Now, Topic, UnixMillis, Value};
use bytes::Bytes;
use metadata::{Feed, FeedOutput, Key, Keyspace, Replica, ReplicaOutput};
use proptest::prelude::*;

const MODEL: &str = "{apiVersion: devices.kubeedge.io/v1beta1, kind: DeviceModel, metadata: {name: valve, namespace: water}, spec: {properties: [
    {name: position, type: FLOAT, accessMode: ReadWrite, minimum: '0', maximum: '100'},
    {name: setPoint, type: FLOAT, accessMode: ReadWrite}]}}";
const DEVICE: &str = "{apiVersion: devices.kubeedge.io/v1beta1, kind: Device, metadata: {name: valve, namespace: water}, spec: {
    deviceModelRef: {name: valve}, nodeName: pump-house, protocol: {protocolName: virtual}}}";
const POLICY: &str =
    "{apiVersion: kubebus.io/v1alpha1, kind: TwinPolicy, metadata: {name: position, namespace: water},
    spec: {model: valve, property: position, actuator: true, desiredMaxAge: 60s}}";

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
    /// The last value the device was set to, by property.
    device: BTreeMap<String, Value>,
    restarts: u64,
}

impl World {
    fn new() -> Self {
        let (mut cloud_ks, mut edge_ks) = (Keyspace::new(), Keyspace::new());
        for (cloud, edge, yaml) in [
            ("devicemodel/water/valve", "model/water/valve", MODEL),
            ("device/water/valve", "device/water/valve", DEVICE),
            ("twinpolicy/water/position", "policy/water/position", POLICY),
        ] {
            cloud_ks.put(Key::new(&format!("/c/resource/{cloud}")).unwrap(), json(yaml));
            cloud_ks.put(Key::new(&format!("/e/pump-house/{edge}")).unwrap(), json(yaml));
        }
        let feed = Feed::load(&mut cloud_ks, 1);
        let replica = Replica::load(&mut edge_ks, 2);
        let edge = EdgeTwins::new(edge(), replica.incarnation(), 2);
        let (mapper, device) = Default::default();
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
            device,
            restarts: 2,
        };
        world.restart_cloud();
        world.restart_edge();
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
        let now = self.cloud_now();
        self.cloud
            .set_desired(&valve(), property, Value::Float(value), "ann", &mut self.cloud_ks, now)
            .unwrap();
        self.run();
    }

    fn say(&mut self, topic: &str, payload: &str) {
        let now = self.edge_now();
        let topic = Topic::new(topic).unwrap();
        self.edge.handle_publish(None, &topic, (payload.as_bytes(), None), &mut self.edge_ks, now);
        self.run();
    }

    /// The mapper carries out what it was asked for and reports what it reads.
    fn mapper_works(&mut self, outcome: Outcome) {
        while let Some(request) = self.mapper.pop_front() {
            let WriteRequest { id, device, property, value, .. } = request;
            let result =
                WriteResult { id, device, property: property.clone(), outcome, detail: String::new() };
            self.say("mapper/virtual/result", &serde_json::to_string(&result).unwrap());
            if outcome == Outcome::Succeeded {
                self.say(&format!("twin/water/valve/report/{property}"), &value.to_string());
                self.device.insert(property, value);
            }
        }
    }

    fn pass(&mut self, by: Duration) {
        let end = self.ms + by.as_millis() as u64;
        while self.ms < end {
            let timeouts = [self.feed.poll_timeout(), self.replica.poll_timeout(), self.edge.poll_timeout()];
            let next = timeouts.into_iter().flatten().map(|(at, _)| at.0.div_ceil(1000)).min();
            self.ms = next.unwrap_or(end).clamp(self.ms + 1, end);
            let (cloud, edge) = (self.cloud_now(), self.edge_now());
            self.feed.handle_timeout(&self.cloud_ks, cloud);
            self.replica.handle_timeout(&self.edge_ks, edge);
            self.edge.handle_timeout(&mut self.edge_ks, edge);
            self.run();
        }
    }

    /// Until nobody has anything to say.
    fn run(&mut self) {
        while self.run_edge() | self.run_cloud() {}
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
                ReplicaOutput::Send { .. } | ReplicaOutput::Resynced => {}
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
            self.mapper.push_back(serde_json::from_slice(&publish.payload).unwrap());
        }
    }

    fn run_cloud(&mut self) -> bool {
        let mut moved = false;
        while let Some(output) = self.cloud.poll_output() {
            moved = true;
            assert!(matches!(output, FromCloud::Publish(_) | FromCloud::Audit(_)), "{output:?}");
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

    /// One half's view without what is its own affair.
    fn said(views: Vec<TwinView>) -> Vec<TwinView> {
        views.into_iter().map(|view| TwinView { age_ms: None, ..view }).collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    SetPoint(u8),
    Position(u8),
    Cut,
    Link,
    RestartEdge,
    RestartCloud,
    Mapper(bool),
    Works(Outcome),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![4 => Just(Outcome::Succeeded), 1 => Just(Outcome::Failed)];
    prop_oneof![
        3 => (0u8..100).prop_map(Step::SetPoint),
        3 => (0u8..100).prop_map(Step::Position),
        2 => Just(Step::Cut),
        3 => Just(Step::Link),
        1 => Just(Step::RestartEdge),
        1 => Just(Step::RestartCloud),
        2 => any::<bool>().prop_map(Step::Mapper),
        3 => outcome.prop_map(Step::Works),
        3 => (0u64..90).prop_map(Step::Pass),
    ]
}

fn perform(world: &mut World, step: &Step) {
    match step {
        Step::SetPoint(value) => world.set("setPoint", f64::from(*value)),
        Step::Position(value) => world.set("position", f64::from(*value)),
        Step::Cut => world.cut(),
        Step::Link => world.link(),
        Step::RestartEdge => world.restart_edge(),
        Step::RestartCloud => world.restart_cloud(),
        Step::Mapper(true) => world.say("mapper/virtual/state", "online"),
        Step::Mapper(false) => world.say("mapper/virtual/state", "offline"),
        Step::Works(outcome) => world.mapper_works(*outcome),
        Step::Pass(seconds) => world.pass(Duration::from_secs(*seconds)),
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn both_halves_agree_in_the_end(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        steps.iter().for_each(|step| perform(&mut world, step));
        heal(&mut world);
        let cloud = World::said(world.cloud.view(&valve(), world.cloud_now()));
        let edge = World::said(world.edge.view(&valve(), world.edge_now()));
        prop_assert_eq!(&cloud, &edge);
        let [position, setting] = &cloud[..] else { panic!("{cloud:?}") };
        prop_assert!(setting.converged, "{setting:?}");
        prop_assert_eq!(&setting.desired.clone(), &world.device.get("setPoint").cloned());
        let answered = position.ack.as_ref().map(|ack| ack.version);
        prop_assert_eq!(answered, position.version, "each wish for an actuator ends, one way or another");
    }
}

#[test]
fn a_command_given_during_an_outage_does_not_move_the_valve_hours_later() {
    let mut world = World::new();
    world.link();
    world.say("mapper/virtual/state", "online");
    world.set("position", 30.0);
    world.mapper_works(Outcome::Succeeded);
    assert_eq!(world.device["position"], Value::Float(30.0));
    world.cut();
    world.set("position", 100.0);
    world.set("setPoint", 3.5);
    world.pass(Duration::from_secs(5 * 3600));
    heal(&mut world);
    assert_eq!(world.device["position"], Value::Float(30.0), "unmoved");
    assert_eq!(world.device["setPoint"], Value::Float(3.5), "a setting arrives late");
    let views = world.cloud.view(&valve(), world.cloud_now());
    let ack = views[0].ack.clone().unwrap();
    assert_eq!((ack.outcome, ack.detail.as_str()), (Outcome::Expired, "5h old; rearm: set it again"));
    world.set("position", 100.0);
    world.mapper_works(Outcome::Succeeded);
    assert_eq!(world.device["position"], Value::Float(100.0));
    assert!(world.cloud.view(&valve(), world.cloud_now()).iter().all(|view| view.converged));
}

#[test]
fn a_device_that_counts_in_bar_has_a_twin_in_kilopascal() {
    let mut world = World::new();
    let model = MODEL.replace(
        "name: setPoint, type: FLOAT",
        "name: setPoint, minimum: '0', maximum: '863', unit: kPa, type: FLOAT",
    );
    let policy = POLICY
        .replace("property: position, actuator: true", "property: setPoint, deviceUnit: bar")
        .replace("name: position", "name: bar");
    for (at_cloud, at_edge, yaml) in [
        ("devicemodel/water/valve", "model/water/valve", model),
        ("twinpolicy/water/bar", "policy/water/bar", policy),
    ] {
        let key = Key::new(&format!("/c/resource/{at_cloud}")).unwrap();
        world.cloud_ks.put(key.clone(), json(&yaml));
        world.cloud_ks.put(Key::new(&format!("/e/pump-house/{at_edge}")).unwrap(), json(&yaml));
        let now = world.cloud_now();
        world.cloud.handle_changed(&[key], &mut world.cloud_ks, now);
    }
    world.run();
    world.link();
    world.say("mapper/virtual/state", "online");
    let (topic, now) = (Topic::new("twin/water/valve/set/setPoint").unwrap(), world.cloud_now());
    world.cloud.handle_mqtt(
        None,
        &topic,
        (br#"{"value": 0.32, "unit": "MPa"}"#, None),
        &mut world.cloud_ks,
        now,
    );
    world.run();
    assert_eq!(world.mapper.front().map(|write| &write.value), Some(&Value::Float(3.2)));
    world.mapper_works(Outcome::Succeeded);
    let views = world.cloud.view(&valve(), world.cloud_now());
    let twin = &views[1];
    let reported = twin.reported.as_ref().map(|sample| &sample.value);
    assert_eq!((twin.unit.as_deref(), reported), (Some("kPa"), Some(&Value::Float(320.0))));
    assert!(twin.converged, "{twin:?}");
    world.say("twin/water/valve/set/setPoint", r#"{"value": 50, "unit": "[psi]"}"#);
    assert_eq!(world.mapper.front().map(|write| &write.value), Some(&Value::Float(3.4473786465842)));
}
