//! Runs the pure parts: one connection to the broker, one task per device.

mod buses;
mod hub;
mod inbox;
mod line;
#[cfg(feature = "cli")]
mod once;
mod task;

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;

use bus::Name;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::Mapper;
use hub::Hub;
#[cfg(feature = "cli")]
pub(crate) use once::{Heard, read_once};

/// Events from the broker's connection that wait for the hub; when full the connection waits, and TCP holds the broker
/// back.
const LINE_EVENTS: usize = 64;

/// How a mapper's process reaches its node.
#[derive(Clone)]
pub struct Options {
    name: Name,
    host: String,
    port: u16,
    credentials: Option<(String, String)>,
    seed: u64,
}

/// A broker's address that is not `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is no broker's address: it looks like 127.0.0.1:1883")]
pub struct InvalidBroker(String);

impl Options {
    /// A mapper called `name` (what `spec.protocol.protocolName` of its devices says) at the broker `host:port`.
    pub fn new(name: Name, broker: &str) -> Result<Self, InvalidBroker> {
        let parts = broker.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let Some((host, port)) = parts.filter(|(host, port)| !host.is_empty() && *port != 0) else {
            return Err(InvalidBroker(broker.chars().take(80).collect()));
        };
        let seed = RandomState::new().hash_one(name.as_str());
        Ok(Self { name, host: host.to_owned(), port, credentials: None, seed })
    }

    /// User and password, for a broker that asks.
    pub fn credentials(mut self, user: &str, password: &str) -> Self {
        self.credentials = Some((user.to_owned(), password.to_owned()));
        self
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, host, port, credentials: _, seed: _ } = self;
        write!(f, "mapper {name} at {host}:{port}")
    }
}

/// Runs a mapper until `stop` comes true: connects to the broker (again and again, if it must), serves the devices of
/// its configuration, and at the end closes their sessions and says that it is offline.
///
/// 1. A write that is under way may finish, nothing new begins (5 s at most).
/// 2. What there is to say is said (the same 5 s).
/// 3. `offline`, and the connection is closed.
pub async fn run<M: Mapper>(options: Options, stop: impl Future<Output = ()> + Send) {
    let (line_tx, mut line_rx) = mpsc::channel(LINE_EVENTS);
    let mut line = pin!(line::keep(&options, line_tx));
    let mut stop = pin!(stop);
    let mut hub = Hub::<M>::new(&options);
    loop {
        tokio::select! {
            () = &mut stop, if !hub.is_stopping() => hub.begin_stop(),
            never = &mut line => match never {},
            Some(event) = line_rx.recv() => hub.handle_line(event),
            happening = hub.wait() => hub.handle(happening),
        }
        if hub.carry_out() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_a_host_and_a_port() {
        let options = |broker| Options::new(Name::new("virtual").unwrap(), broker);
        for good in ["127.0.0.1:1883", "broker.example:1883", "[::1]:1883"] {
            assert!(options(good).is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1", ":1883", "host:0", "host:99999", "host:x"] {
            assert_eq!(options(bad).unwrap_err(), InvalidBroker(bad.to_owned()));
        }
    }

    #[test]
    fn a_password_does_not_get_into_the_log() {
        let options = Options::new(Name::new("virtual").unwrap(), "h:1").unwrap().credentials("u", "secret");
        assert_eq!(format!("{options:?}"), "mapper virtual at h:1");
    }
}
