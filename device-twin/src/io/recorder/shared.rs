//! What the recorder's handles and its thread both see.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{HistoryStats, Record};
use crate::history::Gap;

/// Records of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub samples: u64,
    pub audit: u64,
    pub rules: u64,
}

impl Counts {
    pub(super) fn add(&mut self, record: &Record) {
        match record {
            Record::Sample { .. } => self.samples += 1,
            Record::Audit(_) => self.audit += 1,
            Record::Rule(_) | Record::RuleHeads(_) => self.rules += 1,
        }
    }
}

/// The recorder's counters at one moment, since its start unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// What was taken.
    pub recorded: Counts,
    /// What found the queue full, or rule lines that followed one that did.
    pub dropped: Counts,
    /// What the disk did not take, what was too large, and samples of too many properties.
    pub lost: Counts,
    /// Times that the disk refused something.
    pub disk_errors: u64,
    /// It refuses now.
    pub is_degraded: bool,
    pub history: HistoryStats,
}

/// Shared by all handles and the thread. Locked for a few instructions: when something is dropped, and once a second.
#[derive(Debug)]
pub(super) struct Shared {
    /// Samples that were dropped and that the thread does not know of yet.
    gap: Mutex<Option<Gap>>,
    /// As the thread left them.
    stats: Mutex<Stats>,
    dropped: Dropped,
    /// A line was dropped: those that follow are, until heads come.
    rules_broken: AtomicBool,
    /// The thread asks for heads.
    heads_due: AtomicBool,
}

#[derive(Debug, Default)]
struct Dropped {
    samples: AtomicU64,
    audit: AtomicU64,
    rules: AtomicU64,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            gap: Mutex::default(),
            stats: Mutex::default(),
            dropped: Dropped::default(),
            rules_broken: AtomicBool::new(false),
            heads_due: AtomicBool::new(true),
        }
    }
}

impl Shared {
    /// Whether a record is of use; the one that will not be handed in is counted.
    pub(super) fn is_welcome(&self, record: &Record) -> bool {
        match record {
            Record::Rule(_) if self.rules_broken.load(Relaxed) => {
                self.dropped.rules.fetch_add(1, Relaxed);
                false
            }
            Record::RuleHeads(_) => {
                self.rules_broken.store(false, Relaxed);
                self.heads_due.store(false, Relaxed);
                true
            }
            Record::Rule(_) | Record::Sample { .. } | Record::Audit(_) => true,
        }
    }

    /// A record found no room.
    pub(super) fn dropped(&self, record: &Record) {
        match record {
            Record::Sample { stored, .. } => {
                self.dropped.samples.fetch_add(1, Relaxed);
                let (mut gap, one) = (lock(&self.gap), Gap::one(*stored));
                *gap = Some(gap.map_or(one, |gap| gap.merge(one)));
            }
            Record::Audit(_) => drop(self.dropped.audit.fetch_add(1, Relaxed)),
            Record::Rule(_) | Record::RuleHeads(_) => {
                self.dropped.rules.fetch_add(1, Relaxed);
                self.rules_broken.store(true, Relaxed);
            }
        }
    }

    pub(super) fn rule_heads_due(&self) -> bool {
        self.heads_due.load(Relaxed) || self.rules_broken.load(Relaxed)
    }

    pub(super) fn ask_for_heads(&self) {
        self.heads_due.store(true, Relaxed);
    }

    pub(super) fn take_gap(&self) -> Option<Gap> {
        lock(&self.gap).take()
    }

    pub(super) fn set_stats(&self, stats: Stats) {
        *lock(&self.stats) = stats;
    }

    pub(super) fn stats(&self) -> Stats {
        let Dropped { samples, audit, rules } = &self.dropped;
        let [samples, audit, rules] = [samples, audit, rules].map(|counter| counter.load(Relaxed));
        Stats { dropped: Counts { samples, audit, rules }, ..*lock(&self.stats) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
