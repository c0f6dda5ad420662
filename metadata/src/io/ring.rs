//! Rows that are worth less than a sync: telemetry on its way up, in a file of fixed size beside the store.
//!
//! ```text
//! segment 8      9            3 (oldest) 4   5   6   7
//! +-------------+------------+----------+---+---+---+---+
//! | head r r r r| head r r _ | head r.. |   |   |   |   |     r: one row put, or forgotten
//! +-------------+----------^-+----------+---+---+---+---+
//!                          next; after 9 is full, 10 takes the place of 3
//! ```
//!
//! A row is appended and not synced: the system writes it some seconds later, so a power cut costs seconds of samples,
//! and a sample costs the disk about its own bytes. What a cut left half written is left out when the ring is read:
//! each record carries a sum over itself and all records before it in its segment, so nothing counts that does not
//! follow from what is there, neither torn bytes nor those of an earlier round. Rows may be missing, then; what is read
//! was written, and a later write to a key is never undone by an earlier one.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use redb::StorageBackend;

use crate::key::{Commit, Key, Revision};
use crate::keyspace::MAX_VALUE_LEN;
use crate::outbox::{MAX_LANE_BYTES, MAX_TELEMETRY_ENTRIES};
use crate::store::Row;

/// The rows that live in the ring.
pub(super) const PREFIX: &str = "/o/telemetry/";

/// One segment's rows go at once when the ring comes round, so the others have room for all that may wait.
const SEGMENTS: u64 = 7;
/// Holds the largest row there is.
const SEGMENT_BYTES: usize = 768 << 10;
/// What a sample costs besides key and payload: its record, the record of a gap that takes it in when the lane is full,
/// and the records that forget both.
const SAMPLE_BYTES: usize = 100;

const _: () = assert!(
    (SEGMENTS as usize - 1) * SEGMENT_BYTES >= MAX_LANE_BYTES + MAX_TELEMETRY_ENTRIES * SAMPLE_BYTES
        && SEGMENT_BYTES >= HEAD_BYTES + RECORD_BYTES + Key::MAX_LEN + MAX_VALUE_LEN + 64
);

const MAGIC: [u8; 8] = *b"kbring1\n";
/// Magic, the segment's number, their sum.
const HEAD_BYTES: usize = 24;
/// Length of the body, sum, and of the body: revision, kind, length of the key.
const RECORD_BYTES: usize = 4 + 8 + 8 + 1 + 2;

/// A change of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change<'a> {
    Forget(&'a str),
    Put(&'a str, Revision, Option<&'a [u8]>),
}

/// Rows by key, as the ring gives them back.
type Rows = BTreeMap<Key, (Revision, Option<Bytes>)>;

/// Where the next record goes.
#[derive(Debug, Clone, Copy)]
struct Tail {
    segment: u64,
    offset: usize,
    /// The sum of the record before.
    sum: u64,
}

impl Tail {
    fn of_segment(segment: u64) -> Self {
        Self { segment, offset: HEAD_BYTES, sum: sum(sum(0, &MAGIC), &segment.to_le_bytes()) }
    }

    fn position(&self) -> u64 {
        start_of(self.segment) + self.offset as u64
    }
}

/// The open file.
#[derive(Debug)]
pub(super) struct Ring {
    file: Box<dyn StorageBackend>,
    tail: Tail,
}

impl Ring {
    /// The ring in `file`, with its rows. A file that is no ring of this size becomes an empty one: it holds nothing that
    /// anybody was promised.
    pub(super) fn open(file: Box<dyn StorageBackend>) -> io::Result<(Self, Vec<Row>)> {
        let segments = match file.len()? == SEGMENTS * SEGMENT_BYTES as u64 {
            true => segments(&*file)?,
            false => Vec::new(),
        };
        let Some(newest) = segments.last().copied() else {
            return Ok((Self::create(file)?, Vec::new()));
        };
        let (mut rows, mut tail) = (Rows::new(), Tail::of_segment(newest));
        for segment in segments {
            tail = read_segment(&*file, segment, &mut rows)?;
        }
        let rows = rows.into_iter().map(|(key, (revision, value))| (key, revision, value)).collect();
        Ok((Self { file, tail }, rows))
    }

    /// The zeros take the room now, so that a disk that fills up later does not stop the samples.
    fn create(file: Box<dyn StorageBackend>) -> io::Result<Self> {
        file.set_len(0)?;
        for segment in 0..SEGMENTS {
            file.write(start_of(segment), &vec![0; SEGMENT_BYTES])?;
        }
        let tail = Tail::of_segment(0);
        begin_segment(&*file, tail)?;
        Ok(Self { file, tail })
    }

    /// Appends what `commits` do to the ring's rows, in their order. On an error the ring is as it was, and the same may
    /// be appended again.
    pub(super) fn append(&mut self, commits: &[Commit]) -> io::Result<()> {
        let mut tail = self.tail;
        for change in commits.iter().flat_map(changes) {
            tail = self.append_one(tail, &change)?;
        }
        self.tail = tail;
        Ok(())
    }

    fn append_one(&self, mut tail: Tail, change: &Change<'_>) -> io::Result<Tail> {
        let body = change.encode();
        let bytes = 12 + body.len();
        if HEAD_BYTES + bytes > SEGMENT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if tail.offset + bytes > SEGMENT_BYTES {
            tail = Tail::of_segment(tail.segment + 1);
            begin_segment(&*self.file, tail)?;
        }
        let sum = sum(tail.sum, &body);
        let mut record = Vec::with_capacity(bytes);
        record.extend_from_slice(&(body.len() as u32).to_le_bytes());
        record.extend_from_slice(&sum.to_le_bytes());
        record.extend_from_slice(&body);
        self.file.write(tail.position(), &record)?;
        Ok(Tail { offset: tail.offset + bytes, sum, ..tail })
    }
}

/// Whether a commit's row belongs into the ring.
pub(super) fn holds(key: &Key) -> bool {
    key.as_str().starts_with(PREFIX)
}

fn changes(commit: &Commit) -> impl Iterator<Item = Change<'_>> {
    let forgotten = commit.forgotten.iter().filter(|key| holds(key)).map(|key| Change::Forget(name(key)));
    let writes = commit.writes.iter().filter(|write| holds(&write.key));
    let writes = writes.map(|write| Change::Put(name(&write.key), commit.revision, write.value.as_deref()));
    forgotten.chain(writes)
}

fn name(key: &Key) -> &str {
    &key.as_str()[PREFIX.len()..]
}

fn start_of(segment: u64) -> u64 {
    segment % SEGMENTS * SEGMENT_BYTES as u64
}

fn begin_segment(file: &dyn StorageBackend, first: Tail) -> io::Result<()> {
    let head = [MAGIC, first.segment.to_le_bytes(), first.sum.to_le_bytes()].concat();
    file.write(start_of(first.segment), &head)
}

/// The numbers of the segments of the last round, in order. A place whose new head is missing still shows the number
/// of the round before.
fn segments(file: &dyn StorageBackend) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for place in 0..SEGMENTS {
        let mut head = [0; HEAD_BYTES];
        file.read(start_of(place), &mut head)?;
        numbers.extend(parse_head(&head).filter(|number| number % SEGMENTS == place));
    }
    numbers.sort_unstable();
    let newest = numbers.last().copied().unwrap_or_default();
    numbers.retain(|number| number + SEGMENTS > newest);
    Ok(numbers)
}

fn parse_head(head: &[u8; HEAD_BYTES]) -> Option<u64> {
    let (number, stored) = (u64_at(head, 8)?, u64_at(head, 16)?);
    // The last numbers are never reached; a head that claims one would leave no room above it.
    let is_head = head.starts_with(&MAGIC) && number < u64::MAX / 2;
    (is_head && Tail::of_segment(number).sum == stored).then_some(number)
}

/// Reads records as far as each follows from the one before; returns where the next would go.
fn read_segment(file: &dyn StorageBackend, segment: u64, rows: &mut Rows) -> io::Result<Tail> {
    let mut bytes = vec![0; SEGMENT_BYTES];
    file.read(start_of(segment), &mut bytes)?;
    let mut tail = Tail::of_segment(segment);
    while let Some((body, sum)) = record_at(&bytes, &tail) {
        if let Some(change) = Change::decode(body) {
            change.apply(rows);
        }
        tail = Tail { offset: tail.offset + 12 + body.len(), sum, ..tail };
    }
    Ok(tail)
}

fn record_at<'a>(segment: &'a [u8], tail: &Tail) -> Option<(&'a [u8], u64)> {
    let record = segment.get(tail.offset..)?;
    let length = u32::from_le_bytes(record.get(..4)?.try_into().ok()?) as usize;
    let stored = u64_at(record, 4)?;
    let body = record.get(12..12 + length)?;
    (length > 0 && sum(tail.sum, body) == stored).then_some((body, stored))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// FNV-1a, 64 bits: it tells what the disk lost or tore; nobody can write between the records.
fn sum(before: u64, bytes: &[u8]) -> u64 {
    let start = before ^ 0xcbf2_9ce4_8422_2325;
    bytes.iter().fold(start, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl<'a> Change<'a> {
    fn encode(&self) -> Vec<u8> {
        let (kind, key, revision, value) = match *self {
            Self::Forget(key) => (0, key, Revision::ZERO, None),
            Self::Put(key, revision, None) => (1, key, revision, None),
            Self::Put(key, revision, Some(value)) => (2, key, revision, Some(value)),
        };
        let mut body = Vec::with_capacity(RECORD_BYTES + key.len() + value.map_or(0, <[u8]>::len));
        body.extend_from_slice(&revision.0.to_le_bytes());
        body.push(kind);
        body.extend_from_slice(&(key.len() as u16).to_le_bytes());
        body.extend_from_slice(key.as_bytes());
        body.extend_from_slice(value.unwrap_or_default());
        body
    }

    fn decode(body: &'a [u8]) -> Option<Self> {
        let revision = Revision(u64_at(body, 0)?);
        let length = u16::from_le_bytes(body.get(9..11)?.try_into().ok()?) as usize;
        let key = std::str::from_utf8(body.get(11..11 + length)?).ok()?;
        match body.get(8)? {
            0 => Some(Self::Forget(key)),
            1 => Some(Self::Put(key, revision, None)),
            2 => Some(Self::Put(key, revision, body.get(11 + length..))),
            _ => None,
        }
    }

    fn apply(self, rows: &mut Rows) {
        let (Self::Forget(name) | Self::Put(name, _, _)) = self;
        let Ok(key) = Key::new(&format!("{PREFIX}{name}")) else { return };
        match self {
            Self::Forget(_) => rows.remove(&key),
            Self::Put(_, revision, value) => rows.insert(key, (revision, value.map(Bytes::copy_from_slice))),
        };
    }
}

#[cfg(test)]
mod tests;
