//! When to dial an upstream: one [`Dialer`] per upstream and lane.

use std::time::Duration;

use bus::{Backoff, Mono};

/// The first wait's bound. Drawn evenly from zero to it, so that a fleet that lost its cloud does not return in step.
pub const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait's bound: an edge is back within a minute of its cloud.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A link that was up this long proves the upstream well: the waits start over. One that breaks sooner (two machines
/// with one certificate throw each other out, for instance) goes on waiting longer each time.
pub const PROVEN_AFTER: Duration = Duration::from_secs(10);

/// The longest `retry_after` that is obeyed: an upstream may ask for patience, not for ever.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Keeps one upstream dialled, politely.
///
/// ```
/// use bus::Mono;
/// use router::dial::{Dial, Dialer};
///
/// let mut dialer = Dialer::new(0, 7);
/// dialer.handle_start();
/// let Some(Dial { attempt }) = dialer.poll_output() else { panic!("dials at once") };
/// dialer.handle_failed(attempt, None, Mono::ZERO);
/// let (at, _why) = dialer.poll_timeout().expect("waits");
/// dialer.handle_timeout(at);
/// assert!(dialer.poll_output().is_some());
/// ```
#[derive(Debug)]
pub struct Dialer {
    attempts: Attempts,
    backoff: Backoff,
    state: State,
}

/// ```text
///           handle_start            handle_up
///    Idle ---------------> Dialing -----------> Up
///                           ^   |                |
///            handle_timeout |   | handle_failed  | handle_down
///                           |   v                |
///                          Waiting <-------------+
/// ```
#[derive(Debug, PartialEq, Eq)]
enum State {
    Idle,
    Dialing { attempt: u64, told: bool },
    Up { attempt: u64, since: Mono },
    Waiting { until: Mono },
}

/// Numbers of attempts, told from those of whoever else dials with the same shard by the upper half.
#[derive(Debug)]
pub(crate) struct Attempts {
    index: u32,
    last: u32,
}

impl Attempts {
    pub(crate) fn new(index: u32) -> Self {
        Self { index, last: 0 }
    }

    pub(crate) fn owns(&self, attempt: u64) -> bool {
        attempt >> 32 == u64::from(self.index)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.last = self.last.wrapping_add(1);
        u64::from(self.index) << 32 | u64::from(self.last)
    }
}

/// Dial now; report what came of it with this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dial {
    pub attempt: u64,
}

impl Dialer {
    /// `index` tells this dialer's attempts from those of the others of one shard: they are numbered from
    /// `index << 32`. `seed` feeds the jitter and differs from node to node.
    pub fn new(index: u32, seed: u64) -> Self {
        let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, seed);
        Self { attempts: Attempts::new(index), backoff, state: State::Idle }
    }

    /// Whether `attempt` was given out by this dialer.
    pub fn owns(&self, attempt: u64) -> bool {
        self.attempts.owns(attempt)
    }

    /// Begins. Does nothing to a dialer that has begun.
    pub fn handle_start(&mut self) {
        if self.state == State::Idle {
            self.dial();
        }
    }

    /// `attempt` reached the upstream.
    pub fn handle_up(&mut self, attempt: u64, now: Mono) {
        if self.is_dialing(attempt) {
            self.state = State::Up { attempt, since: now };
        }
    }

    /// `attempt` did not; the upstream may have said how long to stay away.
    pub fn handle_failed(&mut self, attempt: u64, retry_after: Option<Duration>, now: Mono) {
        if self.is_dialing(attempt) {
            self.wait(retry_after, now);
        }
    }

    /// The link that `attempt` had made is gone.
    pub fn handle_down(&mut self, attempt: u64, now: Mono) {
        let State::Up { attempt: up, since } = self.state else { return };
        if up == attempt {
            if now.since(since) >= PROVEN_AFTER {
                self.backoff.reset();
            }
            self.wait(None, now);
        }
    }

    /// Another link is wanted in the place of the one that stands, or at once. The one that stands is kept meanwhile: its
    /// end is no news.
    pub fn handle_stale(&mut self) {
        if matches!(self.state, State::Up { .. } | State::Waiting { .. }) {
            self.backoff.reset();
            self.dial();
        }
    }

    pub fn handle_timeout(&mut self, now: Mono) {
        if let State::Waiting { until } = self.state
            && until <= now
        {
            self.dial();
        }
    }

    pub fn poll_output(&mut self) -> Option<Dial> {
        let State::Dialing { attempt, told: told @ false } = &mut self.state else { return None };
        *told = true;
        Some(Dial { attempt: *attempt })
    }

    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        let State::Waiting { until } = self.state else { return None };
        Some((until, "dial again"))
    }

    fn is_dialing(&self, by: u64) -> bool {
        matches!(self.state, State::Dialing { attempt, .. } if attempt == by)
    }

    fn dial(&mut self) {
        self.state = State::Dialing { attempt: self.attempts.next(), told: false };
    }

    fn wait(&mut self, retry_after: Option<Duration>, now: Mono) {
        let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
        self.state = State::Waiting { until: now + asked + self.backoff.next_wait() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_up(dialer: &Dialer) -> bool {
        matches!(dialer.state, State::Up { .. })
    }

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000)
    }

    fn started() -> (Dialer, u64) {
        let mut dialer = Dialer::new(3, 7);
        dialer.handle_start();
        let attempt = dialer.poll_output().unwrap().attempt;
        (dialer, attempt)
    }

    fn wait_of(dialer: &Dialer, now: Mono) -> Duration {
        dialer.poll_timeout().unwrap().0 - now
    }

    #[test]
    fn every_transition_is_the_drawn_one() {
        let mut dialer = Dialer::new(3, 7);
        assert_eq!((dialer.poll_output(), dialer.poll_timeout()), (None, None), "idle until started");
        dialer.handle_start();
        assert_eq!(dialer.poll_output(), Some(Dial { attempt: (3 << 32) + 1 }));
        assert_eq!((dialer.poll_output(), dialer.poll_timeout()), (None, None), "told once");
        dialer.handle_up((3 << 32) + 1, at(1));
        assert!(is_up(&dialer) && dialer.poll_timeout().is_none());
        dialer.handle_down((3 << 32) + 1, at(2));
        let (until, why) = dialer.poll_timeout().unwrap();
        assert_eq!((is_up(&dialer), why), (false, "dial again"));
        dialer.handle_timeout(Mono(until.0 - 1));
        assert_eq!(dialer.poll_output(), None, "not before its time");
        dialer.handle_timeout(until);
        assert_eq!(dialer.poll_output(), Some(Dial { attempt: (3 << 32) + 2 }));
    }

    #[test]
    fn a_stale_link_is_dialled_anew_and_its_end_is_no_news() {
        let (mut dialer, first) = started();
        dialer.handle_up(first, at(0));
        dialer.handle_stale();
        let second = dialer.poll_output().unwrap().attempt;
        dialer.handle_down(first, at(1));
        dialer.handle_stale();
        assert_eq!(dialer.state, State::Dialing { attempt: second, told: true });
        dialer.handle_failed(second, None, at(2));
        dialer.handle_stale();
        assert!(dialer.poll_output().is_some(), "whoever waits has waited enough");
    }

    #[test]
    fn news_of_an_earlier_attempt_changes_nothing() {
        let (mut dialer, first) = started();
        dialer.handle_failed(first, None, at(0));
        dialer.handle_timeout(at(1));
        let second = dialer.poll_output().unwrap().attempt;
        dialer.handle_failed(first, None, at(1));
        dialer.handle_up(first, at(1));
        assert_eq!(dialer.state, State::Dialing { attempt: second, told: true });
        dialer.handle_up(second, at(2));
        dialer.handle_down(first, at(2));
        assert!(is_up(&dialer));
        assert!(dialer.owns(first) && !dialer.owns(1));
    }

    #[test]
    fn an_upstream_that_asks_for_patience_gets_it_up_to_a_limit() {
        let (mut dialer, attempt) = started();
        dialer.handle_failed(attempt, Some(Duration::from_secs(20)), at(0));
        let wait = wait_of(&dialer, at(0));
        assert!((20..=21).contains(&wait.as_secs()), "{wait:?}");
        let (mut dialer, attempt) = started();
        dialer.handle_failed(attempt, Some(Duration::MAX), at(0));
        assert!(wait_of(&dialer, at(0)) <= LONGEST_RETRY_AFTER + FIRST_WAIT);
    }

    proptest! {
        #[test]
        fn waits_never_exceed_the_bound_and_short_lived_links_do_not_reset_it(seed: u64, failures in 1usize..40) {
            let mut dialer = Dialer::new(0, seed);
            let (mut now, mut longest) = (Mono::ZERO, Duration::ZERO);
            dialer.handle_start();
            for n in 0..failures {
                let attempt = dialer.poll_output().unwrap().attempt;
                if n % 2 == 0 {
                    dialer.handle_up(attempt, now);
                    dialer.handle_down(attempt, now + Duration::from_secs(1));
                } else {
                    dialer.handle_failed(attempt, None, now);
                }
                let bound = FIRST_WAIT.saturating_mul(1 << n.min(20)).min(LONGEST_WAIT) + Duration::from_secs(1);
                let wait = wait_of(&dialer, now);
                prop_assert!(wait <= bound, "{wait:?} after {n}");
                longest = longest.max(wait);
                now = now + wait;
                dialer.handle_timeout(now);
            }
            prop_assert!(failures < 30 || longest > Duration::from_secs(4), "it backs off: {longest:?}");
            let attempt = dialer.poll_output().unwrap().attempt;
            dialer.handle_up(attempt, now);
            dialer.handle_down(attempt, now + PROVEN_AFTER);
            prop_assert!(wait_of(&dialer, now + PROVEN_AFTER) <= FIRST_WAIT);
        }
    }
}
