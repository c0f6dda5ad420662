//! A message inside the broker.

use std::sync::Arc;
use std::time::Duration;

use bus::{Mono, Topic};
use bytes::Bytes;
pub use mqtt_protocol_core::mqtt::packet::{Property, Qos};

use super::properties;

/// One client connection; never reused in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// What a client's name stands for from one clean start to the next: its subscriptions and messages. A session may
/// outlive its connection, and the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What somebody published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: Topic,
    pub payload: Bytes,
    pub qos: Qos,
    pub retain: bool,
    /// When nobody may get it any more (MQTT 5.0 §3.3.2.3.3).
    pub expires: Option<Mono>,
    /// What MQTT 5 passes on unaltered: payload format, content type, response topic, correlation data and user
    /// properties (§3.3.2.3).
    pub properties: Vec<Property>,
    /// The session that said it; `None`: the node.
    pub from: Option<SessionId>,
}

impl Message {
    /// Bytes that it pins: the measure of every byte bound in the broker.
    pub fn size(&self) -> usize {
        self.topic.as_str().len() + self.payload.len() + properties::size(&self.properties)
    }

    pub fn is_expired(&self, now: Mono) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// What is left of its life in whole seconds, rounded up: a message that is alive says at least 1.
    pub fn seconds_left(&self, now: Mono) -> Option<u32> {
        let left: Duration = self.expires?.since(now);
        Some(u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX))
    }
}

/// A message on its way to one subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub message: Arc<Message>,
    /// The lower of the publisher's and the subscription's.
    pub qos: Qos,
    /// The retain flag as this subscriber is to see it.
    pub retain: bool,
    /// Identifiers of the subscriptions that it comes for (MQTT 5.0 §3.3.2.3.8).
    pub subscriptions: Vec<u32>,
}
