//! `TwinPolicy` (`kubebus.io/v1alpha1`): what a KubeEdge model cannot say about its properties.
//!
//! ```yaml
//! apiVersion: kubebus.io/v1alpha1
//! kind: TwinPolicy
//! metadata: {name: valve-position, namespace: water}
//! spec: {model: valve, property: position, actuator: true, desiredMaxAge: 30s, maxAge: 10s, failSafe: 100}
//! ---
//! apiVersion: kubebus.io/v1alpha1
//! kind: TwinPolicy
//! metadata: {name: valve-pressure, namespace: water}
//! spec: {model: valve, property: pressure, unit: kPa, deviceUnit: bar}   # the device says 3.2, the twin 320
//! ```

use bus::{Name, Value};
use serde::{Deserialize, Serialize};

use super::{Document, FieldError, Span, Spec};
use crate::unit::Unit;

pub type TwinPolicy = Document<TwinPolicySpec>;

/// Speaks about one property of a model, or about all of them. A policy that names the property goes before one that
/// does not; of two alike the first by name goes first; each field is taken from the first policy that states it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TwinPolicySpec {
    /// The `DeviceModel`, in the policy's namespace.
    pub model: Name,
    /// Of the model; all of them if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub property: Option<String>,
    /// Whether writing it moves something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actuator: Option<bool>,
    /// Default: `rearm` for actuators, `apply` otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_stale: Option<OnStale>,
    /// How long a desired value is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_max_age: Option<Span>,
    /// After this time without a report the reported value is bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// Reports that differ less from the stored one are not stored, in the property's unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadband: Option<f64>,
    /// Changes are stored and told at most this often; the last one of a burst always is. Rules see every report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_interval: Option<Span>,
    /// What an actuator is set to when nobody says anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_safe: Option<Value>,
    /// Between two writes at least: minimum on and off times. Emergency, interlock and protection (slots 1 to 5) do
    /// not wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_interval: Option<Span>,
    /// The fastest change, in the property's unit per second: a larger one is written in steps, whoever wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slew: Option<f64>,
    /// Whether somebody at the edge may take the authority over the device's desired values. One property of a device
    /// that allows it is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_override: Option<bool>,
    /// The only texts or numbers that the property holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<Value>>,
    /// UCUM code of the property's unit, where the model's is free text or wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// UCUM code of what the device itself counts in, if that is another unit: values are converted on their way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_unit: Option<String>,
}

/// What happens to a desired value that arrives too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStale {
    /// Settings: late is better than never.
    Apply,
    /// It is not applied; the value that holds stays.
    Hold,
    /// It is not applied; whoever set it is asked to set it again.
    Rearm,
}

impl Spec for TwinPolicySpec {
    const API_VERSION: &'static str = "kubebus.io/v1alpha1";
    const KIND: &'static str = "TwinPolicy";

    fn check(&self) -> Result<(), FieldError> {
        if let Some(band) = self.deadband.filter(|band| !band.is_finite() || *band < 0.0) {
            return Err(FieldError::new("spec.deadband", format!("{band} is no distance")));
        }
        if let Some(slew) = self.slew.filter(|slew| !slew.is_finite() || *slew <= 0.0) {
            return Err(FieldError::new("spec.slew", format!("{slew} is no speed")));
        }
        self.check_values()?;
        self.check_units()
    }
}

/// Values that one property may be held to: what a person can choose from, and an error can list.
const MAX_VALUES: usize = 64;

impl TwinPolicySpec {
    fn check_values(&self) -> Result<(), FieldError> {
        let Some(values) = &self.values else { return Ok(()) };
        if values.is_empty() || values.len() > MAX_VALUES {
            let reason = format!("{} values, where 1 to {MAX_VALUES} make sense", values.len());
            return Err(FieldError::new("spec.values", reason));
        }
        let is_fit = |value: &Value| matches!(value, Value::Text(_) | Value::Int(_) | Value::Float(_));
        match values.iter().position(|value| !is_fit(value)) {
            Some(at) => Err(FieldError::new(format!("spec.values[{at}]"), "neither a text nor a number")),
            None => Ok(()),
        }
    }

    fn check_units(&self) -> Result<(), FieldError> {
        let read = |field: &str, code: &Option<String>| {
            let unit = code.as_deref().map(Unit::parse).transpose();
            unit.map_err(|why| FieldError::new(field, why.to_string()))
        };
        let unit = read("spec.unit", &self.unit)?;
        let device = read("spec.deviceUnit", &self.device_unit)?;
        let (Some(unit), Some(device)) = (unit, device) else { return Ok(()) };
        match device.to(&unit) {
            Ok(_) => Ok(()),
            Err(why) => Err(FieldError::new("spec.deviceUnit", why.to_string())),
        }
    }
}
