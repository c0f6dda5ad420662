//! The store thread: commits wait for the disk here, so that the owner loop does not. What is not urgent waits for
//! company first ([`Durability`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use metadata::{Commit, Durability, Revision, Row, Store, StoreError};
use tokio::sync::mpsc;

/// Commits on their way to the disk: twice what the journal lets be under way before the driver stops taking inputs,
/// so that handing one in never waits.
const QUEUE: usize = 2 * crate::journal::MAX_HELD;

/// Most commits made durable by one transaction: the ones that came while the last one was under way. With so many none
/// waits for more company.
const GROUP: usize = 512;

/// Between two transactions that hold nothing more urgent than [`Durability::Soon`]: at 50 a second a flash card lasts,
/// and no mapper feels it. One that comes alone goes at once.
const SOON: Duration = Duration::from_millis(20);

/// For [`Durability::Lazy`].
const LAZY: Duration = Duration::from_secs(5);

/// Between two tries of a disk that refuses to write.
const RETRY: Duration = Duration::from_secs(1);

/// The store is asked this often whether it may still write, however much it does.
const CHECK: Duration = Duration::from_secs(1);

/// What the store thread tells the owner loop.
#[derive(Debug)]
pub enum StoreEvent {
    /// Everything up to here survives a crash.
    Durable(Revision),
    /// The disk refuses; the same commits are tried again every second.
    Degraded(StoreError),
    /// Another cloud took over: nothing is written any more, and the thread ends.
    Fenced(StoreError),
}

/// Handle of the thread. Dropping it lets the thread finish what was handed in and end.
#[derive(Debug)]
pub struct StoreThread {
    commits: Option<SyncSender<Commit>>,
    thread: Option<std::thread::JoinHandle<()>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    commits: AtomicU64,
    transactions: AtomicU64,
}

/// What was made durable since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// As the node sealed them.
    pub commits: u64,
    /// As the disk took them.
    pub transactions: u64,
}

impl StoreThread {
    /// `events` needs room for a few: the thread waits for the owner loop to read them.
    pub fn start(store: Box<dyn Store + Send>, events: mpsc::Sender<StoreEvent>) -> std::io::Result<Self> {
        let (commits, queue) = sync_channel(QUEUE);
        let counts = Arc::new(Counts::default());
        let store = Box::new(Counted { store, counts: Arc::clone(&counts) });
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || run(store, &queue, &events))?;
        Ok(Self { commits: Some(commits), thread: Some(thread), counts })
    }

    /// Hands in a commit.
    pub fn submit(&self, commit: Commit) {
        if let Some(commits) = &self.commits {
            // Fails only when the thread is gone, and that ends the node anyway: its events channel closes.
            let _ = commits.send(commit);
        }
    }

    pub fn stats(&self) -> Stats {
        let Counts { commits, transactions } = &*self.counts;
        Stats { commits: commits.load(Ordering::Relaxed), transactions: transactions.load(Ordering::Relaxed) }
    }

    /// Step three of the shutdown: what was handed in is on the disk when this returns.
    pub fn finish(mut self) {
        self.commits = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A store that counts what it takes.
struct Counted {
    store: Box<dyn Store + Send>,
    counts: Arc<Counts>,
}

impl Store for Counted {
    fn load(&mut self) -> Result<Vec<Row>, StoreError> {
        self.store.load()
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<(), StoreError> {
        self.store.commit(commits)?;
        self.counts.commits.fetch_add(commits.len() as u64, Ordering::Relaxed);
        self.counts.transactions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn check(&mut self) -> Result<(), StoreError> {
        self.store.check()
    }
}

/// How long commits wait for company.
struct Pace {
    /// When the last group went.
    last: Instant,
}

impl Pace {
    fn start() -> Self {
        Self { last: Instant::now() }
    }

    /// When a commit that comes now has to go.
    fn due(&self, durability: Durability, now: Instant) -> Instant {
        match durability {
            Durability::Now => now,
            Durability::Soon => self.last + SOON,
            Durability::Lazy => now + LAZY,
        }
    }

    /// `first` and whatever comes until the first of them is due, or until the node stops.
    fn gather(&mut self, first: Commit, queue: &Receiver<Commit>) -> Vec<Commit> {
        let mut due = self.due(first.durability(), Instant::now());
        let mut group = vec![first];
        while group.len() < GROUP {
            let patience = due.saturating_duration_since(Instant::now());
            let Ok(next) = queue.recv_timeout(patience) else { break };
            due = due.min(self.due(next.durability(), Instant::now()));
            group.push(next);
        }
        self.last = Instant::now();
        group
    }
}

fn run(mut store: Box<dyn Store + Send>, queue: &Receiver<Commit>, events: &mpsc::Sender<StoreEvent>) {
    let (mut pace, mut checked) = (Pace::start(), Instant::now());
    loop {
        let mut done = match queue.recv_timeout(CHECK.saturating_sub(checked.elapsed())) {
            Ok(first) => write(&mut *store, &pace.gather(first, queue), events),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if checked.elapsed() >= CHECK {
            done = done.and_then(|()| check(&mut *store, events));
            checked = Instant::now();
        }
        if done.is_err() {
            return;
        }
    }
}

/// Nothing is to be written any more.
struct Over;

fn write(store: &mut dyn Store, group: &[Commit], events: &mpsc::Sender<StoreEvent>) -> Result<(), Over> {
    let Some(revision) = group.last().map(|c| c.revision) else { return Ok(()) };
    while let Err(error) = store.commit(group) {
        let is_fenced = matches!(error, StoreError::Fenced { .. });
        let event = if is_fenced { StoreEvent::Fenced(error) } else { StoreEvent::Degraded(error) };
        // Or nobody listens any more: the node is stopping, and this disk will not take the commits.
        if events.blocking_send(event).is_err() || is_fenced {
            return Err(Over);
        }
        std::thread::sleep(RETRY);
    }
    // The owner loop is gone only in the shutdown, which waits for the disk and not for this word.
    let _ = events.blocking_send(StoreEvent::Durable(revision));
    Ok(())
}

/// Other troubles than a lost turn show at the next commit.
fn check(store: &mut dyn Store, events: &mpsc::Sender<StoreEvent>) -> Result<(), Over> {
    match store.check() {
        Err(error @ StoreError::Fenced { .. }) => {
            let _ = events.blocking_send(StoreEvent::Fenced(error));
            Err(Over)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadata::{Key, Keyspace, MemoryStore};

    /// Hands in one commit for each name and waits until all are durable; how many transactions that took, and how long.
    fn play(names: &[String]) -> (u64, Duration) {
        let (tell, mut told) = mpsc::channel(64);
        let thread = StoreThread::start(Box::new(MemoryStore::default()), tell).unwrap();
        let (mut keyspace, start) = (Keyspace::new(), Instant::now());
        for name in names {
            keyspace.put(Key::new(name).unwrap(), "1".into());
            thread.submit(keyspace.seal().unwrap());
        }
        loop {
            match told.blocking_recv() {
                Some(StoreEvent::Durable(revision)) if revision == keyspace.revision() => break,
                Some(StoreEvent::Durable(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        let stats = thread.stats();
        assert_eq!(stats.commits, names.len() as u64);
        (stats.transactions, start.elapsed())
    }

    fn rows(prefix: &str, count: usize) -> Vec<String> {
        (0..count).map(|number| format!("{prefix}{number}")).collect()
    }

    #[test]
    fn what_is_not_urgent_waits_for_company_and_goes_with_what_is() {
        let all: Vec<String> =
            [rows("/o/telemetry/", 100), rows("/o/state/", 100), rows("/t/rule/", 1)].concat();
        let (transactions, took) = play(&all);
        assert!(transactions <= 3, "{transactions}");
        assert!(took < LAZY, "{took:?}");
    }

    #[test]
    fn samples_alone_wait_until_there_are_enough_of_them() {
        let (transactions, took) = play(&rows("/o/telemetry/", GROUP));
        assert_eq!(transactions, 1);
        assert!(took < LAZY, "{took:?}");
    }

    #[test]
    fn what_was_handed_in_is_durable_when_the_thread_has_ended_without_waiting_for_company() {
        let (tell, mut told) = mpsc::channel(64);
        let thread = StoreThread::start(Box::new(MemoryStore::default()), tell).unwrap();
        let (mut keyspace, start) = (Keyspace::new(), Instant::now());
        keyspace.put(Key::new("/o/telemetry/1").unwrap(), "1".into());
        thread.submit(keyspace.seal().unwrap());
        thread.finish();
        assert!(matches!(told.try_recv(), Ok(StoreEvent::Durable(Revision(1)))));
        assert!(start.elapsed() < LAZY);
    }

    /// Takes everything, and says at the first question that another cloud leads.
    #[derive(Debug)]
    struct Fenced;

    impl Store for Fenced {
        fn load(&mut self) -> Result<Vec<Row>, StoreError> {
            Ok(Vec::new())
        }

        fn commit(&mut self, _: &[Commit]) -> Result<(), StoreError> {
            Ok(())
        }

        fn check(&mut self) -> Result<(), StoreError> {
            Err(StoreError::Fenced { place: "a test".into(), by: "another".into() })
        }
    }

    #[test]
    fn a_stream_of_commits_does_not_keep_the_thread_from_asking_whether_it_still_may() {
        let (tell, mut told) = mpsc::channel(64);
        let thread = StoreThread::start(Box::new(Fenced), tell).unwrap();
        let (mut keyspace, start) = (Keyspace::new(), Instant::now());
        let last = loop {
            let next = keyspace.revision().0.to_string();
            keyspace.put(Key::new("/t/rule/a").unwrap(), next.into());
            thread.submit(keyspace.seal().unwrap());
            match told.blocking_recv() {
                Some(StoreEvent::Durable(_)) if start.elapsed() < 20 * CHECK => {}
                other => break other,
            }
        };
        assert!(matches!(last, Some(StoreEvent::Fenced(_))), "{last:?}");
    }
}
