//! Whether a neighbour still answers.
//!
//! QUIC gives a silent peer up after the idle time, 45 s. Packets to a neighbour have another way, by the hub, so theirs
//! is given up as soon as several seconds' questions go unanswered. A link on which nothing is sent asks nothing.

use std::time::{Duration, Instant};

/// Between the first packet that hears nothing back and a question, and between two questions.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// From the first packet that hears nothing back to the end.
const LOST_AFTER: Duration = Duration::from_secs(4);

/// Since when a peer owes a sign of life.
#[derive(Debug, Default)]
pub(super) struct Watch {
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
    pub(super) fn handle_heard(&mut self) {
        self.owes = None;
    }

    pub(super) fn handle_sent(&mut self, now: Instant) {
        self.owes.get_or_insert(Owes { since: now, ask_at: now + ASK_EVERY });
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.owes.as_ref().map(|owes| owes.ask_at)
    }

    pub(super) fn look(&mut self, now: Instant) -> Sign {
        let Some(owes) = self.owes.as_mut().filter(|owes| owes.ask_at <= now) else { return Sign::Fine };
        if now.saturating_duration_since(owes.since) >= LOST_AFTER {
            return Sign::Lost;
        }
        owes.ask_at = now + ASK_EVERY;
        Sign::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_peer_that_answers_no_question_is_lost_after_four_seconds() {
        let (start, mut watch) = (Instant::now(), Watch::default());
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
        let (start, mut watch) = (Instant::now(), Watch::default());
        watch.handle_sent(start);
        watch.handle_heard();
        assert_eq!((watch.deadline(), watch.look(start + 9 * SECOND)), (None, Sign::Fine));
        watch.handle_sent(start + 9 * SECOND);
        assert_eq!(watch.look(start + 10 * SECOND), Sign::Ask);
    }
}
