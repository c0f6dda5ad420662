//! Random rules, and random lives of them: reports with gaps, ages and qualities, ticks, restarts and resets.

use std::ops::Range;

use super::*;
use crate::model::{Span, Spec};

/// Three inputs; the last states no age and has no windows.
const INPUTS: [(&str, Option<u64>); 3] = [("a", Some(2)), ("b", Some(5)), ("c", None)];

fn span(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}

fn over() -> impl Strategy<Value = Option<Over>> {
    prop_oneof![
        4 => Just(None),
        1 => (2u64..5).prop_map(|s| Some(Over::Change(span(s)))),
        1 => (2u64..5).prop_map(|s| Some(Over::Spread(span(s)))),
    ]
}

fn predicate() -> impl Strategy<Value = Predicate> {
    let op =
        prop_oneof![Just(Op::Above), Just(Op::Below), Just(Op::AtLeast), Just(Op::AtMost), Just(Op::Equal)];
    let right = prop_oneof![5 => (0i8..4).prop_map(Ok), 1 => (0usize..3).prop_map(Err)];
    (0usize..3, over(), op, right, 0i8..2, 0i8..3, prop::option::of(1u64..4)).prop_map(
        |(input, over, op, right, margin, hysteresis, lasting)| {
            let over = over.filter(|_| INPUTS[input].1.is_some());
            let plain = op == Op::Equal;
            Predicate {
                input: INPUTS[input].0.into(),
                change_in: if let Some(Over::Change(span)) = over { Some(span) } else { None },
                spread_in: if let Some(Over::Spread(span)) = over { Some(span) } else { None },
                op,
                value: right.ok().map(|value| Value::Float(f64::from(value))),
                than: right.err().map(|input| INPUTS[input].0.into()),
                unit: None,
                margin: if plain { 0.0 } else { f64::from(margin) },
                hysteresis: if plain { 0.0 } else { f64::from(hysteresis) },
                lasting: lasting.map(span),
            }
        },
    )
}

fn when() -> impl Strategy<Value = When> {
    predicate().prop_map(When::Is).prop_recursive(3, 8, 3, |part| {
        let parts = || prop::collection::vec(part.clone(), 1..4);
        prop_oneof![
            parts().prop_map(|all| When::All(All { all })),
            parts().prop_map(|any| When::Any(Any { any })),
            (parts(), 0usize..3)
                .prop_map(|(of, k)| When::AtLeast(AtLeast { at_least: 1 + k % of.len(), of })),
            part.clone().prop_map(|not| When::Not(Not { not: Box::new(not) })),
        ]
    })
}

fn then() -> impl Strategy<Value = Then> {
    let linear = Linear {
        input: "b".into(),
        minus: Some(Operand::Input("c".into())),
        gain: 1.25,
        offset: 0.1,
        min: Some(Operand::Number(-2.0)),
        max: None,
    };
    prop_oneof![
        3 => (0i64..100).prop_map(|value| Then::Value(Expression::Constant(Value::Int(value)))),
        1 => Just(Then::Value(Expression::Linear(linear))),
        1 => Just(Then::Hold),
        1 => Just(Then::Relinquish),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    (any::<bool>(), prop_oneof![6 => when().prop_map(Some), 1 => Just(None)], then()).prop_map(
        |(latch, when, then)| {
            let can_latch = when.is_some() && matches!(then, Then::Value(Expression::Constant(_)));
            Case { name: String::new(), latch: latch && can_latch, when, then }
        },
    )
}

/// A rule that a checked document could be.
pub(super) fn spec() -> impl Strategy<Value = RuleSpec> {
    let on_unknown = prop_oneof![
        Just(OnUnknown::Hold),
        Just(OnUnknown::FailSafe),
        Just(OnUnknown::Value(Value::Int(-1))),
        Just(OnUnknown::Trip),
    ];
    let spec = (on_unknown, prop::collection::vec(case(), 1..4)).prop_map(|(on_unknown, mut cases)| {
        if on_unknown == OnUnknown::Trip {
            for case in cases.iter_mut().filter(|case| case.then == Then::Relinquish) {
                case.then = Then::Value(Expression::Constant(Value::Int(7)));
            }
        }
        let input = |(name, max_age): (&str, Option<u64>)| {
            let device = "d".to_owned();
            let input = Input {
                device,
                property: name.into(),
                from: From::Reported,
                max_age: max_age.map(span),
                unit: None,
            };
            (name.to_owned(), input)
        };
        let mut spec =
            rule("{inputs: {}, output: {device: d, property: p, ttl: 1s}, onUnknown: hold, cases: []}")
                .unwrap();
        (spec.inputs, spec.on_unknown, spec.cases) = (INPUTS.map(input).into(), on_unknown, cases);
        spec
    });
    spec.prop_filter("too many windows", |spec| spec.check().is_ok())
}

/// What happens, and how many milliseconds after what happened before.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Happening {
    /// `age` milliseconds after it was read.
    Report {
        input: usize,
        value: f64,
        quality: Quality,
        age: u64,
    },
    Evaluate {
        anew: bool,
    },
    Reset,
    Restart,
}

pub(super) fn life(length: Range<usize>) -> impl Strategy<Value = Vec<(u64, Happening)>> {
    let quality =
        prop_oneof![8 => Just(Quality::Good), 1 => Just(Quality::Uncertain), 1 => Just(Quality::Bad)];
    let age = prop_oneof![6 => Just(0u64), 1 => 0u64..3000];
    let report = (0usize..3, 0i8..5, quality, age).prop_map(|(input, value, quality, age)| {
        Happening::Report { input, value: f64::from(value) * 0.9, quality, age }
    });
    let happening = prop_oneof![
        10 => report,
        8 => prop::bool::weighted(0.05).prop_map(|anew| Happening::Evaluate { anew }),
        1 => Just(Happening::Reset),
        1 => prop::bool::weighted(0.4).prop_map(|r| if r { Happening::Restart } else { Happening::Reset }),
    ];
    let pause = prop_oneof![2 => 0u64..30, 6 => 30u64..700, 1 => 700u64..4000];
    prop::collection::vec((pause, happening), length)
}

/// The rule at work, as an edge does it.
pub(super) struct Subject {
    pub(super) program: Program,
    pub(super) state: RuleState,
    pub(super) now: Now,
    /// Of each input the last report of this process, and when it was read.
    readings: Vec<Option<(Reading, Mono)>>,
    windows: Vec<Window>,
}

impl Subject {
    pub(super) fn new(spec: &RuleSpec) -> Self {
        let program = Program::new(spec.clone(), Counting::default());
        let mut subject = Self {
            program,
            state: RuleState::default(),
            now: seconds(1000),
            readings: Vec::new(),
            windows: Vec::new(),
        };
        subject.restart();
        subject
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now = Now { mono: Mono(self.now.mono.0 + ms * 1000), wall: UnixMillis(self.now.wall.0 + ms) };
    }

    pub(super) fn restart(&mut self) {
        let kept = minicbor::to_vec(self.state.kept()).unwrap();
        self.state = RuleState::restore(Kept::read(&kept).unwrap(), self.program.spec());
        self.readings = vec![None; INPUTS.len()];
        let windows = self.program.windows().iter();
        self.windows = windows.map(|through| Window::new(through.over.span().0, through.max_age)).collect();
    }

    pub(super) fn report(&mut self, input: usize, value: f64, quality: Quality, age: u64) {
        let read_at = Mono(self.now.mono.0 - age * 1000);
        let last = self.readings[input].as_ref().map_or(read_at, |(_, last)| read_at.max(*last));
        self.readings[input] = Some((Reading { quality, ..good(value) }, last));
        for (through, window) in self.program.windows().iter().zip(&mut self.windows) {
            if through.input == input {
                window.observe(Some(value).filter(|_| quality > Quality::Bad), read_at);
            }
        }
    }

    pub(super) fn seen(&self, anew: bool) -> Seen {
        let aged = |known: &Option<(Reading, Mono)>| {
            let (reading, read_at) = known.clone()?;
            Some(Reading { age: Some(self.now.mono.since(read_at)), ..reading })
        };
        let windows = self.program.windows().iter().zip(&self.windows);
        Seen {
            readings: self.readings.iter().map(aged).collect(),
            windows: windows.map(|(through, window)| window.read(through.over, self.now.mono)).collect(),
            anew,
        }
    }

    pub(super) fn evaluate(&mut self, anew: bool) -> Evaluation {
        evaluate(&self.program, &self.seen(anew), self.now, &mut self.state)
    }

    pub(super) fn reset(&mut self) -> bool {
        reset(&self.program, &self.seen(false), self.now, &mut self.state).is_ok()
    }
}
