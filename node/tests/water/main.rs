//! The water utility's bad days, end to end: real processes of cloud, edge and mapper; the plant is simulated here, and
//! so is time, so that six hours pass in a minute or two.
//!
//! [`works`] puts one waterworks together of its parts: [`time`], [`plant`], [`relay`] (the link to the cloud, which can
//! be cut) and [`mapper`]. The rest are the scenarios. What counts in each is what the valve was told and did and how the
//! tank fared, and what operators were told.
//!
//! `cargo test -p node --features virtual-clock --test water`

#[cfg(test)]
#[path = "../harness/mod.rs"]
#[expect(dead_code, reason = "shared with the target `cluster`")]
mod harness;
#[cfg(test)]
mod mapper;
#[cfg(test)]
mod plant;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod time;
#[cfg(test)]
mod works;

#[cfg(test)]
mod interruptions;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod overrides;
#[cfg(test)]
mod sensors;
#[cfg(test)]
mod two_valves;
#[cfg(test)]
mod wrong_clock;
