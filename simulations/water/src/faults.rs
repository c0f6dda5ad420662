//! What may go wrong with the plant. Nothing does by itself: somebody injects it, while it runs.

use std::collections::BTreeMap;

use crate::register::{Device, Register, RegisterError, check_range};

/// One thing that is wrong, or out of the ordinary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// A hole in the main, ahead of the valves: it loses `c·√p`, with `c` in m³/h per √bar.
    MainBurst { c: f64 },
    /// A hole in the town, which lies as high as the source: the same, at the pressure of the tank above it.
    TownBurst { c: f64 },
    /// The town takes `factor` times as much, for so many hours from now: a fire, a heat wave.
    DemandPeak { factor: f64, hours: f64 },
    /// A register is not answered any more.
    Silent { device: Device, register: Register },
    /// A register answers its present value for ever.
    Frozen { device: Device, register: Register },
    /// The level sensor is noisier: standard deviation in metres (foam, waves).
    LevelNoise { deviation_m: f64 },
}

/// Largest hole, in m³/h per √bar: a pipe as wide as the main torn off.
const LARGEST_HOLE: f64 = 2000.0;

/// Largest peak: all taps of a town at once.
const LARGEST_PEAK: f64 = 20.0;

/// Longest peak, in hours: a year.
const LONGEST_PEAK: f64 = 8760.0;

/// Largest noise, in metres: a sensor that sees nothing but foam.
const LARGEST_NOISE: f64 = 10.0;

impl Fault {
    /// Whether its figures can be.
    pub(crate) fn check(&self) -> Result<(), RegisterError> {
        match *self {
            Self::MainBurst { c } | Self::TownBurst { c } => check_range(c, 0.0, LARGEST_HOLE),
            Self::DemandPeak { factor, hours } => {
                check_range(factor, 0.0, LARGEST_PEAK)?;
                check_range(hours, 0.0, LONGEST_PEAK)
            }
            Self::LevelNoise { deviation_m } => check_range(deviation_m, 0.0, LARGEST_NOISE),
            Self::Silent { .. } | Self::Frozen { .. } => Ok(()),
        }
    }
}

/// How a sensor fails.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum BadSensor {
    Silent,
    FrozenAt(f64),
}

/// Everything that is wrong now.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Faults {
    /// In m³/h per √bar, as is the town's.
    pub(crate) main_burst: f64,
    pub(crate) town_burst: f64,
    peak: Option<Peak>,
    pub(crate) level_noise_m: Option<f64>,
    pub(crate) sensors: BTreeMap<(Device, Register), BadSensor>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Peak {
    factor: f64,
    until_s: f64,
}

impl Faults {
    /// `shown` is what the register of a frozen sensor shows now.
    pub(crate) fn inject(&mut self, fault: Fault, now_s: f64, shown: f64) {
        match fault {
            Fault::MainBurst { c } => self.main_burst = c,
            Fault::TownBurst { c } => self.town_burst = c,
            Fault::DemandPeak { factor, hours } => {
                self.peak = Some(Peak { factor, until_s: now_s + hours * 3600.0 });
            }
            Fault::LevelNoise { deviation_m } => self.level_noise_m = Some(deviation_m),
            Fault::Silent { device, register } => {
                self.sensors.insert((device, register), BadSensor::Silent);
            }
            Fault::Frozen { device, register } => {
                self.sensors.insert((device, register), BadSensor::FrozenAt(shown));
            }
        }
    }

    pub(crate) fn repair(&mut self, fault: Fault) {
        match fault {
            Fault::MainBurst { .. } => self.main_burst = 0.0,
            Fault::TownBurst { .. } => self.town_burst = 0.0,
            Fault::DemandPeak { .. } => self.peak = None,
            Fault::LevelNoise { .. } => self.level_noise_m = None,
            Fault::Silent { device, register } | Fault::Frozen { device, register } => {
                self.sensors.remove(&(device, register));
            }
        }
    }

    /// By how much the town's demand is multiplied.
    pub(crate) fn demand_factor(&self, now_s: f64) -> f64 {
        self.peak.filter(|peak| now_s < peak.until_s).map_or(1.0, |peak| peak.factor)
    }
}
