//! What a queue counts.

use std::time::Duration;

use super::class::Class;
use super::ecn::Mark;
use super::rate::BitRate;

/// A new packet's part in the smoothed wait: one eighth, as in TCP's round-trip estimate (RFC 6298 §2).
const SMOOTHING: u32 = 8;

/// Counters since the queue's start, and present numbers. What goes past an idle, unlimited queue is not in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// By [`Class::index`].
    pub classes: [ClassStats; Class::ALL.len()],
    /// What the link is held to; `None`: to nothing.
    pub rate: Option<BitRate>,
    /// The link's round trip with nothing queued, as far as known.
    pub base_rtt: Option<Duration>,
    /// What may wait in all classes, in bytes on the wire.
    pub bound: u64,
}

/// Of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClassStats {
    pub enqueued: u64,
    /// Handed out to be sent.
    pub sent: u64,
    /// Of those, the ones to be marked.
    pub marked: u64,
    /// Dropped: its flow waited too long for too long.
    pub dropped_codel: u64,
    /// Dropped: the queue was full, and its flow the longest.
    pub dropped_full: u64,
    /// Waiting now.
    pub packets: u64,
    /// Waiting now, in bytes on the wire.
    pub bytes: u64,
    /// The longest that a packet waited which was sent.
    pub sojourn_max: Duration,
    /// How long packets wait, smoothed.
    pub sojourn: Duration,
}

impl ClassStats {
    pub(super) fn left(&mut self, cost: u64) {
        self.packets -= 1;
        self.bytes -= cost;
    }

    pub(super) fn sent(&mut self, sojourn: Duration, mark: Mark) {
        self.sent += 1;
        self.marked += u64::from(mark == Mark::CongestionExperienced);
        self.sojourn_max = self.sojourn_max.max(sojourn);
        self.sojourn = (self.sojourn * (SMOOTHING - 1) + sojourn) / SMOOTHING;
    }
}
