//! One evaluation: a pure function of the readings, the time and the rule's memory.

use std::collections::BTreeMap;
use std::time::Duration;
use std::vec::IntoIter;

use bus::{Mono, Quality, Value};

use super::document::{Case, Expression, Linear, OnUnknown, Op, Operand, Predicate, RuleSpec, Then, When};
use super::truth::Truth;

/// What an input says now.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub value: Value,
    pub quality: Quality,
    /// `None`: not known, so older than any `maxAge`.
    pub age: Option<Duration>,
}

/// What the rule's output shall be.
#[derive(Debug, Clone, PartialEq)]
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

/// How long an input without `maxAge` has to be heard of for the first time.
const SETTLE: Duration = Duration::from_secs(10);

/// What a rule remembers between evaluations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleState {
    /// One entry a predicate.
    memory: Vec<Memory>,
    /// Since when its inputs have had the chance to be heard.
    began: Option<Mono>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Memory {
    /// The comparison held last time: its hysteresis applies.
    latched: bool,
    /// Since when it has held without a break.
    since: Option<Mono>,
}

impl RuleState {
    /// The part that outlives a restart: which hysteresis is latched. A `for` begins anew.
    pub fn latches(&self) -> Vec<bool> {
        self.memory.iter().map(|m| m.latched).collect()
    }

    pub fn from_latches(latches: impl IntoIterator<Item = bool>) -> Self {
        let memory = latches.into_iter().map(|latched| Memory { latched, since: None }).collect();
        Self { memory, began: None }
    }

    /// Inputs begin anew, after their mapper came: see [`evaluate`].
    pub fn settle(&mut self) {
        self.began = None;
    }
}

/// Decides. An input that was not heard of yet is not unknown before its `maxAge` has passed: until then the rule holds,
/// so that a start moves nothing. Every predicate is looked at, also where the result no longer depends on it, so that what is remembered
/// of one does not hang on another's value.
pub fn evaluate(
    rule: &RuleSpec,
    readings: &BTreeMap<&str, Reading>,
    now: Mono,
    state: &mut RuleState,
) -> Decision {
    let began = *state.began.get_or_insert(now);
    let inputs = Inputs { rule, readings, waited: now.since(began) };
    let predicates = rule.predicates();
    state.memory.resize(predicates.len(), Memory::default());
    let truths: Vec<Truth> =
        predicates.iter().zip(&mut state.memory).map(|(p, memory)| inputs.judge(p, memory, now)).collect();
    let mut left = truths.into_iter();
    for (at, case) in rule.cases.iter().enumerate() {
        let truth = case.when.as_ref().map_or(Truth::True, |when| combine(when, &mut left));
        match truth {
            Truth::False => {}
            Truth::Unknown => return inputs.unknown(&format!("{} cannot be told", title(case, at))),
            Truth::True => return inputs.then(case, at),
        }
    }
    Decision::Relinquish
}

fn title(case: &Case, at: usize) -> String {
    if case.name.is_empty() { format!("case {}", at + 1) } else { case.name.clone() }
}

/// Takes as many truths from `left` as `when` has predicates.
fn combine(when: &When, left: &mut IntoIter<Truth>) -> Truth {
    match when {
        When::All(group) => Truth::all(each(&group.all, left)),
        When::Any(group) => Truth::any(each(&group.any, left)),
        When::Not(group) => combine(&group.not, left).negated(),
        When::Is(_) => left.next().unwrap_or(Truth::Unknown),
    }
}

fn each(parts: &[When], left: &mut IntoIter<Truth>) -> Vec<Truth> {
    parts.iter().map(|part| combine(part, left)).collect()
}

struct Inputs<'a> {
    rule: &'a RuleSpec,
    readings: &'a BTreeMap<&'a str, Reading>,
    waited: Duration,
}

impl Inputs<'_> {
    /// The input's value, unless it is bad, too old or absent.
    fn value(&self, name: &str) -> Option<&Value> {
        let reading = self.readings.get(name)?;
        let max_age = self.rule.inputs.get(name)?.max_age;
        let fresh = max_age.is_none_or(|max| reading.age.is_some_and(|age| age <= max.0));
        (fresh && reading.quality > Quality::Bad).then_some(&reading.value)
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.value(name)?.as_f64()
    }

    fn operand(&self, operand: &Operand) -> Option<f64> {
        match operand {
            Operand::Number(number) => Some(*number),
            Operand::Input(name) => self.number(name),
        }
    }

    fn judge(&self, predicate: &Predicate, memory: &mut Memory, now: Mono) -> Truth {
        match self.holds(predicate, memory.latched) {
            None => {
                memory.since = None;
                Truth::Unknown
            }
            Some(false) => {
                *memory = Memory::default();
                Truth::False
            }
            Some(true) => {
                memory.latched = true;
                let since = *memory.since.get_or_insert(now);
                let lasting = predicate.lasting.map_or(Duration::ZERO, |span| span.0);
                Truth::from(now.since(since) >= lasting)
            }
        }
    }

    /// The comparison itself; `None` if an operand is unknown or no number.
    fn holds(&self, predicate: &Predicate, latched: bool) -> Option<bool> {
        let left = self.value(&predicate.input)?;
        let right = match (&predicate.value, &predicate.than) {
            (Some(value), _) => value,
            (None, Some(than)) => self.value(than)?,
            (None, None) => return None,
        };
        if predicate.op == Op::Equal {
            return Some(equal(left, right));
        }
        let (left, right) = (left.as_f64()?, right.as_f64()? + predicate.margin);
        let slack = if latched { predicate.hysteresis } else { 0.0 };
        Some(match predicate.op {
            Op::Above => left > right - slack,
            Op::AtLeast => left >= right - slack,
            Op::Below => left < right + slack,
            Op::AtMost => left <= right + slack,
            Op::Equal => left == right,
        })
    }

    fn then(&self, case: &Case, at: usize) -> Decision {
        let cause = title(case, at);
        match &case.then {
            Then::Hold => Decision::Hold,
            Then::Relinquish => Decision::Relinquish,
            Then::Value(Expression::Constant(value)) => Decision::Set { value: value.clone(), cause },
            Then::Value(Expression::Linear(linear)) => match self.linear(linear) {
                Some(number) => Decision::Set { value: Value::Float(number), cause },
                None => self.unknown(&format!("{cause}: an input is unknown")),
            },
        }
    }

    fn linear(&self, linear: &Linear) -> Option<f64> {
        let minus = linear.minus.as_ref().map_or(Some(0.0), |o| self.operand(o))?;
        let mut number = linear.gain * (self.number(&linear.input)? - minus) + linear.offset;
        if let Some(max) = &linear.max {
            number = number.min(self.operand(max)?);
        }
        // The lower bound goes last: it says how far the actuator may close.
        if let Some(min) = &linear.min {
            number = number.max(self.operand(min)?);
        }
        number.is_finite().then_some(number)
    }

    /// Whether an input may still be heard of for the first time.
    fn is_settling(&self) -> bool {
        self.rule.inputs.iter().any(|(name, input)| {
            let unheard = self.readings.get(name.as_str()).is_none_or(|reading| {
                reading.age.is_none() && (input.max_age.is_some() || reading.quality == Quality::Bad)
            });
            unheard && self.waited < input.max_age.map_or(SETTLE, |span| span.0)
        })
    }

    fn unknown(&self, why: &str) -> Decision {
        match &self.rule.on_unknown {
            _ if self.is_settling() => Decision::Hold,
            OnUnknown::Hold => Decision::Hold,
            OnUnknown::FailSafe => Decision::FailSafe,
            OnUnknown::Value(value) => Decision::Set { value: value.clone(), cause: why.to_owned() },
        }
    }
}

/// `3` and `3.0` are equal: which of them a model makes of a number is no matter of the rule.
fn equal(left: &Value, right: &Value) -> bool {
    let is_number = |v: &Value| matches!(v, Value::Int(_) | Value::Float(_));
    if is_number(left) && is_number(right) { left.as_f64() == right.as_f64() } else { left == right }
}
