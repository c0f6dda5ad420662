//! Which readings are told: with a deadband not each.

use std::time::Duration;

use bus::twin::PropertyConfig;
use bus::{Mono, Quality, Sample, Value};

/// A value that stays as it is, is told this often if nobody says how old it may become.
const REFRESH: Duration = Duration::from_secs(10);

/// What was told of one property.
///
/// The rules, first match wins: without a deadband everything is told; so is the first value, another quality, and
/// whatever comes when the last word is a third of `max_age` old; a number is told when it has moved by the deadband,
/// anything else when it is another.
#[derive(Debug)]
pub(crate) struct Telling {
    deadband: Option<f64>,
    refresh: Duration,
    told: Option<(Value, Quality, Mono)>,
}

impl Telling {
    pub(crate) fn new(property: &PropertyConfig) -> Self {
        let mut telling = Self { deadband: None, refresh: REFRESH, told: None };
        telling.configure(property);
        telling
    }

    pub(crate) fn configure(&mut self, property: &PropertyConfig) {
        self.deadband = property.deadband.filter(|band| *band > 0.0);
        self.refresh = property.max_age_ms.map_or(REFRESH, |max_age| Duration::from_millis(max_age / 3));
    }

    /// Whether a reading is to be told; if so, it counts as told. What is told only because it is time does not move the
    /// value from which the deadband counts: the node, which has one too, does not take it for news.
    pub(crate) fn tells(&mut self, sample: &Sample, now: Mono) -> bool {
        if let (Some(deadband), Some((value, quality, at))) = (self.deadband, &mut self.told)
            && *quality == sample.quality
            && !has_moved(value, &sample.value, deadband)
        {
            let is_time = *at + self.refresh <= now;
            if is_time {
                *at = now;
            }
            return is_time;
        }
        self.told = Some((sample.value.clone(), sample.quality, now));
        true
    }
}

fn has_moved(old: &Value, new: &Value, deadband: f64) -> bool {
    match (old, new) {
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => {
            old.as_f64().zip(new.as_f64()).is_none_or(|(old, new)| (old - new).abs() >= deadband)
        }
        _ => old != new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::UnixMillis;
    use proptest::prelude::*;

    fn telling(deadband: Option<f64>, max_age_ms: Option<u64>) -> Telling {
        Telling::new(&PropertyConfig { deadband, max_age_ms, ..crate::tests::property("level") })
    }

    fn sample(value: Value, quality: Quality) -> Sample {
        Sample { value, time: UnixMillis(0), quality }
    }

    fn told(telling: &mut Telling, values: &[f64]) -> Vec<bool> {
        let good = |value: &f64| sample(Value::Float(*value), Quality::Good);
        values.iter().map(|value| telling.tells(&good(value), Mono::ZERO)).collect()
    }

    #[test]
    fn without_a_deadband_everything_is_told() {
        for deadband in [None, Some(0.0), Some(-1.0), Some(f64::NAN)] {
            assert_eq!(told(&mut telling(deadband, None), &[1.0, 1.0]), [true, true]);
        }
    }

    #[test]
    fn a_number_is_told_when_it_has_moved_from_what_was_told() {
        let mut creeping = telling(Some(0.5), None);
        assert_eq!(
            told(&mut creeping, &[1.0, 1.3, 1.49, 1.5, 1.1, 1.0]),
            [true, false, false, true, false, true]
        );
    }

    #[test]
    fn another_quality_and_another_text_are_told() {
        let mut telling = telling(Some(9.0), None);
        let table = [
            (Value::Int(1), Quality::Good, true),
            (Value::Int(1), Quality::Bad, true),
            (Value::Int(1), Quality::Bad, false),
            (Value::Int(1), Quality::Good, true),
            (Value::Text("a".into()), Quality::Good, true),
            (Value::Text("a".into()), Quality::Good, false),
            (Value::Bool(true), Quality::Good, true),
            (Value::Bool(false), Quality::Good, true),
        ];
        for (value, quality, news) in table {
            let sample = sample(value, quality);
            assert_eq!(telling.tells(&sample, Mono::ZERO), news, "{sample:?}");
        }
    }

    #[test]
    fn what_stays_is_told_now_and_then() {
        for (max_age_ms, refresh_ms) in [(None, 10_000), (Some(3000), 1000)] {
            let mut telling = telling(Some(1.0), max_age_ms);
            let constant = sample(Value::Float(1.0), Quality::Good);
            let mut told_at = |ms: u64| telling.tells(&constant, Mono(ms * 1000));
            assert!(told_at(5));
            assert!(!told_at(5 + refresh_ms - 1));
            assert!(told_at(5 + refresh_ms));
            assert!(!told_at(5 + refresh_ms + 1));
        }
    }

    proptest! {
        #[test]
        fn what_was_told_last_is_never_further_off_than_the_deadband(
            values in proptest::collection::vec(-50.0..50.0f64, 1..100),
            deadband in 0.01..20.0f64,
        ) {
            let mut telling = telling(Some(deadband), None);
            let mut known = f64::NAN;
            for value in values {
                if telling.tells(&sample(Value::Float(value), Quality::Good), Mono::ZERO) {
                    known = value;
                }
                prop_assert!((known - value).abs() < deadband);
            }
        }
    }
}
