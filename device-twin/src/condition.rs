//! What must hold before something is done: `tank/level < 3.2`, over reported values, in three-valued logic.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bus::twin::DeviceId;
use bus::{Quality, Sample, Value};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::Span;
use crate::rule::{Op, Truth};
use crate::twin::PropertyId;

/// Conditions of one command or change: each is looked at, none is free.
pub const MAX_CONDITIONS: usize = 16;

/// One comparison with a reported value, which must be good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// `<namespace>/<name>`; absent: the device that the command is for.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "device_text")]
    pub device: Option<DeviceId>,
    pub property: String,
    pub op: Op,
    pub value: Value,
    /// Older readings are unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
}

/// A text that is no condition.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is no condition; write 'level<3.2', 'water/tank/level>=1' or 'mode==auto'")]
pub struct InvalidCondition(String);

impl Condition {
    /// The property it looks at, for a command to `device`.
    pub fn source(&self, device: &DeviceId) -> PropertyId {
        PropertyId::new(self.device.as_ref().unwrap_or(device), &self.property)
    }

    /// Whether it holds of a reading of this age (`None`: not known). Bad, absent or too old: unknown.
    pub fn holds(&self, reading: Option<(&Sample, Option<Duration>)>) -> Truth {
        let Some((sample, age)) = reading.filter(|(sample, _)| sample.quality > Quality::Bad) else {
            return Truth::Unknown;
        };
        if self.max_age.is_some_and(|max| age.is_none_or(|age| age > max.0)) {
            return Truth::Unknown;
        }
        compare(self.op, &sample.value, &self.value).map_or(Truth::Unknown, Truth::from)
    }
}

/// `None` where there is no order: texts can only be equal.
fn compare(op: Op, left: &Value, right: &Value) -> Option<bool> {
    let numbers = left.as_f64().zip(right.as_f64());
    match op {
        Op::Equal => Some(numbers.map_or(left == right, |(left, right)| left == right)),
        Op::Above => numbers.map(|(left, right)| left > right),
        Op::AtLeast => numbers.map(|(left, right)| left >= right),
        Op::Below => numbers.map(|(left, right)| left < right),
        Op::AtMost => numbers.map(|(left, right)| left <= right),
    }
}

/// A device as people write it.
mod device_text {
    use bus::twin::DeviceId;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(device: &Option<DeviceId>, to: S) -> Result<S::Ok, S::Error> {
        match device {
            Some(device) => to.collect_str(device),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Option<DeviceId>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

/// The first condition that does not hold, told for people.
pub(crate) fn unmet<'c>(
    conditions: &'c [Condition],
    mut look: impl FnMut(&'c Condition) -> (Truth, Option<Value>),
) -> Option<String> {
    conditions.iter().find_map(|condition| match look(condition) {
        (Truth::True, _) => None,
        (Truth::False, Some(value)) => Some(format!("'{condition}' does not hold: it is {value}")),
        (Truth::False | Truth::Unknown, _) => {
            Some(format!("whether '{condition}' holds cannot be told: no good and recent value"))
        }
    })
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(device) = &self.device {
            write!(f, "{device}/")?;
        }
        let op = match self.op {
            Op::Above => ">",
            Op::AtLeast => ">=",
            Op::Below => "<",
            Op::AtMost => "<=",
            Op::Equal => "==",
        };
        write!(f, "{}{op}{}", self.property, self.value)
    }
}

impl FromStr for Condition {
    type Err = InvalidCondition;

    fn from_str(text: &str) -> Result<Self, InvalidCondition> {
        let invalid = || InvalidCondition(text.chars().take(80).collect());
        let (at, op) = operator(text).ok_or_else(invalid)?;
        let (left, right) = (text[..at].trim(), text[at + op.0.len()..].trim());
        let (device, property) = match left.rsplit_once('/') {
            Some((device, property)) => (Some(device.parse().map_err(|_| invalid())?), property),
            None => (None, left),
        };
        let value = serde_json::from_str(right).unwrap_or_else(|_| Value::Text(right.to_owned()));
        let has_order = !matches!(value, Value::Text(_) | Value::Struct(_));
        if property.is_empty() || right.is_empty() || !(has_order || op.1 == Op::Equal) {
            return Err(invalid());
        }
        Ok(Self { device, property: property.to_owned(), op: op.1, value, max_age: None })
    }
}

/// The first operator, the longer of two that begin alike.
fn operator(text: &str) -> Option<(usize, (&'static str, Op))> {
    const ALL: [(&str, Op); 5] =
        [(">=", Op::AtLeast), ("<=", Op::AtMost), ("==", Op::Equal), (">", Op::Above), ("<", Op::Below)];
    ALL.into_iter().filter_map(|op| Some((text.find(op.0)?, op))).min_by_key(|(at, op)| (*at, 2 - op.0.len()))
}

#[cfg(test)]
mod tests {
    use bus::UnixMillis;

    use super::*;

    fn good(value: Value) -> Sample {
        Sample { value, time: UnixMillis(0), quality: Quality::Good }
    }

    #[test]
    fn a_condition_reads_back_as_it_is_written() {
        for text in ["level<3.2", "water/tank/level>=1", "mode==auto", "open==true", "a<=-4", "x>0"] {
            assert_eq!(text.parse::<Condition>().unwrap().to_string(), text);
        }
        for text in ["", "level", "<3", "level<", "mode<auto", "a b/c/d<1", "W/t/l<1"] {
            assert!(text.parse::<Condition>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_bad_absent_too_old_or_of_another_kind_is_unknown() {
        let mut condition: Condition = "level<3.2".parse().unwrap();
        let low = good(Value::Float(3.0));
        let bad = Sample { quality: Quality::Bad, ..low.clone() };
        assert_eq!(condition.holds(Some((&low, None))), Truth::True);
        assert_eq!(condition.holds(Some((&good(Value::Int(4)), None))), Truth::False);
        assert_eq!(condition.holds(Some((&bad, None))), Truth::Unknown);
        assert_eq!(condition.holds(Some((&good(Value::Text("3".into())), None))), Truth::Unknown);
        assert_eq!(condition.holds(None), Truth::Unknown);
        condition.max_age = Some(Span(Duration::from_secs(5)));
        assert_eq!(condition.holds(Some((&low, None))), Truth::Unknown);
        assert_eq!(condition.holds(Some((&low, Some(Duration::from_secs(5))))), Truth::True);
        assert_eq!(condition.holds(Some((&low, Some(Duration::from_secs(6))))), Truth::Unknown);
    }
}
