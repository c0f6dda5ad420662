//! How fast an actuator is moved: minimum times between writes, and large changes in steps.
//!
//! A valve that shuts at once bursts the main. Where a policy states `slew`, a change goes out as one step a second,
//! each as large as the policy allows in a second, whoever wants the change: a safety interlock too, since the pipe
//! does not ask who closes the valve. `writeInterval` binds all but slots 1 to 5.

use std::time::Duration;

use bus::{Mono, Now, Value, ValueType};
use metadata::Keyspace;

use super::EdgeTwins;
use super::property::{Outstanding, Twin, Wanted};
use super::write::Decision;
use crate::arbiter::Slot;
use crate::model::Property;
use crate::twin::PropertyId;

/// Between two steps of a slow change: often enough that a motor valve moves without stopping.
pub(super) const STEP: Duration = Duration::from_secs(1);

/// What is remembered of a property whose writes are paced.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Pace {
    /// When the device was last asked for something.
    pub(super) wrote: Option<Mono>,
    /// When the next write may go out, if one waits.
    pub(super) resume: Option<Mono>,
    /// What the last step asked for, while further ones follow.
    stands: Option<f64>,
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
        let reach = slew * STEP.as_secs_f64();
        let reach = if self.value_type == ValueType::Int { reach.max(1.0).floor() } else { reach };
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

    /// The moment before which `wanted` must not be written.
    fn not_before(&self, pace: &Pace, slot: Option<Slot>) -> Option<Mono> {
        let wrote = pace.wrote?;
        let is_urgent = slot.is_some_and(|slot| slot <= Slot::PROTECTION);
        let interval = self.policy.write_interval.filter(|_| !is_urgent && pace.stands.is_none());
        let step = self.policy.slew.map(|_| STEP);
        interval.max(step).map(|least| wrote + least)
    }
}

impl Twin {
    /// Where the device stands, as far as is known.
    fn stands(&self) -> Option<f64> {
        let stepping = self.pace.as_ref().and_then(|pace| pace.stands);
        let read = || self.latest().filter(|_| !self.is_bad()).and_then(|sample| sample.value.as_f64());
        stepping.or_else(read).or_else(|| self.spoken.as_ref()?.as_f64())
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
        let stands = step.value.as_f64().filter(|_| !step.is_last);
        self.pace = Some(Box::new(Pace { wrote: Some(now), resume: None, stands }));
        if let (Some(slot), false) = (slot, step.is_last) {
            self.slots.prolong(slot, now + 2 * super::WRITE_TTL);
        }
    }

    /// The change is given up: where the device stands is to be read.
    pub(super) fn stop_stepping(&mut self) {
        if let Some(pace) = &mut self.pace {
            pace.stands = None;
        }
    }
}

impl EdgeTwins {
    /// A step went well: the next one follows.
    pub(super) fn step_done(&mut self, id: &PropertyId, ended: &Outstanding) {
        let Some(twin) = self.twins.get_mut(id) else { return };
        twin.spoken = Some(ended.record.value.clone());
        let wrote = twin.pace.as_ref().and_then(|pace| pace.wrote).unwrap_or_default();
        twin.wait_until(wrote + STEP);
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
