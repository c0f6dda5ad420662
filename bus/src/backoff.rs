//! When to try again: full-jitter exponential backoff.

use std::time::Duration;

/// A small deterministic generator (SplitMix64) for jitter: not for secrets.
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Even over `0..=limit`.
    pub fn up_to(&mut self, limit: Duration) -> Duration {
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.next_u64() % (micros + 1))
    }
}

/// Waits grow from `first` to `cap`, each drawn evenly from zero to the current bound ("full jitter"), so that a
/// fleet that lost its cloud does not come back in step.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    attempt: u32,
    jitter: Jitter,
}

impl Backoff {
    pub fn new(first: Duration, cap: Duration, seed: u64) -> Self {
        Self { first, cap: cap.max(first), attempt: 0, jitter: Jitter::new(seed) }
    }

    /// How long to wait before the next try.
    pub fn next_wait(&mut self) -> Duration {
        let bound = self.first.saturating_mul(1u32 << self.attempt.min(20)).min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        self.jitter.up_to(bound)
    }

    /// A try succeeded.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_under_a_bound_that_doubles_to_the_cap() {
        let (first, cap) = (Duration::from_secs(1), Duration::from_secs(60));
        let mut backoff = Backoff::new(first, cap, 7);
        for attempt in 0..40u32 {
            let bound = first.saturating_mul(1 << attempt.min(20)).min(cap);
            assert!(backoff.next_wait() <= bound);
        }
        backoff.reset();
        assert!(backoff.next_wait() <= first);
    }

    #[test]
    fn two_seeds_do_not_walk_in_step() {
        let waits = |seed| {
            let mut b = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), seed);
            (0..8).map(|_| b.next_wait()).collect::<Vec<_>>()
        };
        assert_ne!(waits(1), waits(2));
        assert_eq!(waits(1), waits(1));
    }
}
