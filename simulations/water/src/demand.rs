//! What the town takes over the day.

use crate::config::DemandConfig;
use crate::noise::Noise;

/// Share of the mean demand by hour of the day: little at night, a morning and an evening peak (the usual shape of
/// residential demand). The mean is 1.
const BY_HOUR: [f64; 24] = [
    0.50, 0.42, 0.40, 0.40, 0.48, 0.75, 1.20, 1.55, 1.50, 1.30, 1.15, 1.10, 1.15, 1.10, 1.00, 0.98, 1.05,
    1.25, 1.50, 1.48, 1.28, 1.05, 0.81, 0.60,
];

/// How long a deviation from the pattern lasts, in seconds: people open taps for minutes, not for a moment.
const MEMORY_S: f64 = 300.0;

/// The town.
#[derive(Debug, Clone)]
pub struct Demand {
    config: DemandConfig,
    noise: Noise,
    deviation: f64,
}

impl Demand {
    pub fn new(config: DemandConfig, seed: u64) -> Self {
        Self { config, noise: Noise::new(seed), deviation: 0.0 }
    }

    /// What the town would take in the next `dt` seconds, in m³/h.
    pub fn next(&mut self, hour: f64, dt: f64) -> f64 {
        // First-order autoregressive noise whose spread does not depend on the step.
        let keep = (-dt / MEMORY_S).exp();
        self.deviation = keep * self.deviation + (1.0 - keep * keep).sqrt() * self.noise.normal();
        (self.config.mean * pattern(hour) * (1.0 + self.config.noise * self.deviation)).max(0.0)
    }
}

/// The pattern at a time of day, straight between the hours.
pub fn pattern(hour: f64) -> f64 {
    let hour = hour.rem_euclid(24.0);
    let index = (hour as usize).min(23);
    let (here, next) = (BY_HOUR[index], BY_HOUR[(index + 1) % 24]);
    here + (next - here) * hour.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_has_mean_one_and_closes_at_midnight() {
        assert!((BY_HOUR.iter().sum::<f64>() / 24.0 - 1.0).abs() < 1e-9);
        assert!((pattern(23.999_999) - pattern(0.0)).abs() < 1e-3);
        assert_eq!(pattern(7.5), (1.55 + 1.50) / 2.0);
        assert_eq!(pattern(31.0), pattern(7.0));
    }

    #[test]
    fn demand_follows_the_pattern_within_its_noise_whatever_the_step() {
        for dt in [1.0, 10.0] {
            let mut demand = Demand::new(DemandConfig { mean: 45.0, noise: 0.05 }, 1);
            let steps = (3600.0 * 200.0 / dt) as usize;
            let mean = (0..steps).map(|_| demand.next(7.0, dt)).sum::<f64>() / steps as f64;
            assert!((mean / (45.0 * 1.55) - 1.0).abs() < 0.01, "{dt}: {mean}");
        }
    }
}
