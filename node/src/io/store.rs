//! The store thread: commits wait for the disk here, so that the owner loop does not.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use metadata::{Commit, Revision, Store, StoreError};
use tokio::sync::mpsc;

/// Commits on their way to the disk: twice what the journal lets be under way before the driver stops taking inputs,
/// so that handing one in never waits.
const QUEUE: usize = 2 * crate::journal::MAX_HELD;

/// Most commits made durable by one write to the disk: the ones that came while the last write was under way.
const GROUP: usize = 512;

/// Between two tries of a disk that refuses to write.
const RETRY: Duration = Duration::from_secs(1);

/// What the store thread tells the owner loop.
#[derive(Debug)]
pub enum StoreEvent {
    /// Everything up to here survives a crash.
    Durable(Revision),
    /// The disk refuses; the same commits are tried again every second.
    Degraded(StoreError),
}

/// Handle of the thread. Dropping it lets the thread finish what was handed in and end.
#[derive(Debug)]
pub struct StoreThread {
    commits: Option<SyncSender<Commit>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl StoreThread {
    /// `events` needs room for a few: the thread waits for the owner loop to read them.
    pub fn start(store: Box<dyn Store + Send>, events: mpsc::Sender<StoreEvent>) -> std::io::Result<Self> {
        let (commits, queue) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || run(store, &queue, &events))?;
        Ok(Self { commits: Some(commits), thread: Some(thread) })
    }

    /// Hands in a commit.
    pub fn submit(&self, commit: Commit) {
        if let Some(commits) = &self.commits {
            // Fails only when the thread is gone, and that ends the node anyway: its events channel closes.
            let _ = commits.send(commit);
        }
    }

    /// Step three of the shutdown: what was handed in is on the disk when this returns.
    pub fn finish(mut self) {
        self.commits = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(mut store: Box<dyn Store + Send>, queue: &Receiver<Commit>, events: &mpsc::Sender<StoreEvent>) {
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        group.extend(queue.try_iter().take(GROUP - 1));
        let Some(revision) = group.last().map(|c| c.revision) else { continue };
        while let Err(error) = store.commit(&group) {
            // Nobody listens any more: the node is stopping, and this disk will not take the commits.
            if events.blocking_send(StoreEvent::Degraded(error)).is_err() {
                return;
            }
            std::thread::sleep(RETRY);
        }
        // The owner loop is gone only in the shutdown, which waits for the disk and not for this word.
        let _ = events.blocking_send(StoreEvent::Durable(revision));
    }
}
