//! One edge as the cloud's part of the mesh knows it: what it asks for, what waits for it, and how far it is.

use std::collections::{BTreeMap, VecDeque};

use bus::{Filter, Name};
use metadata::{Key, Keyspace};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::leaf::BlockId;
use super::log::Log;
use super::parcel::{BLOCK_BYTES, BLOCK_PARCELS, Block};
use super::{SLOTS, encode, key};

pub(super) const PREFIX: &str = "/c/mesh/site/";

/// Messages that wait for an edge that is away: as many as an outbox holds. Of one more, the oldest gives way, which is
/// counted and noted.
pub(crate) const MAX_WAITING: usize = metadata::outbox::MAX_MESSAGES;
/// The same, as they are stored.
pub(crate) const MAX_WAITING_BYTES: usize = 32 << 20;

/// What is under way to an edge, at least one block: an edge of 64 MB holds it twice for a moment.
const WINDOW_BYTES: usize = 512 << 10;

/// How far an edge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub(super) struct Cursor {
    /// 0: nothing was ever under way.
    #[n(0)]
    stream: u64,
    /// The last block that was made.
    #[n(1)]
    formed: u64,
    /// The last one that the edge consumed.
    #[n(2)]
    consumed: u64,
    /// Messages of the log up to this number are in blocks, or gave way.
    #[n(3)]
    taken: u64,
    /// Messages that gave way, since the edge joined.
    #[n(4)]
    dropped: u64,
}

#[derive(Debug)]
pub(super) struct Site {
    edge: Name,
    /// With their generations.
    pub(super) wants: BTreeMap<Filter, u64>,
    cursor: Cursor,
    /// The edge has told this process of the cloud what it consumed. Before, nothing is made for it: a cloud that was put
    /// back to a copy of its disk would use numbers again.
    ready: bool,
    /// What waits: numbers in the log, with sizes.
    queue: VecDeque<(u64, usize)>,
    queued_bytes: usize,
    /// Sizes of the blocks that are not consumed, the oldest first.
    under_way: VecDeque<usize>,
    /// Something gives way at present, and that was noted.
    overflows: bool,
}

impl Site {
    pub(super) fn load(edge: Name, ks: &Keyspace) -> Self {
        let cursor = ks.get(&cursor_key(&edge)).and_then(|bytes| minicbor::decode(bytes).ok());
        let mut site = Self {
            edge,
            wants: BTreeMap::new(),
            cursor: cursor.unwrap_or_default(),
            ready: false,
            queue: VecDeque::new(),
            queued_bytes: 0,
            under_way: VecDeque::new(),
            overflows: false,
        };
        for number in site.cursor.consumed + 1..=site.cursor.formed {
            let bytes = ks.get(site.slot(number).as_str()).map_or(0, |bytes| bytes.len());
            site.under_way.push_back(bytes);
        }
        site
    }

    pub(super) fn edge(&self) -> &Name {
        &self.edge
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether there is something that it has not consumed.
    pub(super) fn is_behind(&self) -> bool {
        !self.queue.is_empty() || !self.under_way.is_empty()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.cursor.dropped
    }

    /// Whether the message of this number is still to be sent.
    pub(super) fn is_waiting_for(&self, number: u64) -> bool {
        number > self.cursor.taken
    }

    /// A message waits. True if from now on the oldest give way.
    pub(super) fn enqueue(&mut self, number: u64, bytes: usize, log: &mut Log, ks: &mut Keyspace) -> bool {
        self.restore(number, bytes);
        let was_overflowing = self.overflows;
        while self.queue.len() > MAX_WAITING || self.queued_bytes > MAX_WAITING_BYTES {
            let Some(number) = self.dequeue() else { break };
            self.cursor.dropped += 1;
            self.overflows = true;
            log.release(number, ks);
            self.save(ks);
        }
        self.overflows && !was_overflowing
    }

    /// A message waited when the process began.
    pub(super) fn restore(&mut self, number: u64, bytes: usize) {
        self.queue.push_back((number, bytes));
        self.queued_bytes += bytes;
    }

    fn dequeue(&mut self) -> Option<u64> {
        let (number, bytes) = self.queue.pop_front()?;
        self.queued_bytes -= bytes;
        self.cursor.taken = number;
        Some(number)
    }

    /// Makes blocks of what waits while there are slots and the window is open.
    pub(super) fn fill(&mut self, log: &mut Log, ks: &mut Keyspace) {
        if !self.ready || self.queue.is_empty() {
            return;
        }
        let before = self.cursor;
        while !self.queue.is_empty() && self.is_open() {
            let parcels = self.haul(log, ks);
            if parcels.is_empty() {
                continue; // Rows that are unreadable.
            }
            self.cursor.formed += 1;
            let number = self.cursor.formed;
            let block = encode(&Block { stream: self.cursor.stream, number, parcels });
            self.under_way.push_back(block.len());
            ks.put(self.slot(number), block);
        }
        self.overflows &= !self.queue.is_empty();
        if self.cursor != before {
            self.save(ks);
        }
    }

    fn is_open(&self) -> bool {
        let bytes: usize = self.under_way.iter().sum();
        (self.under_way.len() as u64) < SLOTS && bytes < WINDOW_BYTES
    }

    fn haul(&mut self, log: &mut Log, ks: &mut Keyspace) -> Vec<ByteVec> {
        let (mut bytes, mut parcels) = (0, Vec::new());
        while let Some((_, next)) = self.queue.front()
            && parcels.len() < BLOCK_PARCELS
            && (parcels.is_empty() || bytes + next <= BLOCK_BYTES)
        {
            bytes += next;
            let Some(number) = self.dequeue() else { break };
            parcels.extend(Log::get(number, ks).map(ByteVec::from));
            log.release(number, ks);
        }
        parcels
    }

    /// The edge says which block it consumed last. An error: more than there ever was, so this cloud was put back to a
    /// copy of its disk; it begins another stream, and what was under way is consumed.
    pub(super) fn handle_position(&mut self, told: BlockId, ks: &mut Keyspace) -> Result<(), PutBack> {
        let is_first = !std::mem::replace(&mut self.ready, true);
        let Cursor { stream, formed, consumed, .. } = self.cursor;
        if told.stream != stream {
            return Ok(()); // It has not heard of this one yet.
        }
        if told.number > formed && is_first {
            return Err(PutBack);
        }
        for _ in consumed..told.number.min(formed) {
            self.under_way.pop_front();
            self.cursor.consumed += 1;
        }
        if self.cursor.consumed > consumed {
            self.save(ks);
        }
        Ok(())
    }

    /// Numbers from 1 on under a name that nobody has heard, with nothing under way.
    pub(super) fn begin_stream(&mut self, stream: u64, ks: &mut Keyspace) {
        self.clear_slots(ks);
        self.cursor = Cursor { stream, formed: 0, consumed: 0, ..self.cursor };
        self.save(ks);
    }

    pub(super) fn has_stream(&self) -> bool {
        self.cursor.stream != 0
    }

    /// A row without a value would be a deletion that the sync has to remember.
    fn clear_slots(&mut self, ks: &mut Keyspace) {
        self.under_way.clear();
        for number in 0..SLOTS {
            let slot = self.slot(number);
            if ks.get(slot.as_str()).is_some() {
                ks.put(slot, bytes::Bytes::new());
            }
        }
    }

    /// The edge may be another disk, or this cloud another process: it says anew what it consumed.
    pub(super) fn handle_other_disk(&mut self) {
        self.ready = false;
    }

    /// Nothing waits any more.
    pub(super) fn drop_all(&mut self, log: &mut Log, ks: &mut Keyspace) {
        while let Some(number) = self.dequeue() {
            log.release(number, ks);
        }
        self.ready = false;
        self.save(ks);
    }

    /// The node is no member any more.
    pub(super) fn forget(mut self, log: &mut Log, ks: &mut Keyspace) {
        self.drop_all(log, ks);
        for number in 0..SLOTS {
            ks.delete(&self.slot(number));
        }
        ks.delete(&key(&cursor_key(&self.edge)));
    }

    fn slot(&self, number: u64) -> Key {
        key(&format!("/e/{}/mesh/{:02}", self.edge, number % SLOTS))
    }

    fn save(&self, ks: &mut Keyspace) {
        ks.put(key(&cursor_key(&self.edge)), encode(&self.cursor));
    }
}

/// This cloud was put back to a copy of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PutBack;

fn cursor_key(edge: &Name) -> String {
    format!("{PREFIX}{edge}")
}
