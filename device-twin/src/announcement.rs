//! What a node has its broker publish.

use bus::{Properties, Qos, Topic};
use bytes::Bytes;

use crate::twin::{Expiry, Publish};

/// Drawn by the node for a message that it must know to be safe: the broker shows it once the message is as safe there
/// as the sessions of its subscribers demand. Counts within one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt(pub u64);

/// A message for the clients of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    pub topic: Topic,
    pub payload: Bytes,
    /// At most: each subscriber gets the lower of this and its own.
    pub qos: Qos,
    pub retain: bool,
    pub expiry: Option<Expiry>,
    pub properties: Properties,
    pub receipt: Option<Receipt>,
}

impl From<Publish> for Announcement {
    /// What a node says itself comes with the QoS that each subscriber asked for.
    fn from(Publish { topic, payload, retain, expiry }: Publish) -> Self {
        Self {
            topic,
            payload,
            qos: Qos::ExactlyOnce,
            retain,
            expiry,
            properties: Properties::default(),
            receipt: None,
        }
    }
}
