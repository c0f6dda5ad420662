//! The broker's sockets and tasks around the pure [`gate`](crate::gate).

pub mod broker;
mod client;
mod counters;
pub mod dmi;
mod port;
pub mod recorder;
mod router_link;
mod switchboard;
#[cfg(test)]
mod tests;

pub use broker::{BrokerConfig, BrokerEvent, BrokerGone, BrokerHandle, StartError, Ticket, start};
pub use counters::Stats;
