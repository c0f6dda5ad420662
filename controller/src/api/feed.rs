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
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bus::UnixMillis;
use metadata::Revision;
use serde_json::Value;

use super::look::Look;
use super::read::{Changed, Changes, Page, Read};
use super::selector::Selectors;
use super::{Id, Item, Kind, Scope, object};

/// Objects that a feed keeps, some 3 KiB each with one look of it: four full segments. A watcher that is further behind
/// asks for itself.
pub const MAX_KEPT: usize = 1000;

/// Looks of which an object's bytes are kept: tables and objects, veiled and not. More are rendered each time.
const MAX_LOOKS: usize = 4;

/// What happened between two revisions, or a page of what is there.
#[derive(Debug)]
pub struct Segment {
    kind: Kind,
    after: Revision,
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
        match &self.changed {
            Changed::Live { item, .. } | Changed::Gone { item } => item,
        }
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

    /// Its bytes: an object, or the row of a table.
    pub(super) fn bytes(&self, kind: Kind, look: &Look, now: UnixMillis) -> Arc<[u8]> {
        if let Some(known) = self.known(look, now) {
            return known;
        }
        let mut bytes = Vec::new();
        look.write(kind, self.item().clone(), now, &mut bytes);
        let bytes: Arc<[u8]> = bytes.into();
        let mut shown = self.lock();
        shown.retain(|one| one.look != *look);
        if shown.len() < MAX_LOOKS {
            shown.push(Shown { look: *look, second: second(look, now), bytes: Arc::clone(&bytes) });
        }
        bytes
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
        Self { kind, after, revision, more, entries: changes.into_iter().map(Entry::new).collect() }
    }

    /// What is there, as if all of it had come just now.
    pub fn of_page(kind: Kind, page: Page) -> Self {
        let live = |item: Item| {
            let seen = super::index::Seen { newest: item.revision, created: item.revision };
            Entry::new(Changed::Live { item, seen })
        };
        let entries = page.items.into_iter().map(live).collect();
        Self { kind, after: Revision::ZERO, revision: page.revision, more: page.next.is_some(), entries }
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
            entry.bytes(self.kind, look, now);
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
    pub fn new(kind: Kind, from: Revision) -> Self {
        Self { kind, segments: VecDeque::new(), kept: 0, cursor: from }
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
        // Of segments without objects there are no more than of others.
        while self.kept > MAX_KEPT || self.segments.len() > MAX_KEPT {
            let Some(oldest) = self.segments.pop_front() else { break };
            self.kept -= oldest.len();
        }
        more
    }

    /// So much went at once that it is forgotten already: all who watch ask for themselves, and are told so.
    pub fn handle_expired(&mut self, newest: Revision) {
        self.segments.clear();
        self.kept = 0;
        self.cursor = self.cursor.max(newest);
    }

    pub fn next(&self, cursor: Revision) -> Next {
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
