//! How fast a link is, and what that means for a packet.

use std::time::Duration;

/// Bits per second on the wire, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitRate(u64);

impl BitRate {
    pub const fn from_bits(bits_per_s: u64) -> Self {
        Self(if bits_per_s == 0 { 1 } else { bits_per_s })
    }

    pub const fn from_mbit(mbit_per_s: u64) -> Self {
        Self::from_bits(mbit_per_s.saturating_mul(1_000_000))
    }

    /// What carries `bytes` in `time`.
    pub fn of(bytes: u64, time: Duration) -> Self {
        let micros = time.as_micros().max(1);
        Self::from_bits(u64::try_from(u128::from(bytes) * 8_000_000 / micros).unwrap_or(u64::MAX))
    }

    pub const fn bits_per_s(self) -> u64 {
        self.0
    }

    /// How long `bytes` take, rounded up to a microsecond.
    pub fn time_of(self, bytes: u64) -> Duration {
        let micros = (u128::from(bytes) * 8_000_000).div_ceil(u128::from(self.0));
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// How many whole bytes pass in `time`.
    pub fn bytes_in(self, time: Duration) -> u64 {
        u64::try_from(u128::from(self.0) * time.as_micros() / 8_000_000).unwrap_or(u64::MAX)
    }

    /// A quarter of the way up to `other`; not down.
    #[must_use]
    pub(super) fn approached(self, other: Self) -> Self {
        Self(self.0 + other.0.saturating_sub(self.0) / 4)
    }

    #[must_use]
    pub fn scaled(self, by: f64) -> Self {
        Self::from_bits((self.0 as f64 * by) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_time_are_each_others_inverse() {
        let thin = BitRate::from_mbit(3);
        assert_eq!(thin.time_of(1514), Duration::from_micros(4038));
        assert_eq!(thin.bytes_in(Duration::from_micros(4038)), 1514);
        assert_eq!(BitRate::of(375_000, Duration::from_secs(1)), thin);
        assert_eq!(BitRate::from_bits(0).time_of(1), Duration::from_secs(8));
    }
}
