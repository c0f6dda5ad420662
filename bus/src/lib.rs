//! The ground floor of KubeBus: names, identities, time, frames, and the message bus between nodes.
//!
//! Everything outside `io` is pure: no clock is read, no socket opened, no task spawned, so that the same code runs
//! under tokio and in the deterministic world of `simulations/`.
//!
//! Reading order: [`id`] (who is who), [`time`] (how time comes in), [`class`] and [`frame`] (what travels on
//! a link), [`topic`] and [`message`] (what apps say to each other), [`bus`](mod@crate::bus) (who gets to hear it),
//! [`backoff`] (when to try again), [`token`] (how a node is invited), [`overlay`] and [`access`] (addresses, and who may
//! reach whom), [`wireguard`] (clients without kubebus).
//!
//! Every core of the workspace speaks one grammar, shown here by [`Bus`]:
//! `handle_*(input, now)`, then drain `poll_output()` to `None`, then ask `poll_timeout()` when to come back.

pub mod access;
pub mod backoff;
pub mod bus;
mod cause;
pub mod class;
pub mod frame;
pub mod id;
#[cfg(feature = "io")]
pub mod io;
pub mod message;
pub mod overlay;
pub mod path;
pub mod time;
pub mod token;
pub mod topic;
pub mod twin;
pub mod value;
pub mod wireguard;

pub use access::{AccessRule, PortRange, Protocol, Selector};
pub use backoff::Backoff;
pub use bus::Bus;
pub use cause::with_causes;
pub use class::Class;
pub use frame::{Channel, Frame};
pub use id::{Identity, KeyHash, Name, NodeId, NodeKind, RENEWABLE_FOR};
pub use message::{Message, Properties, Qos};
pub use overlay::{Lease, Route, SubnetKind};
pub use path::PathMessage;
pub use time::{Mono, Now, UnixMillis};
pub use token::JoinToken;
pub use topic::{Filter, Topic};
pub use value::{Quality, Sample, Value, ValueType};
pub use wireguard::{WireguardGateway, WireguardKey, WireguardPeer};
