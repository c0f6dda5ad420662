mod latch;
mod random;
mod reference;
mod replay;
mod units;
mod window;

use std::collections::BTreeMap;
use std::time::Duration;

use bus::{Mono, Now, Quality, UnixMillis, Value};
use proptest::prelude::*;

use super::*;
use crate::model::ManifestError;

const FILL_TANK: &str = r#"
inputs:
  level:    {device: tank, property: level, maxAge: 10s}
  setPoint: {device: valve, property: setPoint, from: desired}
  position: {device: valve, property: position, maxAge: 10s}
  pressure: {device: junction, property: pressure, maxAge: 10s}
output: {device: valve, property: position, ttl: 30s}
onUnknown: hold
cases:
  - name: pressure is high
    when: {input: pressure, op: above, value: 6, hysteresis: 0.5, for: 5s}
    then: {value: {input: level, minus: setPoint, gain: -40, offset: 50, min: position, max: 100}}
  - name: adjust
    then: {value: {input: level, minus: setPoint, gain: -40, offset: 50, min: 0, max: 100}}
"#;

fn rule(spec: &str) -> Result<RuleSpec, ManifestError> {
    let spec: serde_json::Value = serde_saphyr::from_str(spec).unwrap();
    let document = serde_json::json!({
        "apiVersion": "kubebus.io/v1alpha1", "kind": "Rule", "metadata": {"name": "r"}, "spec": spec,
    });
    Rule::from_json(&serde_json::to_vec(&document).unwrap()).map(|rule| rule.spec)
}

fn good(value: f64) -> Reading {
    Reading { value: Value::Float(value), quality: Quality::Good, age: Some(Duration::ZERO) }
}

/// The wall clock shows ten times the seconds.
fn seconds(s: u64) -> Now {
    Now { mono: Mono(s * 1_000_000), wall: UnixMillis(s * 10_000) }
}

type Inputs = BTreeMap<&'static str, Reading>;

fn seen(program: &Program, inputs: &Inputs) -> Seen {
    let names = program.spec().inputs.keys();
    let readings = names.map(|name| inputs.get(name.as_str()).cloned()).collect();
    Seen { readings, windows: vec![None; program.windows().len()], anew: false }
}

fn decide_at(rule: &RuleSpec, inputs: &Inputs, at: u64, state: &mut RuleState) -> Decision {
    let program = Program::new(rule.clone(), Counting::default());
    evaluate(&program, &seen(&program, inputs), seconds(at), state).decision
}

/// What a restart leaves.
fn restarted(state: &RuleState, rule: &RuleSpec) -> RuleState {
    RuleState::restore(state.kept(), rule)
}

fn set(value: f64, cause: &str) -> Decision {
    Decision::Set { value: Value::Float(value), cause: cause.to_owned() }
}

fn water(level: f64, position: f64, pressure: f64) -> Inputs {
    BTreeMap::from([
        ("level", good(level)),
        ("setPoint", good(3.0)),
        ("position", good(position)),
        ("pressure", good(pressure)),
    ])
}

#[test]
fn the_valve_follows_the_level_but_does_not_close_further_under_pressure() {
    let rule = rule(FILL_TANK).unwrap();
    let mut state = RuleState::default();
    let mut at = |s, inputs| decide_at(&rule, &inputs, s, &mut state);
    assert_eq!(at(0, water(2.5, 60.0, 4.0)), set(70.0, "adjust"));
    assert_eq!(at(1, water(3.5, 60.0, 6.1)), set(30.0, "adjust"), "five seconds are not over");
    assert_eq!(at(6, water(3.5, 60.0, 6.1)), set(60.0, "pressure is high"), "stays where it is");
    assert_eq!(at(7, water(2.0, 60.0, 5.6)), set(90.0, "pressure is high"), "may open");
    assert_eq!(at(8, water(3.5, 60.0, 5.5)), set(30.0, "adjust"), "below the hysteresis");
    assert_eq!(at(9, water(3.5, 60.0, 5.9)), set(30.0, "adjust"), "not above again");
    assert_eq!(at(10, water(9.0, 60.0, 4.0)), set(0.0, "adjust"), "bounded");
}

#[test]
fn a_silent_bad_or_absent_sensor_is_unknown() {
    let rule = rule(FILL_TANK).unwrap();
    let decide = |change: &dyn Fn(&mut Inputs)| {
        let mut inputs = water(2.5, 60.0, 4.0);
        change(&mut inputs);
        decide_at(&rule, &inputs, 0, &mut RuleState::default())
    };
    assert_eq!(decide(&|i| i.get_mut("level").unwrap().age = Some(Duration::from_secs(11))), Decision::Hold);
    assert_eq!(decide(&|i| i.get_mut("level").unwrap().age = None), Decision::Hold);
    assert_eq!(decide(&|i| i.get_mut("pressure").unwrap().quality = Quality::Bad), Decision::Hold);
    assert_eq!(decide(&|i| drop(i.remove("setPoint"))), Decision::Hold);
    assert_eq!(
        decide(&|i| i.get_mut("setPoint").unwrap().age = None),
        set(70.0, "adjust"),
        "no maxAge: a desired value does not age"
    );
}

#[test]
fn an_input_that_was_never_heard_of_is_unknown_when_its_time_is_over() {
    let rule = rule(&FILL_TANK.replace("onUnknown: hold", "onUnknown: {value: 70}")).unwrap();
    let mut state = RuleState::default();
    let mut silent = water(2.5, 60.0, 4.0);
    silent.get_mut("level").unwrap().age = None;
    let unknown = Decision::Set { value: Value::Int(70), cause: "adjust: an input is unknown".to_owned() };
    assert_eq!(decide_at(&rule, &silent, 0, &mut state), Decision::Hold);
    assert_eq!(decide_at(&rule, &silent, 9, &mut state), Decision::Hold);
    assert_eq!(decide_at(&rule, &silent, 10, &mut state), unknown);
    silent.get_mut("level").unwrap().age = Some(Duration::from_secs(11));
    assert_eq!(decide_at(&rule, &silent, 0, &mut RuleState::default()), unknown, "heard, and too old");
    silent.remove("setPoint");
    assert_eq!(decide_at(&rule, &silent, 10, &mut state), unknown);
    state.settle();
    assert_eq!(decide_at(&rule, &silent, 10, &mut state), Decision::Hold);
}

#[test]
fn a_restart_keeps_the_hysteresis_and_begins_the_for_anew() {
    let rule = rule(FILL_TANK).unwrap();
    let mut state = RuleState::default();
    decide_at(&rule, &water(3.5, 60.0, 6.1), 0, &mut state);
    assert_eq!(decide_at(&rule, &water(3.5, 60.0, 6.1), 5, &mut state), set(60.0, "pressure is high"));
    let mut state = restarted(&state, &rule);
    assert_eq!(decide_at(&rule, &water(3.5, 60.0, 5.6), 9, &mut state), set(30.0, "adjust"));
    assert_eq!(decide_at(&rule, &water(3.5, 60.0, 5.6), 14, &mut state), set(60.0, "pressure is high"));
}

#[test]
fn documents_without_sense_are_refused_by_field() {
    let broken = [
        ("onUnknown: hold", "", "missing field `onUnknown`"),
        ("input: level, minus: setPoint", "input: lvl, minus: setPoint", "spec.cases[0].then.value: 'lvl'"),
        ("min: position", "min: positoin", "'positoin' is none of the inputs"),
        ("op: above, value: 6", "op: above", "give either 'value' or 'than'"),
        ("op: above, value: 6", "op: above, value: high", "only numbers can be above"),
        ("ttl: 30s", "ttl: 0s", "spec.output.ttl: a decision must hold"),
        ("ttl: 30s", "ttl: 30s, slot: 17", "17 is no slot"),
        ("ttl: 30s", "ttl: 30s, slot: 8", "spec.output.slot: slot 8 is for the local operator; 10 is meant"),
        ("ttl: 30s", "ttl: 30s, slot: 12", "spec.output.slot: slot 12 is for commands"),
        ("ttl: 30s", "ttl: 30s, slot: 14", "spec.output.slot: slot 14 is for desired values"),
        ("device: tank", "device: Tank", "spec.inputs.level.device: 'Tank' is no name"),
        ("maxAge: 10s}", "maxAge: soon}", "spec.inputs.level.maxAge"),
    ];
    refused(FILL_TANK, &broken);
}

/// Each replacement leads to an error that says so.
fn refused(document: &str, broken: &[(&str, &str, &str)]) {
    for (from, to, expected) in broken {
        assert!(document.contains(from), "{from}");
        let error = rule(&document.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} should say {expected}");
    }
}

#[test]
fn two_of_three_decide_before_the_third_is_known() {
    let vote = |trues, unknowns| {
        let parts = [(Truth::True, trues), (Truth::Unknown, unknowns), (Truth::False, 3 - trues - unknowns)];
        Truth::at_least(2, parts.into_iter().flat_map(|(truth, count)| vec![truth; count]))
    };
    assert_eq!([vote(2, 0), vote(2, 1), vote(3, 0)], [Truth::True; 3]);
    assert_eq!([vote(1, 1), vote(0, 2), vote(1, 2)], [Truth::Unknown; 3]);
    assert_eq!([vote(1, 0), vote(0, 1), vote(0, 0)], [Truth::False; 3]);
}

/// A tree of predicates over one input each, which is 1 (true), 0 (false) or absent (unknown).
fn tree(inputs: usize) -> impl Strategy<Value = When> {
    let leaf = (0..inputs).prop_map(|n| {
        When::Is(Predicate {
            input: format!("i{n}"),
            op: Op::Above,
            value: Some(Value::Float(0.5)),
            than: None,
            margin: 0.0,
            hysteresis: 0.0,
            lasting: None,
            unit: None,
            change_in: None,
            spread_in: None,
        })
    });
    leaf.prop_recursive(4, 24, 3, |part| {
        prop_oneof![
            prop::collection::vec(part.clone(), 0..3).prop_map(|all| When::All(All { all })),
            prop::collection::vec(part.clone(), 0..3).prop_map(|any| When::Any(Any { any })),
            part.clone().prop_map(|not| When::Not(Not { not: Box::new(not) })),
            (prop::collection::vec(part, 1..4), 0usize..3)
                .prop_map(|(of, k)| When::AtLeast(AtLeast { at_least: 1 + k % of.len(), of })),
        ]
    })
}

/// The truth table of Kleene's logic written out, `None` for unknown.
fn naive(when: &When, inputs: &[Option<bool>]) -> Option<bool> {
    match when {
        When::All(group) => {
            let parts: Vec<_> = group.all.iter().map(|p| naive(p, inputs)).collect();
            if parts.contains(&Some(false)) { Some(false) } else { (!parts.contains(&None)).then_some(true) }
        }
        When::Any(group) => {
            let parts: Vec<_> = group.any.iter().map(|p| naive(p, inputs)).collect();
            if parts.contains(&Some(true)) { Some(true) } else { (!parts.contains(&None)).then_some(false) }
        }
        When::Not(group) => naive(&group.not, inputs).map(|b| !b),
        When::AtLeast(vote) => {
            // Every way in which the unknown parts could turn out.
            let parts: Vec<_> = vote.of.iter().map(|p| naive(p, inputs)).collect();
            let unknown = parts.iter().filter(|p| p.is_none()).count();
            let votes =
                |turn: u32| turn.count_ones() as usize + parts.iter().filter(|p| **p == Some(true)).count();
            let passes = |turn: u32| votes(turn) >= vote.at_least;
            let first = passes(0);
            (0..1 << unknown).all(|turn| passes(turn) == first).then_some(first)
        }
        When::Is(p) => inputs[p.input[1..].parse::<usize>().unwrap()],
    }
}

fn of_trees(trees: &[When]) -> RuleSpec {
    let mut spec =
        rule("{inputs: {}, output: {device: d, property: p, ttl: 1s}, onUnknown: hold, cases: []}").unwrap();
    let input = |n: usize| {
        let input = Input {
            device: "d".into(),
            property: "p".into(),
            from: From::Reported,
            max_age: None,
            unit: None,
        };
        (format!("i{n}"), input)
    };
    spec.inputs = (0..4).map(input).collect();
    let case = |(at, when): (usize, &When)| Case {
        name: format!("{at}"),
        latch: false,
        when: Some(when.clone()),
        then: Then::Value(Expression::Constant(Value::Int(at as i64))),
    };
    spec.cases = trees.iter().enumerate().map(case).collect();
    spec
}

fn decide(spec: &RuleSpec, inputs: &[Option<bool>]) -> Decision {
    let names: Vec<String> = (0..inputs.len()).map(|n| format!("i{n}")).collect();
    let known = names
        .iter()
        .zip(inputs)
        .filter_map(|(name, known)| Some((name.as_str(), good(f64::from(u8::from((*known)?))))));
    let program = Program::new(spec.clone(), Counting::default());
    let known: BTreeMap<&str, Reading> = known.collect();
    let readings = spec.inputs.keys().map(|name| known.get(name.as_str()).cloned()).collect();
    let seen = Seen { readings, ..Seen::default() };
    evaluate(&program, &seen, seconds(0), &mut RuleState::default()).decision
}

proptest! {
    #[test]
    fn cases_agree_with_a_naive_reading(
        trees in prop::collection::vec(tree(4), 1..4),
        inputs in prop::collection::vec(prop::option::of(any::<bool>()), 4),
    ) {
        let mut expected = Decision::Relinquish;
        for (at, tree) in trees.iter().enumerate() {
            match naive(tree, &inputs) {
                Some(false) => continue,
                Some(true) => expected = Decision::Set { value: Value::Int(at as i64), cause: at.to_string() },
                None => expected = Decision::Hold,
            }
            break;
        }
        prop_assert_eq!(decide(&of_trees(&trees), &inputs), expected);
    }

    /// What is decided in spite of an unknown sensor is decided the same whatever that sensor would have said.
    #[test]
    fn no_unknown_sensor_could_have_changed_a_decision(
        trees in prop::collection::vec(tree(4), 1..4),
        inputs in prop::collection::vec(prop::option::of(any::<bool>()), 4),
        said in prop::collection::vec(any::<bool>(), 4),
    ) {
        let spec = of_trees(&trees);
        let decision = decide(&spec, &inputs);
        prop_assume!(decision != Decision::Hold);
        let known: Vec<_> = inputs.iter().zip(said).map(|(i, s)| i.or(Some(s))).collect();
        prop_assert_eq!(decide(&spec, &known), decision);
    }
}
