//! The lane of samples in a trial: each number is written once, the oldest are forgotten, and none is promised.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::io::ring;
use crate::key::{Commit, Key, Revision, Write};
use crate::store::Row;
use crate::store::conformance::key;

/// More do not wait: the oldest are forgotten.
const WAITING: usize = 40;

#[derive(Debug, Default)]
pub(super) struct Samples {
    /// The commit of each number.
    revisions: Vec<Revision>,
    /// The numbers that wait.
    live: BTreeSet<u64>,
}

impl Samples {
    fn key(number: u64) -> Key {
        key(&format!("{}{number:020}", ring::PREFIX))
    }

    fn value(number: u64) -> Bytes {
        let length = if number.is_multiple_of(17) { 60_000 } else { number % 300 };
        (0..length).map(|at| (at * number) as u8).collect()
    }

    /// Adds some to a commit.
    pub(super) fn fill(&mut self, commit: &mut Commit, count: u64) {
        for _ in 0..count {
            let number = self.revisions.len() as u64;
            self.revisions.push(commit.revision);
            self.live.insert(number);
            commit.writes.push(Write { key: Self::key(number), value: Some(Self::value(number)) });
        }
        while self.live.len() > WAITING {
            commit.forgotten.extend(self.live.pop_first().map(Self::key));
        }
    }

    /// What is found was written, and is all that waits from now on; returns how many there are, and the
    /// commits of those that are lost.
    pub(super) fn handle_start(&mut self, found: &[Row]) -> (u64, Vec<Revision>) {
        let numbers: BTreeMap<Key, u64> =
            (0..self.revisions.len() as u64).map(|number| (Self::key(number), number)).collect();
        let mut kept = BTreeSet::new();
        for (key, revision, value) in found {
            let number = numbers[key];
            let written = (self.revisions[number as usize], Some(Self::value(number)));
            assert!((*revision, value) == (written.0, &written.1), "sample {number} is not what was written");
            kept.insert(number);
        }
        let lost = self.live.difference(&kept).map(|number| self.revisions[*number as usize]).collect();
        self.live = kept;
        (self.live.len() as u64, lost)
    }
}
