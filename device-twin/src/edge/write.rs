//! Writes to devices: at most one outstanding a property, the newest wins, each id used once.

use std::time::Duration;

use bus::twin::{DesiredVersion, MapperTopic, Outcome, ResultBody, WriteRequest, WriteResult};
use bus::{Mono, Name, Now, Value};
use metadata::Keyspace;

use super::property::{Outstanding, Wanted, Who};
use super::{EdgeTwins, RETRY_AFTER, WRITE_GRACE, WRITE_TTL};
use crate::arbiter::Slot;
use crate::twin::{self, Expiry, PropertyId, Publish, WriteRecord, brief, key, millis};

/// Why a write ended that another one overtook.
pub(super) const REPLACED: &str = "a newer write took its place";

/// Whether somebody decided something new, or the same again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Fresh,
    /// A rule renews what it said: after a failure it waits like everybody.
    Renewed,
}

impl EdgeTwins {
    /// Asks the device for what the slots say, if that is not what it was asked for last.
    pub(super) fn arbitrate(&mut self, id: &PropertyId, decision: Decision, ks: &mut Keyspace, now: Now) {
        let online = self.is_online(&id.device);
        if decision == Decision::Fresh {
            self.kubeedge.touch(&id.device, now);
        }
        let Ok(property) = self.catalog.property(&id.device, &id.property) else { return };
        let Some(twin) = self.twins.get_mut(id) else { return };
        let Some(wanted) = twin.wanted(property, now.mono) else { return twin.stop_stepping() };
        twin.was_asked = true;
        if decision == Decision::Fresh {
            twin.retry = None;
        }
        if twin.retry.is_some() || !twin.needs_write(property, &wanted) {
            return;
        }
        let deadline = self.deadline_of_who(id, wanted.who.as_ref());
        let Some(twin) = self.twins.get_mut(id) else { return };
        if let Some(at) = twin.must_wait(property, &wanted, now.mono) {
            twin.wait_until(at);
            self.put_off(id, &wanted, at, ks, now);
        } else if deadline.is_some_and(|deadline| deadline <= now.mono) {
            self.give_up(id, wanted.who.as_ref(), Outcome::Expired, "its time is over", ks, now);
        } else if online {
            self.request(id, wanted, ks, now);
        } else {
            twin.stop_stepping();
            let why = "the device is offline; set it again";
            if property.policy.actuator {
                self.give_up(id, wanted.who.as_ref(), Outcome::Failed, why, ks, now);
            }
        }
        self.reschedule(id);
    }

    /// A command that would have to wait beyond its time ends here; all else waits.
    fn put_off(&mut self, id: &PropertyId, wanted: &Wanted, at: Mono, ks: &mut Keyspace, now: Now) {
        let Some(Who::Command(command)) = &wanted.who else { return };
        if self.deadline_of(&id.device, command).is_some_and(|deadline| deadline <= at) {
            let why = "the actuator may not be written again within the command's time";
            self.give_up(id, wanted.who.as_ref(), Outcome::Expired, why, ks, now);
        }
    }

    /// No other of this edge is the same, also in another life of its disk.
    pub(super) fn fresh_id(&mut self, ks: &mut Keyspace) -> String {
        format!("{:?}-{:x}-{}", self.incarnation, self.seed, self.numbers.take(ks))
    }

    fn request(&mut self, id: &PropertyId, wanted: Wanted, ks: &mut Keyspace, now: Now) {
        // One that hears deltas is asked by the delta that follows.
        let by_delta = self.is_served_by_delta(&id.device);
        let mapper = self.mapper_of(&id.device).filter(|_| !by_delta).cloned();
        if mapper.is_none() && !by_delta {
            return;
        }
        mapper.iter().for_each(|mapper| self.tell_config(mapper, now));
        self.finish_write(id, Outcome::Superseded, REPLACED, ks, now);
        self.overrule_command(id, &wanted, ks, now);
        let write_id = self.fresh_id(ks);
        self.audit_write(id, &wanted, &write_id, now);
        let ends = [wanted.expires, self.deadline_of_who(id, wanted.who.as_ref())];
        self.part_begun(id, wanted.who.as_ref());
        let ends = ends.into_iter().flatten().min();
        let Ok(property) = self.catalog.property(&id.device, &id.property) else { return };
        let Some(twin) = self.twins.get_mut(id) else { return };
        let ttl = ends.map_or(WRITE_TTL, |at| at.since(now.mono).min(WRITE_TTL));
        let step = twin.next_step(property, &wanted.value);
        twin.paced(property, wanted.slot, &step, now.mono);
        let as_device = property.to_device(step.value.clone());
        let record = WriteRecord {
            id: write_id,
            value: step.value,
            version: desired_version(wanted.who.as_ref()),
            cause: wanted.cause,
            sent: now.wall,
            outcome: None,
        };
        ks.put(key("/t/write/", id), twin::cbor(&record));
        match mapper {
            Some(mapper) => self.outputs.publish(speak(id, &mapper, &record, as_device, ttl)),
            None => self.kubeedge.touch(&id.device, now),
        }
        twin.spoken = Some(record.value.clone());
        let deadline = now.mono + ttl + WRITE_GRACE;
        let is_step = !step.is_last;
        twin.write = Some(Box::new(Outstanding { record, who: wanted.who, deadline, is_step }));
    }

    /// The outstanding write came to an end.
    pub(super) fn finish_write(
        &mut self,
        id: &PropertyId,
        outcome: Outcome,
        detail: &str,
        ks: &mut Keyspace,
        now: Now,
    ) {
        let Some(twin) = self.twins.get_mut(id) else { return };
        let Some(ended) = twin.write.take() else { return };
        let record = WriteRecord { outcome: Some(outcome), ..ended.record.clone() };
        ks.put(key("/t/write/", id), twin::cbor(&record));
        if ended.is_step && outcome == Outcome::Succeeded {
            self.step_done(id, *ended, ks, now);
            return self.reschedule(id);
        }
        twin.stop_stepping();
        let Outstanding { record, who, .. } = *ended;
        let has_failed = !matches!(outcome, Outcome::Succeeded | Outcome::Superseded);
        if has_failed {
            twin.spoken = None;
            twin.retry = Some(now.mono + RETRY_AFTER);
        }
        // A setting is tried again; a command is carried out once; a wish for an actuator that somebody stronger overtook
        // is not kept for later.
        let is_over = match who {
            Some(Who::Command(_)) => outcome != Outcome::Succeeded,
            Some(Who::Desired(_)) if outcome == Outcome::Superseded => !self.is_setting(id),
            _ => has_failed && (outcome == Outcome::Rejected || !self.is_setting(id)),
        };
        if is_over {
            self.let_go(id, who.as_ref());
        }
        if !matches!(who, Some(Who::Desired(_) | Who::Command(_))) {
            self.audit_end(id, record.id.clone(), (outcome, detail), now);
        }
        match (record.version, who) {
            // One that was answered before, and came back when a stronger slot let go, is not answered again.
            (Some(version), _) if self.has_ended(id, version) => {}
            (Some(version), _) => self.settle(id, version, outcome, detail, ks, now),
            (None, Some(Who::Operator)) => self.outputs.outcome(id, (outcome, None, detail), now.wall),
            (None, Some(Who::Command(command))) => self.part_ended(id, &command, outcome, detail, ks, now),
            // Rules write all day: the cloud sees what they do in the reported values.
            (None, _) => self.outputs.result(&id.device, &local(id, outcome, detail)),
        }
        self.reschedule(id);
    }

    /// Whether `version` had its last answer. A setting is delivered until it has succeeded.
    fn has_ended(&self, id: &PropertyId, version: DesiredVersion) -> bool {
        let ack = self.twins.get(id).and_then(|twin| twin.ack_of(version));
        ack.is_some_and(|ack| ack.outcome == Outcome::Succeeded || !self.is_setting(id))
    }

    /// Nothing will be written for `who`.
    fn give_up(
        &mut self,
        id: &PropertyId,
        who: Option<&Who>,
        outcome: Outcome,
        why: &str,
        ks: &mut Keyspace,
        now: Now,
    ) {
        self.let_go(id, who);
        let is_open = |version| self.twins.get(id).is_some_and(|twin| twin.is_open(version));
        match who {
            Some(Who::Desired(version)) if is_open(*version) => {
                self.settle(id, *version, outcome, why, ks, now);
            }
            Some(Who::Command(command)) if outcome == Outcome::Expired => {
                self.part_out_of_time(id, command, why, ks, now);
            }
            Some(Who::Command(command)) => self.part_ended(id, command, outcome, why, ks, now),
            Some(Who::Operator) => {
                self.outputs.outcome(id, (outcome, None, why), now.wall);
            }
            // It had its end. A rule says it again; the fail-safe value is said when the next decision ends.
            Some(Who::Desired(_) | Who::Rule(_)) | None => {}
        }
    }

    /// A decision that failed is over; nobody must find it in its slot later.
    pub(super) fn let_go(&mut self, id: &PropertyId, who: Option<&Who>) {
        let slot = match who {
            Some(Who::Desired(_)) => Slot::DESIRED,
            Some(Who::Command(_)) => Slot::COMMAND,
            Some(Who::Operator) => Slot::LOCAL_OPERATOR,
            Some(Who::Rule(_)) | None => return,
        };
        let Some(twin) = self.twins.get_mut(id) else { return };
        if who.is_some_and(|who| twin.holds(slot, who)) {
            twin.slots.relinquish(slot);
            if twin.write.is_none() {
                twin.stop_stepping();
            }
        }
    }

    /// The mapper's answer. A second one, or one to a write that is over, changes nothing.
    pub(super) fn write_result(
        &mut self,
        mapper: &Name,
        result: &WriteResult,
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<(), String> {
        let id = PropertyId::new(&result.device, &result.property);
        if self.mapper_of(&id.device) != Some(mapper) {
            return Err(format!("device {} is not served by mapper {mapper}", id.device));
        }
        let outstanding = self.twins.get(&id).and_then(|twin| twin.write.as_ref());
        if outstanding.is_some_and(|write| write.record.id == result.id) {
            self.finish_write(&id, result.outcome, &brief(&result.detail), ks, now);
        }
        Ok(())
    }

    /// No answer, or time to try again.
    pub(super) fn write_due(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        let Some(twin) = self.twins.get_mut(id) else { return };
        if twin.write.as_ref().is_some_and(|write| write.deadline <= now.mono) {
            self.finish_write(id, Outcome::Unknown, "the mapper did not answer", ks, now);
        }
        let is_setting = self.is_setting(id);
        let Some(twin) = self.twins.get_mut(id) else { return };
        if twin.retry.is_some_and(|at| at <= now.mono) {
            twin.retry = None;
            if is_setting {
                self.arbitrate(id, Decision::Renewed, ks, now);
            }
        }
    }
}

fn local(id: &PropertyId, outcome: Outcome, detail: &str) -> ResultBody {
    ResultBody { detail: detail.to_owned(), ..ResultBody::of(&id.property, outcome) }
}

fn desired_version(who: Option<&Who>) -> Option<DesiredVersion> {
    match who {
        Some(Who::Desired(version)) => Some(*version),
        Some(Who::Operator | Who::Rule(_) | Who::Command(_)) | None => None,
    }
}

fn speak(id: &PropertyId, mapper: &Name, record: &WriteRecord, value: Value, ttl: Duration) -> Publish {
    let WriteRecord { id: write_id, value: _, version: _, cause, sent, outcome: _ } = record.clone();
    let request = WriteRequest {
        id: write_id,
        device: id.device.clone(),
        property: id.property.to_string(),
        value,
        sent,
        ttl_ms: millis(ttl),
        cause,
    };
    Publish {
        topic: MapperTopic::Write { mapper: mapper.clone() }.topic(),
        payload: twin::json(&request),
        retain: false,
        expiry: Some(Expiry(ttl)),
    }
}
