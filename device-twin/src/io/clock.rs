//! The broker's time.

use bus::{Mono, Now};
use tokio::time::Instant;

/// Clients live in the machine's time, also where a test makes the node's: who is silent for its keep-alive is gone, and
/// not who slept while hours passed in a minute. Only what is kept over a restart is dated by the node's wall clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
    node: bus::io::Clock,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { start: Instant::now(), node: bus::io::Clock::start() }
    }

    pub(super) fn now(self) -> Now {
        Now { mono: Mono::ZERO + self.start.elapsed(), wall: self.node.now().wall }
    }

    /// Returns at `at`; for ever, if there is none.
    pub(super) async fn sleep_until(self, at: Option<Mono>) {
        match at {
            Some(at) => tokio::time::sleep_until(self.start + at.since(Mono::ZERO)).await,
            None => std::future::pending().await,
        }
    }
}
