use super::*;

const WATCH: &str = "
inputs: {p: {device: t, property: p, maxAge: 5s, unit: bar}, q: {device: t, property: q, maxAge: 5s}}
output: {device: d, property: p, ttl: 1s}
onUnknown: hold
cases:
  - {name: high, when: {input: p, op: above, value: 600, hysteresis: 50, unit: kPa}, then: {value: {input: p, gain: 10}}}
  - {name: fast, when: {input: p, changeIn: 10s, op: above, value: 100, unit: kPa}, then: {value: 1}}
  - {name: same, when: {input: q, op: equal, value: 6}, then: {value: 2}}
";

/// The property counts in psi above the atmosphere, the rule in bar.
fn counting() -> Counting {
    let bar = Scale { factor: 0.0625, offset: 1.0 };
    let kpa = Scale { factor: 0.01, offset: 0.0 };
    Counting { inputs: [("p".into(), Some(bar))].into(), predicates: [(0, Some(kpa)), (1, Some(kpa))].into() }
}

fn decide_with(counting: &Counting, psi: f64, change: Option<f64>, state: &mut RuleState) -> Decision {
    let program = Program::new(rule(WATCH).unwrap(), counting.clone());
    let inputs = BTreeMap::from([("p", good(psi)), ("q", good(6.0))]);
    evaluate(&program, &Seen { windows: vec![change], ..seen(&program, &inputs) }, seconds(0), state).decision
}

#[test]
fn values_constants_and_differences_are_counted_in_the_units_that_the_rule_states() {
    let mut state = RuleState::default();
    let mut decide = |psi, change| decide_with(&counting(), psi, Some(change), &mut state);
    assert_eq!(decide(81.0, 0.0), set(60.625, "high"), "6.0625 bar");
    assert_eq!(decide(73.0, 0.0), set(55.625, "high"), "5.5625 bar: within 50 kPa");
    assert_eq!(decide(72.0, 17.0), Decision::Set { value: Value::Int(1), cause: "fast".into() });
    assert_eq!(
        decide(72.0, 15.0),
        Decision::Set { value: Value::Int(2), cause: "same".into() },
        "0.9375 bar"
    );
}

#[test]
fn what_cannot_be_converted_is_unknown() {
    let set_same = Decision::Set { value: Value::Int(2), cause: "same".into() };
    let mut without = counting();
    without.inputs.insert("p".into(), None);
    assert_eq!(decide_with(&without, 0.0, Some(0.0), &mut RuleState::default()), Decision::Hold);
    let mut without = counting();
    without.predicates.insert(0, None);
    assert_eq!(decide_with(&without, 0.0, Some(0.0), &mut RuleState::default()), Decision::Hold);
    assert_eq!(decide_with(&counting(), 0.0, Some(0.0), &mut RuleState::default()), set_same);
}

#[test]
fn only_numbers_have_units() {
    refused(
        WATCH,
        &[("op: equal, value: 6", "op: equal, value: high, unit: bar", "only numbers have a unit")],
    );
}

#[test]
fn only_what_states_a_unit_is_converted() {
    let unit_of = |input: &Input| (input.property == "p").then(|| "psi".to_owned());
    let convert = |from: &str, to: &str| match (from, to) {
        ("psi", "bar") => Some(Scale { factor: 0.0625, offset: 1.0 }),
        ("kPa", "bar") => Some(Scale { factor: 0.01, offset: 0.0 }),
        (from, to) => (from == to).then_some(Scale::IDENTITY),
    };
    assert_eq!(Counting::new(&rule(WATCH).unwrap(), unit_of, convert), counting());
    let own = WATCH.replace(", unit: bar", ", unit: psi").replace("unit: kPa", "unit: psi");
    assert_eq!(Counting::new(&rule(&own).unwrap(), unit_of, convert), Counting::default());
    let foreign = rule(&own.replace("property: p,", "property: x,")).unwrap();
    let none = Counting { inputs: [("p".into(), None)].into(), predicates: [].into() };
    assert_eq!(Counting::new(&foreign, unit_of, convert), none, "nobody knows the unit of x");
}
