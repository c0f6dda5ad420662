//! A small water utility: a supply main with a motor valve, a tank, and a town that drinks from it.
//!
//! ```text
//!   source ==== 2 km main ====[p]==X== valve ======> | tank |----> town (demand over the day)
//!   5 bar                  pressure                  | level|
//!                          ------ site B ------      site A
//! ```
//!
//! Everything is pure: time passes only in [`Utility::step`], noise comes from a seed, and the same seed and commands
//! give the same run bit by bit. How fast simulated time runs against the wall clock is the caller's affair.
//!
//! Plants fail. [`Fault`] is what may go wrong with this one, and a test injects it while the plant runs: bursts, peaks
//! of demand, sensors that fall silent or freeze. Off unless configured are a second valve, so that two can be changed
//! as one, and a watchdog in the valves' own PLC, for when nobody asks any more.
//!
//! Beside the utility, whose main is one closed equation, stands a solver for whole pipe networks, [`network`], which
//! is compared with EPANET; the main is compared with it in turn.
//!
//! Reading order: [`config`] (sizes and where they come from), [`hydraulics`] (the equations), [`demand`] (what the
//! town takes), [`utility`] (all of it together, step by step), [`device`] (the devices as a line protocol), and by
//! itself [`network`]. What was validated, and how well, is in the crate's README.
//!
//! ```
//! use water::{Device, Register, Utility, UtilityConfig};
//! let mut utility = Utility::new(UtilityConfig::default(), 7);
//! utility.write(Device::Valve, Register::Position, 100.0)?;
//! for _ in 0..3600 {
//!     utility.step(1.0);
//! }
//! assert!(utility.read(Device::Tank, Register::Level)? > 3.0);
//! # Ok::<(), water::RegisterError>(())
//! ```

mod actuator;
pub mod config;
pub mod demand;
pub mod device;
mod faults;
pub mod hydraulics;
pub mod network;
pub mod noise;
mod register;
mod surge;
pub mod utility;

pub use actuator::Command;
pub use config::UtilityConfig;
pub use device::handle_line;
pub use faults::Fault;
pub use register::{Device, Register, RegisterError};
pub use utility::{Snapshot, Utility};
