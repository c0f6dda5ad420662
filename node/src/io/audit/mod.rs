//! The audit log on the disk: `<data-dir>/audit/[devices-]<number>.jsonl`, appended to by one thread. It is read beside
//! that thread, by one reader at a time: whoever asks for all of it delays others who read, and no mutation.
//!
//! A line is on the disk (`fdatasync`) before whoever asked hears that it was done; what comes at once is written at once.
//! A disk that takes no line stops no mutation: whether a valve closes must not hang on whether that can be noted down. The
//! answer then carries a warning, the gap is counted, and its size is the first line once the disk is back. A cloud whose
//! store is on the same disk takes no mutation then anyway.

mod files;
pub(super) mod show;
mod watch;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bus::io::Clock;
use bus::{Mono, NodeId};
use thiserror::Error;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tracing::warn;

use self::files::Files;
pub(super) use self::watch::begin;
use crate::audit::{Count, Entry, Line, Query, Refusals, Ring, merged};

/// Lines on their way to the disk. When full, a line is lost and counted: the disk is stuck.
const QUEUE: usize = 256;

/// Lines that are written at once.
const BATCH: usize = 64;

/// How long an answer waits for its line.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long whoever wants to read waits for others who do.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// How often what has no line of its own is summed up in one, if there is any.
const COUNT_EVERY: Duration = Duration::from_secs(10 * 60);

/// Why a line is not on the disk, or not known to be.
#[derive(Debug, Error)]
pub(super) enum NotWritten {
    #[error("the audit log does not keep up: the disk is slow or stuck")]
    Slow,
    #[error("the audit log cannot be written: {0}")]
    Disk(String),
    #[error("the audit log is being read by others; try again")]
    Busy,
    #[error("the node is stopping")]
    Stopping,
}

type Done = oneshot::Sender<Result<(), NotWritten>>;

struct Job {
    entry: Box<Entry>,
    done: Done,
}

/// In the order of [`Ring::ALL`].
type Rings = [Files; 2];

/// What has no line of its own, since the last line about it.
#[derive(Debug, Default)]
struct Counters {
    strangers: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
    last_from: Mutex<String>,
}

/// The way to the log.
#[derive(Debug, Clone)]
pub struct Handle {
    jobs: SyncSender<Job>,
    counters: Arc<Counters>,
    refusals: Arc<Mutex<Refusals>>,
    clock: Clock,
    rings: Arc<Rings>,
    /// For whoever reads: it parses megabytes.
    reading: Arc<Semaphore>,
}

/// Starts the thread, which ends with the last handle.
pub(super) fn start(dir: &Path, clock: Clock) -> std::io::Result<Handle> {
    let (jobs, waiting) = sync_channel(QUEUE);
    let counters = Arc::new(Counters::default());
    let rings = Arc::new(Ring::ALL.map(|ring| Files::new(dir, ring)));
    let writer = Writer {
        rings: Arc::clone(&rings),
        counters: Arc::clone(&counters),
        clock,
        counted: clock.now().mono,
        stops: false,
    };
    std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&waiting))?;
    Ok(Handle {
        jobs,
        counters,
        refusals: Arc::default(),
        clock,
        rings,
        reading: Arc::new(Semaphore::new(1)),
    })
}

impl Handle {
    async fn write(&self, entry: Entry) -> Result<(), NotWritten> {
        let (done, written) = oneshot::channel();
        if self.jobs.try_send(Job { entry: Box::new(entry), done }).is_err() {
            self.counters.lost.fetch_add(1, Ordering::Relaxed);
            return Err(NotWritten::Slow);
        }
        match timeout(PATIENCE, written).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(NotWritten::Stopping),
            Err(_) => Err(NotWritten::Slow),
        }
    }

    /// The newest lines that are wanted, oldest first. Nothing is read for one who hung up while he waited.
    pub(super) async fn read(&self, query: Query) -> Result<Vec<Line>, NotWritten> {
        let turn = Arc::clone(&self.reading).acquire_owned();
        let turn = timeout(READ_PATIENCE, turn).await.ok().and_then(Result::ok).ok_or(NotWritten::Busy)?;
        let rings = Arc::clone(&self.rings);
        let (waits, _waited_for) = oneshot::channel::<()>();
        let read = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let lines = rings.iter().map(|ring| ring.read(&query, || waits.is_closed()));
            lines.collect::<std::io::Result<Vec<_>>>().map(|lines| merged(lines, query.limit))
        });
        let lines = read.await.map_err(|_| NotWritten::Stopping)?;
        lines.map_err(|error| NotWritten::Disk(error.to_string()))
    }

    /// Somebody who is not known was turned away.
    pub(super) fn count_stranger(&self, from: &dyn std::fmt::Display) {
        self.counters.strangers.fetch_add(1, Ordering::Relaxed);
        *self.counters.last_from.lock().unwrap_or_else(PoisonError::into_inner) = from.to_string();
    }

    /// Whether a refusal has a line of its own; it is counted if not.
    fn has_line(&self, who: &NodeId) -> bool {
        let now = self.clock.now().mono;
        let has = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).take(who, now);
        if !has {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        has
    }
}

/// The thread.
struct Writer {
    rings: Arc<Rings>,
    counters: Arc<Counters>,
    clock: Clock,
    /// When a count was written last.
    counted: Mono,
    /// What was counted is not to be forgotten.
    stops: bool,
}

impl Writer {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            match jobs.recv_timeout(COUNT_EVERY) {
                Ok(first) => self.write_all(first, jobs),
                Err(RecvTimeoutError::Timeout) => drop(self.append(Ring::Cluster, Vec::new())),
                Err(RecvTimeoutError::Disconnected) => {
                    self.stops = true;
                    return drop(self.append(Ring::Cluster, Vec::new()));
                }
            }
        }
    }

    /// Takes what else is there already: one sync carries it all.
    fn write_all(&mut self, first: Job, jobs: &Receiver<Job>) {
        let all: Vec<Job> = std::iter::once(first).chain(jobs.try_iter().take(BATCH - 1)).collect();
        let (mut lines, mut waiting) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for Job { entry, done } in all {
            let line = Line::Entry(*entry);
            let ring = Ring::of(&line) as usize;
            lines[ring].push(line);
            waiting[ring].push(done);
        }
        for ((ring, lines), waiting) in Ring::ALL.into_iter().zip(lines).zip(waiting) {
            if !lines.is_empty() {
                self.write_ring(ring, lines, waiting);
            }
        }
    }

    fn write_ring(&mut self, ring: Ring, lines: Vec<Line>, waiting: Vec<Done>) {
        let lost = waiting.len() as u64;
        let written = self.append(ring, lines).map_err(|error| error.to_string());
        if let Err(error) = &written {
            warn!(error, "the audit log cannot be written");
            self.counters.lost.fetch_add(lost, Ordering::Relaxed);
        }
        for done in waiting {
            // Who asked may have hung up.
            let _ = done.send(written.clone().map_err(NotWritten::Disk));
        }
    }

    /// With a count before them, if one is due: at once where lines were lost. It is in the ring that is written to.
    fn append(&mut self, ring: Ring, mut lines: Vec<Line>) -> std::io::Result<()> {
        let now = self.clock.now();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { strangers, refused, lost, last_from } = &*self.counters;
        let last_from = last_from.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let count = Count {
            time: now.wall,
            strangers: load(strangers),
            last_from,
            refused: load(refused),
            lost: load(lost),
        };
        let is_due = self.stops || count.lost > 0 || now.mono.since(self.counted) >= COUNT_EVERY;
        let counts = is_due && !count.is_empty();
        if counts {
            lines.insert(0, Line::Count(count.clone()));
        }
        if lines.is_empty() {
            return Ok(());
        }
        self.rings[ring as usize].append(&lines)?;
        if counts {
            strangers.fetch_sub(count.strangers, Ordering::Relaxed);
            refused.fetch_sub(count.refused, Ordering::Relaxed);
            lost.fetch_sub(count.lost, Ordering::Relaxed);
            self.counted = now.mono;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bus::UnixMillis;
    use bytes::Bytes;
    use controller::role::{Asker, Request, Role};
    use http_body_util::Full;
    use hyper::Response;
    use hyper::header::WARNING;

    use super::*;
    use crate::io::api::AnswerBody;

    /// A mutation that was done, and what its answer warns of.
    async fn done(log: &Handle, path: &str) -> (u16, String) {
        let asker = Asker { who: "user/alice".parse().unwrap(), role: Role::Admin };
        let audited =
            begin(&asker, None, Request { method: "POST", path, query: "" }, UnixMillis(1)).unwrap();
        let answer = Response::new(AnswerBody::Whole(Full::new(Bytes::from_static(b"{}"))));
        let answer = audited.end(log, answer).await;
        let warning = answer.headers().get(WARNING).map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), warning.unwrap_or_default())
    }

    #[tokio::test]
    async fn a_full_disk_stops_no_mutation_is_warned_of_and_leaves_its_count() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("audit");
        std::fs::create_dir(&dir).unwrap();
        let first = dir.join("00000001.jsonl");
        // The kernel's own full disk: each write to it meets ENOSPC.
        std::os::unix::fs::symlink("/dev/full", &first).unwrap();
        let log = start(&dir, Clock::start()).unwrap();
        for path in ["/kubebus/v1/tokens", "/kubebus/v1/labels/a"] {
            let (status, warning) = done(&log, path).await;
            assert_eq!(status, 200);
            assert!(warning.contains("cannot be written: No space left on device"), "{warning}");
        }
        std::fs::remove_file(&first).unwrap();
        assert_eq!(done(&log, "/kubebus/v1/routes").await, (200, String::new()));
        let lines = log.read(Query { limit: 10, ..Query::default() }).await.unwrap();
        // Merged by their times, of which this test gives one.
        let [Line::Entry(entry), Line::Count(count)] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((count.lost, entry.what.as_str()), (2, "POST /kubebus/v1/routes"));
    }
}
