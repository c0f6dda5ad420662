//! Watches: one task each, which sleeps until the feed of its kind has something new.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use controller::api::Kind;
use controller::api::call::{Listing, Watch};
use controller::api::feed::{Next, Segment};
use controller::api::look::Look;
use controller::api::read::Found;
use controller::api::watch::{Watcher, error, too_old};
use hyper::Response;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::{AnswerBody, Desk};
use super::feeds::Channel;
use super::{PIECES, aside, typed};

/// Between two bookmarks, as in Kubernetes.
const BOOKMARKS: Duration = Duration::from_secs(60);

/// A client that takes nothing for so long is gone, though its connection may not know it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A task of one answer.
#[expect(
    clippy::disallowed_methods,
    reason = "the tasks of changes and of long answers: each ends with its client, its time, or the node"
)]
pub(in super::super) fn spawn(name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(tracing::Instrument::instrument(task, tracing::info_span!("task", name))));
}

/// The answer to a watch: it goes on until its time is over or the client is gone.
pub(super) fn begin(desk: &Desk, kind: Kind, of: Listing, look: Look, watch: Watch) -> Response<AnswerBody> {
    let (pieces, answer) = mpsc::channel(PIECES);
    let (desk, watcher) = (desk.clone(), Watcher::new(kind, of, look));
    let task = Task { desk, kind, watcher, watch, pieces, patience: PATIENCE };
    // Without an end the client sees the connection close, and watches anew from where it was.
    spawn("watch", async move { drop(task.run().await) });
    typed(Response::new(AnswerBody::Pieces(answer)))
}

/// The client is gone, or takes nothing, or the node stops.
#[derive(Debug)]
struct Over;

struct Task {
    desk: Desk,
    kind: Kind,
    watcher: Watcher,
    watch: Watch,
    pieces: mpsc::Sender<Bytes>,
    patience: Duration,
}

impl Task {
    async fn run(mut self) -> Result<(), Over> {
        let end = Instant::now() + self.watch.timeout;
        let mut bookmark = Instant::now() + BOOKMARKS;
        self.say_first().await?;
        let feed = self.desk.feed(self.kind, self.watcher.cursor());
        let mut told = feed.told();
        loop {
            told.borrow_and_update();
            self.say_news(&feed).await?;
            tokio::select! {
                // The feed ends with the owner loop.
                changed = told.changed() => changed.map_err(|_| Over)?,
                () = sleep_until(bookmark), if self.watch.bookmarks => {
                    bookmark = Instant::now() + BOOKMARKS;
                    self.catch_up().await?;
                    self.say_bookmark(false).await?;
                }
                () = sleep_until(end) => {
                    if self.watch.bookmarks {
                        self.say_bookmark(false).await?;
                    }
                    return Ok(());
                }
                () = self.pieces.closed() => return Err(Over),
            }
        }
    }

    /// What is there, for who wants to hear that first; and for who selects by more than names, what he knows.
    async fn say_first(&mut self) -> Result<(), Over> {
        let tells = self.watcher.begins_with_all() || self.watch.initial;
        if tells || self.watcher.needs_known() {
            let (mut after, mut first) = (None, None);
            loop {
                let page = self.desk.page(self.watcher.wants_page(after.take())).await.map_err(|_| Over)?;
                after = page.next.clone();
                first.get_or_insert(page.revision);
                let page = Arc::new(Segment::of_page(self.kind, page));
                if tells {
                    let at = aside::prepare(&self.watcher, &page).await.map_err(|_| Over)?;
                    let lines = self.watcher.handle_first(&page, at);
                    self.say(lines).await?;
                } else {
                    self.watcher.handle_known(&page);
                }
                if after.is_none() {
                    break;
                }
            }
            if let (true, Some(first)) = (tells, first) {
                self.watcher.handle_first_end(first);
            }
        }
        if self.watch.initial {
            self.say_bookmark(true).await?;
        }
        // Also one that nothing moved since: it may be too old.
        self.catch_up().await
    }

    /// What the feed has, as far as the client does not know it.
    async fn say_news(&mut self, feed: &Channel) -> Result<(), Over> {
        loop {
            let segment = match feed.next(self.watcher.cursor()) {
                Next::Nothing => return Ok(()),
                Next::Segment(segment) => segment,
                Next::Behind => self.ask().await?,
            };
            self.say_segment(&segment).await?;
        }
    }

    /// What is new, asked for by this client alone: the feed may be behind it, or ahead.
    async fn catch_up(&mut self) -> Result<(), Over> {
        loop {
            let segment = self.ask().await?;
            self.say_segment(&segment).await?;
            if !segment.more {
                return Ok(());
            }
        }
    }

    async fn ask(&mut self) -> Result<Arc<Segment>, Over> {
        let after = self.watcher.cursor();
        match self.desk.find(self.watcher.wants()).await.map_err(|_| Over)? {
            Found::Changes(changes) => Ok(Arc::new(Segment::of_changes(self.kind, after, changes))),
            Found::Expired { compacted } => {
                self.say(error(&too_old(after, compacted))).await?;
                Err(Over)
            }
            Found::Item(_) | Found::Page(_) => Err(Over),
        }
    }

    async fn say_segment(&mut self, segment: &Arc<Segment>) -> Result<(), Over> {
        let at = aside::prepare(&self.watcher, segment).await.map_err(|_| Over)?;
        let lines = self.watcher.handle_changes(segment, at);
        self.say(lines).await
    }

    async fn say_bookmark(&mut self, ends_initial: bool) -> Result<(), Over> {
        let bookmark = self.watcher.bookmark(ends_initial);
        self.say(bookmark).await
    }

    async fn say(&self, lines: Vec<u8>) -> Result<(), Over> {
        if lines.is_empty() {
            return Ok(());
        }
        match timeout(self.patience, self.pieces.send(lines.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Over),
        }
    }
}

#[cfg(test)]
mod tests;
