//! One attachment's line: how fast, how late, how lossy.
//!
//! ```text
//!  packet -> queue (drop-tail) -> serialised at the rate -> lost? -> delay + jitter -> out, in order
//!                                                                          \-> held up: out behind others
//! ```
//! Each direction has its own queue and its own random stream, so that a packet more on one line changes nothing
//! on another.

use std::num::NonZeroU64;
use std::time::Duration;

use bus::Mono;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// A speed in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(NonZeroU64);

impl Rate {
    /// Network people's unit: 10^6 bits per second; zero is taken as one.
    pub const fn mbit(megabits: u32) -> Self {
        Self::bytes_per_second(megabits as u64 * 125_000)
    }

    /// 10^3 bits per second; zero is taken as one.
    pub const fn kbit(kilobits: u32) -> Self {
        Self::bytes_per_second(kilobits as u64 * 125)
    }

    /// Zero is taken as one: a dead line is [cut](crate::Internet::cut), not slow.
    pub const fn bytes_per_second(bytes: u64) -> Self {
        match NonZeroU64::new(bytes) {
            Some(rate) => Self(rate),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// How long `bytes` take, in nanoseconds, rounded up.
    fn nanos_for(self, bytes: usize) -> u64 {
        let nanos = (bytes as u128 * NANOS).div_ceil(u128::from(self.0.get()));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// How many bytes `nanos` hold, rounded down.
    fn bytes_in(self, nanos: u64) -> usize {
        let bytes = u128::from(nanos) * u128::from(self.0.get()) / NANOS;
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

const NANOS: u128 = 1_000_000_000;

/// Tells a line's two random streams apart.
const ORDER_STREAMS: u64 = 1 << 63;

/// A quarter of a second at 8 Mbit/s: a home router's buffer, bloated as they are. What does not fit is dropped
/// at the tail and counted.
pub const DEFAULT_QUEUE: usize = 256 * 1024;

/// What an attachment's line is like. The default is a perfect one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkSettings {
    /// Towards the internet; `None` is unlimited.
    pub up: Option<Rate>,
    /// From the internet; `None` is unlimited.
    pub down: Option<Rate>,
    /// Added to each packet in each direction; two attached nodes are the sum of their delays apart.
    pub delay: Duration,
    /// Up to this much more, drawn evenly per packet; it lets no packet overtake another.
    pub jitter: Duration,
    /// Packets lost in each direction, in millionths; 1,000,000 and more lose all.
    pub loss_ppm: u32,
    /// Packets in each direction that are held up for [`Self::reorder_delay`], so that others overtake them, in
    /// millionths; 1,000,000 and more hold up all, which is only more delay.
    pub reorder_ppm: u32,
    pub reorder_delay: Duration,
    /// Bytes that may wait for the line in each direction; more are dropped. One packet always fits.
    pub queue: usize,
    /// Bytes of the longest packet that passes, its IP header included; longer ones are lost without a word, as in a tunnel
    /// behind a firewall that drops ICMP.
    pub longest: usize,
    /// Loses all UDP, as a firewall does that lets only the web pass.
    pub no_udp: bool,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            up: None,
            down: None,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss_ppm: 0,
            reorder_ppm: 0,
            reorder_delay: Duration::ZERO,
            queue: DEFAULT_QUEUE,
            longest: usize::MAX,
            no_udp: false,
        }
    }
}

/// What becomes of a packet that is put on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Passes(Passage),
    Lost,
    QueueFull,
}

/// When a packet leaves the queue, and when it comes out at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passage {
    pub(crate) departs: Mono,
    pub(crate) arrives: Mono,
    /// Others may overtake it.
    pub(crate) is_held_up: bool,
}

/// One direction of a line.
#[derive(Debug)]
pub(crate) struct Line {
    rate: Option<Rate>,
    settings: LinkSettings,
    rng: ChaCha8Rng,
    /// Its own, so that a line that reorders loses the same packets as one that does not.
    order_rng: ChaCha8Rng,
    /// When the last accepted byte has left the queue, in nanoseconds: microseconds would round a fast line off.
    free_at_ns: u64,
    /// When the last packet arrives that none may overtake.
    last_out: Mono,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

impl Line {
    /// `stream` names the line's own random numbers within `seed`.
    pub(crate) fn new(direction: Direction, settings: LinkSettings, seed: u64, stream: u64) -> Self {
        let random = |stream| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(stream);
            rng
        };
        let (rng, order_rng) = (random(stream), random(ORDER_STREAMS | stream));
        let rate = rate_of(direction, settings);
        Self { rate, settings, rng, order_rng, free_at_ns: 0, last_out: Mono::ZERO }
    }

    /// Changes the settings and empties the queue: who holds the packets that wait puts them on the line
    /// [again](Self::send_again). `last_out` is when the last of those arrives that have left the queue.
    pub(crate) fn set(&mut self, direction: Direction, settings: LinkSettings, last_out: Mono) {
        self.rate = rate_of(direction, settings);
        self.settings = settings;
        self.free_at_ns = 0;
        self.last_out = last_out;
    }

    /// Puts a packet of `len` bytes on the line.
    pub(crate) fn send(&mut self, len: usize, now: Mono) -> Fate {
        let waiting = self.waiting(now);
        if waiting > 0 && waiting.saturating_add(len) > self.settings.queue {
            return Fate::QueueFull;
        }
        // Drawn for each packet, so that one setting does not shift the other's draws.
        let is_lost = self.draw_loss();
        let passage = self.send_again(len, now);
        if is_lost { Fate::Lost } else { Fate::Passes(passage) }
    }

    /// Puts a packet that was accepted before on the line: neither queue nor loss has a second say.
    pub(crate) fn send_again(&mut self, len: usize, now: Mono) -> Passage {
        let begins = self.free_at_ns.max(nanos(now));
        self.free_at_ns = begins.saturating_add(self.rate.map_or(0, |rate| rate.nanos_for(len)));
        let departs = Mono(self.free_at_ns.div_ceil(1000));
        let arrives = self.last_out.max(departs + self.settings.delay + self.draw_jitter());
        if self.draw_hold_up() {
            return Passage { departs, arrives: arrives + self.settings.reorder_delay, is_held_up: true };
        }
        self.last_out = arrives;
        Passage { departs, arrives, is_held_up: false }
    }

    fn waiting(&self, now: Mono) -> usize {
        let ahead = self.free_at_ns.saturating_sub(nanos(now));
        self.rate.map_or(0, |rate| rate.bytes_in(ahead))
    }

    /// Whether the way lets packets of this kind through at all.
    pub(crate) fn lets_pass(&self, packet: &[u8]) -> bool {
        /// IPv4's header has its protocol there; 17 is UDP.
        const PROTOCOL: usize = 9;
        let is_udp = packet.get(PROTOCOL) == Some(&17);
        packet.len() <= self.settings.longest && !(is_udp && self.settings.no_udp)
    }

    fn draw_loss(&mut self) -> bool {
        happens(&mut self.rng, self.settings.loss_ppm)
    }

    fn draw_hold_up(&mut self) -> bool {
        happens(&mut self.order_rng, self.settings.reorder_ppm)
    }

    fn draw_jitter(&mut self) -> Duration {
        let limit = u64::try_from(self.settings.jitter.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.rng.next_u64() % (limit.saturating_add(1)))
    }
}

fn happens(rng: &mut ChaCha8Rng, ppm: u32) -> bool {
    rng.next_u64() % 1_000_000 < u64::from(ppm)
}

fn rate_of(direction: Direction, settings: LinkSettings) -> Option<Rate> {
    match direction {
        Direction::Up => settings.up,
        Direction::Down => settings.down,
    }
}

fn nanos(time: Mono) -> u64 {
    time.0.saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_ms(ms: u64) -> Mono {
        Mono(ms * 1000)
    }

    fn line(settings: LinkSettings) -> Line {
        Line::new(Direction::Up, settings, 7, 0)
    }

    fn arrival(fate: Fate) -> Mono {
        let Fate::Passes(passage) = fate else { panic!("{fate:?}") };
        passage.arrives
    }

    #[test]
    fn a_packet_takes_its_time_on_the_line_and_then_the_delay() {
        let mut line = line(LinkSettings {
            up: Some(Rate::mbit(3)),
            delay: Duration::from_millis(20),
            ..LinkSettings::default()
        });
        // 1500 bytes at 375,000 bytes a second: 4 ms each, one behind the other.
        assert_eq!(arrival(line.send(1500, at_ms(100))), at_ms(124));
        assert_eq!(arrival(line.send(1500, at_ms(100))), at_ms(128));
        assert_eq!(arrival(line.send(1500, at_ms(200))), at_ms(224));
    }

    #[test]
    fn a_flood_leaves_at_the_rate_and_the_rest_is_dropped_at_the_tail() {
        let settings = LinkSettings { up: Some(Rate::mbit(3)), queue: 30_000, ..LinkSettings::default() };
        let mut line = line(settings);
        let (mut sent, mut full) = (0u64, 0u64);
        for ms in 0..10_000 {
            match line.send(1500, at_ms(ms)) {
                Fate::Passes(passage) => {
                    sent += 1;
                    assert!(
                        passage.arrives.since(at_ms(ms)) <= Duration::from_millis(80),
                        "30,000 bytes are 80 ms"
                    );
                }
                Fate::QueueFull => full += 1,
                Fate::Lost => panic!("no loss was asked for"),
            }
        }
        // 10 s at 250 packets a second, and the 20 that the queue took at the start.
        assert_eq!((sent, full), (2519, 7481));
    }

    #[test]
    fn unlimited_lines_have_no_queue() {
        let mut line = line(LinkSettings { queue: 0, ..LinkSettings::default() });
        for _ in 0..1000 {
            assert_eq!(arrival(line.send(65_535, at_ms(1))), at_ms(1));
        }
    }

    #[test]
    fn a_packet_larger_than_the_queue_passes_an_idle_line() {
        let mut line = line(LinkSettings { up: Some(Rate::mbit(8)), queue: 10, ..LinkSettings::default() });
        assert_eq!(arrival(line.send(1000, at_ms(0))), at_ms(1));
        assert_eq!(line.send(1000, at_ms(0)), Fate::QueueFull);
    }

    #[test]
    fn loss_is_as_told_over_many_packets() {
        for (loss_ppm, expected) in [(0, 0..=0), (50_000, 4800..=5200), (1_000_000, 100_000..=100_000)] {
            let mut line = line(LinkSettings { loss_ppm, ..LinkSettings::default() });
            let lost = (0..100_000).filter(|ms| line.send(100, at_ms(*ms)) == Fate::Lost).count();
            assert!(expected.contains(&lost), "{lost} of 100,000 at {loss_ppm} ppm");
        }
    }

    #[test]
    fn jitter_spreads_evenly() {
        let settings = LinkSettings {
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(10),
            ..LinkSettings::default()
        };
        let mut line = line(settings);
        let mut total = Duration::ZERO;
        for n in 0..10_000 {
            let now = at_ms(n * 20);
            let out = arrival(line.send(100, now));
            let late = out.since(now);
            assert!((10_000..=20_000).contains(&late.as_micros()), "{late:?}");
            total += late;
        }
        let mean = total / 10_000;
        assert!((14_800..=15_200).contains(&mean.as_micros()), "{mean:?}");
    }

    #[test]
    fn jitter_lets_no_packet_overtake_another() {
        let mut line = line(LinkSettings { jitter: Duration::from_millis(10), ..LinkSettings::default() });
        let arrivals: Vec<Mono> = (0..1000).map(|ms| arrival(line.send(100, at_ms(ms)))).collect();
        assert!(arrivals.is_sorted());
    }

    #[test]
    fn held_up_packets_are_overtaken_and_the_others_keep_their_order() {
        let settings = LinkSettings {
            delay: Duration::from_millis(10),
            reorder_ppm: 100_000,
            reorder_delay: Duration::from_millis(5),
            ..LinkSettings::default()
        };
        let mut line = line(settings);
        let lateness = |ms| arrival(line.send(100, at_ms(ms))).since(at_ms(ms)).as_millis();
        let late: Vec<u128> = (0..10_000).map(lateness).collect();
        let held_up = late.iter().filter(|ms| **ms == 15).count();
        assert!((900..=1100).contains(&held_up), "{held_up} of 10,000 at 100,000 ppm");
        assert_eq!(late.iter().filter(|ms| **ms == 10).count(), 10_000 - held_up);
    }

    #[test]
    fn a_line_that_reorders_loses_the_same_packets_as_one_that_does_not() {
        let lost = |reorder_ppm| {
            let mut line = line(LinkSettings { loss_ppm: 50_000, reorder_ppm, ..LinkSettings::default() });
            let is_lost = |ms| line.send(100, at_ms(ms)) == Fate::Lost;
            (0..1000).map(is_lost).collect::<Vec<_>>()
        };
        assert_eq!(lost(0), lost(500_000));
    }
}
