use bus::Name;

use super::*;
use crate::model::FieldError;

fn id(name: &str) -> DeviceId {
    DeviceId { namespace: Name::new("water").unwrap(), name: Name::new(name).unwrap() }
}

fn document(kind: Kind, name: &str, spec: &str) -> Bytes {
    let (version, word) = match kind {
        Kind::Device => ("devices.kubeedge.io/v1beta1", "Device"),
        Kind::Model => ("devices.kubeedge.io/v1beta1", "DeviceModel"),
        Kind::Policy => ("kubebus.io/v1alpha1", "TwinPolicy"),
        Kind::Rule => ("kubebus.io/v1alpha1", "Rule"),
    };
    let yaml = format!(
        "apiVersion: {version}\nkind: {word}\nmetadata: {{name: {name}, namespace: water}}\nspec: {spec}"
    );
    let value: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
    serde_json::to_vec(&value).unwrap().into()
}

const TANK: &str = "{properties: [
    {name: level, type: DOUBLE, accessMode: ReadOnly, minimum: '0', maximum: '6', unit: m},
    {name: mode, type: STRING, accessMode: ReadWrite},
    {name: depth, type: DOUBLE, accessMode: ReadOnly, unit: cm}]}";

const VALVE: &str = "{properties: [
    {name: position, type: DOUBLE, accessMode: ReadWrite, minimum: '0', maximum: '100', unit: '%'},
    {name: setpoint, type: DOUBLE, accessMode: ReadWrite, minimum: '0.5', maximum: '5.5', unit: m},
    {name: pressure, type: DOUBLE, accessMode: ReadOnly, minimum: '0', maximum: '600', unit: kPa},
    {name: steps, type: INT, accessMode: ReadWrite, unit: pieces},
    {name: open, type: BOOLEAN, accessMode: ReadOnly}]}";

const POSITION: &str = "{model: valve, property: position, actuator: true, failSafe: 70}";

/// The utility, without rules.
fn plant() -> Catalog {
    let mut catalog = Catalog::default();
    for (kind, name, spec) in [
        (Kind::Model, "tank", TANK),
        (Kind::Model, "valve", VALVE),
        (Kind::Policy, "valve-position", POSITION),
        (Kind::Policy, "tank-mode", "{model: tank, property: mode, values: [fill, hold, drain]}"),
        (Kind::Device, "tank", "{deviceModelRef: {name: tank}}"),
        (Kind::Device, "valve", "{deviceModelRef: {name: valve}}"),
    ] {
        put(&mut catalog, kind, name, spec);
    }
    assert_eq!(catalog.unreadable().count(), 0);
    catalog
}

fn put(catalog: &mut Catalog, kind: Kind, name: &str, spec: &str) {
    assert_eq!(try_out(catalog, kind, name, spec), [""; 0], "{spec}");
    catalog.put(kind, &id(name), Some(&document(kind, name, spec)));
}

fn try_out(catalog: &Catalog, kind: Kind, name: &str, spec: &str) -> Vec<String> {
    let json = document(kind, name, spec);
    let problem = Catalog::default().clone_with(kind, name, &json);
    assert_eq!(problem, None, "{spec}");
    check(kind, &id(name), &json, catalog).iter().map(FieldError::to_string).collect()
}

impl Catalog {
    /// What is wrong with the manifest by itself.
    fn clone_with(mut self, kind: Kind, name: &str, json: &Bytes) -> Option<String> {
        self.put(kind, &id(name), Some(json));
        self.unreadable().next().map(|(_, why)| why.to_string())
    }
}

/// A rule that moves the valve's position.
fn rule(cases: &str) -> String {
    format!(
        "{{inputs: {{
            level: {{device: tank, property: level}}, depth: {{device: tank, property: depth}},
            mode: {{device: tank, property: mode}}, setpoint: {{device: valve, property: setpoint, from: desired}},
            pressure: {{device: valve, property: pressure}}, open: {{device: valve, property: open}},
            steps: {{device: valve, property: steps}}, position: {{device: valve, property: position}}}},
        output: {{device: valve, property: position, ttl: 30s}}, onUnknown: hold, cases: [{cases}]}}"
    )
}

fn errors(cases: &str) -> Vec<String> {
    try_out(&plant(), Kind::Rule, "r", &rule(cases))
}

fn when(predicate: &str) -> Vec<String> {
    errors(&format!("{{when: {predicate}, then: hold}}"))
}

#[test]
fn a_rule_that_makes_sense_is_taken() {
    for cases in [
        "{then: {value: {input: level, minus: setpoint, gain: -40, offset: 50, min: position, max: 100}}}",
        "{when: {input: pressure, op: above, value: 560, hysteresis: 30}, then: {value: 0}}",
        "{when: {all: [{input: mode, op: equal, value: fill}, {not: {input: open, op: equal, value: true}}]}, then: relinquish}",
        "{when: {input: level, op: below, than: setpoint, margin: -0.5}, then: {value: 100}}",
        "{when: {input: level, op: at-most, value: 0}, then: hold}",
        "{when: {input: level, op: above, value: 6}, then: hold}",
        "{when: {input: steps, op: above, value: 1000000}, then: hold}",
        "{when: {input: steps, op: above, than: level}, then: hold}",
    ] {
        assert_eq!(errors(cases), [""; 0], "{cases}");
    }
}

#[test]
fn what_is_not_known_yet_is_no_error() {
    let spec = rule("{when: {input: level, op: above, value: 900}, then: {value: 500}}");
    let mut catalog = Catalog::default();
    put(&mut catalog, Kind::Rule, "r", &spec);
    put(&mut catalog, Kind::Device, "tank", "{deviceModelRef: {name: tank}}");
    assert_eq!(
        try_out(&catalog, Kind::Rule, "r", &spec),
        [""; 0],
        "a device without its model has no properties yet"
    );
    assert_eq!(
        try_out(&catalog, Kind::Model, "tank", TANK),
        [
            "spec: rule water/r would break: spec.cases[0].when: 900 can never be reached: water/tank level goes from 0 to 6"
        ]
    );
}

#[test]
fn a_property_that_a_known_device_lacks_is_refused() {
    let spec = rule("")
        .replace("property: level", "property: levle")
        .replace("property: position, ttl", "property: pos, ttl");
    assert_eq!(
        try_out(&plant(), Kind::Rule, "r", &spec),
        [
            "spec.inputs.level.property: water/tank has no property 'levle'; it has depth, level, mode",
            "spec.output.property: water/valve has no property 'pos'; it has open, position, pressure, setpoint, steps",
        ]
    );
}

#[test]
fn only_what_can_be_written_is_moved() {
    let spec = rule("{then: {value: 1}}").replace("property: position, ttl", "property: pressure, ttl");
    assert_eq!(
        try_out(&plant(), Kind::Rule, "r", &spec),
        ["spec.output.property: water/valve pressure is read-only"]
    );
}

#[test]
fn a_constant_must_be_one_that_the_output_can_hold() {
    for (cases, expected) in [
        (
            "{then: {value: 101}}",
            "spec.cases[0].then.value: water/valve position cannot be set to this: 101 is outside 0 to 100",
        ),
        (
            "{then: hold}, {then: {value: open}}",
            "spec.cases[1].then.value: water/valve position cannot be set to this: wrong type: expected Float, got open",
        ),
    ] {
        assert_eq!(errors(cases), [expected]);
    }
    let mode = |spec: String| {
        spec.replace("property: position, ttl", "property: mode, ttl")
            .replace("output: {device: valve", "output: {device: tank")
    };
    let spec = mode(rule("{then: {value: empty}}").replace("onUnknown: hold", "onUnknown: {value: stop}"));
    assert_eq!(
        try_out(&plant(), Kind::Rule, "r", &spec),
        [
            "spec.onUnknown.value: water/tank mode cannot be set to this: stop is none of fill, hold, drain",
            "spec.cases[0].then.value: water/tank mode cannot be set to this: empty is none of fill, hold, drain",
        ]
    );
}

#[test]
fn a_threshold_beyond_the_models_range_is_refused() {
    for (predicate, expected) in [
        (
            "{input: level, op: above, value: 900}",
            "spec.cases[0].when: 900 can never be reached: water/tank level goes from 0 to 6",
        ),
        (
            "{any: [{input: level, op: above, value: 5}, {not: {input: level, op: at-least, value: 6.5}}]}",
            "spec.cases[0].when.any[1].not: 6.5 can never be reached: water/tank level goes from 0 to 6",
        ),
        (
            "{input: level, op: above, value: 5, margin: 2}",
            "spec.cases[0].when: 7 can never be reached: water/tank level goes from 0 to 6",
        ),
        (
            "{input: level, op: at-most, value: -1}",
            "spec.cases[0].when: -1 can never be reached: water/tank level goes from 0 to 6",
        ),
        (
            "{input: level, op: below, value: 10}",
            "spec.cases[0].when: below 10 always holds: water/tank level goes from 0 to 6",
        ),
        (
            "{input: level, op: at-least, value: -5}",
            "spec.cases[0].when: at least -5 always holds: water/tank level goes from 0 to 6",
        ),
        (
            "{input: open, op: above, value: 2}",
            "spec.cases[0].when: 2 can never be reached: water/valve open goes from 0 to 1",
        ),
        (
            "{input: level, op: equal, value: 7}",
            "spec.cases[0].when: water/tank level is never equal to 7: 7 is outside 0 to 6",
        ),
        (
            "{input: mode, op: equal, value: filling}",
            "spec.cases[0].when: water/tank mode is never equal to filling: filling is none of fill, hold, drain",
        ),
        (
            "{input: open, op: equal, value: 1}",
            "spec.cases[0].when: water/valve open is never equal to 1: wrong type: expected Bool, got 1",
        ),
        (
            "{input: mode, op: above, value: 3}",
            "spec.cases[0].when: water/tank mode is no number: it is never above or below anything",
        ),
    ] {
        assert_eq!(when(predicate), [expected]);
    }
}

#[test]
fn what_is_compared_must_be_counted_alike() {
    assert_eq!(
        when("{input: level, op: above, than: pressure}"),
        ["spec.cases[0].when: level counts in m, pressure in kPa, which measure different things"]
    );
    assert_eq!(
        when("{input: depth, op: above, than: setpoint}"),
        ["spec.cases[0].when: depth counts in cm, setpoint in m: one of them needs the other's unit"]
    );
    assert_eq!(
        errors("{then: {value: {input: level, minus: pressure, min: setpoint}}}"),
        [
            "spec.cases[0].then.value: level counts in m, pressure in kPa, which measure different things",
            "spec.cases[0].then.value: setpoint counts in m, water/valve position in %, which measure different things",
        ]
    );
}

/// The unit that a rule states, seen without the rest of the rule.
#[test]
fn a_threshold_in_another_unit_is_converted_or_refused() {
    let catalog = plant();
    let pressure = catalog.property(&id("valve"), "pressure").unwrap();
    let steps = catalog.property(&id("valve"), "steps").unwrap();
    let open = catalog.property(&id("valve"), "open").unwrap();
    let fault = |property, value: f64, unit: &str| {
        let json = serde_json::json!({"input": "x", "op": "above", "value": value});
        let predicate = serde_json::from_value(json).unwrap();
        threshold::fault(&predicate, threshold::Compared { name: "x", property, unit: Some(unit) })
    };
    assert_eq!(fault(pressure, 5.6, "bar"), None);
    assert_eq!(
        fault(pressure, 9.0, "bar").as_deref(),
        Some("9 bar can never be reached: x goes from 0 to 600 kPa")
    );
    assert_eq!(
        fault(pressure, 1.0, "m").as_deref(),
        Some("m cannot be converted to kPa: the one counts m, the other m-1.s-2.g")
    );
    assert_eq!(fault(pressure, 1.0, "psi").as_deref(), Some("'psi' is no UCUM unit; did you mean '[psi]'?"));
    assert_eq!(
        fault(steps, 1.0, "%").as_deref(),
        Some("the property's unit 'pieces' is not understood, so '%' cannot be converted")
    );
    assert_eq!(
        fault(open, 1.0, "%").as_deref(),
        Some("the property has no unit, so '%' cannot be converted")
    );
    let seen = |unit| units::seen(unit, pressure).map(|unit| unit.map(|unit| unit.code().to_owned()));
    assert_eq!(seen(None), Ok(Some("kPa".to_owned())));
    assert_eq!(seen(Some("bar")), Ok(Some("bar".to_owned())));
    assert_eq!(
        seen(Some("m")),
        Err("m cannot be converted to kPa: the one counts m, the other m-1.s-2.g".to_owned())
    );
}

#[test]
fn an_actuator_that_protects_or_may_fail_safe_needs_a_fail_safe_value() {
    let mut catalog = plant();
    put(&mut catalog, Kind::Policy, "valve-position", "{model: valve, property: position, actuator: true}");
    let spec =
        rule("").replace("ttl: 30s", "ttl: 30s, slot: 2").replace("onUnknown: hold", "onUnknown: failSafe");
    assert_eq!(
        try_out(&catalog, Kind::Rule, "r", &spec),
        [
            "spec.output.slot: slot 2 protects, and water/valve position has no fail-safe value: state failSafe in its TwinPolicy",
            "spec.onUnknown: water/valve position has no fail-safe value: state failSafe in its TwinPolicy",
        ]
    );
    assert_eq!(try_out(&plant(), Kind::Rule, "r", &spec), [""; 0]);
}

#[test]
fn two_rules_do_not_share_a_slot() {
    let mut catalog = plant();
    put(&mut catalog, Kind::Rule, "first", &rule(""));
    assert_eq!(
        try_out(&catalog, Kind::Rule, "second", &rule("")),
        [
            "spec.output.slot: rule water/first fills slot 10 of water/valve position already: take another one"
        ]
    );
    let other = rule("").replace("ttl: 30s", "ttl: 30s, slot: 9");
    put(&mut catalog, Kind::Rule, "second", &other);
    assert_eq!(try_out(&catalog, Kind::Rule, "first", &rule("")), [""; 0], "its own old version is no rival");
}

/// A rule that reads one property of one device and moves another.
fn link(input: &str, from: &str, output: &str) -> String {
    let place = |text: &str| {
        let (device, property) = text.split_once('.').unwrap();
        format!("device: {device}, property: {property}")
    };
    format!(
        "{{inputs: {{x: {{{}, from: {from}}}}}, output: {{{}, ttl: 30s}}, onUnknown: hold, cases: [{{then: hold}}]}}",
        place(input),
        place(output)
    )
}

#[test]
fn rules_that_move_each_other_in_a_circle_are_refused_with_the_chain() {
    let mut catalog = plant();
    put(&mut catalog, Kind::Rule, "a", &link("valve.position", "reported", "valve.setpoint"));
    put(&mut catalog, Kind::Rule, "b", &link("valve.setpoint", "reported", "valve.steps"));
    assert_eq!(
        try_out(&catalog, Kind::Rule, "c", &link("valve.steps", "reported", "valve.position")),
        ["spec.inputs.x: these rules move each other in a circle: water/c -> water/a -> water/b -> water/c"]
    );
    assert_eq!(
        try_out(&catalog, Kind::Rule, "c", &link("valve.steps", "desired", "valve.position")),
        [""; 0],
        "no rule moves what is desired"
    );
    assert_eq!(
        try_out(&catalog, Kind::Rule, "c", &link("valve.position", "reported", "valve.position")),
        [""; 0],
        "a controller reads what it moves"
    );
    let controller =
        link("valve.setpoint", "reported", "valve.setpoint").replace("ttl: 30s", "ttl: 30s, slot: 9");
    assert_eq!(
        try_out(&catalog, Kind::Rule, "c", &controller),
        [""; 0],
        "two controllers of one property are told apart by their slots"
    );
}

#[test]
fn what_a_rule_rests_on_does_not_change_under_it() {
    let mut catalog = plant();
    let spec = rule("{when: {input: level, op: above, value: 5}, then: {value: 80}}")
        .replace("onUnknown: hold", "onUnknown: failSafe");
    put(&mut catalog, Kind::Rule, "r", &spec);
    for (kind, name, changed, expected) in [
        (
            Kind::Model,
            "tank",
            TANK.replace("maximum: '6'", "maximum: '4'"),
            "spec: rule water/r would break: spec.cases[0].when: 5 can never be reached: water/tank level goes from 0 to 4",
        ),
        (
            Kind::Policy,
            "valve-position",
            "{model: valve, property: position, actuator: true}".to_owned(),
            "spec: rule water/r would break: spec.onUnknown: water/valve position has no fail-safe value: state failSafe in its TwinPolicy",
        ),
        (
            Kind::Device,
            "tank",
            "{deviceModelRef: {name: tank}, properties: [{name: depth}, {name: mode}]}".to_owned(),
            "spec: rule water/r would break: spec.inputs.level.property: water/tank has no property 'level'; it has depth, mode",
        ),
        (
            Kind::Policy,
            "new",
            "{model: tank, property: level, unit: bar}".to_owned(),
            // `level` is read, not compared: nothing in this rule depends on its unit.
            "",
        ),
    ] {
        let expected: Vec<&str> = Some(expected).into_iter().filter(|text| !text.is_empty()).collect();
        assert_eq!(try_out(&catalog, kind, name, &changed), expected, "{changed}");
    }
}

#[test]
fn a_rule_that_was_broken_before_holds_nothing_up() {
    let mut catalog = plant();
    let spec = rule("{when: {input: level, op: above, value: 900}, then: hold}");
    catalog.put(Kind::Rule, &id("old"), Some(&document(Kind::Rule, "old", &spec)));
    assert_eq!(try_out(&catalog, Kind::Model, "tank", TANK), [""; 0]);
}

#[test]
fn a_policy_must_fit_its_model() {
    let catalog = plant();
    for (spec, expected) in [
        (
            "{model: valve, property: position, failSafe: 120}",
            "spec.failSafe: position: 120 is outside 0 to 100",
        ),
        (
            "{model: valve, property: position, failSafe: shut}",
            "spec.failSafe: position: wrong type: expected Float, got shut",
        ),
        (
            "{model: valve, property: pressure, failSafe: 1}",
            "spec.failSafe: pressure: the property is read-only",
        ),
        (
            "{model: valve, property: steps, values: [1, 2.5]}",
            "spec.values[1]: steps: wrong type: expected Int, got 2.5",
        ),
        (
            "{model: valve, property: position, values: [0, 50, 150]}",
            "spec.values[2]: position: 150 is outside 0 to 100",
        ),
        (
            "{model: valve, property: steps, values: [1, 2, 4], failSafe: 3}",
            "spec.failSafe: steps: 3 is none of 1, 2, 4",
        ),
        (
            "{model: valve, property: pressure, deviceUnit: m}",
            "spec.deviceUnit: pressure: m cannot be converted to kPa: the one counts m, the other m-1.s-2.g",
        ),
        (
            "{model: valve, property: steps, deviceUnit: m}",
            "spec.deviceUnit: steps: the property's unit 'pieces' is not understood, so 'm' cannot be converted",
        ),
        ("{model: valve, property: open, deviceUnit: m}", "spec.deviceUnit: open: Bool values have no unit"),
        (
            "{model: valve, property: posiiton, actuator: true}",
            "spec.property: model water/valve has no property 'posiiton'; it has position, setpoint, pressure, steps, open",
        ),
    ] {
        // The name puts it before the policy that the plant has.
        assert_eq!(try_out(&catalog, Kind::Policy, "a", spec), [expected], "{spec}");
    }
    for fit in [
        "{model: valve, property: position, failSafe: 70}",
        "{model: valve, failSafe: 1, deviceUnit: bar, unit: kPa}",
        "{model: valve, property: pressure, deviceUnit: bar}",
        "{model: valve, property: steps, values: [1, 2, 4], failSafe: 4, unit: '1', deviceUnit: '%'}",
        "{model: unheard, property: x, failSafe: 70}",
    ] {
        assert_eq!(try_out(&catalog, Kind::Policy, "a", fit), [""; 0], "{fit}");
    }
}

#[test]
fn a_model_must_bear_its_policies() {
    let changed = VALVE.replace("maximum: '100'", "maximum: '50'");
    assert_eq!(
        try_out(&plant(), Kind::Model, "valve", &changed),
        ["spec.properties[0]: TwinPolicy water/valve-position: spec.failSafe: 70 is outside 0 to 50"]
    );
}

/// In the order in which the demo applies them.
#[test]
fn the_water_utilitys_manifests_are_in_order() {
    let mut catalog = Catalog::default();
    for file in [
        include_str!("../../../../simulations/water/manifests/models.yaml"),
        include_str!("../../../../simulations/water/manifests/policies.yaml"),
        include_str!("../../../../simulations/water/manifests/rule.yaml"),
        include_str!("../../../../simulations/water/manifests/devices.yaml"),
    ] {
        for document in serde_saphyr::from_multiple::<serde_json::Value>(file).unwrap() {
            let kind = match document["kind"].as_str().unwrap() {
                "Device" => Kind::Device,
                "DeviceModel" => Kind::Model,
                "TwinPolicy" => Kind::Policy,
                _ => Kind::Rule,
            };
            let (id, json) =
                (id(document["metadata"]["name"].as_str().unwrap()), document.to_string().into());
            assert_eq!(check(kind, &id, &json, &catalog), [], "{document}");
            catalog.put(kind, &id, Some(&json));
        }
    }
    assert_eq!((catalog.unreadable().count(), catalog.rules().count()), (0, 1));
    for (id, device) in catalog.devices() {
        assert_eq!(device.problem, None, "{id}");
        let without: Vec<_> =
            device.properties.iter().filter(|(_, p)| p.unit.is_some() && p.ucum.is_none()).collect();
        assert_eq!(without, [], "every unit is understood");
    }
}
