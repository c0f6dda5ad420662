//! One edge with a valve (an actuator and a setting) and a pressure sensor, in virtual time.

mod any_order;
mod authority;
mod command;
mod command_once;
mod desired;
mod group;
mod kubeedge;
mod pace;
mod reading;
mod rules;
mod speaker;
mod write;

use std::time::Duration;

use bus::bus::ClockOffset;
use bus::twin::{DesiredVersion, DeviceId, Incarnation, MapperTopic, Outcome, WriteRequest, WriteResult};
use bus::{Mono, Name, Now, Topic, UnixMillis, Value};
use bytes::Bytes;
use metadata::{Key, Keyspace};

use super::{EdgeTwins, Numbers, Output};
use crate::gate::access::Who;
use crate::twin::Said;
use crate::twin::{Desired, PropertyId, Ticket};

const MANIFESTS: [(&str, &str); 8] = [
    ("/m/model/water/valve", "{apiVersion: devices.kubeedge.io/v1beta1, kind: DeviceModel, metadata: {name: valve, namespace: water}, spec: {properties: [
        {name: position, type: FLOAT, accessMode: ReadWrite, minimum: '0', maximum: '100', unit: percent},
        {name: setPoint, type: FLOAT, accessMode: ReadWrite, unit: m}]}}"),
    ("/m/model/water/sensor", "{apiVersion: devices.kubeedge.io/v1beta1, kind: DeviceModel, metadata: {name: sensor, namespace: water}, spec: {properties: [
        {name: pressure, type: FLOAT, accessMode: ReadOnly, unit: bar}]}}"),
    ("/m/device/water/valve", "{apiVersion: devices.kubeedge.io/v1beta1, kind: Device, metadata: {name: valve, namespace: water}, spec: {
        deviceModelRef: {name: valve}, nodeName: pump-house, protocol: {protocolName: virtual, configData: {socket: /run/valve}}}}"),
    ("/m/device/water/junction", "{apiVersion: devices.kubeedge.io/v1beta1, kind: Device, metadata: {name: junction, namespace: water}, spec: {
        deviceModelRef: {name: sensor}, nodeName: pump-house, protocol: {protocolName: virtual}}}"),
    ("/m/device/water/tank", "{apiVersion: devices.kubeedge.io/v1beta1, kind: Device, metadata: {name: tank, namespace: water}, spec: {
        deviceModelRef: {name: sensor}, nodeName: hill, protocol: {protocolName: virtual}}}"),
    ("/m/policy/water/position", "{apiVersion: kubebus.io/v1alpha1, kind: TwinPolicy, metadata: {name: position, namespace: water},
        spec: {model: valve, property: position, actuator: true, desiredMaxAge: 60s, failSafe: 100}}"),
    ("/m/policy/water/pressure", "{apiVersion: kubebus.io/v1alpha1, kind: TwinPolicy, metadata: {name: pressure, namespace: water},
        spec: {model: sensor, property: pressure, maxAge: 10s, deadband: 0.1}}"),
    ("/m/rule/water/other", "{apiVersion: kubebus.io/v1alpha1, kind: Rule, metadata: {name: other, namespace: water}, spec: {
        inputs: {}, output: {device: tank, property: pressure, ttl: 1s}, onUnknown: hold, cases: []}}"),
];

/// Wall clocks: the cloud's is two hours ahead of the edge's.
const EDGE_EPOCH: u64 = 1_000_000_000;
const AHEAD: i64 = 7_200_000;

const SEED: u64 = 5;

fn json(yaml: &str) -> Bytes {
    let value: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
    serde_json::to_vec(&value).unwrap().into()
}

fn id(text: &str) -> PropertyId {
    PropertyId::parse(&format!("water/{text}")).unwrap()
}

fn valve() -> DeviceId {
    id("valve/position").device
}

/// A value that the mapper is asked for, by property.
fn position(value: f64) -> (String, f64) {
    ("position".to_owned(), value)
}

fn set_point(value: f64) -> (String, f64) {
    ("setPoint".to_owned(), value)
}

fn version(seq: u64) -> DesiredVersion {
    DesiredVersion { epoch: 0, seq }
}

struct World {
    twins: EdgeTwins,
    ks: Keyspace,
    ms: u64,
    seen: Vec<Output>,
}

impl World {
    /// Started, with a mapper and the cloud's clock.
    fn new() -> Self {
        let mut world = Self::cold();
        world.mapper("online");
        world.clock(true);
        world.seen.clear();
        world
    }

    /// Just started: no mapper, no clock.
    fn cold() -> Self {
        let mut ks = Keyspace::new();
        // Its disk has been in its place for long.
        ks.put(Key::new(Numbers::KEY).unwrap(), crate::twin::cbor(&1_u64));
        for (key, yaml) in MANIFESTS {
            ks.put(Key::new(key).unwrap(), json(yaml));
        }
        let mut world = Self { twins: fresh(), ks, ms: 0, seen: Vec::new() };
        world.restart();
        world
    }

    fn now(&self) -> Now {
        Now { mono: Mono(self.ms * 1000), wall: UnixMillis(EDGE_EPOCH + self.ms) }
    }

    /// The process ends and begins again; its store stays.
    fn restart(&mut self) {
        self.twins = fresh();
        let now = self.now();
        self.twins.load(&mut self.ks, now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.twins.poll_output() {
            self.seen.push(output);
        }
        self.ks.seal();
    }

    /// Time passes; every timeout is kept.
    fn pass(&mut self, by: Duration) {
        let end = self.ms + by.as_millis() as u64;
        while let Some((at, _)) = self.twins.poll_timeout().filter(|(at, _)| at.0 <= end * 1000) {
            let next = at.0.div_ceil(1000);
            assert!(next >= self.ms, "a timeout lies in the past");
            self.ms = next;
            let now = self.now();
            self.twins.handle_timeout(&mut self.ks, now);
            let later = self.twins.poll_timeout();
            assert!(
                later.is_none_or(|(later, _)| later.0 > self.ms * 1000),
                "{later:?} is not over at {}",
                self.ms
            );
            self.drain();
        }
        self.ms = end;
    }

    fn seconds(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    fn clock(&mut self, up: bool) {
        let estimate = up.then_some(ClockOffset { offset_ms: AHEAD, uncertainty: Duration::ZERO });
        let now = self.now();
        self.twins.handle_clock(estimate, &mut self.ks, now);
        self.drain();
    }

    fn say(&mut self, topic: &str, payload: &str) -> Vec<Output> {
        let (from, now) = (self.seen.len(), self.now());
        let topic = Topic::new(topic).unwrap();
        self.twins.handle_publish(
            Some(Ticket(7)),
            &Who::Anonymous,
            &topic,
            Said::plain(payload.as_bytes()),
            &mut self.ks,
            now,
        );
        self.drain();
        self.seen[from..].to_vec()
    }

    fn mapper(&mut self, state: &str) {
        self.say("mapper/virtual/state", state);
    }

    /// The cloud wishes; the replica brings it here `age` seconds later.
    fn desire(&mut self, property: &str, value: f64, seq: u64, age: u64) {
        let cloud = self.now().wall.shifted(AHEAD).0 - age * 1000;
        let desired = Desired {
            value: Value::Float(value),
            version: version(seq),
            issued: UnixMillis(cloud),
            by: "ann".into(),
            group: None,
        };
        self.put(&format!("/m/desired/water/{property}"), crate::twin::cbor(&desired));
    }

    fn put(&mut self, key: &str, value: Bytes) {
        let key = Key::new(key).unwrap();
        self.ks.put(key.clone(), value);
        self.changed(&key);
    }

    /// Rows that the replica brings as one.
    fn put_all(&mut self, rows: impl IntoIterator<Item = (String, Bytes)>) {
        let mut keys = Vec::new();
        for (key, value) in rows {
            keys.push(Key::new(&key).unwrap());
            self.ks.put(Key::new(&key).unwrap(), value);
        }
        let now = self.now();
        self.twins.handle_changed(&keys, &mut self.ks, now);
        self.drain();
    }

    /// The policy of positions says `more`.
    fn govern(&mut self, more: &str) {
        let policy = MANIFESTS[5].1.replace("failSafe: 100", &format!("failSafe: 100, {more}"));
        self.put("/m/policy/water/position", json(&policy));
    }

    fn changed(&mut self, key: &Key) {
        let now = self.now();
        self.twins.handle_changed(std::slice::from_ref(key), &mut self.ks, now);
        self.drain();
    }

    fn take_back(&mut self, key: &str) {
        let key = Key::new(key).unwrap();
        self.ks.delete(&key);
        self.changed(&key);
    }

    fn answer(&mut self, request: &WriteRequest, outcome: Outcome) {
        let result = WriteResult {
            id: request.id.clone(),
            device: request.device.clone(),
            property: request.property.clone(),
            outcome,
            detail: String::new(),
        };
        self.say("mapper/virtual/result", &serde_json::to_string(&result).unwrap());
    }

    /// The writes since the last look.
    fn writes(&mut self) -> Vec<WriteRequest> {
        let topic = MapperTopic::Write { mapper: Name::new("virtual").unwrap() }.topic();
        let is_write = |output: &Output| {
            let Output::Publish(publish) = output else { return None };
            if publish.topic != topic {
                return None;
            }
            assert!(!publish.retain, "a write is never retained");
            let request: WriteRequest = serde_json::from_slice(&publish.payload).unwrap();
            assert_eq!(publish.expiry.map(|e| crate::twin::millis(e.0)), Some(request.ttl_ms));
            Some(request)
        };
        std::mem::take(&mut self.seen).iter().filter_map(is_write).collect()
    }

    /// Answers all writes since the last look, and gives what they were.
    fn carry_out(&mut self) -> Vec<(String, f64)> {
        let writes = self.writes();
        writes.iter().for_each(|write| self.answer(write, Outcome::Succeeded));
        self.seen.clear();
        writes.into_iter().map(|w| (w.property, w.value.as_f64().unwrap())).collect()
    }

    /// What watchers of the valve were told since the last look at writes: what it is about, outcome and why.
    fn results(&self) -> Vec<String> {
        let results = self.seen.iter().filter_map(|output| {
            let Output::Publish(publish) = output else { return None };
            publish.as_result("water/valve")
        });
        results.collect()
    }

    /// What the cloud was told last under `key`, since the last look at writes.
    fn told<T: for<'b> minicbor::Decode<'b, ()>>(&self, key: &str) -> Option<T> {
        self.seen.iter().rev().find_map(|output| {
            let Output::Up { key: told, payload, .. } = output else { return None };
            if told == key { crate::twin::decode(payload) } else { None }
        })
    }

    fn written(&mut self) -> Vec<(String, f64)> {
        self.writes().into_iter().map(|w| (w.property, w.value.as_f64().unwrap())).collect()
    }

    /// How the newest desired value of a property ended, as the cloud is told.
    fn ack(&self, property: &str) -> Option<(u64, Outcome)> {
        let id = id(property);
        let views = self.twins.view(&id.device, self.now());
        assert_eq!(self.twins.gist(&id.device), crate::view::Gist::of(&views));
        let ack = views.into_iter().find(|view| *view.property == *id.property)?.ack?;
        Some((ack.version.seq, ack.outcome))
    }
}

fn fresh() -> EdgeTwins {
    EdgeTwins::new(Name::new("pump-house").unwrap(), Incarnation(9), SEED)
}

/// The JSON that was published on `topic` last.
fn last(seen: &[Output], topic: &str) -> Option<serde_json::Value> {
    seen.iter().rev().find_map(|output| {
        let Output::Publish(publish) = output else { return None };
        if publish.topic.as_str() == topic { serde_json::from_slice(&publish.payload).ok() } else { None }
    })
}
