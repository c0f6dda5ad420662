//! Where commits become durable.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::path::PathBuf;

use bytes::Bytes;
use thiserror::Error;

use crate::key::{Commit, Key, Revision};

#[cfg(test)]
pub(crate) mod conformance;

/// One row as a store keeps it; no value is a tombstone.
pub type Row = (Key, Revision, Option<Bytes>);

/// A disk for one [`crate::Keyspace`]. All that a store promises is tested by one suite, `conformance`.
pub trait Store {
    /// All rows, for [`crate::Keyspace::load`].
    fn load(&mut self) -> Result<Vec<Row>, StoreError>;

    /// Returns when all of `commits` are durable. They are one transaction: after a crash all of them are there or
    /// none.
    fn commit(&mut self, commits: &[Commit]) -> Result<(), StoreError>;

    /// Whether this process may still write; asked every second or so, however much there is to commit.
    fn check(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What a store cannot do, with what the operator can.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error(
        "store {file} is in use by another process: stop that one, or give this node a data directory of its own"
    )]
    Locked { file: PathBuf },
    /// What can be done about it depends on whose store it is: the node says so at its start.
    #[error("store {file} is damaged ({found})")]
    Corrupt {
        file: PathBuf,
        found: String,
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
    #[error(
        "store {file} has the format of another kubebus version: run that version, or move the file away"
    )]
    Format { file: PathBuf },
    #[error("cannot {doing} store {file}: check free space, permissions and the disk's health")]
    Io {
        file: PathBuf,
        doing: &'static str,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("cannot {doing} {place}: check that most of its members run and that this machine reaches them")]
    Unreachable {
        place: String,
        doing: &'static str,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("{place} does not let this node {doing} it: {advice}")]
    Refused {
        place: String,
        doing: &'static str,
        advice: &'static str,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error(
        "another cloud took over ({by}), as {place} says: this one must stop, so that no two act; started again it \
         stands by"
    )]
    Fenced { place: String, by: String },
    #[error(
        "{place} holds {found}, which this kubebus version did not write: give the cluster another name, or run the \
         version that wrote it"
    )]
    Foreign { place: String, found: String },
}

/// A disk that lives in memory and survives a simulated crash as a real one does: what was synced is there, what was
/// only written may be.
///
/// ```text
/// write(commit) --> in the cache --sync()--> on the disk
///                        |
///                     crash(n): the first n had landed, the rest is lost
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    disk: BTreeMap<Key, (Revision, Option<Bytes>)>,
    cache: Vec<Vec<Commit>>,
}

impl MemoryStore {
    /// Begins to write one transaction; not durable before [`Self::sync`].
    pub fn write(&mut self, commits: &[Commit]) {
        self.cache.push(commits.to_vec());
    }

    /// How many transactions wait for [`Self::sync`].
    pub fn unsynced(&self) -> usize {
        self.cache.len()
    }

    /// Makes all written transactions durable.
    pub fn sync(&mut self) {
        self.crash(self.cache.len());
    }

    /// Loses power: the first `landed` unsynced transactions are on the disk, the rest is gone.
    pub fn crash(&mut self, landed: usize) {
        for commit in std::mem::take(&mut self.cache).into_iter().take(landed).flatten() {
            self.apply(commit);
        }
    }

    fn apply(&mut self, commit: Commit) {
        let Commit { revision, writes, forgotten } = commit;
        for key in forgotten {
            self.disk.remove(key.as_str());
        }
        for write in writes {
            self.disk.insert(write.key, (revision, write.value));
        }
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Vec<Row>, StoreError> {
        Ok(self.disk.iter().map(|(key, (revision, value))| (key.clone(), *revision, value.clone())).collect())
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<(), StoreError> {
        self.write(commits);
        self.sync();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::conformance::{Place, kept_by, put};
    use super::*;

    impl Place for MemoryStore {
        fn reopen(&mut self) -> &mut dyn Store {
            self.crash(0);
            self
        }
    }

    kept_by!(MemoryStore::default());

    fn rows(store: &mut MemoryStore) -> Vec<(String, u64)> {
        store.load().unwrap().into_iter().map(|(key, revision, _)| (key.to_string(), revision.0)).collect()
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_a_whole_number_of_transactions() {
        let mut store = MemoryStore::default();
        store.commit(&[put(1, "/a", "1")]).unwrap();
        store.write(&[put(2, "/b", "1"), put(3, "/c", "1")]);
        store.write(&[put(4, "/d", "1")]);
        let mut other = store.clone();
        store.crash(0);
        assert_eq!(rows(&mut store), [("/a".to_owned(), 1)]);
        other.crash(1);
        assert_eq!(rows(&mut other), [("/a", 1), ("/b", 2), ("/c", 3)].map(|(k, r)| (k.to_owned(), r)));
    }
}
