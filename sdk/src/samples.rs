//! Where a driver puts what it read.

use std::collections::BTreeMap;

use bus::{Quality, UnixMillis, Value};

use crate::{Error, Point};

/// What became of one point of a batch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reading {
    Value { value: Value, quality: Quality, time: Option<UnixMillis> },
    Failed(Error),
}

impl Reading {
    /// What a raw value is to its property.
    pub(crate) fn of<A>(point: &Point<A>, raw: Value, quality: Quality, time: Option<UnixMillis>) -> Self {
        match point.scale.read(raw, point.value_type) {
            Ok(value) => Self::Value { value, quality, time },
            Err(wrong) => Self::Failed(Error::Bug(format!("{}: {wrong}", point.name))),
        }
    }
}

/// The readings of one [`Session::read`](crate::Session::read). A point that the driver leaves out counts as failed;
/// said twice, the last word counts.
#[derive(Debug, Default)]
pub struct Samples {
    readings: BTreeMap<String, Reading>,
}

impl Samples {
    /// A good value, read now.
    pub fn good<A>(&mut self, point: &Point<A>, value: Value) {
        self.push(point, value, Quality::Good, None);
    }

    /// A raw value with its quality and, if the device says, the time at its source. It must be of the property's type
    /// (a whole float is an int, an int is a float, nothing else is guessed), or a number where the property has a scale;
    /// otherwise the point counts as failed.
    pub fn push<A>(&mut self, point: &Point<A>, value: Value, quality: Quality, time: Option<UnixMillis>) {
        self.readings.insert(point.name.clone(), Reading::of(point, value, quality, time));
    }

    /// This one point could not be read; the others are not concerned.
    pub fn failed<A>(&mut self, point: &Point<A>, error: Error) {
        self.readings.insert(point.name.clone(), Reading::Failed(error));
    }

    pub(crate) fn take(&mut self, point: &str) -> Option<Reading> {
        self.readings.remove(point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::Scale;
    use bus::ValueType;

    #[test]
    fn a_value_of_the_wrong_type_counts_as_failed() {
        let point =
            Point { name: "level".into(), value_type: ValueType::Float, address: (), scale: Scale::NONE };
        let mut samples = Samples::default();
        samples.good(&point, Value::Int(3));
        let reading = Reading::Value { value: Value::Float(3.0), quality: Quality::Good, time: None };
        assert_eq!(samples.take("level"), Some(reading));
        for wrong in [Value::Text("3".into()), Value::Float(f64::NAN)] {
            samples.good(&point, wrong);
            assert!(matches!(samples.take("level"), Some(Reading::Failed(Error::Bug(_)))));
        }
        samples.good(&point, Value::Float(1.0));
        samples.failed(&point, Error::Device("no".into()));
        assert_eq!(samples.take("level"), Some(Reading::Failed(Error::Device("no".into()))));
        assert_eq!(samples.take("level"), None);
    }
}
