//! The devices, what they show, and how their registers are called on the line.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// One of the devices of the utility.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    /// At site A: `level`, `outflow`, and `mixer` (writable).
    Tank,
    /// At site B: `position` and `setpoint` (both writable), `pressure`, `inflow`.
    Valve,
    /// A second valve beside the first, in the main's bypass, where the configuration has one. The same registers.
    Valve2,
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
    /// Pressure ahead of the valves in bar.
    Pressure,
    /// Flow through the valve into the tank in m³/h.
    Inflow,
    /// Speed of the mixer that keeps the tank's water fresh, in %: an actuator that no rule touches.
    Mixer,
}

/// Why a register could not be read or written.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum RegisterError {
    #[error("there is no {0}")]
    NoDevice(Device),
    #[error("no register {0:?}")]
    Unknown(String),
    #[error("{device} has no register {register}")]
    Elsewhere { device: Device, register: Register },
    #[error("{0} cannot be written")]
    ReadOnly(Register),
    #[error("{value} is outside {minimum} to {maximum}")]
    OutOfRange { value: f64, minimum: f64, maximum: f64 },
    #[error("{device} does not answer for {register}")]
    Silent { device: Device, register: Register },
}

pub(crate) fn check_place(device: Device, register: Register) -> Result<(), RegisterError> {
    let at_tank = matches!(register, Register::Level | Register::Outflow | Register::Mixer);
    if at_tank == (device == Device::Tank) {
        return Ok(());
    }
    Err(RegisterError::Elsewhere { device, register })
}

pub(crate) fn check_range(value: f64, minimum: f64, maximum: f64) -> Result<(), RegisterError> {
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
            Self::Valve2 => "valve2",
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
