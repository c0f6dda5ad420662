//! What cloud and edge say to each other, in both directions: minicbor on [`bus::Channel::Metadata`].
//!
//! ```text
//! edge                                  cloud
//!  | Hello{incarnation, applied, ..} --> |   who I am and where I stand; begins a session
//!  | <--------- Welcome{receipt, epoch}  |   you are; show this receipt next time
//!  | <---------------------- Part.. Part |   a batch: takes the edge from one position to the next
//!  | Ack{batch, part} -----------------> |   opens the window
//!  | Nack{batch, applied} -------------> |   a gap: stream again from here
//!  | Differs{batch, sums} -------------> |   the copy is not what the digest says: repair it
//!  | Up{lane, after, entries} ---------> |   what waits in the outbox
//!  | <------------------ UpAck{lane, seq}|   stored: drop it
//!  | <----------------- UpNack{lane, seq}|   a gap: send again from the first
//!  | <---------------------------- Renew |   instead of Welcome: this disk is not the one that I know
//!  |                                     |   under its incarnation; take a new one and say hello again
//! ```
//! Outputs are held until they are durable, so words of an earlier session may arrive on a new link, even from before a
//! disk was wiped: each names its session, and those of another are ignored.
//!
//! Unknown fields are skipped, so that nodes of two versions can talk. Names are those below `/m/` at the edge.

use std::ops::{Index, IndexMut};

use bus::Class;
use bus::twin::Incarnation;
use bytes::Bytes;
use minicbor::{Decode, Encode};
use thiserror::Error;

pub use crate::digest::{Buckets, Digest};
use crate::key::Revision;
pub use crate::pack::{Change, Packed};

/// A revision in one cloud's history. A cloud that was put back to a backup goes on under a new term, so that a
/// revision number used twice cannot be mistaken for the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode)]
pub struct Position {
    /// Which run of the cloud made the revision; 0 before the first.
    #[n(0)]
    pub term: u64,
    #[n(1)]
    pub revision: Revision,
}

/// Drawn by the cloud for each [`ToEdge::Welcome`] and shown by the edge in its next hello: of two disks that once were
/// one (an old copy, a clone), only the one welcomed last can show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Receipt(#[n(0)] pub u64);

impl Receipt {
    /// Of an incarnation that was never welcomed.
    pub const NONE: Self = Self(0);
}

/// The first word on a link.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Which life of the edge's disk.
    #[n(0)]
    pub incarnation: Incarnation,
    /// The state of the cloud that the copy equals.
    #[n(1)]
    pub applied: Position,
    /// One more for each hello, from a random number at the edge's start.
    #[n(2)]
    pub session: u32,
    /// Of the last welcome that the disk holds.
    #[n(3)]
    pub receipt: Receipt,
    /// By lane, the last entry that may have been sent. A cloud that has stored more heard it from another disk: the
    /// receipt alone does not tell when a copy was made within a session.
    #[n(4)]
    pub sent: PerLane,
    /// The highest epoch followed.
    #[n(5)]
    pub epoch: u64,
    /// By lane, the last entry that the cloud said it has stored, as far as this process remembers. A cloud that has
    /// stored less was put back to a copy of its disk since.
    #[n(6)]
    pub stored: PerLane,
}

/// Edge to cloud.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum ToCloud {
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// The part, and all before it, has arrived; the last part of a batch: is applied.
    #[n(1)]
    Ack {
        #[n(0)]
        batch: u32,
        #[n(1)]
        part: u32,
        #[n(2)]
        session: u32,
    },
    /// This batch does not follow from what is applied.
    #[n(2)]
    Nack {
        #[n(0)]
        batch: u32,
        #[n(1)]
        applied: Position,
        #[n(2)]
        session: u32,
    },
    /// With the digest that came with this batch the copy does not agree.
    #[n(4)]
    Differs {
        #[n(0)]
        batch: u32,
        /// The copy's.
        #[n(1)]
        sums: Digest,
        #[n(2)]
        session: u32,
    },
    #[n(3)]
    Up {
        #[n(0)]
        lane: Lane,
        /// The entry sent before these; `None`: these are the first of the outbox.
        #[n(1)]
        after: Option<u64>,
        #[n(2)]
        entries: Vec<Entry>,
        #[n(3)]
        session: u32,
    },
}

impl ToCloud {
    pub(crate) fn session(&self) -> u32 {
        match self {
            Self::Hello(Hello { session, .. })
            | Self::Ack { session, .. }
            | Self::Nack { session, .. }
            | Self::Differs { session, .. }
            | Self::Up { session, .. } => *session,
        }
    }
}

/// Cloud to edge.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum ToEdge {
    #[n(0)]
    Part(#[n(0)] Part),
    #[n(1)]
    UpAck {
        #[n(0)]
        lane: Lane,
        #[n(1)]
        seq: u64,
        #[n(2)]
        session: u32,
    },
    #[n(2)]
    UpNack {
        #[n(0)]
        lane: Lane,
        #[n(1)]
        seq: u64,
        #[n(2)]
        session: u32,
    },
    /// Answers a hello of a disk that would use numbers twice, since it is an old copy or a clone.
    #[n(3)]
    Renew {
        #[n(0)]
        session: u32,
    },
    /// Answers all other hellos. The edge heeds nothing before it and sends none of its entries.
    #[n(4)]
    Welcome {
        #[n(0)]
        session: u32,
        #[n(1)]
        receipt: Receipt,
        /// The cloud's.
        #[n(2)]
        epoch: u64,
        /// Of all positions that this session's batches lead to.
        #[n(3)]
        term: u64,
    },
}

impl ToEdge {
    pub(crate) fn session(&self) -> u32 {
        match self {
            Self::Part(Part { session, .. })
            | Self::UpAck { session, .. }
            | Self::UpNack { session, .. }
            | Self::Renew { session }
            | Self::Welcome { session, .. } => *session,
        }
    }
}

/// One message's share of a batch. A batch folds all revisions from one position to another and is applied in one
/// commit, when its last part is there. One without changes is a bookmark: it moves a quiet edge on. One that mends
/// some buckets names all that is in them, and all that changed elsewhere; a snapshot mends all of them, from nothing.
///
/// For one key that changed this is all that the wire carries besides name and value: what can be left out is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Part {
    #[n(0)]
    pub session: u32,
    /// Counts the batches of one session; one that is dropped half sent uses its number up.
    #[n(1)]
    pub batch: u32,
    /// Counts the parts of one batch.
    #[n(2)]
    pub part: u32,
    #[n(3)]
    pub changes: Packed,
    /// How many revisions the batch leads on from its base; in its last part only.
    #[n(4)]
    pub advance: Option<u64>,
    /// What the batch changes; `None`: what the one before it, by number, led to. In its first part only.
    #[n(5)]
    pub base: Option<Base>,
    /// In the first part of a repair: what is in these buckets and not named is deleted.
    #[n(6)]
    pub mends: Option<Buckets>,
    /// In the last part of a batch that is to be checked: the sum over all that the copy holds then.
    #[n(7)]
    pub digest: Option<u64>,
}

/// What a batch changes, where that is not what the one before it led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum Base {
    /// A snapshot: what it does not name is deleted.
    #[n(0)]
    Nothing,
    #[n(1)]
    At(#[n(0)] Position),
}

/// A queue of the outbox. Order is kept within a lane, not across.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Lane {
    /// Only the latest of a key counts.
    #[n(0)]
    State,
    /// Each one counts.
    #[n(1)]
    Event,
    /// A ring: the oldest give way, and a gap says so.
    #[n(2)]
    Telemetry,
    /// Apps' messages to other sites: each one counts, and what there is no room for gets no number.
    #[n(3)]
    Mesh,
}

impl Lane {
    pub const ALL: [Self; 4] = [Self::State, Self::Event, Self::Telemetry, Self::Mesh];

    /// Whose entries a class are; none is of the mesh's.
    pub fn of(class: Class) -> Self {
        match class {
            Class::State => Self::State,
            Class::Control | Class::Command | Class::Event => Self::Event,
            Class::Telemetry | Class::Bulk => Self::Telemetry,
        }
    }

    pub fn class(self) -> Class {
        match self {
            Self::State => Class::State,
            Self::Event | Self::Mesh => Class::Event,
            Self::Telemetry => Class::Telemetry,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Event => "event",
            Self::Telemetry => "telemetry",
            Self::Mesh => "mesh",
        }
    }
}

/// A number for each lane. On the wire and on the disk lanes that are at 0 are left out behind telemetry, and those
/// that are not known are skipped: who has not used a new lane is understood by nodes that do not know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerLane([u64; Lane::ALL.len()]);

impl PerLane {
    /// Lanes that are always named.
    const NAMED: usize = 3;

    pub(crate) fn of(number: impl FnMut(Lane) -> u64) -> Self {
        Self(Lane::ALL.map(number))
    }

    /// Whether some lane's number is higher here.
    pub(crate) fn exceeds(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).any(|(ours, theirs)| *ours > theirs)
    }
}

impl From<[u64; 3]> for PerLane {
    fn from([state, event, telemetry]: [u64; 3]) -> Self {
        Self([state, event, telemetry, 0])
    }
}

impl Index<Lane> for PerLane {
    type Output = u64;
    fn index(&self, lane: Lane) -> &u64 {
        &self.0[lane as usize]
    }
}

impl IndexMut<Lane> for PerLane {
    fn index_mut(&mut self, lane: Lane) -> &mut u64 {
        &mut self.0[lane as usize]
    }
}

impl<C> Encode<C> for PerLane {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let used = self.0.iter().rposition(|number| *number > 0).map_or(0, |last| last + 1);
        let told = &self.0[..used.max(Self::NAMED)];
        e.array(told.len() as u64)?;
        told.iter().try_for_each(|number| number.encode(e, ctx))
    }
}

impl<'b, C> Decode<'b, C> for PerLane {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let mut numbers = Self::default();
        for (at, number) in d.array_iter::<u64>()?.enumerate() {
            let number = number?;
            if let Some(known) = numbers.0.get_mut(at) {
                *known = number;
            }
        }
        Ok(numbers)
    }
}

/// One entry of the outbox. Numbers grow within a lane and an incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    #[n(0)]
    pub seq: u64,
    #[n(1)]
    pub body: Body,
}

/// What an entry says; also how the outbox stores it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Body {
    #[n(0)]
    Data {
        #[n(0)]
        key: String,
        #[n(1)]
        #[cbor(with = "octets")]
        payload: Bytes,
    },
    /// The entries numbered `from` up to this one were dropped.
    #[n(1)]
    Gap {
        #[n(0)]
        from: u64,
    },
}

/// What a peer did wrong; the node closes the link with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Misbehaviour {
    #[error("malformed metadata packet")]
    Malformed,
    #[error("answered to what was not sent")]
    AnsweredUnsent,
    #[error("sent a batch over the limit")]
    BatchTooLarge,
}

impl Misbehaviour {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::AnsweredUnsent => "answered_unsent",
            Self::BatchTooLarge => "batch_too_large",
        }
    }
}

/// Encoding into a `Vec` cannot fail: the writer is infallible and no type here refuses.
pub(crate) fn encode(value: &impl Encode<()>) -> Bytes {
    minicbor::to_vec(value).map(Bytes::from).unwrap_or_default()
}

mod octets {
    use bytes::Bytes;
    use minicbor::{Decoder, Encoder};

    pub(super) fn encode<C, W: minicbor::encode::Write>(
        bytes: &Bytes,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(bytes)?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Bytes, minicbor::decode::Error> {
        d.bytes().map(Bytes::copy_from_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The wire as it is spoken: a change here is a change of the protocol.
    #[test]
    fn the_format_is_pinned() {
        let hex = |bytes: Bytes| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let at = |term, revision| Position { term, revision: Revision(revision) };
        let hello = ToCloud::Hello(Hello {
            incarnation: Incarnation(7),
            applied: at(1, 9),
            session: 3,
            receipt: Receipt(5),
            sent: [0, 2, 0].into(),
            epoch: 1,
            stored: [0, 1, 0].into(),
        });
        assert_eq!(hex(encode(&hello)), "820087078201090305830002000183000100");
        let welcome = ToEdge::Welcome { session: 3, receipt: Receipt(5), epoch: 1, term: 9 };
        assert_eq!(hex(encode(&welcome)), "850403050109");
        let put = Change { name: "lease".into(), value: Some(Bytes::from_static(b"\x01")) };
        let delete = Change { name: "a".into(), value: None };
        let part = ToEdge::Part(Part {
            session: 3,
            batch: 1,
            part: 0,
            changes: Packed::pack(&[put, delete]),
            advance: Some(3),
            base: None,
            mends: None,
            digest: None,
        });
        assert_eq!(hex(encode(&part)), "8200850301004b656c6561736541016161f603");
        let ToEdge::Part(follows) = part else { unreachable!() };
        let part = ToEdge::Part(Part { base: Some(Base::At(at(1, 9))), digest: Some(2), ..follows });
        assert_eq!(hex(encode(&part)), "8200880301004b656c6561736541016161f6038201820109f602");
        let data = Body::Data { key: "k".into(), payload: Bytes::from_static(b"v") };
        let entries = vec![Entry { seq: 5, body: data }, Entry { seq: 6, body: Body::Gap { from: 6 } }];
        let up = ToCloud::Up { lane: Lane::Telemetry, after: None, entries, session: 3 };
        assert_eq!(hex(encode(&up)), "850302f6828205820082616b417682068201810603");
    }

    #[test]
    fn a_lane_that_was_never_used_is_not_named_and_one_that_is_not_known_is_skipped() {
        let of = |hex: &[u8]| minicbor::decode::<PerLane>(hex).unwrap();
        let mut numbers = PerLane::from([1, 2, 3]);
        assert_eq!(encode(&numbers)[..], [0x83, 1, 2, 3]);
        assert_eq!(of(&[0x83, 1, 2, 3]), numbers);
        numbers[Lane::Mesh] = 4;
        assert_eq!(encode(&numbers)[..], [0x84, 1, 2, 3, 4]);
        assert_eq!((of(&[0x84, 1, 2, 3, 4]), of(&[0x85, 1, 2, 3, 4, 5])), (numbers, numbers));
    }

    /// What a batch costs over its names and values, the frame's own five bytes included, by the number of keys, where
    /// nothing can be compressed.
    #[test]
    fn the_overhead_is_stated() {
        const FRAME: usize = 5;
        let overhead = |keys: u64| {
            let change = |n| {
                let name = noise(n, 14).iter().map(|byte| format!("{byte:02x}")).collect();
                Change { name, value: Some(noise(n, 60).into()) }
            };
            let changes: Vec<Change> = (0..keys).map(change).collect();
            let payload: usize = changes.iter().map(|change| change.name.len() + 60).sum();
            let changes = Packed::pack(&changes);
            let (session, batch, advance) = (u32::MAX, 200, Some(200));
            let part =
                Part { session, batch, part: 0, changes, advance, base: None, mends: None, digest: None };
            FRAME + encode(&ToEdge::Part(part)).len() - payload
        };
        assert_eq!([1, 10, 100].map(overhead), [24, 61, 421]);
    }

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut jitter = bus::backoff::Jitter::new(seed);
        (0..len).map(|_| jitter.next_u64() as u8).collect()
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_packet_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(packet) = minicbor::decode::<ToEdge>(&bytes) {
                prop_assert_eq!(minicbor::decode::<ToEdge>(&encode(&packet)).unwrap(), packet);
            }
            if let Ok(packet) = minicbor::decode::<ToCloud>(&bytes) {
                prop_assert_eq!(minicbor::decode::<ToCloud>(&encode(&packet)).unwrap(), packet);
            }
        }
    }
}
