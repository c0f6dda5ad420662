//! How large the utility is.

/// Sizes of the utility. The default is made so that the level visibly moves within minutes at a time factor of 60:
/// the open valve fills about 1.4 m per hour against the morning's demand, the shut one lets it fall by about as much.
#[derive(Debug, Clone, PartialEq)]
pub struct UtilityConfig {
    pub tank: TankConfig,
    pub main: MainConfig,
    pub valve: ValveConfig,
    /// A second valve beside the first, from the main's end into the tank; none by default.
    pub valve2: Option<ValveConfig>,
    pub demand: DemandConfig,
    pub sensors: SensorConfig,
    /// Time of day at which the run starts, in hours.
    pub start_hour: f64,
}

/// A tank with upright walls.
#[derive(Debug, Clone, PartialEq)]
pub struct TankConfig {
    pub area_m2: f64,
    /// Above this level the water runs over.
    pub height_m: f64,
    pub start_level_m: f64,
    /// Height of the tank's floor above the source, in metres.
    pub elevation_m: f64,
}

/// The supply main from the source to the valve.
#[derive(Debug, Clone, PartialEq)]
pub struct MainConfig {
    pub source_bar: f64,
    pub length_m: f64,
    pub section_m2: f64,
    /// Friction: pressure loss in bar per (m³/h)².
    pub friction: f64,
    /// Speed of a pressure wave in the pipe, in m/s (about 1,200 in ductile iron).
    pub wave_speed: f64,
    /// Pressure that the pipe is made for, in bar, surges included; each time that it is exceeded is counted.
    pub surge_limit_bar: f64,
}

/// The motor valve at the main's end.
#[derive(Debug, Clone, PartialEq)]
pub struct ValveConfig {
    /// Flow coefficient of the open valve (US gallons per minute at 1 psi).
    pub cv: f64,
    /// Rangeability `R` of the equal-percentage trim.
    pub rangeability: f64,
    /// Time for the full way from 0 to 100 %, in seconds; 0: at once, which no real main survives for long.
    pub travel_s: f64,
    pub start_percent: f64,
    /// The stored level at the start, in metres.
    pub start_setpoint_m: f64,
    /// After so many simulated seconds without any request, the valve's own PLC takes over. `None`: never.
    pub watchdog_s: Option<f64>,
    /// Where the PLC then drives the valve, in %.
    pub safe_percent: f64,
}

/// What the town takes.
#[derive(Debug, Clone, PartialEq)]
pub struct DemandConfig {
    /// Mean over the day, in m³/h.
    pub mean: f64,
    /// Standard deviation of the noise, as a share of the demand.
    pub noise: f64,
}

/// How well the sensors see.
#[derive(Debug, Clone, PartialEq)]
pub struct SensorConfig {
    /// Standard deviation of the level reading, in metres (ultrasonic sensor: a few millimetres).
    pub level_noise_m: f64,
    /// Smallest step of the level reading, in metres.
    pub level_step_m: f64,
    /// Smallest step of the pressure reading, in bar.
    pub pressure_step_bar: f64,
    /// Smallest step of the flow readings, in m³/h.
    pub flow_step: f64,
    /// Smallest step of the valve's position feedback, in %.
    pub position_step_percent: f64,
}

impl Default for UtilityConfig {
    fn default() -> Self {
        Self {
            tank: TankConfig { area_m2: 40.0, height_m: 6.0, start_level_m: 2.5, elevation_m: 25.0 },
            // 180 mm over 2 km: about 1 m/s and 7 m/km of friction at 95 m³/h.
            main: MainConfig {
                source_bar: 5.0,
                length_m: 2000.0,
                section_m2: 0.0254,
                friction: 1.56e-4,
                wave_speed: 1200.0,
                surge_limit_bar: 8.0,
            },
            valve: ValveConfig {
                cv: 120.0,
                rangeability: 50.0,
                travel_s: 60.0,
                start_percent: 75.0,
                start_setpoint_m: 4.0,
                watchdog_s: None,
                safe_percent: 70.0,
            },
            valve2: None,
            demand: DemandConfig { mean: 45.0, noise: 0.05 },
            sensors: SensorConfig {
                level_noise_m: 0.003,
                level_step_m: 0.001,
                pressure_step_bar: 0.01,
                flow_step: 0.1,
                position_step_percent: 0.1,
            },
            start_hour: 5.0,
        }
    }
}
