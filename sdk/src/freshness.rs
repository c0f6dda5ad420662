//! How old the last good value of a property is, and when that makes it bad.

use std::time::Duration;

use bus::{Mono, Quality, Sample};

/// A polled value is too old after this many periods: one lost reading is noise, three are a fault.
const PERIODS: u32 = 3;

/// No value is called too old earlier than this: a short period is no promise of a fast device.
const MIN_AGE: Duration = Duration::from_secs(2);

/// What a device pushed is too old this long after the session has ended, unless it was said again: time enough to open a
/// new session. Whoever was not listening cannot know what changed.
const ORPHAN_AGE: Duration = Duration::from_secs(10);

/// The last value of one property. When readings fail for longer than its `max_age`, it is reported once more, as
/// bad, with its own time; nothing is invented for a property that was never read.
#[derive(Debug)]
pub(crate) struct Freshness {
    /// `None`: never polled, so never too old while its session lasts.
    max_age: Option<Duration>,
    /// When the session ended that pushed the last value.
    orphaned: Option<Mono>,
    last: Option<(Sample, Mono)>,
}

impl Freshness {
    pub(crate) fn new(period: Duration) -> Self {
        let mut freshness = Self { max_age: None, orphaned: None, last: None };
        freshness.set_period(period);
        freshness
    }

    pub(crate) fn set_period(&mut self, period: Duration) {
        self.max_age = (!period.is_zero()).then(|| period.saturating_mul(PERIODS).max(MIN_AGE));
    }

    pub(crate) fn read(&mut self, sample: Sample, now: Mono) {
        self.last = Some((sample, now));
        self.orphaned = None;
    }

    /// The session has ended that pushed this property.
    pub(crate) fn orphan(&mut self, now: Mono) {
        self.orphaned.get_or_insert(now);
    }

    /// When the last value becomes too old, if nothing newer comes.
    pub(crate) fn ends(&self) -> Option<Mono> {
        let (sample, read) = self.last.as_ref()?;
        let polled = self.max_age.map(|max_age| *read + max_age);
        let pushed = self.orphaned.map(|at| at + ORPHAN_AGE);
        polled.or(pushed).filter(|_| sample.quality != Quality::Bad)
    }

    /// The last value as a bad one, at the moment when it becomes too old.
    pub(crate) fn expire(&mut self, now: Mono) -> Option<Sample> {
        if self.ends()? > now {
            return None;
        }
        let (sample, _) = self.last.as_mut()?;
        sample.quality = Quality::Bad;
        Some(sample.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::{UnixMillis, Value};

    fn sample(quality: Quality) -> Sample {
        Sample { value: Value::Float(3.0), time: UnixMillis(77), quality }
    }

    #[test]
    fn an_old_value_turns_bad_once_and_keeps_its_time() {
        let mut f = Freshness::new(Duration::from_secs(10));
        assert_eq!((f.ends(), f.expire(Mono(u64::MAX))), (None, None), "nothing is invented");
        f.read(sample(Quality::Good), Mono(5));
        assert_eq!(f.ends(), Some(Mono(30_000_005)));
        assert_eq!(f.expire(Mono(30_000_004)), None);
        assert_eq!(f.expire(Mono(30_000_005)), Some(sample(Quality::Bad)));
        assert_eq!((f.ends(), f.expire(Mono(90_000_000))), (None, None));
        f.read(sample(Quality::Good), Mono(90_000_000));
        assert_eq!(f.ends(), Some(Mono(120_000_000)));
    }

    #[test]
    fn a_value_that_nobody_polls_does_not_age() {
        let mut f = Freshness::new(Duration::ZERO);
        f.read(sample(Quality::Good), Mono(5));
        assert_eq!(f.ends(), None);
    }

    #[test]
    fn what_an_ended_session_pushed_turns_bad_unless_it_is_said_again() {
        let mut f = Freshness::new(Duration::ZERO);
        f.orphan(Mono(1));
        assert_eq!(f.ends(), None, "nothing was said");
        f.read(sample(Quality::Good), Mono(5));
        f.orphan(Mono(7));
        f.orphan(Mono(3_000_000));
        assert_eq!(f.ends(), Some(Mono(10_000_007)), "a second loss does not prolong it");
        f.read(sample(Quality::Good), Mono(4_000_000));
        assert_eq!(f.ends(), None);
        f.orphan(Mono(5_000_000));
        assert_eq!(f.expire(Mono(15_000_000)), Some(sample(Quality::Bad)));
    }

    #[test]
    fn a_short_period_does_not_make_a_value_old_within_two_seconds() {
        let mut f = Freshness::new(Duration::from_millis(50));
        f.read(sample(Quality::Good), Mono(0));
        assert_eq!(f.ends(), Some(Mono(2_000_000)));
    }
}
