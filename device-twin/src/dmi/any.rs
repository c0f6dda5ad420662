//! JSON of a manifest as the `google.protobuf.Any` that KubeEdge's mappers read.
//!
//! KubeEdge sends every number as a `FloatValue`, whose 24 bits falsify a large whole number; its mappers read an
//! `Int64Value` as well, so that is sent where a `FloatValue` would lie. A list or an object, for which KubeEdge leaves
//! the whole device out, goes as its JSON text.

use bus::twin::Json;
use bytes::Bytes;
use prost::Message;

use super::api::Any;

#[derive(Clone, PartialEq, Message)]
struct StringValue {
    #[prost(string, tag = "1")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Int64Value {
    #[prost(int64, tag = "1")]
    value: i64,
}

#[derive(Clone, PartialEq, Message)]
struct FloatValue {
    #[prost(float, tag = "1")]
    value: f32,
}

#[derive(Clone, PartialEq, Message)]
struct BoolValue {
    #[prost(bool, tag = "1")]
    value: bool,
}

/// `None` for null: a key without a value is left out.
pub(super) fn to_any(json: &Json) -> Option<Any> {
    Some(match json {
        Json::Null => return None,
        Json::Bool(value) => wrapped("BoolValue", &BoolValue { value: *value }),
        Json::Int(value) if *value as f32 as i128 == i128::from(*value) => float(*value as f32),
        Json::Int(value) => wrapped("Int64Value", &Int64Value { value: *value }),
        Json::Float(value) => number(*value),
        Json::Text(value) => wrapped("StringValue", &StringValue { value: value.clone() }),
        Json::List(_) | Json::Object(_) => {
            wrapped("StringValue", &StringValue { value: serde_json::to_string(json).unwrap_or_default() })
        }
    })
}

fn number(value: f64) -> Any {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let is_whole = value.fract() == 0.0 && value.abs() <= EXACT;
    if is_whole && f64::from(value as f32) != value {
        return wrapped("Int64Value", &Int64Value { value: value as i64 });
    }
    float(value as f32)
}

fn float(value: f32) -> Any {
    wrapped("FloatValue", &FloatValue { value })
}

fn wrapped(name: &str, value: &impl Message) -> Any {
    let type_url = format!("type.googleapis.com/google.protobuf.{name}");
    Any { type_url, value: Bytes::from(value.encode_to_vec()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(json: &str) -> Option<(String, Vec<u8>)> {
        let any = to_any(&serde_json::from_str(json).unwrap())?;
        let name = any.type_url.strip_prefix("type.googleapis.com/google.protobuf.").unwrap();
        Some((name.to_owned(), any.value.to_vec()))
    }

    fn is(name: &str, value: &impl Message) -> Option<(String, Vec<u8>)> {
        Some((name.to_owned(), value.encode_to_vec()))
    }

    #[test]
    fn numbers_are_floats_as_kubeedge_sends_them_unless_that_falsifies_them() {
        let float = |value| is("FloatValue", &FloatValue { value });
        let int = |value| is("Int64Value", &Int64Value { value });
        for (json, expected) in [
            ("1", float(1.0)),
            ("-5502", float(-5502.0)),
            ("0.1", float(0.1)),
            ("16777216", float(16_777_216.0)),
            ("16777217", int(16_777_217)),
            ("9223372036854775807", int(i64::MAX)),
            ("16777217.0", int(16_777_217)),
            ("1e30", float(1e30)),
        ] {
            assert_eq!(sent(json), expected, "{json}");
        }
    }

    #[test]
    fn all_else_is_a_text_a_bool_or_nothing() {
        let text = |value: &str| is("StringValue", &StringValue { value: value.to_owned() });
        for (json, expected) in [
            ("true", is("BoolValue", &BoolValue { value: true })),
            (r#""10.0.0.1""#, text("10.0.0.1")),
            (r#"{"a": [1, 2.5, null]}"#, text(r#"{"a":[1,2.5,null]}"#)),
            ("null", None),
        ] {
            assert_eq!(sent(json), expected, "{json}");
        }
    }
}
