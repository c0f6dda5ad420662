//! Picks the rows of a page from all samples, in whatever order they are read.

use std::collections::BTreeMap;

use bus::{Quality, Sample, UnixMillis, Value};

use super::entry::Reading;
use crate::history::gaps::Gaps;
use crate::history::query::{Answer, Cursor, Gap, MAX_ROWS, Order, Query, Row};

/// A closed span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) since: UnixMillis,
    pub(crate) until: UnixMillis,
}

impl Span {
    pub(crate) fn of_gap(gap: &Gap) -> Self {
        Self { since: gap.since, until: gap.until }
    }

    pub(crate) fn of(time: UnixMillis) -> Self {
        Self { since: time, until: time }
    }

    pub(crate) fn with(self, time: UnixMillis) -> Self {
        Self { since: self.since.min(time), until: self.until.max(time) }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.since <= other.until && other.since <= self.until
    }
}

/// The first rows in a query's order among all that are offered, in any order: as many as it asks for, and one more,
/// which tells that there are more.
#[derive(Debug)]
pub(crate) struct Selection<'q> {
    query: &'q Query,
    limit: usize,
    /// What can still change the answer.
    span: Span,
    rows: BTreeMap<Cursor, (UnixMillis, Quality, Value)>,
    gaps: Gaps,
}

impl<'q> Selection<'q> {
    pub(crate) fn new(query: &'q Query) -> Self {
        let mut span = Span { since: query.since, until: query.until };
        match (&query.after, query.order) {
            (None, _) => {}
            (Some(after), Order::NewestFirst) => span.until = span.until.min(after.time),
            (Some(after), Order::OldestFirst) => span.since = span.since.max(after.time),
        }
        let limit = query.limit.clamp(1, MAX_ROWS);
        Self { query, limit, span, rows: BTreeMap::new(), gaps: Gaps::default() }
    }

    /// Whether samples of this span of time can still change the answer.
    pub(crate) fn wants(&self, span: &Span) -> bool {
        self.span.overlaps(span)
    }

    pub(crate) fn offer_gap(&mut self, gap: Gap) {
        if self.wants(&Span::of_gap(&gap)) {
            self.gaps.offer(gap);
        }
    }

    /// One sample; its place is only made if its time is of use.
    pub(crate) fn offer(&mut self, reading: &Reading<'_>, place: impl FnOnce() -> Cursor) {
        if !self.wants(&Span::of(reading.time)) {
            return;
        }
        let place = place();
        if !self.is_after_last_page(&place) {
            return;
        }
        let Some(value) = reading.value.unpack() else { return };
        self.rows.insert(place, (reading.stored, reading.quality, value));
        if self.rows.len() > self.limit {
            self.narrow();
        }
    }

    fn is_after_last_page(&self, place: &Cursor) -> bool {
        match (&self.query.after, self.query.order) {
            (None, _) => true,
            (Some(after), Order::NewestFirst) => place < after,
            (Some(after), Order::OldestFirst) => place > after,
        }
    }

    /// The page is full: what comes behind its last row is of no more use.
    fn narrow(&mut self) {
        if self.rows.len() > self.limit + 1 {
            self.pop_last();
        }
        match self.query.order {
            Order::NewestFirst => {
                self.span.since = self.rows.keys().next().map_or(self.span.since, |k| k.time)
            }
            Order::OldestFirst => {
                self.span.until = self.rows.keys().next_back().map_or(self.span.until, |k| k.time);
            }
        }
    }

    fn pop_last(&mut self) {
        match self.query.order {
            Order::NewestFirst => drop(self.rows.pop_first()),
            Order::OldestFirst => drop(self.rows.pop_last()),
        }
    }

    pub(crate) fn finish(mut self) -> Answer {
        let has_more = self.rows.len() > self.limit;
        if has_more {
            self.pop_last();
        }
        let last = match self.query.order {
            Order::NewestFirst => self.rows.keys().next(),
            Order::OldestFirst => self.rows.keys().next_back(),
        };
        let next = last.filter(|_| has_more).cloned();
        let gaps = self.gaps_of_page(next.as_ref());
        let rows = self.rows.into_iter().map(|(place, (stored, quality, value))| {
            let Cursor { time, id, ordinal: _ } = place;
            Row { id, sample: Sample { value, time, quality }, stored }
        });
        let rows = match self.query.order {
            Order::NewestFirst => rows.rev().collect(),
            Order::OldestFirst => rows.collect(),
        };
        Answer { rows, next, gaps }
    }

    fn gaps_of_page(&mut self, next: Option<&Cursor>) -> Vec<Gap> {
        let mut page = Self::new(self.query).span;
        match (next, self.query.order) {
            (None, _) => {}
            (Some(next), Order::NewestFirst) => page.since = next.time,
            (Some(next), Order::OldestFirst) => page.until = next.time,
        }
        let mut gaps = std::mem::take(&mut self.gaps).into_vec();
        gaps.retain(|gap| Span::of_gap(gap).overlaps(&page));
        gaps
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::Which;
    use crate::history::format::Packed;
    use crate::twin::PropertyId;

    fn id(property: u8) -> PropertyId {
        PropertyId::parse(&format!("water/tank/p{property}")).unwrap()
    }

    fn offer(selection: &mut Selection<'_>, cursor: &Cursor) {
        let mut room = Vec::new();
        let value = Packed::new(&Value::Int(cursor.ordinal as i64), &mut room);
        let (time, quality) = (cursor.time, Quality::Good);
        let reading = Reading { property: 0, time, stored: time, quality, value, age: 0 };
        selection.offer(&reading, || cursor.clone());
    }

    fn cursor(time: u64, property: u8, ordinal: u64) -> Cursor {
        Cursor { time: UnixMillis(time), id: id(property), ordinal }
    }

    fn places(answer: &Answer) -> Vec<(u64, PropertyId, i64)> {
        let place = |row: &Row| {
            let Value::Int(ordinal) = row.sample.value else { panic!("{row:?}") };
            (row.sample.time.0, row.id.clone(), ordinal)
        };
        answer.rows.iter().map(place).collect()
    }

    /// All pages of a query, one after the other.
    fn pages(all: &[Cursor], mut query: Query) -> Vec<(u64, PropertyId, i64)> {
        let mut rows = Vec::new();
        loop {
            let mut selection = Selection::new(&query);
            all.iter().for_each(|cursor| offer(&mut selection, cursor));
            let answer = selection.finish();
            assert!(answer.rows.len() <= query.limit);
            rows.extend(places(&answer));
            let Some(next) = answer.next else { return rows };
            assert_eq!(answer.rows.len(), query.limit);
            query.after = Some(next);
        }
    }

    proptest! {
        #[test]
        fn pages_are_the_sorted_rows_cut_at_the_limit(
            rows in proptest::collection::btree_set((0u64..12, 0u8..3, 0u64..4), 0..40),
            shuffle: u64, since in 0u64..12, span in 0u64..12, limit in 1usize..6, newest_first: bool,
        ) {
            let mut offered: Vec<Cursor> = rows.iter().map(|(t, p, n)| cursor(*t, *p, *n)).collect();
            offered.sort_by_key(|c| bus::backoff::Jitter::new(shuffle ^ c.time.0 << 8 ^ c.ordinal).next_u64());
            let order = if newest_first { Order::NewestFirst } else { Order::OldestFirst };
            let (since, until) = (UnixMillis(since), UnixMillis(since + span));
            let query = Query { which: Which::All, since, until, order, limit, after: None };
            let mut expected: Vec<_> = rows.iter()
                .filter(|(time, ..)| (since.0..=until.0).contains(time))
                .map(|(t, p, n)| (*t, id(*p), *n as i64))
                .collect();
            if newest_first {
                expected.reverse();
            }
            prop_assert_eq!(pages(&offered, query), expected);
        }
    }

    #[test]
    fn a_page_tells_of_the_gaps_within_its_time() {
        let gap = |since, until| Gap { since: UnixMillis(since), until: UnixMillis(until), samples: 1 };
        let query = Query {
            which: Which::All,
            since: UnixMillis(10),
            until: UnixMillis(90),
            order: Order::NewestFirst,
            limit: 2,
            after: None,
        };
        let mut selection = Selection::new(&query);
        for gap in [gap(80, 95), gap(0, 5), gap(20, 30), gap(45, 55), gap(80, 95), gap(91, 99)] {
            selection.offer_gap(gap);
        }
        [20, 40, 60, 50].iter().for_each(|time| offer(&mut selection, &cursor(*time, 0, 0)));
        let answer = selection.finish();
        assert_eq!(places(&answer), [(60, id(0), 0), (50, id(0), 0)]);
        assert_eq!(answer.gaps, [gap(45, 55), gap(80, 95)]);
    }
}
