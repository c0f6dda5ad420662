//! One evaluation: a pure function of the readings, the time and the rule's memory.

use std::time::Duration;

use bus::{Now, Quality, Value};
use serde::{Deserialize, Serialize};

use super::document::OnUnknown;
use super::look::Look;
use super::memory::{Memory, RuleState};
use super::micros;
use super::program::{Act, Line, Program, Ready};
use super::truth::Truth;

/// What an input says now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    pub value: Value,
    pub quality: Quality,
    /// Counted in whole microseconds. `None`: not known, so older than any `maxAge`.
    #[serde(default, with = "micros::span", skip_serializing_if = "Option::is_none")]
    pub age: Option<Duration>,
}

/// All that an evaluation sees, in the order of [`Program`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Seen {
    /// One an input; `None`: nothing was heard.
    pub readings: Vec<Option<Reading>>,
    /// One a window; `None`: its span is not covered.
    pub windows: Vec<Option<f64>>,
    /// Inputs begin anew, since their mapper came: see [`evaluate`].
    pub anew: bool,
}

/// What the rule's output shall be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Decision {
    Set {
        value: Value,
        cause: String,
    },
    /// The property's fail-safe value.
    FailSafe,
    Hold,
    Relinquish,
}

/// What led to a decision; cases by number, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum By {
    /// It is true, latched, or unknown where that counts as true.
    Case(usize),
    /// It cannot be told: `onUnknown` decided.
    Unknown(usize),
    /// It cannot be told yet: its inputs still have time to be heard.
    Waiting(usize),
    /// No case is true.
    Nothing,
}

/// A decision and what led to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    pub decision: Decision,
    pub by: By,
}

/// Decides.
///
/// An input that was not heard of yet is not unknown before its `maxAge` has passed, nor a window before it could have
/// been covered: until then the rule holds, so that a start moves nothing. Every predicate is looked at, also where the
/// result no longer depends on it, so that what is remembered of one does not hang on another's value; so is every case
/// that latches.
pub fn evaluate(program: &Program, seen: &Seen, now: Now, state: &mut RuleState) -> Evaluation {
    if seen.anew {
        state.settle();
    }
    state.began.get_or_insert(now.mono);
    let look = Look { program, seen, waited: state.waited(now.mono) };
    state.tests.resize(program.tests.len(), Memory::default());
    let tests: Vec<Truth> = look.judge_all(&mut state.tests, now.mono, true);
    let cases: Vec<Truth> = look.cases(&tests);
    for (number, truth) in cases.iter().enumerate() {
        if program.cases[number].latch && !state.is_tripped(number) && look.applies(number, *truth, &tests) {
            state.trips.push(look.trip(number, *truth, now));
        }
    }
    look.decide(&cases, &tests, state)
}

/// Cases and what becomes of them.
impl Look<'_> {
    /// The first case that is true decides. One that is unknown stops the search, since whether it applies cannot be
    /// told; but it does not hide a latch that would decide without it.
    fn decide(&self, cases: &[Truth], tests: &[Truth], state: &RuleState) -> Evaluation {
        let applies = |at: &usize| state.is_tripped(*at) || self.applies(*at, cases[*at], tests);
        let then = |at: usize| {
            let is_unknown = state.trip(at).map_or(cases[at] == Truth::Unknown, |trip| trip.unknown);
            self.then(at, is_unknown)
        };
        let Some(at) = (0..cases.len()).find(|at| applies(at) || cases[*at] == Truth::Unknown) else {
            return Evaluation { decision: Decision::Relinquish, by: By::Nothing };
        };
        match (at..cases.len()).find(applies) {
            Some(next) if next == at || state.is_tripped(next) => then(next),
            _ => self.undecided(at, tests),
        }
    }

    /// `is_unknown`: it cannot be told, which counts as true.
    fn then(&self, at: usize, is_unknown: bool) -> Evaluation {
        let Ready { title, act, .. } = &self.program.cases[at];
        let cause = || if is_unknown { format!("{title} cannot be told") } else { title.clone() };
        let decision = match act {
            Act::Hold => Decision::Hold,
            Act::Relinquish => Decision::Relinquish,
            Act::Constant(value) => Decision::Set { value: value.clone(), cause: cause() },
            Act::Linear(line) => match line.as_ref().and_then(|line| self.linear(line)) {
                Some(number) => Decision::Set { value: Value::Float(number), cause: cause() },
                None => {
                    let cause = || format!("{title}: an input is unknown");
                    return self.on_unknown(at, self.is_settling(), cause);
                }
            },
        };
        Evaluation { decision, by: By::Case(at) }
    }

    fn undecided(&self, at: usize, tests: &[Truth]) -> Evaluation {
        // An interlock waits for nothing but the inputs of the case itself.
        let others_may_come = || self.program.spec().on_unknown != OnUnknown::Trip && self.is_settling();
        let is_early = self.is_early(at, tests) || others_may_come();
        self.on_unknown(at, is_early, || format!("{} cannot be told", self.program.cases[at].title))
    }

    fn on_unknown(&self, at: usize, is_early: bool, cause: impl Fn() -> String) -> Evaluation {
        let decision = match &self.program.spec().on_unknown {
            _ if is_early => return Evaluation { decision: Decision::Hold, by: By::Waiting(at) },
            OnUnknown::Hold => Decision::Hold,
            OnUnknown::FailSafe | OnUnknown::Trip => Decision::FailSafe,
            OnUnknown::Value(value) => Decision::Set { value: value.clone(), cause: cause() },
        };
        Evaluation { decision, by: By::Unknown(at) }
    }

    fn linear(&self, line: &Line) -> Option<f64> {
        let mut number = line.gain * (self.number(line.input)? - self.term(line.minus)?) + line.offset;
        if let Some(max) = line.max {
            number = number.min(self.term(max)?);
        }
        // The lower bound goes last: it says how far the actuator may close.
        if let Some(min) = line.min {
            number = number.max(self.term(min)?);
        }
        number.is_finite().then_some(number)
    }
}
