//! What outlives the segment that it is in.
//!
//! A property that speaks seldom must not lose its last words because its neighbour speaks all the time. So when the
//! oldest segment goes, those of its samples that are among the newest [`KEPT`] of their property are written into the
//! next new segment.

/// Samples of a property that are never lost for room: enough to see where a value came from, and 20,000 properties at
/// rest take a tenth of the history, once for each time it is written all over.
pub(crate) const KEPT: u64 = 16;

/// With more properties than this, one that was silent while the whole history was written all over loses its samples:
/// otherwise devices that are long gone would hold the room for ever.
pub(crate) const MAX_SILENT: usize = super::names::MAX_PROPERTIES / 2;

/// How many are kept instead where [`KEPT`] are too large.
const LEVELS: [u64; 8] = [KEPT, 12, 8, 6, 4, 3, 2, 1];

/// What keeping so many of each property takes.
#[derive(Debug, Default)]
pub(crate) struct Tally([u64; LEVELS.len()]);

impl Tally {
    /// A sample of `bytes`, the `age`-newest of its property; 1 is the newest.
    pub(crate) fn add(&mut self, age: u64, bytes: u64) {
        for (sum, level) in self.0.iter_mut().zip(LEVELS) {
            *sum += if age <= level { bytes } else { 0 };
        }
    }

    /// How many of each property are kept if all is to fit into `room` bytes. At least one, fit or not.
    pub(crate) fn level(&self, room: u64) -> u64 {
        self.0.iter().zip(LEVELS).find_map(|(sum, level)| (*sum <= room).then_some(level)).unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_are_kept_where_they_are_large_and_never_none() {
        let mut tally = Tally::default();
        (1..=100).for_each(|age| tally.add(age, 10));
        assert_eq!([160, 159, 80, 79, 20, 19, 9].map(|room| tally.level(room)), [16, 12, 8, 6, 2, 1, 1]);
    }
}
