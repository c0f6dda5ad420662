//! Partial updates: JSON merge patch (RFC 7396) on what is desired of a device.
//!
//! A patch of a device is an object by property: a value is a new wish, `null` takes the wish back, and an object on a
//! property that holds a struct changes the fields it names and leaves the others.

use std::collections::BTreeMap;

use bus::twin::Json;
use bus::{Value, ValueType};
use thiserror::Error;

/// Why a document is no patch of a device.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidPatch {
    #[error("a patch is an object by property: {{\"position\": 40, \"mode\": null}}")]
    NoObject,
    #[error("{0}: an array is no value of a property")]
    Array(String),
}

/// What the patch `json` says of each property; `None`: its wish is taken back.
pub fn wishes(json: &Json) -> Result<BTreeMap<String, Option<Json>>, InvalidPatch> {
    let Json::Object(fields) = json else { return Err(InvalidPatch::NoObject) };
    let wish = |(name, value): (&String, &Json)| {
        let value = (*value != Json::Null).then(|| value.clone());
        (name.clone(), value)
    };
    Ok(fields.iter().map(wish).collect())
}

/// `patch` applied to a property that holds `present` (RFC 7396 §2).
pub fn merge(
    property: &str,
    kind: ValueType,
    present: Option<&Value>,
    patch: &Json,
) -> Result<Value, InvalidPatch> {
    let base = present.filter(|_| kind == ValueType::Struct);
    merged(base, patch).ok_or_else(|| InvalidPatch::Array(property.to_owned()))
}

/// `None` for an array, which no property holds. `null` within an object takes the field away.
fn merged(base: Option<&Value>, patch: &Json) -> Option<Value> {
    let Json::Object(fields) = patch else { return scalar(patch) };
    let mut all = match base {
        Some(Value::Struct(fields)) => fields.clone(),
        _ => BTreeMap::new(),
    };
    for (name, value) in fields {
        if let Json::Null = value {
            all.remove(name);
        } else {
            let value = merged(all.get(name), value)?;
            all.insert(name.clone(), value);
        }
    }
    Some(Value::Struct(all))
}

fn scalar(json: &Json) -> Option<Value> {
    Some(match json {
        Json::Bool(b) => Value::Bool(*b),
        Json::Int(i) => Value::Int(*i),
        Json::Float(f) => Value::Float(*f),
        Json::Text(s) => Value::Text(s.clone()),
        Json::Null | Json::List(_) | Json::Object(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        serde_json::from_str(text).unwrap()
    }

    fn value(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    /// The table of RFC 7396, appendix A, without the rows whose arrays no property can hold.
    #[test]
    fn the_table_of_the_rfc_holds() {
        for (original, patch, expected) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
            (r#"{"e":1}"#, r#"{"a":1}"#, r#"{"e":1,"a":1}"#),
        ] {
            let got = merge("p", ValueType::Struct, Some(&value(original)), &json(patch));
            assert_eq!(got, Ok(value(expected)), "{original} {patch}");
        }
    }

    #[test]
    fn a_number_is_replaced_and_null_takes_the_wish_back() {
        assert_eq!(
            merge("p", ValueType::Float, Some(&Value::Float(1.0)), &json("2.5")),
            Ok(Value::Float(2.5))
        );
        let all = wishes(&json(r#"{"position": 40, "mode": null}"#)).unwrap();
        assert_eq!(all["mode"], None);
        assert_eq!(all["position"], Some(Json::Int(40)));
        assert_eq!(wishes(&json("[1]")), Err(InvalidPatch::NoObject));
        assert_eq!(
            merge("p", ValueType::Struct, None, &json(r#"{"a":[1]}"#)),
            Err(InvalidPatch::Array("p".to_owned()))
        );
    }
}
