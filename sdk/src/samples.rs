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

    /// A value with its quality and, if the device says, the time at its source. It must be of the property's type
    /// (a whole float is an int, an int is a float, nothing else is guessed), or the point counts as failed.
    pub fn push<A>(&mut self, point: &Point<A>, value: Value, quality: Quality, time: Option<UnixMillis>) {
        let reading = match value.coerce(point.value_type) {
            Ok(value) => Reading::Value { value, quality, time },
            Err(wrong) => Reading::Failed(Error::Bug(format!("{}: {wrong}", point.name))),
        };
        self.readings.insert(point.name.clone(), reading);
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
    use bus::ValueType;

    #[test]
    fn a_value_of_the_wrong_type_counts_as_failed() {
        let point = Point { name: "level".into(), value_type: ValueType::Float, address: () };
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
