//! What watches share: one feed a kind, which one task follows as long as somebody watches.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use controller::api::feed::{Feed, Next};
use controller::api::read::Found;
use controller::api::{Kind, Layout};
use metadata::Revision;
use tokio::sync::watch;
use tokio::time::sleep;

use super::super::Desk;
use super::watching::spawn;

/// The owner loop is asked no more often what is new of a kind, however many watch it.
const PACE: Duration = Duration::from_millis(100);

/// Between two segments of what is more than one: 10,000 objects a second, which a hundred clients can take.
const BULK_PACE: Duration = Duration::from_millis(25);

/// What the requests of one node have in common.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Once the node said it: a replica that waits has none yet.
    layout: OnceLock<Layout>,
    feeds: Mutex<[Weak<Channel>; Kind::ALL.len()]>,
}

impl Shared {
    pub(super) fn layout(&self) -> &OnceLock<Layout> {
        &self.0.layout
    }
}

/// A feed, and how far it is.
#[derive(Debug)]
pub(super) struct Channel {
    feed: Arc<Mutex<Feed>>,
    /// Its sender is the feed's task, which ends when nobody has this any more.
    told: watch::Receiver<Revision>,
}

impl Channel {
    pub(super) fn next(&self, cursor: Revision) -> Next {
        lock(&self.feed).next(cursor)
    }

    /// Changes when there is something new.
    pub(super) fn told(&self) -> watch::Receiver<Revision> {
        self.told.clone()
    }

    fn is_followed(&self) -> bool {
        self.told.has_changed().is_ok()
    }
}

/// No holder panics between two changes that belong together.
fn lock<T: ?Sized>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// The feed of a kind. It begins where its first watch is, which is no older than what this node said since it
    /// started: before its first commit it has said nothing, and all there is would be new.
    pub(super) fn feed(&self, kind: Kind, first: Revision) -> Arc<Channel> {
        let mut feeds = lock(&self.shared.0.feeds);
        if let Some(channel) = feeds[kind.index()].upgrade().filter(|channel| channel.is_followed()) {
            return channel;
        }
        let from = Revision(self.moved.borrow()[kind.index()]).max(first);
        // Who does not know it yet keeps little.
        let layout = self.shared.layout().get().copied().unwrap_or(Layout::Edge);
        let feed = Arc::new(Mutex::new(Feed::new(layout, kind, from)));
        let (tell, told) = watch::channel(from);
        spawn("feed", follow(self.clone(), kind, Arc::clone(&feed), tell));
        let channel = Arc::new(Channel { feed, told });
        feeds[kind.index()] = Arc::downgrade(&channel);
        channel
    }
}

/// Ends with the last watch, or with the owner loop; if it ends first, its watches do too, and their clients begin anew.
async fn follow(desk: Desk, kind: Kind, feed: Arc<Mutex<Feed>>, tell: watch::Sender<Revision>) {
    let mut moved = desk.moved.clone();
    loop {
        let newest = Revision(moved.borrow_and_update()[kind.index()]);
        let (wants, cursor) = {
            let feed = lock(&feed);
            (feed.wants(), feed.cursor())
        };
        if newest > cursor {
            let more = match desk.find(wants).await {
                Ok(Found::Changes(changes)) => lock(&feed).handle_changes(changes),
                Ok(Found::Expired { .. }) => {
                    lock(&feed).handle_expired(newest);
                    false
                }
                Ok(Found::Item(_) | Found::Page(_)) | Err(_) => return,
            };
            tell.send_replace(lock(&feed).cursor());
            tokio::select! {
                () = sleep(if more { BULK_PACE } else { PACE }) => {}
                () = tell.closed() => return,
            }
            if more {
                continue;
            }
        }
        tokio::select! {
            changed = moved.changed() => if changed.is_err() { return },
            () = tell.closed() => return,
        }
    }
}
