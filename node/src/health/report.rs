//! What an edge tells its cloud of itself, and what the cloud answers: minicbor on [`bus::Channel::Health`].
//!
//! ```text
//!   edge                                     cloud
//!     | -- Report 1, all ---------------------> |
//!     | <------------------------------- Ack 1 -|
//!     | -- Report 2, what differs from 1 -----> |
//!     | <------------------------------- Ack 2 -|
//! ```
//! A report builds on one that was acknowledged, or on nothing. Frames are of class telemetry, the last to travel and
//! the first to be dropped: what got lost is in the next report, which then says all. Numbers are told as differences,
//! so that a quiet edge needs some 45 bytes.

use bus::UnixMillis;
use minicbor::{Decode, Encode};

use super::links::{LinkHead, LinkState, MAX_LINKS};
use super::series::{LinkSeries, Series, Values};
use super::trouble::Trouble;

/// Numbers of one link.
const STRIDE: usize = LinkSeries::ALL.len();

/// Stands for a number that nobody knows.
pub(super) const UNKNOWN: u64 = u64::MAX;

/// The longest text that is told, in bytes: a report of everything stays under 3 KiB.
const MAX_TEXT: usize = 160;

/// How one node is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    pub values: Values,
    /// In the order of their heads; an edge's are at most [`MAX_LINKS`].
    pub links: Vec<LinkState>,
    pub about: About,
}

/// What is told in words, when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct About {
    #[n(0)]
    pub version: String,
    /// When its process began, on its own clock.
    #[n(1)]
    pub started: UnixMillis,
    /// Why the disk refuses writes, while it does.
    #[n(2)]
    pub disk: Option<String>,
    /// What went wrong last.
    #[n(3)]
    pub trouble: Option<Trouble>,
    /// Whether the kernel cuts and joins packets of TCP and of UDP at the overlay interface; `None` without one.
    #[n(4)]
    pub offload: Option<(bool, bool)>,
}

/// A text, cut to what is told.
pub fn brief(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// An edge to its cloud.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Report {
    /// Grows by one a report; the first of a process is 1.
    #[n(0)]
    pub(super) seq: u64,
    /// The report that this one builds on; 0: on nothing.
    #[n(1)]
    pub(super) base: u64,
    /// Differences of [`Series`].
    #[n(2)]
    values: Vec<u64>,
    /// All heads of links, if any of them is another one than in the base.
    #[n(3)]
    heads: Option<Vec<LinkHead>>,
    /// Differences of the links' numbers, link by link; against nothing where heads are told.
    #[n(4)]
    links: Vec<u64>,
    #[n(5)]
    about: Option<About>,
    /// How many numbers a link has, where some are told: more of a later version, fewer of an earlier one.
    #[n(6)]
    stride: Option<u64>,
}

/// A cloud to an edge: it has the report of this number; 0: it has none, and wants all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Ack {
    #[n(0)]
    pub(super) seq: u64,
}

impl Report {
    pub(super) fn new(seq: u64, condition: &Condition, base: Option<(u64, &Condition)>) -> Self {
        let nothing = Condition::default();
        let (base, before) = base.unwrap_or((0, &nothing));
        let heads = |condition: &Condition| -> Vec<LinkHead> {
            condition.links.iter().map(|link| link.head.clone()).collect()
        };
        let is_same = heads(condition) == heads(before);
        let numbers_before = if is_same { numbers(&before.links) } else { Vec::new() };
        let links = differences(&numbers(&condition.links), &numbers_before);
        Self {
            seq,
            base,
            values: differences(&condition.values.0, &before.values.0),
            heads: (!is_same).then(|| heads(condition)),
            stride: (!links.is_empty()).then_some(STRIDE as u64),
            links,
            about: (condition.about != before.about).then(|| condition.about.clone()),
        }
    }

    /// What the edge is like now; `None` if the report makes no sense on this base.
    pub(super) fn apply(self, before: &Condition) -> Option<Condition> {
        let Self { seq: _, base: _, values, heads, links, about, stride } = self;
        let mut condition = before.clone();
        applied(&mut condition.values.0, &values, Some)?;
        if let Some(heads) = heads {
            if heads.len() > MAX_LINKS {
                return None;
            }
            let fresh = |head| LinkState { head, numbers: [UNKNOWN; LinkSeries::ALL.len()] };
            condition.links = heads.into_iter().map(fresh).collect();
        }
        let mut all = numbers(&condition.links);
        let stride = usize::try_from(stride.unwrap_or(STRIDE as u64)).ok().filter(|stride| *stride > 0)?;
        let known =
            |place: usize| (place % stride < STRIDE).then_some(place / stride * STRIDE + place % stride);
        applied(&mut all, &links, known)?;
        for (link, numbers) in condition.links.iter_mut().zip(all.chunks_exact(STRIDE)) {
            link.numbers.copy_from_slice(numbers);
        }
        if let Some(About { version, started, disk, trouble, offload }) = about {
            let disk = disk.map(|why| brief(&why));
            let trouble = trouble.map(Trouble::brief);
            condition.about = About { version: brief(&version), started, disk, trouble, offload };
        }
        Some(condition)
    }
}

fn numbers(links: &[LinkState]) -> Vec<u64> {
    links.iter().flat_map(|link| link.numbers).collect()
}

/// Pairs: how many places further, and by how much the number there differs. The numbers after the end of `before`
/// differ from what is not known.
fn differences(after: &[u64], before: &[u64]) -> Vec<u64> {
    let (mut pairs, mut next) = (Vec::new(), 0);
    let before = before.iter().copied().chain(std::iter::repeat(UNKNOWN));
    for (place, (after, before)) in after.iter().zip(before).enumerate().filter(|(_, (a, b))| **a != *b) {
        pairs.push((place - next) as u64);
        pairs.push(zigzag(after.wrapping_sub(before)));
        next = place + 1;
    }
    pairs
}

/// `known` says which of our places one of the teller's is. One beyond the end is of a later version and left out.
fn applied(numbers: &mut [u64], pairs: &[u64], known: impl Fn(usize) -> Option<usize>) -> Option<()> {
    let mut next = 0_usize;
    for pair in pairs.chunks(2) {
        let [gap, difference] = *pair else { return None };
        let place = next.checked_add(usize::try_from(gap).ok()?)?;
        if let Some(number) = known(place).and_then(|place| numbers.get_mut(place)) {
            *number = number.wrapping_add(unzigzag(difference));
        }
        next = place.checked_add(1)?;
    }
    Some(())
}

/// Small differences of either sign become small numbers.
fn zigzag(difference: u64) -> u64 {
    let signed = difference as i64;
    ((signed << 1) ^ (signed >> 63)) as u64
}

fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ 0_u64.wrapping_sub(number & 1)
}

/// How much a report of everything may take: what a busy edge sends at most in one frame.
pub const MAX_REPORT: usize = 3072;

const _: () = assert!(Series::ALL.len() < 128, "a report of everything fits MAX_REPORT");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::links::Path;
    use bus::{Name, NodeId};
    use proptest::prelude::*;

    fn link(peer: &str, numbers: u64) -> LinkState {
        let head = LinkHead {
            path: Path::Direct,
            peer: NodeId::edge(Name::new(peer).unwrap()),
            is_packets: true,
            in_reserve: false,
            remote: Some("[2001:db8::1234:5678]:10001".parse().unwrap()),
        };
        LinkState { head, numbers: [numbers; LinkSeries::ALL.len()] }
    }

    fn through(report: Report, before: &Condition) -> Condition {
        let bytes = minicbor::to_vec(&report).unwrap();
        minicbor::decode::<Report>(&bytes).unwrap().apply(before).unwrap()
    }

    proptest! {
        #[test]
        fn a_report_on_any_base_gives_what_was_told(
            before in prop::collection::vec(any::<u64>(), Series::ALL.len()),
            after in prop::collection::vec(any::<u64>(), Series::ALL.len()),
            links in prop::collection::vec((0_u64..3, any::<u64>()), 0..MAX_LINKS),
            is_same in any::<bool>(),
        ) {
            let mut one = Condition::default();
            one.values.0.copy_from_slice(&before);
            one.links = links.iter().map(|(peer, _)| link(&format!("e{peer}"), 7)).collect();
            let mut two = Condition::default();
            two.values.0.copy_from_slice(&after);
            two.links = links.iter().map(|(peer, number)| link(&format!("e{peer}"), *number)).collect();
            if !is_same {
                two.links.pop();
            }
            two.about.disk = Some("no space".to_owned());
            prop_assert_eq!(&through(Report::new(2, &two, Some((1, &one))), &one), &two);
            prop_assert_eq!(&through(Report::new(2, &two, None), &Condition::default()), &two);
        }

        #[test]
        fn any_bytes_are_a_report_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(report) = minicbor::decode::<Report>(&bytes) {
                let _ = report.apply(&Condition::default());
            }
        }
    }

    #[test]
    fn everything_at_its_largest_fits_the_bound() {
        let mut all = Condition::default();
        all.values.0 = [u64::MAX / 3; Series::ALL.len()];
        let longest = "n".repeat(63);
        all.links = (0..MAX_LINKS).map(|_| link(&longest, u64::from(u32::MAX))).collect();
        all.about.version = "0.1.0-rc.12345".to_owned();
        all.about.disk = Some(brief(&"x".repeat(500)));
        let detail = "y".repeat(500);
        let kind = crate::health::TroubleKind::Unreachable;
        all.about.trouble = Some(Trouble { kind, detail, at: UnixMillis(1 << 41) }.brief());
        let len = minicbor::to_vec(Report::new(u64::MAX, &all, None)).unwrap().len();
        assert!(len <= MAX_REPORT, "{len}");
    }

    #[test]
    fn what_did_not_change_costs_nothing() {
        let mut quiet = Condition::default();
        quiet.values.0 = [5; Series::ALL.len()];
        quiet.links = vec![link("a", 1), link("b", 2)];
        let len = minicbor::to_vec(Report::new(900, &quiet, Some((899, &quiet)))).unwrap().len();
        assert!(len <= 12, "{len}");
    }

    #[test]
    fn rows_of_a_later_version_are_left_out() {
        let mut numbers = [1_u64, 2];
        assert_eq!(applied(&mut numbers, &[1, 2, 5, 4], Some), Some(()));
        assert_eq!(numbers, [1, 3]);
        assert_eq!(applied(&mut numbers, &[1], Some), None);
        assert_eq!(applied(&mut numbers, &[u64::MAX, 1], Some), None);
    }

    #[test]
    fn links_of_another_version_have_their_numbers_where_they_belong() {
        let mut edge = Condition { links: vec![link("a", 1), link("b", 2)], ..Condition::default() };
        for stride in [STRIDE + 2, STRIDE - 1] {
            let mut report = Report::new(1, &edge, None);
            let longer: Vec<u64> = [1, 2].into_iter().flat_map(|n| vec![n; stride]).collect();
            (report.links, report.stride) = (differences(&longer, &[]), Some(stride as u64));
            if stride < STRIDE {
                edge.links.iter_mut().for_each(|link| link.numbers[stride..].fill(UNKNOWN));
            }
            assert_eq!(through(report, &Condition::default()).links, edge.links);
        }
        let report = Report { stride: Some(0), ..Report::new(1, &edge, None) };
        assert_eq!(report.apply(&Condition::default()), None);
    }
}
