//! Gaps as they are found in the history, in any order and the same one several times, in bounded room.

use std::collections::BTreeSet;

use super::query::Gap;

/// Most gaps that are told apart where there is little room, in a plot or over a link.
pub const MAX_GAPS: usize = 50;

/// Most gaps that are told apart at all. A queue that stays full makes one a second: an hour of that, in 100 kB.
const MAX_HELD: usize = 4_096;

/// By time. What comes after the most that are told apart belongs to the last one.
#[derive(Debug, Default)]
pub(crate) struct Gaps(BTreeSet<Gap>);

impl Gaps {
    /// One that is found again is the same one; beyond [`MAX_HELD`] its samples may count twice.
    pub(crate) fn offer(&mut self, gap: Gap) {
        self.0.insert(gap);
        if self.0.len() > MAX_HELD
            && let (Some(last), Some(before)) = (self.0.pop_last(), self.0.pop_last())
        {
            self.0.insert(before.merge(last));
        }
    }

    pub(crate) fn into_vec(self) -> Vec<Gap> {
        self.0.into_iter().collect()
    }
}

/// The first [`MAX_GAPS`] of gaps by time; what comes after belongs to the last one.
pub fn few(gaps: &[Gap]) -> Vec<Gap> {
    let (few, rest) = gaps.split_at(gaps.len().min(MAX_GAPS));
    let mut few = few.to_vec();
    if let Some(last) = few.last_mut() {
        *last = rest.iter().copied().fold(*last, Gap::merge);
    }
    few
}

#[cfg(test)]
mod tests {
    use bus::UnixMillis;

    use super::*;

    fn gap(n: u64) -> Gap {
        Gap { since: UnixMillis(n * 10), until: UnixMillis(n * 10 + 1), samples: 1 }
    }

    #[test]
    fn more_gaps_than_are_held_lose_no_sample() {
        let most = 10 * MAX_HELD as u64;
        for backwards in [false, true] {
            let mut gaps = Gaps::default();
            let at = |n: u64| if backwards { most - 1 - n } else { n };
            (0..most).for_each(|n| gaps.offer(gap(at(n))));
            let gaps = gaps.into_vec();
            assert_eq!(
                (gaps.len(), gaps[0], gaps[MAX_HELD - 2]),
                (MAX_HELD, gap(0), gap(MAX_HELD as u64 - 2))
            );
            assert_eq!(gaps[MAX_HELD - 1].until, gap(most - 1).until);
            assert_eq!(gaps.iter().map(|gap| gap.samples).sum::<u64>(), most);
        }
    }

    #[test]
    fn a_gap_that_is_found_twice_is_one() {
        let mut gaps = Gaps::default();
        [2, 1, 2, 1].iter().for_each(|n| gaps.offer(gap(*n)));
        assert_eq!(gaps.into_vec(), [gap(1), gap(2)]);
        assert_eq!((few(&[]), few(&[gap(1)])), (vec![], vec![gap(1)]));
    }
}
