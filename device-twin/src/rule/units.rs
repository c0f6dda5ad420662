//! In what units a rule counts.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bus::Value;
use serde::{Deserialize, Serialize};

use super::document::{Input, RuleSpec};

/// From one unit to another: `factor * number + offset`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    pub factor: f64,
    /// Differences (a margin, a hysteresis, a change) do not have it.
    pub offset: f64,
}

impl Scale {
    pub const IDENTITY: Self = Self { factor: 1.0, offset: 0.0 };

    pub fn of(self, number: f64) -> f64 {
        self.factor * number + self.offset
    }

    pub fn of_difference(self, number: f64) -> f64 {
        self.factor * number
    }

    /// Texts have no unit and stay as they are.
    pub(super) fn counted(self, value: &Value) -> Cow<'_, Value> {
        match value.as_f64() {
            Some(number) if self != Self::IDENTITY => Cow::Owned(Value::Float(self.of(number))),
            _ => Cow::Borrowed(value),
        }
    }
}

/// The conversions of one rule. What is not named is counted as it is; `None`: one unit cannot be made the other, or
/// is not known (yet), and whatever hangs on it is unknown.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Counting {
    /// By input: from its property's unit to the one in which the rule counts it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, Option<Scale>>,
    /// By number in [`super::RuleSpec::predicates`]: from the predicate's unit to the one in which its input is counted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub predicates: BTreeMap<usize, Option<Scale>>,
}

impl Counting {
    /// What `spec` needs. `unit_of` says in what unit a property is, `convert` how to come from one unit to another.
    pub fn new(
        spec: &RuleSpec,
        unit_of: impl Fn(&Input) -> Option<String>,
        convert: impl Fn(&str, &str) -> Option<Scale>,
    ) -> Self {
        let mut counting = Self::default();
        for (name, input) in &spec.inputs {
            if let Some(unit) = &input.unit {
                let scale = unit_of(input).and_then(|from| convert(&from, unit));
                counting.inputs.insert(name.clone(), scale);
            }
        }
        for (number, predicate) in spec.predicates().into_iter().enumerate() {
            if let Some(unit) = &predicate.unit {
                let input = spec.inputs.get(&predicate.input);
                let counted = input.and_then(|input| input.unit.clone().or_else(|| unit_of(input)));
                counting.predicates.insert(number, counted.and_then(|to| convert(unit, &to)));
            }
        }
        counting.inputs.retain(|_, scale| *scale != Some(Scale::IDENTITY));
        counting.predicates.retain(|_, scale| *scale != Some(Scale::IDENTITY));
        counting
    }

    pub(super) fn input(&self, name: &str) -> Option<Scale> {
        self.inputs.get(name).copied().unwrap_or(Some(Scale::IDENTITY))
    }

    pub(super) fn predicate(&self, number: usize) -> Option<Scale> {
        self.predicates.get(&number).copied().unwrap_or(Some(Scale::IDENTITY))
    }
}
