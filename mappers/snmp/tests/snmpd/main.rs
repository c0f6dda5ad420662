//! The mapper against Debian's snmpd: its driver alone ([`reading`], [`writing`]), and under the conformance kit ([`kit`]).

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

mod agent;
mod driver;
mod kit;
mod reading;
mod writing;
