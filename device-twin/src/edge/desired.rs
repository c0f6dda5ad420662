//! Desired values of the cloud: which are taken on, and how each version ends.

use std::time::Duration;

use bus::twin::{DesiredVersion, Outcome};
use bus::{Now, Value};
use metadata::Keyspace;

use super::device::read_record;
use super::output::own_key;
use super::property::{Owner, Twin, Who};
use super::write::{Decision, REPLACED};
use super::{CLOCK_GRACE, EdgeTwins};
use crate::arbiter::{Entry, Slot};
use crate::authority::Holder;
use crate::model::{OnStale, Policy, Property};
use crate::rule::From;
use crate::twin::{self, Ack, Desired, Group, Handled, PropertyId, explain, key};

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
    /// does not, nor what was refused.
    pub(super) fn recall_setting(&mut self, property: &Property, id: &PropertyId, ks: &Keyspace) {
        let own = ks.get(&format!("/t/own/{id}")).and_then(|bytes| twin::decode::<Desired>(bytes));
        let row = read_desired(id, ks).filter(|row| Some(row.version) > self.outranked);
        self.is_own = own.as_ref().map(|own| own.version) > row.as_ref().map(|row| row.version);
        let Some(desired) = (if self.is_own { own } else { row }) else { return };
        let Some(handled) = self.handled.as_ref().filter(|h| h.version == desired.version) else { return };
        let outcome = handled.ack.as_ref().map(|ack| ack.outcome);
        if let Ok(value) = property.check_desired(desired.value.clone())
            && !property.policy.actuator
            && property.policy.on_stale == OnStale::Apply
            && !handled.refused
            && !matches!(outcome, Some(Outcome::Rejected | Outcome::Superseded))
        {
            let last = read_record(id, ks).filter(|record| record.outcome == Some(Outcome::Succeeded));
            self.spoken = last.map(|record| record.value);
            self.slots.set(Slot::DESIRED, entry(value, &desired, None));
        }
        self.desired = Some(Box::new(desired));
    }
}

fn read_desired(id: &PropertyId, ks: &Keyspace) -> Option<Desired> {
    twin::decode(ks.get(&format!("/m/desired/{id}"))?)
}

fn entry(value: Value, desired: &Desired, expires: Option<bus::Mono>) -> Entry<Owner> {
    let owner =
        Owner { who: Who::Desired(desired.version), cause: desired.by.clone(), since: Some(desired.issued) };
    Entry { value, owner, expires }
}

/// What is to become of a wish that waits.
#[derive(Debug, Clone, PartialEq)]
enum Verdict {
    /// Its age cannot be told yet.
    Wait,
    End(Outcome, String),
    Apply(Option<Duration>),
}

impl EdgeTwins {
    /// The cloud's desired value may be another one. It is decided on by [`Self::decide_all`], with those that came
    /// with it.
    pub(super) fn desired_changed(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        match read_desired(id, ks) {
            Some(desired) => self.take_desired(id, desired, ks, now),
            None => self.desired_gone(id, ks, now),
        }
    }

    /// The rules, in order: what was made under an authority that is over is outranked; what is known is not looked at
    /// again; a wish under a later authority than the edge's ends the edge's.
    fn take_desired(&mut self, id: &PropertyId, desired: Desired, ks: &mut Keyspace, now: Now) {
        let (Some(twin), Some(bound)) = (self.twins.get(id), self.devices.get(&id.device)) else { return };
        let (version, known) = (desired.version, twin.newest());
        if bound.authority.outranks(version) {
            let told = bound.authority.told();
            return self.outrank(id, (version, Some(&desired)), &told, ks, now);
        }
        if let Some(known) = known.filter(|known| version.epoch < known.epoch) {
            let told = format!("version {known} of a later authority is known here; set it again");
            return self.outrank(id, (version, Some(&desired)), &told, ks, now);
        }
        if known.is_some_and(|known| version <= known) {
            self.stats.repeated_desired += 1;
            return;
        }
        if bound.authority.holder() == Holder::Edge && version.epoch > bound.authority.epoch {
            self.end_authority(&id.device, &desired, ks, now);
        }
        self.replace_desired(id, desired, now);
        if let Some(twin) = self.twins.get_mut(id) {
            twin.waiting = Some(now.mono + CLOCK_GRACE);
        }
        self.let_own_go(id, ks);
        self.undecided.insert(id.clone());
    }

    /// A wish that was made under an authority that is over: told once, and never carried out. What is in force stays,
    /// and the cloud, which has replaced it by the one refused, is told it.
    fn outrank(
        &mut self,
        id: &PropertyId,
        (version, wish): (DesiredVersion, Option<&Desired>),
        told: &str,
        ks: &mut Keyspace,
        now: Now,
    ) {
        let Some(twin) = self.twins.get_mut(id) else { return };
        let is_handled = twin.handled.as_ref().is_some_and(|handled| handled.version == version);
        if is_handled || twin.outranked >= Some(version) {
            return;
        }
        self.stats.outranked += 1;
        if let Some(wish) = wish {
            self.audit_wish(id, wish, now);
        }
        self.pass_over(id, version, ks);
        self.keep_desired(id, ks);
        self.tell_outranked(id);
        self.tell_end(id, version, (Outcome::Superseded, told), now);
    }

    /// Wishes up to `version` are not to be decided on any more.
    pub(super) fn pass_over(&mut self, id: &PropertyId, version: DesiredVersion, ks: &mut Keyspace) {
        let Some(twin) = self.twins.get_mut(id).filter(|twin| twin.outranked < Some(version)) else { return };
        twin.outranked = Some(version);
        ks.put(key("/t/outranked/", id), twin::cbor(&version));
    }

    /// What is in force is kept here, as the cloud has another row, or none, and is told.
    fn keep_desired(&mut self, id: &PropertyId, ks: &mut Keyspace) {
        let Some(twin) = self.twins.get_mut(id) else { return };
        let Some(desired) = &twin.desired else { return };
        if !std::mem::replace(&mut twin.is_own, true) {
            ks.put(key("/t/own/", id), twin::cbor(&**desired));
        }
        self.outputs.tell(own_key(id), &Some(&**desired));
    }

    /// What is in force is not kept here any more: the cloud has a row of it, or nothing is wished.
    fn let_own_go(&mut self, id: &PropertyId, ks: &mut Keyspace) {
        if self.twins.get_mut(id).is_some_and(|twin| std::mem::take(&mut twin.is_own)) {
            ks.delete(&key("/t/own/", id));
            self.outputs.tell(own_key(id), &None::<Desired>);
        }
    }

    /// `desired` is the newest wish from here on. The one before ends, unless a write for it is under way, which then
    /// does.
    pub(super) fn replace_desired(&mut self, id: &PropertyId, desired: Desired, now: Now) {
        self.audit_wish(id, &desired, now);
        let Some(twin) = self.twins.get_mut(id) else { return };
        self.outputs.desired(id, &desired);
        let Some(before) = twin.desired.replace(Box::new(desired)) else { return };
        let (version, waited) = (before.version, twin.waiting.take().is_some());
        if waited || twin.waits_for_write(version) {
            let why = if waited { "a newer one came before it was decided on" } else { REPLACED };
            self.tell_end(id, version, (Outcome::Superseded, why), now);
            // Also where the newer one is refused: what was answered is not carried out later.
            self.let_go(id, Some(&Who::Desired(version)));
        }
    }

    pub(super) fn mark_handled(&mut self, id: &PropertyId, version: DesiredVersion, ks: &mut Keyspace) {
        if let Some(twin) = self.twins.get_mut(id) {
            twin.handled = Some(Box::new(Handled { version, ack: None, refused: false }));
        }
        self.persist_handled(id, ks);
    }

    /// The cloud takes its wish back. What is kept here stays as it is, and so does what the edge has the authority
    /// over: the cloud did not know of it.
    fn desired_gone(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        let holder = self.devices.get(&id.device).map(|bound| bound.authority.holder());
        let Some(twin) = self.twins.get_mut(id).filter(|twin| !twin.is_own) else { return };
        if holder == Some(Holder::Edge) {
            return self.keep_desired(id, ks);
        }
        if twin.desired.is_some() {
            self.drop_desired(id, ks, now);
        }
    }

    /// The cloud takes back what lies in no row of its own: what somebody here wished, or what it refused to replace.
    pub(super) fn withdrawn_changed(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        let bytes = ks.get(&format!("/m/withdrawn/{id}"));
        let Some(version) = bytes.and_then(|bytes| twin::decode::<DesiredVersion>(bytes)) else { return };
        let (Some(twin), Some(bound)) = (self.twins.get(id), self.devices.get(&id.device)) else { return };
        if twin.outranked >= Some(version) {
            return;
        }
        if bound.authority.outranks(version) {
            let told = bound.authority.told();
            return self.outrank(id, (version, None), &told, ks, now);
        }
        let is_over = twin.desired.as_ref().is_some_and(|desired| desired.version < version);
        self.pass_over(id, version, ks);
        if is_over {
            self.drop_desired(id, ks, now);
        }
        self.tell_outranked(id);
    }

    /// Nothing is wished any more. The wish before ends, unless a write for it is under way, which then does.
    fn drop_desired(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        self.let_own_go(id, ks);
        let Some(twin) = self.twins.get_mut(id) else { return };
        let (before, waited) = (twin.desired.take(), twin.waiting.take().is_some());
        if let Some(version) = before.map(|before| before.version)
            && (waited || twin.waits_for_write(version))
        {
            self.settle(id, version, Outcome::Superseded, "it was taken back", ks, now);
        }
        let Some(twin) = self.twins.get_mut(id) else { return };
        let held = twin.slots.relinquish(Slot::DESIRED).is_some();
        self.clear(id.desired_topic().topic());
        if held {
            self.arbitrate(id, Decision::Fresh, ks, now);
        }
        self.reschedule(id);
        self.run_rules_reading(From::Desired, id, ks, now);
    }

    /// Decides on all that came in one change.
    pub(super) fn decide_all(&mut self, ks: &mut Keyspace, now: Now) {
        for id in std::mem::take(&mut self.undecided) {
            self.decide_desired(&id, ks, now);
            self.run_rules_reading(From::Desired, &id, ks, now);
        }
    }

    /// Decides on a desired value that waits, if it can be told by now; with those that it is to be carried out with.
    pub(super) fn decide_desired(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        let Some(twin) = self.twins.get(id).filter(|twin| twin.waiting.is_some()) else { return };
        let Some(desired) = &twin.desired else { return };
        let Some(group) = desired.group.clone() else {
            let verdict = self.judge(id, now);
            return self.carry_out_verdict(id, verdict, ks, now);
        };
        let members: Vec<PropertyId> =
            group.members.iter().filter_map(|member| PropertyId::parse(member)).collect();
        let verdicts: Vec<Verdict> = members.iter().map(|id| self.judge_member(id, &group, now)).collect();
        if verdicts.contains(&Verdict::Wait) {
            return members.iter().for_each(|id| self.reschedule(id));
        }
        let ended = members.iter().zip(&verdicts).find_map(|(id, verdict)| match verdict {
            Verdict::End(outcome, why) => Some((id, *outcome, why)),
            Verdict::Wait | Verdict::Apply(..) => None,
        });
        let together = ended.map(|(id, outcome, why)| Verdict::End(outcome, format!("{id}: {why}")));
        for (id, own) in members.iter().zip(verdicts) {
            let verdict = match (own, &together) {
                (Verdict::Apply(_), Some(together)) => together.clone(),
                (own, _) => own,
            };
            if self.is_waiting_in(id, &group) {
                self.carry_out_verdict(id, verdict, ks, now);
            }
        }
    }

    fn is_waiting_in(&self, id: &PropertyId, group: &Group) -> bool {
        let Some(twin) = self.twins.get(id).filter(|twin| twin.waiting.is_some()) else { return false };
        twin.desired.as_ref().is_some_and(|desired| desired.group.as_ref() == Some(group))
    }

    /// A member that cannot be written at all stops the others too, where one by itself would be told when it fails.
    fn judge_member(&self, id: &PropertyId, group: &Group, now: Now) -> Verdict {
        if !self.is_waiting_in(id, group) {
            let why = "changed as one with others, and wished otherwise by now";
            return Verdict::End(Outcome::Superseded, why.to_owned());
        }
        match self.judge(id, now) {
            Verdict::Apply(..) if !self.is_online(&id.device) => {
                Verdict::End(Outcome::Failed, "the device is offline; set it again".to_owned())
            }
            Verdict::Apply(Some(lifetime)) if self.wish_takes(id, now) >= lifetime => {
                Verdict::End(Outcome::Expired, "it cannot be moved there while this is meant".to_owned())
            }
            verdict @ (Verdict::Apply(..) | Verdict::Wait | Verdict::End(..)) => verdict,
        }
    }

    /// How long it takes at least to carry out a wish that waits.
    fn wish_takes(&self, id: &PropertyId, now: Now) -> Duration {
        let (Some(property), Some(twin)) = (self.property(id), self.twins.get(id)) else {
            return Duration::ZERO;
        };
        let value = twin.desired.as_ref().map(|desired| &desired.value);
        value.map_or(Duration::ZERO, |value| twin.takes(property, value, Slot::DESIRED, now.mono))
    }

    /// The rules, in order: what was made under an authority that is over by now is superseded; what the property
    /// cannot hold is rejected; what cannot be told waits for a moment; what is too old expires; what a stronger slot
    /// holds is superseded.
    fn judge(&self, id: &PropertyId, now: Now) -> Verdict {
        let end = |outcome, why: &str| Verdict::End(outcome, why.to_owned());
        let (Some(property), Some(twin)) = (self.property(id), self.twins.get(id)) else {
            return end(Outcome::Rejected, "the property is not known here");
        };
        let (Some(until), Some(desired)) = (twin.waiting, &twin.desired) else { return Verdict::Wait };
        // The authority may have changed hands while it waited for the clock.
        let authority = self.devices.get(&id.device).map(|bound| &bound.authority);
        if let Some(authority) = authority.filter(|authority| authority.outranks(desired.version)) {
            return Verdict::End(Outcome::Superseded, authority.told());
        }
        if let Err(why) = property.check_desired(desired.value.clone()) {
            return Verdict::End(Outcome::Rejected, explain(&why));
        }
        let lifetime = match freshness(&property.policy, self.clock.age_of(desired.issued, now)) {
            Freshness::Fresh(lifetime) => lifetime,
            Freshness::Stale(why) => return Verdict::End(Outcome::Expired, why),
            Freshness::Untold if now.mono < until => return Verdict::Wait,
            Freshness::Untold => {
                let why = "its age cannot be told without the cloud's clock; rearm: set it again";
                return end(Outcome::Expired, why);
            }
        };
        match self.masked_actuator(id, Slot::DESIRED, now.mono) {
            Some(why) => Verdict::End(Outcome::Superseded, why),
            None => Verdict::Apply(lifetime),
        }
    }

    fn carry_out_verdict(&mut self, id: &PropertyId, verdict: Verdict, ks: &mut Keyspace, now: Now) {
        let waits = self.twins.get(id).and_then(|twin| twin.desired.as_ref()).map(|desired| desired.version);
        let Some(version) = waits.filter(|_| verdict != Verdict::Wait) else { return self.reschedule(id) };
        if let Some(twin) = self.twins.get_mut(id) {
            twin.waiting = None;
        }
        self.mark_handled(id, version, ks);
        match verdict {
            Verdict::Wait => {}
            Verdict::End(outcome, why) => {
                self.stats.stale_desired += u64::from(outcome == Outcome::Expired);
                if let Some(handled) = self.twins.get_mut(id).and_then(|twin| twin.handled.as_mut()) {
                    handled.refused = true;
                }
                self.settle(id, version, outcome, &why, ks, now);
            }
            Verdict::Apply(lifetime) => self.apply_desired(id, lifetime, ks, now),
        }
        self.reschedule(id);
    }

    /// What is desired fills its slot.
    pub(super) fn apply_desired(
        &mut self,
        id: &PropertyId,
        lifetime: Option<Duration>,
        ks: &mut Keyspace,
        now: Now,
    ) {
        let expires = lifetime.map(|lifetime| now.mono + lifetime);
        let Ok(property) = self.catalog.property(&id.device, &id.property) else { return };
        let Some(twin) = self.twins.get_mut(id) else { return };
        let Some(desired) = twin.desired.clone() else { return };
        if let Ok(value) = property.check_desired(desired.value.clone()) {
            twin.slots.set(Slot::DESIRED, entry(value, &desired, expires));
        }
        self.newer_than_command(id, ks, now);
        self.arbitrate(id, Decision::Fresh, ks, now);
    }

    /// After a start: a wish that was taken on and not carried out yet. One that stands in its slot again goes on; all
    /// else ends.
    pub(super) fn end_undone_wish(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        let Some(twin) = self.twins.get(id).filter(|twin| twin.slots.get(Slot::DESIRED).is_none()) else {
            return;
        };
        let Some(handled) = twin.handled.as_ref().filter(|handled| handled.ack.is_none()) else { return };
        let version = handled.version;
        let has_begun = read_record(id, ks).is_some_and(|record| record.version == Some(version));
        let (outcome, why) = if has_begun {
            (Outcome::Unknown, "the node restarted in the middle of the change")
        } else {
            (Outcome::Failed, "the node restarted before it was written; set it again")
        };
        self.settle(id, version, outcome, why, ks, now);
    }

    /// A device that was away from this edge and is back: the cloud counts on from what was decided on here.
    pub(super) fn tell_ack_again(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        let Some(twin) = self.twins.get(id).filter(|twin| twin.reported.is_none()) else { return };
        let ack = twin.handled.as_ref().and_then(|handled| handled.ack.clone());
        if ack.is_some() {
            self.store_reported(id, None, ack, ks, now);
        }
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
            self.slot_expired(id, &entry.owner.who, ks, now);
        }
    }

    /// What was never written ends; a write that is under way ends by itself.
    fn slot_expired(&mut self, id: &PropertyId, who: &Who, ks: &mut Keyspace, now: Now) {
        const WHY: &str = "it had no effect, or only some, while it was fresh";
        let Some(twin) = self.twins.get(id).filter(|twin| !twin.is_written_for(who)) else { return };
        match who {
            Who::Desired(version) if twin.is_open(*version) => {
                self.settle(id, *version, Outcome::Expired, WHY, ks, now);
            }
            Who::Command(command) => self.part_out_of_time(id, command, WHY, ks, now),
            Who::Desired(_) | Who::Operator | Who::Rule(_) => {}
        }
    }

    fn persist_handled(&self, id: &PropertyId, ks: &mut Keyspace) {
        if let Some(handled) = self.twins.get(id).and_then(|twin| twin.handled.as_ref()) {
            ks.put(key("/t/desired/", id), twin::cbor(handled));
        }
    }

    fn tell_end(
        &mut self,
        id: &PropertyId,
        version: DesiredVersion,
        (outcome, detail): (Outcome, &str),
        now: Now,
    ) {
        self.outputs.outcome(id, (outcome, Some(version), detail), now.wall);
        self.audit_end(id, version.to_string(), (outcome, detail), now);
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
        self.tell_end(id, version, (outcome, detail), now);
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
    pub(super) fn is_open(&self, version: DesiredVersion) -> bool {
        self.handled.as_ref().is_some_and(|h| h.version == version && h.ack.is_none())
    }

    /// Whether `version` was taken on, its end is not known, and no write for it is under way.
    fn waits_for_write(&self, version: DesiredVersion) -> bool {
        self.is_open(version) && !self.is_written_for(&Who::Desired(version))
    }

    /// The newest wish that was taken on.
    pub(super) fn newest(&self) -> Option<DesiredVersion> {
        self.handled.as_ref().map(|h| h.version).max(self.desired.as_ref().map(|d| d.version))
    }

    /// Whether a write is under way that carries out what `who` wants.
    pub(super) fn is_written_for(&self, who: &Who) -> bool {
        self.write.as_ref().is_some_and(|write| write.who.as_ref() == Some(who))
    }
}
