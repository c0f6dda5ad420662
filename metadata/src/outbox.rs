//! What waits at the edge to go up, kept in the keyspace under `/o/<lane>/<seq>` until the cloud has stored it.
//!
//! | lane | bound reached |
//! |---|---|
//! | state: latest of a key only | a new key is refused, known keys go on; its owner tells it when there is room |
//! | event: each one | the new one is refused; one gap entry names all that were |
//! | telemetry: a ring | the oldest give way; one gap entry names them |
//! | mesh: each message | the new one is refused, and its publisher told: it gets no number |
//!
//! What was accepted in all but telemetry is never dropped, and what was not is known to be missing.

mod messages;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bus::Class;
use bytes::Bytes;
use thiserror::Error;

use self::messages::Messages;
pub use self::messages::{MAX_MESSAGE_BYTES, MAX_MESSAGES};
use crate::key::Key;
use crate::keyspace::{Keyspace, MAX_VALUE_LEN};
use crate::sync::{Body, Entry, Lane, Misbehaviour, PerLane, ToCloud, encode};

/// 1000 devices with 32 properties each wait at most once per property.
pub const MAX_STATE_ENTRIES: usize = 32_768;
/// A day of one event every ten seconds.
pub const MAX_EVENT_ENTRIES: usize = 8_192;
/// Samples are worth less the older they are: about an hour of one a second.
pub const MAX_TELEMETRY_ENTRIES: usize = 4_096;
/// Each lane's payloads and keys; all of them are in memory too, on an edge that has 64 MB.
pub const MAX_LANE_BYTES: usize = 4 << 20;
/// The longest key of an entry, in bytes.
pub const MAX_KEY_LEN: usize = Key::MAX_LEN;

/// Entries are sent while less than this is unacknowledged: 90 ms of a link of 3 Mbit/s, so that what is fresh does
/// not wait for what is old.
const WINDOW_BYTES: usize = 32 << 10;
/// One message holds about this much, and at least one entry; the lanes take turns by message.
const MESSAGE_BYTES: usize = 8 << 10;
/// What an entry costs besides key and payload.
const ENTRY_BYTES: usize = 24;
/// Numbers are reserved on the disk by the block, so that none is used twice after the lane ran empty.
const SEQ_BLOCK: u64 = 1024;

/// Why an entry was not accepted. The caller tells where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PushError {
    #[error("key of {0} bytes is over the limit of {MAX_KEY_LEN}")]
    KeyTooLong(usize),
    #[error("payload of {0} bytes is over the limit of {MAX_VALUE_LEN}")]
    TooLarge(usize),
    #[error("the outbox is full: the cloud was away for too long")]
    Full,
}

#[derive(Debug, Clone)]
struct Row {
    bytes: usize,
    /// Of a state entry.
    key: Option<Arc<str>>,
    gap: bool,
}

/// One lane.
#[derive(Debug, Clone)]
struct Queue {
    lane: Lane,
    max_entries: usize,
    rows: BTreeMap<u64, Row>,
    bytes: usize,
    by_key: BTreeMap<Arc<str>, u64>,
    next: u64,
    reserved: u64,
    /// The last entry sent since the last start from the first; `None`: start there.
    sent: Option<u64>,
    /// Last entry and size of each unacknowledged message.
    in_flight: VecDeque<(u64, usize)>,
}

/// The outbox of one edge.
#[derive(Debug, Clone)]
pub struct Outbox {
    /// State, event and telemetry.
    queues: [Queue; 3],
    messages: Messages,
    /// Whose turn it is.
    turn: usize,
}

impl Outbox {
    /// The outbox as the keyspace kept it. Rows that are unreadable are dropped.
    pub fn load(ks: &mut Keyspace) -> Self {
        let lanes = [
            (Lane::State, MAX_STATE_ENTRIES),
            (Lane::Event, MAX_EVENT_ENTRIES),
            (Lane::Telemetry, MAX_TELEMETRY_ENTRIES),
        ];
        let queues = lanes.map(|(lane, most)| Queue::load(lane, most, ks));
        Self { queues, messages: Messages::load(ks), turn: 0 }
    }

    /// Takes one entry. `key` names it to the cloud, as in `reported/default/pump-1/pressure`. State entries replace an
    /// older one of their key, commands' results are events, bulk is telemetry. A refused state is to be pushed again
    /// when [`Self::has_room`]; a refused event is lost, and a gap tells the cloud so.
    pub fn push(
        &mut self,
        class: Class,
        key: &str,
        payload: Bytes,
        ks: &mut Keyspace,
    ) -> Result<(), PushError> {
        if key.len() > MAX_KEY_LEN {
            return Err(PushError::KeyTooLong(key.len()));
        }
        if payload.len() > MAX_VALUE_LEN {
            return Err(PushError::TooLarge(payload.len()));
        }
        let queue = &mut self.queues[Lane::of(class) as usize];
        match queue.lane {
            Lane::State => queue.replace(key, payload, ks),
            Lane::Event => queue.append_or_refuse(key, payload, ks),
            Lane::Telemetry | Lane::Mesh => {
                queue.append(Body::Data { key: key.to_owned(), payload }, ks);
                queue.shed(ks);
                Ok(())
            }
        }
    }

    /// Takes a message for other sites. A refused one is nobody's: its publisher is to be told.
    pub fn push_message(&mut self, message: &[u8], ks: &mut Keyspace) -> Result<(), PushError> {
        if message.len() > MAX_VALUE_LEN {
            return Err(PushError::TooLarge(message.len()));
        }
        self.messages.push(message, ks)
    }

    /// The last number given, by lane.
    pub(crate) fn numbered(&self) -> PerLane {
        PerLane::of(|lane| match self.queues.get(lane as usize) {
            Some(queue) => queue.next - 1,
            None => self.messages.numbered(),
        })
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.queues.iter().map(|queue| queue.rows.len()).sum::<usize>() + self.messages.len()
    }

    /// How many messages for other sites wait.
    pub fn messages_len(&self) -> usize {
        self.messages.len()
    }

    /// Of each lane but messages: the number of the oldest entry that waits, or the one that the next gets, and that.
    pub fn ends(&self) -> [(u64, u64); 3] {
        let ends = |queue: &Queue| {
            let first = queue.rows.first_key_value().map_or(queue.next, |(first, _)| *first);
            (first, queue.next)
        };
        [0, 1, 2].map(|lane| self.queues.get(lane).map_or((0, 0), ends))
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether what was refused may try again: states and events fill at most half of their lanes.
    pub fn has_room(&self) -> bool {
        self.queues.iter().all(|queue| queue.lane == Lane::Telemetry || queue.is_half_empty())
    }

    /// Sends from the first again: on a new link, or because nothing was acknowledged for too long.
    pub(crate) fn rewind(&mut self) {
        self.queues.iter_mut().for_each(Queue::rewind);
        self.messages.rewind();
    }

    pub(crate) fn has_unacked(&self) -> bool {
        self.in_flight().next().is_some()
    }

    fn in_flight(&self) -> impl Iterator<Item = &(u64, usize)> {
        self.queues.iter().flat_map(|queue| &queue.in_flight).chain(self.messages.in_flight())
    }

    /// The next message, if the window allows one.
    pub(crate) fn next_message(&mut self, session: u32, ks: &Keyspace) -> Option<ToCloud> {
        let unacked: usize = self.in_flight().map(|(_, bytes)| bytes).sum();
        if unacked >= WINDOW_BYTES {
            return None;
        }
        let (turn, lanes) = (self.turn, Lane::ALL.len());
        let at = (turn..turn + lanes).map(|n| n % lanes).find(|at| match self.queues.get(*at) {
            Some(queue) => queue.has_unsent(),
            None => self.messages.has_unsent(),
        })?;
        self.turn = at + 1;
        Some(match self.queues.get_mut(at) {
            Some(queue) => queue.take(session, ks),
            None => self.messages.take(session, ks),
        })
    }

    /// The cloud stored everything up to `seq`.
    pub(crate) fn handle_ack(&mut self, lane: Lane, seq: u64, ks: &mut Keyspace) -> Result<(), Misbehaviour> {
        let Some(queue) = self.queues.get_mut(lane as usize) else {
            return self.messages.handle_ack(seq, ks);
        };
        if seq >= queue.next {
            return Err(Misbehaviour::AnsweredUnsent);
        }
        while let Some(first) = queue.rows.first_key_value().map(|(first, _)| *first).filter(|n| *n <= seq) {
            queue.remove(first, ks);
        }
        queue.in_flight.retain(|(last, _)| *last > seq);
        Ok(())
    }

    /// The cloud missed something after `seq`.
    pub(crate) fn handle_nack(&mut self, lane: Lane) {
        match self.queues.get_mut(lane as usize) {
            Some(queue) => queue.rewind(),
            None => self.messages.rewind(),
        }
    }
}

impl Queue {
    fn load(lane: Lane, max_entries: usize, ks: &mut Keyspace) -> Self {
        let reserved = reserved(lane, ks);
        let mut queue = Self {
            lane,
            max_entries,
            rows: BTreeMap::new(),
            bytes: 0,
            by_key: BTreeMap::new(),
            next: reserved,
            reserved,
            sent: None,
            in_flight: VecDeque::new(),
        };
        let rows: Vec<(Key, Bytes)> =
            ks.range(&prefix(lane)).map(|(key, value)| (key.clone(), value.clone())).collect();
        for (key, value) in rows {
            match parse(lane, &key, &value) {
                Some((seq, body)) => queue.enlist(seq, &body),
                None => ks.delete(&key),
            }
        }
        let last = queue.rows.last_key_value().map_or(0, |(last, _)| *last);
        if lane == Lane::Telemetry {
            // Samples are stored without a sync: the last ones may have been sent, and be missing here.
            queue.next = reserved.max(last + 1);
            queue.name_holes(ks);
        } else if last > 0 {
            // The highest row is the last one pushed: rows leave from below, or because a later one replaces them.
            queue.next = last + 1;
        }
        queue
    }

    /// Samples that the store lost between others become gaps. Numbers left out up to the beginning of a block were not
    /// used: that is where a restart goes on.
    fn name_holes(&mut self, ks: &mut Keyspace) {
        let rows: Vec<u64> = self.rows.keys().copied().collect();
        for pair in rows.windows(2) {
            let (before, after) = (pair[0], self.gap_from(pair[1], ks));
            if after > before + 1 && after % SEQ_BLOCK != 1 {
                self.put(after - 1, &Body::Gap { from: before + 1 }, ks);
            }
        }
    }

    fn enlist(&mut self, seq: u64, body: &Body) {
        let (bytes, key, gap) = match body {
            Body::Data { key, payload } => {
                (key.len() + payload.len() + ENTRY_BYTES, Some(key.as_str()), false)
            }
            Body::Gap { .. } => (ENTRY_BYTES, None, true),
        };
        let key = key.filter(|_| self.lane == Lane::State).map(Arc::<str>::from);
        if let Some(key) = &key {
            self.by_key.insert(Arc::clone(key), seq);
        }
        self.bytes += bytes;
        self.rows.insert(seq, Row { bytes, key, gap });
    }

    fn put(&mut self, seq: u64, body: &Body, ks: &mut Keyspace) {
        ks.put(row_key(self.lane, seq), encode(body));
        self.enlist(seq, body);
    }

    fn remove(&mut self, seq: u64, ks: &mut Keyspace) {
        let Some(row) = self.rows.remove(&seq) else { return };
        ks.delete(&row_key(self.lane, seq));
        self.bytes -= row.bytes;
        if let Some(key) = row.key {
            self.by_key.remove(&key);
        }
    }

    fn append(&mut self, body: Body, ks: &mut Keyspace) {
        let seq = self.next;
        self.next += 1;
        reserve(self.lane, seq, &mut self.reserved, ks);
        self.put(seq, &body, ks);
    }

    fn append_or_refuse(&mut self, key: &str, payload: Bytes, ks: &mut Keyspace) -> Result<(), PushError> {
        let room = self.room(0, 0, key, &payload);
        match room {
            Ok(()) => self.append(Body::Data { key: key.to_owned(), payload }, ks),
            Err(_) => self.append_gap(ks),
        }
        room
    }

    /// Gives a number to what is refused. A gap at the end grows, so that any number of them take one row.
    fn append_gap(&mut self, ks: &mut Keyspace) {
        let last = self.rows.last_key_value().filter(|(_, row)| row.gap).map(|(seq, _)| *seq);
        let from = last.map_or(self.next, |last| self.gap_from(last, ks));
        if let Some(last) = last {
            self.remove(last, ks);
        }
        self.append(Body::Gap { from }, ks);
    }

    /// The new entry goes to the end: the old one may be on its way already.
    fn replace(&mut self, key: &str, payload: Bytes, ks: &mut Keyspace) -> Result<(), PushError> {
        match self.by_key.get(key).copied() {
            None => self.room(0, 0, key, &payload)?,
            Some(old) => {
                let bytes = self.rows.get(&old).map_or(0, |row| row.bytes);
                self.room(1, bytes, key, &payload)?;
                self.remove(old, ks);
            }
        }
        self.append(Body::Data { key: key.to_owned(), payload }, ks);
        Ok(())
    }

    /// Whether an entry fits once `entries` of together `bytes` have left.
    fn room(&self, entries: usize, bytes: usize, key: &str, payload: &Bytes) -> Result<(), PushError> {
        let after = self.bytes - bytes + key.len() + payload.len() + ENTRY_BYTES;
        let fits = self.rows.len() - entries < self.max_entries && after <= MAX_LANE_BYTES;
        if fits { Ok(()) } else { Err(PushError::Full) }
    }

    fn is_half_empty(&self) -> bool {
        self.rows.len() <= self.max_entries / 2 && self.bytes <= MAX_LANE_BYTES / 2
    }

    /// Turns the oldest entries into one gap until the lane is within its bounds.
    fn shed(&mut self, ks: &mut Keyspace) {
        while self.rows.len() > self.max_entries || self.bytes > MAX_LANE_BYTES {
            let mut oldest = self.rows.iter().map(|(seq, row)| (*seq, row.gap));
            let (first, second) = (oldest.next(), oldest.next());
            let (Some((first, is_gap)), Some((second, _))) = (first, second) else { return };
            let (from, into) = match is_gap {
                true => (self.gap_from(first, ks), second),
                false => (first, first),
            };
            self.remove(first, ks);
            self.remove(into, ks);
            self.put(into, &Body::Gap { from }, ks);
        }
    }

    fn gap_from(&self, seq: u64, ks: &Keyspace) -> u64 {
        match self.body(seq, ks) {
            Some(Body::Gap { from }) => from,
            Some(Body::Data { .. }) | None => seq,
        }
    }

    fn body(&self, seq: u64, ks: &Keyspace) -> Option<Body> {
        let key = row_key(self.lane, seq);
        parse(self.lane, &key, ks.get(key.as_str())?).map(|(_, body)| body)
    }

    /// A gap that grew after it was sent says what is new of it only.
    fn clip(&self, body: Body) -> Body {
        match body {
            Body::Gap { from } => Body::Gap { from: from.max(self.sent.map_or(0, |sent| sent + 1)) },
            data @ Body::Data { .. } => data,
        }
    }

    fn rewind(&mut self) {
        self.sent = None;
        self.in_flight.clear();
    }

    fn unsent(&self) -> impl Iterator<Item = (&u64, &Row)> {
        self.rows.range((Bound::Excluded(self.sent.unwrap_or(0)), Bound::Unbounded))
    }

    fn has_unsent(&self) -> bool {
        self.unsent().next().is_some()
    }

    fn take(&mut self, session: u32, ks: &Keyspace) -> ToCloud {
        let (mut bytes, mut entries, mut last) = (0, Vec::new(), 0);
        for (seq, row) in self.unsent() {
            if bytes + row.bytes > MESSAGE_BYTES && bytes > 0 {
                break;
            }
            bytes += row.bytes;
            last = *seq;
            entries.extend(self.body(*seq, ks).map(|body| Entry { seq: *seq, body: self.clip(body) }));
        }
        let after = self.sent.replace(last);
        self.in_flight.push_back((last, bytes));
        ToCloud::Up { lane: self.lane, after, entries, session }
    }
}

fn prefix(lane: Lane) -> String {
    format!("/o/{}/", lane.as_str())
}

fn row_key(lane: Lane, seq: u64) -> Key {
    Key::literal(&format!("/o/{}/{seq:020}", lane.as_str()))
}

fn reserved_key(lane: Lane) -> String {
    format!("/sync/seq/{}", lane.as_str())
}

/// The first number that no block was reserved for.
fn reserved(lane: Lane, ks: &Keyspace) -> u64 {
    let stored = ks.get(&reserved_key(lane)).and_then(|bytes| <[u8; 8]>::try_from(&bytes[..]).ok());
    stored.map_or(1, u64::from_be_bytes)
}

/// Lets the disk know that numbers up to `seq` are given, some more with it.
fn reserve(lane: Lane, seq: u64, reserved: &mut u64, ks: &mut Keyspace) {
    if seq >= *reserved {
        *reserved = seq + SEQ_BLOCK;
        let value = Bytes::copy_from_slice(&reserved.to_be_bytes());
        ks.put(Key::literal(&reserved_key(lane)), value);
    }
}

fn parse(lane: Lane, key: &Key, value: &Bytes) -> Option<(u64, Body)> {
    let seq = key.as_str().strip_prefix(&prefix(lane))?.parse().ok()?;
    Some((seq, minicbor::decode(value).ok()?))
}

#[cfg(test)]
mod tests;
