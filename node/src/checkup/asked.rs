//! The edge's half: it is asked by its cloud, and asks what its cloud sees.

use std::collections::VecDeque;
use std::time::Duration;

use bus::Mono;
use bus::bus::LinkId;
use serde::{Deserialize, Serialize};

use super::echo::{Allowance, Echoes, Rate, Way};
use super::wire::{Message, Refusal, Report, Seen};

/// Between the starts of two runs, at least.
pub const GAP: Duration = Duration::from_secs(10);

/// How long checks may take. What still runs then goes on by itself, and is not waited for.
pub const LIMIT: Duration = Duration::from_secs(9);

/// Between two looks of one edge, at least. Who asks sooner hears what was heard last.
pub const LOOK_GAP: Duration = Duration::from_secs(5);

/// How long the cloud may take to say what it sees: less than a question at the console.
const LOOK_LIMIT: Duration = Duration::from_millis(2500);

/// Questions of people that wait for the same look: as many as the admin socket has connections. One more hears what was
/// heard last.
const MAX_LOOKERS: usize = 16;

/// What this edge's cloud sees of it, as far as it said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Looked {
    pub answer: Answer,
    /// The newest that was ever heard on any link of this process.
    pub seen: Option<Seen>,
    /// How long ago that was.
    pub heard_ms_ago: Option<u64>,
    /// Measured from here to the cloud.
    pub up: Option<Way>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Just now.
    Heard,
    NotConnected,
    /// The cloud runs a version from before there were such questions.
    Cannot,
    Silent,
}

/// What the edge's half wants done.
#[derive(Debug, PartialEq)]
pub(crate) enum Output {
    Send {
        link: LinkId,
        message: Message,
    },
    /// Run the checks, and say [`Asked::handle_report`].
    Examine {
        id: u64,
    },
    /// Answers the question of this number.
    Tell {
        id: u64,
        looked: Looked,
    },
}

/// Checks that run. The next ones wait for their end, in time or not.
#[derive(Debug)]
struct Exam {
    id: u64,
    link: LinkId,
    allowance: Allowance,
    deadline: Mono,
    is_answered: bool,
}

#[derive(Debug)]
struct Look {
    id: u64,
    link: LinkId,
    echoes: Echoes,
    is_seen: bool,
    lookers: Vec<u64>,
    deadline: Mono,
}

#[derive(Debug, Default)]
pub struct Asked {
    exam: Option<Exam>,
    /// When the last run began.
    began: Option<Mono>,
    next: u64,
    look: Option<Look>,
    /// When the last look began.
    looked: Option<Mono>,
    heard: Option<(Mono, Seen)>,
    up: Option<Way>,
    rate: Rate,
    outputs: VecDeque<Output>,
    dropped: u64,
}

impl Asked {
    /// Messages that were dropped: of another than the cloud, not due, too often, too long or unreadable.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// A message by a link of the cloud that is followed; of others there is [`Self::handle_stranger`].
    pub(crate) fn handle_frame(&mut self, link: LinkId, payload: &[u8], now: Mono) {
        let done = match Message::from_bytes(payload) {
            Some(Message::Ask { id }) => self.handle_ask(link, id, now),
            Some(Message::Echo { id, number, .. }) => self.handle_echo(link, id, number),
            Some(Message::Seen { id, seen }) => self.handle_seen(id, seen, now),
            Some(Message::Echoed { id, number }) => self.handle_echoed(id, number, now),
            // An edge asks no edge.
            Some(Message::Refused { .. } | Message::Answer { .. } | Message::Look { .. }) | None => None,
        };
        self.dropped += u64::from(done.is_none());
    }

    /// Another edge, or a cloud that is not followed, sent something.
    pub(crate) fn handle_stranger(&mut self) {
        self.dropped += 1;
    }

    fn handle_ask(&mut self, link: LinkId, id: u64, now: Mono) -> Option<()> {
        let is_too_soon = self.began.is_some_and(|began| now.since(began) < GAP);
        let why = match (&self.exam, is_too_soon) {
            (Some(_), _) => Refusal::Busy,
            (None, true) => Refusal::TooSoon,
            (None, false) => {
                self.began = Some(now);
                let (allowance, deadline) = (Allowance::new(id), now + LIMIT);
                self.exam = Some(Exam { id, link, allowance, deadline, is_answered: false });
                self.outputs.push_back(Output::Examine { id });
                return Some(());
            }
        };
        self.outputs.push_back(Output::Send { link, message: Message::Refused { id, why } });
        None
    }

    fn handle_echo(&mut self, link: LinkId, id: u64, number: u8) -> Option<()> {
        let exam = self.exam.as_mut().filter(|exam| exam.link == link)?;
        let message = exam.allowance.answer(id, number)?;
        self.outputs.push_back(Output::Send { link, message });
        Some(())
    }

    /// What the checks found; `None`: they could not run.
    pub(crate) fn handle_report(&mut self, id: u64, report: Option<Report>) {
        let Some(exam) = self.exam.take_if(|exam| exam.id == id) else { return };
        if exam.is_answered {
            return;
        }
        let message = match report {
            Some(report) => Message::answer(id, report),
            None => Message::Refused { id, why: Refusal::Late },
        };
        self.outputs.push_back(Output::Send { link: exam.link, message });
    }

    /// Somebody asks what the cloud sees, by the link that takes checkups; why there is none otherwise.
    pub(crate) fn look(&mut self, asker: u64, link: Result<LinkId, Answer>, now: Mono) {
        let link = match link {
            Ok(link) => link,
            Err(answer) => return self.tell(asker, answer, now),
        };
        if let Some(look) = self.look.as_mut().filter(|look| look.lookers.len() < MAX_LOOKERS) {
            return look.lookers.push(asker);
        }
        let is_too_soon = self.looked.is_some_and(|looked| now.since(looked) < LOOK_GAP);
        if self.look.is_some() || is_too_soon {
            let answer = if self.heard.is_some() { Answer::Heard } else { Answer::Silent };
            return self.tell(asker, answer, now);
        }
        self.next += 1;
        let id = self.next;
        let (echoes, first) = self.rate.begin(id, now);
        for message in [Message::Look { id }, first] {
            self.outputs.push_back(Output::Send { link, message });
        }
        let (lookers, deadline) = (vec![asker], now + LOOK_LIMIT);
        self.look = Some(Look { id, link, echoes, is_seen: false, lookers, deadline });
        self.looked = Some(now);
    }

    fn handle_seen(&mut self, id: u64, seen: Seen, now: Mono) -> Option<()> {
        let look = self.look.as_mut().filter(|look| look.id == id)?;
        look.is_seen = true;
        self.heard = Some((now, seen));
        self.end_if_done(now);
        Some(())
    }

    fn handle_echoed(&mut self, id: u64, number: u8, now: Mono) -> Option<()> {
        let look = self.look.as_mut().filter(|look| look.id == id)?;
        if let Some(message) = look.echoes.handle((id, number), now) {
            self.outputs.push_back(Output::Send { link: look.link, message });
        }
        self.end_if_done(now);
        Some(())
    }

    fn end_if_done(&mut self, now: Mono) {
        if self.look.as_ref().is_some_and(|look| look.is_seen && look.echoes.is_done()) {
            self.end_look(Answer::Heard, now);
        }
    }

    fn end_look(&mut self, answer: Answer, now: Mono) {
        let Some(look) = self.look.take() else { return };
        self.up = self.rate.end(&look.echoes);
        look.lookers.into_iter().for_each(|asker| self.tell(asker, answer, now));
    }

    fn tell(&mut self, id: u64, answer: Answer, now: Mono) {
        let heard = self.heard.as_ref();
        let looked = Looked {
            answer,
            seen: heard.map(|(_, seen)| seen.clone()),
            heard_ms_ago: heard.map(|(at, _)| u64::try_from(now.since(*at).as_millis()).unwrap_or(u64::MAX)),
            up: self.up.filter(|_| answer == Answer::Heard),
        };
        self.outputs.push_back(Output::Tell { id, looked });
    }

    /// The link to the cloud is gone. Checks go on: nobody hears of them.
    pub(crate) fn handle_down(&mut self, now: Mono) {
        self.exam.iter_mut().for_each(|exam| exam.is_answered = true);
        self.end_look(Answer::NotConnected, now);
        self.up = None;
        self.rate = Rate::default();
    }

    pub(crate) fn handle_timeout(&mut self, now: Mono) {
        if let Some(exam) = self.exam.as_mut().filter(|exam| !exam.is_answered && exam.deadline <= now) {
            exam.is_answered = true;
            let message = Message::Refused { id: exam.id, why: Refusal::Late };
            self.outputs.push_back(Output::Send { link: exam.link, message });
        }
        if let Some(look) = self.look.as_ref().filter(|look| look.deadline <= now) {
            let answer = if look.is_seen { Answer::Heard } else { Answer::Silent };
            self.end_look(answer, now);
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        let exam = self.exam.as_ref().filter(|exam| !exam.is_answered).map(|exam| exam.deadline);
        let look = self.look.as_ref().map(|look| look.deadline);
        exam.into_iter().chain(look).min().map(|at| (at, "checkup"))
    }
}
