//! Whether a comparison with a constant can come out either way.

use bus::{Value, ValueType};

use crate::model::Property;
use crate::rule::{Op, Predicate};
use crate::twin::explain;

/// What is compared: the input's name for people, its property, and the unit of the threshold if that is another one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compared<'a> {
    pub(super) name: &'a str,
    pub(super) property: &'a Property,
    pub(super) unit: Option<&'a str>,
}

/// Why comparing with the predicate's constant makes no sense; `None` if it does, or if there is none.
///
/// A bound itself is no mistake: what lies beyond it is reported as uncertain, and a rule may wait for that.
pub(super) fn fault(predicate: &Predicate, compared: Compared<'_>) -> Option<String> {
    let given = predicate.value.as_ref()?;
    let Compared { name, property, unit } = compared;
    let conversion = match unit.map(|unit| property.conversion_from(unit)).transpose() {
        Ok(conversion) => conversion,
        Err(why) => return Some(explain(&why)),
    };
    let counted = |number| conversion.map_or(number, |conversion| conversion.apply(number));
    if predicate.op == Op::Equal {
        let own = match given {
            Value::Int(_) | Value::Float(_) => Value::Float(counted(given.as_f64()?)),
            Value::Bool(_) | Value::Text(_) | Value::Struct(_) => given.clone(),
        };
        let why = property.check(own).err()?;
        return Some(format!("{name} is never equal to {}: {}", shown(given, unit), explain(&why)));
    }
    let (minimum, maximum) = bounds(property);
    if !matches!(property.value_type, ValueType::Bool | ValueType::Int | ValueType::Float) {
        return Some(format!("{name} is no number: it is never above or below anything"));
    }
    let stated = given.as_f64()? + predicate.margin;
    let threshold = counted(stated);
    let is_above_all = maximum.is_some_and(|maximum| threshold > maximum);
    let is_below_all = minimum.is_some_and(|minimum| threshold < minimum);
    let (never, always) = match predicate.op {
        Op::Above | Op::AtLeast => (is_above_all, is_below_all),
        Op::Below | Op::AtMost => (is_below_all, is_above_all),
        Op::Equal => (false, false),
    };
    let goes = || format!("{name} goes {}", range(minimum, maximum, property, unit));
    let stated = shown(&Value::Float(stated), unit);
    if never {
        Some(format!("{stated} can never be reached: {}", goes()))
    } else if always {
        Some(format!("{} {stated} always holds: {}", word(predicate.op), goes()))
    } else {
        None
    }
}

/// The least and the greatest that the property holds.
fn bounds(property: &Property) -> (Option<f64>, Option<f64>) {
    if property.value_type == ValueType::Bool {
        return (Some(0.0), Some(1.0));
    }
    let Some(values) = &property.values else { return (property.minimum, property.maximum) };
    let numbers = || values.iter().filter_map(Value::as_f64);
    (numbers().reduce(f64::min), numbers().reduce(f64::max))
}

fn range(minimum: Option<f64>, maximum: Option<f64>, property: &Property, unit: Option<&str>) -> String {
    // Two units in one sentence need their names.
    let unit = unit.and(property.unit.as_deref()).map(|unit| format!(" {unit}")).unwrap_or_default();
    match (minimum, maximum) {
        (Some(minimum), Some(maximum)) => format!("from {minimum} to {maximum}{unit}"),
        (Some(minimum), None) => format!("from {minimum}{unit} upwards"),
        (None, Some(maximum)) => format!("up to {maximum}{unit}"),
        (None, None) => "anywhere".to_owned(),
    }
}

fn shown(value: &Value, unit: Option<&str>) -> String {
    unit.map_or_else(|| value.to_string(), |unit| format!("{value} {unit}"))
}

fn word(op: Op) -> &'static str {
    match op {
        Op::Above => "above",
        Op::Below => "below",
        Op::AtLeast => "at least",
        Op::AtMost => "at most",
        Op::Equal => "equal to",
    }
}
