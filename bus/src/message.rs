//! A message of the mesh.

use std::time::Duration;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::{NodeId, Topic};

/// What a message's publisher was promised (MQTT 5.0 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum Qos {
    /// Nothing: it goes straight to the sites that are connected.
    #[default]
    #[n(0)]
    AtMostOnce,
    /// It waits for each site that asked for it, and comes there once.
    #[n(1)]
    AtLeastOnce,
    #[n(2)]
    ExactlyOnce,
}

/// What MQTT 5 passes on as the publisher set it (MQTT 5.0 §3.3.2.3), so that a request is answered across sites. It
/// is bounded with the packet that it came in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Properties {
    /// Whether the payload is UTF-8 text.
    #[n(0)]
    pub text: Option<bool>,
    #[n(1)]
    pub content_type: Option<String>,
    #[n(2)]
    pub response_topic: Option<String>,
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub correlation: Option<Vec<u8>>,
    /// Names and values, in their order; a name may come again.
    #[n(4)]
    pub user: Vec<(String, String)>,
}

impl Properties {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What an app, a mapper or a node says on a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: Topic,
    pub payload: Bytes,
    /// Brokers keep it for later subscribers.
    pub retain: bool,
    /// The node where it entered the mesh.
    pub origin: NodeId,
    /// How long it has been on its way between nodes, measured link by link against the peers' clocks; `None` when a
    /// clock on the way was not known. A message that waited for a cut link is told from a fresh one by this.
    pub travelled: Option<Duration>,
    pub qos: Qos,
    /// How long it was meant when it entered the mesh.
    pub expiry: Option<Duration>,
    pub properties: Properties,
}

impl Message {
    /// A message that enters the mesh at `origin` now.
    pub fn new(topic: Topic, payload: Bytes, retain: bool, origin: NodeId) -> Self {
        Self {
            topic,
            payload,
            retain,
            origin,
            travelled: Some(Duration::ZERO),
            qos: Qos::default(),
            expiry: None,
            properties: Properties::default(),
        }
    }

    /// What is left of its life: `None` if it does not end, zero if it has. A way of unknown length takes nothing.
    pub fn life_left(&self) -> Option<Duration> {
        Some(self.expiry?.saturating_sub(self.travelled.unwrap_or_default()))
    }
}

/// What is not set is left out: a message of a node's own takes what it took before there were these.
#[derive(Encode, Decode)]
struct Wire {
    #[n(0)]
    topic: Topic,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    payload: Vec<u8>,
    #[n(2)]
    retain: bool,
    #[n(3)]
    origin: NodeId,
    #[n(4)]
    travelled_ms: Option<u64>,
    #[n(5)]
    qos: Option<Qos>,
    #[n(6)]
    expiry_ms: Option<u64>,
    #[n(7)]
    properties: Option<Properties>,
}

fn to_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl<C> Encode<C> for Message {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let Self { topic, payload, retain, origin, travelled, qos, expiry, properties } = self;
        let wire = Wire {
            topic: topic.clone(),
            payload: payload.to_vec(),
            retain: *retain,
            origin: origin.clone(),
            travelled_ms: travelled.map(to_millis),
            qos: Some(*qos).filter(|qos| *qos != Qos::AtMostOnce),
            expiry_ms: expiry.map(to_millis),
            properties: Some(properties).filter(|properties| !properties.is_empty()).cloned(),
        };
        wire.encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Message {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let wire = Wire::decode(d, ctx)?;
        let Wire { topic, payload, retain, origin, travelled_ms, qos, expiry_ms, properties } = wire;
        Ok(Self {
            topic,
            payload: payload.into(),
            retain,
            origin,
            travelled: travelled_ms.map(Duration::from_millis),
            qos: qos.unwrap_or_default(),
            expiry: expiry_ms.map(Duration::from_millis),
            properties: properties.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Name;

    fn message() -> Message {
        let origin = NodeId::edge(Name::new("a").unwrap());
        Message::new(Topic::new("mesh/x").unwrap(), "1".into(), false, origin)
    }

    #[test]
    fn all_of_a_message_comes_back_from_the_wire_and_what_is_not_set_takes_no_room() {
        let plain = message();
        let properties = Properties {
            text: Some(true),
            content_type: Some("text/plain".into()),
            response_topic: Some("mesh/answers".into()),
            correlation: Some(vec![1, 2]),
            user: vec![("k".into(), "1".into()), ("k".into(), "2".into())],
        };
        let (qos, expiry) = (Qos::ExactlyOnce, Some(Duration::from_secs(3)));
        let full = Message { qos, expiry, properties, ..plain.clone() };
        let bytes = |message: &Message| minicbor::to_vec(message).unwrap();
        for message in [&plain, &full] {
            assert_eq!(&minicbor::decode::<Message>(&bytes(message)).unwrap(), message);
        }
        assert_eq!(bytes(&plain)[0], 0x85, "five fields");
    }

    #[test]
    fn a_life_goes_by_on_the_way() {
        let (expiry, travelled) = (Some(Duration::from_secs(3)), Some(Duration::from_secs(2)));
        let left = |message: Message| message.life_left();
        assert_eq!(left(message()), None);
        assert_eq!(left(Message { expiry, travelled, ..message() }), Some(Duration::from_secs(1)));
        assert_eq!(left(Message { expiry, travelled: None, ..message() }), expiry);
        assert_eq!(left(Message { expiry: travelled, travelled: expiry, ..message() }), Some(Duration::ZERO));
    }
}
