//! A message as it is kept on its way between sites.

use bus::{Message, UnixMillis};
use bytes::Bytes;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::encode;

/// The longest that travels, encoded: a block with it alone fits into a value of the sync. A broker's packets are at most
/// 256 KiB. A longer one is refused.
pub(crate) const MAX_PARCEL: usize = 384 << 10;

/// A block holds about this much, and at least one message: a part of the sync and some.
pub(super) const BLOCK_BYTES: usize = 16 << 10;
/// The smallest messages fill a block by number, which bounds what a broker is handed at a time.
pub(super) const BLOCK_PARCELS: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Parcel {
    #[n(0)]
    pub(super) message: Message,
    /// When `message` was as it is here: its expiry counts from then. On the clock of the node that says it.
    #[n(1)]
    pub(super) since: UnixMillis,
    /// Of a retained message, which the cloud keeps: which one it is.
    #[n(2)]
    pub(super) kept: Option<u64>,
    /// Said again to a site that newly asked; whoever has it already needs it no more.
    #[n(3)]
    pub(super) replay: bool,
    /// Which of its edge's messages it is.
    #[n(4)]
    pub(super) serial: Option<Serial>,
}

/// Counts what one process of an edge said. Also after a copy of its disk was put back, no two messages have the same:
/// what is said then is said by another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Serial {
    /// The process.
    #[n(0)]
    pub(super) run: u64,
    /// From 1 on.
    #[n(1)]
    pub(super) number: u64,
}

impl Parcel {
    pub(super) fn new(message: Message, since: UnixMillis) -> Self {
        let message = Message { travelled: None, ..message };
        Self { message, since, kept: None, replay: false, serial: None }
    }

    /// `None` if these bytes are none, or what they hold is not for other sites.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let parcel: Self = minicbor::decode(bytes).ok()?;
        super::is_mesh(&parcel.message.topic).then_some(parcel)
    }

    pub(super) fn encode(&self) -> Bytes {
        encode(self)
    }

    /// As it is now, which is `theirs` on the clock of the node that said it and `ours` here; `None` if its life is over.
    pub(super) fn aged(mut self, theirs: UnixMillis, ours: UnixMillis) -> Option<Self> {
        if let Some(life) = self.message.expiry {
            let left = life.saturating_sub(theirs.since(self.since));
            self.message.expiry = Some(left).filter(|left| !left.is_zero());
            self.message.expiry?;
        }
        Some(Self { since: ours, ..self })
    }
}

/// Messages under way to one edge together.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Block {
    /// Numbers count within a stream: a cloud that was put back to a copy of its disk begins another.
    #[n(0)]
    pub(super) stream: u64,
    /// From 1 on.
    #[n(1)]
    pub(super) number: u64,
    /// Each a [`Parcel`].
    #[n(2)]
    pub(super) parcels: Vec<ByteVec>,
}

impl Block {
    /// `None` also for a slot that was cleared.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        minicbor::decode(bytes).ok()
    }
}
