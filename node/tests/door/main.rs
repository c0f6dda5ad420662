//! Who comes in over HTTPS, and what each may do there: real nodes, real TLS.
#![cfg(feature = "io")]

#[cfg(test)]
mod client;
#[cfg(test)]
#[allow(dead_code, unused_imports, reason = "the harness is for all suites")]
#[path = "../harness/mod.rs"]
mod harness;
#[cfg(test)]
mod house;
#[cfg(test)]
mod letting_in;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod page;
#[cfg(test)]
mod steering;

#[cfg(test)]
use house::{DEVICE, House, ROLES, api, mqtts};
