//! The node's one store as it is in memory: every key with its value and the revision that last changed it.
//!
//! Cores write into the *open* cycle with [`Keyspace::put`] and [`Keyspace::delete`] and read their own writes back;
//! [`Keyspace::seal`] makes one commit with one revision of them. What others are told is the *sealed* state alone, so
//! that a revision is seen whole or not at all.
//!
//! Two *scopes* are followed by edges: `/e/<edge>/` and `/all/`. Only they have an order of changes, and only in them a
//! deletion leaves a tombstone; elsewhere it removes the row for good, from memory and from the store.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::key::{Commit, Key, Revision, Write};
use crate::store::Row;

/// The largest value that the sync carries: a part holds at least one value and stays below
/// [`bus::frame::MAX_FRAME_LEN`]. Larger ones may be stored, but a [`crate::Feed`] reports them and leaves them out.
pub const MAX_VALUE_LEN: usize = 512 << 10;

/// Deletions that are remembered for followers, about 4 MB. Above this the older half is forgotten at the next seal,
/// and an edge that has not heard of those gets a snapshot.
pub const MAX_TOMBSTONES: usize = 16_384;

/// How many deletions are remembered.
#[derive(Debug, Clone, Copy)]
struct MaxTombstones(usize);

impl Default for MaxTombstones {
    fn default() -> Self {
        Self(MAX_TOMBSTONES)
    }
}

const COMPACTED: &str = "/sync/compacted";

/// A row without a value: a store knows the last revision from its newest row, and a commit that only removes rows
/// would leave none.
const NEWEST: &str = "/sync/revision";

#[derive(Debug, Clone)]
struct Entry {
    revision: Revision,
    value: Option<Bytes>,
}

/// The keys of one followed scope by the revision that last changed them.
#[derive(Debug, Clone, Default)]
struct Scope {
    latest: Revision,
    by_revision: BTreeSet<(Revision, Key)>,
}

/// A place in a scope's order of changes: everything up to and including this was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Whole revisions.
    Revision(Revision),
    /// A revision up to this key.
    Within(Revision, Key),
}

impl Mark {
    fn bound(&self) -> Bound<(Revision, Key)> {
        match self {
            Self::Revision(revision) => Bound::Included((revision.next(), Key::least())),
            Self::Within(revision, key) => Bound::Excluded((*revision, key.clone())),
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        match self {
            Self::Revision(revision) | Self::Within(revision, _) => *revision,
        }
    }
}

/// One key's last change, with its value then and now; `None` is deleted.
pub(crate) type Change<'a> = (Revision, &'a Key, Option<&'a Bytes>);

/// The revisioned key-value store of one node.
#[derive(Debug, Clone, Default)]
pub struct Keyspace {
    sealed: BTreeMap<Key, Entry>,
    /// Writes since the last seal that differ from what is sealed.
    open: BTreeMap<Key, Option<Bytes>>,
    scopes: BTreeMap<Arc<str>, Scope>,
    /// Each scope once, by its latest revision.
    touched: BTreeSet<(Revision, Arc<str>)>,
    tombstones: BTreeSet<(Revision, Key)>,
    max_tombstones: MaxTombstones,
    /// Rows that the next commit removes from the store.
    forgotten: Vec<Key>,
    revision: Revision,
    compacted: Revision,
}

impl Keyspace {
    pub fn new() -> Self {
        Self::default()
    }

    /// The keyspace as a [`crate::Store`] kept it.
    pub fn load(rows: impl IntoIterator<Item = Row>) -> Self {
        let mut ks = Self::new();
        for (key, revision, value) in rows {
            ks.revision = ks.revision.max(revision);
            match value {
                // Left by a version that kept them everywhere.
                None if key.scope().is_none() => ks.forgotten.push(key),
                value => ks.record(key, revision, value),
            }
        }
        ks.compacted = match ks.get(COMPACTED).map(|bytes| <[u8; 8]>::try_from(&bytes[..])) {
            None => Revision::ZERO,
            Some(Ok(bytes)) => Revision(u64::from_be_bytes(bytes)),
            // Unreadable: claim nothing, so that every follower starts from a snapshot.
            Some(Err(_)) => ks.revision.next(),
        };
        ks
    }

    /// Remembers at most so many deletions instead of [`MAX_TOMBSTONES`], which a short life does not reach.
    pub fn remember_deletions(&mut self, at_most: usize) {
        self.max_tombstones = MaxTombstones(at_most);
    }

    /// The last sealed revision.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// All that a [`crate::Store`] holds once the last seal is durable.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.sealed.iter().map(|(key, entry)| (key.clone(), entry.revision, entry.value.clone()))
    }

    /// The value of `key`, this cycle's writes included.
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        match self.open.get(key) {
            Some(written) => written.as_ref(),
            None => self.sealed_get(key),
        }
    }

    /// The value of `key` at [`Self::revision`].
    pub fn sealed_get(&self, key: &str) -> Option<&Bytes> {
        self.sealed.get(key)?.value.as_ref()
    }

    /// The sealed revision that last changed `key`, if it is there.
    pub fn revision_of(&self, key: &str) -> Option<Revision> {
        self.sealed.get(key).filter(|entry| entry.value.is_some()).map(|entry| entry.revision)
    }

    /// What this cycle wrote so far; `None` deletes.
    pub fn written(&self) -> impl Iterator<Item = (&Key, Option<&Bytes>)> {
        self.open.iter().map(|(key, value)| (key, value.as_ref()))
    }

    /// The live keys that begin with `prefix`, in order, this cycle's writes included.
    pub fn range<'a>(&'a self, prefix: &str) -> impl Iterator<Item = (&'a Key, &'a Bytes)> + use<'a> {
        self.range_from(prefix, prefix)
    }

    /// [`Self::range`] from the key `from` on, that included.
    pub fn range_from<'a>(
        &'a self,
        prefix: &str,
        from: &str,
    ) -> impl Iterator<Item = (&'a Key, &'a Bytes)> + use<'a> {
        let (prefix, bounds) = (prefix.to_owned(), (Bound::Included(from), Bound::Unbounded));
        let sealed = self.sealed.range::<str, _>(bounds).map(|(key, entry)| (key, entry.value.as_ref()));
        let open = self.open.range::<str, _>(bounds).map(|(key, value)| (key, value.as_ref()));
        Overlaid { below: sealed.peekable(), above: open.peekable() }
            .take_while(move |(key, _)| key.as_str().starts_with(&prefix))
            .filter_map(|(key, value)| Some((key, value?)))
    }

    /// Sets `key`; an equal value is no write.
    pub fn put(&mut self, key: Key, value: Bytes) {
        if self.sealed_get(key.as_str()) == Some(&value) {
            self.open.remove(key.as_str());
        } else {
            self.open.insert(key, Some(value));
        }
    }

    /// Removes `key`, if it is there.
    pub fn delete(&mut self, key: &Key) {
        if self.sealed_get(key.as_str()).is_some() {
            self.open.insert(key.clone(), None);
        } else {
            self.open.remove(key.as_str());
        }
    }

    /// Ends the cycle: all its writes are one commit, `None` if nothing changed. Whoever speaks of what was written
    /// waits until the commit is durable.
    pub fn seal(&mut self) -> Option<Commit> {
        if self.open.is_empty() {
            return None;
        }
        let MaxTombstones(most) = self.max_tombstones;
        if self.tombstones.len() > most {
            let newest_forgotten = self.tombstones.iter().rev().nth(most / 2);
            self.compact(newest_forgotten.map_or(Revision::ZERO, |(revision, _)| revision.next()));
        }
        self.revision = self.revision.next();
        let mut writes = Vec::with_capacity(self.open.len());
        for (key, value) in std::mem::take(&mut self.open) {
            if value.is_none() && key.scope().is_none() {
                self.sealed.remove(key.as_str());
                self.forgotten.push(key);
            } else {
                self.record(key.clone(), self.revision, value.clone());
                writes.push(Write { key, value });
            }
        }
        if writes.is_empty() {
            writes.push(Write { key: Key::literal(NEWEST), value: Some(Bytes::new()) });
            self.record(Key::literal(NEWEST), self.revision, Some(Bytes::new()));
        }
        Some(Commit { revision: self.revision, writes, forgotten: std::mem::take(&mut self.forgotten) })
    }

    /// The keys that this cycle writes and no earlier one did: a store has no row of them.
    pub fn fresh(&self) -> impl Iterator<Item = &Key> {
        self.open.keys().filter(|key| !self.sealed.contains_key(key.as_str()))
    }

    /// Whether something that edges follow changed after `after`.
    pub fn is_followed_after(&self, after: Revision) -> bool {
        self.scopes_touched_after(after).next().is_some()
    }

    /// Whether every deletion after this revision is still known.
    pub fn is_complete_after(&self, after: Revision) -> bool {
        // The mistake that `cargo xtask sim --broken` builds in: an edge that slept through a compaction is not sent a
        // snapshot, and keeps what was deleted.
        cfg!(kubebus_broken) || after.next() >= self.compacted
    }

    /// Deletions before this revision are forgotten.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// Forgets the deletions made before revision `before`. The keyspace does so by itself above [`MAX_TOMBSTONES`].
    pub fn compact(&mut self, before: Revision) {
        let before = before.min(self.revision.next());
        if before <= self.compacted {
            return;
        }
        let kept = self.tombstones.split_off(&(before, Key::least()));
        for (revision, key) in std::mem::replace(&mut self.tombstones, kept) {
            self.sealed.remove(key.as_str());
            self.unlist(&key, revision);
            self.forgotten.push(key);
        }
        self.compacted = before;
        self.put(Key::literal(COMPACTED), Bytes::copy_from_slice(&before.0.to_be_bytes()));
    }

    /// The scopes with a change after `after`: `/e/<edge>/` of each edge concerned, and `/all/`.
    pub(crate) fn scopes_touched_after(&self, after: Revision) -> impl Iterator<Item = &str> {
        self.touched.range((after.next(), Arc::from(""))..).map(|(_, scope)| &**scope)
    }

    /// The changes of one scope after `mark`, read one by one.
    pub(crate) fn changes_in<'a>(
        &'a self,
        scope: &str,
        mark: &Mark,
    ) -> impl Iterator<Item = Change<'a>> + use<'a> {
        let scope = self.scopes.get(scope).map(|s| s.by_revision.range((mark.bound(), Bound::Unbounded)));
        scope.into_iter().flatten().map(|(revision, key)| (*revision, key, self.sealed_get(key.as_str())))
    }

    fn record(&mut self, key: Key, revision: Revision, value: Option<Bytes>) {
        if value.is_none() {
            self.tombstones.insert((revision, key.clone()));
        }
        let old = self.sealed.insert(key.clone(), Entry { revision, value });
        if let Some(old) = old {
            self.tombstones.remove(&(old.revision, key.clone()));
            self.unlist(&key, old.revision);
        }
        self.list(key, revision);
    }

    fn list(&mut self, key: Key, revision: Revision) {
        let Some(name) = key.scope() else { return };
        let name = match self.scopes.get_key_value(name) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::from(name),
        };
        let scope = self.scopes.entry(Arc::clone(&name)).or_default();
        scope.by_revision.insert((revision, key));
        if revision > scope.latest {
            self.touched.remove(&(scope.latest, Arc::clone(&name)));
            scope.latest = revision;
            self.touched.insert((revision, name));
        }
    }

    fn unlist(&mut self, key: &Key, revision: Revision) {
        let Some((name, _)) = key.scope().and_then(|name| self.scopes.get_key_value(name)) else { return };
        let name = Arc::clone(name);
        let Some(scope) = self.scopes.get_mut(&name) else { return };
        scope.by_revision.remove(&(revision, key.clone()));
        if scope.by_revision.is_empty() {
            self.touched.remove(&(scope.latest, Arc::clone(&name)));
            self.scopes.remove(&name);
        }
    }
}

/// Two ordered runs of keys as one; where both have a key, the upper run's value counts.
struct Overlaid<B: Iterator, A: Iterator> {
    below: std::iter::Peekable<B>,
    above: std::iter::Peekable<A>,
}

impl<'a, V, B, A> Iterator for Overlaid<B, A>
where
    B: Iterator<Item = (&'a Key, V)>,
    A: Iterator<Item = (&'a Key, V)>,
{
    type Item = (&'a Key, V);

    fn next(&mut self) -> Option<Self::Item> {
        let (Some((lower, _)), Some((upper, _))) = (self.below.peek(), self.above.peek()) else {
            return self.below.next().or_else(|| self.above.next());
        };
        match lower.cmp(upper) {
            std::cmp::Ordering::Less => self.below.next(),
            std::cmp::Ordering::Greater => self.above.next(),
            std::cmp::Ordering::Equal => {
                self.below.next();
                self.above.next()
            }
        }
    }
}

#[cfg(test)]
mod tests;
