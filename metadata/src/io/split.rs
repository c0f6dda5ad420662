//! [`Store`] of a cloud in several replicas: what edges report stays on this machine, all else goes to etcd.
//!
//! Reports come at the rate of sensors, and every member of etcd writes each commit to its disk: they would be most of
//! its work, for values that their edges still have. So a replica keeps them to itself. One that takes over knows no
//! receipt of any edge, and so each of them takes a new incarnation and says everything again (see [`crate::sync`]).
//!
//! What an edge's inbox has taken is kept with what was taken, here; only what is both is not one transaction: etcd
//! comes first, so that after a crash in between an entry comes again and is not lost.
//!
//! Writes to etcd fail when the turn is over; those to this machine's disk do not, so the turn is
//! [checked](EtcdStore::check) around them: before, so that a former leader keeps nothing; and after, since the machine
//! may stand still in between. What was acknowledged by mistake an edge would not say to the new leader.

use bytes::Bytes;

use super::etcd::EtcdStore;
use crate::key::{Commit, Key, Revision, Write};
use crate::store::{Row, Store, StoreError};

/// What edges report, whether their devices answer, and up to which entry of each outbox this is.
const LOCAL: [&str; 4] = ["/c/reported/", "/c/state/", "/sync/in/", "/mqtt/"];

/// By what a machine's part is known; no row of a keyspace.
const WRITER: &str = "/local/writer";

fn is_local(key: &Key) -> bool {
    LOCAL.iter().any(|prefix| key.as_str().starts_with(prefix))
}

/// This machine's part. Its name is kept in it, and changes when it is lost.
#[derive(Debug)]
pub struct LocalPart<S> {
    store: S,
    writer: u64,
}

impl<S: Store> LocalPart<S> {
    /// A store without a name gets the name `fresh`.
    pub fn open(mut store: S, fresh: u64) -> Result<Self, StoreError> {
        let name = store.load()?.into_iter().find(|(key, ..)| key.as_str() == WRITER);
        let name = name.and_then(|(_, _, name)| Some(u64::from_be_bytes(name?.as_ref().try_into().ok()?)));
        if let Some(writer) = name {
            return Ok(Self { store, writer });
        }
        let name = Some(Bytes::copy_from_slice(&fresh.to_be_bytes()));
        let writes = vec![Write { key: Key::literal(WRITER), value: name }];
        store.commit(&[Commit { revision: Revision::ZERO, writes, forgotten: Vec::new() }])?;
        Ok(Self { store, writer: fresh })
    }

    /// For [`super::EtcdConfig::writer`].
    pub fn writer(&self) -> u64 {
        self.writer
    }

    /// Forgets what was kept: another replica has led since, and edges told that one.
    fn clear(&mut self) -> Result<(), StoreError> {
        let rows = self.store.load()?;
        let forgotten = rows.into_iter().map(|(key, ..)| key).filter(is_local).collect();
        self.store.commit(&[Commit { revision: Revision::ZERO, writes: Vec::new(), forgotten }])
    }
}

/// Both parts as one store.
#[derive(Debug)]
pub struct SplitStore<S> {
    shared: EtcdStore,
    local: LocalPart<S>,
}

impl<S: Store> SplitStore<S> {
    /// `shared` has the turn. If another replica wrote since this one did, the local part begins anew.
    pub fn new(shared: EtcdStore, mut local: LocalPart<S>) -> Result<Self, StoreError> {
        if shared.last_writer() != Some(local.writer) {
            local.clear()?;
        }
        Ok(Self { shared, local })
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &EtcdStore {
        &self.shared
    }
}

impl<S: Store> Store for SplitStore<S> {
    fn load(&mut self) -> Result<Vec<Row>, StoreError> {
        let mut rows = self.shared.load()?;
        rows.extend(self.local.store.load()?.into_iter().filter(|(key, ..)| is_local(key)));
        rows.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
        Ok(rows)
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<(), StoreError> {
        self.shared.commit(&part(commits, |key| !is_local(key)))?;
        let local = part(commits, is_local);
        if local.is_empty() {
            return Ok(());
        }
        self.shared.check()?;
        self.local.store.commit(&local)?;
        self.shared.check()
    }

    fn check(&mut self) -> Result<(), StoreError> {
        self.shared.check()
    }
}

/// The commits as far as they are about such keys.
fn part(commits: &[Commit], is_in: impl Fn(&Key) -> bool) -> Vec<Commit> {
    let part = commits.iter().map(|commit| Commit {
        revision: commit.revision,
        writes: commit.writes.iter().filter(|write| is_in(&write.key)).cloned().collect(),
        forgotten: commit.forgotten.iter().filter(|key| is_in(key)).cloned().collect(),
    });
    part.filter(|commit| !commit.writes.is_empty() || !commit.forgotten.is_empty()).collect()
}
