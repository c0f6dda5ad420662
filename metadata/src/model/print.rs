//! A fingerprint of what a state holds. Equal states must have equal ones, so that the checker visits each once.

use std::fmt::{self, Debug, Write as _};

use crate::{Keyspace, MemoryStore, Row, Store};

/// Mixes words into 64 bits; two of a million states share one by a chance of one in 40 million.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Print(u64);

impl Print {
    pub(super) fn number(&mut self, word: u64) {
        let mixed = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 29);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.number(u64::from_le_bytes(word));
        }
    }

    /// All that `value` shows of itself, so that a new field counts at once.
    pub(super) fn debug(&mut self, value: &impl Debug) {
        let _ = write!(self, "{value:?}");
    }

    /// All else in a keyspace follows from its rows.
    pub(super) fn keyspace(&mut self, ks: &Keyspace) {
        self.number(ks.revision().0);
        self.rows(ks.rows());
    }

    /// What is on the disk, and after each of the transactions under way.
    pub(super) fn disk(&mut self, store: &MemoryStore) {
        for landed in 0..=store.unsynced() {
            let mut disk = store.clone();
            disk.crash(landed);
            self.rows(disk.load().unwrap());
        }
    }

    fn rows(&mut self, rows: impl IntoIterator<Item = Row>) {
        for (key, revision, value) in rows {
            self.bytes(key.as_str().as_bytes());
            self.number(revision.0);
            self.bytes(value.as_deref().unwrap_or_default());
            self.number(u64::from(value.is_some()));
        }
    }

    pub(super) fn end(self) -> u64 {
        self.0
    }
}

impl fmt::Write for Print {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}
