//! The cloud's half: wishes go down by version, what edges say comes up and is kept, and people see both together.
//!
//! The cloud is the authority over desired values: it numbers them (even epochs) and writes each into the keyspace of
//! the edge where the device is bound. It never writes a reported value; it keeps the newest that the device's edge
//! told, and takes nothing from an edge about a device of another.

mod authority;
mod command;
mod desired;
mod former;
mod presence;
mod rules;
mod up;

pub use command::OrderError;
pub use desired::{MAX_GROUP, SetError, Wish, Wishes};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bus::twin::{DesiredVersion, DeviceId, Incarnation, Outcome, ResultBody, TwinTopic};
use bus::{Filter, Mono, Name, Now, Topic};
use bytes::Bytes;
use metadata::{Key, Keyspace};
use minicbor::{Decode, Encode};

use crate::announcement::Announcement;
use crate::gate::access::Who;
use crate::history::audit::{AuditEntry, AuditEvent};
use crate::kubeedge::{self, HwTopic};
use crate::model::{Catalog, Change, Kind, Layout, Property};
use crate::reply::ReplyTo;
use crate::rule::RuleView;
use crate::twin::{
    self, Desired, DesiredBody, DeviceState, PropertyId, Publish, Reported, ReportedBody, Said, Ticket,
    TwinResult, brief,
};
use crate::view::{Gist, TwinView};
use command::Commands;
use rules::Units;

/// Results kept a property: enough to see how the last wishes ended; older ones are forgotten.
pub const RESULTS_KEPT: usize = 8;

/// Who speaks over the cloud's broker and does not say who it is.
const APP: &str = "app";

/// What [`CloudTwins`] wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// To the cloud's own broker, and to sites that asked for the topic.
    Publish(Publish),
    /// To the cloud's own broker alone: the end of a command, for who asked to be told.
    Reply(Announcement),
    Accept(Ticket),
    Reject(Ticket, String),
    /// For the audit.
    Audit(Box<AuditEntry>),
}

/// What went wrong, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Reported values that were not newer than what is known.
    pub repeated: u64,
    /// Entries about devices that are not bound to the edge that sent them.
    pub foreign: u64,
    pub malformed: u64,
}

/// What the cloud keeps of one property.
#[derive(Debug, Clone, PartialEq, Default)]
struct Twin {
    desired: Option<Placed>,
    /// Up to here nothing is wished, in the keyspace of this edge until it has heard of it.
    withdrawn: Option<(Name, DesiredVersion)>,
    /// What is in force at the edge that lies in no keyspace here, as the edge told it: somebody there wished it.
    told: Option<Told>,
    reported: Option<Reported>,
    /// When the reported value came, in this process's life.
    heard: Option<Mono>,
    results: VecDeque<TwinResult>,
}

impl Twin {
    /// What is desired now, and of which edge: the newer of the cloud's wish and what the edge told, unless that was
    /// taken back since.
    fn newest(&self) -> Option<(&Name, &Desired)> {
        let own = self.desired.as_ref().map(|placed| (&placed.edge, &placed.desired));
        let told = self.told.as_ref().map(|told| (&told.edge, &told.desired));
        let newest = own.into_iter().chain(told).max_by_key(|(_, desired)| desired.version);
        let withdrawn = self.withdrawn.as_ref().map(|(_, version)| *version);
        newest.filter(|(_, desired)| Some(desired.version) > withdrawn)
    }

    /// How old a reading is cannot be told here, only that it is no younger than its way and its time tell: what an edge
    /// says after an outage is heard just now. The edge's clock may be wrong; if it is behind, the reading is too old.
    fn age(&self, now: Now) -> Option<Duration> {
        let heard = now.mono.since(self.heard?);
        let sample = self.reported.as_ref().and_then(|reported| reported.sample.as_ref());
        Some(sample.map_or(heard, |sample| heard.max(now.wall.since(sample.time))))
    }

    fn desired(&self) -> Option<&Desired> {
        self.newest().map(|(_, desired)| desired)
    }

    /// What the edge acknowledged last.
    fn acked(&self) -> Option<DesiredVersion> {
        Some(self.reported.as_ref()?.ack.as_ref()?.version)
    }

    /// Whether the edge ever told that it carried `version` out.
    fn was_carried_out(&self, version: DesiredVersion) -> bool {
        let acked = self.reported.as_ref().and_then(|reported| reported.ack.as_ref());
        let told = self.results.iter().any(|r| r.version == Some(version) && r.outcome == Outcome::Succeeded);
        told || acked.is_some_and(|ack| ack.answers(version))
    }
}

/// What an edge told to be in force there without a row of the cloud.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
struct Told {
    #[n(0)]
    edge: Name,
    /// Of the edge's disk: a new one does not know what was told of the old.
    #[n(1)]
    life: Incarnation,
    #[n(2)]
    desired: Desired,
}

/// A desired value and the edge in whose keyspace it lies.
#[derive(Debug, Clone, PartialEq)]
struct Placed {
    edge: Name,
    desired: Desired,
}

/// What manifests make a difference to.
#[derive(Debug, Default)]
struct Touched {
    devices: BTreeSet<DeviceId>,
    rules: BTreeSet<DeviceId>,
}

/// The twins of all edges.
#[derive(Debug, Default)]
pub struct CloudTwins {
    catalog: Catalog,
    twins: BTreeMap<PropertyId, Twin>,
    /// As the devices' edges said last.
    states: BTreeMap<DeviceId, DeviceState>,
    /// Edges that are connected.
    present: BTreeSet<Name>,
    authorities: BTreeMap<DeviceId, authority::Held>,
    commands: Commands,
    /// As the rules' edges said last.
    rules: BTreeMap<DeviceId, RuleView>,
    units: Units,
    stats: Stats,
    outputs: VecDeque<Output>,
}

impl CloudTwins {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes up what the store holds, once at the start, and publishes what is retained.
    pub fn load(&mut self, ks: &mut Keyspace, now: Now) {
        self.load_twins(ks);
        // Also devices that are gone: of a cloud in several replicas, what was reported may be older than the rest.
        let mut devices: BTreeSet<DeviceId> = self.twins.keys().map(|id| id.device.clone()).collect();
        devices.extend(self.states.keys().cloned());
        let mut touched = Touched { devices, rules: self.rules.keys().cloned().collect() };
        for kind in Kind::ALL {
            for (key, json) in entries(ks, kind.prefix(Layout::Cloud)) {
                self.put_manifest(&key, Some(&json), &mut touched);
            }
        }
        former::fold_all_but(|device| self.catalog.device(device).is_some(), ks);
        self.devices_changed(&touched.devices, ks, now);
        self.rules_changed(&touched.rules, ks);
        self.remove_stray_units(ks);
        if let Ok(all) = Filter::new("twin/#") {
            let retained = self.retained(&all);
            self.outputs.extend(retained.into_iter().map(Output::Publish));
        }
    }

    fn load_twins(&mut self, ks: &Keyspace) {
        for (id, reported) in stored(ks, "/c/reported/") {
            self.twins.entry(id).or_default().reported = Some(reported);
        }
        for (id, results) in stored::<Vec<TwinResult>>(ks, "/c/result/") {
            self.twins.entry(id).or_default().results = results.into();
        }
        for (id, told) in stored(ks, "/c/desired/") {
            self.twins.entry(id).or_default().told = Some(told);
        }
        for (key, bytes) in ks.range("/e/") {
            if let Some((id, placed)) = placed(key.as_str(), bytes) {
                self.twins.entry(id).or_default().desired = Some(placed);
            }
            if let Some((id, withdrawn)) = withdrawn(key.as_str(), bytes) {
                self.twins.entry(id).or_default().withdrawn = Some(withdrawn);
            }
            self.load_authority(key.as_str(), bytes);
        }
        self.load_commands(ks);
        self.load_rules(ks);
        for (key, bytes) in ks.range("/c/state/") {
            let device = key.as_str().strip_prefix("/c/state/").and_then(|text| text.parse().ok());
            self.states.extend(device.zip(twin::decode(bytes)));
        }
    }

    /// Manifests under `/c/resource/` changed, by the controller.
    pub fn handle_changed(&mut self, keys: &[Key], ks: &mut Keyspace, now: Now) {
        let mut touched = Touched::default();
        for key in keys {
            let json = ks.get(key.as_str()).cloned();
            self.put_manifest(key, json.as_ref(), &mut touched);
        }
        let Touched { devices, mut rules } = touched;
        self.devices_changed(&devices, ks, now);
        rules.extend(devices.iter().flat_map(|device| self.catalog.rules_about(device)).cloned());
        self.rules_changed(&rules, ks);
        // Another edge may answer for it now.
        devices.iter().for_each(|device| self.publish_state(device));
    }

    fn put_manifest(&mut self, key: &Key, json: Option<&Bytes>, touched: &mut Touched) {
        let Some((kind, id)) = Kind::of_key(Layout::Cloud, key.as_str()) else { return };
        match self.catalog.put(kind, &id, json) {
            Change::Devices(devices) => touched.devices.extend(devices),
            Change::Rule(rule) => touched.rules.extend([rule]),
        }
    }

    fn devices_changed(&mut self, devices: &BTreeSet<DeviceId>, ks: &mut Keyspace, now: Now) {
        for device in devices {
            if self.catalog.device(device).is_none() {
                self.forget(device, ks);
            } else {
                self.follow_authority(device, ks, now);
                self.follow(device, ks);
                self.follow_commands(device, ks, now);
                self.take_manifest_wishes(device, ks, now);
            }
        }
    }

    /// The device is gone: so is what was said of it.
    fn forget(&mut self, device: &DeviceId, ks: &mut Keyspace) {
        self.forget_authority(device, ks);
        for id in self.ids_of(device) {
            self.take_back(&id, ks);
            self.twins.remove(&id);
            for prefix in ["/c/reported/", "/c/result/"] {
                ks.delete(&twin::key(prefix, &id));
            }
            self.clear(&id.reported_topic());
        }
        former::fold(device, ks);
        self.forget_commands(device, ks);
        if self.states.remove(device).is_some() {
            ks.delete(&twin::key("/c/state/", device));
            self.clear(&TwinTopic::State { device: device.clone() });
        }
    }

    /// An empty retained message takes the last one away (MQTT 5.0 §3.3.1.3).
    fn clear(&mut self, topic: &TwinTopic) {
        let topic = topic.topic();
        self.publish(Publish { topic, payload: Bytes::new(), retain: true, expiry: None });
    }

    fn audit(&mut self, device: &DeviceId, property: Option<&str>, event: AuditEvent, now: Now) {
        let (device, property) = (device.clone(), property.map(str::to_owned));
        self.outputs.push_back(Output::Audit(Box::new(AuditEntry { at: now.wall, device, property, event })));
    }

    fn publish(&mut self, publish: Publish) {
        self.outputs.push_back(Output::Publish(publish));
    }

    fn reply(&mut self, reply: Option<&ReplyTo>, body: &ResultBody) {
        self.outputs.extend(reply.and_then(|reply| reply.answer(body)).map(Output::Reply));
    }

    /// A client of the cloud's broker published on a topic under `twin/`: sets and commands are taken here.
    pub fn handle_mqtt(
        &mut self,
        ticket: Option<Ticket>,
        who: &Who,
        topic: &Topic,
        said: Said<'_>,
        ks: &mut Keyspace,
        now: Now,
    ) {
        let done = match TwinTopic::parse(topic) {
            Some(TwinTopic::Set { device, property }) => {
                self.set_from_app(&PropertyId::new(&device, &property), who, said.payload, ks, now)
            }
            Some(TwinTopic::Command { device, name }) => {
                self.order_from_app(&device, &name, who, said, ks, now)
            }
            _ => Err(self.not_for_clouds(topic, said.payload, now)),
        };
        self.outputs.extend(ticket.map(|ticket| match done {
            Ok(()) => Output::Accept(ticket),
            Err(why) => Output::Reject(ticket, why),
        }));
    }

    /// Why a topic means nothing here; a client that speaks KubeEdge's language is told so in its own.
    fn not_for_clouds(&mut self, topic: &Topic, payload: &[u8], now: Now) -> String {
        let Some(topic) = HwTopic::parse(topic.as_str()) else {
            return "in the cloud only set/<property> and command/<name> of a device are taken".to_owned();
        };
        let why = kubeedge::Refused::NotHere;
        if let Some(publish) = kubeedge::refusal(&topic, payload, &why, now) {
            self.publish(publish);
        }
        why.to_string()
    }

    /// A client of the cloud's broker published what the cloud cannot take at present: whoever watches is told.
    pub fn handle_refused(&mut self, topic: &Topic, why: &str) {
        let (device, property) = match TwinTopic::parse(topic) {
            Some(TwinTopic::Set { device, property }) => (device, property),
            Some(TwinTopic::Command { device, .. }) => (device, String::new()),
            _ => return,
        };
        let body = ResultBody { detail: brief(why), ..ResultBody::of(&property, Outcome::Rejected) };
        self.publish(Publish::once(&TwinTopic::Result { device }, &body));
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Every property of every device, for people.
    pub fn views(&self, now: Now) -> Vec<TwinView> {
        self.catalog.devices().flat_map(|(device, _)| self.view(device, now)).collect()
    }

    /// The properties of one device, for people; empty if there is no such device.
    pub fn view(&self, device: &DeviceId, now: Now) -> Vec<TwinView> {
        let Some(info) = self.catalog.device(device) else { return Vec::new() };
        let (nothing, state) = (Twin::default(), self.state(device));
        let authority = self.authority(device).cloned().unwrap_or_default();
        let view = |(name, property): (&Arc<str>, &Arc<Property>)| {
            let id = PropertyId::new(device, name);
            let twin = self.twins.get(&id).unwrap_or(&nothing);
            let age = twin.age(now);
            let view = TwinView::new(&id, property, twin.reported.as_ref(), twin.desired(), age);
            TwinView { state: state.clone(), authority: authority.clone(), ..view }
        };
        info.properties.iter().map(view).collect()
    }

    /// What of that a search asks.
    pub fn gist(&self, device: &DeviceId) -> Gist {
        let mut gist = Gist { online: self.is_online(device), ..Gist::default() };
        let Some(info) = self.catalog.device(device) else { return gist };
        let first = PropertyId::new(device, "");
        for (id, twin) in self.twins.range(first..).take_while(|(id, _)| id.device == *device) {
            if info.properties.contains_key(&id.property) {
                gist.note(twin.desired(), twin.reported.as_ref());
            }
        }
        gist
    }

    /// How the last wishes for a property ended, oldest first.
    pub fn results(&self, id: &PropertyId) -> impl Iterator<Item = &TwinResult> {
        self.twins.get(id).into_iter().flat_map(|twin| &twin.results)
    }

    /// What is retained here under `filter`: replay it to a node or app that newly asked.
    pub fn retained(&self, filter: &Filter) -> Vec<Publish> {
        let mut all = Vec::new();
        for (id, twin) in &self.twins {
            let reported = twin.reported.as_ref().and_then(|reported| ReportedBody::of(reported, None));
            all.extend(reported.map(|body| Publish::retained(&id.reported_topic(), &body)));
            let desired = twin.desired().map(DesiredBody::from);
            all.extend(desired.map(|body| Publish::retained(&id.desired_topic(), &body)));
        }
        for device in self.states.keys() {
            let topic = TwinTopic::State { device: device.clone() };
            all.extend(self.state(device).map(|state| Publish::retained(&topic, &state)));
        }
        all.retain(|publish| filter.matches(&publish.topic));
        all
    }

    fn ids_of(&self, device: &DeviceId) -> Vec<PropertyId> {
        let from = PropertyId::new(device, "");
        self.twins.range(from..).map(|(id, _)| id).take_while(|id| id.device == *device).cloned().collect()
    }
}

fn entries(ks: &Keyspace, prefix: &str) -> Vec<(Key, Bytes)> {
    ks.range(prefix).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn stored<'k, T: Decode<'k, ()>>(ks: &'k Keyspace, prefix: &str) -> impl Iterator<Item = (PropertyId, T)> {
    let prefix_len = prefix.len();
    ks.range(prefix).filter_map(move |(key, bytes)| {
        Some((PropertyId::parse(&key.as_str()[prefix_len..])?, twin::decode(bytes)?))
    })
}

/// `/e/<edge>/desired/<ns>/<device>/<property>`.
fn placed(key: &str, bytes: &[u8]) -> Option<(PropertyId, Placed)> {
    let (edge, rest) = key.strip_prefix("/e/")?.split_once('/')?;
    let id = PropertyId::parse(rest.strip_prefix("desired/")?)?;
    Some((id, Placed { edge: Name::new(edge).ok()?, desired: twin::decode(bytes)? }))
}

/// `/e/<edge>/withdrawn/<ns>/<device>/<property>`.
fn withdrawn(key: &str, bytes: &[u8]) -> Option<(PropertyId, (Name, DesiredVersion))> {
    let (edge, rest) = key.strip_prefix("/e/")?.split_once('/')?;
    let id = PropertyId::parse(rest.strip_prefix("withdrawn/")?)?;
    Some((id, (Name::new(edge).ok()?, twin::decode(bytes)?)))
}

#[cfg(test)]
mod tests;
