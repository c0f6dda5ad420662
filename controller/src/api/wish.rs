//! A write of a device that changes nothing but what is desired: who may not change devices may wish.
//!
//! Whoever may wish and no more writes what he sees: his patch is carried out on the object without its secrets, so that
//! none is moved into a field that he may read, nor guessed by a test. Of what comes of that only the desired values are
//! taken, as wishes: the manifest stays as whoever may write it left it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use thiserror::Error;

/// A desired value that is another one: the property, and the text.
pub type Wish = (String, String);

/// Why a write is more, or less, than wishes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotWishes {
    /// The first other field that differs.
    #[error("{0} differs")]
    Other(String),
    #[error("{0}: a patch of the part desired takes a wish back, with null")]
    TakenBack(String),
    #[error("{0}: is no text")]
    NoText(String),
}

/// Of metadata nodes say the rest themselves.
const OF_WRITERS: [&str; 4] = ["labels", "annotations", "finalizers", "ownerReferences"];

/// What a node says itself, or is told by the path.
const OF_NODES: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// The desired values in which two versions of a device differ.
///
/// # Errors
/// They differ in something else.
pub fn wishes(before: &Value, after: &Value) -> Result<Vec<Wish>, NotWishes> {
    for field in OF_WRITERS {
        let of = |object: &Value| object["metadata"].get(field).filter(|value| !is_empty(value)).cloned();
        if of(before) != of(after) {
            return Err(NotWishes::Other(format!("metadata.{field}")));
        }
    }
    differ(&without(before, &OF_NODES), &without(after, &OF_NODES), "")?;
    let mut wishes = Vec::new();
    for (before, after) in properties(before).iter().zip(properties(after)) {
        let (was, is) = (&before["desired"]["value"], &after["desired"]["value"]);
        let name = after["name"].as_str().unwrap_or_default();
        let field = || format!("spec.properties[name=\"{name}\"].desired.value");
        match is {
            is if is == was => {}
            Value::String(text) => wishes.push((name.to_owned(), text.clone())),
            Value::Null => return Err(NotWishes::TakenBack(field())),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                return Err(NotWishes::NoText(field()));
            }
        }
    }
    Ok(wishes)
}

/// The properties of which a write, or a patch of whatever kind, says what is desired; `after` is what comes of it.
pub fn named(body: &Value, after: &Value) -> BTreeSet<String> {
    let name = |property: &Value| property["name"].as_str().map(str::to_owned);
    let Value::Array(operations) = body else {
        let with_desired = properties(body).iter().filter(|property| property.get("desired").is_some());
        return with_desired.filter_map(name).collect();
    };
    let meant = operations.iter().filter(|operation| operation["op"] != "test").filter_map(|operation| {
        let path = operation["path"].as_str()?.strip_prefix("/spec/properties/")?;
        let (at, field) = path.split_once('/')?;
        let property = properties(after).get(at.parse::<usize>().ok()?)?;
        field.starts_with("desired").then(|| name(property))?
    });
    meant.collect()
}

/// What a device desires of one property, by its manifest.
pub fn text_of<'a>(object: &'a Value, property: &str) -> Option<&'a str> {
    properties(object).iter().find(|fields| fields["name"] == property)?["desired"]["value"].as_str()
}

/// Whether a patch, of whatever kind, says anything of what is desired.
pub fn names_desired(patch: &Value) -> bool {
    let is_about =
        |operation: &Value| operation["path"].as_str().is_some_and(|path| path.contains("/desired"));
    match patch {
        Value::Array(operations) => operations.iter().any(is_about),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            properties(patch).iter().any(|property| property.get("desired").is_some())
        }
    }
}

fn properties(object: &Value) -> &[Value] {
    object["spec"]["properties"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn without(object: &Value, fields: &[&str]) -> Value {
    let mut object = object.as_object().cloned().unwrap_or_default();
    object.retain(|name, _| !fields.contains(&name.as_str()));
    Value::Object(object)
}

/// The first field that differs and is not desired.
fn differ(before: &Value, after: &Value, path: &str) -> Result<(), NotWishes> {
    match (before, after) {
        (before, after) if before == after => Ok(()),
        (Value::Object(before), Value::Object(after)) => differ_in(before, after, path),
        (Value::Array(before), Value::Array(after)) if path == "spec.properties" => {
            differ_in_properties(before, after)
        }
        _ => Err(NotWishes::Other(path.to_owned())),
    }
}

fn differ_in(before: &Map<String, Value>, after: &Map<String, Value>, path: &str) -> Result<(), NotWishes> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let of = |fields: &Map<String, Value>| fields.get(name).cloned().unwrap_or_default();
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        differ(&of(before), &of(after), &below)?;
    }
    Ok(())
}

/// The same properties in the same order.
fn differ_in_properties(before: &[Value], after: &[Value]) -> Result<(), NotWishes> {
    for at in 0..before.len().max(after.len()) {
        let name = |all: &[Value]| all.get(at).and_then(|p| p["name"].as_str()).map(str::to_owned);
        let (was, is) = (name(before), name(after));
        let path = format!("spec.properties[name=\"{}\"]", was.as_ref().or(is.as_ref()).map_or("", |n| n));
        match (before.get(at), after.get(at)) {
            (Some(before), Some(after)) if was == is => {
                differ(&without(before, &["desired"]), &without(after, &["desired"]), &path)?;
                let beside = |property: &Value| without(&property["desired"], &["value"]);
                differ(&beside(before), &beside(after), &format!("{path}.desired"))?;
            }
            _ => return Err(NotWishes::Other(path)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn device() -> Value {
        json!({
            "metadata": { "name": "valve", "resourceVersion": "7", "labels": { "a": "b" } },
            "spec": {
                "nodeName": "a", "protocol": { "configData": { "password": "x" } },
                "properties": [{ "name": "position", "desired": { "value": "1" } }, { "name": "flow", "collectCycle": 5 }],
            },
        })
    }

    fn changed(pointer: &str, value: Value) -> Result<Vec<Wish>, String> {
        let mut after = device();
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        after.pointer_mut(parent).unwrap()[last] = value;
        wishes(&device(), &after).map_err(|not| not.to_string())
    }

    #[test]
    fn a_wish_is_told_from_every_other_change_which_is_named() {
        let wish = |property: &str, text: &str| Ok(vec![(property.to_owned(), text.to_owned())]);
        let first = "/spec/properties/0/desired";
        assert_eq!(changed(first, json!({ "value": "2" })), wish("position", "2"));
        assert_eq!(changed("/spec/properties/1/desired", json!({ "value": "3" })), wish("flow", "3"));
        assert_eq!(changed("/metadata/resourceVersion", json!("8")), Ok(vec![]));
        assert_eq!(changed("/metadata/annotations", json!({})), Ok(vec![]));
        let desired = "spec.properties[name=\"position\"].desired.value";
        assert_eq!(
            changed(first, Value::Null),
            Err(format!("{desired}: a patch of the part desired takes a wish back, with null"))
        );
        assert_eq!(changed(first, json!({ "value": 2 })), Err(format!("{desired}: is no text")));
        for (pointer, value, field) in [
            ("/metadata/labels", json!({}), "metadata.labels"),
            ("/metadata/finalizers", json!(["x"]), "metadata.finalizers"),
            ("/spec/nodeName", json!("b"), "spec.nodeName"),
            ("/spec/protocol/configData/password", json!("y"), "spec.protocol.configData.password"),
            ("/spec/methods", json!([]), "spec.methods"),
            ("/spec/properties/1/name", json!("x"), "spec.properties[name=\"flow\"]"),
            ("/spec/properties/1/collectCycle", json!(6), "spec.properties[name=\"flow\"].collectCycle"),
            ("/spec/properties", json!([]), "spec.properties[name=\"position\"]"),
            (
                "/spec/properties/1/visitors",
                json!({ "desired": 1 }),
                "spec.properties[name=\"flow\"].visitors",
            ),
            ("/other", json!(1), "other"),
            (
                "/spec/properties/0/desired/metadata",
                json!({ "timestamp": "1" }),
                "spec.properties[name=\"position\"].desired.metadata",
            ),
        ] {
            assert_eq!(changed(pointer, value), Err(format!("{field} differs")), "{pointer}");
        }
    }

    #[test]
    fn what_a_patch_names_is_told_by_name_or_by_place() {
        let of = |body: Value| named(&body, &device()).into_iter().collect::<Vec<_>>();
        assert_eq!(of(device()), ["position"]);
        let at = |op: &str, path: &str| json!([{ "op": op, "path": path, "value": "1" }]);
        assert_eq!(of(at("replace", "/spec/properties/0/desired/value")), ["position"]);
        assert_eq!(of(at("add", "/spec/properties/1/desired")), ["flow"]);
        assert_eq!(of(at("test", "/spec/properties/1/desired")), [""; 0]);
        assert_eq!(of(at("replace", "/spec/properties/7/desired")), [""; 0]);
        assert_eq!(of(at("replace", "/spec/properties/1/collectCycle")), [""; 0]);
        assert_eq!((text_of(&device(), "position"), text_of(&device(), "flow")), (Some("1"), None));
    }

    #[test]
    fn a_patch_that_says_nothing_of_desired_values_is_told_by_its_looks() {
        assert!(names_desired(&device()));
        assert!(names_desired(&json!([{ "op": "remove", "path": "/spec/properties/0/desired/value" }])));
        assert!(!names_desired(&json!({ "spec": { "properties": [{ "name": "flow" }], "nodeName": "b" } })));
        assert!(
            !names_desired(&json!([{ "op": "remove", "path": "/metadata/labels" }]))
                && !names_desired(&Value::Null)
        );
    }
}
