//! Who is at the door: users as the node said them last, and the page's sessions.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bus::UnixMillis;
use bus::io::Clock;
use controller::user::Users;
use tokio::sync::watch;

use super::api::{Intake, PAGES_OF_ONE};
use super::shares::Shares;
use crate::sessions::Sessions;

/// What tells known from unknown. Shared by all ways in.
#[derive(Debug, Clone)]
pub struct Doorkeeper {
    /// `None`: the node has not said yet.
    users: watch::Receiver<Option<Arc<Users>>>,
    sessions: Arc<Mutex<Sessions>>,
    /// Where a browser finds the page, for those who are given a link to it.
    listens: Arc<OnceLock<Vec<String>>>,
    pub clock: Clock,
    pub(super) intake: Intake,
    pub(super) pages: Shares,
}

/// Where the node says who is let in.
#[derive(Debug)]
pub struct UsersSender {
    users: watch::Sender<Option<Arc<Users>>>,
    sessions: Arc<Mutex<Sessions>>,
}

impl UsersSender {
    /// The guests of those who changed go, for good.
    pub fn say(&self, users: Arc<Users>, now: UnixMillis) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).handle_users(&users, now);
        self.users.send_replace(Some(users));
    }
}

impl Doorkeeper {
    pub fn new(clock: Clock) -> (Self, UsersSender) {
        let (sender, users) = watch::channel(None);
        let sessions = Arc::default();
        let sender = UsersSender { users: sender, sessions: Arc::clone(&sessions) };
        let pages = Shares::new(PAGES_OF_ONE);
        let listens = Arc::default();
        (Self { users, sessions, listens, clock, intake: Intake::default(), pages }, sender)
    }

    pub fn users(&self) -> Option<Arc<Users>> {
        self.users.borrow().clone()
    }

    /// Whenever somebody comes, goes, or has another role.
    pub fn changes(&self) -> watch::Receiver<Option<Arc<Users>>> {
        self.users.clone()
    }

    pub fn listens(&self) -> &[String] {
        self.listens.get().map(Vec::as_slice).unwrap_or_default()
    }

    pub fn set_listens(&self, urls: Vec<String>) {
        // Said once, at the start.
        let _ = self.listens.set(urls);
    }

    pub fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
