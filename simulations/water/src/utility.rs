//! The whole utility, step by step.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::config::UtilityConfig;
use crate::demand::Demand;
use crate::hydraulics::{self, BAR_PER_M};
use crate::noise::Noise;

/// How many valve commands are kept for inspection: more than a day of one per two minutes. The oldest go first;
/// their number is kept.
const MAX_COMMANDS_KEPT: usize = 1024;

/// One of the two devices of the utility.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    /// At site A: `level`, `outflow`, and `mixer` (writable).
    Tank,
    /// At site B: `position` and `setpoint` (both writable), `pressure`, `inflow`.
    Valve,
}

/// What a device shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Register {
    /// Water level in m, as the sensor sees it.
    Level,
    /// Flow to the town in m³/h.
    Outflow,
    /// Where the valve stands, in %; written: where it shall go.
    Position,
    /// A stored level in m for whoever controls the valve; moves nothing by itself.
    Setpoint,
    /// Pressure ahead of the valve in bar.
    Pressure,
    /// Flow into the tank in m³/h.
    Inflow,
    /// Speed of the mixer that keeps the tank's water fresh, in %: an actuator that no rule touches.
    Mixer,
}

/// Why a register could not be read or written.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum RegisterError {
    #[error("no register {0:?}")]
    Unknown(String),
    #[error("{device} has no register {register}")]
    Elsewhere { device: Device, register: Register },
    #[error("{0} cannot be written")]
    ReadOnly(Register),
    #[error("{value} is outside {minimum} to {maximum}")]
    OutOfRange { value: f64, minimum: f64, maximum: f64 },
}

/// A command to an actuator that was accepted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Command {
    /// Simulated time in seconds.
    pub at_s: f64,
    pub percent: f64,
}

/// The true state, as no sensor sees it. Flows in m³/h, volumes in m³.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Snapshot {
    /// Simulated time since the start, in seconds.
    pub time_s: f64,
    pub level_m: f64,
    pub inflow: f64,
    pub outflow: f64,
    pub position_percent: f64,
    pub target_percent: f64,
    pub setpoint_m: f64,
    pub pressure_bar: f64,
    /// What ran over so far.
    pub spilled_m3: f64,
    /// What the town asked for and did not get.
    pub unserved_m3: f64,
    /// Water that the simulation invented or lost: its own error, not the utility's.
    pub mass_balance_error_m3: f64,
    /// Accepted position commands so far.
    pub commands: u64,
}

/// Volumes since the start, in m³.
#[derive(Debug, Clone, Default)]
struct Totals {
    inflow: f64,
    outflow: f64,
    spilled: f64,
    unserved: f64,
}

/// The utility. See the crate's page.
#[derive(Debug, Clone)]
pub struct Utility {
    config: UtilityConfig,
    demand: Demand,
    noise: Noise,
    time_s: f64,
    volume_m3: f64,
    start_volume_m3: f64,
    inflow: f64,
    outflow: f64,
    /// 0 to 1.
    opening: f64,
    target: f64,
    setpoint_m: f64,
    surge_bar: f64,
    totals: Totals,
    /// What the level sensor sees; changes with time only, never by being read.
    noisy_level_m: f64,
    mixer_percent: f64,
    valve_log: CommandLog,
    mixer_log: CommandLog,
}

/// Accepted commands of one actuator: how many, and the last ones.
#[derive(Debug, Clone, Default)]
struct CommandLog {
    count: u64,
    kept: VecDeque<Command>,
}

impl CommandLog {
    fn push(&mut self, at_s: f64, percent: f64) {
        self.count += 1;
        if self.kept.len() == MAX_COMMANDS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Command { at_s, percent });
    }
}

impl Utility {
    pub fn new(config: UtilityConfig, seed: u64) -> Self {
        let volume = config.tank.start_level_m * config.tank.area_m2;
        let opening = config.valve.start_percent / 100.0;
        let mut utility = Self {
            demand: Demand::new(config.demand.clone(), seed),
            // Another stream of the same seed.
            noise: Noise::new(!seed),
            time_s: 0.0,
            volume_m3: volume,
            start_volume_m3: volume,
            inflow: 0.0,
            outflow: 0.0,
            opening,
            target: opening,
            setpoint_m: config.valve.start_setpoint_m,
            surge_bar: 0.0,
            totals: Totals::default(),
            noisy_level_m: 0.0,
            mixer_percent: 0.0,
            valve_log: CommandLog::default(),
            mixer_log: CommandLog::default(),
            config,
        };
        // The flow is steady before the first step: starting is no surge.
        utility.inflow = utility.steady_flow();
        utility.sense();
        utility
    }

    /// Lets `dt` seconds pass. Steps of 0.1 to 10 s are sensible; the valve's travel is followed exactly in any.
    pub fn step(&mut self, dt: f64) {
        let moved_for = self.move_valve(dt);
        let before = hydraulics::velocity(self.inflow, &self.config.main);
        self.inflow = self.steady_flow();
        let change = hydraulics::velocity(self.inflow, &self.config.main) - before;
        self.feel_surge(change, moved_for, dt);
        self.fill(dt);
        self.time_s += dt;
        self.sense();
    }

    pub fn read(&self, device: Device, register: Register) -> Result<f64, RegisterError> {
        check_place(device, register)?;
        let sensors = &self.config.sensors;
        Ok(match register {
            Register::Level => quantised(self.noisy_level_m, sensors.level_step_m),
            Register::Outflow => quantised(self.outflow, sensors.flow_step),
            Register::Position => quantised(self.opening * 100.0, sensors.position_step_percent),
            Register::Setpoint => self.setpoint_m,
            Register::Pressure => quantised(self.pressure(), sensors.pressure_step_bar),
            Register::Inflow => quantised(self.inflow, sensors.flow_step),
            Register::Mixer => self.mixer_percent,
        })
    }

    /// Takes a command. The valve then approaches the position at its own speed, in [`step`](Self::step).
    pub fn write(&mut self, device: Device, register: Register, value: f64) -> Result<(), RegisterError> {
        check_place(device, register)?;
        match register {
            Register::Position => {
                check_range(value, 0.0, 100.0)?;
                self.command(value);
            }
            Register::Setpoint => {
                check_range(value, 0.0, self.config.tank.height_m)?;
                self.setpoint_m = value;
            }
            Register::Mixer => {
                check_range(value, 0.0, 100.0)?;
                self.mixer_percent = value;
                self.mixer_log.push(self.time_s, value);
            }
            Register::Level | Register::Outflow | Register::Pressure | Register::Inflow => {
                return Err(RegisterError::ReadOnly(register));
            }
        }
        Ok(())
    }

    /// The accepted position commands, oldest first: proof of what moved the valve, and when.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.valve_log.kept.iter()
    }

    /// The same of the mixer.
    pub fn mixer_commands(&self) -> impl Iterator<Item = &Command> {
        self.mixer_log.kept.iter()
    }

    pub fn snapshot(&self) -> Snapshot {
        let Totals { inflow, outflow, spilled, unserved } = self.totals;
        Snapshot {
            time_s: self.time_s,
            level_m: self.level(),
            inflow: self.inflow,
            outflow: self.outflow,
            position_percent: self.opening * 100.0,
            target_percent: self.target * 100.0,
            setpoint_m: self.setpoint_m,
            pressure_bar: self.pressure(),
            spilled_m3: spilled,
            unserved_m3: unserved,
            mass_balance_error_m3: self.volume_m3 - self.start_volume_m3 - inflow + outflow + spilled,
            commands: self.valve_log.count,
        }
    }

    fn level(&self) -> f64 {
        self.volume_m3 / self.config.tank.area_m2
    }

    fn pressure(&self) -> f64 {
        let main = &self.config.main;
        main.source_bar - main.friction * self.inflow.powi(2) + self.surge_bar
    }

    fn steady_flow(&self) -> f64 {
        let lift = (self.config.tank.elevation_m + self.level()) * BAR_PER_M;
        let head = self.config.main.source_bar - lift;
        hydraulics::flow(head, self.opening, &self.config.main, &self.config.valve)
    }

    fn command(&mut self, percent: f64) {
        self.target = percent / 100.0;
        self.valve_log.push(self.time_s, percent);
    }

    /// Moves the valve towards its target; returns for how many of the `dt` seconds it moved.
    fn move_valve(&mut self, dt: f64) -> f64 {
        let (way, travel) = (self.target - self.opening, self.config.valve.travel_s);
        let moved_for = (way.abs() * travel).min(dt);
        if moved_for < dt || travel <= 0.0 {
            self.opening = self.target;
        } else {
            self.opening += way.signum() * dt / travel;
        }
        moved_for
    }

    /// The level's own slow pull on the flow is no surge: only a valve that moves makes one.
    fn feel_surge(&mut self, change: f64, moved_for: f64, dt: f64) {
        let main = &self.config.main;
        let left = self.surge_bar * (-dt / hydraulics::surge_memory(main)).exp();
        let instant = self.config.valve.travel_s <= 0.0;
        let fresh = if moved_for > 0.0 || instant { hydraulics::surge(change, moved_for, main) } else { 0.0 };
        self.surge_bar = if fresh.abs() > left.abs() { fresh } else { left };
    }

    /// `A·dh/dt = Qin - Qout - Qspill`, with a floor and a rim.
    fn fill(&mut self, dt: f64) {
        let hours = dt / 3600.0;
        let hour_of_day = self.config.start_hour + self.time_s / 3600.0;
        let wanted = self.demand.next(hour_of_day, dt) * hours;
        let arrived = self.inflow * hours;
        let taken = wanted.min(self.volume_m3 + arrived);
        let full = self.config.tank.height_m * self.config.tank.area_m2;
        let volume = self.volume_m3 + arrived - taken;
        let spilled = (volume - full).max(0.0);

        self.volume_m3 = volume - spilled;
        self.outflow = taken / hours;
        self.totals.inflow += arrived;
        self.totals.outflow += taken;
        self.totals.spilled += spilled;
        self.totals.unserved += wanted - taken;
    }

    fn sense(&mut self) {
        let level = self.level() + self.config.sensors.level_noise_m * self.noise.normal();
        self.noisy_level_m = level.max(0.0);
    }
}

/// To the nearest step, as a decimal number people can read if the step is one.
fn quantised(value: f64, step: f64) -> f64 {
    let per_unit = 1.0 / step;
    if step > 0.0 { (value * per_unit).round() / per_unit } else { value }
}

fn check_place(device: Device, register: Register) -> Result<(), RegisterError> {
    let home = match register {
        Register::Level | Register::Outflow | Register::Mixer => Device::Tank,
        Register::Position | Register::Setpoint | Register::Pressure | Register::Inflow => Device::Valve,
    };
    if home == device { Ok(()) } else { Err(RegisterError::Elsewhere { device, register }) }
}

fn check_range(value: f64, minimum: f64, maximum: f64) -> Result<(), RegisterError> {
    if (minimum..=maximum).contains(&value) {
        return Ok(());
    }
    Err(RegisterError::OutOfRange { value, minimum, maximum })
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tank => "tank",
            Self::Valve => "valve",
        })
    }
}

impl Register {
    const ALL: [Self; 7] = [
        Self::Level,
        Self::Outflow,
        Self::Position,
        Self::Setpoint,
        Self::Pressure,
        Self::Inflow,
        Self::Mixer,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Level => "level",
            Self::Outflow => "outflow",
            Self::Position => "position",
            Self::Setpoint => "setpoint",
            Self::Pressure => "pressure",
            Self::Inflow => "inflow",
            Self::Mixer => "mixer",
        }
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Register {
    type Err = RegisterError;
    fn from_str(text: &str) -> Result<Self, RegisterError> {
        let found = Self::ALL.into_iter().find(|r| r.as_str() == text);
        found.ok_or_else(|| RegisterError::Unknown(text.to_owned()))
    }
}

#[cfg(test)]
#[path = "utility_tests.rs"]
mod tests;
