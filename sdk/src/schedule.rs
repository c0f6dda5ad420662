//! When which property is read.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::Mono;

/// Shortest period: faster is the business of a device that pushes, and a typing error must not flood a bus.
pub(crate) const MIN_PERIOD: Duration = Duration::from_millis(50);

/// Reading times of one device. All periods run from one start, so that what falls together is read together; a tick
/// that was missed (slow device) is left out, not made up for.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Mono,
    points: BTreeMap<String, Entry>,
    missed: u64,
}

#[derive(Debug)]
struct Entry {
    period: Duration,
    next: Mono,
}

impl Schedule {
    pub(crate) fn new(start: Mono) -> Self {
        Self { start, points: BTreeMap::new(), missed: 0 }
    }

    /// Reads `point` every `period` from now on, or never if that is zero. A point that keeps its period keeps its
    /// place.
    pub(crate) fn set(&mut self, point: &str, period: Duration, now: Mono) {
        if period.is_zero() {
            self.points.remove(point);
            return;
        }
        let period = period.max(MIN_PERIOD);
        if self.points.get(point).is_some_and(|e| e.period == period) {
            return;
        }
        let next = now.max(self.start);
        self.points.insert(point.to_owned(), Entry { period, next });
    }

    pub(crate) fn remove(&mut self, point: &str) {
        self.points.remove(point);
    }

    /// Reads a point as soon as possible (its value was just written); its later ticks stay as they were.
    pub(crate) fn hurry(&mut self, point: &str, now: Mono) {
        if let Some(entry) = self.points.get_mut(point) {
            entry.next = now;
        }
    }

    /// Ticks that passed while nothing could be read are not missed: what is due is due now.
    pub(crate) fn resume(&mut self, now: Mono) {
        for entry in self.points.values_mut() {
            entry.next = entry.next.max(now);
        }
    }

    /// Ticks that were left out since the last time, because earlier readings took too long.
    pub(crate) fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }

    /// Everything that is due, moved on to its next tick.
    pub(crate) fn take_due(&mut self, now: Mono) -> Vec<String> {
        let Self { start, missed, .. } = self;
        let due = self.points.iter_mut().filter(|(_, e)| e.next <= now);
        due.map(|(name, entry)| {
            let next = tick_after(*start, entry.period, now);
            *missed += ticks_before(next, tick_after(*start, entry.period, entry.next), entry.period);
            entry.next = next;
            name.clone()
        })
        .collect()
    }

    pub(crate) fn next(&self) -> Option<Mono> {
        self.points.values().map(|e| e.next).min()
    }
}

/// How many ticks lie from `first` up to `next`, which is left out.
fn ticks_before(next: Mono, first: Mono, period: Duration) -> u64 {
    let passed = u64::try_from(next.since(first).as_micros()).unwrap_or(u64::MAX);
    passed / micros(period)
}

fn micros(period: Duration) -> u64 {
    u64::try_from(period.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// The first whole multiple of `period` after `start` that lies after `now`.
fn tick_after(start: Mono, period: Duration, now: Mono) -> Mono {
    let period = micros(period);
    let passed = now.0.saturating_sub(start.0) / period;
    Mono(start.0.saturating_add(period.saturating_mul(passed + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Mono {
        Mono(ms * 1000)
    }

    fn schedule(points: &[(&str, Duration)]) -> Schedule {
        let mut schedule = Schedule::new(at(100));
        for (name, period) in points {
            schedule.set(name, *period, at(0));
        }
        schedule
    }

    #[test]
    fn points_of_one_device_are_read_together_whenever_their_ticks_meet() {
        let mut s = schedule(&[("a", SECOND), ("b", SECOND * 2), ("never", Duration::ZERO)]);
        assert_eq!(s.next(), Some(at(100)));
        assert_eq!(s.take_due(at(99)), Vec::<String>::new());
        assert_eq!(s.take_due(at(100)), ["a", "b"]);
        assert_eq!(s.take_due(at(1100)), ["a"]);
        assert_eq!(s.take_due(at(2100)), ["a", "b"]);
        assert_eq!(s.next(), Some(at(3100)));
    }

    #[test]
    fn missed_ticks_are_left_out_and_the_grid_stays() {
        let mut s = schedule(&[("a", SECOND)]);
        assert_eq!((s.take_due(at(100)), s.take_missed()), (vec!["a".to_owned()], 0));
        assert_eq!((s.take_due(at(1900)), s.take_missed()), (vec!["a".to_owned()], 0), "late, but read");
        assert_eq!(s.take_due(at(5600)), ["a"]);
        assert_eq!(
            (s.next(), s.take_missed()),
            (Some(at(6100)), 3),
            "2100 was late, the three after it are left out"
        );
    }

    #[test]
    fn ticks_without_a_session_are_not_missed() {
        let mut s = schedule(&[("a", SECOND)]);
        s.take_due(at(100));
        s.resume(at(7600));
        assert_eq!(s.take_due(at(7600)), ["a"]);
        s.resume(at(7700));
        assert_eq!((s.next(), s.take_missed()), (Some(at(8100)), 0), "a tick to come stays where it is");
    }

    #[test]
    fn a_written_point_is_read_at_once_and_then_as_before() {
        let mut s = schedule(&[("a", SECOND)]);
        assert_eq!(s.take_due(at(100)), ["a"]);
        s.hurry("a", at(400));
        assert_eq!(s.take_due(at(400)), ["a"]);
        assert_eq!(s.next(), Some(at(1100)));
        s.hurry("unknown", at(400));
    }

    #[test]
    fn a_point_keeps_its_place_until_its_period_changes() {
        let mut s = schedule(&[("a", SECOND)]);
        s.take_due(at(100));
        s.set("a", SECOND, at(300));
        assert_eq!(s.next(), Some(at(1100)));
        s.set("a", SECOND * 3, at(300));
        assert_eq!(s.take_due(at(300)), ["a"]);
        assert_eq!(s.next(), Some(at(3100)));
        s.set("a", Duration::from_micros(1), at(400));
        s.take_due(at(400));
        assert_eq!(s.next(), Some(at(450)), "never faster than the shortest period");
        s.remove("a");
        assert_eq!(s.next(), None);
    }
}
