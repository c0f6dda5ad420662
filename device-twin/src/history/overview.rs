//! The history of one property at a glance: as many points as a plot has room for, whatever the span of time.
//!
//! Readings are put into as many equal stretches of time as were asked for. Of each the first, the last, the least and the
//! greatest are told, so that no peak is lost, and readings of bad quality apart from the others.

use std::collections::BTreeMap;

use bus::{Quality, Sample, UnixMillis, Value};

use super::gaps::{self, Gaps};
use super::query::Gap;
use crate::twin::PropertyId;

/// Most stretches of one overview: more than a screen's width can show apart.
pub const MAX_POINTS: usize = 500;

/// What is to be looked over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub id: PropertyId,
    pub since: UnixMillis,
    /// With this millisecond.
    pub until: UnixMillis,
    /// How many stretches, never more than [`MAX_POINTS`].
    pub points: usize,
}

/// Readings of one stretch and of like quality.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When the first and the last of them were taken.
    pub since: UnixMillis,
    pub until: UnixMillis,
    /// The worst among them.
    pub quality: Quality,
    /// `None`: they are of bad quality, and count for nothing.
    pub values: Option<Values>,
}

/// The values of a stretch, booleans as 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Values {
    pub first: f64,
    pub last: f64,
    pub least: f64,
    pub greatest: f64,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Overview {
    /// By time: at most two of each stretch, what can be used and what cannot.
    pub points: Vec<Point>,
    /// By time, never more than [`gaps::MAX_GAPS`].
    pub gaps: Vec<Gap>,
}

/// Takes readings in any order, and the same one several times.
#[derive(Debug)]
pub struct Survey {
    since: UnixMillis,
    until: UnixMillis,
    /// Of a stretch, in milliseconds.
    width: u64,
    stretches: BTreeMap<u64, Stretch>,
    gaps: Gaps,
}

#[derive(Debug, Default)]
struct Stretch {
    usable: Option<Run>,
    bad: Option<(UnixMillis, UnixMillis)>,
}

/// A reading's place: several may be of one millisecond.
type Place = (UnixMillis, u64);

#[derive(Debug, Clone, Copy)]
struct Run {
    first: (Place, f64),
    last: (Place, f64),
    least: f64,
    greatest: f64,
    quality: Quality,
}

impl Survey {
    pub fn new(span: &Span) -> Self {
        let Span { id: _, since, until, points } = *span;
        let stretches = points.clamp(2, MAX_POINTS) as u64;
        // They begin at round times, so that a plot which moves on shows the same ones: that takes one more.
        let width = (until.0.saturating_sub(since.0) / (stretches - 1)).max(1);
        Self { since, until, width, stretches: BTreeMap::new(), gaps: Gaps::default() }
    }

    /// Whether anything between these times can be of use.
    pub fn wants(&self, since: UnixMillis, until: UnixMillis) -> bool {
        since <= self.until && self.since <= until
    }

    /// A reading; `ordinal` orders those of one millisecond. A good one that is no number is left out.
    pub fn offer(&mut self, sample: &Sample, ordinal: u64) {
        let Sample { value, time, quality } = sample;
        let value = number(value);
        if !self.wants(*time, *time) || value.is_none() && *quality != Quality::Bad {
            return;
        }
        let stretch = self.stretches.entry(time.0 / self.width).or_default();
        match value.filter(|value| value.is_finite() && *quality != Quality::Bad) {
            Some(value) => {
                let one = Run::one((*time, ordinal), value, *quality);
                stretch.usable = Some(stretch.usable.map_or(one, |run| run.merge(one)));
            }
            None => {
                let (since, until) = stretch.bad.unwrap_or((*time, *time));
                stretch.bad = Some((since.min(*time), until.max(*time)));
            }
        }
    }

    pub fn offer_gap(&mut self, gap: Gap) {
        if self.wants(gap.since, gap.until) {
            self.gaps.offer(gap);
        }
    }

    pub fn finish(self) -> Overview {
        let mut points: Vec<Point> = self.stretches.into_values().flat_map(Stretch::points).collect();
        points.sort_by_key(|point| (point.since, point.until));
        Overview { points, gaps: gaps::few(&self.gaps.into_vec()) }
    }
}

impl Stretch {
    fn points(self) -> impl Iterator<Item = Point> {
        let bad = self.bad.map(|(since, until)| Point { since, until, quality: Quality::Bad, values: None });
        self.usable.map(Run::point).into_iter().chain(bad)
    }
}

impl Run {
    fn one(place: Place, value: f64, quality: Quality) -> Self {
        Self { first: (place, value), last: (place, value), least: value, greatest: value, quality }
    }

    fn merge(self, other: Self) -> Self {
        Self {
            first: if other.first.0 < self.first.0 { other.first } else { self.first },
            last: if other.last.0 > self.last.0 { other.last } else { self.last },
            least: self.least.min(other.least),
            greatest: self.greatest.max(other.greatest),
            quality: self.quality.min(other.quality),
        }
    }

    fn point(self) -> Point {
        let Self { first: ((since, _), first), last: ((until, _), last), least, greatest, quality } = self;
        Point { since, until, quality, values: Some(Values { first, last, least, greatest }) }
    }
}

/// What can be drawn.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Int(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        Value::Text(_) | Value::Struct(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::gaps::MAX_GAPS;
    use super::*;

    fn span(since: u64, until: u64, points: usize) -> Span {
        let id = PropertyId::parse("water/tank/level").unwrap();
        Span { id, since: UnixMillis(since), until: UnixMillis(until), points }
    }

    fn reading(time: u64, value: f64, quality: Quality) -> Sample {
        Sample { value: Value::Float(value), time: UnixMillis(time), quality }
    }

    fn overview(span: &Span, readings: &[Sample]) -> Overview {
        let mut survey = Survey::new(span);
        readings.iter().zip(0..).for_each(|(reading, ordinal)| survey.offer(reading, ordinal));
        survey.finish()
    }

    fn point(since: u64, until: u64, quality: Quality, values: Option<[f64; 4]>) -> Point {
        let values = values.map(|[first, last, least, greatest]| Values { first, last, least, greatest });
        Point { since: UnixMillis(since), until: UnixMillis(until), quality, values }
    }

    #[test]
    fn a_stretch_keeps_its_ends_and_its_peaks_and_what_is_bad_apart() {
        let readings = [
            reading(9, 1.0, Quality::Good),
            reading(0, 5.0, Quality::Good),
            reading(3, 9.0, Quality::Uncertain),
            reading(4, f64::NAN, Quality::Bad),
            reading(5, f64::INFINITY, Quality::Good),
            reading(3, -2.0, Quality::Good),
            reading(12, 7.0, Quality::Good),
            reading(31, 7.0, Quality::Good),
            Sample { value: Value::Text("no number".to_owned()), ..reading(13, 0.0, Quality::Good) },
        ];
        let expected = vec![
            point(0, 9, Quality::Uncertain, Some([5.0, 1.0, -2.0, 9.0])),
            point(4, 5, Quality::Bad, None),
            point(12, 12, Quality::Good, Some([7.0; 4])),
        ];
        assert_eq!(overview(&span(0, 30, 4), &readings), Overview { points: expected, gaps: Vec::new() });
    }

    #[test]
    fn gaps_beyond_the_most_that_are_told_belong_to_the_last() {
        let mut survey = Survey::new(&span(0, 10_000, 10));
        let gap = |n: u64| Gap { since: UnixMillis(n), until: UnixMillis(n + 1), samples: 1 };
        (0..200).rev().for_each(|n| survey.offer_gap(gap(n * 10)));
        survey.offer_gap(gap(20_000));
        let gaps = survey.finish().gaps;
        let last = Gap { since: UnixMillis(490), until: UnixMillis(1_991), samples: 151 };
        assert_eq!((gaps.len(), gaps[0], gaps[49]), (MAX_GAPS, gap(0), last));
    }

    proptest! {
        #[test]
        fn whatever_the_order_and_however_often(
            readings in prop::collection::vec((0u64..1_000, -50i64..50, 0u8..3), 0..60),
            shuffle: u64, since in 0u64..900, length in 0u64..2_000, points in 0usize..700,
        ) {
            let span = span(since, since + length, points);
            let quality = |q| [Quality::Bad, Quality::Uncertain, Quality::Good][usize::from(q)];
            let readings: Vec<(Sample, u64)> =
                readings.into_iter().zip(0..).map(|((t, v, q), n)| (reading(t, v as f64, quality(q)), n)).collect();
            let told = |order: &[(Sample, u64)]| {
                let mut survey = Survey::new(&span);
                order.iter().for_each(|(reading, ordinal)| survey.offer(reading, *ordinal));
                survey.finish()
            };
            let mut other: Vec<_> = readings.iter().chain(&readings).cloned().collect();
            other.sort_by_key(|(_, n)| bus::backoff::Jitter::new(shuffle ^ n << 8).next_u64());
            let found = told(&readings);
            prop_assert_eq!(&found, &told(&other));
            let usable = |point: &&Point| point.values.is_some();
            prop_assert!(found.points.iter().filter(usable).count() <= points.clamp(2, MAX_POINTS));
            let all = readings.iter().map(|(reading, _)| reading).filter(|r| r.quality != Quality::Bad);
            let inside: Vec<f64> = all
                .filter(|r| (since..=since + length).contains(&r.time.0))
                .filter_map(|r| number(&r.value))
                .collect();
            let least = |all: &[f64]| all.iter().copied().reduce(f64::min);
            let greatest = |all: &[f64]| all.iter().copied().reduce(f64::max);
            let values: Vec<Values> = found.points.iter().filter_map(|point| point.values).collect();
            let told: Vec<f64> = values.iter().flat_map(|v| [v.least, v.greatest]).collect();
            prop_assert_eq!((least(&told), greatest(&told)), (least(&inside), greatest(&inside)));
        }
    }
}
