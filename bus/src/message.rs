//! A message of the mesh.

use std::time::Duration;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::{NodeId, Topic};

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
}

impl Message {
    /// A message that enters the mesh at `origin` now.
    pub fn new(topic: Topic, payload: Bytes, retain: bool, origin: NodeId) -> Self {
        Self { topic, payload, retain, origin, travelled: Some(Duration::ZERO) }
    }
}

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
}

impl<C> Encode<C> for Message {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let Self { topic, payload, retain, origin, travelled } = self;
        let travelled_ms = travelled.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let (topic, origin) = (topic.clone(), origin.clone());
        Wire { topic, payload: payload.to_vec(), retain: *retain, origin, travelled_ms }.encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Message {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let Wire { topic, payload, retain, origin, travelled_ms } = Wire::decode(d, ctx)?;
        let travelled = travelled_ms.map(Duration::from_millis);
        Ok(Self { topic, payload: payload.into(), retain, origin, travelled })
    }
}
