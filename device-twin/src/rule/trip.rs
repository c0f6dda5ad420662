//! Latches: how a case trips, what is kept of it, and how it is reset.

use bus::{Now, Quality, Value};
use thiserror::Error;

use super::document::{OnUnknown, Over};
use super::evaluate::Seen;
use super::look::Look;
use super::memory::{Evidence, Memory, RuleState, Trip};
use super::program::{Program, Right, Through};
use super::truth::Truth;
use crate::twin;

/// Why a latch stays.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("nothing is latched")]
    NotTripped,
    #[error("'{case}' still holds ({readings})")]
    Holds { case: String, readings: String },
    #[error("'{case}' cannot be told ({readings})")]
    CannotTell { case: String, readings: String },
}

/// Opens every latch, or none: a case that holds, or cannot be told, keeps them. What has to have lasted `for` a while
/// is taken as it is now as well, so that a latch does not open on what is about to trip it again.
///
/// # Errors
/// Says which case keeps the latch, and what its inputs say.
pub fn reset(program: &Program, seen: &Seen, now: Now, state: &mut RuleState) -> Result<(), Refusal> {
    if state.trips.is_empty() {
        return Err(Refusal::NotTripped);
    }
    let look = Look { program, seen, waited: state.waited(now.mono) };
    for lasting in [true, false] {
        let mut scratch = state.tests.clone();
        scratch.resize(program.tests.len(), Memory::default());
        let cases = look.cases(&look.judge_all(&mut scratch, now.mono, lasting));
        for trip in &state.trips {
            let number = trip.number as usize;
            look.allows(number, cases.get(number).copied().unwrap_or(Truth::False))?;
        }
    }
    state.trips.clear();
    Ok(())
}

impl Look<'_> {
    /// Whether a case is true, or unknown where that counts as true.
    pub(super) fn applies(&self, at: usize, truth: Truth, tests: &[Truth]) -> bool {
        match truth {
            Truth::True => true,
            Truth::False => false,
            Truth::Unknown => self.program.spec().on_unknown == OnUnknown::Trip && !self.is_early(at, tests),
        }
    }

    pub(super) fn trip(&self, at: usize, truth: Truth, now: Now) -> Trip {
        Trip {
            case: self.program.cases[at].title.clone(),
            number: at as u32,
            at: now.wall,
            unknown: truth == Truth::Unknown,
            readings: self.evidence(at),
        }
    }

    /// What the inputs of a case say, each once.
    fn evidence(&self, at: usize) -> Vec<Evidence> {
        let tests = self.program.tests[self.program.cases[at].tests.clone()].iter().flatten();
        let mut all: Vec<Evidence> = Vec::new();
        for test in tests {
            let of_input = |input: usize| self.evidence_of(input);
            let right = if let Right::Input(input) = test.right { Some(of_input(input)) } else { None };
            let window = test.window.and_then(|number| self.evidence_through(number));
            for one in [Some(of_input(test.input)), window, right].into_iter().flatten() {
                if !all.iter().any(|known| known.input == one.input) {
                    all.push(one);
                }
            }
        }
        all
    }

    fn evidence_of(&self, input: usize) -> Evidence {
        let reading = self.reading(input);
        let counted = reading.and_then(|reading| self.program.counted(input, &reading.value));
        Evidence {
            input: self.program.name(input).to_owned(),
            value: counted.map(|value| brief(&value)),
            quality: reading.map(|reading| reading.quality),
            age_ms: reading.and_then(|reading| reading.age).map(twin::millis),
        }
    }

    fn evidence_through(&self, number: usize) -> Option<Evidence> {
        let Through { input, over, .. } = *self.program.windows.get(number)?;
        let what = if matches!(over, Over::Change(_)) { "change" } else { "spread" };
        let span = String::from(over.span());
        let input = format!("{what} of {} in {span}", self.program.name(input));
        Some(Evidence { input, value: self.window(number).map(Value::Float), quality: None, age_ms: None })
    }

    /// Whether a latched case lets itself be reset.
    fn allows(&self, at: usize, truth: Truth) -> Result<(), Refusal> {
        let readings = || self.evidence(at).iter().map(told).collect::<Vec<_>>().join(", ");
        let case = || self.program.cases.get(at).map_or_else(String::new, |case| case.title.clone());
        match truth {
            Truth::False => Ok(()),
            Truth::True => Err(Refusal::Holds { case: case(), readings: readings() }),
            Truth::Unknown => Err(Refusal::CannotTell { case: case(), readings: readings() }),
        }
    }
}

/// A text that may be long is cut: it is stored, and sent to the cloud.
fn brief(value: &Value) -> Value {
    match value {
        Value::Text(text) => Value::Text(twin::brief(text)),
        Value::Struct(_) => Value::Text(twin::brief(&value.to_string())),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => value.clone(),
    }
}

fn told(evidence: &Evidence) -> String {
    let Evidence { input, value, quality, age_ms } = evidence;
    let value = value.as_ref().map_or_else(|| "unknown".to_owned(), Value::to_string);
    let is_bad = if *quality == Some(Quality::Bad) { ", bad" } else { "" };
    let age = age_ms.map(|ms| format!(", {} s old", ms / 1000)).unwrap_or_default();
    format!("{input} {value}{is_bad}{age}")
}
