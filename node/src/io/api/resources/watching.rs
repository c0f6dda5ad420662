//! Watches: one task each, which sleeps until something of its kind is durable.

use std::time::Duration;

use bytes::Bytes;
use controller::api::Kind;
use controller::api::call::{Form, Listing, Watch};
use controller::api::read::{Found, Read};
use controller::api::watch::{Watcher, error, too_old};
use controller::role::Asker;
use hyper::Response;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::super::{AnswerBody, Desk};
use super::{PIECES, now, typed};

/// A watch asks the owner loop no more often: a hundred of them take some percent of it while everything moves.
const PACE: Duration = Duration::from_millis(100);

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
pub(super) fn begin(
    desk: &Desk,
    asker: &Asker,
    kind: Kind,
    of: Listing,
    form: Form,
    watch: Watch,
) -> Response<AnswerBody> {
    let (pieces, answer) = mpsc::channel(PIECES);
    let task = Task {
        desk: desk.clone(),
        asker: asker.clone(),
        kind,
        namespace: of.namespace.clone(),
        watcher: Watcher::new(kind, of, form),
        watch,
        pieces,
    };
    // Without an end the client sees the connection close, and watches anew from where it was.
    spawn("watch", async move { drop(task.run().await) });
    typed(Response::new(AnswerBody::Pieces(answer)))
}

/// The client is gone, or takes nothing, or the node stops.
struct Over;

struct Task {
    desk: Desk,
    asker: Asker,
    kind: Kind,
    namespace: Option<String>,
    watcher: Watcher,
    watch: Watch,
    pieces: mpsc::Sender<Bytes>,
}

impl Task {
    async fn run(mut self) -> Result<(), Over> {
        let end = Instant::now() + self.watch.timeout;
        let mut moved = self.desk.moved.clone();
        let mut bookmark = Instant::now() + BOOKMARKS;
        self.say_first().await?;
        loop {
            let newest = moved.borrow_and_update()[self.kind.index()];
            if newest > self.watcher.cursor().0 {
                self.say_changes().await?;
                tokio::select! {
                    () = sleep(PACE) => {}
                    () = self.pieces.closed() => return Err(Over),
                }
            }
            tokio::select! {
                // Its sender ends with the owner loop.
                changed = moved.changed() => changed.map_err(|_| Over)?,
                () = sleep_until(bookmark), if self.watch.bookmarks => {
                    bookmark = Instant::now() + BOOKMARKS;
                    self.say_changes().await?;
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
            let mut after = None;
            loop {
                let read = Read::Page {
                    kind: self.kind,
                    namespace: self.namespace.clone(),
                    after: after.take(),
                    limit: controller::api::read::PAGE,
                };
                let page = self.desk.page(read).await.map_err(|_| Over)?;
                let more = page.more;
                after = page.items.last().map(|item| item.id.clone());
                if tells {
                    let mut events = self.watcher.handle_first(page, now());
                    self.say(&mut events).await?;
                } else {
                    self.watcher.handle_known(page);
                }
                if !more {
                    break;
                }
            }
        }
        if self.watch.initial {
            self.say_bookmark(true).await?;
        }
        // Also one that nothing moved since: it may be too old.
        self.say_changes().await
    }

    async fn say_changes(&mut self) -> Result<(), Over> {
        loop {
            let found = self.desk.find(self.watcher.wants()).await.map_err(|_| Over)?;
            let changes = match found {
                Found::Changes(changes) => changes,
                Found::Expired { compacted } => {
                    let refusal = too_old(self.watcher.cursor(), compacted);
                    self.say(&mut [error(&refusal)]).await?;
                    return Err(Over);
                }
                Found::Item(_) | Found::Page(_) => return Err(Over),
            };
            let more = changes.more;
            let mut events = self.watcher.handle_changes(changes, now());
            self.say(&mut events).await?;
            if !more {
                return Ok(());
            }
        }
    }

    async fn say_bookmark(&mut self, ends_initial: bool) -> Result<(), Over> {
        let bookmark = self.watcher.bookmark(ends_initial);
        self.say(&mut [bookmark]).await
    }

    async fn say(&self, events: &mut [Value]) -> Result<(), Over> {
        if events.is_empty() {
            return Ok(());
        }
        events.iter_mut().for_each(|event| crate::veil::over(self.asker.role, event));
        let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
        match timeout(PATIENCE, self.pieces.send(lines.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Over),
        }
    }
}
