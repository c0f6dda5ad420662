//! Where a driver puts what a device says by itself.

use bus::io::Clock;
use bus::{Now, Quality, UnixMillis, Value};
use tokio::sync::mpsc;

use crate::Error;

/// Values that wait for the SDK; when full a driver waits, and through its connection the device.
pub(crate) const WAITING: usize = 256;

/// What a device said by itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Pushed {
    Value {
        point: String,
        value: Value,
        quality: Quality,
        time: Option<UnixMillis>,
        /// When the driver said it.
        at: Now,
    },
    Failed {
        point: String,
        error: Error,
    },
    /// The session is over.
    Lost(Error),
}

impl Pushed {
    /// Which point it is about; `None` at the session's end.
    pub(crate) fn point(&self) -> Option<&str> {
        match self {
            Self::Value { point, .. } | Self::Failed { point, .. } => Some(point),
            Self::Lost(_) => None,
        }
    }
}

/// Where a driver's own task puts what comes from the device: see [`Session::subscribe`](crate::Session::subscribe).
#[derive(Debug, Clone)]
pub struct Sink {
    sender: mpsc::Sender<Pushed>,
    clock: Clock,
}

impl Sink {
    pub(crate) fn new(clock: Clock) -> (Self, mpsc::Receiver<Pushed>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { sender, clock }, receiver)
    }

    /// A good raw value of the point of this name, from now.
    pub async fn good(&self, point: &str, value: Value) {
        self.push(point, value, Quality::Good, None).await;
    }

    /// A raw value with its quality and, if the device says, the time at its source. A point that was not subscribed to
    /// is dropped. Waits while the SDK is behind; without a time it is from the moment of this call all the same.
    pub async fn push(&self, point: &str, value: Value, quality: Quality, time: Option<UnixMillis>) {
        let at = self.clock.now();
        self.send(Pushed::Value { point: point.to_owned(), value, quality, time, at }).await;
    }

    /// The device says that it cannot tell this point.
    pub async fn failed(&self, point: &str, error: Error) {
        self.send(Pushed::Failed { point: point.to_owned(), error }).await;
    }

    /// The connection is gone: the SDK drops the session and opens a new one, as after a read that failed so.
    pub async fn lost(&self, error: Error) {
        self.send(Pushed::Lost(error)).await;
    }

    /// Whether the session that this belongs to has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// After the session's end nobody listens, and nothing needs to be said.
    async fn send(&self, pushed: Pushed) {
        drop(self.sender.send(pushed).await);
    }
}
