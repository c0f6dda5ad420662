//! Evaluates a rule log again.

use std::collections::BTreeMap;

use serde::Serialize;

use super::evaluate::evaluate;
use super::log::{Did, Evaluated, Head, Line, Step, unseal};
use super::memory::RuleState;
use super::program::Program;
use super::trip::reset;
use crate::model::Spec;
use crate::twin;

/// Findings that are kept: enough to see what is wrong. All are counted.
const MAX_FINDINGS: usize = 100;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replay {
    /// Lines that were not empty.
    pub lines: u64,
    /// Lines with a whole rule.
    pub heads: u64,
    pub evaluations: u64,
    pub resets: u64,
    /// Lines whose evaluation has another result than was written, or that are not as they were written.
    pub divergences: u64,
    /// Lines before which some are missing.
    pub gaps: u64,
    /// Lines that could not be evaluated: the rule's head is missing, or they are no lines of this log.
    pub unread: u64,
    /// The first `MAX_FINDINGS`.
    pub findings: Vec<Finding>,
}

impl Replay {
    /// Whether every line could be read and led to what it says. Gaps do not count: files are thrown away.
    pub fn is_faithful(&self) -> bool {
        self.divergences == 0 && self.unread == 0
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// From 1, empty ones counted.
    pub line: u64,
    pub rule: String,
    pub what: What,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A divergence: the decision is another,
    Decision,
    /// the memory afterwards is another,
    Memory,
    /// the latches would not have opened,
    Reset,
    /// the document does not have the hash that is written, or is none,
    Document,
    /// or the line is not what was written.
    Altered,
    /// The memory before is not the one after the line before.
    Gap,
    /// No head with this hash came before.
    Headless,
    /// It is no line of this log, or one that was torn.
    Unreadable,
}

/// A rule as far as its lines were read.
struct Thread {
    program: Program,
    memory: RuleState,
}

/// Evaluates every line again and compares decision and memory byte for byte with what was written; says where lines
/// are missing. Lines of several files go one after the other.
pub fn replay(lines: impl IntoIterator<Item: AsRef<[u8]>>) -> Replay {
    let (mut replay, mut threads) = (Replay::default(), BTreeMap::new());
    for (number, text) in (1..).zip(lines) {
        let text = text.as_ref().trim_ascii_end();
        if text.is_empty() {
            continue;
        }
        replay.lines += 1;
        match unseal(text) {
            None => replay.find(number, String::new(), What::Unreadable),
            Some((line, is_sound)) => {
                let rule = line.rule.to_string();
                let found = replay.take(&line, &mut threads);
                let altered = (!is_sound).then_some(What::Altered);
                found.into_iter().chain(altered).for_each(|what| replay.find(number, rule.clone(), what));
            }
        }
    }
    replay
}

impl Replay {
    fn find(&mut self, line: u64, rule: String, what: What) {
        match what {
            What::Gap => self.gaps += 1,
            What::Headless | What::Unreadable => self.unread += 1,
            What::Decision | What::Memory | What::Reset | What::Document | What::Altered => {
                self.divergences += 1
            }
        }
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(Finding { line, rule, what });
        }
    }

    fn take(&mut self, line: &Line<'_>, threads: &mut BTreeMap<String, Thread>) -> Vec<What> {
        if let Did::Load(head) | Did::Head(head) = &line.did {
            self.heads += 1;
            return begin(line, head, threads);
        }
        let known = threads.get_mut(&*line.rule).filter(|thread| thread.program.hash == line.spec);
        let Some(thread) = known else { return vec![What::Headless] };
        match &line.did {
            Did::Evaluate(evaluated) => {
                self.evaluations += 1;
                evaluate_again(line, evaluated, thread)
            }
            Did::Reset(step) => {
                self.resets += 1;
                reset_again(line, step, thread)
            }
            Did::Load(_) | Did::Head(_) => Vec::new(),
        }
    }
}

fn begin(line: &Line<'_>, head: &Head<'_>, threads: &mut BTreeMap<String, Thread>) -> Vec<What> {
    let Head { document, counting, memory } = head.clone();
    if document.check().is_err() {
        return vec![What::Document];
    }
    let program = Program::new(document.into_owned(), counting.into_owned());
    let mut found = Vec::new();
    if program.hash != line.spec {
        found.push(What::Document);
    }
    if let Some(before) = threads.get(&*line.rule) {
        let follows = match line.did {
            Did::Load(_) => RuleState::restore(before.memory.kept(), program.spec()).keeps_as(&memory),
            Did::Head(_) | Did::Evaluate(_) | Did::Reset(_) => before.memory == *memory,
        };
        found.extend((!follows).then_some(What::Gap));
    }
    threads.insert(line.rule.to_string(), Thread { program, memory: memory.into_owned() });
    found
}

fn evaluate_again(
    line: &Line<'_>,
    Evaluated { step, made }: &Evaluated<'_>,
    thread: &mut Thread,
) -> Vec<What> {
    let mut after = step.before.clone().into_owned();
    let seen = step.seen(&thread.program);
    let again = evaluate(&thread.program, &seen, line.now(), &mut after);
    let mut found = follow(step, thread);
    found.extend((!same(&again, made)).then_some(What::Decision));
    found.extend((!same(&after, &step.after)).then_some(What::Memory));
    found
}

fn reset_again(line: &Line<'_>, step: &Step<'_>, thread: &mut Thread) -> Vec<What> {
    let mut after = step.before.clone().into_owned();
    let opened = reset(&thread.program, &step.seen(&thread.program), line.now(), &mut after);
    let mut found = follow(step, thread);
    found.extend(opened.is_err().then_some(What::Reset));
    found.extend((!same(&after, &step.after)).then_some(What::Memory));
    found
}

/// Goes on from what was written, so that one divergence is not found in every line after it.
fn follow(step: &Step<'_>, thread: &mut Thread) -> Vec<What> {
    let is_gap = thread.memory != *step.before;
    thread.memory = step.after.clone().into_owned();
    Vec::from_iter(is_gap.then_some(What::Gap))
}

fn same<T: Serialize>(one: &T, other: &T) -> bool {
    twin::json(one) == twin::json(other)
}
