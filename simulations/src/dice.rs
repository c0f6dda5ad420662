//! Chance, all of it from the seed.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// What a stream of chance decides. Each has its own, so that one more frame on a link does not move a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Setting = 1,
    Faults = 2,
    Network = 3,
    Disks = 4,
    Devices = 5,
    Apps = 6,
}

/// One stream of chance.
#[derive(Debug)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    pub fn new(seed: u64, purpose: Purpose) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(purpose as u64);
        Self(rng)
    }

    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Even over `from..=to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.number() % (to.saturating_sub(from) + 1)
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.number().is_multiple_of(n.max(1))
    }

    /// True this many times in a thousand.
    pub fn per_mille(&mut self, chance: u64) -> bool {
        self.between(0, 999) < chance
    }

    /// Even over `from..=to`, to the microsecond.
    pub fn span(&mut self, from: Duration, to: Duration) -> Duration {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.between(micros(from), micros(to)))
    }

    /// As often short as long: each power of two between the bounds is as likely as another.
    pub fn skewed(&mut self, from: Duration, to: Duration) -> Duration {
        let doublings = (to.as_secs_f64() / from.as_secs_f64().max(1e-6)).log2().max(0.0) as u64;
        let bound = from * (1u32 << self.between(0, doublings).min(31));
        self.span(from, bound.clamp(from, to))
    }

    /// Any of them; `None` of an empty list.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let last = from.len().checked_sub(1)?;
        from.get(self.between(0, last as u64) as usize)
    }
}
