//! From the units of properties to those in which a rule counts them.

use bus::twin::DeviceId;
use metadata::Keyspace;

use super::super::EdgeTwins;
use crate::rule::{Counting, Input, RuleSpec, Scale};
use crate::twin::PropertyId;
use crate::unit::{Conversion, Unit};

impl EdgeTwins {
    /// How the rule's inputs and constants become what it counts.
    pub(super) fn counting(&self, rule: &DeviceId, spec: &RuleSpec, ks: &Keyspace) -> Counting {
        let mut counting = Counting::default();
        for (name, input) in &spec.inputs {
            if let Some(wanted) = &input.unit {
                let scale = convert(self.unit_of(rule, input, ks), Unit::parse(wanted).ok());
                counting.inputs.insert(name.clone(), scale);
            }
        }
        for (number, predicate) in spec.predicates().into_iter().enumerate() {
            let (Some(given), Some(input)) = (&predicate.unit, spec.inputs.get(&predicate.input)) else {
                continue;
            };
            let counted = match &input.unit {
                Some(unit) => Unit::parse(unit).ok(),
                None => self.unit_of(rule, input, ks),
            };
            counting.predicates.insert(number, convert(Unit::parse(given).ok(), counted));
        }
        counting
    }

    /// The unit of the property itself; of another site's it is told under `/m/unit/`.
    fn unit_of(&self, rule: &DeviceId, input: &Input, ks: &Keyspace) -> Option<Unit> {
        let device = RuleSpec::device(rule, &input.device)?;
        if self.devices.contains_key(&device) {
            let property = self.catalog.property(&device, &input.property).ok()?;
            return Unit::of_text(property.unit.as_deref()?);
        }
        let id = PropertyId::new(&device, &input.property);
        let text = ks.get(&format!("/m/unit/{id}"))?;
        Unit::of_text(std::str::from_utf8(text).ok()?)
    }
}

fn convert(from: Option<Unit>, to: Option<Unit>) -> Option<Scale> {
    let conversion: Conversion = from?.to(&to?).ok()?;
    Some(Scale { factor: conversion.factor(), offset: conversion.offset() })
}
