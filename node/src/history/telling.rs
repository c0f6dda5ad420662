//! The edge's half: asks its recorder what the cloud wants to know, one question at a time.

use std::collections::VecDeque;

use bus::bus::LinkId;
use device_twin::history::overview::MAX_POINTS;

use super::message::{MAX_MESSAGE, Message, Refusal};
use super::{Question, Told};

/// The longest answer of samples: a tenth of a second of a line of 3 Mbit/s. A page that would be longer is cut short, and
/// says where it ended.
pub(crate) const MAX_ANSWER: usize = 32 << 10;

/// Samples of one page, if they are short enough.
pub(crate) const MAX_ROWS: usize = 500;

/// The longest question that is read: names and numbers.
const MAX_QUESTION: usize = 2 << 10;

#[derive(Debug, Default)]
pub(crate) struct Telling {
    /// What the recorder looks for at present, for whom.
    asked: Option<Asked>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Asked {
    link: LinkId,
    id: u64,
    question: Question,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Output {
    /// Ask the recorder; the next [`Telling::handle_recalled`] is its answer.
    Recall(Question),
    Send {
        link: LinkId,
        payload: Vec<u8>,
    },
}

impl Telling {
    /// The cloud asks, over this link. What cannot be read is left alone: the cloud gives up on it by itself.
    pub(crate) fn handle_frame(&mut self, link: LinkId, payload: &[u8]) {
        if payload.len() > MAX_QUESTION {
            return;
        }
        let Some(Message::Ask { id, asked }) = Message::from_bytes(payload) else { return };
        let Some(question) = asked.question().map(bounded) else { return };
        if self.asked.is_some() {
            return self.say(link, &Message::Refused { id, why: Refusal::Busy });
        }
        self.asked = Some(Asked { link, id, question: question.clone() });
        self.outputs.push_back(Output::Recall(question));
    }

    /// The recorder's answer, or why there is none.
    pub(crate) fn handle_recalled(&mut self, told: Result<Told, String>) {
        let Some(Asked { link, id, mut question }) = self.asked.take() else { return };
        let message = match &told {
            Ok(told) => Message::told(id, told),
            Err(why) => Message::Refused { id, why: Refusal::Recorder(why.clone()) },
        };
        let payload = message.to_bytes();
        let rows = if let Ok(Told::Rows(answer)) = &told { answer.rows.len() } else { 0 };
        match (&mut question, rows) {
            (Question::Rows(query), 2..) if payload.len() > MAX_ANSWER => {
                query.limit = rows / 2;
                self.asked = Some(Asked { link, id, question: question.clone() });
                self.outputs.push_back(Output::Recall(question));
            }
            (Question::Rows(_), _) if payload.len() > MAX_ANSWER => {
                self.say(link, &Message::Refused { id, why: Refusal::TooLarge });
            }
            (Question::Overview(_), _) if payload.len() > MAX_MESSAGE => {
                self.say(link, &Message::Refused { id, why: Refusal::TooLarge });
            }
            (Question::Rows(_) | Question::Overview(_), _) => {
                self.outputs.push_back(Output::Send { link, payload });
            }
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn say(&mut self, link: LinkId, message: &Message) {
        self.outputs.push_back(Output::Send { link, payload: message.to_bytes() });
    }
}

/// Whatever was asked for.
fn bounded(question: Question) -> Question {
    match question {
        Question::Overview(mut span) => {
            span.points = span.points.min(MAX_POINTS);
            Question::Overview(span)
        }
        Question::Rows(mut query) => {
            query.limit = query.limit.clamp(1, MAX_ROWS);
            Question::Rows(query)
        }
    }
}
