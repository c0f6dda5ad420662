//! Who a client is, and what it may do. Pure; `io` reads the files, does the TLS and computes the hashes.
//!
//! ```text
//!   socket -- certificate, door --> [ Guard ] -- Claim --> passwords (io) -- Who --+
//!                                       |                                          v
//!   CONNECT -- user name ---------------+------------------------------------> [ Permit ] -> publish, subscribe, will
//! ```
//!
//! [`who`] names a client, [`keys`] by which certificates; [`guard`] decides at CONNECT how it is known; [`passwords`] is mosquitto's file of names
//! and hashes; [`rights`] are the site's rules, from which each session gets its [`Permit`]; [`cover`] says whether
//! one topic filter lies within another.

pub mod cover;
pub mod guard;
pub mod keys;
pub mod passwords;
pub mod rights;
pub mod who;

pub use guard::{Admission, Claim, Guard, NotAdmitted};
pub use keys::{ClientKeys, Keys};
pub use passwords::{Entry, Hash, Passwords, PasswordsError};
pub use rights::{Pattern, Permit, Rights, Rule, RuleError};
pub use who::Who;
