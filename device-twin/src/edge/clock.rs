//! What time it is in the cloud, as far as this edge can tell.

use std::time::Duration;

use bus::bus::ClockOffset;
use bus::{Mono, Now, UnixMillis};

/// How far our two clocks may disagree on the time since the estimate before it is thrown away: a wall clock that was
/// set, or a machine that slept. Slewing by NTP (500 ppm) stays below for an hour; estimates come every minute.
const TOLERANCE: Duration = Duration::from_secs(2);

/// The last estimate of the cloud's clock, carried forward by the monotonic one.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct CloudClock {
    last: Option<ClockOffset>,
    anchor: Option<Anchor>,
}

#[derive(Debug, Clone, PartialEq)]
struct Anchor {
    mono: Mono,
    wall: UnixMillis,
    cloud: UnixMillis,
    uncertainty: Duration,
}

/// A little in the future is the estimate's own error.
const FUTURE: Duration = Duration::from_secs(1);

impl CloudClock {
    /// Takes what the link says now. `None` (no link) leaves what is known; an estimate that is merely repeated is
    /// not taken again, since our wall clock may have been set in between.
    pub(super) fn update(&mut self, estimate: Option<ClockOffset>, now: Now) {
        if estimate == self.last {
            return;
        }
        self.last = estimate;
        if let Some(ClockOffset { offset_ms, uncertainty }) = estimate {
            let cloud = now.wall.shifted(offset_ms);
            self.anchor = Some(Anchor { mono: now.mono, wall: now.wall, cloud, uncertainty });
        }
    }

    /// How old something is that the cloud issued at `issued`, at most. `None` if the cloud's time is not known, or
    /// contradicts itself: something issued in the future was stamped by a clock that has been set back since.
    pub(super) fn age_of(&self, issued: UnixMillis, now: Now) -> Option<Duration> {
        let anchor = self.anchor.as_ref()?;
        let by_mono = now.mono.since(anchor.mono);
        let expected = UnixMillis(anchor.wall.0.saturating_add(crate::twin::millis(by_mono)));
        if Duration::from_millis(now.wall.0.abs_diff(expected.0)) > TOLERANCE {
            return None;
        }
        let cloud = UnixMillis(anchor.cloud.0.saturating_add(crate::twin::millis(by_mono)));
        let ahead = Duration::from_millis(issued.0.saturating_sub(cloud.0));
        let plausible = ahead <= anchor.uncertainty + FUTURE;
        plausible.then(|| cloud.since(issued).saturating_add(anchor.uncertainty))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(mono_s: u64, wall_s: u64) -> Now {
        Now { mono: Mono(mono_s * 1_000_000), wall: UnixMillis(wall_s * 1000) }
    }

    fn ahead(seconds: i64) -> Option<ClockOffset> {
        Some(ClockOffset { offset_ms: seconds * 1000, uncertainty: Duration::from_secs(1) })
    }

    #[test]
    fn age_is_told_on_the_clouds_clock_and_never_too_young() {
        let mut clock = CloudClock::default();
        assert_eq!(clock.age_of(UnixMillis(0), now(0, 1000)), None);
        clock.update(ahead(7200), now(0, 1000));
        assert_eq!(clock.age_of(UnixMillis(8_200_000), now(5, 1005)), Some(Duration::from_secs(6)));
        assert_eq!(
            clock.age_of(UnixMillis(8_206_000), now(5, 1005)),
            Some(Duration::from_secs(1)),
            "as good as now"
        );
        assert_eq!(clock.age_of(UnixMillis(9_999_000), now(5, 1005)), None, "the cloud's clock was set back");
    }

    #[test]
    fn a_cut_link_leaves_the_estimate() {
        let mut clock = CloudClock::default();
        clock.update(ahead(0), now(0, 1000));
        clock.update(None, now(1, 1001));
        assert!(clock.age_of(UnixMillis(1_000_000), now(2, 1002)).is_some());
    }

    #[test]
    fn a_wall_clock_that_was_set_or_a_machine_that_slept_makes_the_age_unknown() {
        let mut clock = CloudClock::default();
        clock.update(ahead(0), now(0, 9000));
        let issued = UnixMillis(9_000_000);
        assert_eq!(clock.age_of(issued, now(5, 9005 - 3600)), None, "set back");
        assert_eq!(clock.age_of(issued, now(5, 9005 + 3600)), None, "slept");
        clock.update(ahead(0), now(6, 9006 + 3600));
        assert_eq!(clock.age_of(issued, now(6, 9006 + 3600)), None, "the old estimate, said again");
        clock.update(ahead(-3600), now(7, 9007 + 3600));
        assert_eq!(clock.age_of(issued, now(7, 9007 + 3600)), Some(Duration::from_secs(8)));
    }
}
