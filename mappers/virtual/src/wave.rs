//! Values that are a pure function of the time.

use std::f64::consts::TAU;

use kubebus_sdk::JsonSchema;
use serde::Deserialize;

/// The shape of a wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// From the middle up at time 0.
    Sine,
    /// From `min` to `max` in one period, then back at once.
    Ramp,
    /// Always `max`.
    Constant,
}

/// A wave between two values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wave {
    pub waveform: Shape,
    /// Length of one period in seconds.
    pub period_s: f64,
    pub min: f64,
    pub max: f64,
}

impl Wave {
    /// The value at a time in seconds. A period that is not positive makes a wave that stands still.
    ///
    /// ```
    /// use mapper_virtual::wave::{Shape, Wave};
    /// let ramp = Wave { waveform: Shape::Ramp, period_s: 10.0, min: 0.0, max: 5.0 };
    /// assert_eq!(ramp.at(14.0), 2.0);
    /// ```
    pub fn at(&self, seconds: f64) -> f64 {
        let Self { waveform, period_s, min, max } = *self;
        let phase = if period_s > 0.0 { seconds.rem_euclid(period_s) / period_s } else { 0.0 };
        let share = match waveform {
            Shape::Sine => 0.5 + 0.5 * (TAU * phase).sin(),
            Shape::Ramp => phase,
            Shape::Constant => 1.0,
        };
        min + (max - min) * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_are_where_they_should_be() {
        let table = [
            (Shape::Sine, [2.0, 4.0, 2.0, 0.0, 2.0]),
            (Shape::Ramp, [0.0, 1.0, 2.0, 3.0, 0.0]),
            (Shape::Constant, [4.0; 5]),
        ];
        for (waveform, expected) in table {
            let wave = Wave { waveform, period_s: 8.0, min: 0.0, max: 4.0 };
            for (quarter, expected) in expected.into_iter().enumerate() {
                let value = wave.at(800.0 + 2.0 * quarter as f64);
                assert!((value - expected).abs() < 1e-9, "{waveform:?} {quarter}: {value}");
            }
        }
    }

    #[test]
    fn a_wave_without_a_period_stands_still() {
        let wave = Wave { waveform: Shape::Ramp, period_s: 0.0, min: 1.0, max: 2.0 };
        assert_eq!((wave.at(0.0), wave.at(17.0)), (1.0, 1.0));
    }
}
