//! One armed instant per connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use quinn_proto::ConnectionHandle;

/// When to look at which connection. A connection's deadline moves with every packet, mostly later: only an earlier
/// one is noted at once, a later one is found out when the old one rings.
#[derive(Debug, Default)]
pub(super) struct Timers {
    armed: BTreeMap<usize, Instant>,
    order: BTreeSet<(Instant, usize)>,
}

impl Timers {
    /// Rings for `handle` at `deadline` or before.
    pub(super) fn arm(&mut self, handle: ConnectionHandle, deadline: Instant) {
        match self.armed.get(&handle.0) {
            Some(armed) if *armed <= deadline => {}
            _ => {
                self.cancel(handle);
                self.armed.insert(handle.0, deadline);
                self.order.insert((deadline, handle.0));
            }
        }
    }

    pub(super) fn cancel(&mut self, handle: ConnectionHandle) {
        if let Some(armed) = self.armed.remove(&handle.0) {
            self.order.remove(&(armed, handle.0));
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// The next connection whose time has come; it is no longer armed.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<ConnectionHandle> {
        let (_, handle) = self.order.first().copied().filter(|(at, _)| *at <= now)?;
        self.cancel(ConnectionHandle(handle));
        Some(ConnectionHandle(handle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_earlier_deadline_counts_at_once_and_a_later_one_when_the_earlier_rings() {
        let (start, ms) = (Instant::now(), Duration::from_millis(1));
        let (a, b) = (ConnectionHandle(1), ConnectionHandle(2));
        let mut timers = Timers::default();
        timers.arm(a, start + 5 * ms);
        timers.arm(b, start + 4 * ms);
        timers.arm(a, start + 9 * ms);
        assert_eq!(timers.next(), Some(start + 4 * ms));
        timers.arm(a, start + 2 * ms);
        assert_eq!(timers.next(), Some(start + 2 * ms));
        assert_eq!(timers.pop_due(start + ms), None);
        let due: Vec<_> = std::iter::from_fn(|| timers.pop_due(start + 4 * ms)).collect();
        assert_eq!((due, timers.next()), (vec![a, b], None), "each rings once");
    }

    #[test]
    fn a_cancelled_timer_stays_silent() {
        let start = Instant::now();
        let mut timers = Timers::default();
        timers.arm(ConnectionHandle(1), start);
        timers.cancel(ConnectionHandle(1));
        assert_eq!((timers.next(), timers.pop_due(start)), (None, None));
    }
}
