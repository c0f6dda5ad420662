//! Commits that wait for a disk that refuses, as one: only the last write of each key counts.
//!
//! A transaction holds all of it, so that the disk never shows a state that memory did not go through. Rows get the
//! revision of the whole; an edge that heard of them under an earlier one hears of them once more at worst.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use metadata::{Commit, Durability, Key, Keyspace, Revision, Write};

#[derive(Debug, Default)]
pub(super) struct Fold {
    revision: Revision,
    writes: BTreeMap<Key, Option<Bytes>>,
    /// Rows to remove.
    forgotten: BTreeSet<Key>,
    /// Written for the first time since the disk refuses: if they go again there is no row to remove. Without this an
    /// outbox, each of whose rows has a name of its own, would fill the memory in days.
    fresh: BTreeSet<Key>,
}

impl Fold {
    /// Ends the cycle and takes its writes in.
    pub(super) fn seal(&mut self, keyspace: &mut Keyspace) -> Option<(Revision, Durability)> {
        let fresh: Vec<Key> = keyspace.fresh().cloned().collect();
        let commit = keyspace.seal()?;
        let durability = commit.durability();
        let Commit { revision, writes, forgotten } = commit;
        self.revision = revision;
        self.fresh.extend(fresh.into_iter().filter(|key| !self.forgotten.contains(key)));
        for key in forgotten {
            self.writes.remove(&key);
            if !self.fresh.remove(&key) {
                self.forgotten.insert(key);
            }
        }
        self.writes.extend(writes.into_iter().map(|write| (write.key, write.value)));
        Some((revision, durability))
    }

    pub(super) fn into_commit(self) -> Option<Commit> {
        let Self { revision, writes, forgotten, fresh: _ } = self;
        let writes: Vec<Write> = writes.into_iter().map(|(key, value)| Write { key, value }).collect();
        let forgotten: Vec<Key> = forgotten.into_iter().collect();
        let is_empty = writes.is_empty() && forgotten.is_empty();
        (!is_empty).then_some(Commit { revision, writes, forgotten })
    }
}
