//! A token bucket: no more than a rate, and no more than a few milliseconds of it at once.

use std::time::Duration;

use bus::Mono;

use super::codel::ONE_PACKET;
use super::rate::BitRate;

/// What may leave at once after a pause: a wake-up may be this late without a loss of rate.
const BURST: Duration = Duration::from_millis(5);

/// But at least two full packets: 8.4 ms of 3 Mbit/s. With one, each late wake-up would leave a gap.
const LEAST_BURST: u64 = 2 * ONE_PACKET;

/// Nothing is to be sent before `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    pub until: Mono,
}

/// Holds what is sent to a rate. A packet may leave as long as the bucket is not empty, and may overdraw it: what is
/// owed is waited for, so the average is exact for packets of any size.
#[derive(Debug)]
pub struct Shaper {
    rate: Option<BitRate>,
    /// In bits times microseconds in a second: no rounding adds up. Negative: owed.
    tokens: i128,
    at: Mono,
}

/// Token units in a byte.
const BYTE: i128 = 8_000_000;

impl Shaper {
    /// `None`: no limit.
    pub fn new(rate: Option<BitRate>, now: Mono) -> Self {
        let mut shaper = Self { rate, tokens: 0, at: now };
        shaper.tokens = shaper.depth();
        shaper
    }

    pub fn rate(&self) -> Option<BitRate> {
        self.rate
    }

    /// What was saved or is owed stays.
    pub fn set_rate(&mut self, rate: Option<BitRate>, now: Mono) {
        self.fill(now);
        self.rate = rate;
        self.tokens = self.tokens.min(self.depth());
    }

    /// `None`: a packet may leave now.
    pub fn poll(&mut self, now: Mono) -> Option<Wait> {
        let rate = self.rate?;
        self.fill(now);
        if self.tokens > 0 {
            return None;
        }
        let micros = (1 - self.tokens).div_euclid(i128::from(rate.bits_per_s())) + 1;
        Some(Wait { until: now + Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)) })
    }

    /// A packet leaves that has `bytes` on the wire.
    pub fn spend(&mut self, bytes: u64) {
        if self.rate.is_some() {
            self.tokens -= i128::from(bytes) * BYTE;
        }
    }

    fn fill(&mut self, now: Mono) {
        let passed = now.since(self.at);
        self.at = self.at.max(now);
        if let Some(rate) = self.rate {
            let gained = i128::from(rate.bits_per_s()) * passed.as_micros() as i128;
            self.tokens = (self.tokens + gained).min(self.depth());
        }
    }

    fn depth(&self) -> i128 {
        let burst = self.rate.map_or(0, |rate| rate.bytes_in(BURST));
        i128::from(burst.max(LEAST_BURST)) * BYTE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn after_a_pause_two_packets_leave_and_then_one_at_a_time() {
        let rate = BitRate::from_mbit(3);
        let mut shaper = Shaper::new(Some(rate), Mono::ZERO);
        let now = Mono(1_000_000);
        for _ in 0..2 {
            assert_eq!(shaper.poll(now), None);
            shaper.spend(ONE_PACKET);
        }
        let Some(Wait { until }) = shaper.poll(now) else { panic!("waits") };
        assert!(until - now <= Duration::from_micros(2), "{:?}", until - now);
        assert_eq!(shaper.poll(until), None);
        shaper.spend(ONE_PACKET);
        let Some(Wait { until: next }) = shaper.poll(until) else { panic!("waits") };
        let gap = (next - until).as_micros().abs_diff(rate.time_of(ONE_PACKET).as_micros());
        assert!(gap <= 2, "{:?}", next - until);
    }

    #[test]
    fn without_a_rate_nothing_waits_and_a_new_rate_begins_with_its_own_burst() {
        let mut shaper = Shaper::new(None, Mono::ZERO);
        for _ in 0..1000 {
            assert_eq!(shaper.poll(Mono::ZERO), None);
            shaper.spend(ONE_PACKET);
        }
        shaper.set_rate(Some(BitRate::from_mbit(3)), Mono(5));
        assert_eq!((shaper.poll(Mono(5)), shaper.rate()), (None, Some(BitRate::from_mbit(3))));
    }

    proptest! {
        #[test]
        fn no_time_sees_more_than_the_rate_and_one_burst_and_none_is_lost(
            kbit in 64u64..1_000_000, sizes in proptest::collection::vec(60u64..1600, 50..200), late in 0u64..3000,
        ) {
            let rate = BitRate::from_bits(kbit * 1000);
            let mut shaper = Shaper::new(Some(rate), Mono::ZERO);
            let (mut now, mut sent) = (Mono::ZERO, 0);
            let burst = rate.bytes_in(BURST).max(LEAST_BURST);
            for size in sizes {
                while let Some(Wait { until }) = shaper.poll(now) {
                    prop_assert!(until > now);
                    now = until + Duration::from_micros(late);
                }
                shaper.spend(size);
                sent += size;
                prop_assert!(sent <= rate.bytes_in(now - Mono::ZERO) + burst + size);
            }
            // Wake-ups that are late by less than the burst lose nothing.
            if rate.bytes_in(Duration::from_micros(late + 2)) < burst {
                prop_assert!(sent + burst + 1600 >= rate.bytes_in(now - Mono::ZERO));
            }
        }
    }
}
