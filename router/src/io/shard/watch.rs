//! Whether a peer still answers, where QUIC's idle time, 45 s, is too long to find out.
//!
//! Packets to a neighbour have another way, by the hub, so its link is given up as soon as several seconds' questions go
//! unanswered. A link on which nothing is sent asks nothing. A replica of a cloud that waits for its turn asks the one that
//! leads without pause.

use std::time::{Duration, Instant};

/// Between the first packet that hears nothing back and a question, and between two questions.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// From the first packet that hears nothing back to the end.
const LOST_AFTER: Duration = Duration::from_secs(4);

/// Questions that a replica must leave unanswered to be lost.
const QUESTIONS: u32 = 4;

/// Since when a peer owes a sign of life.
#[derive(Debug)]
pub(super) struct Watch {
    ask_every: Duration,
    lost_after: Duration,
    /// Whether it is asked although nothing else is sent.
    always: bool,
    owes: Option<Owes>,
}

#[derive(Debug)]
struct Owes {
    since: Instant,
    ask_at: Instant,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Fine,
    /// Send something that must be answered: what was sent last may have been an answer itself.
    Ask,
    Lost,
}

impl Watch {
    pub(super) fn of_neighbour() -> Self {
        Self { ask_every: ASK_EVERY, lost_after: LOST_AFTER, always: false, owes: None }
    }

    /// Lost when it was not heard for `silence`.
    pub(super) fn of_replica(silence: Duration, now: Instant) -> Self {
        let ask_every = silence / QUESTIONS;
        let owes = Some(Owes { since: now, ask_at: now + ask_every });
        Self { ask_every, lost_after: silence, always: true, owes }
    }

    pub(super) fn handle_heard(&mut self, now: Instant) {
        self.owes = None;
        if self.always {
            self.handle_sent(now);
        }
    }

    pub(super) fn handle_sent(&mut self, now: Instant) {
        self.owes.get_or_insert(Owes { since: now, ask_at: now + self.ask_every });
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.owes.as_ref().map(|owes| owes.ask_at.min(owes.since + self.lost_after))
    }

    pub(super) fn look(&mut self, now: Instant) -> Sign {
        let Some(owes) = &mut self.owes else { return Sign::Fine };
        // This process stood still itself, and has asked nothing meanwhile.
        let stood_still = self.always && now.saturating_duration_since(owes.ask_at) > self.ask_every;
        if stood_still {
            owes.since = now;
        }
        if now.saturating_duration_since(owes.since) >= self.lost_after {
            return Sign::Lost;
        }
        if owes.ask_at > now {
            return Sign::Fine;
        }
        owes.ask_at = now + self.ask_every;
        Sign::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_peer_that_answers_no_question_is_lost_after_four_seconds() {
        let (start, mut watch) = (Instant::now(), Watch::of_neighbour());
        assert_eq!(
            (watch.deadline(), watch.look(start + 9 * SECOND)),
            (None, Sign::Fine),
            "nothing was sent"
        );
        watch.handle_sent(start);
        watch.handle_sent(start + SECOND / 2);
        assert_eq!((watch.deadline(), watch.look(start)), (Some(start + SECOND), Sign::Fine));
        for second in 1..4 {
            assert_eq!(watch.look(start + second * SECOND), Sign::Ask);
        }
        assert_eq!(watch.look(start + 4 * SECOND), Sign::Lost);
    }

    #[test]
    fn any_sign_of_life_starts_over() {
        let (start, mut watch) = (Instant::now(), Watch::of_neighbour());
        watch.handle_sent(start);
        watch.handle_heard(start);
        assert_eq!((watch.deadline(), watch.look(start + 9 * SECOND)), (None, Sign::Fine));
        watch.handle_sent(start + 9 * SECOND);
        assert_eq!(watch.look(start + 10 * SECOND), Sign::Ask);
    }

    #[test]
    fn a_replica_is_asked_without_pause_and_lost_when_it_was_silent_for_so_long() {
        let (start, tick) = (Instant::now(), SECOND / 10);
        let mut watch = Watch::of_replica(4 * tick, start);
        for question in 1..=3 {
            assert_eq!(watch.look(start + question * tick), Sign::Ask);
        }
        watch.handle_heard(start + 3 * tick);
        for question in 4..=6 {
            assert_eq!(watch.look(start + question * tick), Sign::Ask);
        }
        assert_eq!(watch.deadline(), Some(start + 7 * tick));
        assert_eq!(watch.look(start + 7 * tick), Sign::Lost);
    }

    #[test]
    fn who_stood_still_itself_asks_anew() {
        let (start, tick) = (Instant::now(), SECOND / 10);
        let mut watch = Watch::of_replica(4 * tick, start);
        assert_eq!(watch.look(start + 9 * SECOND), Sign::Ask);
        assert_eq!(watch.look(start + 9 * SECOND + tick), Sign::Ask);
    }
}
