//! A message of the mesh.

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
}

impl<C> Encode<C> for Message {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let Self { topic, payload, retain, origin } = self;
        Wire { topic: topic.clone(), payload: payload.to_vec(), retain: *retain, origin: origin.clone() }
            .encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Message {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let Wire { topic, payload, retain, origin } = Wire::decode(d, ctx)?;
        Ok(Self { topic, payload: payload.into(), retain, origin })
    }
}
