//! Which points one request to a device fetches.

use std::ops::Deref;

use crate::Point;

/// Where a point lies among its neighbours, in a protocol that reads runs of addresses at once (Modbus registers, bytes of
/// an S7 data block).
///
/// ```
/// use kubebus_sdk::Span;
/// let holding_register_40 = Span { area: 3, start: 40, len: 2 };
/// # assert_eq!(holding_register_40.end(), 42);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// What cannot be read in one request is apart by its area: a table, a function code, a data block.
    pub area: u64,
    pub start: u64,
    /// In the protocol's own unit: registers, bits, bytes.
    pub len: u64,
}

impl Span {
    /// The first address after it.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    fn with(self, other: Self) -> Self {
        Self { len: self.end().max(other.end()) - self.start, ..self }
    }
}

/// How far a protocol goes in one request, in the unit of its [`Span`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanLimits {
    /// Longest run that one request may ask for.
    pub longest: u64,
    /// Addresses between two points that are read along, because a second request would cost more.
    pub gap: u64,
}

/// Points that one [`Session::read`](crate::Session::read) fetches: what is due together and, for a mapper with spans, lies
/// close enough together for one request. It is a slice of points.
#[derive(Debug)]
pub struct Batch<'a, Address> {
    points: Vec<&'a Point<Address>>,
    span: Option<Span>,
}

impl<'a, Address> Batch<'a, Address> {
    /// The run of addresses that covers all points; `None` for a mapper without spans.
    pub fn span(&self) -> Option<Span> {
        self.span
    }

    /// One request for all these points, which were planned to go together.
    pub(crate) fn of(points: Vec<&'a Point<Address>>, span_of: impl Fn(&Address) -> Option<Span>) -> Self {
        let mut spans: Vec<Span> = points.iter().filter_map(|point| span_of(&point.address)).collect();
        spans.sort_unstable();
        let span = if spans.len() == points.len() { spans.into_iter().reduce(Span::with) } else { None };
        Self { points, span }
    }
}

impl<'a, Address> Deref for Batch<'a, Address> {
    type Target = [&'a Point<Address>];

    fn deref(&self) -> &Self::Target {
        &self.points
    }
}

impl<'s, 'a, Address> IntoIterator for &'s Batch<'a, Address> {
    type Item = &'s &'a Point<Address>;
    type IntoIter = std::slice::Iter<'s, &'a Point<Address>>;

    fn into_iter(self) -> Self::IntoIter {
        self.points.iter()
    }
}

/// As few requests as the limits allow: points sorted by address, each joined to the run before it if the gap is small
/// and the run stays short enough. Points without a span share one request.
pub(crate) fn requests<'a, Address>(
    points: Vec<&'a Point<Address>>,
    span_of: impl Fn(&Address) -> Option<Span>,
    limits: SpanLimits,
) -> Vec<Batch<'a, Address>> {
    let (mut placed, mut loose) = (Vec::new(), Vec::new());
    for point in points {
        match span_of(&point.address) {
            Some(span) => placed.push((span, point)),
            None => loose.push(point),
        }
    }
    placed.sort_by_key(|(span, _)| *span);
    let mut requests: Vec<Batch<'a, Address>> = Vec::new();
    if !loose.is_empty() {
        requests.push(Batch { points: loose, span: None });
    }
    for (span, point) in placed {
        if let Some(last) = requests.last_mut()
            && let Some(run) = last.span
            && joins(run, span, limits)
        {
            last.span = Some(run.with(span));
            last.points.push(point);
        } else {
            requests.push(Batch { points: vec![point], span: Some(span) });
        }
    }
    requests
}

fn joins(run: Span, next: Span, limits: SpanLimits) -> bool {
    run.area == next.area
        && next.start <= run.end().saturating_add(limits.gap)
        && run.with(next).len <= limits.longest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::Scale;
    use bus::ValueType;
    use proptest::prelude::*;

    fn points(spans: &[(u64, u64, u64)]) -> Vec<Point<Span>> {
        let point = |(i, (area, start, len)): (usize, &(u64, u64, u64))| Point {
            name: format!("p{i}"),
            value_type: ValueType::Int,
            address: Span { area: *area, start: *start, len: *len },
            scale: Scale::NONE,
        };
        spans.iter().enumerate().map(point).collect()
    }

    fn runs(spans: &[(u64, u64, u64)], longest: u64, gap: u64) -> Vec<(u64, u64, u64)> {
        let points = points(spans);
        let requests = requests(points.iter().collect(), |span| Some(*span), SpanLimits { longest, gap });
        requests.iter().map(|r| r.span().unwrap()).map(|s| (s.area, s.start, s.len)).collect()
    }

    #[test]
    fn neighbours_go_into_one_request_and_others_do_not() {
        assert_eq!(runs(&[(3, 2, 2), (3, 0, 2), (3, 4, 1)], 125, 0), [(3, 0, 5)]);
        assert_eq!(runs(&[(3, 0, 1), (4, 1, 1)], 125, 9), [(3, 0, 1), (4, 1, 1)], "two areas");
        assert_eq!(runs(&[(3, 0, 1), (3, 11, 1)], 125, 10), [(3, 0, 12)], "a gap that is read along");
        assert_eq!(runs(&[(3, 0, 1), (3, 12, 1)], 125, 10), [(3, 0, 1), (3, 12, 1)]);
        assert_eq!(runs(&[(3, 0, 100), (3, 100, 25), (3, 125, 1)], 125, 0), [(3, 0, 125), (3, 125, 1)]);
        assert_eq!(runs(&[(3, 0, 4), (3, 1, 1), (3, 1, 1)], 125, 0), [(3, 0, 4)], "one within another");
        assert_eq!(runs(&[(3, u64::MAX, 9)], 4, 0), [(3, u64::MAX, 9)], "one too long stands alone");
    }

    #[test]
    fn what_has_no_span_is_asked_for_together() {
        let points = points(&[(1, 0, 1), (1, 1, 1), (2, 0, 1)]);
        let span_of = |span: &Span| (span.area == 2).then_some(*span);
        let requests = requests(points.iter().collect(), span_of, SpanLimits { longest: 10, gap: 0 });
        let names: Vec<Vec<&str>> =
            requests.iter().map(|batch| batch.iter().map(|p| p.name.as_str()).collect()).collect();
        assert_eq!(names, [vec!["p0", "p1"], vec!["p2"]]);
        assert_eq!(requests[0].span(), None);
    }

    proptest! {
        #[test]
        fn every_point_is_in_one_request_that_covers_it(
            spans in proptest::collection::vec((0..3u64, 0..400u64, 1..5u64), 0..60),
            longest in 5..130u64,
            gap in 0..20u64,
        ) {
            let points = points(&spans);
            let requests =
                requests(points.iter().collect(), |span| Some(*span), SpanLimits { longest, gap });
            for batch in &requests {
                let run = batch.span().unwrap();
                prop_assert!(run.len <= longest);
                for point in batch {
                    let Span { area, start, .. } = point.address;
                    prop_assert!(area == run.area && run.start <= start && point.address.end() <= run.end());
                }
            }
            let mut asked: Vec<&str> = requests.iter().flat_map(|b| b.iter().map(|p| p.name.as_str())).collect();
            asked.sort_unstable();
            let mut all: Vec<&str> = points.iter().map(|p| p.name.as_str()).collect();
            all.sort_unstable();
            prop_assert_eq!(asked, all);
        }
    }
}
