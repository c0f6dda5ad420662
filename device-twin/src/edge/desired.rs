//! Desired values of the cloud: which are taken on, and how each version ends.

use std::time::Duration;

use bus::twin::{DesiredVersion, Outcome};
use bus::{Now, Value};
use metadata::Keyspace;

use super::device::read_record;
use super::property::{Owner, Twin, Who};
use super::write::Decision;
use super::{CLOCK_GRACE, EdgeTwins};
use crate::arbiter::{Entry, Slot};
use crate::model::{OnStale, Policy, Property};
use crate::rule::From;
use crate::twin::{self, Ack, Desired, Handled, PropertyId, explain, key};

/// What an age means for a desired value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Good for this long; `None`: until something newer comes.
    Fresh(Option<Duration>),
    Stale(String),
    /// The cloud's time is not known.
    Untold,
}

/// The rule, in order: what applies late is fresh at any age; without the cloud's time nothing is told; as old as
/// `desiredMaxAge` is stale.
pub(super) fn freshness(policy: &Policy, age: Option<Duration>) -> Freshness {
    let lifetime = policy.desired_max_age.filter(|_| policy.actuator);
    let what = match policy.on_stale {
        OnStale::Apply => return Freshness::Fresh(lifetime),
        OnStale::Hold => "hold: what holds stays",
        OnStale::Rearm => "rearm: set it again",
    };
    match (age, policy.desired_max_age) {
        (_, None) => Freshness::Fresh(None),
        (None, Some(_)) => Freshness::Untold,
        (Some(age), Some(max)) if age >= max => {
            let age = Duration::from_secs(age.as_secs());
            Freshness::Stale(format!("{} old; {what}", humantime::format_duration(age)))
        }
        (Some(age), Some(max)) => Freshness::Fresh(lifetime.map(|_| max - age)),
    }
}

impl Twin {
    /// After a start: the desired value that was decided on before. A setting stands in its slot again; an actuator's
    /// does not.
    pub(super) fn recall_setting(&mut self, property: &Property, id: &PropertyId, ks: &Keyspace) {
        let Some(desired) = read_desired(id, ks) else { return };
        let Some(handled) = self.handled.as_ref().filter(|h| h.version == desired.version) else { return };
        let outcome = handled.ack.as_ref().map(|ack| ack.outcome);
        if let Ok(value) = property.check_desired(desired.value.clone())
            && !property.policy.actuator
            && property.policy.on_stale == OnStale::Apply
            && outcome != Some(Outcome::Rejected)
        {
            let last = read_record(id, ks).filter(|record| record.outcome == Some(Outcome::Succeeded));
            self.spoken = last.map(|record| record.value);
            self.slots.set(Slot::CLOUD_DESIRED, entry(value, &desired, None));
        }
        self.desired = Some(Box::new(desired));
    }
}

fn read_desired(id: &PropertyId, ks: &Keyspace) -> Option<Desired> {
    twin::decode(ks.get(&format!("/m/desired/{id}"))?)
}

fn entry(value: Value, desired: &Desired, expires: Option<bus::Mono>) -> Entry<Owner> {
    Entry { value, owner: Owner { who: Who::Cloud(desired.version), cause: desired.by.clone() }, expires }
}

impl EdgeTwins {
    /// The cloud's desired value may be another one.
    pub(super) fn desired_changed(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        match read_desired(id, ks) {
            Some(desired) => self.take_desired(id, desired, ks, now),
            None => self.desired_gone(id, ks, now),
        }
    }

    fn take_desired(&mut self, id: &PropertyId, desired: Desired, ks: &mut Keyspace, now: Now) {
        let Some(twin) = self.twins.get_mut(id) else { return };
        let known = twin.handled.as_ref().map(|h| h.version).max(twin.desired.as_ref().map(|d| d.version));
        if known.is_some_and(|known| desired.version <= known) {
            self.stats.repeated_desired += 1;
            return;
        }
        self.outputs.desired(id, &desired);
        let before = twin.desired.replace(Box::new(desired));
        if let Some(before) = before.filter(|_| twin.waiting.is_some()) {
            let end =
                (Outcome::Superseded, Some(before.version), "a newer one came before it was decided on");
            self.outputs.outcome(id, end, now.wall);
        }
        twin.waiting = Some(now.mono + CLOCK_GRACE);
        self.decide_desired(id, ks, now);
        self.run_rules_reading(From::Desired, id, ks, now);
    }

    /// The cloud takes its wish back.
    fn desired_gone(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        let Some(twin) = self.twins.get_mut(id) else { return };
        if twin.desired.take().is_none() {
            return;
        }
        twin.waiting = None;
        let held = twin.slots.relinquish(Slot::CLOUD_DESIRED).is_some();
        self.clear(id.desired_topic().topic());
        if held {
            self.arbitrate(id, Decision::Fresh, ks, now);
        }
        self.reschedule(id);
        self.run_rules_reading(From::Desired, id, ks, now);
    }

    /// Decides on a desired value that waits, if it can be told by now.
    pub(super) fn decide_desired(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        let Ok(property) = self.catalog.property(&id.device, &id.property) else { return };
        let Some(twin) = self.twins.get_mut(id) else { return };
        let (Some(until), Some(desired)) = (twin.waiting, twin.desired.clone()) else { return };
        let checked = property.check_desired(desired.value.clone()).map_err(|why| explain(&why));
        let is_actuator = property.policy.actuator;
        let freshness = freshness(&property.policy, self.clock.age_of(desired.issued, now));
        if checked.is_ok() && freshness == Freshness::Untold && now.mono < until {
            self.reschedule(id);
            return;
        }
        twin.waiting = None;
        twin.handled = Some(Box::new(Handled { version: desired.version, ack: None }));
        let masked = twin.masked_by(Slot::CLOUD_DESIRED, now.mono).filter(|_| is_actuator);
        self.persist_handled(id, ks);
        let end = |this: &mut Self, ks: &mut Keyspace, outcome, why: &str| {
            this.settle(id, desired.version, outcome, why, ks, now);
        };
        match (checked, freshness, masked) {
            (Err(why), ..) => end(self, ks, Outcome::Rejected, &why),
            (Ok(_), Freshness::Stale(why), _) => self.expire_desired(id, desired.version, &why, ks, now),
            (Ok(_), Freshness::Untold, _) => {
                let why = "its age cannot be told without the cloud's clock; rearm: set it again";
                self.expire_desired(id, desired.version, why, ks, now);
            }
            (Ok(_), Freshness::Fresh(_), Some((slot, owner))) => {
                end(self, ks, Outcome::Superseded, &format!("{slot} ({owner}) holds it; set it again later"));
            }
            (Ok(value), Freshness::Fresh(lifetime), None) => {
                self.apply_desired(id, value, &desired, lifetime, ks, now);
            }
        }
        self.reschedule(id);
    }

    fn expire_desired(
        &mut self,
        id: &PropertyId,
        version: DesiredVersion,
        why: &str,
        ks: &mut Keyspace,
        now: Now,
    ) {
        self.stats.stale_desired += 1;
        self.settle(id, version, Outcome::Expired, why, ks, now);
    }

    fn apply_desired(
        &mut self,
        id: &PropertyId,
        value: Value,
        desired: &Desired,
        lifetime: Option<Duration>,
        ks: &mut Keyspace,
        now: Now,
    ) {
        let expires = lifetime.map(|lifetime| now.mono + lifetime);
        if let Some(twin) = self.twins.get_mut(id) {
            twin.slots.set(Slot::CLOUD_DESIRED, entry(value, desired, expires));
        }
        self.arbitrate(id, Decision::Fresh, ks, now);
    }

    /// Empties slots whose time is over.
    pub(super) fn slots_due(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        let Some(twin) = self.twins.get_mut(id) else { return };
        let gone = twin.slots.expire(now.mono);
        if gone.is_empty() {
            return;
        }
        self.arbitrate(id, Decision::Fresh, ks, now);
        for (_, entry) in gone {
            let Who::Cloud(version) = entry.owner.who else { continue };
            let under_way =
                |twin: &Twin| twin.write.as_ref().is_some_and(|w| w.record.version == Some(version));
            let open = self.twins.get(id).is_some_and(|twin| twin.is_open(version) && !under_way(twin));
            if open {
                self.settle(id, version, Outcome::Expired, "it had no effect while it was fresh", ks, now);
            }
        }
    }

    fn persist_handled(&self, id: &PropertyId, ks: &mut Keyspace) {
        if let Some(handled) = self.twins.get(id).and_then(|twin| twin.handled.as_ref()) {
            ks.put(key("/t/desired/", id), twin::cbor(handled));
        }
    }

    /// How `version` ended: tells everybody, and if it is the newest, the twin acknowledges it.
    pub(super) fn settle(
        &mut self,
        id: &PropertyId,
        version: DesiredVersion,
        outcome: Outcome,
        detail: &str,
        ks: &mut Keyspace,
        now: Now,
    ) {
        self.outputs.outcome(id, (outcome, Some(version), detail), now.wall);
        let Some(twin) = self.twins.get_mut(id) else { return };
        let Some(handled) = twin.handled.as_mut().filter(|h| h.version == version) else { return };
        let ack = Ack { version, outcome, detail: detail.to_owned() };
        handled.ack = Some(ack.clone());
        let sample = twin.reported.as_ref().and_then(|reported| reported.sample.clone());
        self.persist_handled(id, ks);
        self.store_reported(id, sample, Some(ack), ks, now);
    }
}

impl Twin {
    /// Whether `version` was taken on and its end is not known.
    fn is_open(&self, version: DesiredVersion) -> bool {
        self.handled.as_ref().is_some_and(|h| h.version == version && h.ack.is_none())
    }
}
