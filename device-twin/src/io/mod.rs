//! The broker's sockets and tasks around the pure [`gate`](crate::gate).

pub mod broker;
mod client;
mod clock;
mod counters;
pub mod dmi;
mod door;
pub mod external;
mod pass;
pub mod passwords;
mod port;
pub mod recorder;
mod stream;
mod switchboard;
#[cfg(test)]
mod tests;
mod tls;

pub use broker::{BrokerConfig, BrokerEvent, BrokerGone, BrokerHandle, StartError, Ticket, start};
pub use counters::Stats;
pub use door::Listener;
pub use pass::Register;
pub use tls::{ClientCa, Tls, TlsError};
