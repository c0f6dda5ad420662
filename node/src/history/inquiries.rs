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

/// An edge that has not answered in time may work on it still, or its answer fill a thin line: it is asked nothing else
/// until the answer came, or for this long. Doubled with each question in a row that stays without one, as an edge which
/// is asked before it is done answers nobody, up to [`MAX_DOUBLED`] times: about a minute.
pub(crate) const PATIENCE: Duration = DEADLINE;

const MAX_DOUBLED: u32 = 3;

/// Questions that wait for one edge: two pages with a device of four properties. A further one is told to come again.
pub(crate) const MAX_WAITING: usize = 8;

/// What has been asked of edges, and not answered.
#[derive(Debug, Default)]
pub(crate) struct Inquiries {
    edges: BTreeMap<Name, Line>,
    asked: u64,
    outputs: VecDeque<Output>,
}

/// Of one edge: there while it has a question, and until the link goes if the last one stayed without an answer.
#[derive(Debug, Default)]
struct Line {
    sent: Option<Sent>,
    waiting: VecDeque<Waiting>,
    /// Questions that the edge left alone since it last answered one in time.
    unanswered: u32,
}

/// What the edge works on.
#[derive(Debug)]
struct Sent {
    /// Its answer has it too.
    number: u64,
    /// `None`: given up on.
    asked: Option<Waiting>,
    /// No answer is expected any more.
    until: Mono,
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
        let Some(line) = self.edges.get_mut(edge) else { return };
        let Some(sent) = line.sent.take_if(|sent| sent.number == number) else { return };
        match sent.asked.as_ref().map(|asked| (asked.id, told(message, &asked.question))) {
            Some((id, Some(told))) => {
                if told != Err(Failure::Busy) {
                    line.unanswered = 0;
                }
                self.answer(edge, id, told);
            }
            // Nonsense is no answer: it will be late.
            Some((_, None)) => line.sent = Some(sent),
            // Too late: whoever asked was told so. What comes next is given the same time.
            None => {}
        }
        self.go_on(edge);
    }

    /// The edge's link is gone, or another one than before.
    pub(crate) fn handle_gone(&mut self, edge: &Name) {
        let Some(line) = self.edges.remove(edge) else { return };
        for waiting in line.sent.and_then(|sent| sent.asked).into_iter().chain(line.waiting) {
            self.answer(edge, waiting.id, Err(Failure::Gone));
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Mono) {
        let due = |line: &Line| line.first().is_some_and(|first| first <= now);
        let late: Vec<Name> =
            self.edges.iter().filter(|(_, line)| due(line)).map(|(edge, _)| edge.clone()).collect();
        for edge in late {
            let Some(line) = self.edges.get_mut(&edge) else { continue };
            line.give_up(now).into_iter().for_each(|id| self.answer(&edge, id, Err(Failure::Late)));
            self.go_on(&edge);
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        let first = self.edges.values().filter_map(Line::first).min()?;
        Some((first, "history"))
    }

    /// The next question, if none is under way.
    fn go_on(&mut self, edge: &Name) {
        let Some(line) = self.edges.get_mut(edge) else { return };
        if line.sent.is_some() {
            return;
        }
        let Some(waiting) = line.waiting.pop_front() else {
            if line.unanswered == 0 {
                self.edges.remove(edge);
            }
            return;
        };
        let Some(asked) = Asked::of(&waiting.question) else {
            debug_assert!(false, "who asks for all devices was refused before");
            return;
        };
        self.asked += 1;
        let payload = Message::Ask { id: self.asked, asked }.to_bytes();
        let until = waiting.until + PATIENCE * (1 << line.unanswered.min(MAX_DOUBLED));
        line.sent = Some(Sent { number: self.asked, asked: Some(waiting), until });
        self.outputs.push_back(Output::Send { edge: edge.clone(), payload });
    }

    fn answer(&mut self, edge: &Name, id: u64, told: Result<Told, Failure>) {
        self.outputs.push_back(Output::Answer { id, edge: edge.clone(), told });
    }
}

impl Line {
    /// When something ends: those that wait came after what is asked.
    fn first(&self) -> Option<Mono> {
        let sent = self.sent.as_ref().map(|sent| sent.asked.as_ref().map_or(sent.until, |asked| asked.until));
        sent.into_iter().chain(self.waiting.front().map(|waiting| waiting.until)).min()
    }

    /// Who has waited in vain.
    fn give_up(&mut self, now: Mono) -> Vec<u64> {
        let is_due = |waiting: &Waiting| waiting.until <= now;
        let asked = self.sent.as_mut().and_then(|sent| sent.asked.take_if(|asked| is_due(asked)));
        if self.sent.take_if(|sent| sent.until <= now).is_some() {
            self.unanswered = self.unanswered.saturating_add(1);
        }
        let end = self.waiting.iter().position(|waiting| !is_due(waiting)).unwrap_or(self.waiting.len());
        asked.into_iter().chain(self.waiting.drain(..end)).map(|waiting| waiting.id).collect()
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
