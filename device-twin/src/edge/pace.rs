//! How fast an actuator is moved: minimum times between writes, and large changes in steps.
//!
//! A valve that shuts at once bursts the main. Where a policy states `slew`, a change goes out as one step a second,
//! each as large as the policy allows in a second, whoever wants the change: a safety interlock too, since the pipe
//! does not ask who closes the valve. `writeInterval` binds all but slots 1 to 5.

use std::time::Duration;

use bus::twin::Outcome;
use bus::{Mono, Now, Value, ValueType};
use metadata::Keyspace;

use super::EdgeTwins;
use super::property::{Outstanding, Twin, Wanted, Who};
use super::write::{Decision, REPLACED};
use crate::arbiter::Slot;
use crate::model::Property;
use crate::twin::{PropertyId, WriteRecord};

/// Between two steps of a slow change: often enough that a motor valve moves without stopping.
pub(super) const STEP: Duration = Duration::from_secs(1);

/// What is remembered of a property whose writes are paced.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Pace {
    wrote: Option<Wrote>,
    /// When the next write may go out, if one waits.
    pub(super) resume: Option<Mono>,
    /// What the device was last asked for, whatever became of it.
    asked: Option<f64>,
    /// Further steps follow.
    is_stepping: bool,
}

/// When the device was last asked for something: so long before a moment. That of a process that ended lies before
/// all moments of this one.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Wrote {
    at: Mono,
    before: Duration,
}

/// The next write on the way to what is wanted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) value: Value,
    pub(super) is_last: bool,
}

impl Property {
    fn is_paced(&self) -> bool {
        self.policy.slew.is_some() || self.policy.write_interval.is_some()
    }

    /// One step from `from` towards `to`: all the way without a speed, where nothing is known of where the device
    /// stands, and for what is no number.
    pub(super) fn step(&self, from: Option<f64>, to: &Value) -> Step {
        let whole = || Step { value: to.clone(), is_last: true };
        let (Some(slew), Some(from), Some(target)) = (self.policy.slew, from, to.as_f64()) else {
            return whole();
        };
        let reach = self.reach(slew);
        if (target - from).abs() <= reach {
            return whole();
        }
        let next = from + reach.copysign(target - from);
        match self.value_type {
            ValueType::Int => Step { value: Value::Int(next.round() as i64), is_last: false },
            ValueType::Float => Step { value: Value::Float(next), is_last: false },
            ValueType::Bool | ValueType::String | ValueType::Bytes | ValueType::Struct => whole(),
        }
    }

    /// How far one step goes.
    fn reach(&self, slew: f64) -> f64 {
        let reach = slew * STEP.as_secs_f64();
        if self.value_type == ValueType::Int { reach.floor().max(1.0) } else { reach }
    }

    /// From one step to the next: longer where a step of one whole number is too fast for a second.
    fn step_time(&self, slew: f64) -> Duration {
        if self.value_type == ValueType::Int && slew < 1.0 {
            return Duration::try_from_secs_f64(1.0 / slew).unwrap_or(Duration::MAX);
        }
        STEP
    }

    /// How long it takes at least from the first step to the last.
    fn ramp_time(&self, from: Option<f64>, to: &Value) -> Duration {
        let (Some(slew), Some(from), Some(target)) = (self.policy.slew, from, to.as_f64()) else {
            return Duration::ZERO;
        };
        let steps = ((target - from).abs() / self.reach(slew)).ceil().max(1.0);
        self.step_time(slew).saturating_mul(steps as u32 - 1)
    }

    /// The moment before which nothing must be written through `slot`.
    fn not_before(&self, pace: &Pace, slot: Option<Slot>) -> Option<Mono> {
        let wrote = pace.wrote?;
        let is_urgent = slot.is_some_and(|slot| slot <= Slot::PROTECTION);
        let interval = self.policy.write_interval.filter(|_| !is_urgent && !pace.is_stepping);
        let step = self.policy.slew.map(|slew| self.step_time(slew));
        interval.max(step).map(|least| wrote.at + least.saturating_sub(wrote.before))
    }
}

impl Twin {
    /// After a start: what the last process asked the device for, and when.
    pub(super) fn recall_pace(&mut self, property: &Property, record: Option<&WriteRecord>, now: Now) {
        if let Some(record) = record.filter(|_| property.is_paced()) {
            let wrote = Some(Wrote { at: now.mono, before: now.wall.since(record.sent) });
            let asked = record.value.as_f64();
            self.pace = Some(Box::new(Pace { wrote, asked, ..Pace::default() }));
        }
    }

    /// Where the device stands, as far as is known. A reading counts that came since it was last asked for something,
    /// but not in the middle of a change; else it is where it was sent, though that may have failed.
    fn stands(&self) -> Option<f64> {
        let read = || self.latest().filter(|_| !self.is_bad()).and_then(|sample| sample.value.as_f64());
        let Some(Pace { wrote, asked, is_stepping, .. }) = self.pace.as_deref() else {
            return read().or_else(|| self.spoken.as_ref()?.as_f64());
        };
        let is_read_since = !is_stepping && self.seen > wrote.map(|wrote| wrote.at);
        if is_read_since { read().or(*asked) } else { asked.or_else(read) }
    }

    /// How long it takes at least until the last write through `slot` towards `to`.
    pub(super) fn takes(&self, property: &Property, to: &Value, slot: Slot, now: Mono) -> Duration {
        let free = self.pace.as_ref().and_then(|pace| property.not_before(pace, Some(slot)));
        free.map_or(Duration::ZERO, |at| at.since(now)).saturating_add(property.ramp_time(self.stands(), to))
    }

    /// The next write on the way to what is wanted.
    pub(super) fn next_step(&self, property: &Property, wanted: &Value) -> Step {
        property.step(self.stands(), wanted)
    }

    /// Until when the write has to wait, if it has to.
    pub(super) fn must_wait(&self, property: &Property, wanted: &Wanted, now: Mono) -> Option<Mono> {
        let pace = self.pace.as_ref()?;
        property.not_before(pace, wanted.slot).filter(|at| *at > now)
    }

    /// The write waits.
    pub(super) fn wait_until(&mut self, at: Mono) {
        self.pace.get_or_insert_default().resume = Some(at);
    }

    /// A write goes out; while steps follow, what wants them holds its slot.
    pub(super) fn paced(&mut self, property: &Property, slot: Option<Slot>, step: &Step, now: Mono) {
        if !property.is_paced() {
            return;
        }
        let wrote = Some(Wrote { at: now, before: Duration::ZERO });
        let (asked, is_stepping) = (step.value.as_f64(), !step.is_last);
        self.pace = Some(Box::new(Pace { wrote, resume: None, asked, is_stepping }));
        if let (Some(slot), false) = (slot, step.is_last) {
            self.slots.prolong(slot, now + 2 * super::WRITE_TTL);
        }
    }

    /// The change is over, or given up.
    pub(super) fn stop_stepping(&mut self) {
        if let Some(pace) = &mut self.pace {
            pace.is_stepping = false;
        }
    }
}

impl EdgeTwins {
    /// A step went well: the next one follows, or the first of another change that was wished meanwhile.
    pub(super) fn step_done(&mut self, id: &PropertyId, ended: Outstanding, ks: &mut Keyspace, now: Now) {
        let Some(twin) = self.twins.get_mut(id) else { return };
        twin.spoken = Some(ended.record.value);
        match ended.who {
            Some(Who::Desired(version)) if !twin.holds(Slot::DESIRED, &Who::Desired(version)) => {
                self.settle(id, version, Outcome::Superseded, REPLACED, ks, now);
            }
            Some(Who::Command(command)) if twin.command.as_deref() != Some(&command) => {
                self.part_ended(id, &command, Outcome::Superseded, REPLACED, ks, now);
            }
            Some(_) | None => {}
        }
        self.arbitrate(id, Decision::Renewed, ks, now);
    }

    /// Time for a write that waited.
    pub(super) fn pace_due(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) {
        let Some(pace) = self.twins.get_mut(id).and_then(|twin| twin.pace.as_mut()) else { return };
        if pace.resume.is_some_and(|at| at <= now.mono) {
            pace.resume = None;
            self.arbitrate(id, Decision::Renewed, ks, now);
        }
    }
}
