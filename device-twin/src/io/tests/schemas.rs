//! `docs/schemas/` against the types: what a payload says in full has just the members of its schema, what it cannot
//! leave out is what the schema requires, and each example reads and is as the schema has it.

use std::collections::{BTreeMap, BTreeSet};

use bus::twin::{
    DesiredVersion, DeviceCondition, DeviceConfig, DeviceHealth, DeviceId, Json, MapperConfig, MapperCounts,
    MapperHealth, Outcome, PropertyConfig, ReportBody, ReportMany, ResultBody, WriteRequest, WriteResult,
};
use bus::{Quality, UnixMillis, Value as Typed, ValueType};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::command::Order;
use crate::twin::{Ack, Availability, DesiredBody, DeviceState, ReportedBody, SetBody};

fn schema(name: &str) -> Value {
    let path = format!("{}/../docs/schemas/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path}: {why}"));
    serde_json::from_str(&text).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// The part of JSON Schema (draft 2020-12) that these schemas use; anything else is an error, so that nothing in them
/// goes unchecked.
fn check(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    for (word, rule) in schema.as_object().ok_or("a schema is an object")? {
        let holds = match word.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" | "examples" => true,
            "$ref" => {
                let target = rule.as_str().and_then(|target| root.pointer(target.trim_start_matches('#')));
                check(root, target.ok_or("a reference to nothing")?, value)?;
                true
            }
            "anyOf" => all(rule)?.iter().any(|one| check(root, one, value).is_ok()),
            "enum" => all(rule)?.contains(value),
            "type" => match rule.as_array() {
                Some(kinds) => kinds.iter().any(|kind| is_of(kind, value)),
                None => is_of(rule, value),
            },
            "minimum" => value.as_f64() >= rule.as_f64(),
            "pattern" => value.as_str().is_some_and(|text| !text.is_empty() && text.is_ascii()),
            "maxItems" => value.as_array().map(|items| items.len() as u64) <= rule.as_u64(),
            "items" => {
                all(value)?.iter().try_for_each(|item| check(root, rule, item))?;
                true
            }
            "properties" => {
                let members = value.as_object().into_iter().flatten();
                let known = members.filter_map(|(name, member)| Some((rule.get(name)?, member)));
                known.into_iter().try_for_each(|(rule, member)| check(root, rule, member))?;
                true
            }
            "required" => {
                all(rule)?.iter().all(|name| value.get(name.as_str().unwrap_or_default()).is_some())
            }
            "additionalProperties" => {
                let known = schema.get("properties");
                let mut members = value.as_object().into_iter().flatten();
                members.try_for_each(|(name, member)| {
                    match (known.and_then(|known| known.get(name)), rule) {
                        (Some(_), _) => Ok(()),
                        (None, Value::Bool(false)) => Err(format!("{name} is unknown")),
                        (None, rule) => check(root, rule, member),
                    }
                })?;
                true
            }
            other => return Err(format!("{other} is not looked at")),
        };
        if !holds {
            return Err(format!("{word} {rule} does not hold of {value}"));
        }
    }
    Ok(())
}

fn all(value: &Value) -> Result<&Vec<Value>, String> {
    value.as_array().ok_or_else(|| format!("{value} is no list"))
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_i64() || value.is_u64(),
        _ => false,
    }
}

fn names(members: &Value) -> BTreeSet<String> {
    members.as_object().map(|members| members.keys().cloned().collect()).unwrap_or_default()
}

/// Holds a schema, or the part of it at `pointer`, against a type: `full` says all that it can, `least` as little.
#[track_caller]
fn is_described<T: Serialize>(name: &str, pointer: &str, full: &T, least: &T) {
    let root = schema(name);
    let part = root.pointer(pointer).unwrap_or_else(|| panic!("{name}: nothing at {pointer}"));
    let [full, least] = [full, least].map(|body| serde_json::to_value(body).unwrap());
    for body in [&full, &least] {
        assert_eq!(check(&root, part, body), Ok(()), "{name}{pointer}: {body}");
    }
    assert_eq!(names(&full), names(&part["properties"]), "{name}{pointer}: members");
    let required: BTreeSet<String> =
        part["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    assert_eq!(names(&least), required, "{name}{pointer}: what is always there");
}

/// Each example of a schema is as the schema says and reads as the type does.
#[track_caller]
fn has_examples<T: Serialize + DeserializeOwned>(name: &str) {
    let root = schema(name);
    assert_eq!(root["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(root["$id"], format!("urn:kubebus:schema:{name}"));
    let examples = root["examples"].as_array().unwrap_or_else(|| panic!("{name} has no examples"));
    assert!(!examples.is_empty(), "{name} has no examples");
    for example in examples {
        assert_eq!(check(&root, &root, example), Ok(()), "{name}: {example}");
        let read: T =
            serde_json::from_value(example.clone()).unwrap_or_else(|why| panic!("{name} {example}: {why}"));
        let again = serde_json::to_value(read).unwrap();
        assert_eq!(check(&root, &root, &again), Ok(()), "{name}: {again}");
        for (member, value) in example.as_object().into_iter().flatten() {
            assert_eq!(again.get(member), Some(value), "{name}: {example}");
        }
    }
}

#[track_caller]
fn refuses(name: &str, wrong: &[Value]) {
    let root = schema(name);
    for body in wrong {
        assert!(check(&root, &root, body).is_err(), "{name} lets {body} through");
    }
}

fn device() -> DeviceId {
    "water/valve".parse().unwrap()
}

fn version() -> DesiredVersion {
    DesiredVersion { epoch: 4, seq: 17 }
}

#[test]
fn every_schema_has_a_type_and_examples_that_read() {
    let tested: BTreeMap<&str, fn(&str)> = BTreeMap::from([
        ("mapper-config", has_examples::<MapperConfig> as fn(&str)),
        ("mapper-health", has_examples::<MapperHealth>),
        ("mapper-result", has_examples::<WriteResult>),
        ("mapper-state", has_examples::<String>),
        ("mapper-write", has_examples::<WriteRequest>),
        ("twin-command", has_examples::<Order>),
        ("twin-desired", has_examples::<DesiredBody>),
        ("twin-report", has_examples::<ReportBody>),
        ("twin-report-many", has_examples::<ReportMany>),
        ("twin-reported", has_examples::<ReportedBody>),
        ("twin-result", has_examples::<ResultBody>),
        ("twin-set", has_examples::<SetBody>),
        ("twin-state", has_examples::<DeviceState>),
    ]);
    let files = std::fs::read_dir(format!("{}/../docs/schemas", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let there: BTreeSet<String> =
        files.filter_map(|file| Some(file.strip_suffix(".json")?.to_owned())).collect();
    assert_eq!(there, tested.keys().map(|name| (*name).to_owned()).collect());
    tested.iter().for_each(|(name, test)| test(name));
}

#[test]
fn a_report_and_a_set_are_described() {
    let least = |value| ReportBody::Full { value, time: None, quality: Quality::Good, unit: None };
    // Its quality is always written and need not be said.
    let full = ReportBody::Full {
        value: Typed::Float(3.2),
        time: Some(UnixMillis(1)),
        quality: Quality::Good,
        unit: Some("bar".into()),
    };
    let root = schema("twin-report");
    assert_eq!(names(&serde_json::to_value(&full).unwrap()), names(&root["anyOf"][0]["properties"]));
    assert_eq!(check(&root, &root, &serde_json::to_value(least(Typed::Bool(true))).unwrap()), Ok(()));
    let set = |unit: Option<&str>| SetBody::Full { value: Typed::Int(4), unit: unit.map(str::to_owned) };
    is_described("twin-set", "/anyOf/0", &set(Some("bar")), &set(None));
    for name in ["twin-report", "twin-set"] {
        refuses(name, &[json!(null), json!([1])]);
    }
    refuses("twin-report-many", &[json!({ "level": null }), json!(7)]);
}

#[test]
fn what_nodes_say_of_a_twin_is_described() {
    let reported = |ack, age_ms| ReportedBody {
        value: Typed::Float(40.0),
        time: UnixMillis(1),
        quality: Quality::Good,
        rev: 7,
        ack,
        age_ms,
    };
    let ack = |detail: &str| Ack { version: version(), outcome: Outcome::Expired, detail: detail.into() };
    is_described("twin-reported", "", &reported(Some(ack("late")), Some(12)), &reported(None, None));
    is_described("twin-reported", "/properties/ack", &ack("late"), &ack(""));
    let desired =
        DesiredBody { value: Typed::Int(40), version: version(), issued: UnixMillis(1), by: "ann".into() };
    is_described("twin-desired", "", &desired, &desired);
    let result = ResultBody {
        command: Some("fill-1".into()),
        version: Some(version()),
        detail: "late".into(),
        ..ResultBody::of("position", Outcome::Expired)
    };
    is_described("twin-result", "", &result, &ResultBody::of("", Outcome::Expired));
    let state = |reason: &str, last_seen| DeviceState {
        state: Availability::Online,
        reason: reason.into(),
        last_seen,
    };
    is_described("twin-state", "", &state("slow", Some(UnixMillis(1))), &state("", None));
    refuses("twin-state", &[json!({ "state": "asleep" }), json!({})]);
    refuses("twin-desired", &[json!({ "value": 1, "version": 4, "issued": 1, "by": "ann" })]);
}

#[test]
fn a_command_is_described() {
    let full = json!({ "id": "fill-1", "args": { "position": 40 }, "ttlMs": 1, "sent": 3, "holdMs": 2, "when": [
        { "device": "water/tank", "property": "level", "op": "at-least", "value": 3.2, "maxAge": "10s" }] });
    let full: Order = serde_json::from_value(full).unwrap();
    is_described("twin-command", "", &full, &Order::default());
    let when: Value = json!({ "property": "level", "op": "below", "value": 3.2 });
    let least: Order = serde_json::from_value(json!({ "when": [when] })).unwrap();
    is_described("twin-command", "/properties/when/items", &full.when[0], &least.when[0]);
    refuses("twin-command", &[json!({ "ttl": 1 }), json!({ "when": [{ "property": "level" }] })]);
}

#[test]
fn what_node_and_mapper_say_to_each_other_is_described() {
    let bounds = |bound: Option<f64>, unit: Option<&str>| PropertyConfig {
        name: "position".into(),
        value_type: ValueType::Float,
        writable: true,
        address: Json::Null,
        poll_ms: 1000,
        minimum: bound,
        maximum: bound,
        unit: unit.map(str::to_owned),
        deadband: bound,
        max_age_ms: bound.map(|_| 5000),
    };
    let least = bounds(None, None);
    is_described(
        "mapper-config",
        "/properties/devices/items/properties/properties/items",
        &bounds(Some(1.0), Some("%")),
        &least,
    );
    let config = DeviceConfig { device: device(), connection: Json::Null, properties: vec![least] };
    is_described("mapper-config", "/properties/devices/items", &config, &config);
    let config = MapperConfig { devices: vec![config] };
    is_described("mapper-config", "", &config, &config);
    let write = WriteRequest {
        id: "1".into(),
        device: device(),
        property: "position".into(),
        value: Typed::Float(40.0),
        sent: UnixMillis(1),
        ttl_ms: 10_000,
        cause: "cloud desired 4.17".into(),
    };
    is_described("mapper-write", "", &write, &write);
    let result = |detail: &str| WriteResult {
        id: "1".into(),
        device: device(),
        property: "position".into(),
        outcome: Outcome::Failed,
        detail: detail.into(),
    };
    is_described("mapper-result", "", &result("no answer"), &result(""));
    let health = |failures, error: &str, last_read| DeviceHealth {
        state: DeviceCondition::Offline,
        since: UnixMillis(1),
        failures,
        error: error.into(),
        last_read,
    };
    let (ill, well) = (health(3, "no answer", Some(UnixMillis(1))), health(0, "", None));
    is_described("mapper-health", "/properties/devices/additionalProperties", &ill, &well);
    let health = |unlisted| MapperHealth {
        devices: [("water/valve".to_owned(), well.clone())].into(),
        unlisted,
        counts: MapperCounts::default(),
    };
    is_described("mapper-health", "", &health(1), &health(0));
    refuses("mapper-health", &[json!({ "devices": { "water/valve": { "state": "asleep" } } })]);
    refuses("mapper-state", &[json!("there")]);
    refuses("mapper-write", &[json!({ "id": "1" })]);
}
