//! A node's disk: slow, sometimes stuck, and after a crash as it was at the last sync.
//!
//! ```text
//! Persist(commit) --> waiting --begin()--> being written --finish()--> durable --> Persisted
//!                                              |
//!                                         crash(n): the first n of these landed all the same
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use metadata::{Commit, Key, Keyspace, MemoryStore, Revision, Store, StoreError, Write, epoch};

/// The disk of one machine.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    store: MemoryStore,
    waiting: Vec<Commit>,
    writing: Vec<Commit>,
    /// What is durable, for the oracle: the store hands out only all of it.
    durable: Image,
}

/// Keys and values as a row of commits left them.
#[derive(Debug, Clone, Default)]
pub struct Image {
    rows: BTreeMap<Key, Bytes>,
    pub revision: Revision,
}

impl Image {
    pub fn apply(&mut self, commit: &Commit) {
        self.revision = commit.revision;
        for key in &commit.forgotten {
            self.rows.remove(key.as_str());
        }
        for write in &commit.writes {
            match &write.value {
                Some(value) => self.rows.insert(write.key.clone(), value.clone()),
                None => self.rows.remove(write.key.as_str()),
            };
        }
    }

    pub fn get(&self, key: &str) -> Option<&Bytes> {
        self.rows.get(key)
    }

    /// What lies under `prefix`, the prefix cut off.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Bytes)> {
        let from = self.rows.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        from.map_while(move |(key, value)| Some((key.as_str().strip_prefix(prefix)?, value)))
    }
}

impl Disk {
    /// Takes a commit; true if the disk was idle and [`Self::begin`] is to be called.
    pub fn submit(&mut self, commit: Commit) -> bool {
        self.waiting.push(commit);
        self.writing.is_empty()
    }

    /// Begins to write what waits, one transaction a commit; false if nothing does.
    pub fn begin(&mut self) -> bool {
        self.writing = std::mem::take(&mut self.waiting);
        for commit in &self.writing {
            self.store.write(std::slice::from_ref(commit));
        }
        !self.writing.is_empty()
    }

    /// All that was being written is durable: the last revision.
    pub fn finish(&mut self) -> Option<Revision> {
        self.store.sync();
        self.writing
            .drain(..)
            .map(|commit| {
                self.durable.apply(&commit);
                commit.revision
            })
            .last()
    }

    /// Loses power. `luck` chooses how many of the transactions under way landed.
    pub fn crash(&mut self, luck: u64) -> usize {
        let landed = (luck % (self.writing.len() as u64 + 1)) as usize;
        self.store.crash(landed);
        self.writing.drain(..).take(landed).for_each(|commit| self.durable.apply(&commit));
        self.waiting.clear();
        landed
    }

    /// Commits that are not durable yet.
    pub fn pending(&self) -> usize {
        self.waiting.len() + self.writing.len()
    }

    /// What the disk holds; a bad one gives nothing back that lies under `forgotten`.
    pub fn load(&mut self, forgotten: Option<&str>) -> Result<Keyspace, StoreError> {
        let mut rows = self.store.load()?;
        let is_gone = |key: &Key| forgotten.is_some_and(|prefix| key.as_str().starts_with(prefix));
        rows.iter_mut().filter(|(key, ..)| is_gone(key)).for_each(|(.., value)| *value = None);
        Ok(Keyspace::load(rows))
    }

    /// The epoch of the cloud whose disk this is.
    pub fn epoch(&self) -> u64 {
        let stored = self.durable.get("/sync/epoch").and_then(|bytes| bytes[..].try_into().ok());
        stored.map_or(epoch::FIRST, u64::from_be_bytes)
    }

    /// What restoring a backup writes: the cloud goes on under this epoch.
    pub fn restore(&mut self, epoch: u64) {
        let rows = self.store.load().unwrap_or_default();
        *self = Self::default();
        for (key, revision, value) in epoch::restored(rows, epoch) {
            self.submit(Commit { revision, writes: vec![Write { key, value }], forgotten: Vec::new() });
        }
        self.begin();
        self.finish();
    }

    pub fn durable(&self) -> &Image {
        &self.durable
    }

    pub fn wipe(&mut self) {
        *self = Self::default();
    }
}
