//! Devices bound to this edge, their mappers, and whether they can be worked with.

use std::collections::BTreeSet;
use std::time::Duration;

#[cfg(any(test, doc))]
use bus::twin::MapperConfig;
use bus::twin::{DeviceConfig, DeviceId, MapperTopic, Outcome, PropertyConfig};
use bus::{Mono, Name, Now, Quality, UnixMillis};
use bytes::Bytes;
use metadata::Keyspace;

use super::EdgeTwins;
use super::property::{Outstanding, Twin};
use super::reading::REFRESH;
use crate::authority::Authority;
use crate::kubeedge::update::Condition;
use crate::model::{DeviceInfo, Property};
use crate::twin::{self, Availability, DeviceState, PropertyId, Publish, WriteRecord, brief, key, millis};

/// Mappers that are remembered, also before a device names them. A machine runs a handful; beyond this one that no
/// device names is not noted, and counts as away until it says again that it is there.
const MAX_MAPPERS: usize = 256;

/// A mapper's configuration is told at most this often: with a thousand devices it has megabytes, and they come in many
/// batches. Of a change after a while without any the mapper hears at once.
const CONFIG_PAUSE: Duration = Duration::from_millis(500);

/// A device of this edge.
#[derive(Debug, Default)]
pub(super) struct Bound {
    mapper: Option<Name>,
    /// What its mapper says of it, if that is not all well.
    complaint: Option<Complaint>,
    /// As it was last published.
    pub(super) state: Option<DeviceState>,
    pub(super) authority: Authority,
    /// When the authority ends by itself.
    pub(super) hand_back_at: Option<Mono>,
}

/// A device's state in its mapper's words.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Complaint {
    state: Availability,
    word: String,
}

impl Complaint {
    /// KubeEdge's words, in lower case; one that nobody knows is worth a look. `None` if all is well.
    fn of(word: &str) -> Option<Self> {
        let state = match word {
            "online" | "ok" => return None,
            "offline" | "disconnected" => Availability::Offline,
            _ => Availability::Degraded,
        };
        Some(Self { state, word: brief(word) })
    }
}

/// A mapper as this edge knows it.
#[derive(Debug, Default)]
pub(super) struct Mapper {
    online: bool,
    /// It was there once in this process's life: whoever hears deltas of its devices only watches.
    pub(super) has_spoken: bool,
    /// The configuration that was last published to it.
    config: Option<Bytes>,
    config_told: Option<Mono>,
    /// When it hears what changed since; soon.
    config_due: Option<Mono>,
}

impl Mapper {
    /// What it is to know has changed, or may have.
    fn config_changed(&mut self, now: Now) {
        let due = self.config_told.map_or(now.mono, |told| told + CONFIG_PAUSE);
        self.config_due.get_or_insert(due);
    }
}

impl EdgeTwins {
    /// Brings twins, mapper configurations and states in line with the manifests of `ids`.
    pub(super) fn devices_changed(&mut self, ids: &BTreeSet<DeviceId>, ks: &mut Keyspace, now: Now) {
        let mut mappers = BTreeSet::new();
        let mut here = Vec::new();
        for id in ids {
            mappers.extend(self.mapper_of(id).cloned());
            match self.catalog.device(id).filter(|info| info.node.as_ref() == Some(&self.me)).cloned() {
                Some(info) => {
                    if !self.devices.contains_key(id) {
                        self.tell_membership(id, true, now);
                    }
                    self.devices.entry(id.clone()).or_default().mapper.clone_from(&info.mapper);
                    self.authority_changed(id, ks, now);
                    here.push((id, info));
                }
                None => self.unbind(id, ks, now),
            }
            mappers.extend(self.mapper_of(id).cloned());
        }
        for mapper in mappers {
            self.mappers.entry(mapper).or_default().config_changed(now);
        }
        here.iter().for_each(|(id, info)| self.bind(id, info, ks, now));
        self.decide_all(ks, now);
        ids.iter().for_each(|id| self.update_state(id));
    }

    fn bind(&mut self, device: &DeviceId, info: &DeviceInfo, ks: &mut Keyspace, now: Now) {
        for id in self.ids_of(device) {
            if info.properties.contains_key(&id.property) {
                self.reschedule(&id);
            } else {
                self.drop_twin(&id, ks);
            }
        }
        for (name, property) in &info.properties {
            let id = PropertyId::new(device, name);
            if !self.twins.contains_key(&id) {
                self.add_twin(&id, property, ks, now);
            }
        }
    }

    fn unbind(&mut self, device: &DeviceId, ks: &mut Keyspace, now: Now) {
        self.ids_of(device).iter().for_each(|id| self.drop_twin(id, ks));
        self.drop_commands(device, ks);
        ks.delete(&key("/t/authority/", device));
        if let Some(bound) = self.devices.remove(device) {
            bound.hand_back_at.map(|at| self.device_timers.remove(&(at, device.clone())));
            let topic = bus::twin::TwinTopic::State { device: device.clone() };
            self.clear(topic.topic());
            self.tell_membership(device, false, now);
        }
        self.kubeedge.forget(device);
    }

    fn add_twin(&mut self, id: &PropertyId, property: &Property, ks: &mut Keyspace, now: Now) {
        let mut twin = Twin::load(id, ks);
        twin.recall_setting(property, id, ks);
        if let Some(reported) = &twin.reported {
            self.outputs.seen(id, reported, None);
        }
        if let Some(desired) = &twin.desired {
            self.outputs.desired(id, desired);
        }
        twin.recall_pace(property, read_record(id, ks).as_ref(), now);
        self.twins.insert(id.clone(), Box::new(twin));
        self.end_interrupted_write(id, ks, now);
        self.end_undone_wish(id, ks, now);
        self.tell_ack_again(id, ks, now);
        self.desired_changed(id, ks, now);
        self.withdrawn_changed(id, ks, now);
        self.reschedule(id);
    }

    /// A write was under way when the last process ended: whether it happened can only be read from the device.
    fn end_interrupted_write(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        let record = read_record(id, ks).filter(|record| record.outcome.is_none());
        if let (Some(record), Some(twin)) = (record, self.twins.get_mut(id)) {
            let (who, deadline) = (None, now.mono);
            twin.write = Some(Box::new(Outstanding { record, who, deadline, is_step: false }));
            self.finish_write(id, Outcome::Unknown, "the node restarted in mid-write", ks, now);
        }
    }

    /// What was decided on stays in the store, so that a device that comes back does not see an old version as new.
    fn drop_twin(&mut self, id: &PropertyId, ks: &mut Keyspace) {
        let Some(twin) = self.twins.remove(id) else { return };
        twin.due.map(|at| self.timers.remove(&(at, id.clone())));
        for prefix in ["/t/reported/", "/t/write/", "/t/own/"] {
            ks.delete(&key(prefix, id));
        }
        self.clear(id.reported_topic().topic());
        self.clear(id.desired_topic().topic());
    }

    /// An empty retained message takes the last one away (MQTT 5.0 §3.3.1.3).
    pub(super) fn clear(&mut self, topic: bus::Topic) {
        self.outputs.publish(Publish { topic, payload: Bytes::new(), retain: true, expiry: None });
    }

    /// What rules look at has changed, and with it which readings a mapper may keep to itself.
    pub(super) fn configs_changed(&mut self, now: Now) {
        let told = self.mappers.values_mut().filter(|mapper| mapper.config.is_some());
        told.for_each(|mapper| mapper.config_changed(now));
    }

    pub(super) fn next_config(&self) -> Option<Mono> {
        self.mappers.values().filter_map(|mapper| mapper.config_due).min()
    }

    pub(super) fn configs_due(&mut self, now: Now) {
        let is_due = |mapper: &Mapper| mapper.config_due.is_some_and(|at| at <= now.mono);
        let due = self.mappers.iter().filter(|(_, mapper)| is_due(mapper));
        let names: Vec<_> = due.map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.tell_config(name, now));
    }

    /// A mapper hears of a device, and of a range, before it is asked to write: what has changed for it is told now.
    pub(super) fn tell_config(&mut self, name: &Name, now: Now) {
        let Some(mapper) = self.mappers.get_mut(name) else { return };
        if mapper.config_due.take().is_none() {
            return;
        }
        let room = mapper.config.as_ref().map_or(0, Bytes::len);
        let served = self.devices.iter().filter(|(_, bound)| bound.mapper.as_ref() == Some(name));
        let configs = served.filter_map(|(id, _)| Some(self.device_config(id, self.catalog.device(id)?)));
        let config = mapper_config(configs, room);
        let Some(mapper) = self.mappers.get_mut(name) else { return };
        mapper.config_told = Some(now.mono);
        if mapper.config.as_ref() != Some(&config) {
            mapper.config = Some(config.clone());
            let topic = MapperTopic::Config { mapper: name.clone() }.topic();
            self.outputs.publish(Publish { topic, payload: config, retain: true, expiry: None });
        }
    }

    fn device_config(&self, id: &DeviceId, info: &DeviceInfo) -> DeviceConfig {
        let properties = info.properties.iter().map(|(name, property)| {
            let is_watched = self.rules.read_reported(&PropertyId::new(id, name));
            property_config(name, property, is_watched)
        });
        let connection = info.connection.clone();
        DeviceConfig { device: id.clone(), connection, properties: properties.collect() }
    }

    pub(super) fn is_online(&self, device: &DeviceId) -> bool {
        self.has_own_mapper(device) || self.is_served_by_delta(device)
    }

    /// Whether a mapper is there that speaks our topics.
    pub(super) fn has_own_mapper(&self, device: &DeviceId) -> bool {
        let mapper = self.mapper_of(device).and_then(|name| self.mappers.get(name));
        mapper.is_some_and(|mapper| mapper.online)
    }

    pub(super) fn mapper_of(&self, device: &DeviceId) -> Option<&Name> {
        self.devices.get(device)?.mapper.as_ref()
    }

    /// A mapper came or went.
    pub(super) fn mapper_state(&mut self, name: &Name, online: bool, ks: &mut Keyspace, now: Now) {
        if self.mappers.len() >= MAX_MAPPERS && !self.mappers.contains_key(name) {
            return;
        }
        let mapper = self.mappers.entry(name.clone()).or_default();
        mapper.has_spoken |= online;
        if std::mem::replace(&mut mapper.online, online) == online {
            return;
        }
        let served = self.devices.iter().filter(|(_, bound)| bound.mapper.as_ref() == Some(name));
        let devices: Vec<DeviceId> = served.map(|(id, _)| id.clone()).collect();
        for device in &devices {
            self.devices.entry(device.clone()).and_modify(|bound| bound.complaint = None);
            self.device_reachable(device, online, ks, now);
        }
    }

    /// A device's mapper came or went.
    pub(super) fn device_reachable(&mut self, device: &DeviceId, online: bool, ks: &mut Keyspace, now: Now) {
        if online {
            self.rules.settle(device);
        }
        for id in self.ids_of(device) {
            if online {
                self.mapper_came(&id, ks, now)
            } else {
                self.mapper_went(&id, ks, now)
            }
            self.reschedule(&id);
        }
        self.update_state(device);
    }

    /// A mapper says how a device is, as KubeEdge's do: `online`, `ok`, `offline`, `unhealthy`, `unknown`. Until it says
    /// something else, or goes.
    ///
    /// # Errors
    /// The device is none of this edge's.
    pub fn handle_device_state(&mut self, device: &DeviceId, word: &str) -> Result<(), String> {
        let Some(bound) = self.devices.get_mut(device) else {
            return Err(format!("device {device} is not of this edge"));
        };
        bound.complaint = Complaint::of(word);
        self.update_state(device);
        Ok(())
    }

    /// A setting that the device does not have yet is delivered; an actuator is left as it is.
    fn mapper_came(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        if let Some(twin) = self.twins.get_mut(id).filter(|twin| twin.is_bad()) {
            twin.seen = None;
        }
        if self.is_setting(id) {
            self.arbitrate(id, super::write::Decision::Fresh, ks, now);
        }
    }

    pub(super) fn is_setting(&self, id: &PropertyId) -> bool {
        self.property(id).is_some_and(|property| !property.policy.actuator)
    }

    fn mapper_went(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        self.finish_write(id, Outcome::Unknown, "the mapper went away in mid-write", ks, now);
        let is_setting = self.is_setting(id);
        if let Some(twin) = self.twins.get_mut(id).filter(|_| !is_setting) {
            twin.spoken = None;
        }
        self.mark_bad(id, ks, now);
    }

    /// Publishes the device's state if it is another than before.
    pub(super) fn update_state(&mut self, device: &DeviceId) {
        let state = self.state_of(device);
        let Some(bound) = self.devices.get_mut(device) else { return };
        if bound.state.as_ref().is_none_or(|known| !known.is_same(&state)) {
            self.outputs.state(device, &state);
            bound.state = Some(state);
        }
    }

    fn state_of(&self, device: &DeviceId) -> DeviceState {
        let last_seen = self.last_seen(device);
        let is = |state, reason: String| DeviceState { state, reason, last_seen };
        let said = self.kubeedge.condition(device);
        if let Some((Condition::Away, word)) = said {
            return is(Availability::Offline, format!("its mapper says '{word}'"));
        }
        if said.is_none() && !self.is_online(device) {
            let reason = match self.mapper_of(device) {
                Some(mapper) => format!("mapper {mapper} is not connected"),
                None => "spec.protocol.protocolName names no mapper".to_owned(),
            };
            return is(Availability::Offline, reason);
        }
        if let Some(problem) = self.catalog.device(device).and_then(|info| info.problem.clone()) {
            return is(Availability::Degraded, problem);
        }
        if let Some((Condition::Unwell, word)) = said {
            return is(Availability::Degraded, format!("its mapper says '{word}'"));
        }
        if let Some(Complaint { state, word }) =
            self.devices.get(device).and_then(|bound| bound.complaint.clone())
        {
            return is(state, format!("its mapper says: {word}"));
        }
        let silent: Vec<String> = self
            .ids_of(device)
            .into_iter()
            .filter(|id| self.is_silent(id))
            .map(|id| id.property.to_string())
            .collect();
        if silent.is_empty() {
            is(Availability::Online, String::new())
        } else {
            is(Availability::Degraded, format!("not heard of: {}", silent.join(", ")))
        }
    }

    /// When the device was last read.
    pub(super) fn last_seen(&self, device: &DeviceId) -> Option<UnixMillis> {
        let from = PropertyId::new(device, "");
        let twins = self.twins.range(from..).take_while(|(id, _)| id.device == *device);
        twins.filter_map(|(_, twin)| twin.latest().map(|sample| sample.time)).max()
    }

    /// Bad, or never reported although it should be.
    fn is_silent(&self, id: &PropertyId) -> bool {
        let expected = self.property(id).is_some_and(|property| property.policy.max_age.is_some());
        let sample = self.twins.get(id).and_then(|twin| twin.reported.as_ref()?.sample.as_ref());
        sample.map_or(expected, |sample| sample.quality == Quality::Bad)
    }
}

/// The last write of a property.
pub(super) fn read_record(id: &PropertyId, ks: &Keyspace) -> Option<WriteRecord> {
    twin::decode(ks.get(&format!("/t/write/{id}"))?)
}

/// The JSON of a [`MapperConfig`], device by device: thousands of them at once would take several times their text, of
/// `expected` bytes about.
fn mapper_config(devices: impl Iterator<Item = DeviceConfig>, expected: usize) -> Bytes {
    let mut text = Vec::with_capacity(expected);
    text.extend_from_slice(br#"{"devices":["#);
    for (number, device) in devices.enumerate() {
        if number > 0 {
            text.push(b',');
        }
        text.extend_from_slice(&twin::json(&device));
    }
    text.extend_from_slice(b"]}");
    twin::exact(text)
}

/// Rules see each reading: of what they look at, the mapper keeps none to itself.
fn property_config(name: &str, property: &Property, is_watched: bool) -> PropertyConfig {
    let (minimum, maximum) = property.device_range();
    let deadband = property.device_deadband().filter(|_| !is_watched);
    PropertyConfig {
        name: name.to_owned(),
        value_type: property.value_type,
        writable: property.writable,
        address: property.address.clone(),
        poll_ms: millis(property.poll),
        minimum,
        maximum,
        unit: property.device_unit().map(str::to_owned),
        deadband,
        max_age_ms: deadband.map(|_| millis(mapper_max_age(property.policy.max_age))),
    }
}

/// A mapper says what stays at least each third of this: twice as often as this edge passes it on, so that nothing here
/// or elsewhere is older than without a deadband.
fn mapper_max_age(max_age: Option<Duration>) -> Duration {
    max_age.unwrap_or(REFRESH * 3) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_made_device_by_device_is_a_mapper_config() {
        let named = |name: &str| DeviceConfig {
            device: DeviceId { namespace: Name::new("plant").unwrap(), name: Name::new(name).unwrap() },
            connection: Default::default(),
            properties: vec![],
        };
        for devices in [vec![], vec![named("a")], vec![named("a"), named("b")]] {
            let json = mapper_config(devices.clone().into_iter(), 0);
            assert_eq!(json, twin::json(&MapperConfig { devices }));
        }
    }
}
