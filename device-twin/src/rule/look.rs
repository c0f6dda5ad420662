//! What one evaluation sees: values, comparisons, and whether what is unknown may still come.

use std::borrow::Cow;
use std::slice::Iter;
use std::time::Duration;

use bus::{Mono, Quality, Value};

use super::document::{Case, Op, When};
use super::evaluate::{Reading, Seen};
use super::memory::Memory;
use super::program::{Program, Ready, Right, Term, Test};
use super::truth::Truth;

/// How long an input without `maxAge` has to be heard of for the first time.
const SETTLE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Look<'a> {
    pub(super) program: &'a Program,
    pub(super) seen: &'a Seen,
    /// How long inputs have had the chance to be heard.
    pub(super) waited: Duration,
}

/// What is known, and what is compared.
impl<'a> Look<'a> {
    pub(super) fn reading(&self, input: usize) -> Option<&'a Reading> {
        self.seen.readings.get(input)?.as_ref()
    }

    /// The input's value, unless it is bad, too old or absent, in the unit in which the rule counts it.
    fn value(&self, input: usize) -> Option<Cow<'a, Value>> {
        let reading = self.reading(input)?;
        let max_age = self.program.inputs.get(input)?.max_age;
        let is_fresh =
            max_age.is_none_or(|max| reading.age.is_some_and(|age| age.as_micros() <= max.as_micros()));
        if is_fresh && reading.quality > Quality::Bad {
            self.program.counted(input, &reading.value)
        } else {
            None
        }
    }

    pub(super) fn number(&self, input: usize) -> Option<f64> {
        self.value(input)?.as_f64()
    }

    pub(super) fn term(&self, term: Term) -> Option<f64> {
        match term {
            Term::Number(number) => Some(number),
            Term::Input(input) => self.number(input),
        }
    }

    /// What a window says, if its input is known now too.
    pub(super) fn window(&self, number: usize) -> Option<f64> {
        let through = self.program.windows.get(number)?;
        self.value(through.input)?;
        self.program.counted_difference(through.input, (*self.seen.windows.get(number)?)?)
    }

    fn left(&self, test: &Test) -> Option<Cow<'a, Value>> {
        match test.window {
            None => self.value(test.input),
            Some(number) => self.window(number).map(Value::Float).map(Cow::Owned),
        }
    }

    /// The comparison itself; `None` if an operand is unknown or no number.
    fn holds(&self, test: &Test, held: bool) -> Option<bool> {
        let left = self.left(test)?;
        let right = match &test.right {
            Right::Constant(value) => Cow::Borrowed(value),
            Right::Input(input) => self.value(*input)?,
        };
        if test.op == Op::Equal {
            return Some(equal(&left, &right));
        }
        let (left, right) = (left.as_f64()?, right.as_f64()? + test.margin);
        let slack = if held { test.hysteresis } else { 0.0 };
        Some(match test.op {
            Op::Above => left > right - slack,
            Op::AtLeast => left >= right - slack,
            Op::Below => left < right + slack,
            Op::AtMost => left <= right + slack,
            Op::Equal => left == right,
        })
    }

    pub(super) fn judge_all(&self, memory: &mut [Memory], now: Mono, lasting: bool) -> Vec<Truth> {
        let tests = self.program.tests.iter().zip(memory);
        tests.map(|(test, memory)| self.judge(test.as_ref(), memory, now, lasting)).collect()
    }

    /// `lasting`: whether it has to have held for as long as it says.
    fn judge(&self, test: Option<&Test>, memory: &mut Memory, now: Mono, lasting: bool) -> Truth {
        match test.and_then(|test| Some((test, self.holds(test, memory.held)?))) {
            None => {
                memory.since = None;
                Truth::Unknown
            }
            Some((_, false)) => {
                *memory = Memory::default();
                Truth::False
            }
            Some((test, true)) => {
                memory.held = true;
                let since = *memory.since.get_or_insert(now);
                Truth::from(!lasting || now.since(since) >= test.lasting)
            }
        }
    }

    /// One a case; without a condition it is true.
    pub(super) fn cases(&self, tests: &[Truth]) -> Vec<Truth> {
        let cases = self.program.spec().cases.iter().zip(&self.program.cases);
        let truth = |(case, ready): (&Case, &Ready)| match &case.when {
            Some(when) => combine(when, &mut tests[ready.tests.clone()].iter()),
            None => Truth::True,
        };
        cases.map(truth).collect()
    }
}

impl Program {
    /// The names of the inputs of which nothing is known: bad, too old or absent.
    pub fn unknown(&self, seen: &Seen) -> Vec<String> {
        let look = Look { program: self, seen, waited: Duration::ZERO };
        let names = self.spec().inputs.keys().enumerate();
        names.filter(|(at, _)| look.value(*at).is_none()).map(|(_, name)| name.clone()).collect()
    }
}

/// What may still be heard of.
impl Look<'_> {
    pub(super) fn is_settling(&self) -> bool {
        (0..self.program.inputs.len()).any(|input| self.may_come(input))
    }

    /// Whether an input may still be heard of for the first time.
    fn may_come(&self, input: usize) -> bool {
        let max_age = self.program.inputs.get(input).and_then(|input| input.max_age);
        let unheard = self.reading(input).is_none_or(|reading| {
            reading.age.is_none() && (max_age.is_some() || reading.quality == Quality::Bad)
        });
        unheard && self.waited < max_age.unwrap_or(SETTLE)
    }

    /// Whether a window that says nothing may still come to be covered for the first time.
    fn may_fill(&self, number: usize) -> bool {
        let through = self.program.windows.get(number);
        through.is_some_and(|through| self.waited < through.over.span().0 + through.max_age)
    }

    /// Whether a case is unknown for nothing but what may still come.
    pub(super) fn is_early(&self, at: usize, tests: &[Truth]) -> bool {
        let mut unknown = self.program.cases[at].tests.clone().filter(|test| tests[*test] == Truth::Unknown);
        unknown.all(|test| self.program.tests[test].as_ref().is_some_and(|test| self.is_early_test(test)))
    }

    fn is_early_test(&self, test: &Test) -> bool {
        let right = if let Right::Input(input) = test.right { Some(input) } else { None };
        let mut silent =
            [Some(test.input), right].into_iter().flatten().filter(|input| self.value(*input).is_none());
        let is_unfilled = test.window.is_some_and(|number| self.window(number).is_none());
        (is_unfilled || silent.clone().next().is_some())
            && silent.all(|input| self.may_come(input))
            && test.window.is_none_or(|number| !is_unfilled || self.may_fill(number))
    }
}

/// Takes as many truths from `left` as `when` has predicates.
fn combine(when: &When, left: &mut Iter<'_, Truth>) -> Truth {
    match when {
        When::All(group) => Truth::all(group.all.iter().map(|part| combine(part, left))),
        When::Any(group) => Truth::any(group.any.iter().map(|part| combine(part, left))),
        When::AtLeast(vote) => Truth::at_least(vote.at_least, vote.of.iter().map(|part| combine(part, left))),
        When::Not(group) => combine(&group.not, left).negated(),
        When::Is(_) => left.next().copied().unwrap_or(Truth::Unknown),
    }
}

/// `3` and `3.0` are equal: which of them a model makes of a number is no matter of the rule.
fn equal(left: &Value, right: &Value) -> bool {
    let is_number = |v: &Value| matches!(v, Value::Int(_) | Value::Float(_));
    if is_number(left) && is_number(right) { left.as_f64() == right.as_f64() } else { left == right }
}
