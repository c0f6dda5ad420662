//! A node around one core: cycles are sealed, outputs wait until their commit is durable, a crash takes the rest.

use std::collections::VecDeque;

use crate::{Keyspace, MemoryStore, Store};
use bytes::Bytes;

#[derive(Clone)]
pub(crate) struct Host<C, O> {
    pub(crate) core: C,
    pub(crate) ks: Keyspace,
    pub(crate) store: MemoryStore,
    held: VecDeque<O>,
}

impl<C, O> Host<C, O> {
    pub(crate) fn start(mut store: MemoryStore, load: impl FnOnce(&mut Keyspace) -> C) -> Self {
        let mut ks = Keyspace::load(store.load().unwrap());
        let core = load(&mut ks);
        let mut host = Self { core, ks, store, held: VecDeque::new() };
        host.seal();
        host
    }

    /// Ends a cycle; returns whether it wrote anything.
    pub(crate) fn seal(&mut self) -> bool {
        let Some(commit) = self.ks.seal() else { return false };
        self.store.write(&[commit]);
        true
    }

    pub(crate) fn hold(&mut self, output: O) {
        self.held.push_back(output);
    }

    pub(crate) fn held(&self) -> impl Iterator<Item = &O> {
        self.held.iter()
    }

    /// The disk catches up; what waited for it may be spoken.
    pub(crate) fn sync(&mut self) -> Vec<O> {
        self.store.sync();
        self.release()
    }

    /// Speaks though the disk has not caught up, and never will.
    pub(crate) fn release(&mut self) -> Vec<O> {
        self.held.drain(..).collect()
    }

    /// Loses power; `landed` of the unsynced transactions had reached the disk.
    pub(crate) fn crash(self, landed: usize) -> MemoryStore {
        let mut store = self.store;
        store.crash(landed);
        store
    }
}

/// Both directions of one edge's link. In order, as a stream is; a break takes what is under way.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Link {
    pub(crate) up: VecDeque<Bytes>,
    pub(crate) down: VecDeque<Bytes>,
}
