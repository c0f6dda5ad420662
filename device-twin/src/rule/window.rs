//! What one input said over a span of time, in bounded memory.
//!
//! A span is *covered* when good readings came without a gap longer than `maxAge` from its beginning until now; before
//! that nothing is known of it. It begins with the value that held then: the last reading at or before it.
//!
//! Time is cut into [`SLICES`] slices a span. Of a slice the extremes are kept, and its last reading with its time.
//! Readings that come no faster than the slices are therefore all kept as they are. Of faster ones this is lost: the
//! oldest value may be up to a slice older than the span, an extreme may count up to a slice longer, and a span is
//! covered up to a slice later. No extreme is ever missed.

use std::collections::VecDeque;
use std::time::Duration;

use bus::Mono;

use super::document::Over;

/// Half a second of a minute: finer than rules look ([`crate::edge::RULE_INTERVAL`]), and 4 KB when full.
pub const SLICES: u32 = 120;

#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    span: Duration,
    max_age: Duration,
    /// Oldest first: those of the span, and the one before it.
    slices: VecDeque<Slice>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Slice {
    /// Of its last reading.
    at: Mono,
    last: f64,
    least: f64,
    greatest: f64,
}

impl Window {
    pub fn new(span: Duration, max_age: Duration) -> Self {
        Self { span, max_age, slices: VecDeque::new() }
    }

    pub fn is(&self, span: Duration, max_age: Duration) -> bool {
        (self.span, self.max_age) == (span, max_age)
    }

    /// Takes a reading that was made `at`; `None` for one that is bad or no number, with which the window begins anew.
    /// One that is older than the last counts as made with it: it is what is known now, and covers no time.
    pub fn observe(&mut self, reading: Option<f64>, at: Mono) {
        let Some(value) = reading.filter(|value| value.is_finite()) else {
            self.slices.clear();
            return;
        };
        let at = self.slices.back().map_or(at, |last| at.max(last.at));
        if self.slices.back().is_some_and(|last| at.since(last.at) > self.max_age) {
            self.slices.clear();
        }
        let grain = grain(self.span);
        match self.slices.back_mut().filter(|last| last.at.0 / grain == at.0 / grain) {
            Some(last) => *last = last.with(value, at),
            None => self.slices.push_back(Slice { at, last: value, least: value, greatest: value }),
        }
        let begins_before = |slice: &Slice| slice.at + self.span <= at;
        while self.slices.get(1).is_some_and(begins_before) {
            self.slices.pop_front();
        }
    }

    /// What the window says at `now`; `None` while the span is not covered.
    pub fn read(&self, over: Over, now: Mono) -> Option<f64> {
        let last = self.slices.back().filter(|last| now.since(last.at) <= self.max_age)?;
        let begin = now.0.checked_sub(micros(self.span))?;
        let held = self.slices.partition_point(|slice| slice.at.0 <= begin).checked_sub(1)?;
        let first = self.slices.get(held)?.last;
        let number = match over {
            Over::Change(_) => last.last - first,
            Over::Spread(_) => {
                let within = self.slices.range(held + 1..);
                let (least, greatest) = within.fold((first, first), |(least, greatest), s| {
                    (s.least.min(least), s.greatest.max(greatest))
                });
                greatest - least
            }
        };
        number.is_finite().then_some(number)
    }
}

impl Slice {
    fn with(self, value: f64, at: Mono) -> Self {
        Self { at, last: value, least: self.least.min(value), greatest: self.greatest.max(value) }
    }
}

/// The length of a slice, in microseconds.
fn grain(span: Duration) -> u64 {
    micros(span / SLICES).max(1)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
