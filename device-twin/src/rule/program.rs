//! A document made ready: names looked up and constants converted once, not at each evaluation.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use bus::Value;

use super::document::{Case, Expression, Linear, Op, Operand, Over, Predicate, RuleSpec, Then};
use super::log::Hash;
use super::units::{Counting, Scale};
use crate::twin;

/// A rule as it is evaluated. Inputs, predicates and windows go by their number, in the order of the document (inputs
/// in that of their names).
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    spec: RuleSpec,
    counting: Counting,
    /// Of both, for the log.
    pub(super) hash: Hash,
    pub(super) inputs: Vec<Input>,
    /// `None`: it names what is not there, or compares what cannot be compared, and is always unknown.
    pub(super) tests: Vec<Option<Test>>,
    pub(super) windows: Vec<Through>,
    pub(super) cases: Vec<Ready>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Input {
    pub(super) max_age: Option<Duration>,
    scale: Option<Scale>,
}

/// A window that a predicate looks through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Through {
    pub input: usize,
    pub over: Over,
    /// The longest gap.
    pub max_age: Duration,
}

/// One predicate.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Test {
    pub(super) input: usize,
    /// The number of its window, if it looks through one.
    pub(super) window: Option<usize>,
    pub(super) op: Op,
    pub(super) right: Right,
    pub(super) margin: f64,
    pub(super) hysteresis: f64,
    pub(super) lasting: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Right {
    Constant(Value),
    Input(usize),
}

/// One case.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ready {
    pub(super) title: String,
    pub(super) latch: bool,
    /// The numbers of its predicates.
    pub(super) tests: Range<usize>,
    pub(super) act: Act,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Act {
    Constant(Value),
    /// `None`: it names what is not there.
    Linear(Option<Line>),
    Hold,
    Relinquish,
}

/// `clamp(gain * (input - minus) + offset, min, max)`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) input: usize,
    pub(super) minus: Term,
    pub(super) gain: f64,
    pub(super) offset: f64,
    pub(super) min: Option<Term>,
    pub(super) max: Option<Term>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Term {
    Number(f64),
    Input(usize),
}

impl Program {
    /// `spec` was checked when it was read.
    pub fn new(spec: RuleSpec, counting: Counting) -> Self {
        let inputs = spec.inputs.iter().map(|(name, input)| Input {
            max_age: input.max_age.map(|span| span.0),
            scale: counting.input(name),
        });
        let mut program = Self {
            hash: Hash::of(&twin::json(&(&spec, &counting))),
            inputs: inputs.collect(),
            tests: Vec::new(),
            windows: Vec::new(),
            cases: Vec::new(),
            spec,
            counting,
        };
        program.cases = (0..program.spec.cases.len()).filter_map(|at| program.ready(at)).collect();
        program
    }

    pub fn spec(&self) -> &RuleSpec {
        &self.spec
    }

    pub fn counting(&self) -> &Counting {
        &self.counting
    }

    /// The windows that its predicates look through.
    pub fn windows(&self) -> &[Through] {
        &self.windows
    }

    /// Input `at`'s name, for people.
    pub(super) fn name(&self, at: usize) -> &str {
        self.spec.inputs.keys().nth(at).map_or("", String::as_str)
    }

    /// A value of input `at` in the unit in which the rule counts it; `None` if it cannot be converted.
    pub(super) fn counted<'v>(&self, at: usize, value: &'v Value) -> Option<Cow<'v, Value>> {
        Some(self.inputs.get(at)?.scale?.counted(value))
    }

    /// What a window over input `at` says, in that unit.
    pub(super) fn counted_difference(&self, at: usize, number: f64) -> Option<f64> {
        Some(self.inputs.get(at)?.scale?.of_difference(number))
    }

    fn ready(&mut self, at: usize) -> Option<Ready> {
        let case: Case = self.spec.cases.get(at)?.clone();
        let begin = self.tests.len();
        for predicate in case.predicates() {
            let test = self.test(predicate);
            self.tests.push(test);
        }
        let act = match &case.then {
            Then::Value(Expression::Constant(value)) => Act::Constant(value.clone()),
            Then::Value(Expression::Linear(linear)) => Act::Linear(self.line(linear)),
            Then::Hold => Act::Hold,
            Then::Relinquish => Act::Relinquish,
        };
        Some(Ready { title: case.title(at), latch: case.latch, tests: begin..self.tests.len(), act })
    }

    /// The predicate that comes next.
    fn test(&mut self, predicate: &Predicate) -> Option<Test> {
        let scale = self.counting.predicate(self.tests.len())?;
        let input = self.find(&predicate.input)?;
        let right = match (&predicate.value, &predicate.than) {
            (Some(value), _) => Right::Constant(constant(value, scale, predicate.over())),
            (None, than) => Right::Input(self.find(than.as_deref()?)?),
        };
        let window = predicate.over().map(|over| self.through(input, over));
        Some(Test {
            input,
            window,
            op: predicate.op,
            right,
            margin: scale.of_difference(predicate.margin),
            hysteresis: scale.of_difference(predicate.hysteresis),
            lasting: predicate.lasting.map_or(Duration::ZERO, |span| span.0),
        })
    }

    fn through(&mut self, input: usize, over: Over) -> usize {
        let max_age = self.inputs.get(input).and_then(|input| input.max_age).unwrap_or_default();
        self.windows.push(Through { input, over, max_age });
        self.windows.len() - 1
    }

    fn line(&self, linear: &Linear) -> Option<Line> {
        let bound = |operand: &Option<Operand>| match operand {
            Some(operand) => self.term(operand).map(Some),
            None => Some(None),
        };
        Some(Line {
            input: self.find(&linear.input)?,
            minus: bound(&linear.minus)?.unwrap_or(Term::Number(0.0)),
            gain: linear.gain,
            offset: linear.offset,
            min: bound(&linear.min)?,
            max: bound(&linear.max)?,
        })
    }

    fn term(&self, operand: &Operand) -> Option<Term> {
        match operand {
            Operand::Number(number) => Some(Term::Number(*number)),
            Operand::Input(name) => self.find(name).map(Term::Input),
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.spec.inputs.keys().position(|known| known == name)
    }
}

/// In the unit in which the input is counted.
fn constant(value: &Value, scale: Scale, over: Option<Over>) -> Value {
    match (over, value.as_f64()) {
        (Some(_), Some(number)) => Value::Float(scale.of_difference(number)),
        _ => scale.counted(value).into_owned(),
    }
}
