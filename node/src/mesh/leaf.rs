//! An edge's part of the mesh: what its apps say to other sites, and what it was sent for them.

use std::collections::VecDeque;

use bus::{Filter, Message, UnixMillis};
use bytes::Bytes;
use device_twin::{Announcement, Receipt};
use metadata::{Key, Keyspace};
use minicbor::{Decode, Encode};

use super::desk::Desk;
use super::parcel::{Block, MAX_PARCEL, Parcel, Serial};
use super::wants::Want;
use super::{encode, hash, key};

/// The slots as they come through the sync.
const SLOTS: &str = "/m/mesh/";
const POSITION: &str = "/mesh/position";

/// What the outbox's entries for the cloud's part begin with.
pub(crate) const UP: &str = "mesh/";
/// The key of the entry that says what is consumed.
pub(super) const UP_POSITION: &str = "mesh/position";
/// The keys of those that say which filters are asked for.
pub(super) const UP_WANT: &str = "mesh/want/";

/// What the leaf wants done.
#[derive(Debug)]
pub(crate) enum Output {
    /// Into the outbox, as state.
    Up { key: String, payload: Bytes },
    /// To the broker.
    Announce(Announcement),
}

/// A block of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub(super) struct BlockId {
    #[n(0)]
    pub(super) stream: u64,
    #[n(1)]
    pub(super) number: u64,
}

/// All blocks up to `block` are consumed, and `more` messages of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
struct Position {
    #[n(0)]
    block: BlockId,
    #[n(1)]
    more: u64,
}

/// A filter that is asked for, or not any more, as an edge tells it.
#[derive(Debug, Encode, Decode)]
pub(super) struct Told {
    #[n(0)]
    pub(super) want: Want,
    #[n(1)]
    pub(super) wanted: bool,
}

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("with {0} bytes it is over the limit of {MAX_PARCEL} for other sites")]
pub(crate) struct TooLong(usize);

#[derive(Debug)]
pub(crate) struct Leaf {
    desk: Desk<Position>,
    position: Position,
    /// The last block handed out.
    handed: BlockId,
    /// Of the last message that apps here said.
    said: Serial,
    outputs: VecDeque<Output>,
}

impl Leaf {
    /// `run` differs from start to start.
    pub(crate) fn load(ks: &Keyspace, run: u64) -> Self {
        let position: Position =
            ks.get(POSITION).and_then(|bytes| minicbor::decode(bytes).ok()).unwrap_or_default();
        Self {
            desk: Desk::load(ks),
            position,
            handed: position.block,
            said: Serial { run, number: 0 },
            outputs: VecDeque::new(),
        }
    }

    /// What the outbox keeps of an app's message.
    pub(crate) fn pack(&mut self, message: Message, wall: UnixMillis) -> Result<Bytes, TooLong> {
        self.said.number += 1;
        let parcel = Parcel { serial: Some(self.said), ..Parcel::new(message, wall) }.encode();
        if parcel.len() > MAX_PARCEL { Err(TooLong(parcel.len())) } else { Ok(parcel) }
    }

    /// The process begins: hands out what was under way. `theirs` is the time on the cloud's clock, where known.
    pub(crate) fn handle_start(&mut self, ks: &mut Keyspace, theirs: UnixMillis, ours: UnixMillis) {
        let keys: Vec<Key> = ks.range(SLOTS).map(|(key, _)| key.clone()).collect();
        self.handle_changed(&keys, ks, theirs, ours);
    }

    /// These keys below `/m/` have new values.
    pub(crate) fn handle_changed(
        &mut self,
        keys: &[Key],
        ks: &mut Keyspace,
        theirs: UnixMillis,
        ours: UnixMillis,
    ) {
        let slots = keys.iter().filter(|key| key.as_str().starts_with(SLOTS));
        let mut blocks: Vec<Block> = slots.filter_map(|key| Block::decode(ks.get(key.as_str())?)).collect();
        if blocks.is_empty() {
            return;
        }
        blocks.sort_by_key(|block| block.number);
        for block in blocks {
            self.hand(block, theirs, ours);
        }
        self.note_consumed(ks);
    }

    fn hand(&mut self, block: Block, theirs: UnixMillis, ours: UnixMillis) {
        let Block { stream, number, parcels } = block;
        if stream != self.handed.stream {
            // The cloud clears all slots of the stream before: this is all that there is.
            self.desk.clear();
            self.position = Position { block: BlockId { stream, number: number.saturating_sub(1) }, more: 0 };
        } else if number <= self.handed.number {
            return;
        }
        let id = BlockId { stream, number };
        self.handed = id;
        let before = BlockId { stream, number: number.saturating_sub(1) };
        let known = if self.position.block == before { self.position.more } else { 0 };
        let last = parcels.len() as u64;
        for (at, bytes) in (1..).zip(parcels).filter(|(at, _)| *at > known) {
            let parcel = Parcel::decode(&bytes).and_then(|parcel| parcel.aged(theirs, ours));
            let place = if at == last { (id, 0) } else { (before, at) };
            self.desk.hand(parcel, Position { block: place.0, more: place.1 });
        }
    }

    /// The broker has the message of this receipt safe.
    pub(crate) fn handle_taken(&mut self, receipt: Receipt, ks: &mut Keyspace) {
        self.desk.handle_taken(receipt);
        self.note_consumed(ks);
    }

    fn note_consumed(&mut self, ks: &mut Keyspace) {
        let Some(position) = self.desk.consumed(ks) else { return };
        let is_told = self.position.block == position.block;
        self.position = position;
        ks.put(key(POSITION), encode(&position));
        if !is_told {
            self.tell_position();
        }
    }

    fn tell_position(&mut self) {
        let payload = encode(&self.position.block);
        self.outputs.push_back(Output::Up { key: UP_POSITION.to_owned(), payload });
    }

    fn tell(&mut self, want: Want, wanted: bool) {
        let key = key_of(&want.filter);
        self.outputs.push_back(Output::Up { key, payload: encode(&Told { want, wanted }) });
    }

    /// The first subscriber of a filter came, or its last one left.
    pub(crate) fn handle_interest(&mut self, filter: &Filter, wanted: bool, ks: &mut Keyspace) {
        if wanted {
            if let Some(want) = self.desk.handle_wanted(filter, ks) {
                self.tell_position();
                self.tell(want, true);
            }
        } else if self.desk.handle_unwanted(filter, ks) {
            self.tell(Want { filter: filter.clone(), generation: 0 }, false);
        }
    }

    /// All that sessions of before the start ask for was said: the rest is asked for no more.
    pub(crate) fn handle_restored(&mut self, ks: &mut Keyspace) {
        for filter in self.desk.wants.unconfirmed() {
            self.handle_interest(&filter, false, ks);
        }
    }

    /// A link to the cloud stands, perhaps to a new process: it sends nothing before it knows what is consumed.
    pub(crate) fn handle_link_up(&mut self) {
        if !self.desk.wants.is_empty() || self.position != Position::default() {
            self.tell_position();
        }
    }

    /// Tells those again for which the outbox had no room, or which the cloud has forgotten.
    pub(crate) fn tell_again(&mut self, is_untold: impl Fn(&str) -> bool) {
        let wants: Vec<Want> =
            self.desk.wants.iter().filter(|want| is_untold(&key_of(&want.filter))).collect();
        if is_untold(UP_POSITION) && (!wants.is_empty() || self.position != Position::default()) {
            self.tell_position();
        }
        wants.into_iter().for_each(|want| self.tell(want, true));
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front().or_else(|| self.desk.poll().map(Output::Announce))
    }

    /// For `kubebus status`.
    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::json!({ "wants": self.desk.wants.iter().count(), "wants_refused": self.desk.wants.refused(),
                            "handing_out": self.desk.len(), "retained_refused": self.desk.unkept() })
    }
}

fn key_of(filter: &Filter) -> String {
    format!("{UP_WANT}{}", hash(filter.as_str()))
}
