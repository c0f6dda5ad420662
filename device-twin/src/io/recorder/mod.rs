//! Keeps an edge's history, its audit and the log of its rules, in one thread with files of its own.
//!
//! ```text
//!  owner loop --record()--> queue (4,096) --> recorder thread --each second, or 64 KiB--> history/  0000000n.seg
//!     |                                          ^      |                                 audit/    0000000n.jsonl
//!     +--history(), audit(), rule_lines()--------+      +--------> answers                rules/    0000000n.log
//! ```
//!
//! The owner loop never waits: what finds the queue full is not kept and counted. Samples that were not kept leave a gap
//! in the history that says how many and when. A disk that is full or read-only costs the same and nothing else; it is
//! tried again every ten seconds.
//!
//! Nothing here is synced but a new segment of the history. A power cut costs what the system had not written yet: some
//! seconds, half a minute at most where it is left to its defaults. What was decided and reported last is in the node's
//! store all the same. A sample costs the flash about its own bytes, as it is written once, and once more in each round
//! of the ring if it is among the last of its property.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use bus::{Sample, UnixMillis};
use bytes::Bytes;
use thiserror::Error;
use tokio::sync::oneshot;

mod disk;
mod history;
mod log;
#[cfg(test)]
mod memory_disk;
mod rules;
mod segment;
mod shared;
#[cfg(test)]
mod tests;
mod worker;

use self::disk::{Disk, Folder};
use self::shared::Shared;
use self::worker::{Command, Pace, Worker};
use crate::history::audit::AuditEntry;
use crate::history::listing::{AuditQuery, Listing};
use crate::history::{Answer, Overview, Query, overview};
use crate::twin::PropertyId;

pub use self::history::HistoryStats;
pub use self::rules::{RulePage, RulePosition};
pub use self::shared::{Counts, Stats};

/// Records on their way to the thread: four seconds of a thousand a second, while it reads for a query or waits for a
/// slow card; half a MB. When full, records are dropped and counted.
const QUEUE: usize = 4_096;

/// Most bytes on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub history_bytes: u64,
    pub audit_bytes: u64,
    pub rule_bytes: u64,
}

impl Default for Limits {
    /// A day of 20,000 properties that change every ten minutes, and months of decisions, on the smallest card there is.
    fn default() -> Self {
        Self { history_bytes: 32 << 20, audit_bytes: 8 << 20, rule_bytes: 8 << 20 }
    }
}

/// What is kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// `stored`: the edge's clock now; the sample has its own time.
    Sample {
        id: PropertyId,
        sample: Sample,
        stored: UnixMillis,
    },
    Audit(Box<AuditEntry>),
    /// One line of the rules' log, without its end.
    Rule(Bytes),
    /// What a reader of the rules' log can begin with, said when [`Handle::rule_heads_due`].
    RuleHeads(Vec<Bytes>),
}

/// Why a question has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AskError {
    #[error("the recorder is busy: ask again")]
    Busy,
    #[error("the recorder's folder cannot be read")]
    Closed,
    #[error("the recorder has ended")]
    Ended,
}

/// The running recorder. Dropped, it writes what was handed in and ends.
#[derive(Debug)]
pub struct Recorder {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Hands in records and questions.
#[derive(Clone)]
pub struct Handle {
    queue: SyncSender<Command>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Starts the thread; it opens the files below `dir`, now or when that can be done. Fails if there is no thread.
    pub fn start(dir: &Path, limits: Limits) -> io::Result<Self> {
        let dir = dir.to_owned();
        Self::start_on(move |folder| Box::new(Folder(dir.join(folder))), limits, Pace::default())
    }

    fn start_on(
        disks: impl Fn(&str) -> Box<dyn Disk> + Send + 'static,
        limits: Limits,
        pace: Pace,
    ) -> io::Result<Self> {
        let (queue, commands) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let worker = Worker::new(commands, shared.clone(), Box::new(disks), limits, pace);
        let thread = std::thread::Builder::new().name("recorder".to_owned()).spawn(move || worker.run())?;
        Ok(Self { handle: Handle { queue, shared }, thread: Some(thread) })
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What was handed in is on the disk when this returns, unless the disk refuses.
    pub fn finish(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // Waits for room in the queue, if it must; fails only if the thread is gone.
        let _ = self.handle.queue.send(Command::Stop);
        if thread.join().is_err() {
            tracing::error!("the recorder panicked");
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Handle {
    /// Hands in a record, and never waits.
    pub fn record(&self, record: Record) {
        if !self.shared.is_welcome(&record) {
            return;
        }
        match self.queue.try_send(Command::Record(record)) {
            Ok(()) => {}
            Err(
                TrySendError::Full(Command::Record(record))
                | TrySendError::Disconnected(Command::Record(record)),
            ) => {
                self.shared.dropped(&record);
            }
            Err(_) => {}
        }
    }

    /// The rules' log needs [`Record::RuleHeads`]: a new file is due, or lines were lost. Asked before each line.
    pub fn rule_heads_due(&self) -> bool {
        self.shared.rule_heads_due()
    }

    /// A page of samples.
    pub async fn history(&self, query: Query) -> Result<Answer, AskError> {
        self.ask(|reply| Command::History(Box::new(query), reply)).await
    }

    /// The samples of a property at a glance.
    pub async fn overview(&self, span: overview::Span) -> Result<Overview, AskError> {
        self.ask(|reply| Command::Overview(Box::new(span), reply)).await
    }

    /// Decisions with their outcomes.
    pub async fn audit(&self, query: AuditQuery) -> Result<Listing, AskError> {
        self.ask(|reply| Command::Audit(Box::new(query), reply)).await
    }

    /// A page of the rules' log, from a position on; the log's beginning is `RulePosition::default()`.
    pub async fn rule_lines(&self, from: RulePosition) -> Result<RulePage, AskError> {
        self.ask(|reply| Command::Rules(from, reply)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, AskError> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(command(reply)).map_err(|error| match error {
            TrySendError::Full(_) => AskError::Busy,
            TrySendError::Disconnected(_) => AskError::Ended,
        })?;
        answer.await.unwrap_or(Err(AskError::Ended))
    }

    /// Some of it is as of the last second.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }
}

/// Where an answer goes.
type Reply<T> = oneshot::Sender<Result<T, AskError>>;
