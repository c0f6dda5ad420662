//! What a decision does to its slot.

use std::time::Duration;

use bus::twin::DeviceId;
use bus::{Now, Value, ValueType};
use metadata::Keyspace;

use super::super::EdgeTwins;
use super::super::property::{Owner, Twin, Who};
use super::super::write::Decision as Writing;
use crate::arbiter::{self, Slot};
use crate::model::Property;
use crate::rule::Decision;
use crate::twin::PropertyId;

/// The slot that a rule fills, and for how long at a time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub(super) output: PropertyId,
    pub(super) slot: Slot,
    pub(super) ttl: Duration,
}

impl EdgeTwins {
    pub(super) fn carry_out(
        &mut self,
        rule: &DeviceId,
        decision: Decision,
        place: &Place,
        ks: &mut Keyspace,
        now: Now,
    ) {
        let Place { output, slot, ttl } = place;
        let property = self.catalog.property(&output.device, &output.property).ok();
        let fail_safe = property.and_then(|property| property.policy.fail_safe.clone());
        match decision {
            Decision::Set { value, cause } => self.fill(rule, place, (value, cause), ks, now),
            Decision::FailSafe => match fail_safe {
                Some(value) => self.fill(rule, place, (value, "inputs unknown".to_owned()), ks, now),
                None => self.release(rule, place, ks, now),
            },
            Decision::Hold => {
                let Some(twin) = self.twins.get_mut(output) else { return };
                if let Some(mut entry) = twin.slots.get(*slot).filter(|e| is_of(e, rule)).cloned() {
                    entry.expires = Some(now.mono + *ttl);
                    twin.slots.set(*slot, entry);
                    self.reschedule(output);
                }
            }
            Decision::Relinquish => self.release(rule, place, ks, now),
        }
    }

    fn fill(
        &mut self,
        rule: &DeviceId,
        place: &Place,
        (value, cause): (Value, String),
        ks: &mut Keyspace,
        now: Now,
    ) {
        let Place { output, slot, ttl } = place;
        let Ok(property) = self.catalog.property(&output.device, &output.property) else { return };
        let Ok(value) = property.check_desired(fitted(property, value)) else {
            self.stats.unfit_decisions += 1;
            self.release(rule, place, ks, now);
            return;
        };
        let Some(twin) = self.twins.get_mut(output) else { return };
        let owner = Owner { who: Who::Rule(rule.clone()), cause, since: None };
        let decision = renewal(twin, *slot, &owner.who, &value);
        twin.slots.set(*slot, arbiter::Entry { value, owner, expires: Some(now.mono + *ttl) });
        self.arbitrate(output, decision, ks, now);
        self.reschedule(output);
    }

    /// The rule has nothing to say.
    pub(super) fn release(&mut self, rule: &DeviceId, place: &Place, ks: &mut Keyspace, now: Now) {
        let Place { output, slot, ttl: _ } = place;
        let Some(twin) = self.twins.get_mut(output) else { return };
        if twin.slots.get(*slot).is_some_and(|entry| is_of(entry, rule)) {
            twin.slots.relinquish(*slot);
            self.arbitrate(output, Writing::Fresh, ks, now);
            self.reschedule(output);
        }
    }
}

fn is_of(entry: &arbiter::Entry<Owner>, rule: &DeviceId) -> bool {
    entry.owner.who == Who::Rule(rule.clone())
}

fn renewal(twin: &Twin, slot: Slot, who: &Who, value: &Value) -> Writing {
    let same = twin.slots.get(slot).is_some_and(|old| old.owner.who == *who && old.value == *value);
    if same { Writing::Renewed } else { Writing::Fresh }
}

/// A number that a rule computed, as near as its output can hold it.
fn fitted(property: &Property, value: Value) -> Value {
    let Value::Float(number) = value else { return value };
    let number = number.max(property.minimum.unwrap_or(f64::MIN)).min(property.maximum.unwrap_or(f64::MAX));
    Value::Float(if property.value_type == ValueType::Int { number.round() } else { number })
}
