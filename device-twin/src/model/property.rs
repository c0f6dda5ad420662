//! One property of a device, resolved: what values it holds, in which unit, and what its policy says of them.

use std::time::Duration;

use bus::twin::{Json, ReportBody};
use bus::value::WrongValue;
use bus::{Quality, Sample, UnixMillis, Value, ValueType};
use thiserror::Error;

use super::policy::OnStale;
use crate::unit::{Conversion, Incommensurable, Unit, UnitError};

/// A property that every kind of document can resolve to: it names nothing of KubeEdge's.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    pub value_type: ValueType,
    pub writable: bool,
    /// As people are shown it: a UCUM code if a policy says so, else the model's text, whatever it is.
    pub unit: Option<String>,
    /// The same, if it is understood. Only then is anything converted.
    pub ucum: Option<Unit>,
    /// What the device counts in, if that is another unit.
    pub device: Option<Box<DeviceUnit>>,
    /// In the property's unit, as all that follows.
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    /// The only values that it holds, all of its type.
    pub values: Option<Vec<Value>>,
    /// Where it lives in the device, in the mapper's terms.
    pub address: Json,
    /// Zero: the device pushes.
    pub poll: Duration,
    /// What the device's manifest wishes for it (KubeEdge `desired.value`).
    pub manifest_desired: Option<String>,
    pub policy: Policy,
}

/// Between what a device counts in and what its twin does.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceUnit {
    pub(super) unit: Unit,
    pub(super) to_twin: Conversion,
    pub(super) to_device: Conversion,
}

/// [`super::TwinPolicySpec`], merged and with its defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub actuator: bool,
    pub on_stale: OnStale,
    /// `None`: for ever.
    pub desired_max_age: Option<Duration>,
    pub max_age: Option<Duration>,
    pub deadband: f64,
    pub report_interval: Option<Duration>,
    pub fail_safe: Option<Value>,
    pub write_interval: Option<Duration>,
    /// Per second.
    pub slew: Option<f64>,
    pub local_override: bool,
}

/// Why a value is not one of a property.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum InvalidValue {
    #[error("the property is read-only")]
    ReadOnly,
    #[error("wrong type")]
    Type(#[source] WrongValue),
    #[error("{value} is outside {} to {}", show(.minimum), show(.maximum))]
    Range { value: Value, minimum: Option<f64>, maximum: Option<f64> },
    #[error("{value} is none of {}", listed(.allowed))]
    Values { value: Value, allowed: Vec<Value> },
    #[error("'{0}' cannot be read as {1:?}")]
    Text(String, ValueType),
    #[error("wrong unit")]
    Unit(#[source] InvalidUnit),
}

/// Why a value that names its unit cannot be counted in the property's.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum InvalidUnit {
    #[error(transparent)]
    Code(#[from] UnitError),
    #[error(transparent)]
    Incommensurable(#[from] Incommensurable),
    #[error("the property has no unit, so '{0}' cannot be converted")]
    Unitless(String),
    #[error("the property's unit '{of_property}' is not understood, so '{given}' cannot be converted")]
    NotUnderstood { of_property: String, given: String },
    #[error("{0} is no number, and has no unit")]
    NoNumber(Value),
}

fn show(bound: &Option<f64>) -> String {
    bound.map_or_else(|| "any".to_owned(), |b| b.to_string())
}

pub(super) fn listed(values: &[Value]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Property {
    /// A desired value as the device shall get it, in the property's unit.
    pub fn check_desired(&self, value: Value) -> Result<Value, InvalidValue> {
        if !self.writable {
            return Err(InvalidValue::ReadOnly);
        }
        self.check(value)
    }

    /// Whether the property can hold `value`, written by whomever; as it holds it.
    pub(super) fn check(&self, value: Value) -> Result<Value, InvalidValue> {
        let value = value.coerce(self.value_type).map_err(InvalidValue::Type)?;
        if !self.in_range(&value) {
            return Err(self.out_of_range(value));
        }
        match &self.values {
            None => Ok(value),
            Some(allowed) => match allowed.iter().find(|one| is_same(one, &value)) {
                Some(one) => Ok(one.clone()),
                None => Err(InvalidValue::Values { value, allowed: allowed.clone() }),
            },
        }
    }

    /// A reported value, and how far what the property can hold lets it be trusted.
    pub fn check_reported(&self, value: Value) -> Result<(Value, Quality), InvalidValue> {
        let value = value.coerce(self.value_type).map_err(InvalidValue::Type)?;
        let quality = if self.check(value.clone()).is_ok() { Quality::Good } else { Quality::Uncertain };
        Ok((value, quality))
    }

    /// A report as the twin takes it: in the property's unit, of its type, and no better than its range lets it be.
    ///
    /// # Errors
    /// It is of another type, or names a unit that measures something else.
    pub fn check_report(&self, body: ReportBody, now: UnixMillis) -> Result<Sample, InvalidValue> {
        let unit = body.unit().map(str::to_owned);
        let Sample { value, time, quality } = body.into_sample(now);
        let (value, trust) = self.check_reported(self.from_report(value, unit.as_deref())?)?;
        Ok(Sample { value, time, quality: quality.min(trust) })
    }

    /// A value written as text, as KubeEdge does for every type.
    pub fn parse(&self, text: &str) -> Result<Value, InvalidValue> {
        let wrong = || InvalidValue::Text(super::cut(text), self.value_type);
        match self.value_type {
            ValueType::Bool => text.parse().map(Value::Bool).map_err(|_| wrong()),
            ValueType::Int => text.parse().map(Value::Int).map_err(|_| wrong()),
            ValueType::Float => text.parse().map(Value::Float).map_err(|_| wrong()),
            ValueType::String | ValueType::Bytes => Ok(Value::Text(text.to_owned())),
            ValueType::Struct => serde_json::from_str(text).map_err(|_| wrong()),
        }
    }

    /// Whether a report of `new` says the same as the stored `old`.
    pub fn is_unchanged(&self, old: &Value, new: &Value) -> bool {
        if old == new {
            return true;
        }
        match (self.is_numeric(), old.as_f64(), new.as_f64()) {
            (true, Some(old), Some(new)) => (old - new).abs() < self.policy.deadband,
            _ => false,
        }
    }

    /// What the device said, counted in the property's unit. An integer property stays one: to the nearest.
    pub fn from_device(&self, value: Value) -> Value {
        match &self.device {
            Some(device) => self.converted(value, device.to_twin),
            None => value,
        }
    }

    /// What the device shall be told, counted in its own unit. An integer property stays one: to the nearest.
    pub fn to_device(&self, value: Value) -> Value {
        match &self.device {
            Some(device) => self.converted(value, device.to_device),
            None => value,
        }
    }

    /// A report's value, counted in the property's unit. One that names no unit is in the device's.
    ///
    /// # Errors
    /// The unit is none, or measures something else.
    pub fn from_report(&self, value: Value, unit: Option<&str>) -> Result<Value, InvalidValue> {
        match unit {
            None => Ok(self.from_device(value)),
            Some(_) => self.in_unit(value, unit),
        }
    }

    /// A wish's value, counted in the property's unit. One that names no unit is in the property's already.
    ///
    /// # Errors
    /// The unit is none, or measures something else.
    pub fn in_unit(&self, value: Value, unit: Option<&str>) -> Result<Value, InvalidValue> {
        let Some(given) = unit.filter(|given| self.unit.as_deref() != Some(given)) else { return Ok(value) };
        let conversion = self.conversion_from(given).map_err(InvalidValue::Unit)?;
        if matches!(value, Value::Int(_) | Value::Float(_)) {
            Ok(self.converted(value, conversion))
        } else {
            Err(InvalidValue::Unit(InvalidUnit::NoNumber(value)))
        }
    }

    /// From values counted in `given`, a UCUM code, to the property's.
    ///
    /// # Errors
    /// See [`InvalidUnit`].
    pub fn conversion_from(&self, given: &str) -> Result<Conversion, InvalidUnit> {
        let from = Unit::parse(given)?;
        match (&self.ucum, &self.unit) {
            (Some(own), _) => Ok(from.to(own)?),
            (None, Some(text)) => {
                let (of_property, given) = (super::cut(text), from.code().to_owned());
                Err(InvalidUnit::NotUnderstood { of_property, given })
            }
            (None, None) => Err(InvalidUnit::Unitless(from.code().to_owned())),
        }
    }

    /// From the property's values to what they are counted in `wanted`, a UCUM code.
    ///
    /// # Errors
    /// See [`InvalidUnit`].
    pub fn conversion_to(&self, wanted: &str) -> Result<Conversion, InvalidUnit> {
        Ok(self.conversion_from(wanted)?.reversed())
    }

    /// What the device's mapper needs to know: the unit in which the device counts, and the bounds in it.
    pub fn device_unit(&self) -> Option<&str> {
        self.device.as_ref().map(|device| device.unit.code()).or(self.unit.as_deref())
    }

    /// [`Self::minimum`] and [`Self::maximum`] as the device counts.
    pub fn device_range(&self) -> (Option<f64>, Option<f64>) {
        // By way of `to_device`, so that a value at its bound is at its bound there too.
        let as_device = |bound: Option<f64>| self.to_device(Value::Float(bound?)).as_f64();
        if self.device.is_none() {
            return (self.minimum, self.maximum);
        }
        (as_device(self.minimum), as_device(self.maximum))
    }

    /// The deadband of a number, counted in the device's unit.
    pub fn device_deadband(&self) -> Option<f64> {
        let factor = self.device.as_ref().map_or(1.0, |device| device.to_device.factor().abs());
        Some(self.policy.deadband * factor).filter(|deadband| self.is_numeric() && *deadband > 0.0)
    }

    fn converted(&self, value: Value, conversion: Conversion) -> Value {
        if !self.is_numeric() || !matches!(value, Value::Int(_) | Value::Float(_)) {
            return value; // What is no number has no unit; whether it fits is checked where all values are.
        }
        let Some(number) = value.as_f64() else { return value };
        let number = conversion.apply(number);
        Value::Float(if self.value_type == ValueType::Int { number.round() } else { number })
    }

    pub(super) fn is_numeric(&self) -> bool {
        matches!(self.value_type, ValueType::Int | ValueType::Float)
    }

    fn in_range(&self, value: &Value) -> bool {
        let Some(number) = value.as_f64() else { return true };
        !(self.minimum.is_some_and(|min| number < min) || self.maximum.is_some_and(|max| number > max))
    }

    fn out_of_range(&self, value: Value) -> InvalidValue {
        InvalidValue::Range { value, minimum: self.minimum, maximum: self.maximum }
    }
}

/// Whether both are one value of an enumeration; a number that was converted may be off in its last digits.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => (a - b).abs() <= a.abs() * 1e-12,
        _ => a == b,
    }
}
