//! The store on a disk that loses power and fails: nothing acknowledged is lost, and no group is half there. Samples may
//! get lost; those that are there are what was written.

mod samples;

use bus::backoff::Jitter;
use bytes::Bytes;

use super::bad_disk::BadDisk;
use super::redb::RedbStore;
use super::ring;
use crate::key::Commit;
use crate::store::conformance::{Latest, any_commit, commit, fold, key, rows};
use crate::store::{Row, Store, StoreError};
use samples::Samples;

const CACHE: usize = 1 << 20;

/// What became of the commits.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    acknowledged: u64,
    /// Under way when the power went, and there afterwards.
    landed: u64,
    /// Answered with an error while there was power, and tried again.
    failed: u64,
    cut_while_opening: u64,
    cut_while_writing: u64,
    /// Of the cuts, those that ended the process alone.
    killed: u64,
    samples_kept: u64,
    samples_lost: u64,
}

/// A store, and what it must hold.
struct Trial {
    disk: BadDisk,
    refuses: bool,
    jitter: Jitter,
    revision: u64,
    acknowledged: Latest,
    /// The group under way when the power went, or that was refused: it is there or not.
    under_way: Option<Vec<Commit>>,
    samples: Option<Samples>,
    /// Since the last start that came through.
    power_was_lost: bool,
    tally: Tally,
}

impl Trial {
    fn new(seed: u64, refuse_one_in: u64) -> Self {
        let disk = BadDisk::new(seed);
        disk.refuse_one_in(refuse_one_in);
        Self {
            disk,
            refuses: refuse_one_in > 0,
            jitter: Jitter::new(!seed),
            revision: 0,
            acknowledged: Latest::new(),
            under_way: None,
            // A ring is large: one disk in four has it.
            samples: seed.is_multiple_of(4).then(Samples::default),
            power_was_lost: false,
            tally: Tally::default(),
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.jitter.next_u64() % limit
    }

    fn any_group(&mut self) -> Vec<Commit> {
        (0..1 + self.below(3))
            .map(|_| {
                self.revision += 1;
                let mut commit = self.any_commit();
                let count = self.below(4);
                if let Some(samples) = &mut self.samples {
                    samples.fill(&mut commit, count);
                }
                commit
            })
            .collect()
    }

    fn any_commit(&mut self) -> Commit {
        match self.below(60) {
            0 => large(self.revision),
            1 => small_again(self.revision),
            // Often of samples alone.
            2..12 => commit(self.revision, []),
            _ => any_commit(self.revision, &mut self.jitter),
        }
    }

    /// What is there is all that was acknowledged, with the group under way or without.
    fn check(&mut self, store: &mut RedbStore) -> Result<(), StoreError> {
        let (samples, found): (Vec<Row>, Vec<Row>) =
            store.load()?.into_iter().partition(|(key, ..)| ring::holds(key));
        let under_way = self.under_way.take();
        self.check_samples(&samples, under_way.as_deref());
        if found == rows(&self.acknowledged) {
            return Ok(());
        }
        let group = under_way.expect("nothing was under way, and what was acknowledged is not there");
        fold_group(&mut self.acknowledged, &group);
        assert!(found == rows(&self.acknowledged), "neither with nor without the group that was under way");
        self.tally.landed += 1;
        Ok(())
    }

    /// Where the power stayed, all is there but what was under way.
    fn check_samples(&mut self, found: &[Row], under_way: Option<&[Commit]>) {
        let Some(samples) = &mut self.samples else { return assert_eq!(found, []) };
        let (kept, lost) = samples.handle_start(found);
        let first_under_way = under_way.and_then(|group| group.first()).map(|commit| commit.revision);
        let may_be_lost = |revision| first_under_way.is_some_and(|first| revision >= first);
        let power_was_lost = std::mem::replace(&mut self.power_was_lost, false);
        assert!(
            power_was_lost || lost.iter().copied().all(may_be_lost),
            "{lost:?}, of {first_under_way:?} on"
        );
        self.tally.samples_kept += kept;
        self.tally.samples_lost += lost.len() as u64;
    }

    /// Opens the store until it is open, or there is no power. A disk that refuses is no damaged store.
    fn open(&mut self) -> Option<RedbStore> {
        loop {
            let disk = Box::new(self.disk.clone());
            let opened = RedbStore::open_on(disk, "store.redb", "store.redb".into(), CACHE);
            match opened.and_then(|mut store| self.check(&mut store).map(|()| store)) {
                Ok(store) => return Some(store),
                Err(_) if self.disk.is_dark() => return None,
                Err(error) => self.note(&error),
            }
        }
    }

    fn note(&mut self, error: &StoreError) {
        let is_refusal = self.refuses && matches!(error, StoreError::Io { .. });
        assert!(is_refusal, "there was power: {error:?}");
        self.tally.failed += 1;
    }

    /// Commits until there is no power; what is refused is tried again, as the store thread does.
    fn commit_on(&mut self, mut store: RedbStore) {
        loop {
            let group = self.any_group();
            while let Err(error) = store.commit(&group) {
                if self.disk.is_dark() {
                    self.under_way = Some(group);
                    return;
                }
                self.note(&error);
            }
            fold_group(&mut self.acknowledged, &group);
            self.tally.acknowledged += 1;
        }
    }

    /// From one start to a power cut within so many operations, or to the death of the process.
    fn live(&mut self, operations: u64) {
        let fuse = self.below(operations);
        self.disk.light_the_fuse(fuse);
        match self.open() {
            Some(store) => {
                self.tally.cut_while_writing += 1;
                self.commit_on(store);
            }
            None => self.tally.cut_while_opening += 1,
        }
        if self.below(8) == 0 {
            self.tally.killed += 1;
            self.disk.start_process();
        } else {
            self.power_was_lost = true;
            self.disk.lose_power();
        }
    }
}

/// Samples are counted elsewhere.
fn fold_group(latest: &mut Latest, group: &[Commit]) {
    group.iter().for_each(|commit| fold(latest, commit));
    latest.retain(|key, _| !ring::holds(key));
}

/// Makes the file grow.
fn large(revision: u64) -> Commit {
    commit(
        revision,
        (0..4).map(|n| (key(&format!("/c/large/{n}")), Some(vec![revision as u8; 300_000].into()))),
    )
}

/// Leaves room in it.
fn small_again(revision: u64) -> Commit {
    commit(revision, (0..4).map(|n| (key(&format!("/c/large/{n}")), Some(Bytes::new()))))
}

/// Each seed has a disk of its own; the figures are printed.
fn survive(cuts: u64, seeds: u64, refuse_one_in: u64) {
    for seed in 0..seeds {
        let mut trial = Trial::new(seed, refuse_one_in);
        while trial.disk.damage().power_cuts < cuts / seeds {
            // The first operations open the store.
            let operations = if trial.below(4) == 0 { 20 } else { 120 };
            trial.live(operations);
        }
        println!("seed {seed}: {:?}, {:?}", trial.tally, trial.disk.damage());
    }
}

#[test]
fn a_thousand_power_cuts_lose_nothing_acknowledged() {
    survive(1_000, 20, 0);
}

#[test]
#[ignore = "some minutes; cargo test -p metadata ten_thousand_power_cuts -- --ignored --nocapture"]
fn ten_thousand_power_cuts_lose_nothing_acknowledged() {
    survive(8_000, 20, 0);
    survive(2_000, 20, 25);
}

#[test]
fn a_disk_that_refuses_at_random_loses_nothing_acknowledged() {
    survive(400, 20, 25);
}

#[test]
fn a_store_whose_making_was_cut_short_is_made_again() {
    for seed in 0..300 {
        let mut trial = Trial::new(seed, 0);
        (0..4).for_each(|_| trial.live(25));
    }
}
