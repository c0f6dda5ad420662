//! Enumerations and units, from the manifests to the values.

use bus::twin::ReportBody;
use bus::{Sample, UnixMillis};

use super::*;
use crate::twin::{SetBody, explain};

const PUMP: &str = r#"
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: beta1-model}
spec:
  properties:
    - {name: mode, type: STRING, accessMode: ReadWrite}
    - {name: step, type: INT, accessMode: ReadWrite}
    - {name: pressure, type: FLOAT, accessMode: ReadWrite, minimum: "0", maximum: "863", unit: kPa}
    - {name: temp, type: INT, accessMode: ReadWrite, minimum: "-20", maximum: "90", unit: degree celsius}
    - {name: parts, type: INT, accessMode: ReadWrite, unit: pieces}
    - {name: running, type: BOOLEAN}
"#;

fn pump(policies: &[&str]) -> Catalog {
    let mut catalog = Catalog::default();
    catalog.put(Kind::Model, &id("beta1-model"), Some(&json(PUMP)));
    let device = DEVICE.replace("name: temp\n", "name: pressure\n");
    let device = device.split("  properties:").next().unwrap();
    catalog.put(Kind::Device, &id("beta1-device"), Some(&json(device)));
    for (at, spec) in policies.iter().enumerate() {
        let (name, json) = policy(&format!("p{at}"), spec);
        catalog.put(Kind::Policy, &name, Some(&json));
    }
    catalog
}

fn property<'a>(catalog: &'a Catalog, name: &str) -> &'a Property {
    catalog.property(&id("beta1-device"), name).unwrap()
}

fn problem(catalog: &Catalog) -> Option<&str> {
    catalog.device(&id("beta1-device")).unwrap().problem.as_deref()
}

fn told<T>(result: Result<T, InvalidValue>) -> Result<T, String> {
    result.map_err(|why| explain(&why))
}

#[test]
fn only_the_listed_values_are_taken_and_others_are_reported_as_uncertain() {
    let catalog = pump(&[
        "{model: beta1-model, property: mode, values: [auto, hand, 'off']}",
        "{model: beta1-model, property: step, values: [1, 2.0, 4]}",
    ]);
    let (mode, step) = (property(&catalog, "mode"), property(&catalog, "step"));
    let text = |text: &str| Value::Text(text.to_owned());
    assert_eq!(mode.check_desired(text("hand")), Ok(text("hand")));
    assert_eq!(told(mode.check_desired(text("fast"))), Err("fast is none of auto, hand, off".to_owned()));
    assert_eq!(mode.check_reported(text("fast")), Ok((text("fast"), Quality::Uncertain)));
    assert_eq!(mode.check_reported(text("off")), Ok((text("off"), Quality::Good)));
    assert_eq!(step.values, Some(vec![Value::Int(1), Value::Int(2), Value::Int(4)]));
    assert_eq!(step.check_desired(Value::Float(4.0)), Ok(Value::Int(4)));
    assert_eq!(told(step.check_desired(Value::Int(3))), Err("3 is none of 1, 2, 4".to_owned()));
    assert_eq!(problem(&catalog), None);
}

#[test]
fn a_policy_alone_shows_most_of_its_mistakes() {
    let error = |fields: &str| {
        let (_, json) = policy("p", &format!("{{model: beta1-model, {fields}}}"));
        TwinPolicy::from_json(&json).unwrap_err().to_string()
    };
    assert_eq!(error("unit: degC"), "spec.unit: 'degC' is no UCUM unit; did you mean 'Cel'?");
    assert_eq!(
        error("deviceUnit: ''"),
        "spec.deviceUnit: a unit is missing; what is just a number has the unit '1'"
    );
    assert_eq!(
        error("unit: kPa, deviceUnit: m3"),
        "spec.deviceUnit: m3 cannot be converted to kPa: the one counts m3, the other m-1.s-2.g"
    );
    assert_eq!(error("values: []"), "spec.values: 0 values, where 1 to 64 make sense");
    assert_eq!(error("values: [a, true]"), "spec.values[1]: neither a text nor a number");
}

#[test]
fn a_device_that_counts_otherwise_is_converted_both_ways() {
    let catalog = pump(&["{model: beta1-model, property: pressure, deviceUnit: bar}"]);
    let pressure = property(&catalog, "pressure");
    assert_eq!(pressure.from_device(Value::Float(3.2)), Value::Float(320.0));
    assert_eq!(pressure.from_device(Value::Int(3)), Value::Float(300.0));
    assert_eq!(pressure.to_device(Value::Float(320.0)), Value::Float(3.2));
    assert_eq!(pressure.from_device(Value::Bool(true)), Value::Bool(true), "refused where types are checked");
    assert_eq!((pressure.unit.as_deref(), pressure.device_unit()), (Some("kPa"), Some("bar")));
    assert_eq!(pressure.device_range(), (Some(0.0), Some(8.63)));
    assert_eq!(
        pressure.check_reported(pressure.from_device(Value::Float(8.63))),
        Ok((Value::Float(863.0), Quality::Good)),
        "its greatest value is not beyond its maximum"
    );
}

#[test]
fn an_integer_stays_one_in_another_unit() {
    let catalog = pump(&["{model: beta1-model, property: temp, deviceUnit: dCel}"]);
    let temp = property(&catalog, "temp");
    assert_eq!(temp.check_reported(temp.from_device(Value::Int(217))), Ok((Value::Int(22), Quality::Good)));
    assert_eq!(temp.to_device(Value::Int(22)).coerce(ValueType::Int), Ok(Value::Int(220)));
    assert_eq!(temp.device_range(), (Some(-200.0), Some(900.0)));
}

#[test]
fn a_device_that_counts_in_an_unknown_unit_has_no_such_property() {
    let catalog = pump(&["{model: beta1-model, property: parts, deviceUnit: '%'}"]);
    assert!(catalog.property(&id("beta1-device"), "parts").is_err());
    assert_eq!(
        problem(&catalog),
        Some(
            "TwinPolicy default/p0: spec.deviceUnit: the property's unit 'pieces' is not understood, so '%' cannot \
             be converted"
        )
    );
    let mended = pump(&["{model: beta1-model, property: parts, unit: '1', deviceUnit: '%'}"]);
    assert_eq!((property(&mended, "parts").unit.as_deref(), problem(&mended)), (Some("1"), None));
}

#[test]
fn a_fail_safe_value_that_does_not_fit_is_not_used_and_said() {
    let catalog = pump(&["{model: beta1-model, property: pressure, actuator: true, failSafe: 900}"]);
    assert_eq!(property(&catalog, "pressure").policy.fail_safe, None);
    assert_eq!(problem(&catalog), Some("TwinPolicy default/p0: spec.failSafe: 900 is outside 0 to 863"));
}

#[test]
fn free_text_units_are_shown_and_never_converted() {
    let catalog = pump(&[]);
    let parts = property(&catalog, "parts");
    assert_eq!((parts.unit.as_deref(), &parts.ucum), (Some("pieces"), &None));
    assert_eq!(parts.in_unit(Value::Int(3), None), Ok(Value::Int(3)));
    assert_eq!(parts.in_unit(Value::Int(3), Some("pieces")), Ok(Value::Int(3)), "it is the property's own");
    let temp = property(&catalog, "temp");
    assert_eq!(temp.unit.as_deref(), Some("degree celsius"));
    assert_eq!(temp.ucum.as_ref().map(|unit| unit.code()), Some("Cel"));
    assert_eq!(property(&catalog, "running").unit, None);
}

#[test]
fn a_report_may_name_its_unit() {
    let catalog = pump(&["{model: beta1-model, property: pressure, deviceUnit: bar}"]);
    let pressure = property(&catalog, "pressure");
    let report = |json: &str| {
        told(pressure.check_report(serde_json::from_str::<ReportBody>(json).unwrap(), UnixMillis(5)))
    };
    let sample = |value, quality| Ok(Sample { value: Value::Float(value), time: UnixMillis(5), quality });
    assert_eq!(report("3.2"), sample(320.0, Quality::Good));
    assert_eq!(report(r#"{"value": 3.2}"#), sample(320.0, Quality::Good));
    assert_eq!(report(r#"{"value": 3.2, "unit": "bar"}"#), sample(320.0, Quality::Good));
    assert_eq!(report(r#"{"value": 320, "unit": "kPa"}"#), sample(320.0, Quality::Good));
    assert_eq!(report(r#"{"value": 0.9, "unit": "MPa"}"#), sample(900.0, Quality::Uncertain));
    assert_eq!(report(r#"{"value": 1, "unit": "kPa", "quality": "bad"}"#), sample(1.0, Quality::Bad));
    assert_eq!(
        report(r#"{"value": 3, "unit": "Cel"}"#),
        Err("wrong unit: Cel cannot be converted to kPa: the one counts K, the other m-1.s-2.g".to_owned())
    );
    assert_eq!(
        report(r#"{"value": "much", "unit": "bar"}"#),
        Err("wrong unit: much is no number, and has no unit".to_owned())
    );
}

#[test]
fn a_wish_may_name_its_unit() {
    let catalog = pump(&["{model: beta1-model, property: pressure, deviceUnit: bar}"]);
    let set = |name: &str, json: &str| {
        told(serde_json::from_str::<SetBody>(json).unwrap().check(property(&catalog, name)))
    };
    assert_eq!(set("pressure", "320"), Ok(Value::Float(320.0)), "what is wished is in the property's unit");
    assert_eq!(set("pressure", r#"{"value": 3.2, "unit": "bar"}"#), Ok(Value::Float(320.0)));
    assert_eq!(set("pressure", r#"{"value": 9, "unit": "bar"}"#), Err("900 is outside 0 to 863".to_owned()));
    assert_eq!(set("temp", r#"{"value": 68, "unit": "[degF]"}"#), Ok(Value::Int(20)));
    assert_eq!(
        set("pressure", r#"{"value": 9, "unit": "psi"}"#),
        Err("wrong unit: 'psi' is no UCUM unit; did you mean '[psi]'?".to_owned())
    );
    assert_eq!(
        set("mode", r#"{"value": 9, "unit": "bar"}"#),
        Err("wrong unit: the property has no unit, so 'bar' cannot be converted".to_owned())
    );
}
