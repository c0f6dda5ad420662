//! Which objects there are, when each was last changed, and what is gone.
//!
//! The index follows from the keyspace. It is brought up to date once a cycle, around the seal:
//!
//! ```text
//!   cores write --> before_seal: whose rows were written, and what is gone with that
//!                        |       (a gone object leaves a row of its own, in the same commit)
//!                      seal
//!                        |
//!                   after_seal: all of those are as new as the sealed revision
//! ```
//! What is gone is remembered on the disk, so that a watch goes on where it was after a restart. What is gone for longer
//! than [`MAX_GONE`] deletions of its kind is forgotten: a watch of that kind from before is told `410 Expired` and lists
//! anew. A burst of deletions of one kind ends no watch of another.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use metadata::{Keyspace, Revision};

use super::kinds::site::{self, Members};
use super::object;
use super::{Id, Kind, Layout, Verb};
use crate::record::own_key;

/// Deletions of one kind that are remembered: a client that lost its watch while so many objects went lists anew.
pub const MAX_GONE: usize = 1000;

/// Bytes of the objects of all kinds that are remembered as gone. If they are more, the kind that has most of them forgets
/// its oldest.
pub const MAX_GONE_BYTES: usize = 2 << 20;

/// What a row takes in memory beside its bytes, about.
const GONE_ROW: usize = 200;

/// An object that is remembered as gone without what it was, if that is longer.
const MAX_GONE_LEN: usize = 64 * 1024;

/// The newest durable change of each kind as [`object::version`] shows it, by [`Kind::index`]: what wakes watches.
pub type Moved = [u64; Kind::ALL.len()];

/// One object as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Of any of its rows.
    pub newest: Revision,
    /// `ZERO`: before this process began.
    pub created: Revision,
}

/// What happened to the objects of one kind.
#[derive(Debug, Clone, Default, PartialEq)]
struct Course {
    live: BTreeMap<Id, Seen>,
    order: BTreeSet<(Revision, Id)>,
    gone: BTreeMap<Id, Gone>,
    gone_order: BTreeSet<(Revision, Id)>,
    gone_bytes: usize,
    newest: Revision,
    /// Deletions up to here are forgotten.
    compacted: Revision,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gone {
    at: Revision,
    len: usize,
}

/// The objects of one node's API.
#[derive(Debug)]
pub struct Index {
    layout: Layout,
    courses: Vec<Course>,
    /// Whose rows this cycle wrote.
    touched: BTreeSet<(Kind, Id)>,
    went: Vec<(Kind, Id, usize)>,
    /// Who is in which site, the cycle's writes included.
    members: Members,
}

/// A change of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Live { id: Id, seen: Seen },
    Gone { id: Id, at: Revision },
}

impl Change {
    pub fn revision(&self) -> Revision {
        match self {
            Self::Live { seen, .. } => seen.newest,
            Self::Gone { at, .. } => *at,
        }
    }

    pub fn id(&self) -> &Id {
        match self {
            Self::Live { id, .. } | Self::Gone { id, .. } => id,
        }
    }
}

impl Index {
    pub fn load(layout: Layout, ks: &Keyspace) -> Self {
        let mut index = Self {
            layout,
            courses: vec![Course::default(); Kind::ALL.len()],
            touched: BTreeSet::new(),
            went: Vec::new(),
            members: Members::read(layout, ks),
        };
        for (kind, course) in Kind::ALL.into_iter().zip(&mut index.courses) {
            course.compacted = compacted(layout, kind, ks);
        }
        let default = Seen { newest: Revision::ZERO, created: Revision::ZERO };
        index.set(Kind::Namespace, Id::from("default"), default);
        for (key, revision, value) in ks.rows() {
            let Some(value) = value else { continue };
            if let Some((kind, id)) = of_gone(layout, key.as_str()) {
                index.remember(kind, id, Gone { at: revision, len: value.len() + GONE_ROW });
                continue;
            }
            for (kind, id) in objects(layout, key.as_str(), &[&value]) {
                let known = index.seen(kind, &id);
                if known.is_none() && !index.exists(kind, &id, ks) {
                    continue;
                }
                let newest = known.map_or(revision, |seen| seen.newest.max(revision));
                index.set(kind, id, Seen { newest, created: Revision::ZERO });
            }
        }
        index
    }

    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Before each seal: looks at what the cycle wrote, and writes what is gone with it.
    pub fn before_seal(&mut self, ks: &mut Keyspace) {
        let mut touched = BTreeSet::new();
        for (key, value) in ks.written() {
            let was = ks.sealed_get(key.as_str());
            self.members.note(self.layout, key.as_str(), was, value);
            let values: Vec<&[u8]> = value.into_iter().chain(was).map(|bytes| &bytes[..]).collect();
            touched.extend(objects(self.layout, key.as_str(), &values));
        }
        for (kind, id) in &touched {
            // Events only go to make room for newer ones: to remember which would push out what matters, and a watch of
            // events needs no word of it.
            let is_remembered = *kind != Kind::Event && kind.offers(Verb::Watch);
            let is_watched = is_remembered && self.courses[kind.index()].live.contains_key(id);
            if is_watched && !self.exists(*kind, id, ks) {
                let last = last_words(self.layout, *kind, id, ks);
                self.went.push((*kind, id.clone(), last.len() + GONE_ROW));
                ks.put(own_key(&gone_key(self.layout, *kind, id)), last);
            }
        }
        self.touched.append(&mut touched);
        self.forget_oldest(ks);
    }

    /// After each seal that sealed something.
    pub fn after_seal(&mut self, ks: &Keyspace) {
        let revision = ks.revision();
        for (kind, id) in std::mem::take(&mut self.touched) {
            let known = self.courses[kind.index()].live.get(&id).copied();
            if self.exists(kind, &id, ks) {
                let created = known.map_or(revision, |seen| seen.created);
                self.set(kind, id, Seen { newest: revision, created });
            } else if let Some(seen) = known {
                let course = &mut self.courses[kind.index()];
                course.order.remove(&(seen.newest, id.clone()));
                course.live.remove(&id);
            }
        }
        for (kind, id, len) in std::mem::take(&mut self.went) {
            self.remember(kind, id, Gone { at: revision, len });
        }
    }

    fn set(&mut self, kind: Kind, id: Id, seen: Seen) {
        let course = &mut self.courses[kind.index()];
        if let Some(before) = course.live.insert(id.clone(), seen) {
            course.order.remove(&(before.newest, id.clone()));
        }
        course.order.insert((seen.newest, id));
        course.newest = course.newest.max(seen.newest);
    }

    fn remember(&mut self, kind: Kind, id: Id, gone: Gone) {
        let course = &mut self.courses[kind.index()];
        if let Some(before) = course.gone.insert(id.clone(), gone) {
            course.gone_order.remove(&(before.at, id.clone()));
            course.gone_bytes -= before.len;
        }
        course.gone_order.insert((gone.at, id));
        course.gone_bytes += gone.len;
        course.newest = course.newest.max(gone.at);
    }

    /// Keeps what is remembered as gone within its bounds; rows of this cycle are none of the oldest.
    fn forget_oldest(&mut self, ks: &mut Keyspace) {
        let mut shortened = BTreeSet::new();
        while let Some(kind) = self.remembers_too_much() {
            let course = &mut self.courses[kind.index()];
            let Some((at, id)) = course.gone_order.pop_first() else { break };
            course.gone_bytes -= course.gone.remove(&id).map_or(0, |gone| gone.len);
            course.compacted = course.compacted.max(at);
            shortened.insert(kind);
            // It may be there again, and gone once more in this very cycle.
            if !self.went.iter().any(|(k, went, _)| (*k, went) == (kind, &id)) {
                ks.delete(&own_key(&gone_key(self.layout, kind, &id)));
            }
        }
        for kind in shortened {
            let mark = self.courses[kind.index()].compacted.0.to_be_bytes();
            ks.put(own_key(&mark_key(self.layout, kind)), Bytes::copy_from_slice(&mark));
        }
    }

    /// The kind that must forget a deletion.
    fn remembers_too_much(&self) -> Option<Kind> {
        let course = |kind: &Kind| &self.courses[kind.index()];
        let has_many = |kind: &Kind| course(kind).gone.len() > MAX_GONE;
        let bytes: usize = self.courses.iter().map(|course| course.gone_bytes).sum();
        let largest = || Kind::ALL.into_iter().max_by_key(|kind| course(kind).gone_bytes);
        Kind::ALL.into_iter().find(has_many).or_else(|| largest().filter(|_| bytes > MAX_GONE_BYTES))
    }

    fn exists(&self, kind: Kind, id: &Id, ks: &Keyspace) -> bool {
        match object::manifest_key(self.layout, kind, id) {
            Some(key) => ks.get(&key).is_some(),
            None => self.made(kind, id, ks).is_some(),
        }
    }

    /// An object that follows from records, without what the API adds to it.
    pub(super) fn made(&self, kind: Kind, id: &Id, ks: &Keyspace) -> Option<serde_json::Value> {
        if kind == Kind::Site {
            site::made(id, &self.members, ks)
        } else {
            (kind.info().made)(self.layout, id, ks)
        }
    }

    /// The live objects after `after`, in the order of their ids.
    pub fn live<'a>(
        &'a self,
        kind: Kind,
        after: Option<&Id>,
    ) -> impl Iterator<Item = (&'a Id, Seen)> + use<'a> {
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.clone()));
        self.courses[kind.index()].live.range((from, Bound::Unbounded)).map(|(id, seen)| (id, *seen))
    }

    pub fn seen(&self, kind: Kind, id: &Id) -> Option<Seen> {
        self.courses[kind.index()].live.get(id).copied()
    }

    pub fn len(&self, kind: Kind) -> usize {
        self.courses[kind.index()].live.len()
    }

    pub fn is_empty(&self, kind: Kind) -> bool {
        self.courses[kind.index()].live.is_empty()
    }

    /// What happened to objects of a kind after `after`, oldest first, each object's changes folded into its last ones:
    /// gone, and there again.
    pub fn changes(&self, kind: Kind, after: Revision) -> impl Iterator<Item = Change> {
        let course = &self.courses[kind.index()];
        let from = (Bound::Excluded((after, Id::from("\u{10ffff}"))), Bound::Unbounded);
        let live = course.order.range(from.clone()).map(move |(_, id)| {
            let seen = course.live.get(id).copied().unwrap_or(Seen { newest: after, created: after });
            Change::Live { id: id.clone(), seen }
        });
        let gone = course.gone_order.range(from).map(|(at, id)| Change::Gone { id: id.clone(), at: *at });
        Merged { a: gone.peekable(), b: live.peekable() }
    }

    /// Whether all deletions of a kind after this revision are still known.
    pub fn is_complete_after(&self, kind: Kind, after: Revision) -> bool {
        after >= self.courses[kind.index()].compacted
    }

    /// The newest revision of each kind that is durable.
    pub fn moved(&self, durable: Revision, ks: &Keyspace) -> Moved {
        let mut moved = [0; Kind::ALL.len()];
        for (at, course) in moved.iter_mut().zip(&self.courses) {
            *at = object::version(self.layout, course.newest.min(durable), ks).0;
        }
        moved
    }

    /// What an object was before it went.
    pub fn last_words<'a>(&self, kind: Kind, id: &Id, ks: &'a Keyspace) -> Option<&'a Bytes> {
        ks.get(&gone_key(self.layout, kind, id))
    }
}

/// Two runs in the order of revisions as one.
struct Merged<A: Iterator, B: Iterator> {
    a: std::iter::Peekable<A>,
    b: std::iter::Peekable<B>,
}

impl<A: Iterator<Item = Change>, B: Iterator<Item = Change>> Iterator for Merged<A, B> {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        let (Some(a), Some(b)) = (self.a.peek(), self.b.peek()) else {
            return self.a.next().or_else(|| self.b.next());
        };
        if a.revision() <= b.revision() { self.a.next() } else { self.b.next() }
    }
}

/// The objects that a row is about.
fn objects(layout: Layout, key: &str, values: &[&[u8]]) -> Vec<(Kind, Id)> {
    let mut found = Vec::new();
    for kind in Kind::ALL {
        if kind.is_served(layout) {
            found.extend((kind.info().of_row)(layout, key, values).into_iter().map(|id| (kind, id)));
        }
    }
    found
}

/// The object as it was sealed last. A projection's rows are being written over: its name is left.
fn last_words(layout: Layout, kind: Kind, id: &Id, ks: &Keyspace) -> Bytes {
    let manifest = object::manifest_key(layout, kind, id).and_then(|key| ks.sealed_get(&key));
    let meta = ks.sealed_get(&object::meta_key(kind, id));
    let whole = manifest.map(|json| object::stored(kind, id, json, meta.map(AsRef::as_ref)));
    let short = |whole: &serde_json::Value| whole.to_string().len() <= MAX_GONE_LEN;
    whole.filter(short).unwrap_or_else(|| object::bare(kind, id)).to_string().into()
}

fn gone_key(layout: Layout, kind: Kind, id: &Id) -> String {
    format!("{}{}/{id}", gone_prefix(layout), kind.info().plural)
}

fn gone_prefix(layout: Layout) -> &'static str {
    match layout {
        Layout::Cloud => "/c/gone/",
        Layout::Edge => "/local/gone/",
    }
}

/// Where the deletions of all kinds ended in a store that was written before each kind had its own mark.
fn old_mark_key(layout: Layout) -> &'static str {
    match layout {
        Layout::Cloud => "/c/gone-before",
        Layout::Edge => "/local/gone-before",
    }
}

fn mark_key(layout: Layout, kind: Kind) -> String {
    format!("{}/{}", old_mark_key(layout), kind.info().plural)
}

fn of_gone(layout: Layout, key: &str) -> Option<(Kind, Id)> {
    let (plural, id) = key.strip_prefix(gone_prefix(layout))?.split_once('/')?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.info().plural == plural)?;
    Some((kind, Id::from(id)))
}

/// Unreadable: claim nothing, so that every client lists anew.
fn compacted(layout: Layout, kind: Kind, ks: &Keyspace) -> Revision {
    let mark = |key: &str| match ks.get(key).map(|bytes| <[u8; 8]>::try_from(&bytes[..])) {
        None => Revision::ZERO,
        Some(Ok(bytes)) => Revision(u64::from_be_bytes(bytes)),
        Some(Err(_)) => ks.revision(),
    };
    mark(old_mark_key(layout)).max(mark(&mark_key(layout, kind)))
}

/// For the row of a manifest, its metadata, and of what is said of it.
pub(super) fn below(key: &str, prefixes: &[&str]) -> Option<Id> {
    let rest = prefixes.iter().find_map(|prefix| key.strip_prefix(prefix))?;
    let mut parts = rest.splitn(3, '/');
    let (namespace, name) = (parts.next()?, parts.next()?);
    Some(Id::new(Some(namespace), name))
}

#[cfg(test)]
mod tests;
