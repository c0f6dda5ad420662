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
