//! How one device stands, and since when.

use bus::twin::{DeviceCondition, DeviceHealth};
use bus::{Now, UnixMillis};

use crate::Error;
use crate::health::short;
use crate::points::Points;

/// What led to a device's condition.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Why there is no session, until the device is heard of again.
    why: String,
    /// Sessions lost since then.
    failures: u64,
    condition: (DeviceCondition, UnixMillis),
}

impl Standing {
    pub(crate) fn new(now: Now) -> Self {
        Self { why: String::new(), failures: 0, condition: (DeviceCondition::Offline, now.wall) }
    }

    pub(crate) fn handle_lost(&mut self, why: String) {
        self.why = why;
        self.failures += 1;
    }

    /// The device, not only its session, is there.
    pub(crate) fn handle_answered(&mut self) {
        self.why.clear();
        self.failures = 0;
    }

    pub(crate) fn why(&self) -> &str {
        &self.why
    }

    pub(crate) fn health(&mut self, is_open: bool, points: &Points, now: UnixMillis) -> DeviceHealth {
        let (state, error) = self.judge(is_open, points);
        if self.condition.0 != state {
            self.condition = (state, now);
        }
        let (failures, last_read) = (self.failures, points.last_read());
        DeviceHealth { state, since: self.condition.1, failures, error: short(&error), last_read }
    }

    /// The rules, first match wins: without properties there is nothing to be online for; then no session, or none that
    /// gave a value since the last one was lost; then properties that cannot be read.
    fn judge(&self, is_open: bool, points: &Points) -> (DeviceCondition, String) {
        if points.is_empty() {
            (DeviceCondition::Unconfigured, "it has no properties".to_owned())
        } else if !is_open || !self.why.is_empty() {
            (DeviceCondition::Offline, self.why.clone())
        } else if let Some((name, error)) = points.failing().first_key_value() {
            let others = points.failing().len() - 1;
            let others = if others == 0 { String::new() } else { format!("; and {others} more") };
            let names_itself = matches!(error, Error::BadAddress { .. });
            let name = if names_itself { String::new() } else { format!("{name}: ") };
            (DeviceCondition::Degraded, format!("{name}{error}{others}"))
        } else {
            (DeviceCondition::Online, String::new())
        }
    }
}
