//! The cloud's half: it asks edges, and tells edges what it sees of them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bus::bus::LinkId;
use bus::{Mono, Name, NodeId};
use serde::{Deserialize, Serialize};

use super::asked::{GAP, LOOK_GAP};
use super::echo::{Allowance, Echoes, Rate, Way};
use super::wire::{Message, Refusal, Report, Seen};
use crate::diagnose::Cause;

/// An edge is waited for so long: longer than its checks may take, shorter than people wait.
pub const DEADLINE: Duration = Duration::from_secs(11);

/// Edges that are asked at a time. One more is refused: who asks a whole fleet does so in turn.
const MAX_EXAMS: usize = 32;

/// Questions of people that wait for the same edge: more than the admin socket has connections. One more is refused.
const MAX_WAITING: usize = 32;

/// What came of asking one edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Examined {
    /// `edge/<name>`.
    pub node: String,
    pub outcome: Outcome,
    /// Measured from the cloud to there.
    pub down: Option<Way>,
}

impl Examined {
    /// Leaves out what was found of other devices.
    pub fn retain_device(&mut self, device: &str) {
        let Outcome::Answered(report) = &mut self.outcome else { return };
        let is_of_devices = |cause: &str| Cause::of(cause).is_some_and(Cause::is_of_devices);
        report.findings.retain(|told| told.about == device || !is_of_devices(&told.cause));
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Answered(Box<Report>),
    NotConnected,
    /// It runs a version from before there were such questions.
    Cannot,
    /// Its link stands.
    Silent,
    /// Its link ended meanwhile.
    LinkEnded,
    Refused(Refusal),
    /// Too many edges are asked at a time.
    Full,
}

/// What the cloud's half wants done.
#[derive(Debug, PartialEq)]
pub(crate) enum Output {
    Send {
        link: LinkId,
        message: Message,
    },
    /// Answers the question of this number.
    Tell {
        id: u64,
        examined: Examined,
    },
}

/// An edge that is being asked.
#[derive(Debug)]
struct Exam {
    id: u64,
    link: LinkId,
    echoes: Echoes,
    waiting: Vec<u64>,
    deadline: Mono,
}

/// An edge that looked.
#[derive(Debug)]
struct Look {
    at: Mono,
    allowance: Allowance,
}

/// All that is under way. Nothing of it outlives an edge's link but the last answer, for
/// [`GAP`].
#[derive(Debug, Default)]
pub struct Asking {
    next: u64,
    exams: BTreeMap<Name, Exam>,
    /// Answers that are so new that asking again would be refused.
    recent: BTreeMap<Name, (Mono, Examined)>,
    /// Of edges that were asked lately.
    rates: BTreeMap<Name, Rate>,
    /// At most one of each connected edge.
    looks: BTreeMap<Name, Look>,
    outputs: VecDeque<Output>,
    dropped: u64,
}

impl Asking {
    /// Messages that were dropped: not allowed, not due, too long or unreadable.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Somebody's question about an edge, by the link that takes checkups; why there is none otherwise.
    pub(crate) fn ask(&mut self, id: u64, edge: &Name, link: Result<LinkId, Outcome>, now: Mono) {
        let link = match link {
            Ok(link) => link,
            Err(outcome) => return self.tell(id, edge, outcome),
        };
        if let Some((_, examined)) = self.recent.get(edge).filter(|(at, _)| now.since(*at) < GAP) {
            let examined = examined.clone();
            return self.outputs.push_back(Output::Tell { id, examined });
        }
        let has_room = self.exams.len() < MAX_EXAMS;
        match self.exams.get_mut(edge) {
            Some(exam) if exam.waiting.len() < MAX_WAITING => exam.waiting.push(id),
            None if has_room => self.begin(id, edge, link, now),
            Some(_) | None => self.tell(id, edge, Outcome::Full),
        }
    }

    fn begin(&mut self, asker: u64, edge: &Name, link: LinkId, now: Mono) {
        self.next += 1;
        let id = self.next;
        let (echoes, first) = self.rates.entry(edge.clone()).or_default().begin(id, now);
        for message in [Message::Ask { id }, first] {
            self.outputs.push_back(Output::Send { link, message });
        }
        let exam = Exam { id, link, echoes, waiting: vec![asker], deadline: now + DEADLINE };
        self.exams.insert(edge.clone(), exam);
    }

    fn tell(&mut self, id: u64, edge: &Name, outcome: Outcome) {
        let examined = Examined { node: NodeId::edge(edge.clone()).to_string(), outcome, down: None };
        self.outputs.push_back(Output::Tell { id, examined });
    }

    /// A message of an edge that is connected by this link. `seen` is what is known of it.
    pub(crate) fn handle_frame(
        &mut self,
        (edge, link): (&Name, LinkId),
        payload: &[u8],
        seen: impl FnOnce() -> Seen,
        now: Mono,
    ) {
        let done = match Message::from_bytes(payload) {
            Some(Message::Answer { id, report }) => {
                self.end_if(edge, id, Outcome::Answered(Box::new(report)), now)
            }
            Some(Message::Refused { id, why }) => self.end_if(edge, id, Outcome::Refused(why), now),
            Some(Message::Echoed { id, number }) => self.handle_echoed(edge, (id, number), now),
            Some(Message::Look { id }) => self.handle_look((edge, link), id, seen, now),
            Some(Message::Echo { id, number, .. }) => self.handle_echo((edge, link), id, number),
            // Nobody makes a cloud check.
            Some(Message::Ask { .. } | Message::Seen { .. }) | None => None,
        };
        self.dropped += u64::from(done.is_none());
    }

    fn end_if(&mut self, edge: &Name, id: u64, outcome: Outcome, now: Mono) -> Option<()> {
        self.exams.get(edge).filter(|exam| exam.id == id)?;
        self.end(edge, outcome, now);
        Some(())
    }

    fn handle_echoed(&mut self, edge: &Name, echo: (u64, u8), now: Mono) -> Option<()> {
        // What comes after the answer is late, and no fault.
        let Some(exam) = self.exams.get_mut(edge).filter(|exam| exam.id == echo.0) else { return Some(()) };
        if let Some(message) = exam.echoes.handle(echo, now) {
            self.outputs.push_back(Output::Send { link: exam.link, message });
        }
        Some(())
    }

    fn handle_look(
        &mut self,
        (edge, link): (&Name, LinkId),
        id: u64,
        seen: impl FnOnce() -> Seen,
        now: Mono,
    ) -> Option<()> {
        if self.looks.get(edge).is_some_and(|look| now.since(look.at) < LOOK_GAP) {
            return None;
        }
        self.looks.insert(edge.clone(), Look { at: now, allowance: Allowance::new(id) });
        self.outputs.push_back(Output::Send { link, message: Message::Seen { id, seen: seen() } });
        Some(())
    }

    fn handle_echo(&mut self, (edge, link): (&Name, LinkId), id: u64, number: u8) -> Option<()> {
        let message = self.looks.get_mut(edge)?.allowance.answer(id, number)?;
        self.outputs.push_back(Output::Send { link, message });
        Some(())
    }

    /// The edge's link is gone.
    pub(crate) fn handle_down(&mut self, edge: &Name, now: Mono) {
        self.looks.remove(edge);
        if self.exams.contains_key(edge) {
            self.end(edge, Outcome::LinkEnded, now);
        }
        self.recent.remove(edge);
        self.rates.remove(edge);
    }

    fn end(&mut self, edge: &Name, outcome: Outcome, now: Mono) {
        let Some(exam) = self.exams.remove(edge) else { return };
        let down = self.rates.get_mut(edge).and_then(|rate| rate.end(&exam.echoes));
        let examined = Examined { node: NodeId::edge(edge.clone()).to_string(), outcome, down };
        self.recent.insert(edge.clone(), (now, examined.clone()));
        let tell = |id| Output::Tell { id, examined: examined.clone() };
        self.outputs.extend(exam.waiting.into_iter().map(tell));
    }

    pub(crate) fn handle_timeout(&mut self, now: Mono) {
        let late = |(edge, exam): (&Name, &Exam)| (exam.deadline <= now).then(|| edge.clone());
        let late: Vec<Name> = self.exams.iter().filter_map(late).collect();
        late.iter().for_each(|edge| self.end(edge, Outcome::Silent, now));
        self.recent.retain(|_, (at, _)| now.since(*at) < GAP);
        self.rates.retain(|edge, rate| !rate.is_old(now) || self.exams.contains_key(edge));
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        let deadlines = self.exams.values().map(|exam| exam.deadline);
        let stale = self.recent.values().map(|(at, _)| *at + GAP);
        deadlines.chain(stale).min().map(|at| (at, "checkup"))
    }
}
