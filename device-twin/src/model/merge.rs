//! What the policies of a model say of one property: each field from the first policy that states it.

use std::time::Duration;

use bus::Value;
use bus::twin::DeviceId;

use super::FieldError;
use super::policy::{OnStale, TwinPolicySpec};
use super::property::{DeviceUnit, Policy, Property};
use crate::twin::explain;
use crate::unit::Unit;

/// How long an actuator's desired value is meant, if no policy says: long enough for a slow link, short enough that
/// nobody has forgotten it.
const DEFAULT_DESIRED_MAX_AGE: Duration = Duration::from_secs(60);

/// A policy and its name.
pub(super) type NamedPolicy<'a> = (&'a DeviceId, &'a TwinPolicySpec);

/// The policy at fault, and its field.
type Fault<'a> = (&'a DeviceId, FieldError);

/// The policies about one property, the first to be asked first.
#[derive(Debug)]
pub(super) struct Merged<'a>(Vec<NamedPolicy<'a>>);

impl<'a> Merged<'a> {
    /// Those that name the property go before those that speak of all, each by name.
    pub(super) fn new(property: &str, policies: &[NamedPolicy<'a>]) -> Self {
        let about = policies.iter().filter(|(_, p)| p.property.as_deref() == Some(property));
        let general = policies.iter().filter(|(_, p)| p.property.is_none());
        Self(about.chain(general).copied().collect())
    }

    /// What the first policy that states it says.
    pub(super) fn first<T>(
        &self,
        field: impl Fn(&'a TwinPolicySpec) -> Option<T>,
    ) -> Option<(NamedPolicy<'a>, T)> {
        self.0.iter().find_map(|policy| Some((*policy, field(policy.1)?)))
    }

    fn get<T>(&self, field: impl Fn(&'a TwinPolicySpec) -> Option<T>) -> Option<T> {
        self.first(field).map(|(_, value)| value)
    }

    /// All but the fail-safe value, which must fit.
    pub(super) fn policy(&self) -> Policy {
        let actuator = self.get(|p| p.actuator).unwrap_or(false);
        let span = |field: fn(&TwinPolicySpec) -> Option<super::Span>| self.get(field).map(|span| span.0);
        Policy {
            actuator,
            on_stale: self.get(|p| p.on_stale).unwrap_or(if actuator {
                OnStale::Rearm
            } else {
                OnStale::Apply
            }),
            desired_max_age: span(|p| p.desired_max_age).or(actuator.then_some(DEFAULT_DESIRED_MAX_AGE)),
            max_age: span(|p| p.max_age),
            deadband: self.get(|p| p.deadband).unwrap_or(0.0),
            report_interval: span(|p| p.report_interval),
            write_interval: span(|p| p.write_interval),
            slew: self.get(|p| p.slew),
            local_override: self.get(|p| p.local_override).unwrap_or(false),
            fail_safe: None,
        }
    }

    /// The values that the property is held to, each of which it can hold.
    pub(super) fn values(&self, property: &Property) -> Result<Option<Vec<Value>>, Fault<'a>> {
        let Some(((policy, _), values)) = self.first(|p| p.values.as_ref()) else { return Ok(None) };
        let checked = values.iter().enumerate().map(|(at, value)| {
            let fault = |why| FieldError::new(format!("spec.values[{at}]"), explain(&why));
            property.check(value.clone()).map_err(fault)
        });
        checked.collect::<Result<_, _>>().map(Some).map_err(|fault| (policy, fault))
    }

    /// The fail-safe value, which must be one that can be written. `property` knows its enumeration already.
    pub(super) fn fail_safe(&self, property: &Property) -> Result<Option<Value>, Fault<'a>> {
        let Some(((policy, spec), value)) = self.first(|p| p.fail_safe.as_ref()) else { return Ok(None) };
        if spec.property.is_none() && !property.writable {
            return Ok(None); // It is said of all properties, and meant for those that are written.
        }
        let fault = |why| (policy, FieldError::new("spec.failSafe", explain(&why)));
        property.check_desired(value.clone()).map(Some).map_err(fault)
    }

    /// How the device counts, if that is not as its twin does.
    pub(super) fn device_unit(&self, property: &Property) -> Result<Option<DeviceUnit>, Fault<'a>> {
        let Some(((policy, spec), code)) = self.first(|p| p.device_unit.as_deref()) else { return Ok(None) };
        if spec.property.is_none() && !property.is_numeric() {
            return Ok(None); // It is said of all properties, and meant for numbers.
        }
        let fault = |reason: String| (policy, FieldError::new("spec.deviceUnit", reason));
        if !property.is_numeric() {
            return Err(fault(format!("{:?} values have no unit", property.value_type)));
        }
        let unit = Unit::parse(code).map_err(|why| fault(why.to_string()))?;
        let to_twin = property.conversion_from(code).map_err(|why| fault(why.to_string()))?;
        let Some(own) = property.ucum.as_ref().filter(|own| !own.is_same(&unit)) else { return Ok(None) };
        let to_device = own.to(&unit).map_err(|why| fault(why.to_string()))?;
        Ok(Some(DeviceUnit { unit, to_twin, to_device }))
    }
}
