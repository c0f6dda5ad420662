//! How fast a link is, found out from what arrives and how long it takes.

use std::time::Duration;

use bus::Mono;

use super::codel::ONE_PACKET;
use super::rate::BitRate;

/// UDP's and IPv4's heads, which QUIC does not count.
const UNCOUNTED: u64 = 28;

/// The shortest time over which anything is judged. At 3 Mbit/s 24 packets arrive in it; over less, one that comes
/// late is a fifth of all.
const LEAST_ROUND: Duration = Duration::from_millis(100);

/// The same while nothing is held: a queue is to be seen before it has grown. It must then stand for two rounds.
const OPEN_ROUND: Duration = Duration::from_millis(50);

/// A round so many times as long as it was to be had a pause in it: it shows the sender's rate, not the link's.
const HOLE: u32 = 4;

/// A link whose packets are never later than this needs nobody to hold it. Voice bears 150 ms one way (ITU-T G.114).
const OPEN_EXCESS: Duration = Duration::from_millis(25);

/// The queue that is kept at the narrowest place while we hold a busy link, so that it never runs dry...
const LEAST_STANDING: Duration = Duration::from_millis(8);

/// ...or that of so many full packets: on thin links fewer are not a queue, but packets being sent.
const STANDING_PACKETS: u64 = 2;

/// A link that delivers this much is not held: a packet takes 60 us, and queues are the hosts' own.
pub const UNLIMITED_AT: BitRate = BitRate::from_mbit(200);

/// No link is held to less: a full packet every 100 ms still finds out when it is faster again.
pub const LEAST_RATE: BitRate = BitRate::from_bits(128_000);

/// The time constant with which the rate grows towards a standing queue. What we change shows in up to two round
/// trips, and a loop with a delay of d that corrects with less than 2.7 d overshoots.
const GROWTH_RTTS: u32 = 4;

/// The same for short ways, whose rounds are longer than their round trips.
const LEAST_GROWTH: Duration = Duration::from_millis(400);

/// A smoothed round trip is that of so many packets ago: eight acknowledgements of two (RFC 9002 §5.3). On thin links
/// they are the delay.
const SMOOTHED_PACKETS: u64 = 16;

/// The time constant with which a queue shrinks: half of it. To overshoot downward costs a little of the link for a
/// moment, to be late costs all who wait.
const DRAIN_RTTS: u32 = 2;
const LEAST_DRAIN: Duration = Duration::from_millis(200);

/// Rounds after which a drain that has not ended leaves no doubt: it sends [`CLEAR_CUT`] of what arrives.
const PATIENT_ROUNDS: u32 = 10;

/// What arrives is known to a tenth. Who sends this part of it makes any queue of his shorter.
const CLEAR_CUT: f64 = 0.8;

/// Full rounds without a queue after which the search for more grows bolder: sooner, and a link found only just now
/// to be full would be overshot before its queue shows.
const CALM_ROUNDS: u32 = 3;

/// The boldest step upward in a round.
const LARGEST_STEP: f64 = 0.25;

/// The smallest part of its rate that a round may leave: one strange measurement is no new link.
const LARGEST_CUT: f64 = 0.25;

/// More than this of what was sent must arrive: less, and the link is slower than thought.
const ARRIVES: f64 = 0.9;

/// What the shaper knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sending {
    /// Sent since the start, in bytes on the wire.
    pub bytes: u64,
    /// Whether since the last sample there was a time at which more could have been sent.
    pub ran_dry: bool,
}

/// What a connection knows about its path. Cumulative, so that none is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathSample {
    /// UDP payload bytes of acknowledged packets, since the connection's start. Where only losses are known: sent
    /// less lost less in flight.
    pub acked_bytes: u64,
    /// Acknowledged packets.
    pub acked_packets: u64,
    /// The smoothed round trip, as quinn has it; or the shortest since the last sample, which knows more of a link
    /// whose delay varies.
    pub rtt: Duration,
}

/// Who fills a link sends full packets: QUIC packs what waits. Smaller ones on the average are the acknowledgements of what
/// comes the other way, and the delay is of a queue there. To hold them would leave our own direction at their rate.
const OURS_FROM: u64 = ONE_PACKET / 3;

/// Finds the rate to which a link is to be held so that the queue is ours and not the modem's.
///
/// What arrives is measured round by round (a round trip, at least 100 ms), between acknowledgements, so that a link
/// with a queue shows its exact rate. The queue elsewhere is the round's shortest round trip less the shortest known
/// (the *excess*): jitter does not count, a standing queue does. That is BBR's measurement (delivery rate, shortest
/// round trip) without its control: the flows inside have their own.
/// ```text
///             a queue of ours stands                  excess <= standing
///    Open --------------------------> Draining ----------------------------> Held
///  (no limit)                          ^    |                               |  |
///      ^                               |    | drained twice, and still there|  |
///      |                               |    +--> (a longer way) ----------->|  |
///      |                               +------------------------------------+  |
///      +-----------------------------------------------------------------------+
///                                 faster than UNLIMITED_AT
/// ```
/// - *Open*: two rounds of 50 ms end with a queue of `OPEN_EXCESS` that is ours.
/// - *Draining*: the link delivers its whole rate, `anchor`. We send `anchor * T / (T + excess - standing / 2)`: the
///   queue shrinks in about its own length and T (two round trips), the last of it gently. If after twice the queue the
///   excess is still there, it was not ours (a longer way, somebody else's transfer): it becomes part of the way, and
///   the rate is again what it was.
/// - *Held*: while what is sent fills the rate and no queue stands, the rate grows: by `(standing - excess) / T` a
///   round (T: four round trips and more), and after some rounds in which nothing queues at all by half of that more each
///   round, up to a quarter. A rate that is not used stays. Losses alone change nothing: on a radio link they say
///   nothing about its rate.
///
/// Its equilibrium is a queue of two packets at the narrowest place: a full link, and a delay below 10 ms at 3 Mbit/s.
#[derive(Debug)]
pub struct RateEstimator {
    state: State,
    /// The way with nothing queued.
    base: Option<Duration>,
    round: Option<Round>,
    acked: u64,
    /// What was sent in the round before, which arrives in this one.
    sent_before: Option<BitRate>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// `full`: the last round ended with a queue.
    Open {
        full: bool,
        best: Best,
    },
    Held {
        rate: BitRate,
        calm: u32,
    },
    Draining(Drain),
}

/// The fastest of the rounds in the last round trip or two: a window's worth of packets may arrive as a burst and a
/// pause, and it is the burst that shows the link.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Best {
    now: BitRate,
    before: BitRate,
    age: Duration,
}

impl Best {
    fn rate(self) -> BitRate {
        self.now.max(self.before)
    }

    fn with(self, seen: &Seen) -> Self {
        let age = self.age + seen.length;
        if age < LEAST_ROUND.max(seen.base + seen.excess) {
            return Self { now: self.now.max(seen.delivered), age, ..self };
        }
        Self { now: seen.delivered, before: self.now.max(seen.delivered), age: Duration::ZERO }
    }
}

impl State {
    const OPEN: Self =
        Self::Open { full: false, best: Best { now: LEAST_RATE, before: LEAST_RATE, age: Duration::ZERO } };
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Drain {
    rate: BitRate,
    /// What the link delivers.
    anchor: BitRate,
    /// The largest excess since it began.
    peak: Duration,
    /// How much of a queue must be gone by now.
    paid: Duration,
    rounds: u32,
    /// The rate when it began.
    before: Option<BitRate>,
}

#[derive(Debug, Clone, Copy)]
struct Round {
    since: Mono,
    acked: u64,
    acked_packets: u64,
    sent: u64,
    ran_dry: bool,
    shortest: Duration,
}

/// What a round showed.
#[derive(Debug, Clone, Copy)]
struct Seen {
    delivered: BitRate,
    /// Bytes in a packet on the average.
    packet: u64,
    sent: BitRate,
    /// Of the round before.
    sent_before: BitRate,
    ran_dry: bool,
    excess: Duration,
    base: Duration,
    length: Duration,
}

impl Default for RateEstimator {
    fn default() -> Self {
        Self::new()
    }
}

impl RateEstimator {
    pub fn new() -> Self {
        Self { state: State::OPEN, base: None, round: None, acked: 0, sent_before: None }
    }

    /// What to hold the link to; `None`: nothing.
    pub fn rate(&self) -> Option<BitRate> {
        match self.state {
            State::Open { .. } => None,
            State::Held { rate, .. } | State::Draining(Drain { rate, .. }) => Some(rate),
        }
    }

    /// The round trip with nothing queued.
    pub fn base_rtt(&self) -> Option<Duration> {
        self.base
    }

    /// Says whether a round ended, with which the rate and the round trip may have changed.
    pub fn handle_sample(&mut self, sample: &PathSample, sending: Sending, now: Mono) -> bool {
        let acked = sample.acked_bytes + sample.acked_packets * UNCOUNTED;
        if let Some(round) = &mut self.round {
            round.ran_dry |= sending.ran_dry;
        }
        if acked <= self.acked || sample.rtt.is_zero() {
            return false;
        }
        self.acked = acked;
        let begun = Round {
            since: now,
            acked,
            acked_packets: sample.acked_packets,
            sent: sending.bytes,
            ran_dry: false,
            shortest: Duration::MAX,
        };
        let round = self.round.get_or_insert(Round { shortest: sample.rtt, ..begun });
        round.shortest = round.shortest.min(sample.rtt);
        let round = *round;
        let wanted = match self.state {
            State::Open { .. } => OPEN_ROUND,
            State::Held { .. } | State::Draining(_) => LEAST_ROUND.max(sample.rtt),
        };
        let length = now.since(round.since);
        if length < wanted {
            return false;
        }
        self.round = Some(begun);
        let base = self.base.map_or(round.shortest, |base| base.min(round.shortest));
        self.base = Some(base);
        let sent = BitRate::of(sending.bytes - round.sent, length);
        let sent_before = self.sent_before.replace(sent).unwrap_or(sent);
        if length <= wanted * HOLE {
            self.state = self.judge(&Seen {
                delivered: BitRate::of(acked - round.acked, length),
                packet: (acked - round.acked)
                    .checked_div(sample.acked_packets - round.acked_packets)
                    .unwrap_or(u64::MAX),
                sent,
                sent_before,
                ran_dry: round.ran_dry,
                excess: round.shortest - base,
                base,
                length,
            });
        }
        true
    }

    fn judge(&mut self, seen: &Seen) -> State {
        match self.state {
            State::Open { full, best } => {
                let best = best.with(seen);
                let is_full = best.rate() < UNLIMITED_AT && seen.has_queue(OPEN_EXCESS);
                if is_full && full {
                    return State::Draining(Drain::begin(seen, best.rate(), None));
                }
                State::Open { full: is_full, best }
            }
            State::Held { rate, .. } if rate >= UNLIMITED_AT => State::OPEN,
            State::Held { rate, .. } if seen.has_queue(standing(rate)) => {
                State::Draining(Drain::begin(seen, seen.delivered, Some(rate)))
            }
            State::Held { rate, calm } => held(rate, calm, seen),
            State::Draining(drain) if seen.excess <= standing(drain.anchor) => {
                State::Held { rate: drain.anchor, calm: 0 }
            }
            State::Draining(drain) => {
                let drain = drain.next(seen);
                if drain.paid < drain.peak * 2 || seen.excess < drain.peak / 2 {
                    return State::Draining(drain);
                }
                self.base = Some(seen.base + seen.excess);
                drain.before.map_or(State::OPEN, |rate| State::Held { rate, calm: 0 })
            }
        }
    }
}

impl Drain {
    fn begin(seen: &Seen, delivered: BitRate, before: Option<BitRate>) -> Self {
        let anchor = delivered.max(LEAST_RATE);
        let start = Self { rate: anchor, anchor, peak: seen.excess, paid: Duration::ZERO, rounds: 0, before };
        start.with_rate(seen)
    }

    /// A link that delivers less than was sent delivers all it can. One that delivers what was sent shows nothing, and
    /// what it showed before counts, lest a delay that is not ours starve us. More is believed a quarter a round:
    /// acknowledgements may have come in a bunch.
    fn next(mut self, seen: &Seen) -> Self {
        let is_full = seen.delivered < seen.sent.min(seen.sent_before).scaled(ARRIVES);
        self.anchor =
            if is_full { seen.delivered } else { self.anchor.approached(seen.delivered) }.max(LEAST_RATE);
        self.peak = self.peak.max(seen.excess);
        let part = seen.sent.bits_per_s() as f64 / self.anchor.bits_per_s() as f64;
        if part < (1.0 + CLEAR_CUT) / 2.0 {
            self.paid += seen.length.mul_f64(1.0 - part);
        }
        self.rounds += 1;
        self.with_rate(seen)
    }

    fn with_rate(mut self, seen: &Seen) -> Self {
        let time = LEAST_DRAIN.max(seen.base * DRAIN_RTTS);
        let over = seen.excess.saturating_sub(standing(self.anchor) / 2);
        let gentle = time.as_secs_f64() / (time + over).as_secs_f64();
        let part = if self.rounds < PATIENT_ROUNDS { gentle } else { gentle.min(CLEAR_CUT) };
        self.rate = self.anchor.scaled(part.max(LARGEST_CUT)).max(LEAST_RATE);
        self
    }
}

impl Seen {
    /// Whether more than `allowed` waits elsewhere, and is ours: at what we send, that time holds packets.
    fn has_queue(&self, allowed: Duration) -> bool {
        self.excess > allowed
            && self.packet >= OURS_FROM
            && self.delivered.bytes_in(self.excess) >= STANDING_PACKETS * ONE_PACKET
    }
}

/// The next step upward, or none. On a long way a round is long, and so is the queue that a step too many makes in it:
/// there the steps grow more slowly (`short`).
fn held(rate: BitRate, calm: u32, seen: &Seen) -> State {
    if seen.ran_dry && seen.sent < rate {
        return State::Held { rate, calm: calm / 2 };
    }
    let standing = standing(rate);
    let calm = if seen.excess < standing / 2 { calm + u32::from(!seen.ran_dry) } else { 0 };
    let below = standing.saturating_sub(seen.excess).as_secs_f64();
    let lag = LEAST_GROWTH.max(seen.base * GROWTH_RTTS);
    let slow = lag + rate.time_of(SMOOTHED_PACKETS * ONE_PACKET) * GROWTH_RTTS;
    let short = LEAST_ROUND.as_secs_f64() / seen.length.max(LEAST_ROUND).as_secs_f64();
    let bolder =
        if seen.ran_dry { short } else { 1.0 + f64::from(calm.saturating_sub(CALM_ROUNDS)) * short / 2.0 };
    let step = (below / slow.as_secs_f64() * bolder).min(LARGEST_STEP);
    State::Held { rate: rate.scaled(1.0 + step), calm }
}

fn standing(rate: BitRate) -> Duration {
    LEAST_STANDING.max(rate.time_of(STANDING_PACKETS * ONE_PACKET))
}

#[cfg(test)]
mod tests;
