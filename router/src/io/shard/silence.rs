//! Knocking at a peer that has fallen silent.
//!
//! QUIC doubles its probe timeout (RFC 9002 §6.2.1): after a cut of half a minute the next probe may come half a
//! minute late. A bus link that waits for an answer is asked once a second instead, so that both sides agree again a
//! second after the path is back. A link that waits for nothing sends nothing; a packets link needs none of it, since
//! what runs inside repeats itself.

use std::time::{Duration, Instant};

use quinn_proto::ConnectionStats;

/// Between two knocks: 60 bytes a second while a peer is silent, until the idle timeout ends the link.
const KNOCK_EVERY: Duration = Duration::from_secs(1);

/// What was heard of a peer, and since when it owes us an answer.
#[derive(Debug, Default)]
pub(super) struct Silence {
    heard: u64,
    asked: u64,
    knock_at: Option<Instant>,
}

impl Silence {
    /// To be called after each turn of the link. Only frames that the peer must acknowledge count as asked.
    pub(super) fn observe(&mut self, stats: &ConnectionStats, now: Instant) {
        let asked = stats.frame_tx.stream + stats.frame_tx.ping;
        self.note(stats.udp_rx.datagrams, asked, now);
    }

    fn note(&mut self, heard: u64, asked: u64, now: Instant) {
        if heard != self.heard {
            *self = Self { heard, asked, knock_at: None };
        } else if asked > self.asked && self.knock_at.is_none() {
            self.knock_at = Some(now + KNOCK_EVERY);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.knock_at
    }

    /// Whether to knock now.
    pub(super) fn knock(&mut self, now: Instant) -> bool {
        let due = self.knock_at.is_some_and(|at| at <= now);
        if due {
            self.knock_at = Some(now + KNOCK_EVERY);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_owes_an_answer_is_knocked_at_every_second_until_it_is_heard() {
        let start = Instant::now();
        let mut silence = Silence::default();
        silence.note(1, 0, start);
        assert_eq!(silence.deadline(), None, "nothing was asked");
        silence.note(1, 1, start);
        assert!(!silence.knock(start));
        assert!(silence.knock(start + KNOCK_EVERY));
        silence.note(1, 2, start + KNOCK_EVERY);
        assert!(!silence.knock(start + KNOCK_EVERY), "once a second");
        assert!(silence.knock(start + 2 * KNOCK_EVERY));
        silence.note(2, 3, start + 2 * KNOCK_EVERY);
        assert_eq!(silence.deadline(), None, "it was heard");
    }
}
