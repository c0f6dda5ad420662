//! The cloud's half: one question at a time to each edge, and an end to each in time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bus::{Mono, Name};
use thiserror::Error;

use super::message::{self, Asked, Message, Refusal};
use super::{Question, Told};

/// A question is given up on after this long: before those who wait for the owner loop give up on it (10 s), and long
/// enough for the largest answer over a line of 64 kbit/s.
pub(crate) const DEADLINE: Duration = Duration::from_secs(8);

/// Questions that wait for one edge: two pages with a device of four properties. A further one is told to come again.
pub(crate) const MAX_WAITING: usize = 8;

/// What has been asked of edges, and not answered.
#[derive(Debug, Default)]
pub(crate) struct Inquiries {
    edges: BTreeMap<Name, Line>,
    asked: u64,
    outputs: VecDeque<Output>,
}

/// Of one edge: never without a question.
#[derive(Debug, Default)]
struct Line {
    /// With the number that its answer has.
    sent: Option<(u64, Waiting)>,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// Whoever asked.
    id: u64,
    question: Question,
    until: Mono,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Output {
    Send { edge: Name, payload: Vec<u8> },
    Answer { id: u64, edge: Name, told: Result<Told, Failure> },
}

/// Why a question was not answered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Failure {
    #[error("its link went down before it answered: ask again when it is back")]
    Gone,
    #[error("it did not answer within {} s: its line is busy or thin; ask for less, or again", DEADLINE.as_secs())]
    Late,
    #[error("{MAX_WAITING} questions wait for it already: ask again in some seconds")]
    Full,
    #[error("it answers another question: ask again in some seconds")]
    Busy,
    #[error("one of the values is larger than what is sent over the link: ask at the edge itself")]
    TooLarge,
    #[error("it says: {0}")]
    Recorder(String),
}

impl Inquiries {
    /// Answered by [`Output::Answer`] with this `id`, in any case.
    pub(crate) fn handle_question(&mut self, edge: &Name, id: u64, question: Question, now: Mono) {
        let line = self.edges.entry(edge.clone()).or_default();
        if line.waiting.len() >= MAX_WAITING {
            return self.answer(edge, id, Err(Failure::Full));
        }
        line.waiting.push_back(Waiting { id, question, until: now + DEADLINE });
        self.go_on(edge);
    }

    /// What an edge says. What nobody waits for any more, or cannot be read, is left alone.
    pub(crate) fn handle_frame(&mut self, edge: &Name, payload: &[u8]) {
        let Some(message) = Message::from_bytes(payload) else { return };
        let number = match &message {
            Message::Overview { id, .. } | Message::Rows { id, .. } | Message::Refused { id, .. } => *id,
            Message::Ask { .. } => return,
        };
        let sent = self.edges.get_mut(edge).and_then(|line| line.sent.take_if(|(sent, _)| *sent == number));
        let Some((_, Waiting { id, question, until })) = sent else { return };
        match told(message, &question) {
            Some(told) => self.answer(edge, id, told),
            // Nonsense is no answer: it will be late.
            None => {
                if let Some(line) = self.edges.get_mut(edge) {
                    line.sent = Some((number, Waiting { id, question, until }));
                }
            }
        }
        self.go_on(edge);
    }

    /// The edge's link is gone, or another one than before.
    pub(crate) fn handle_gone(&mut self, edge: &Name) {
        let Some(line) = self.edges.remove(edge) else { return };
        for waiting in line.sent.map(|(_, waiting)| waiting).into_iter().chain(line.waiting) {
            self.answer(edge, waiting.id, Err(Failure::Gone));
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Mono) {
        let is_due = |waiting: &Waiting| waiting.until <= now;
        let due = |line: &Line| line.first().is_some_and(is_due);
        let late: Vec<Name> =
            self.edges.iter().filter(|(_, line)| due(line)).map(|(edge, _)| edge.clone()).collect();
        for edge in late {
            let Some(line) = self.edges.get_mut(&edge) else { continue };
            let sent = line.sent.take_if(|(_, waiting)| is_due(waiting)).map(|(_, waiting)| waiting);
            let end = line.waiting.iter().position(|waiting| !is_due(waiting)).unwrap_or(line.waiting.len());
            let late: Vec<u64> =
                sent.into_iter().chain(line.waiting.drain(..end)).map(|waiting| waiting.id).collect();
            late.into_iter().for_each(|id| self.answer(&edge, id, Err(Failure::Late)));
            self.go_on(&edge);
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        let first = self.edges.values().filter_map(Line::first).map(|waiting| waiting.until).min()?;
        Some((first, "history"))
    }

    /// The next question, if none is under way.
    fn go_on(&mut self, edge: &Name) {
        let Some(line) = self.edges.get_mut(edge) else { return };
        if line.sent.is_some() {
            return;
        }
        let Some(waiting) = line.waiting.pop_front() else {
            self.edges.remove(edge);
            return;
        };
        let Some(asked) = Asked::of(&waiting.question) else {
            debug_assert!(false, "who asks for all devices was refused before");
            return;
        };
        self.asked += 1;
        let payload = Message::Ask { id: self.asked, asked }.to_bytes();
        line.sent = Some((self.asked, waiting));
        self.outputs.push_back(Output::Send { edge: edge.clone(), payload });
    }

    fn answer(&mut self, edge: &Name, id: u64, told: Result<Told, Failure>) {
        self.outputs.push_back(Output::Answer { id, edge: edge.clone(), told });
    }
}

impl Line {
    /// Which ends first: those that wait came later.
    fn first(&self) -> Option<&Waiting> {
        self.sent.as_ref().map(|(_, waiting)| waiting).or(self.waiting.front())
    }
}

/// `None` if it does not answer the question.
fn told(message: Message, question: &Question) -> Option<Result<Told, Failure>> {
    Some(match (message, question) {
        (Message::Overview { points, gaps, .. }, Question::Overview(_)) => {
            Ok(Told::Overview(message::overview(points, gaps)))
        }
        (Message::Rows { rows, next, gaps, .. }, Question::Rows(_)) => {
            Ok(Told::Rows(message::answer(question.device()?, rows, next, gaps)?))
        }
        (Message::Refused { why: Refusal::Busy, .. }, _) => Err(Failure::Busy),
        (Message::Refused { why: Refusal::TooLarge, .. }, _) => Err(Failure::TooLarge),
        (Message::Refused { why: Refusal::Recorder(why), .. }, _) => Err(Failure::Recorder(why)),
        (Message::Ask { .. } | Message::Overview { .. } | Message::Rows { .. }, _) => return None,
    })
}
