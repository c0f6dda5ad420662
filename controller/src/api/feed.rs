//! The latest changes of one kind, for all who watch it.
//!
//! ```text
//!   owner loop --Changes--> Feed: [segment][segment][segment]--> cursor
//!                                   ^          ^
//!                            a slow watcher    the others
//! ```
//! A segment is what happened between two revisions. It is asked for once, whoever watches, and each of its objects is
//! rendered once for each look. A watcher that stands within the feed takes what is newer than its own cursor; one that
//! fell behind asks for itself, folded as ever, until it is back. So a hundred watches cost the owner loop what one does.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bus::UnixMillis;
use metadata::Revision;
use serde_json::Value;

use super::look::Look;
use super::read::{Changed, Changes, Page, Read};
use super::selector::Selectors;
use super::{Id, Item, Kind, Layout, Scope, object};

/// Objects that a feed keeps: four full segments. A watcher that is further behind asks for itself.
pub const MAX_KEPT: usize = 1000;

/// Bytes that a feed keeps, of objects and what they look like, so that fat ones do not fill an edge. Over it the oldest
/// segments go; what looks of the newest one are rendered meanwhile comes on top.
fn max_bytes(layout: Layout) -> usize {
    match layout {
        Layout::Edge => 4 << 20,
        Layout::Cloud => 16 << 20,
    }
}

/// What happened between two revisions, or a page of what is there.
#[derive(Debug)]
pub struct Segment {
    kind: Kind,
    after: Revision,
    /// Bytes of its objects.
    weight: usize,
    /// Bytes of what was rendered of them and is kept.
    rendered: AtomicUsize,
    pub(super) revision: Revision,
    pub more: bool,
    pub(super) entries: Vec<Entry>,
}

/// One object in it.
pub struct Entry {
    pub(super) changed: Changed,
    facts: OnceLock<Value>,
    shown: Mutex<Vec<Shown>>,
}

/// An object's bytes in one look.
struct Shown {
    look: Look,
    /// Of a table, the second at which its ages are right.
    second: u64,
    bytes: Arc<[u8]>,
}

impl Entry {
    fn new(changed: Changed) -> Self {
        Self { changed, facts: OnceLock::new(), shown: Mutex::default() }
    }

    pub(super) fn item(&self) -> &Item {
        self.changed.item()
    }

    pub(super) fn id(&self) -> &Id {
        &self.item().id
    }

    /// When it changed, which may be later than what is durable.
    pub(super) fn newest(&self) -> Revision {
        match &self.changed {
            Changed::Live { seen, .. } => seen.newest,
            Changed::Gone { item } => item.revision,
        }
    }

    /// Whether it is selected. Nothing is decoded where names alone decide.
    pub(super) fn is_taken_by(&self, selectors: &Selectors) -> bool {
        let facts = || self.facts.get_or_init(|| object::facts(self.item()));
        selectors.may_select(self.id()) && (selectors.is_by_name() || selectors.select(facts()))
    }

    fn known(&self, look: &Look, now: UnixMillis) -> Option<Arc<[u8]>> {
        let second = second(look, now);
        let shown = self.lock();
        shown.iter().find(|one| one.look == *look && one.second == second).map(|one| Arc::clone(&one.bytes))
    }

    /// What a thread that panicked left is a list that is whole.
    fn lock(&self) -> MutexGuard<'_, Vec<Shown>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn second(look: &Look, now: UnixMillis) -> u64 {
    if look.is_ageless() { 0 } else { now.0 / 1000 }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("id", self.id()).field("newest", &self.newest()).finish_non_exhaustive()
    }
}

impl Segment {
    pub fn of_changes(kind: Kind, after: Revision, changes: Changes) -> Self {
        let Changes { revision, changes, more } = changes;
        Self::new(kind, (after, revision), more, changes)
    }

    /// What is there, as if all of it had come just now.
    pub fn of_page(kind: Kind, page: Page) -> Self {
        let live = |item: Item| {
            let seen = super::index::Seen { newest: item.revision, created: item.revision };
            Changed::Live { item, seen }
        };
        let all = page.items.into_iter().map(live).collect();
        Self::new(kind, (Revision::ZERO, page.revision), page.next.is_some(), all)
    }

    fn new(kind: Kind, (after, revision): (Revision, Revision), more: bool, all: Vec<Changed>) -> Self {
        let weight = all.iter().map(|changed| changed.item().weight()).sum();
        let entries = all.into_iter().map(Entry::new).collect();
        Self { kind, after, weight, rendered: AtomicUsize::new(0), revision, more, entries }
    }

    /// The bytes of one of its entries: an object, or the row of a table. They are kept for each look, of which there are
    /// ten at most.
    pub(super) fn bytes(&self, entry: &Entry, look: &Look, now: UnixMillis) -> Arc<[u8]> {
        if let Some(known) = entry.known(look, now) {
            return known;
        }
        let mut bytes = Vec::new();
        look.write(self.kind, entry.item().clone(), now, &mut bytes);
        let bytes: Arc<[u8]> = bytes.into();
        let shown = Shown { look: *look, second: second(look, now), bytes: Arc::clone(&bytes) };
        let mut all = entry.lock();
        let old = all.iter().position(|one| one.look == *look).map(|at| all.swap_remove(at));
        let gone = old.map_or(0, |old| old.bytes.len());
        all.push(shown);
        self.rendered.fetch_add(bytes.len(), Relaxed);
        self.rendered.fetch_sub(gone, Relaxed);
        bytes
    }

    fn len_in_bytes(&self) -> usize {
        self.weight + self.rendered.load(Relaxed)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Does what takes long beforehand: decides what is selected, and renders it in a look.
    pub fn prepare(&self, selectors: &Selectors, look: &Look, now: UnixMillis) {
        for entry in self.entries.iter().filter(|entry| entry.is_taken_by(selectors)) {
            self.bytes(entry, look, now);
        }
    }

    /// Whether that was done.
    pub fn is_prepared(&self, selectors: &Selectors, look: &Look, now: UnixMillis) -> bool {
        let is_decided = |entry: &Entry| selectors.is_by_name() || entry.facts.get().is_some();
        let is_done = |entry: &Entry| {
            is_decided(entry) && (!entry.is_taken_by(selectors) || entry.known(look, now).is_some())
        };
        self.entries.iter().all(is_done)
    }
}

/// The latest segments of one kind.
#[derive(Debug)]
pub struct Feed {
    kind: Kind,
    segments: VecDeque<Arc<Segment>>,
    kept: usize,
    max_bytes: usize,
    cursor: Revision,
}

/// What a feed has for a watcher.
#[derive(Debug, Clone)]
pub enum Next {
    /// What follows on its cursor, and maybe some of what it knows.
    Segment(Arc<Segment>),
    /// It is as far as the feed, or further.
    Nothing,
    /// It is too far behind.
    Behind,
}

impl Feed {
    /// Begins with what comes after `from`.
    pub fn new(layout: Layout, kind: Kind, from: Revision) -> Self {
        Self { kind, segments: VecDeque::new(), kept: 0, max_bytes: max_bytes(layout), cursor: from }
    }

    pub fn cursor(&self) -> Revision {
        self.cursor
    }

    /// What to ask for when something moved.
    pub fn wants(&self) -> Read {
        Read::Changes { kind: self.kind, scope: Scope::default(), after: self.cursor }
    }

    /// The answer, and whether there is more to ask for.
    pub fn handle_changes(&mut self, changes: Changes) -> bool {
        let segment = Segment::of_changes(self.kind, self.cursor, changes);
        let more = segment.more;
        if segment.revision <= self.cursor {
            return more;
        }
        self.cursor = segment.revision;
        self.kept += segment.len();
        self.segments.push_back(Arc::new(segment));
        self.make_room();
        more
    }

    fn make_room(&mut self) {
        let mut bytes: usize = self.segments.iter().map(|segment| segment.len_in_bytes()).sum();
        // Of segments without objects there are no more than of others.
        while self.kept > MAX_KEPT || self.segments.len() > MAX_KEPT || bytes > self.max_bytes {
            let Some(oldest) = self.segments.pop_front() else { break };
            self.kept -= oldest.len();
            // Another look of it may have been rendered since.
            bytes = bytes.saturating_sub(oldest.len_in_bytes());
        }
    }

    /// So much went at once that it is forgotten already: all who watch ask for themselves, and are told so.
    pub fn handle_expired(&mut self, newest: Revision) {
        self.segments.clear();
        self.kept = 0;
        self.cursor = self.cursor.max(newest);
    }

    /// What a watcher at `cursor` is told next. What was rendered for others since makes older segments go.
    pub fn next(&mut self, cursor: Revision) -> Next {
        self.make_room();
        if cursor >= self.cursor {
            return Next::Nothing;
        }
        match self.segments.iter().find(|segment| segment.revision > cursor) {
            Some(segment) if segment.after <= cursor => Next::Segment(Arc::clone(segment)),
            Some(_) | None => Next::Behind,
        }
    }
}

#[cfg(test)]
mod tests;
