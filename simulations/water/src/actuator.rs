//! Actuators: valves that travel, the PLC that watches them, and the log of what they were told.

use std::collections::VecDeque;

use crate::config::ValveConfig;
use crate::hydraulics;

/// How many commands of an actuator are kept for inspection: more than a day of one per two minutes. The oldest go
/// first; their number is kept.
pub(crate) const MAX_COMMANDS_KEPT: usize = 1024;

/// A command to an actuator that was accepted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Command {
    /// Simulated time in seconds.
    pub at_s: f64,
    pub percent: f64,
}

/// Accepted commands of one actuator: how many, and the last ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct CommandLog {
    pub(crate) count: u64,
    pub(crate) kept: VecDeque<Command>,
}

impl CommandLog {
    pub(crate) fn push(&mut self, at_s: f64, percent: f64) {
        self.count += 1;
        if self.kept.len() == MAX_COMMANDS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Command { at_s, percent });
    }
}

/// What a valve did in a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Motion {
    Still,
    /// Travelled for this many seconds.
    Travelled(f64),
    /// Was elsewhere at once.
    Jumped,
}

impl Motion {
    /// Of two valves in one step: the more violent one.
    pub(crate) fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Still, motion) | (motion, Self::Still) => motion,
            (Self::Travelled(a), Self::Travelled(b)) => Self::Travelled(a.max(b)),
            (Self::Jumped, _) | (_, Self::Jumped) => Self::Jumped,
        }
    }
}

/// A valve with its drive and its PLC.
#[derive(Debug, Clone)]
pub(crate) struct MotorValve {
    config: ValveConfig,
    /// 0 to 1.
    pub(crate) opening: f64,
    pub(crate) target: f64,
    pub(crate) setpoint_m: f64,
    pub(crate) log: CommandLog,
    /// Since the last request, in seconds.
    silence_s: f64,
    /// The PLC has taken over, until somebody asks again.
    left_alone: bool,
    pub(crate) watchdog_trips: u64,
}

impl MotorValve {
    pub(crate) fn new(config: ValveConfig) -> Self {
        let opening = config.start_percent / 100.0;
        Self {
            opening,
            target: opening,
            setpoint_m: config.start_setpoint_m,
            log: CommandLog::default(),
            silence_s: 0.0,
            left_alone: false,
            watchdog_trips: 0,
            config,
        }
    }

    pub(crate) fn command(&mut self, at_s: f64, percent: f64) {
        self.target = percent / 100.0;
        self.log.push(at_s, percent);
    }

    /// A request came in: whoever controls the valve is there.
    pub(crate) fn heard(&mut self) {
        self.silence_s = 0.0;
        self.left_alone = false;
    }

    /// Moves towards the target for `dt` seconds; then the PLC looks whether anybody still asks.
    pub(crate) fn step(&mut self, dt: f64) -> Motion {
        let motion = self.travel(dt);
        self.silence_s += dt;
        if !self.left_alone && self.config.watchdog_s.is_some_and(|limit| self.silence_s >= limit) {
            self.left_alone = true;
            self.watchdog_trips += 1;
            self.target = self.config.safe_percent / 100.0;
        }
        motion
    }

    fn travel(&mut self, dt: f64) -> Motion {
        let (way, travel) = (self.target - self.opening, self.config.travel_s);
        let moved_for = (way.abs() * travel).min(dt);
        if moved_for < dt || travel <= 0.0 {
            self.opening = self.target;
        } else {
            self.opening += way.signum() * dt / travel;
        }
        match way {
            0.0 => Motion::Still,
            _ if travel <= 0.0 => Motion::Jumped,
            _ => Motion::Travelled(moved_for),
        }
    }

    /// In m³/h per √bar, as it stands.
    pub(crate) fn conductance(&self) -> f64 {
        hydraulics::conductance(self.opening, &self.config)
    }
}
