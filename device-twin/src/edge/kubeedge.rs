//! KubeEdge's topics on the twins of this edge: see [`crate::kubeedge`].

use std::collections::BTreeMap;

use bus::twin::{DeviceId, Outcome, ReportBody};
use bus::{Filter, Now, UnixMillis, Value};
use metadata::Keyspace;

use super::device::read_record;
use super::{EdgeTwins, WRITE_TTL};
use crate::arbiter::{Effective, Slot};
use crate::kubeedge::update::{self, Change, Condition, Dated, Shown, Wish};
use crate::kubeedge::wire::{self, MsgTwin};
use crate::kubeedge::{Address, HwTopic, Listeners, NodeVerb, Refused, Verb, fresh_event_id, say};
use crate::model::Property;
use crate::twin::{Availability, Expiry, PropertyId, Publish};

/// Who wishes by way of KubeEdge's topics, as long as clients have no names there.
const KUBEEDGE_APP: &str = "KubeEdge app";

/// What an edge keeps for clients that speak KubeEdge's language.
#[derive(Debug, Default)]
pub(super) struct KubeEdge {
    listeners: Listeners,
    /// What mappers said of their devices, of this edge's only.
    said: BTreeMap<DeviceId, Said>,
    /// Devices whose delta may be another one, until all other outputs of this input are said.
    touched: BTreeMap<DeviceId, Touched>,
    /// Messages that answer none, for their names.
    messages: u64,
}

#[derive(Debug)]
struct Said {
    condition: Condition,
    /// In the sender's words.
    text: String,
    at: UnixMillis,
}

#[derive(Debug)]
struct Touched {
    now: Now,
    /// Whose update it was: it hears the delta whether its subscription is known yet or not.
    asked: Option<Address>,
}

impl KubeEdge {
    /// What is expected of the device or where it stands may have changed. Costs nothing while nobody listens.
    pub(super) fn touch(&mut self, device: &DeviceId, now: Now) {
        if !self.listeners.is_empty() && !self.touched.contains_key(device) {
            self.touched.insert(device.clone(), Touched { now, asked: None });
        }
    }

    pub(super) fn forget(&mut self, device: &DeviceId) {
        self.said.remove(device);
        self.touched.remove(device);
    }

    /// What its mapper said last of the device, and how that is to be taken.
    pub(super) fn condition(&self, device: &DeviceId) -> Option<(Condition, &str)> {
        self.said.get(device).map(|said| (said.condition, said.text.as_str()))
    }

    fn next_event_id(&mut self, seed: u64) -> String {
        self.messages += 1;
        fresh_event_id(seed, self.messages)
    }
}

impl EdgeTwins {
    /// The first local subscriber of a filter below `$hw/` came, or its last one left. Whoever hears one device's delta
    /// by name is its mapper.
    pub fn handle_interest(&mut self, filter: &Filter, wanted: bool, ks: &mut Keyspace, now: Now) {
        let device = Listeners::device_of(filter).filter(|device| self.devices.contains_key(device));
        let was_online = device.as_ref().is_some_and(|device| self.is_online(device));
        self.kubeedge.listeners.change(filter, wanted);
        let Some(device) = device else { return };
        let is_online = self.is_online(&device);
        if is_online != was_online {
            if !is_online {
                // Whoever said how the device is has gone.
                self.kubeedge.said.remove(&device);
            }
            self.device_reachable(&device, is_online, ks, now);
        }
    }

    /// Whether the device's mapper is one that hears deltas. One that speaks our own topics goes before it.
    pub(super) fn is_served_by_delta(&self, device: &DeviceId) -> bool {
        let own = self.mapper_of(device).and_then(|name| self.mappers.get(name));
        self.kubeedge.listeners.serve(device) && !own.is_some_and(|mapper| mapper.has_spoken)
    }

    /// A client spoke on one of KubeEdge's topics. It is answered there, whatever it said.
    pub(super) fn kubeedge_said(
        &mut self,
        topic: &HwTopic,
        payload: &[u8],
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<(), String> {
        let done = match topic {
            HwTopic::Device(address, Verb::TwinUpdate) => self.twin_update(address, payload, ks, now),
            HwTopic::Device(address, Verb::TwinGet) => self.twin_get(topic, address, payload, now),
            HwTopic::Device(address, Verb::StateUpdate) => self.state_update(topic, address, payload, now),
            HwTopic::Node(_, NodeVerb::MembershipGet) => self.membership_get(payload, now),
            HwTopic::Device(..) | HwTopic::Node(..) => return Err("only nodes publish here".to_owned()),
        };
        done.map_err(|why| {
            let here = self.named_by_us(topic);
            if let Some(publish) = crate::kubeedge::refusal(&here, payload, &why, now) {
                self.outputs.publish(publish);
            }
            why.to_string()
        })
    }

    /// Of a node's topics this node's are meant, whatever name the client wrote.
    fn named_by_us(&self, topic: &HwTopic) -> HwTopic {
        match topic {
            HwTopic::Node(_, verb) => HwTopic::Node(self.me.as_str().into(), *verb),
            HwTopic::Device(..) => topic.clone(),
        }
    }

    /// The device of this edge that a client means.
    fn device_at(&self, address: &Address) -> Option<DeviceId> {
        address.device().filter(|device| self.devices.contains_key(device))
    }

    /// All that a message says is taken, or nothing of it; but where a rule acts on a reading in it and so holds back a wish
    /// in it, the readings stay.
    fn twin_update(
        &mut self,
        address: &Address,
        payload: &[u8],
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<(), Refused> {
        let mut request: wire::TwinUpdate = update::read(payload).map_err(Refused::Update)?;
        let event_id = request.event_id.take().unwrap_or_default();
        if request.twin.is_none() {
            return Err(Refused::NoTwin);
        }
        let device = self.device_at(address).ok_or(Refused::NoDevice)?;
        let info = self.catalog.device(&device).ok_or(Refused::NoDevice)?;
        let echoes = |name: &str| self.was_asked(&PropertyId::new(&device, name), ks);
        let changes = update::check(request, info, echoes)?;
        let ids: Vec<PropertyId> = changes.iter().map(|c| PropertyId::new(&device, &c.property)).collect();
        changes.iter().zip(&ids).try_for_each(|(change, id)| self.check_free(id, change, now))?;
        let last: Vec<Option<MsgTwin>> = ids.iter().map(|id| self.known(id, now)).collect();
        for (change, id) in changes.iter().zip(&ids) {
            self.take_change(id, change, ks, now)?;
        }
        self.tell_result(address, &event_id, &changes, &ids, now);
        self.tell_document(address, event_id, last, &ids, now);
        self.kubeedge.touched.insert(device, Touched { now, asked: Some(address.clone()) });
        Ok(())
    }

    /// Whether a mapper may know an `expected` of this property: from then on one beside an `actual` is what it was told.
    /// Of an actuator it never is a wish: a node that lost its disk must not move it by what a mapper remembers.
    fn was_asked(&self, id: &PropertyId, ks: &Keyspace) -> bool {
        let Some(twin) = self.twins.get(id) else { return true };
        let is_actuator = self.property(id).is_some_and(|property| property.policy.actuator);
        is_actuator
            || twin.was_asked
            || twin.desired.is_some()
            || twin.handled.is_some()
            || read_record(id, ks).is_some()
    }

    /// What would end a wish for an actuator at once is said before anything of the message is taken.
    fn check_free(&self, id: &PropertyId, change: &Change, now: Now) -> Result<(), Refused> {
        let Some(Wish::Set(_)) = &change.wish else { return Ok(()) };
        let held = |detail: String| Err(Refused::Held { property: change.property.clone(), detail });
        let Some(twin) = self.twins.get(id) else { return Ok(()) };
        if let Some((slot, owner)) = twin.masked_by(Slot::LOCAL_OPERATOR, now.mono) {
            return held(format!("{slot} ({owner}) holds it"));
        }
        if !self.is_setting(id) && !self.is_online(&id.device) {
            return held("the device is offline; set it again".to_owned());
        }
        Ok(())
    }

    fn take_change(
        &mut self,
        id: &PropertyId,
        change: &Change,
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<(), Refused> {
        let Ok(property) = self.catalog.property(&id.device, &id.property) else {
            return Err(Refused::NoDevice);
        };
        let held = |detail| Refused::Held { property: change.property.clone(), detail };
        let read = change.actual.as_ref().map(|given| property.from_device(given.value.clone()));
        let wish = change.wish.as_ref().map(|wish| match wish {
            Wish::Set(given) => Some(property.from_device(given.value.clone())),
            Wish::LetGo => None,
        });
        if let (Some(given), Some(read)) = (&change.actual, read) {
            self.report(id, ReportBody::Bare(given.value.clone()), ks, now).map_err(held)?;
            self.confirm_by_reading(id, &read, ks, now);
        }
        match wish {
            Some(Some(value)) => self.set(id, value, KUBEEDGE_APP, ks, now).map(drop).map_err(held),
            Some(None) => self.unset(id, ks, now).map_err(held),
            None => Ok(()),
        }
    }

    /// KubeEdge's mappers answer no write: that the device is where it was asked to be is the answer.
    fn confirm_by_reading(&mut self, id: &PropertyId, read: &Value, ks: &mut Keyspace, now: Now) {
        if !self.is_served_by_delta(&id.device) {
            return;
        }
        let (Some(property), Some(twin)) = (self.property(id), self.twins.get(id)) else { return };
        if twin.write.as_ref().is_some_and(|write| property.is_unchanged(&write.record.value, read)) {
            self.finish_write(id, Outcome::Succeeded, "", ks, now);
        }
    }

    fn tell_result(
        &mut self,
        address: &Address,
        event_id: &str,
        changes: &[Change],
        ids: &[PropertyId],
        now: Now,
    ) {
        let taken = changes.iter().zip(ids).filter_map(|(change, id)| {
            let taken = update::taken(self.property(id)?, change, now.wall);
            Some((change.property.clone(), Some(taken)))
        });
        let body =
            wire::TwinResult { event_id: event_id.to_owned(), timestamp: now.wall, twin: taken.collect() };
        self.outputs.publish(say(&HwTopic::Device(address.clone(), Verb::TwinUpdateResult), &body));
    }

    fn tell_document(
        &mut self,
        address: &Address,
        event_id: String,
        last: Vec<Option<MsgTwin>>,
        ids: &[PropertyId],
        now: Now,
    ) {
        if ids.is_empty() {
            return;
        }
        let both = ids.iter().zip(last).map(|(id, last)| {
            (id.property.to_string(), wire::LastAndCurrent { last, current: self.known(id, now) })
        });
        let body = wire::TwinDocument { event_id, timestamp: now.wall, twin: both.collect() };
        let Some(device) = address.device() else { return };
        for topic in self.heard_on(&device, Verb::TwinUpdateDocument, Some(address)) {
            self.outputs.publish(say(&topic, &body));
        }
    }

    /// The topics on which somebody hears `verb` of a device, in each form; that of whoever `asked` is one of them.
    fn heard_on(&self, device: &DeviceId, verb: Verb, asked: Option<&Address>) -> Vec<HwTopic> {
        let topic = |address| HwTopic::Device(address, verb);
        let is_heard = |address: &Address| {
            asked == Some(address) || self.kubeedge.listeners.wants(&topic(address.clone()).topic())
        };
        Address::forms(device).filter(is_heard).map(topic).collect()
    }

    /// What is left to be said when all else of an input is: the deltas of the devices that it touched.
    pub(super) fn tell_deltas(&mut self) {
        for (device, Touched { now, asked }) in std::mem::take(&mut self.kubeedge.touched) {
            let topics = self.heard_on(&device, Verb::TwinUpdateDelta, asked.as_ref());
            if topics.is_empty() {
                continue;
            }
            let Some((twin, delta)) = update::delta(self.shown_of(&device, now)) else { continue };
            let event_id = self.kubeedge.next_event_id(self.seed);
            let body = wire::TwinDelta { event_id, timestamp: now.wall, twin, delta };
            for topic in topics {
                // A mapper acts on it: it must not get it when it is over.
                let expiry = Some(Expiry(WRITE_TTL));
                self.outputs.publish(Publish { expiry, ..say(&topic, &body) });
            }
        }
    }

    fn twin_get(
        &mut self,
        topic: &HwTopic,
        address: &Address,
        payload: &[u8],
        now: Now,
    ) -> Result<(), Refused> {
        let request: wire::BaseMessage = update::read(payload).map_err(Refused::Get)?;
        let device = self.device_at(address).ok_or_else(|| Refused::NotFound(address.id()))?;
        let body = wire::TwinResult {
            event_id: request.event_id.unwrap_or_default(),
            timestamp: now.wall,
            twin: update::all(self.shown_of(&device, now)),
        };
        self.answer(topic, &body);
        Ok(())
    }

    fn answer(&mut self, topic: &HwTopic, body: &impl serde::Serialize) {
        if let Some(answer) = topic.answer() {
            self.outputs.publish(say(&answer, body));
        }
    }

    fn state_update(
        &mut self,
        topic: &HwTopic,
        address: &Address,
        payload: &[u8],
        now: Now,
    ) -> Result<(), Refused> {
        let request: wire::StateUpdate = update::read(payload).map_err(Refused::Update)?;
        let device = self.device_at(address).ok_or(Refused::NoDevice)?;
        let text = request.state.unwrap_or_default();
        let condition = Condition::parse(&text).ok_or_else(|| Refused::State(crate::twin::brief(&text)))?;
        let said = Said { condition, text: text.clone(), at: now.wall };
        let last_online_time = said.last_online();
        self.kubeedge.said.insert(device.clone(), said);
        let name = device.name.to_string();
        let event_id = self.kubeedge.next_event_id(self.seed);
        let device_said = wire::StateDevice { name, state: text, last_online_time };
        self.answer(topic, &wire::StateResult { event_id, timestamp: now.wall, device: device_said });
        self.update_state(&device);
        Ok(())
    }

    fn membership_get(&mut self, payload: &[u8], now: Now) -> Result<(), Refused> {
        let request: wire::BaseMessage = update::read(payload).map_err(Refused::Membership)?;
        let body = wire::MembershipGetResult {
            event_id: request.event_id.unwrap_or_default(),
            timestamp: now.wall,
            devices: self.devices.keys().map(|device| self.member(device)).collect(),
        };
        let topic = HwTopic::Node(self.me.as_str().into(), NodeVerb::MembershipGetResult);
        self.outputs.publish(say(&topic, &body));
        Ok(())
    }

    /// A device in KubeEdge's words: its mapper's own, if it said any.
    fn member(&self, device: &DeviceId) -> wire::Device {
        let bound = self.devices.get(device).and_then(|bound| bound.state.as_ref());
        let availability = bound.map(|state| state.state).unwrap_or_default();
        let seen = || self.last_seen(device).filter(|_| availability == Availability::Online);
        let (state, last_online) = match self.kubeedge.said.get(device) {
            Some(said) => (said.text.clone(), said.last_online()),
            None => (in_their_words(availability).to_owned(), seen().map(update::rfc3339)),
        };
        let state = Some(state);
        wire::Device { state, last_online, ..named(device) }
    }

    /// A device was bound to this node, or taken from it.
    pub(super) fn tell_membership(&mut self, device: &DeviceId, is_added: bool, now: Now) {
        let topic = HwTopic::Node(self.me.as_str().into(), NodeVerb::MembershipUpdated);
        if !self.kubeedge.listeners.wants(&topic.topic()) {
            return;
        }
        let event_id = self.kubeedge.next_event_id(self.seed);
        let devices = |wanted: bool| (wanted == is_added).then(|| vec![named(device)]);
        let body = wire::MembershipUpdate {
            event_id,
            timestamp: now.wall,
            added_devices: devices(true),
            removed_devices: devices(false),
        };
        self.outputs.publish(say(&topic, &body));
    }

    /// The properties of a device as messages show them.
    fn shown_of(&self, device: &DeviceId, now: Now) -> impl Iterator<Item = (&str, &Property, Shown)> {
        let from = PropertyId::new(device, "");
        let device = device.clone();
        let twins = self.twins.range(from..).take_while(move |(id, _)| id.device == device);
        twins.filter_map(move |(id, _)| Some((&*id.property, self.property(id)?, self.shown(id, now))))
    }

    /// A property as a document has it; `None` while nothing is known of it.
    fn known(&self, id: &PropertyId, now: Now) -> Option<MsgTwin> {
        let shown = self.shown(id, now);
        if shown.is_empty() { None } else { Some(update::show(self.property(id)?, &shown)) }
    }

    fn shown(&self, id: &PropertyId, now: Now) -> Shown {
        let (Some(property), Some(twin)) = (self.property(id), self.twins.get(id)) else {
            return Shown::default();
        };
        let actual = twin.latest().map(|sample| (sample.value.clone(), Some(sample.time)));
        // A mapper that hears deltas is asked for just what a write is under way for.
        if let Some(write) = twin.write.as_ref().filter(|_| self.is_served_by_delta(&id.device)) {
            let expected = Some((write.record.value.clone(), Some(write.record.sent)));
            return Shown { expected, actual, is_asked: true };
        }
        let shown = Shown { expected: self.held(id, now), actual, is_asked: false };
        // What still holds its slot, and is not asked for at present, is not for a mapper that starts.
        let is_for_all = !property.policy.actuator || self.has_own_mapper(&id.device);
        if is_for_all || !shown.differs(property) { shown } else { Shown { expected: None, ..shown } }
    }

    /// What the strongest slot says. Not the fail-safe value, which a start must not bring about, and not a wish that is
    /// over.
    fn held(&self, id: &PropertyId, now: Now) -> Option<Dated> {
        let twin = self.twins.get(id)?;
        let Effective::Slot(_, entry) = twin.slots.effective(None, now.mono)? else { return None };
        Some((entry.value.clone(), entry.owner.since))
    }
}

impl Said {
    /// KubeEdge knows it only while the device is there.
    fn last_online(&self) -> Option<String> {
        (self.condition == Condition::There).then(|| update::rfc3339(self.at))
    }
}

fn named(device: &DeviceId) -> wire::Device {
    wire::Device { id: device.to_string(), name: device.name.to_string(), ..wire::Device::default() }
}

fn in_their_words(availability: Availability) -> &'static str {
    match availability {
        Availability::Online => "online",
        Availability::Degraded => "unhealthy",
        Availability::Offline => "offline",
        Availability::Unknown => "unknown",
    }
}
