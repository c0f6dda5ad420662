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
//! Reading order: [`config`] (sizes and where they come from), [`hydraulics`] (the equations), [`demand`] (what the
//! town takes), [`utility`] (all of it together, step by step), [`device`] (the two devices as a line protocol).
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

pub mod config;
pub mod demand;
pub mod device;
pub mod hydraulics;
pub mod network;
pub mod noise;
pub mod utility;

pub use config::UtilityConfig;
pub use device::handle_line;
pub use utility::{Command, Device, Register, RegisterError, Snapshot, Utility};
