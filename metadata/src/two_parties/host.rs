//! A node around one core: cycles are sealed, outputs wait until their commit is durable, a crash takes the rest.

use std::collections::VecDeque;

use crate::{Keyspace, MemoryStore, Store};
use bytes::Bytes;

#[derive(Clone)]
pub(super) struct Host<C, O> {
    pub(super) core: C,
    pub(super) ks: Keyspace,
    pub(super) store: MemoryStore,
    held: VecDeque<O>,
}

impl<C, O> Host<C, O> {
    pub(super) fn start(mut store: MemoryStore, load: impl FnOnce(&mut Keyspace) -> C) -> Self {
        let mut ks = Keyspace::load(store.load().unwrap());
        let core = load(&mut ks);
        let mut host = Self { core, ks, store, held: VecDeque::new() };
        host.seal();
        host
    }

    /// Ends a cycle; returns whether it wrote anything.
    pub(super) fn seal(&mut self) -> bool {
        let commit = self.ks.seal();
        self.store.write(commit.as_slice());
        commit.is_some()
    }

    pub(super) fn hold(&mut self, output: O) {
        self.held.push_back(output);
    }

    /// The disk catches up; what waited for it may be spoken.
    pub(super) fn sync(&mut self) -> Vec<O> {
        self.store.sync();
        self.held.drain(..).collect()
    }

    /// Speaks though the disk has not caught up, and never will.
    pub(super) fn release(&mut self) -> Vec<O> {
        self.held.drain(..).collect()
    }

    /// Loses power; `landed` of the unsynced transactions had reached the disk.
    pub(super) fn crash(self, landed: usize) -> MemoryStore {
        let mut store = self.store;
        store.crash(landed);
        store
    }
}

/// Both directions of one edge's link. In order, as a stream is; a break takes what is under way.
#[derive(Default)]
pub(super) struct Link {
    pub(super) up: VecDeque<Bytes>,
    pub(super) down: VecDeque<Bytes>,
}
