//! The outbox's lane of messages to other sites: many, small, and each of them counts.
//!
//! A site that is cut off for long has so many of them that a row of the keyspace for each would not fit into the
//! memory of an edge: key, node and allocations take three times what a short message does. So what waits is put
//! together: as soon as [`LOOSE_ROWS`] of one message each wait, one row takes their place. A message that goes up at
//! once is written once, one that has to wait twice.
//!
//! A row is named by the number of its first message and is a CBOR sequence of byte strings (RFC 8742); the numbers in
//! it follow each other.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use minicbor::Decoder;

use super::{MESSAGE_BYTES, PushError, prefix, reserve, reserved, row_key};
use crate::key::Key;
use crate::keyspace::Keyspace;
use crate::sync::{Body, Entry, Lane, Misbehaviour, ToCloud, encode};

/// Thirteen minutes of 200 a second. One more is refused, and its publisher told.
pub const MAX_MESSAGES: usize = 160_000;
/// As they are stored: 160,000 of 100 bytes with topic, origin and head fit, and an edge of 64 MB has room for its own
/// work besides. What is more is refused.
pub const MAX_MESSAGE_BYTES: usize = 27 << 20;

/// So many rows of one message each, at most, wait beside those that were put together.
const LOOSE_ROWS: usize = 64;
/// A longer message stays alone: what its row costs is little to it. Bounds what is put together to 256 KiB.
const LOOSE_BYTES: usize = 4 << 10;

const LANE: Lane = Lane::Mesh;

#[derive(Debug, Clone, Copy)]
struct Row {
    last: u64,
    bytes: usize,
}

/// What waits in the lane.
#[derive(Debug, Clone)]
pub(super) struct Messages {
    /// By the number of their first message.
    rows: BTreeMap<u64, Row>,
    bytes: usize,
    count: usize,
    next: u64,
    reserved: u64,
    /// The cloud has all up to here; a row goes when it has all of it.
    acked: u64,
    /// The last message sent since the last start from the first; `None`: start there.
    sent: Option<u64>,
    /// Last number and size of each unacknowledged batch.
    in_flight: VecDeque<(u64, usize)>,
}

impl Messages {
    /// As the keyspace kept them. Rows that are unreadable are dropped.
    pub(super) fn load(ks: &mut Keyspace) -> Self {
        let reserved = reserved(LANE, ks);
        let mut all = Self {
            rows: BTreeMap::new(),
            bytes: 0,
            count: 0,
            next: reserved,
            reserved,
            acked: 0,
            sent: None,
            in_flight: VecDeque::new(),
        };
        let found = ks.range(&prefix(LANE)).map(|(key, value)| (key.clone(), measure(key, value)));
        for (key, row) in found.collect::<Vec<_>>() {
            match row {
                Some((first, row)) => all.enlist(first, row),
                None => ks.delete(&key),
            }
        }
        if let Some((_, Row { last, .. })) = all.rows.last_key_value() {
            all.next = last + 1;
        }
        all
    }

    /// The last number given.
    pub(super) fn numbered(&self) -> u64 {
        self.next - 1
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn in_flight(&self) -> impl Iterator<Item = &(u64, usize)> {
        self.in_flight.iter()
    }

    pub(super) fn push(&mut self, message: &[u8], ks: &mut Keyspace) -> Result<(), PushError> {
        let value = encode(&minicbor::bytes::ByteVec::from(message.to_vec()));
        if self.count >= MAX_MESSAGES || self.bytes + value.len() > MAX_MESSAGE_BYTES {
            return Err(PushError::Full);
        }
        let seq = self.next;
        self.next += 1;
        reserve(LANE, seq, &mut self.reserved, ks);
        self.enlist(seq, Row { last: seq, bytes: value.len() });
        // Without what the encoder had to spare.
        ks.put(row_key(LANE, seq), Bytes::copy_from_slice(&value));
        self.put_together(ks);
        Ok(())
    }

    fn enlist(&mut self, first: u64, row: Row) {
        self.bytes += row.bytes;
        self.count += len(first, row);
        self.rows.insert(first, row);
    }

    fn delist(&mut self, first: u64) {
        let Some(row) = self.rows.remove(&first) else { return };
        self.bytes -= row.bytes;
        self.count -= len(first, row);
    }

    /// The rows of one message at the end become one, once they are many.
    fn put_together(&mut self, ks: &mut Keyspace) {
        let mut firsts = self.loose();
        if firsts.len() < LOOSE_ROWS {
            return;
        }
        firsts.reverse();
        let (mut together, mut last) = (BytesMut::new(), 0);
        for first in &firsts {
            let key = row_key(LANE, *first);
            together.extend_from_slice(ks.get(key.as_str()).map_or(&[], |value| &value[..]));
            ks.delete(&key);
            self.delist(*first);
            last = *first;
        }
        self.enlist(firsts[0], Row { last, bytes: together.len() });
        ks.put(row_key(LANE, firsts[0]), Bytes::copy_from_slice(&together));
    }

    /// The rows of one short message at the end, the last one first, whose numbers follow each other.
    fn loose(&self) -> Vec<u64> {
        let mut after = self.next;
        let mut loose = Vec::with_capacity(LOOSE_ROWS);
        for (first, row) in self.rows.iter().rev() {
            if row.last != *first || row.last + 1 != after || row.bytes >= LOOSE_BYTES {
                break;
            }
            after = *first;
            loose.push(after);
        }
        loose
    }

    pub(super) fn rewind(&mut self) {
        self.sent = None;
        self.in_flight.clear();
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.rows.last_key_value().is_some_and(|(_, row)| row.last > self.last_sent())
    }

    fn last_sent(&self) -> u64 {
        self.sent.unwrap_or(self.acked)
    }

    pub(super) fn take(&mut self, session: u32, ks: &Keyspace) -> ToCloud {
        let from = self.last_sent() + 1;
        let begins = self.rows.range(..=from).next_back().map_or(from, |(first, _)| *first);
        let (mut bytes, mut entries) = (0, Vec::new());
        'full: for first in self.rows.range(begins..).map(|(first, _)| *first) {
            let value = ks.get(row_key(LANE, first).as_str()).cloned().unwrap_or_default();
            for (seq, payload) in (first..).zip(messages(&value)).filter(|(seq, _)| *seq >= from) {
                if bytes + payload.len() > MESSAGE_BYTES && bytes > 0 {
                    break 'full;
                }
                bytes += payload.len();
                entries.push(Entry { seq, body: Body::Data { key: String::new(), payload } });
            }
        }
        let last = entries.last().map_or(from, |entry| entry.seq);
        let after = self.sent.replace(last);
        self.in_flight.push_back((last, bytes));
        ToCloud::Up { lane: LANE, after, entries, session }
    }

    pub(super) fn handle_ack(&mut self, seq: u64, ks: &mut Keyspace) -> Result<(), Misbehaviour> {
        if seq >= self.next {
            return Err(Misbehaviour::AnsweredUnsent);
        }
        self.acked = seq.max(self.acked);
        while let Some((first, _)) = self.rows.first_key_value().filter(|(_, row)| row.last <= seq) {
            let first = *first;
            self.delist(first);
            ks.delete(&row_key(LANE, first));
        }
        self.in_flight.retain(|(last, _)| *last > seq);
        Ok(())
    }
}

fn len(first: u64, row: Row) -> usize {
    usize::try_from(row.last - first + 1).unwrap_or(usize::MAX)
}

/// The messages of a row, in order, up to one that is unreadable.
fn messages(value: &Bytes) -> impl Iterator<Item = Bytes> {
    let mut decoder = Decoder::new(value);
    std::iter::from_fn(move || {
        if decoder.position() >= value.len() {
            return None;
        }
        decoder.bytes().ok().map(|message| value.slice_ref(message))
    })
}

fn measure(key: &Key, value: &Bytes) -> Option<(u64, Row)> {
    let first: u64 = key.as_str().strip_prefix(&prefix(LANE))?.parse().ok()?;
    let mut decoder = Decoder::new(value);
    let mut count = 0;
    while decoder.position() < value.len() {
        decoder.bytes().ok()?;
        count += 1;
    }
    let last = first.checked_add(count)?.checked_sub(1).filter(|last| *last >= first)?;
    Some((first, Row { last, bytes: value.len() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Outbox;

    fn empty() -> (Keyspace, Outbox) {
        let mut ks = Keyspace::new();
        let outbox = Outbox::load(&mut ks);
        (ks, outbox)
    }

    fn push(outbox: &mut Outbox, ks: &mut Keyspace, numbers: std::ops::Range<u64>) {
        numbers.for_each(|n| outbox.push_message(n.to_string().as_bytes(), ks).unwrap());
    }

    fn sent(outbox: &mut Outbox, ks: &Keyspace) -> Vec<(u64, String)> {
        let mut all = Vec::new();
        while let Some(ToCloud::Up { lane: Lane::Mesh, entries, .. }) = outbox.next_message(3, ks) {
            for Entry { seq, body } in entries {
                let Body::Data { payload, .. } = body else { panic!("no gaps here") };
                all.push((seq, String::from_utf8(payload.to_vec()).unwrap()));
            }
        }
        all
    }

    fn expected(numbers: std::ops::Range<u64>) -> Vec<(u64, String)> {
        numbers.map(|n| (n + 1, n.to_string())).collect()
    }

    fn restarted(ks: &mut Keyspace) -> (Keyspace, Outbox) {
        ks.seal();
        let mut ks = Keyspace::load(ks.rows());
        let outbox = Outbox::load(&mut ks);
        (ks, outbox)
    }

    #[test]
    fn messages_that_wait_are_put_together_and_go_up_in_order() {
        let (mut ks, mut outbox) = empty();
        push(&mut outbox, &mut ks, 0..150);
        assert_eq!((outbox.messages_len(), ks.range("/o/mesh/").count()), (150, 2 + 150 - 2 * LOOSE_ROWS));
        assert_eq!(sent(&mut outbox, &ks), expected(0..150));
        push(&mut outbox, &mut ks, 150..300);
        assert_eq!(sent(&mut outbox, &ks), expected(150..300));
        let (ks, mut outbox) = restarted(&mut ks);
        assert_eq!(sent(&mut outbox, &ks), expected(0..300));
    }

    #[test]
    fn what_is_acknowledged_goes_row_by_row_and_is_not_sent_again() {
        let (mut ks, mut outbox) = empty();
        push(&mut outbox, &mut ks, 0..100);
        sent(&mut outbox, &ks);
        outbox.handle_ack(Lane::Mesh, 70, &mut ks).unwrap();
        assert_eq!(ks.range("/o/mesh/").count(), 30);
        outbox.rewind();
        assert_eq!(sent(&mut outbox, &ks), expected(70..100));
        push(&mut outbox, &mut ks, 100..200);
        outbox.handle_ack(Lane::Mesh, 80, &mut ks).unwrap();
        outbox.rewind();
        assert_eq!(sent(&mut outbox, &ks), expected(80..200), "the middle of a row");
        outbox.handle_ack(Lane::Mesh, 200, &mut ks).unwrap();
        assert_eq!((outbox.is_empty(), ks.range("/o/").count()), (true, 0));
        assert_eq!(outbox.handle_ack(Lane::Mesh, 201, &mut ks), Err(Misbehaviour::AnsweredUnsent));
        let (mut ks, mut outbox) = restarted(&mut ks);
        push(&mut outbox, &mut ks, 0..1);
        assert!(sent(&mut outbox, &ks)[0].0 > 200, "no number is used twice");
    }

    #[test]
    fn a_damaged_row_is_dropped_and_the_others_go_up() {
        let (mut ks, mut outbox) = empty();
        push(&mut outbox, &mut ks, 0..3);
        ks.put(row_key(LANE, 2), Bytes::from_static(b"\x45no"));
        let (mut ks, mut outbox) = restarted(&mut ks);
        assert_eq!(sent(&mut outbox, &ks), [(1, "0".to_owned()), (3, "2".to_owned())]);
        push(&mut outbox, &mut ks, 3..100);
        outbox.rewind();
        let all: Vec<(u64, String)> = expected(0..100).into_iter().filter(|(seq, _)| *seq != 2).collect();
        assert_eq!(sent(&mut outbox, &ks), all);
    }

    #[test]
    fn long_messages_stay_alone() {
        let (mut ks, mut outbox) = empty();
        for _ in 0..2 * LOOSE_ROWS {
            outbox.push_message(&[7; LOOSE_BYTES], &mut ks).unwrap();
        }
        assert_eq!(ks.range("/o/mesh/").count(), 2 * LOOSE_ROWS);
    }

    #[test]
    fn ten_minutes_of_200_a_second_fit_in_few_rows_and_what_does_not_fit_is_refused() {
        let (mut ks, mut outbox) = empty();
        let message = [7; 160];
        let accepted = (0..).take_while(|_| outbox.push_message(&message, &mut ks).is_ok()).count();
        assert_eq!((accepted, outbox.messages_len()), (MAX_MESSAGES, MAX_MESSAGES));
        assert!(ks.range("/o/mesh/").count() <= MAX_MESSAGES / LOOSE_ROWS + LOOSE_ROWS);
        let large = vec![7; 256 << 10];
        let (mut ks, mut outbox) = empty();
        let accepted = (0..).take_while(|_| outbox.push_message(&large, &mut ks).is_ok()).count();
        assert_eq!(accepted, MAX_MESSAGE_BYTES / ((256 << 10) + 5));
    }
}
