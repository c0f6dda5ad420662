//! Where time comes from, for whoever drives a core.

use std::time::Duration;

#[cfg(not(feature = "virtual-clock"))]
use machine as source;

#[cfg(feature = "virtual-clock")]
use super::virtual_clock as source;
use crate::{Mono, Now, UnixMillis};

/// Both clocks. The monotonic one begins with the process and goes on while the machine sleeps: what was fresh before a
/// nap is not fresh after it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Mono,
}

impl Clock {
    pub fn start() -> Self {
        Self { start: source::read().0 }
    }

    pub fn now(self) -> Now {
        let (passed, wall) = source::read();
        Now { mono: Mono::ZERO + passed.since(self.start), wall }
    }

    /// Returns at `at` on this clock, at once if that is over.
    pub async fn sleep_until(self, at: Mono) {
        loop {
            let left = at.since(self.now().mono);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(source::nap(left)).await;
        }
    }

    /// What `work` comes to within `time`; `None` if that is over first, and `work` is dropped.
    pub async fn timeout<T>(self, time: Duration, work: impl Future<Output = T>) -> Option<T> {
        let end = self.now().mono + time;
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.sleep_until(end) => None,
        }
    }
}

/// The machine's own clocks.
pub(super) mod machine {
    use std::time::SystemTime;

    use rustix::time::{ClockId, Timespec, clock_gettime};

    use super::{Mono, UnixMillis};

    /// Time since the machine's start, and its wall clock.
    pub(in crate::io) fn read() -> (Mono, UnixMillis) {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Boottime);
        let passed = Mono((tv_sec * 1_000_000 + tv_nsec / 1_000).unsigned_abs());
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        (passed, UnixMillis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long to sleep before looking again.
    #[cfg(not(feature = "virtual-clock"))]
    pub(super) fn nap(left: super::Duration) -> super::Duration {
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleep_ends_at_its_moment_and_not_before() {
        let clock = Clock::start();
        let at = clock.now().mono + Duration::from_millis(30);
        clock.sleep_until(at).await;
        assert!(clock.now().mono >= at);
        clock.sleep_until(Mono::ZERO).await;
    }

    #[tokio::test]
    async fn work_has_until_the_end_of_its_time() {
        let clock = Clock::start();
        assert_eq!(clock.timeout(Duration::from_secs(60), async { 7 }).await, Some(7));
        assert_eq!(clock.timeout(Duration::ZERO, async { 7 }).await, Some(7), "what is done counts");
        let never = std::future::pending::<()>();
        assert_eq!(clock.timeout(Duration::from_millis(5), never).await, None);
    }
}
