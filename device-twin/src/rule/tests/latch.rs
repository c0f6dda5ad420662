use super::*;

const PUMP: &str = "
inputs: {suction: {device: pump, property: suction, maxAge: 5s}, lid: {device: pump, property: lid}}
output: {device: pump, property: speed, slot: 2, ttl: 10s}
onUnknown: trip
cases:
  - {name: dry, latch: true, when: {input: suction, op: below, value: 0.4, hysteresis: 0.2, for: 2s}, then: {value: 0}}
  - {name: open, latch: true, when: {input: lid, op: equal, value: open}, then: {value: 10}}
";

struct Pump {
    program: Program,
    state: RuleState,
    inputs: Inputs,
}

impl Pump {
    fn new(document: &str) -> Self {
        let program = Program::new(rule(document).unwrap(), Counting::default());
        let inputs = BTreeMap::from([("suction", good(1.0)), ("lid", text("shut"))]);
        Self { program, state: RuleState::default(), inputs }
    }

    fn at(&mut self, second: u64) -> Decision {
        evaluate(&self.program, &seen(&self.program, &self.inputs), seconds(second), &mut self.state).decision
    }

    fn suction(&mut self, suction: f64, second: u64) -> Decision {
        self.inputs.insert("suction", good(suction));
        self.at(second)
    }

    fn reset(&mut self, second: u64) -> Result<(), Refusal> {
        reset(&self.program, &seen(&self.program, &self.inputs), seconds(second), &mut self.state)
    }

    fn restart(&mut self, document: &str) {
        let spec = rule(document).unwrap();
        let bytes = minicbor::to_vec(self.state.kept()).unwrap();
        self.state = RuleState::restore(Kept::read(&bytes).unwrap(), &spec);
        self.program = Program::new(spec, Counting::default());
    }

    fn latched(&self) -> Vec<(&str, u64, bool)> {
        self.state.trips().iter().map(|trip| (trip.case.as_str(), trip.at.0, trip.unknown)).collect()
    }
}

fn text(text: &str) -> Reading {
    Reading { value: Value::Text(text.into()), quality: Quality::Good, age: Some(Duration::ZERO) }
}

fn off(cause: &str) -> Decision {
    Decision::Set { value: Value::Int(0), cause: cause.to_owned() }
}

#[test]
fn a_latch_stays_until_it_is_reset_also_over_a_restart() {
    let mut pump = Pump::new(PUMP);
    assert_eq!(pump.at(0), Decision::Relinquish);
    assert_eq!(pump.suction(0.3, 1), Decision::Relinquish);
    assert_eq!(pump.at(3), off("dry"));
    assert_eq!(pump.suction(1.0, 4), off("dry"));
    pump.restart(PUMP);
    assert_eq!(pump.at(100), off("dry"));
    assert_eq!(pump.latched(), [("dry", 30_000, false)]);
    let readings = vec![Evidence {
        input: "suction".into(),
        value: Some(Value::Float(0.3)),
        quality: Some(Quality::Good),
        age_ms: Some(0),
    }];
    assert_eq!(pump.state.trips()[0].readings, readings);
    assert_eq!(pump.reset(101), Ok(()));
    assert_eq!(pump.at(101), Decision::Relinquish);
    assert_eq!(pump.reset(102), Err(Refusal::NotTripped));
}

#[test]
fn a_latch_does_not_open_on_what_holds_or_cannot_be_told() {
    let mut pump = Pump::new(PUMP);
    pump.suction(0.3, 1);
    pump.at(3);
    let refused = |pump: &mut Pump| pump.reset(4).unwrap_err().to_string();
    assert_eq!(refused(&mut pump), "'dry' still holds (suction 0.3, 0 s old)");
    pump.suction(0.5, 4);
    assert_eq!(refused(&mut pump), "'dry' still holds (suction 0.5, 0 s old)", "within its hysteresis");
    pump.inputs.get_mut("suction").unwrap().age = Some(Duration::from_secs(6));
    assert_eq!(refused(&mut pump), "'dry' cannot be told (suction 0.5, 6 s old)");
    pump.inputs.remove("suction");
    assert_eq!(refused(&mut pump), "'dry' cannot be told (suction unknown)");
    pump.restart(PUMP);
    pump.suction(0.3, 10);
    assert_eq!(refused(&mut pump), "'dry' still holds (suction 0.3, 0 s old)", "its 'for' began anew");
    pump.suction(0.7, 11);
    assert_eq!(pump.reset(11), Ok(()));
}

#[test]
fn unknown_trips_an_interlock_but_not_before_its_inputs_could_be_heard() {
    let mut pump = Pump::new(PUMP);
    pump.inputs.remove("suction");
    assert_eq!(pump.at(0), Decision::Hold);
    assert_eq!(pump.at(4), Decision::Hold);
    assert_eq!(pump.at(5), off("dry cannot be told"));
    assert_eq!(pump.suction(1.0, 6), off("dry cannot be told"), "it is latched");
    assert_eq!(pump.latched(), [("dry", 50_000, true)]);
    assert_eq!(pump.reset(6), Ok(()));
    assert_eq!(pump.at(6), Decision::Relinquish);
    pump.inputs.get_mut("suction").unwrap().quality = Quality::Bad;
    assert_eq!(pump.at(7), off("dry cannot be told"), "it was heard before");
}

#[test]
fn an_input_that_is_not_heard_yet_hides_no_other_that_is_bad() {
    let mut pump = Pump::new(&PUMP.replace("property: lid}", "property: lid, maxAge: 1h}"));
    pump.inputs.remove("lid");
    pump.inputs.get_mut("suction").unwrap().quality = Quality::Bad;
    assert_eq!(pump.at(0), off("dry cannot be told"), "the lid has an hour to come; the suction is bad now");
}

#[test]
fn a_latch_trips_behind_another_case_and_the_first_out_comes_first() {
    let mut pump = Pump::new(PUMP);
    pump.inputs.insert("lid", text("open"));
    assert_eq!(pump.at(0), Decision::Set { value: Value::Int(10), cause: "open".into() });
    pump.suction(0.3, 1);
    assert_eq!(pump.at(3), off("dry"), "it stands above");
    assert_eq!(pump.latched(), [("open", 0, false), ("dry", 30_000, false)]);
    pump.suction(1.0, 4);
    let why = pump.reset(4).unwrap_err();
    assert_eq!(why.to_string(), "'open' still holds (lid open, 0 s old)");
    assert_eq!(pump.latched().len(), 2, "all or none");
}

#[test]
fn a_case_above_goes_before_a_latch_only_if_it_is_true() {
    let document = PUMP.replace("onUnknown: trip", "onUnknown: hold").replace(
        "cases:\n",
        "cases:\n  - {name: fire, when: {input: lid, op: above, value: 5}, then: {value: 100}}\n",
    );
    let mut pump = Pump::new(&document);
    pump.inputs.insert("lid", good(1.0));
    pump.suction(0.3, 1);
    assert_eq!(pump.at(3), off("dry"));
    pump.inputs.get_mut("lid").unwrap().quality = Quality::Bad;
    assert_eq!(pump.at(4), off("dry"), "what cannot be told hides no latch");
    pump.inputs.insert("lid", good(6.0));
    assert_eq!(pump.at(5), Decision::Set { value: Value::Int(100), cause: "fire".into() });
}

#[test]
fn a_changed_document_keeps_a_latch_by_its_title_or_its_place() {
    let tripped = || {
        let mut pump = Pump::new(PUMP);
        pump.suction(0.3, 1);
        pump.at(3);
        pump
    };
    let first =
        "  - {name: new, latch: true, when: {input: lid, op: equal, value: gone}, then: {value: 5}}\n";
    for (changed, expected) in [
        (PUMP.replace("cases:\n", &format!("cases:\n{first}")), Some("dry")),
        (PUMP.replace("name: dry", "name: no water"), Some("no water")),
        (PUMP.replace("name: dry, latch: true,", "name: dry,"), None),
    ] {
        let mut pump = tripped();
        pump.restart(&changed);
        assert_eq!(pump.latched().first().map(|(case, ..)| *case), expected, "{changed}");
    }
}

#[test]
fn what_an_earlier_version_kept_is_read() {
    let bytes = minicbor::to_vec(vec![true, false]).unwrap();
    let kept = Kept { held: vec![true, false], trips: vec![] };
    assert_eq!(Kept::read(&bytes), Some(kept.clone()));
    assert_eq!(Kept::read(&minicbor::to_vec(&kept).unwrap()), Some(kept));
    assert_eq!(Kept::read(b"?"), None);
    let mut pump = Pump::new(PUMP);
    pump.state = RuleState::restore(Kept::read(&bytes).unwrap(), pump.program.spec());
    pump.suction(0.5, 0);
    assert_eq!(pump.at(2), off("dry"), "below 0.4 + 0.2");
}

#[test]
fn latches_and_interlocks_without_sense_are_refused() {
    refused(
        PUMP,
        &[
            ("when: {input: lid, op: equal, value: open}, ", "", "spec.cases[1].latch: it would never open"),
            ("then: {value: 10}", "then: hold", "spec.cases[1].then: a latch holds a value"),
            ("name: open", "name: dry", "spec.cases[1].name: two cases that latch are named 'dry'"),
        ],
    );
    let open = PUMP.replace("name: open, latch: true,", "name: open,");
    rule(&open).unwrap();
    refused(
        &open,
        &[("then: {value: 10}", "then: relinquish", "spec.cases[1].then: with 'onUnknown: trip'")],
    );
}

#[test]
fn a_text_that_trips_is_cut_where_it_is_kept() {
    let mut pump = Pump::new(&PUMP.replace("value: open", &format!("value: {}", "x".repeat(1000))));
    pump.inputs.insert("lid", text(&"x".repeat(1000)));
    pump.at(0);
    let value = pump.state.trips()[0].readings[0].value.clone();
    assert_eq!(value, Some(Value::Text("x".repeat(256))));
}
