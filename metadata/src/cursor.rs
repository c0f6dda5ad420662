//! Where one edge stands in the cloud's history, and what to send it next. No copy of anything is kept: a batch is
//! read from the keyspace as the window opens, so a slow edge just lags, and what it missed is folded.
//!
//! ```text
//!            edge stands at a position of ours,
//!            all deletions since are known            window open, something changed
//!   seek ----------------------------------> Streaming ----------------------------> next batch from here
//!     |                                          ^
//!     |  else                                    | last part
//!     +------> Snapshot (a batch from nothing) --+
//!                                                |
//!              Repair (a batch that names all    | the edge differs, once what is under way is sent
//!              that is in some buckets) <--------+
//! ```
//! A batch is read in the order of revisions. What changes while it is being sent moves to the end of that order and
//! is read again, so at its last part the batch leads exactly to the revision of that moment.

use std::collections::VecDeque;

use bus::Name;

use crate::digest::{Buckets, Digest};
use crate::key::{Key, Revision};
use crate::keyspace::{self, Keyspace, MAX_VALUE_LEN, Mark};
use crate::sync::{Base, Change, Misbehaviour, Packed, Part, Position};
use crate::term::Terms;

/// A part holds about this much before it is compressed, and at least one value. With a value of [`MAX_VALUE_LEN`] it
/// stays well below [`bus::frame::MAX_FRAME_LEN`]. Smaller ones compress worse.
pub(crate) const PART_BYTES: usize = 24 << 10;
/// Parts are sent while less than this is unacknowledged, as it travels: with the last part, of which nothing may
/// shrink, 150 ms of a link of 3 Mbit/s, so that catching up does not make a fresh twin value miss its 250 ms.
pub(crate) const WINDOW_BYTES: usize = 32 << 10;
/// Small parts are bounded by number: each costs the edge a commit.
pub(crate) const WINDOW_PARTS: usize = 8;
/// What a change costs besides name and value.
const CHANGE_BYTES: usize = 4;
/// What a part costs besides its changes.
const HEAD_BYTES: usize = 24;

const ALL: &str = "/all/";

#[derive(Debug, Clone)]
struct InFlight {
    id: (u32, u32),
    end: Option<Position>,
    bytes: usize,
}

/// A batch of which parts were sent but not the last.
#[derive(Debug, Clone)]
struct Batch {
    base: Option<Position>,
    /// Its base is where the batch before it in number leads.
    follows: bool,
    /// Whose names are sent whether they changed or not.
    mends: Buckets,
    /// Its last part carries the digest.
    checked: bool,
    next_part: u32,
    read: Mark,
    /// When it began: deletions up to here concern no part of a snapshot.
    began: Revision,
    compacted: Revision,
}

impl Batch {
    fn begin(base: Option<Position>, follows: bool, mends: Buckets, checked: bool, ks: &Keyspace) -> Self {
        let from = base.filter(|_| mends == Buckets::NONE).map_or(Revision::ZERO, |base| base.revision);
        let read = Mark::Revision(from);
        Self {
            base,
            follows,
            mends,
            checked,
            next_part: 0,
            read,
            began: ks.revision(),
            compacted: ks.compacted(),
        }
    }

    /// Whether this change is to be named.
    fn wants(&self, name: &str, revision: Revision) -> bool {
        self.base.is_none_or(|base| revision > base.revision) || self.mends.has(name)
    }

    /// Whether what is not there may go without saying.
    fn clears(&self, name: &str, revision: Revision) -> bool {
        self.mends.has(name) && revision <= self.began
    }

    /// As its first part says it.
    fn said_base(&self) -> Option<Base> {
        match self.base {
            _ if self.follows || self.next_part > 0 => None,
            Some(base) => Some(Base::At(base)),
            None => Some(Base::Nothing),
        }
    }

    /// How far it leads on to `end`.
    fn advance(&self, end: Position) -> u64 {
        end.revision.0 - self.base.map_or(0, |base| base.revision.0)
    }

    /// Whether deletions that the rest of the batch would have to name were forgotten since it began.
    fn is_torn(&self, ks: &Keyspace) -> bool {
        ks.compacted() != self.compacted && ks.compacted() > self.read.revision()
    }
}

/// One connected edge's cursor.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    scope: String,
    session: u32,
    /// Where the edge stood at its last word; `None`: nowhere that we know.
    acked: Option<Position>,
    /// Where it will stand when it has applied all that was sent.
    sent: Option<Position>,
    batch: Option<Batch>,
    /// What the next batch is to mend.
    mends: Buckets,
    /// The next batch carries a digest, and is sent even if nothing changed.
    check: bool,
    /// The last batch that mended something: if the copy differs before it, that is known.
    mended: Option<u32>,
    /// The number of the present or next batch.
    number: u32,
    /// The batch before it in number leads to `sent`.
    follows: bool,
    /// Nacks of batches before this one were answered already.
    answered: u32,
    in_flight: VecDeque<InFlight>,
    last_sent: Option<(u32, u32)>,
}

/// A part to send, and the keys that had to be left out.
#[derive(Debug, Clone)]
pub(crate) struct Next {
    pub(crate) part: Part,
    pub(crate) oversized: Vec<Key>,
}

impl Cursor {
    /// A cursor for the session that the edge named, nowhere yet.
    pub(crate) fn new(edge: &Name, session: u32) -> Self {
        Self {
            scope: format!("/e/{edge}/"),
            session,
            acked: None,
            sent: None,
            batch: None,
            mends: Buckets::NONE,
            check: false,
            mended: None,
            number: 0,
            follows: false,
            answered: 0,
            in_flight: VecDeque::new(),
            last_sent: None,
        }
    }

    pub(crate) fn session(&self) -> u32 {
        self.session
    }

    /// The edge says where it stands; `None`: nowhere that we know.
    pub(crate) fn seek(&mut self, position: Option<Position>) {
        self.acked = position;
        self.rewind();
    }

    /// Streams again from where the edge stood at its last word.
    pub(crate) fn rewind(&mut self) {
        self.sent = self.acked;
        self.in_flight.clear();
        self.drop_batch();
        self.answered = self.number;
    }

    /// A number is used for one batch only, so that an ack of the dropped one is not taken for the next one's.
    fn drop_batch(&mut self) {
        self.batch = None;
        self.follows = false;
        self.number = self.number.wrapping_add(1);
    }

    pub(crate) fn has_unacked(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Whether the edge has applied all that concerns it.
    pub(crate) fn is_in_step(&self, ks: &Keyspace) -> bool {
        let Some(sent) = self.sent else { return false };
        let settled = self.in_flight.is_empty() && self.batch.is_none() && self.mends == Buckets::NONE;
        settled && self.changes(&Mark::Revision(sent.revision), ks).next().is_none()
    }

    /// How many keys the edge has not acknowledged, counted up to `most`. At least one while it is not in step: a
    /// snapshot, or a part of a batch, may be on its way.
    pub(crate) fn behind(&self, most: usize, ks: &Keyspace) -> usize {
        if self.is_in_step(ks) {
            return 0;
        }
        let acked = self.acked.or(self.sent).map(|position| Mark::Revision(position.revision));
        acked.map_or(1, |mark| self.changes(&mark, ks).take(most).count().max(1))
    }

    /// Returns whether the ack moved anything.
    pub(crate) fn handle_ack(&mut self, batch: u32, part: u32) -> Result<bool, Misbehaviour> {
        if self.last_sent.is_none_or(|last| (batch, part) > last) {
            return Err(Misbehaviour::AnsweredUnsent);
        }
        let before = self.in_flight.len();
        while let Some(first) = self.in_flight.pop_front_if(|first| first.id <= (batch, part)) {
            self.acked = first.end.or(self.acked);
        }
        Ok(self.in_flight.len() < before)
    }

    /// Whether a nack of `batch` is news.
    pub(crate) fn is_new_nack(&self, batch: u32) -> Result<bool, Misbehaviour> {
        self.check_sent(batch)?;
        Ok(batch >= self.answered)
    }

    /// A frame of a few bytes must not make us read and hash all that an edge knows as often as it likes: what it
    /// answers to was sent.
    fn check_sent(&self, batch: u32) -> Result<(), Misbehaviour> {
        let was_sent = self.last_sent.is_some_and(|(last, _)| batch <= last);
        if was_sent { Ok(()) } else { Err(Misbehaviour::AnsweredUnsent) }
    }

    /// The next batch is to carry a digest. If nothing changed it is a bookmark.
    pub(crate) fn want_check(&mut self) {
        self.check = true;
    }

    /// The edge's copy has these sums after `batch`. Returns whether a repair was begun: what was just mended and still
    /// differs waits for the next check, so that a copy that cannot be mended costs no more than that.
    pub(crate) fn handle_differs(
        &mut self,
        batch: u32,
        sums: &Digest,
        ks: &Keyspace,
    ) -> Result<bool, Misbehaviour> {
        self.check_sent(batch)?;
        let is_news = self.mends == Buckets::NONE && self.mended.is_none_or(|mended| batch > mended);
        if is_news {
            self.mends = self.digest(ks).differing(sums);
        }
        Ok(is_news && self.mends != Buckets::NONE)
    }

    /// The next part if the window is open and there is something to say.
    pub(crate) fn next_part(&mut self, ks: &Keyspace, terms: &Terms) -> Option<Next> {
        let unacked: usize = self.in_flight.iter().map(|part| part.bytes).sum();
        if unacked >= WINDOW_BYTES || self.in_flight.len() >= WINDOW_PARTS {
            return None;
        }
        if self.batch.as_ref().is_some_and(|batch| batch.is_torn(ks)) {
            self.sent = None;
            self.drop_batch();
        }
        let batch = match self.batch.take() {
            Some(batch) => batch,
            None => self.begin(ks)?,
        };
        Some(self.cut(batch, ks, terms))
    }

    fn begin(&mut self, ks: &Keyspace) -> Option<Batch> {
        let base = self.sent.filter(|sent| ks.is_complete_after(sent.revision));
        let mends = if base.is_none() { Buckets::ALL } else { self.mends };
        let is_repair = mends != Buckets::NONE;
        let follows = self.follows && base.is_some();
        let batch = Batch::begin(base, follows, mends, self.check || is_repair, ks);
        if !batch.checked && self.changes(&batch.read, ks).next().is_none() {
            return None;
        }
        (self.check, self.mends) = (false, Buckets::NONE);
        if is_repair {
            self.mended = Some(self.number);
        }
        Some(batch)
    }

    fn cut(&mut self, mut batch: Batch, ks: &Keyspace, terms: &Terms) -> Next {
        let haul = self.haul(&batch, ks);
        let end = haul.rest.is_none().then(|| terms.position(ks.revision()));
        let Haul { changes, oversized, rest, .. } = haul;
        let changes = Packed::pack(&changes);
        let bytes = changes.len() + HEAD_BYTES;
        let is_repair = batch.base.is_some() && batch.mends != Buckets::NONE;
        let part = Part {
            session: self.session,
            batch: self.number,
            part: batch.next_part,
            changes,
            advance: end.map(|end| batch.advance(end)),
            base: batch.said_base(),
            mends: (is_repair && batch.next_part == 0).then_some(batch.mends),
            digest: (end.is_some() && batch.checked).then(|| self.digest(ks).total()),
        };
        self.last_sent = Some((part.batch, part.part));
        self.in_flight.push_back(InFlight { id: (part.batch, part.part), end, bytes });
        match rest {
            Some(read) => {
                batch.read = read;
                batch.next_part += 1;
                self.batch = Some(batch);
            }
            None => {
                self.sent = end;
                self.follows = true;
                self.number = self.number.wrapping_add(1);
            }
        }
        Next { part, oversized }
    }

    fn haul(&self, batch: &Batch, ks: &Keyspace) -> Haul {
        let mut haul = Haul::default();
        let mut read = None;
        for (revision, key, _) in self.changes(&batch.read, ks) {
            if haul.bytes >= PART_BYTES {
                haul.rest = read;
                break;
            }
            let name = self.name_of(key);
            read = Some(Mark::Within(revision, key.clone()));
            if !batch.wants(name, revision) {
                continue;
            }
            match self.view(name, ks) {
                Some(value) if value.len() > MAX_VALUE_LEN => {
                    haul.oversized.push(key.clone());
                    haul.delete(name);
                }
                Some(value) => haul.put(name, value),
                None if batch.clears(name, revision) => {}
                None => haul.delete(name),
            }
        }
        haul
    }

    fn name_of<'a>(&self, key: &'a Key) -> &'a str {
        let scope = if key.as_str().starts_with(ALL) { ALL } else { &self.scope };
        &key.as_str()[scope.len()..]
    }

    /// Of all that the edge is to hold at the last revision.
    fn digest(&self, ks: &Keyspace) -> Digest {
        let seen = self.changes(&Mark::Revision(Revision::ZERO), ks).filter_map(|(_, key, value)| {
            let name = self.name_of(key);
            let value = value.filter(|value| value.len() <= MAX_VALUE_LEN)?;
            let is_covered = key.as_str().starts_with(ALL) && self.own(name, ks).is_some();
            (!is_covered).then_some((name, &value[..]))
        });
        Digest::of(seen)
    }

    fn own<'a>(&self, name: &str, ks: &'a Keyspace) -> Option<&'a bytes::Bytes> {
        ks.sealed_get(&format!("{}{name}", self.scope))
    }

    /// What the edge is to see under `name`: what is meant for it goes before what is meant for all.
    fn view<'a>(&self, name: &str, ks: &'a Keyspace) -> Option<&'a bytes::Bytes> {
        self.own(name, ks).or_else(|| ks.sealed_get(&format!("{ALL}{name}")))
    }

    /// The changes that concern this edge, in the order of revisions.
    fn changes<'a>(
        &self,
        after: &Mark,
        ks: &'a Keyspace,
    ) -> impl Iterator<Item = keyspace::Change<'a>> + use<'a> {
        let mut own = ks.changes_in(&self.scope, after).peekable();
        let mut all = ks.changes_in(ALL, after).peekable();
        std::iter::from_fn(move || match (own.peek(), all.peek()) {
            (Some((r, k, _)), Some((s, l, _))) if (s, l) < (r, k) => all.next(),
            (Some(_), _) => own.next(),
            (None, _) => all.next(),
        })
    }
}

/// What one part carries.
#[derive(Debug, Clone, Default)]
struct Haul {
    changes: Vec<Change>,
    /// Before they are compressed.
    bytes: usize,
    oversized: Vec<Key>,
    /// Where to go on, if there is more.
    rest: Option<Mark>,
}

impl Haul {
    fn put(&mut self, name: &str, value: &bytes::Bytes) {
        self.push(name, Some(value.clone()));
    }

    fn delete(&mut self, name: &str) {
        self.push(name, None);
    }

    fn push(&mut self, name: &str, value: Option<bytes::Bytes>) {
        self.bytes += name.len() + value.as_ref().map_or(0, bytes::Bytes::len) + CHANGE_BYTES;
        self.changes.push(Change { name: name.to_owned(), value });
    }
}
