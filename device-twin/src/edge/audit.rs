//! What the audit is told: who decided what, and what became of it.

use bus::Now;
use bus::twin::{DeviceId, Outcome};

use super::EdgeTwins;
use super::property::{Wanted, Who};
use crate::history::audit::{AuditEntry, AuditEvent, Decision, Via};
use crate::twin::{Desired, PropertyId};

impl EdgeTwins {
    pub(super) fn audit(&mut self, device: &DeviceId, property: Option<&str>, event: AuditEvent, now: Now) {
        let (device, property) = (device.clone(), property.map(str::to_owned));
        self.outputs.audit(AuditEntry { at: now.wall, device, property, event });
    }

    pub(super) fn audit_wish(&mut self, id: &PropertyId, desired: &Desired, now: Now) {
        let event = AuditEvent::wish(Some(desired.value.clone()), Some(desired.version), &desired.by);
        self.audit(&id.device, Some(&id.property), event, now);
    }

    /// What is written because of an operator, a rule or nobody: wishes and commands are told when they come.
    pub(super) fn audit_write(&mut self, id: &PropertyId, wanted: &Wanted, write: &str, now: Now) {
        let decision = Decision {
            value: Some(wanted.value.clone()),
            by: wanted.cause.clone(),
            via: wanted.slot.map(Via::Slot),
            id: Some(write.to_owned()),
            detail: String::new(),
        };
        let event = match &wanted.who {
            Some(Who::Desired(_) | Who::Command(_)) => return,
            Some(Who::Operator) => AuditEvent::Operator(decision),
            Some(Who::Rule(_)) => AuditEvent::Rule(decision),
            None => AuditEvent::FailSafe(decision),
        };
        self.audit(&id.device, Some(&id.property), event, now);
    }

    /// What became of a wish (by its version) or of a write.
    pub(super) fn audit_end(&mut self, id: &PropertyId, of: String, end: (Outcome, &str), now: Now) {
        self.audit(&id.device, Some(&id.property), AuditEvent::ended(of, end), now);
    }
}
