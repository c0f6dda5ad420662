//! The recorder's thread: it owns the files.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::history::{History, NotKept};
use super::log::Log;
use super::rules::{RuleLog, RulePage, RulePosition};
use super::shared::{Shared, Stats};
use super::{AskError, Limits, Record, Reply};
use crate::history::listing::{AuditQuery, Join, Listing};
use crate::history::{Answer, Gap, Overview, Query, overview};

/// How often the thread does what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// What waits is handed to the system this often: what a crash of the process costs, at most.
    pub(super) flush: Duration,
    /// Between two tries of a disk that refuses.
    pub(super) retry: Duration,
}

impl Default for Pace {
    /// Nobody misses the last second; a card that is full or dying has time for others.
    fn default() -> Self {
        Self { flush: Duration::from_secs(1), retry: Duration::from_secs(10) }
    }
}

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Record(Record),
    History(Box<Query>, Reply<Answer>),
    Overview(Box<overview::Span>, Reply<Overview>),
    Audit(Box<AuditQuery>, Reply<Listing>),
    Rules(RulePosition, Reply<RulePage>),
    Stop,
}

/// Gives the folder of that name.
pub(super) type Disks = Box<dyn Fn(&str) -> Box<dyn Disk> + Send>;

pub(super) struct Worker {
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    disks: Disks,
    limits: Limits,
    pace: Pace,
    /// `None`: the folders cannot be listed yet.
    opened: Option<Opened>,
    /// While nothing is open.
    lost: Option<Gap>,
    stats: Stats,
    /// A disk that refuses is not tried before.
    next_try: Instant,
}

struct Opened {
    history: History,
    audit: Log,
    rules: RuleLog,
}

impl Worker {
    pub(super) fn new(
        commands: Receiver<Command>,
        shared: Arc<Shared>,
        disks: Disks,
        limits: Limits,
        pace: Pace,
    ) -> Self {
        let (stats, next_try) = (Stats::default(), Instant::now());
        Self { commands, shared, disks, limits, pace, opened: None, lost: None, stats, next_try }
    }

    pub(super) fn run(mut self) {
        self.tick();
        let mut due = Instant::now() + self.pace.flush;
        loop {
            match self.commands.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Command::Record(record)) => self.record(&record),
                Ok(Command::History(query, reply)) => {
                    self.answer(reply, |opened| opened.history.query(&query))
                }
                Ok(Command::Overview(span, reply)) => {
                    self.answer(reply, |opened| opened.history.survey(&span));
                }
                Ok(Command::Audit(query, reply)) => self.answer(reply, |opened| opened.listing(&query)),
                Ok(Command::Rules(from, reply)) => self.answer(reply, |opened| opened.rules.page(from)),
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= due {
                self.tick();
                due = Instant::now() + self.pace.flush;
            }
        }
        self.finish();
    }

    fn record(&mut self, record: &Record) {
        let taken = match &mut self.opened {
            Some(opened) => opened.record(record),
            None => Err(NotKept::Stuck),
        };
        match taken {
            Ok(()) => self.stats.recorded.add(record),
            Err(why) => self.not_kept(record, why),
        }
        if self.opened.as_mut().is_some_and(|opened| opened.rules.becomes_due()) {
            self.shared.ask_for_heads();
        }
    }

    fn not_kept(&mut self, record: &Record, why: NotKept) {
        self.stats.lost.add(record);
        match (why, record) {
            (NotKept::Disk(error), _) => self.refused(&error),
            (NotKept::TooLarge | NotKept::TooManyProperties | NotKept::Stuck, _) => {}
        }
        match record {
            Record::Sample { stored, .. } if self.opened.is_none() => {
                let one = Gap::one(*stored);
                self.lost = Some(self.lost.map_or(one, |lost| lost.merge(one)));
            }
            Record::RuleHeads(_) if self.opened.is_none() => self.shared.ask_for_heads(),
            Record::Sample { .. } | Record::Audit(_) | Record::Rule(_) | Record::RuleHeads(_) => {}
        }
    }

    fn refused(&mut self, error: &io::Error) {
        if !self.stats.is_degraded {
            tracing::warn!(%error, "the recorder's disk refuses: what it does not take is not kept");
        }
        self.stats.disk_errors += 1;
        self.stats.is_degraded = true;
        self.next_try = Instant::now() + self.pace.retry;
    }

    fn answer<T>(&mut self, reply: Reply<T>, work: impl FnOnce(&mut Opened) -> T) {
        let answer = self.opened.as_mut().map(work).ok_or(AskError::Closed);
        let _ = reply.send(answer); // nobody waits for it any more
    }

    /// Once a second.
    fn tick(&mut self) {
        if Instant::now() >= self.next_try {
            match self.try_disk() {
                Ok(true) if self.stats.is_degraded => {
                    tracing::info!("the recorder's disk takes what it gets again");
                    self.stats.is_degraded = false;
                }
                Ok(_) => {}
                Err(error) => self.refused(&error),
            }
        }
        if let Some(opened) = &mut self.opened {
            [self.lost.take(), self.shared.take_gap()]
                .into_iter()
                .flatten()
                .for_each(|gap| opened.history.lose(gap));
            self.stats.history = opened.history.stats();
        }
        self.shared.set_stats(self.stats);
    }

    /// Opens what is not open, and flushes; whether anything was written.
    fn try_disk(&mut self) -> io::Result<bool> {
        let opened = match &mut self.opened {
            Some(opened) => opened,
            none => none.insert(Opened::open(&self.disks, &self.limits)?),
        };
        opened.flush()
    }

    fn finish(mut self) {
        let Some(mut opened) = self.opened.take() else { return };
        self.shared.take_gap().into_iter().for_each(|gap| opened.history.lose(gap));
        let ends = [opened.history.finish(), opened.audit.finish(), opened.rules.log().finish()];
        if let Some(error) = ends.into_iter().find_map(Result::err) {
            tracing::warn!(%error, "the recorder's last records are lost");
        }
        self.stats.history = opened.history.stats();
        self.shared.set_stats(self.stats);
    }
}

impl Opened {
    fn open(disks: &Disks, limits: &Limits) -> io::Result<Self> {
        let Limits { history_bytes, audit_bytes, rule_bytes } = *limits;
        Ok(Self {
            history: History::open(disks("history"), history_bytes)?,
            audit: Log::open(disks("audit"), "jsonl", audit_bytes)?,
            rules: RuleLog::open(disks("rules"), rule_bytes)?,
        })
    }

    fn record(&mut self, record: &Record) -> Result<(), NotKept> {
        match record {
            Record::Sample { id, sample, stored } => self.history.append(id, sample, *stored),
            Record::Audit(entry) => {
                let line = serde_json::to_vec(entry).map_err(io::Error::from)?;
                self.audit.append_in_turn(&line)
            }
            Record::Rule(line) => self.rules.line(line),
            Record::RuleHeads(heads) => self.rules.heads(heads),
        }
    }

    fn listing(&mut self, query: &AuditQuery) -> Listing {
        let mut join = Join::new(query);
        self.audit.read(&mut |_, line| {
            // What a newer node wrote is not known here.
            if let Ok(entry) = serde_json::from_slice(line) {
                join.offer(entry);
            }
        });
        join.finish()
    }

    /// Each is tried, whatever becomes of the others.
    fn flush(&mut self) -> io::Result<bool> {
        let [history, audit, rules] = [self.history.flush(), self.audit.flush(), self.rules.log().flush()];
        Ok(history? | audit? | rules?)
    }
}
