//! How long a message takes there and back, and how fast many bytes go.

use std::time::Duration;

use bus::Mono;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::wire::Message;

/// Bytes of the large echo: less than the first window of a QUIC connection, so that the line's rate shows and no
/// window; a second of a line of 64 kbit/s.
pub const LARGE: usize = 8 << 10;

/// Echoes of one measurement: two small ones, of which the quicker counts, and the large one.
pub const ECHOES: u8 = 3;

/// The large one is sent at most so often: who looks again and again, or many who look, take nothing of a thin line.
pub(super) const MEASURE_GAP: Duration = Duration::from_secs(60);

/// A difference below this says nothing of the rate but that it is over 60 Mbit/s.
const SHORTEST: Duration = Duration::from_millis(1);

/// A way, measured by messages of the bus: with what both nodes and the queue between take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Way {
    #[n(0)]
    pub rtt_us: u64,
    /// `None`: too fast to tell from so little.
    #[n(1)]
    pub bytes_per_s: Option<u64>,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Echoes {
    id: u64,
    number: u8,
    /// With the large one or without.
    count: u8,
    sent: Mono,
    quickest: Option<Duration>,
    way: Option<Way>,
}

impl Echoes {
    fn begin(id: u64, count: u8, now: Mono) -> (Self, Message) {
        (Self { id, number: 0, count, sent: now, quickest: None, way: None }, echo(id, 0))
    }

    /// What has come of it.
    pub(super) fn way(&self) -> Option<Way> {
        self.way
    }

    pub(super) fn is_done(&self) -> bool {
        self.number == self.count
    }

    /// An answer; the next message, if there is one. One that was not waited for is ignored.
    pub(super) fn handle(&mut self, (id, number): (u64, u8), now: Mono) -> Option<Message> {
        if (id, number) != (self.id, self.number) || self.is_done() {
            return None;
        }
        let took = now.since(self.sent);
        let is_large = number + 1 == ECHOES;
        if is_large {
            let more = took.saturating_sub(self.quickest.unwrap_or_default());
            let bytes_per_s = (more >= SHORTEST).then(|| (LARGE as f64 / more.as_secs_f64()) as u64);
            self.way.iter_mut().for_each(|way| way.bytes_per_s = bytes_per_s);
        } else {
            let quickest = self.quickest.map_or(took, |before| before.min(took));
            self.quickest = Some(quickest);
            let rtt_us = u64::try_from(quickest.as_micros()).unwrap_or(u64::MAX);
            self.way = Some(Way { rtt_us, bytes_per_s: None });
        }
        self.number += 1;
        self.sent = now;
        (!self.is_done()).then(|| echo(id, self.number))
    }
}

fn echo(id: u64, number: u8) -> Message {
    let len = if number + 1 == ECHOES { LARGE } else { 0 };
    Message::Echo { id, number, padding: ByteVec::from(vec![0; len]) }
}

/// How fast a way was when that was measured last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rate {
    measured: Option<Mono>,
    bytes_per_s: Option<u64>,
}

impl Rate {
    /// Echoes, with the large one if it is due, and the first message.
    pub(super) fn begin(&mut self, id: u64, now: Mono) -> (Echoes, Message) {
        if !self.is_old(now) {
            return Echoes::begin(id, ECHOES - 1, now);
        }
        *self = Self { measured: Some(now), bytes_per_s: None };
        Echoes::begin(id, ECHOES, now)
    }

    /// What has come of the last ones.
    pub(super) fn end(&mut self, echoes: &Echoes) -> Option<Way> {
        let way = echoes.way()?;
        if echoes.count == ECHOES {
            self.bytes_per_s = way.bytes_per_s;
        }
        Some(Way { bytes_per_s: self.bytes_per_s, ..way })
    }

    pub(super) fn is_old(&self, now: Mono) -> bool {
        self.measured.is_none_or(|at| now.since(at) >= MEASURE_GAP)
    }
}

/// What the other side may have echoed: the echoes of one measurement, each once and in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    id: u64,
    next: u8,
}

impl Allowance {
    pub(super) fn new(id: u64) -> Self {
        Self { id, next: 0 }
    }

    /// The answer to an echo; `None`: it was not due.
    pub(super) fn answer(&mut self, id: u64, number: u8) -> Option<Message> {
        if id != self.id || number != self.next || number >= ECHOES {
            return None;
        }
        self.next += 1;
        Some(Message::Echoed { id, number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quicker_of_two_counts_and_the_large_one_tells_the_rate() {
        let at = |ms| Mono::ZERO + Duration::from_millis(ms);
        let mut rate = Rate::default();
        let (mut echoes, first) = rate.begin(7, at(0));
        assert_eq!(first, Message::Echo { id: 7, number: 0, padding: ByteVec::from(Vec::new()) });
        assert_eq!(echoes.handle((8, 0), at(1)), None, "of another measurement");
        assert!(echoes.handle((7, 0), at(50)).is_some());
        assert_eq!(echoes.handle((7, 0), at(60)), None, "twice");
        let Some(Message::Echo { padding, .. }) = echoes.handle((7, 1), at(70)) else { panic!() };
        assert_eq!(padding.len(), LARGE);
        assert_eq!(echoes.handle((7, 2), at(70 + 20 + 1000)), None);
        assert!(echoes.is_done());
        let measured = Way { rtt_us: 20_000, bytes_per_s: Some(LARGE as u64) };
        assert_eq!(rate.end(&echoes), Some(measured));
        // Soon again: without the large one, and the rate is known.
        let (mut echoes, _) = rate.begin(8, at(2000));
        assert!(echoes.handle((8, 0), at(2030)).is_some());
        assert_eq!(echoes.handle((8, 1), at(2060)), None);
        assert!(echoes.is_done());
        assert_eq!(rate.end(&echoes), Some(Way { rtt_us: 30_000, ..measured }));
        let later = at(0) + MEASURE_GAP;
        assert!(!rate.is_old(at(59_999)) && rate.is_old(later));
    }

    #[test]
    fn only_what_is_due_is_echoed() {
        let mut allowance = Allowance::new(7);
        assert_eq!(allowance.answer(8, 0), None);
        assert_eq!(allowance.answer(7, 1), None);
        for number in 0..ECHOES {
            assert_eq!(allowance.answer(7, number), Some(Message::Echoed { id: 7, number }));
            assert_eq!(allowance.answer(7, number), None);
        }
        assert_eq!(allowance.answer(7, ECHOES), None);
    }
}
