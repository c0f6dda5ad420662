//! One registered mapper: what it has to be told, in which order, and whether it is there.
//!
//! ```text
//!                     Taken: told                     Unreachable: the whole mapper waits, longer each time
//!   wanted != told ---------------> at rest          Refused: this device waits, longer each time
//!                                    |    ^
//!              a write: its model    |    |  the write's time is over:
//!              opened, UpdateDevice  v    |  model shut, UpdateDevice
//!                                    open
//! ```
//!
//! Before any call for a device the mapper's copy of its model is what that call needs: mappers take `accessMode` from
//! it at that moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bus::Mono;
use bus::twin::{DeviceId, Outcome};
use bytes::Bytes;
use metadata::Keyspace;
use minicbor::{Decode, Encode};
use prost::Message;

use super::api;
use super::call::{Answer, Method};
use super::describe::{Description, Digest, OPEN};
use super::device::{Device, Write, Writes, backoff};

/// Between two calls that make a mapper begin anew with a device: KubeEdge's take one before they have done with the one
/// before, and can crash over it.
pub(super) const GAP: Duration = Duration::from_secs(1);

/// How soon a mapper that does not answer, or refuses, is asked again at first: a mapper registers before it serves.
pub(super) const MIN_BACKOFF: Duration = Duration::from_millis(500);

/// And at last.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// A mapper that says nothing for so long is asked whether it is there. One that reports is never asked.
pub(super) const SILENCE: Duration = Duration::from_secs(15);

/// Failures in a row after which a mapper counts as away: one can be its restart.
const AWAY_AFTER: u32 = 2;

/// What is under way ends with its answer.
const NEVER: Mono = Mono(u64::MAX);

/// What a mapper said of itself. Kept, since KubeEdge's mappers register once and never again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Registration {
    #[n(0)]
    pub(super) name: String,
    #[n(1)]
    pub(super) protocol: String,
    /// Path of its socket.
    #[n(2)]
    pub(super) address: String,
}

/// What is being asked of the mapper.
#[derive(Debug)]
enum Underway {
    Probe,
    /// Its copy of a model, for a device.
    Model {
        model: DeviceId,
        digest: Digest,
        device: DeviceId,
    },
    Tell {
        device: DeviceId,
        digest: Digest,
    },
    Write {
        device: DeviceId,
        writes: Writes,
    },
    Remove {
        device: DeviceId,
    },
    RemoveModel {
        model: DeviceId,
    },
}

/// What the mapper's owner has to do.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    Ask {
        id: u64,
        method: Method,
        body: Bytes,
        expires: Option<Mono>,
    },
    /// A write ended.
    Ended {
        device: DeviceId,
        property: String,
        write: Write,
        outcome: Outcome,
        detail: String,
    },
    /// What the mapper has of a device from here on; `None`: nothing.
    Told {
        device: DeviceId,
        digest: Option<Digest>,
    },
    /// The mapper is there, or away.
    Online(bool),
    Note(String),
}

struct Ask {
    method: Method,
    body: Bytes,
    expires: Option<Mono>,
}

#[derive(Debug)]
pub(super) struct Mapper {
    pub(super) registration: Registration,
    pub(super) devices: BTreeMap<DeviceId, Device>,
    /// Those with something to do.
    busy: BTreeSet<DeviceId>,
    /// The models that the mapper was told by a call.
    models: BTreeMap<DeviceId, Digest>,
    /// Models that may have lost their last device.
    leftover: BTreeSet<DeviceId>,
    underway: Option<(u64, Underway)>,
    online: bool,
    heard: Mono,
    failures: u32,
    /// Not before this, if it did not answer.
    not_before: Mono,
    /// When [`Self::drive`] has something to do; `None`: it has to look.
    next: Option<Mono>,
    pub(super) effects: Vec<Effect>,
}

impl Mapper {
    /// One of the process before this, or one that registers now: whether it is there is found out.
    pub(super) fn new(registration: Registration, now: Mono) -> Self {
        Self {
            registration,
            devices: BTreeMap::new(),
            busy: BTreeSet::new(),
            models: BTreeMap::new(),
            leftover: BTreeSet::new(),
            underway: None,
            online: false,
            heard: now,
            failures: 0,
            not_before: now,
            next: None,
            effects: Vec::new(),
        }
    }

    pub(super) fn is_online(&self) -> bool {
        self.online
    }

    /// The device's manifest or its place changed.
    pub(super) fn want(&mut self, id: &DeviceId, model: Option<DeviceId>) {
        self.next = None;
        let device = self.devices.entry(id.clone()).or_default();
        let before = std::mem::replace(&mut device.model, model);
        (device.wanted, device.dirty) = (true, true);
        self.leftover.extend(before);
        self.busy.insert(id.clone());
    }

    /// The mapper was told of the device in the answer to its registration.
    pub(super) fn introduced(&mut self, id: &DeviceId, model: DeviceId, digest: Digest, now: Mono) {
        let device = self.devices.entry(id.clone()).or_default();
        (device.wanted, device.model) = (true, Some(model));
        device.registered(digest, now);
    }

    /// The mapper is to forget the device, if it knows it.
    pub(super) fn unwant(&mut self, id: &DeviceId) {
        self.next = None;
        let Some(device) = self.devices.get_mut(id) else { return };
        (device.wanted, device.dirty) = (false, true);
        let waiting = std::mem::take(&mut device.waiting);
        self.busy.insert(id.clone());
        self.end_all(id, waiting, Outcome::Failed, "the device is gone");
    }

    pub(super) fn model_changed(&mut self, model: &DeviceId) {
        self.next = None;
        let users = self.devices.iter_mut().filter(|(_, device)| device.model.as_ref() == Some(model));
        for (id, device) in users {
            device.dirty = true;
            self.busy.insert(id.clone());
        }
    }

    /// Asks for a write, good until it expires.
    pub(super) fn write(&mut self, id: &DeviceId, property: &str, write: Write) {
        self.next = None;
        let Some(device) = self.devices.get_mut(id).filter(|device| device.wanted) else {
            let why = "the mapper does not serve the device";
            return self.end(id, property.to_owned(), write, Outcome::Failed, why);
        };
        let older = device.waiting.insert(property.to_owned(), write);
        self.busy.insert(id.clone());
        if let Some(older) = older {
            self.end(id, property.to_owned(), older, Outcome::Superseded, "a newer write took its place");
        }
    }

    /// The mapper said something by itself.
    pub(super) fn heard(&mut self, now: Mono) {
        self.heard = now;
        self.failures = 0;
        self.not_before = now;
        if !std::mem::replace(&mut self.online, true) {
            self.effects.push(Effect::Online(true));
            self.next = None;
        }
    }

    fn silent(&mut self, now: Mono) {
        self.not_before = now + backoff(self.failures);
        self.failures = self.failures.saturating_add(1);
    }

    /// Who waits for a mapper that is away is answered, and what was answered is never delivered.
    fn give_up(&mut self, why: &str) {
        if self.failures < AWAY_AFTER || !std::mem::replace(&mut self.online, false) {
            return;
        }
        for id in self.busy.clone() {
            let waiting = self.devices.get_mut(&id).map(|device| std::mem::take(&mut device.waiting));
            self.end_all(&id, waiting.unwrap_or_default(), Outcome::Failed, "the mapper is away");
        }
        self.note(&format!("is away: {why}"));
        self.effects.push(Effect::Online(false));
    }

    /// Answers what waited too long, then asks the next thing, if any is due. Whether it asked.
    pub(super) fn drive(&mut self, id: u64, ks: &Keyspace, now: Mono) -> bool {
        if self.next.is_some_and(|next| next > now) {
            return false;
        }
        let asked = self.ask(id, ks, now);
        self.next = Some(self.next_moment());
        asked
    }

    fn ask(&mut self, id: u64, ks: &Keyspace, now: Mono) -> bool {
        self.expire(now);
        if self.underway.is_some() || now < self.not_before {
            return false;
        }
        let next = self.next_write(ks, now).or_else(|| self.next_tell(ks, now));
        let next = next.or_else(|| self.next_leftover()).or_else(|| self.next_probe(now));
        let Some((underway, ask)) = next else { return false };
        self.underway = Some((id, underway));
        let Ask { method, body, expires } = ask;
        self.effects.push(Effect::Ask { id, method, body, expires });
        true
    }

    fn expire(&mut self, now: Mono) {
        for id in self.busy.clone() {
            let Some(device) = self.devices.get_mut(&id) else { continue };
            let late: Writes = device.take_expired(now).into_iter().collect();
            self.end_all(&id, late, Outcome::Expired, "the mapper could not be reached in time");
        }
    }

    fn next_write(&mut self, ks: &Keyspace, now: Mono) -> Option<(Underway, Ask)> {
        let is_due =
            |id: &&DeviceId| self.devices.get(id).and_then(Device::write_at).is_some_and(|at| at <= now);
        let id = self.busy.iter().find(is_due)?.clone();
        let device = self.devices.get_mut(&id)?;
        let (writes, wishes, expires) = device.take_wishes(now);
        let Some(description) = Description::at_rest(&id, ks) else {
            self.end_all(&id, writes, Outcome::Failed, "the device's model is not known here");
            return None;
        };
        let description = description.opened(&wishes);
        if let Some(model) = self.model_first(&id, &description, Some(expires)) {
            self.put_back(&id, writes);
            return Some(model);
        }
        // Noted before it is asked: after a crash the mapper must be told to keep still.
        self.note_told(&id, Some(OPEN));
        let body = body(&api::DeviceRequest { device: Some(description.device) });
        let ask = Ask { method: Method::UpdateDevice, body, expires: Some(expires) };
        Some((Underway::Write { device: id, writes }, ask))
    }

    /// What a device is told at rest; devices of which the mapper has all are done with on the way.
    fn next_tell(&mut self, ks: &Keyspace, now: Mono) -> Option<(Underway, Ask)> {
        for id in self.busy.clone() {
            let Some(device) = self.devices.get_mut(&id) else {
                self.busy.remove(&id);
                continue;
            };
            if device.tell_at().is_none_or(|at| at > now) {
                continue;
            }
            let next = if device.wanted { self.tell(&id, ks) } else { self.remove(&id) };
            if next.is_some() {
                return next;
            }
        }
        None
    }

    fn tell(&mut self, id: &DeviceId, ks: &Keyspace) -> Option<(Underway, Ask)> {
        let Some(description) = Description::at_rest(id, ks) else {
            self.shelve(id);
            return None;
        };
        if let Some(model) = self.model_first(id, &description, None) {
            return Some(model);
        }
        let digest = description.digest();
        let device = self.devices.get_mut(id)?;
        device.dirty = false;
        if device.told == Some(digest) {
            device.open_is_over();
            self.note_told(id, Some(digest));
            self.settle(id);
            return None;
        }
        let is_new = device.told.is_none();
        let method = if is_new { Method::RegisterDevice } else { Method::UpdateDevice };
        let body = body(&api::DeviceRequest { device: Some(description.device) });
        Some((Underway::Tell { device: id.clone(), digest }, Ask { method, body, expires: None }))
    }

    /// Without its model a device is told when that is there.
    fn shelve(&mut self, id: &DeviceId) {
        if let Some(device) = self.devices.get_mut(id) {
            device.dirty = false;
            device.open_is_over();
        }
        self.settle(id);
    }

    /// The call that gives the mapper the model as `description` has it, if it has another.
    fn model_first(
        &mut self,
        device: &DeviceId,
        description: &Description,
        expires: Option<Mono>,
    ) -> Option<(Underway, Ask)> {
        let (model, digest) = (description.model_id.clone(), description.model_digest());
        if self.models.get(&model) == Some(&digest) {
            return None;
        }
        if let Some(device) = self.devices.get_mut(device) {
            device.dirty = true;
        }
        let body = body(&api::ModelRequest { model: Some(description.model.clone()) });
        let ask = Ask { method: Method::CreateDeviceModel, body, expires };
        Some((Underway::Model { model, digest, device: device.clone() }, ask))
    }

    fn remove(&mut self, id: &DeviceId) -> Option<(Underway, Ask)> {
        let device = self.devices.get_mut(id)?;
        device.dirty = false;
        if device.told.is_none() {
            self.forget(id);
            return None;
        }
        let (name, namespace) = (id.name.to_string(), id.namespace.to_string());
        let body = body(&api::RemoveRequest { name, namespace });
        Some((
            Underway::Remove { device: id.clone() },
            Ask { method: Method::RemoveDevice, body, expires: None },
        ))
    }

    fn next_leftover(&mut self) -> Option<(Underway, Ask)> {
        while let Some(model) = self.leftover.pop_first() {
            let is_used = self.devices.values().any(|device| device.model.as_ref() == Some(&model));
            if is_used || self.models.remove(&model).is_none() {
                continue;
            }
            let (name, namespace) = (model.name.to_string(), model.namespace.to_string());
            let body = body(&api::RemoveRequest { name, namespace });
            let ask = Ask { method: Method::RemoveDeviceModel, body, expires: None };
            return Some((Underway::RemoveModel { model }, ask));
        }
        None
    }

    fn next_probe(&self, now: Mono) -> Option<(Underway, Ask)> {
        let is_due = !self.online || now >= self.heard + SILENCE;
        let ask = Ask { method: Method::Probe, body: Bytes::new(), expires: None };
        is_due.then_some((Underway::Probe, ask))
    }

    /// How the call `id` ended, if it is the one under way.
    pub(super) fn answered(&mut self, id: u64, answer: &Answer, now: Mono) -> bool {
        let Some((_, underway)) = self.underway.take_if(|(asked, _)| *asked == id) else { return false };
        self.next = None;
        match answer {
            Answer::Taken | Answer::Refused(_) => self.heard(now),
            Answer::Unreachable(_) | Answer::Lost(_) => self.silent(now),
            Answer::Late => {}
        }
        match underway {
            Underway::Probe => {}
            Underway::Model { model, digest, device } => {
                self.model_answered(model, digest, &device, answer, now)
            }
            Underway::Tell { device, digest } => self.tell_answered(&device, digest, answer, now),
            Underway::Write { device, writes } => self.write_answered(&device, writes, answer, now),
            Underway::Remove { device } => self.remove_answered(&device, answer),
            Underway::RemoveModel { model } => {
                if let Answer::Refused(why) | Answer::Lost(why) | Answer::Unreachable(why) = answer {
                    self.note(&format!("does not forget model {model}: {why}"));
                }
            }
        }
        if let Answer::Unreachable(why) | Answer::Lost(why) = answer {
            self.give_up(why);
        }
        true
    }

    fn model_answered(&mut self, model: DeviceId, digest: Digest, id: &DeviceId, answer: &Answer, now: Mono) {
        if *answer == Answer::Taken {
            self.models.insert(model, digest);
            return;
        }
        // Of one that got lost nobody knows which the mapper has.
        self.models.remove(&model);
        if let Answer::Refused(why) = answer {
            self.note(&format!("refuses model {model}: {why}"));
            let Some(device) = self.devices.get_mut(id) else { return };
            device.refused(now);
            let waiting = std::mem::take(&mut device.waiting);
            self.end_all(id, waiting, Outcome::Failed, why);
        }
    }

    fn tell_answered(&mut self, id: &DeviceId, digest: Digest, answer: &Answer, now: Mono) {
        let Some(device) = self.devices.get_mut(id) else { return };
        match answer {
            Answer::Taken => {
                device.at_rest(digest, now);
                self.note_told(id, Some(digest));
                self.settle(id);
            }
            Answer::Refused(why) => {
                device.refused(now);
                self.note(&format!("refuses device {id}: {why}"));
            }
            Answer::Unreachable(_) | Answer::Late | Answer::Lost(_) => device.dirty = true,
        }
    }

    fn write_answered(&mut self, id: &DeviceId, writes: Writes, answer: &Answer, now: Mono) {
        match answer {
            Answer::Unreachable(_) | Answer::Late => {
                if let Some(device) = self.devices.get_mut(id) {
                    device.dirty = true;
                }
                self.put_back(id, writes);
                self.expire(now);
            }
            Answer::Taken => {
                self.open(id, writes.clone(), now);
                self.end_all(id, writes, Outcome::Succeeded, "");
            }
            Answer::Lost(why) => {
                self.open(id, writes.clone(), now);
                self.end_all(id, writes, Outcome::Unknown, why);
            }
            Answer::Refused(why) => {
                if let Some(device) = self.devices.get_mut(id) {
                    (device.told, device.dirty) = (Some(OPEN), true);
                }
                self.end_all(id, writes, Outcome::Failed, why);
            }
        }
    }

    fn open(&mut self, id: &DeviceId, writes: Writes, now: Mono) {
        if let Some(device) = self.devices.get_mut(id) {
            device.opened(writes, now);
        }
    }

    fn put_back(&mut self, id: &DeviceId, writes: Writes) {
        let Some(device) = self.devices.get_mut(id) else { return };
        let replaced = device.put_back(writes).into_iter().collect();
        self.end_all(id, replaced, Outcome::Superseded, "a newer write took its place");
    }

    fn remove_answered(&mut self, id: &DeviceId, answer: &Answer) {
        let Some(device) = self.devices.get_mut(id) else { return };
        match answer {
            // One that it does not know it cannot forget.
            Answer::Taken | Answer::Refused(_) => {
                device.told = None;
                let is_wanted = device.wanted;
                self.note_told(id, None);
                if !is_wanted {
                    self.forget(id);
                }
            }
            Answer::Unreachable(_) | Answer::Late | Answer::Lost(_) => device.dirty = true,
        }
    }

    fn forget(&mut self, id: &DeviceId) {
        self.busy.remove(id);
        self.leftover.extend(self.devices.remove(id).and_then(|device| device.model));
    }

    fn settle(&mut self, id: &DeviceId) {
        if self.devices.get(id).is_some_and(|device| !device.is_busy()) {
            self.busy.remove(id);
        }
    }

    fn end_all(&mut self, id: &DeviceId, writes: Writes, outcome: Outcome, detail: &str) {
        writes.into_iter().for_each(|(property, write)| self.end(id, property, write, outcome, detail));
    }

    fn end(&mut self, id: &DeviceId, property: String, write: Write, outcome: Outcome, detail: &str) {
        let (device, detail) = (id.clone(), detail.to_owned());
        self.effects.push(Effect::Ended { device, property, write, outcome, detail });
    }

    fn note_told(&mut self, id: &DeviceId, digest: Option<Digest>) {
        self.effects.push(Effect::Told { device: id.clone(), digest });
    }

    fn note(&mut self, what: &str) {
        self.effects.push(Effect::Note(format!("DMI mapper {} {what}", self.registration.name)));
    }

    pub(super) fn poll_timeout(&self) -> Mono {
        self.next.unwrap_or_default()
    }

    fn next_moment(&self) -> Mono {
        let busy = || self.busy.iter().filter_map(|id| self.devices.get(id));
        let expiry = busy().filter_map(Device::next_expiry).min();
        if self.underway.is_some() {
            return expiry.unwrap_or(NEVER);
        }
        let probe = if self.online { self.heard + SILENCE } else { self.not_before };
        let next = busy().flat_map(|device| [device.write_at(), device.tell_at()]).flatten().min();
        let next = next.map_or(probe, |at| at.min(probe)).max(self.not_before);
        expiry.map_or(next, |at| at.min(next))
    }
}

fn body(message: &impl Message) -> Bytes {
    Bytes::from(message.encode_to_vec())
}
