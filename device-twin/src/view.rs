//! One property as people are shown it.

use std::time::Duration;

use bus::twin::DesiredVersion;
use bus::{Sample, UnixMillis, Value, ValueType};
use serde::Serialize;

use crate::authority::Authority;
use crate::model::Property;
use crate::twin::{Ack, Desired, DeviceState, PropertyId, Reported};

/// What is desired, what is reported, and whether the one became the other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TwinView {
    /// `<namespace>/<device>`.
    pub device: String,
    pub property: String,
    pub unit: Option<String>,
    #[serde(rename = "type")]
    pub value_type: ValueType,
    pub writable: bool,
    /// Whether a wish moves something.
    pub actuator: bool,
    /// In its unit, as the model bounds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<f64>,
    /// The only values that it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<Value>>,
    /// Older than this its value is not to be relied on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    pub desired: Option<Value>,
    pub version: Option<DesiredVersion>,
    /// Who desires it.
    pub by: Option<String>,
    /// Since when, on the clock of the node that was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<UnixMillis>,
    pub reported: Option<Sample>,
    /// Time since the last report, as far as this node knows.
    pub age_ms: Option<u64>,
    pub ack: Option<Ack>,
    /// The desired version was acknowledged with success; true if nothing is desired.
    pub converged: bool,
    /// Of the device; absent before its edge said anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<DeviceState>,
    /// Who may say what is desired of the device.
    pub authority: Authority,
}

impl TwinView {
    pub(crate) fn new(
        id: &PropertyId,
        property: &Property,
        reported: Option<&Reported>,
        desired: Option<&Desired>,
        age: Option<Duration>,
    ) -> Self {
        let ack = reported.and_then(|r| r.ack.clone());
        Self {
            device: id.device.to_string(),
            property: id.property.to_string(),
            unit: property.unit.clone(),
            value_type: property.value_type,
            writable: property.writable,
            actuator: property.policy.actuator,
            minimum: property.minimum,
            maximum: property.maximum,
            values: property.values.clone(),
            max_age_ms: property.policy.max_age.map(crate::twin::millis),
            desired: desired.map(|d| d.value.clone()),
            version: desired.map(|d| d.version),
            by: desired.map(|d| d.by.clone()),
            since: desired.map(|d| d.issued),
            reported: reported.and_then(|r| r.sample.clone()),
            age_ms: age.map(crate::twin::millis),
            converged: desired.is_none_or(|d| ack.as_ref().is_some_and(|ack| ack.answers(d.version))),
            ack,
            state: None,
            authority: Authority::default(),
        }
    }
}

/// What a search asks of a device: no more than that, so that thousands can be looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gist {
    pub online: bool,
    /// A wish is not answered yet.
    pub pending: bool,
    /// A wish came to nothing.
    pub failed: bool,
}

#[cfg(test)]
impl Gist {
    /// The same, of all views of the device.
    pub(crate) fn of(views: &[TwinView]) -> Self {
        let is_answered =
            |view: &TwinView| view.ack.as_ref().is_some_and(|ack| Some(ack.version) == view.version);
        let state = views.first().and_then(|view| view.state.as_ref());
        Self {
            online: state.is_some_and(|state| state.state == crate::twin::Availability::Online),
            pending: views.iter().any(|view| !view.converged && !is_answered(view)),
            failed: views.iter().any(|view| !view.converged && is_answered(view)),
        }
    }
}

impl Gist {
    /// One of its properties.
    pub(crate) fn note(&mut self, desired: Option<&Desired>, reported: Option<&Reported>) {
        let Some(desired) = desired else { return };
        let ack = reported.and_then(|reported| reported.ack.as_ref());
        match ack.filter(|ack| ack.version == desired.version) {
            None => self.pending = true,
            Some(ack) => self.failed |= !ack.answers(desired.version),
        }
    }
}
