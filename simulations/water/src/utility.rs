//! The whole utility, step by step.

use crate::actuator::{Command, CommandLog, Motion, MotorValve};
use crate::config::UtilityConfig;
use crate::demand::Demand;
use crate::faults::{BadSensor, Fault, Faults};
use crate::hydraulics::{self, BAR_PER_M, MainEnd};
use crate::noise::Noise;
use crate::register::{Device, Register, RegisterError, check_place, check_range};
use crate::surge::Surge;

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
    /// Where the second valve stands, if there is one.
    pub position2_percent: Option<f64>,
    /// What holes in main and town lost.
    pub burst_m3: f64,
    /// How often the pressure in the main came over its limit.
    pub surge_trips: u64,
    /// The highest pressure in the main so far.
    pub peak_pressure_bar: f64,
    /// How often a valve's PLC heard nothing for too long and took over, both valves together.
    pub watchdog_trips: u64,
}

/// Volumes since the start, in m³.
#[derive(Debug, Clone, Default)]
struct Totals {
    inflow: f64,
    outflow: f64,
    spilled: f64,
    unserved: f64,
    burst: f64,
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
    main_end: MainEnd,
    outflow: f64,
    valve: MotorValve,
    valve2: Option<MotorValve>,
    surge: Surge,
    faults: Faults,
    totals: Totals,
    /// What the level sensor sees; changes with time only, never by being read.
    noisy_level_m: f64,
    mixer_percent: f64,
    mixer_log: CommandLog,
}

impl Utility {
    pub fn new(config: UtilityConfig, seed: u64) -> Self {
        let volume = config.tank.start_level_m * config.tank.area_m2;
        let mut utility = Self {
            demand: Demand::new(config.demand.clone(), seed),
            // Another stream of the same seed.
            noise: Noise::new(!seed),
            time_s: 0.0,
            volume_m3: volume,
            start_volume_m3: volume,
            main_end: MainEnd { pressure_bar: config.main.source_bar, through: 0.0, burst: 0.0 },
            outflow: 0.0,
            valve: MotorValve::new(config.valve.clone()),
            valve2: config.valve2.clone().map(MotorValve::new),
            surge: Surge::default(),
            faults: Faults::default(),
            totals: Totals::default(),
            noisy_level_m: 0.0,
            mixer_percent: 0.0,
            mixer_log: CommandLog::default(),
            config,
        };
        // The flow is steady before the first step: starting is no surge.
        utility.main_end = utility.steady();
        utility.surge.watch(utility.pressure(), &utility.config.main);
        utility.sense();
        utility
    }

    /// Lets `dt` seconds pass. Steps of 0.1 to 10 s are sensible; the valves' travel is followed exactly in any.
    pub fn step(&mut self, dt: f64) {
        let motion = self.valve.step(dt).with(self.valve2.as_mut().map_or(Motion::Still, |v| v.step(dt)));
        let before = self.velocity();
        self.main_end = self.steady();
        self.surge.feel(self.velocity() - before, motion, dt, &self.config.main);
        self.surge.watch(self.pressure(), &self.config.main);
        self.fill(dt);
        self.time_s += dt;
        self.sense();
    }

    /// Lets something go wrong from now on. Refuses figures that cannot be, and registers that are not there.
    pub fn inject(&mut self, fault: Fault) -> Result<(), RegisterError> {
        fault.check()?;
        let shown = match fault {
            Fault::Silent { device, register } | Fault::Frozen { device, register } => {
                self.check(device, register)?;
                self.read(device, register).unwrap_or_else(|_| self.show(device, register))
            }
            Fault::MainBurst { .. }
            | Fault::TownBurst { .. }
            | Fault::DemandPeak { .. }
            | Fault::LevelNoise { .. } => 0.0,
        };
        self.faults.inject(fault, self.time_s, shown);
        Ok(())
    }

    /// Puts right what a fault of this kind, at this register, did; its figures do not matter.
    pub fn repair(&mut self, fault: Fault) {
        self.faults.repair(fault);
    }

    /// Puts everything right.
    pub fn repair_all(&mut self) {
        self.faults = Faults::default();
    }

    /// A request for this device came in, whatever it asks: a valve's watchdog hears it.
    /// [`handle_line`](crate::handle_line) says so for every line.
    pub fn heard(&mut self, device: Device) {
        if let Some(valve) = self.valve_mut(device) {
            valve.heard();
        }
    }

    /// Whether the utility has this device.
    pub fn has(&self, device: Device) -> bool {
        device != Device::Valve2 || self.valve2.is_some()
    }

    pub fn read(&self, device: Device, register: Register) -> Result<f64, RegisterError> {
        self.check(device, register)?;
        match self.faults.sensors.get(&(device, register)) {
            None => Ok(self.show(device, register)),
            Some(BadSensor::FrozenAt(value)) => Ok(*value),
            Some(BadSensor::Silent) => Err(RegisterError::Silent { device, register }),
        }
    }

    /// What a sound sensor shows. A device that is not there is the first valve.
    fn show(&self, device: Device, register: Register) -> f64 {
        let sensors = &self.config.sensors;
        let valve = self.valve2.as_ref().filter(|_| device == Device::Valve2).unwrap_or(&self.valve);
        match register {
            Register::Level => quantised(self.noisy_level_m, sensors.level_step_m),
            Register::Outflow => quantised(self.outflow, sensors.flow_step),
            Register::Position => quantised(valve.opening * 100.0, sensors.position_step_percent),
            Register::Setpoint => valve.setpoint_m,
            Register::Pressure => quantised(self.pressure(), sensors.pressure_step_bar),
            Register::Inflow => quantised(self.flow_through(valve), sensors.flow_step),
            Register::Mixer => self.mixer_percent,
        }
    }

    /// Takes a command. The valve then approaches the position at its own speed, in [`step`](Self::step).
    pub fn write(&mut self, device: Device, register: Register, value: f64) -> Result<(), RegisterError> {
        self.check(device, register)?;
        let (now_s, height_m) = (self.time_s, self.config.tank.height_m);
        match register {
            Register::Position => {
                check_range(value, 0.0, 100.0)?;
                self.valve_mut(device).ok_or(RegisterError::NoDevice(device))?.command(now_s, value);
            }
            Register::Setpoint => {
                check_range(value, 0.0, height_m)?;
                self.valve_mut(device).ok_or(RegisterError::NoDevice(device))?.setpoint_m = value;
            }
            Register::Mixer => {
                check_range(value, 0.0, 100.0)?;
                self.mixer_percent = value;
                self.mixer_log.push(now_s, value);
            }
            Register::Level | Register::Outflow | Register::Pressure | Register::Inflow => {
                return Err(RegisterError::ReadOnly(register));
            }
        }
        Ok(())
    }

    /// The accepted position commands, oldest first: proof of what moved the valve, and when.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.valve.log.kept.iter()
    }

    /// The same of the second valve; none without it.
    pub fn commands2(&self) -> impl Iterator<Item = &Command> {
        self.valve2.iter().flat_map(|valve| &valve.log.kept)
    }

    /// The same of the mixer.
    pub fn mixer_commands(&self) -> impl Iterator<Item = &Command> {
        self.mixer_log.kept.iter()
    }

    pub fn snapshot(&self) -> Snapshot {
        let Totals { inflow, outflow, spilled, unserved, burst } = self.totals;
        Snapshot {
            time_s: self.time_s,
            level_m: self.level(),
            inflow: self.main_end.through,
            outflow: self.outflow,
            position_percent: self.valve.opening * 100.0,
            target_percent: self.valve.target * 100.0,
            setpoint_m: self.valve.setpoint_m,
            pressure_bar: self.pressure(),
            spilled_m3: spilled,
            unserved_m3: unserved,
            mass_balance_error_m3: self.volume_m3 - self.start_volume_m3 - inflow + outflow + spilled,
            commands: self.valve.log.count,
            position2_percent: self.valve2.as_ref().map(|valve| valve.opening * 100.0),
            burst_m3: burst,
            surge_trips: self.surge.trips,
            peak_pressure_bar: self.surge.peak_bar,
            watchdog_trips: self.valves().map(|valve| valve.watchdog_trips).sum(),
        }
    }

    fn check(&self, device: Device, register: Register) -> Result<(), RegisterError> {
        if !self.has(device) {
            return Err(RegisterError::NoDevice(device));
        }
        check_place(device, register)
    }

    fn valves(&self) -> impl Iterator<Item = &MotorValve> {
        std::iter::once(&self.valve).chain(&self.valve2)
    }

    fn valve_mut(&mut self, device: Device) -> Option<&mut MotorValve> {
        match device {
            Device::Tank => None,
            Device::Valve => Some(&mut self.valve),
            Device::Valve2 => self.valve2.as_mut(),
        }
    }

    fn level(&self) -> f64 {
        self.volume_m3 / self.config.tank.area_m2
    }

    fn pressure(&self) -> f64 {
        self.main_end.pressure_bar + self.surge.bar()
    }

    /// In the main, in m/s.
    fn velocity(&self) -> f64 {
        hydraulics::velocity(self.main_end.through + self.main_end.burst, &self.config.main)
    }

    /// Pressure of the tank's water at the height of the source, in bar.
    fn lift(&self) -> f64 {
        (self.config.tank.elevation_m + self.level()) * BAR_PER_M
    }

    fn steady(&self) -> MainEnd {
        let conductance = self.valves().map(MotorValve::conductance).sum();
        hydraulics::main_end(self.lift(), conductance, self.faults.main_burst, &self.config.main)
    }

    /// A valve's share of what enters the tank.
    fn flow_through(&self, valve: &MotorValve) -> f64 {
        let all: f64 = self.valves().map(MotorValve::conductance).sum();
        if all > 0.0 { self.main_end.through * (valve.conductance() / all) } else { 0.0 }
    }

    /// `A·dh/dt = Qin - Qout - Qspill`, with a floor and a rim. When the tank cannot give what town and hole would take,
    /// both get the same share.
    fn fill(&mut self, dt: f64) {
        let hours = dt / 3600.0;
        let hour_of_day = self.config.start_hour + self.time_s / 3600.0;
        let peak = self.faults.demand_factor(self.time_s);
        let wanted = self.demand.next(hour_of_day, dt) * peak * hours;
        let lost = hydraulics::orifice(self.faults.town_burst, self.lift()) * hours;
        let arrived = self.main_end.through * hours;
        let taken = (wanted + lost).min(self.volume_m3 + arrived);
        let lacking = (wanted + lost - taken) / (wanted + lost).max(f64::MIN_POSITIVE);
        let full = self.config.tank.height_m * self.config.tank.area_m2;
        let volume = self.volume_m3 + arrived - taken;
        let spilled = (volume - full).max(0.0);

        self.volume_m3 = volume - spilled;
        self.outflow = taken / hours;
        self.totals.inflow += arrived;
        self.totals.outflow += taken;
        self.totals.spilled += spilled;
        self.totals.unserved += wanted * lacking;
        self.totals.burst += lost * (1.0 - lacking) + self.main_end.burst * hours;
    }

    fn sense(&mut self) {
        let deviation = self.faults.level_noise_m.unwrap_or(self.config.sensors.level_noise_m);
        self.noisy_level_m = (self.level() + deviation * self.noise.normal()).max(0.0);
    }
}

/// To the nearest step, as a decimal number people can read if the step is one.
fn quantised(value: f64, step: f64) -> f64 {
    let per_unit = 1.0 / step;
    if step > 0.0 { (value * per_unit).round() / per_unit } else { value }
}

#[cfg(test)]
#[path = "utility_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "faults_tests.rs"]
mod faults_tests;
