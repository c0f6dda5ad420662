//! What a peer's clock says, as estimated on the link.

use std::time::Duration;

use crate::{Mono, Now, UnixMillis};

/// How often the peer's clock is asked for: drift of a bad quartz (100 ppm) stays under 6 ms in between.
pub const CLOCK_INTERVAL: Duration = Duration::from_secs(60);

/// How far the peer's wall clock is ahead of ours, as estimated on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockOffset {
    pub offset_ms: i64,
    /// The true offset lies within this of the estimate (half the round trip).
    pub uncertainty: Duration,
}

/// A peer's wall clock against our monotonic one, so that a jump of our own wall clock changes nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerClock {
    /// Its wall clock when our monotonic one was zero, in milliseconds; may be far off and even negative.
    at_zero_ms: i64,
    uncertainty: Duration,
}

/// A message from the future by more than this, beyond the clock's uncertainty: the peer's clock has jumped.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

impl PeerClock {
    /// From an answer: the peer's clock said `wall` between `asked_at` and now. A peer that lies about `asked_at`
    /// harms nobody but the estimate of its own clock.
    pub(super) fn told(asked_at: Mono, wall: UnixMillis, now: Mono) -> Self {
        let round_trip = now.since(asked_at);
        let half = i64::try_from(round_trip.as_millis() / 2).unwrap_or(i64::MAX);
        let told = i64::try_from(wall.0).unwrap_or(i64::MAX).saturating_add(half);
        let at_zero_ms = told.saturating_sub(i64::try_from(now.0 / 1000).unwrap_or(i64::MAX));
        Self { at_zero_ms, uncertainty: round_trip / 2 }
    }

    /// Against our wall clock as it stands now.
    pub(super) fn against(self, now: Now) -> ClockOffset {
        let ours = i64::try_from(now.wall.0).unwrap_or(i64::MAX);
        let offset_ms = self.now_ms(now.mono).saturating_sub(ours);
        ClockOffset { offset_ms, uncertainty: self.uncertainty }
    }

    fn now_ms(self, now: Mono) -> i64 {
        self.at_zero_ms.saturating_add(i64::try_from(now.0 / 1000).unwrap_or(i64::MAX))
    }

    /// How long ago `sent` was; `None` if the clocks contradict each other.
    pub(super) fn since(self, sent: UnixMillis, now: Mono) -> Option<Duration> {
        let sent = i64::try_from(sent.0).ok()?;
        let passed = self.now_ms(now).saturating_sub(sent);
        match u64::try_from(passed) {
            Ok(passed) => Some(Duration::from_millis(passed)),
            Err(_) => {
                let ahead = Duration::from_millis(passed.unsigned_abs());
                (ahead <= self.uncertainty + CLOCK_SLACK).then_some(Duration::ZERO)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_whose_clock_contradicts_itself_gives_no_travel_time() {
        let clock = PeerClock { at_zero_ms: 1_000_000, uncertainty: Duration::from_millis(5) };
        assert_eq!(clock.since(UnixMillis(1_000_000), Mono(7_000_000)), Some(Duration::from_secs(7)));
        assert_eq!(clock.since(UnixMillis(1_007_500), Mono(7_000_000)), Some(Duration::ZERO));
        assert_eq!(clock.since(UnixMillis(1_060_000), Mono(7_000_000)), None);
    }
}
