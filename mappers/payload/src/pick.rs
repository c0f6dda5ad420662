//! One value out of what a device says, and the way back.

use kubebus_sdk::{UnixMillis, Value, ValueType};
use serde_json::Value as Json;
use thiserror::Error;

use crate::Pointer;
use crate::time::time_of;

/// What a device says for a switch that is on or off, where it is not JSON's `true` and `false`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Words {
    pub on: Option<String>,
    pub off: Option<String>,
}

/// Words that are understood without being named. They are told apart from numbers by the property's type.
const ON: [&str; 4] = ["true", "on", "1", "yes"];
const OFF: [&str; 4] = ["false", "off", "0", "no"];

/// What came from a device: JSON, or text for what is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Body(pub Json);

impl Body {
    /// `None` for bytes that are no text either.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if let Ok(json) = serde_json::from_slice(bytes) {
            return Some(Self(json));
        }
        let text = std::str::from_utf8(bytes).ok()?;
        Some(Self(Json::String(text.trim().to_owned())))
    }
}

/// Which value of a body is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sought {
    /// Where the value is; `None`: the whole body.
    pub pointer: Option<Pointer>,
    /// Where the body says when it was measured.
    pub time: Option<Pointer>,
    pub words: Words,
}

/// A value and, if the device says, the time at its source.
#[derive(Debug, Clone, PartialEq)]
pub struct Picked {
    pub value: Value,
    pub time: Option<UnixMillis>,
}

/// What is there is no value of the property's type.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{found} is no {wanted:?}")]
pub struct NotAValue {
    found: String,
    wanted: ValueType,
}

impl Sought {
    /// `None` if the body does not speak of it.
    pub fn pick(&self, body: &Body, wanted: ValueType) -> Option<Result<Picked, NotAValue>> {
        let found = match &self.pointer {
            Some(pointer) => pointer.find(&body.0)?,
            None => &body.0,
        };
        let time = self.time.as_ref().and_then(|pointer| time_of(pointer.find(&body.0)?));
        Some(value_of(found, wanted, &self.words).map(|value| Picked { value, time }))
    }
}

/// JSON as a value of the wanted type. A number may be written as text, a switch as a word or as 0 and 1; nothing else
/// is guessed.
fn value_of(json: &Json, wanted: ValueType, words: &Words) -> Result<Value, NotAValue> {
    let value = match wanted {
        ValueType::Bool => switch(json, words).map(Value::Bool),
        ValueType::Int | ValueType::Float => number(json),
        ValueType::String => text(json),
        ValueType::Bytes => json.as_str().map(|text| Value::Text(text.to_owned())),
        ValueType::Struct => json.as_object().and_then(|_| serde_json::from_value(json.clone()).ok()),
    };
    value.ok_or_else(|| NotAValue { found: short(json), wanted })
}

fn switch(json: &Json, words: &Words) -> Option<bool> {
    let said = match json {
        Json::Bool(on) if *words == Words::default() => return Some(*on),
        Json::Bool(_) | Json::Number(_) => json.to_string(),
        Json::String(text) => text.trim().to_owned(),
        Json::Null | Json::Array(_) | Json::Object(_) => return None,
    };
    let is = |word: &Option<String>, usual: &[&str]| match word {
        Some(word) => word.eq_ignore_ascii_case(&said),
        None => usual.iter().any(|usual| usual.eq_ignore_ascii_case(&said)),
    };
    match (is(&words.on, &ON), is(&words.off, &OFF)) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        (true, true) | (false, false) => None,
    }
}

fn number(json: &Json) -> Option<Value> {
    match json {
        Json::Number(number) => number.as_i64().map(Value::Int).or_else(|| number.as_f64().and_then(finite)),
        Json::String(text) => {
            let text = text.trim();
            text.parse().map(Value::Int).ok().or_else(|| text.parse().ok().and_then(finite))
        }
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

fn finite(number: f64) -> Option<Value> {
    number.is_finite().then_some(Value::Float(number))
}

fn text(json: &Json) -> Option<Value> {
    match json {
        Json::String(text) => Some(Value::Text(text.clone())),
        Json::Bool(_) | Json::Number(_) => Some(Value::Text(json.to_string())),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// Enough of it for a log line.
fn short(json: &Json) -> String {
    const SHOWN: usize = 60;
    let text = json.to_string();
    if text.chars().count() <= SHOWN { text } else { text.chars().take(SHOWN).chain("...".chars()).collect() }
}

/// A value as plain text: numbers in their shortest form, structs as JSON.
pub fn text_of(value: &Value, words: &Words) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Bool(true) => words.on.clone().unwrap_or_else(|| "true".to_owned()),
        Value::Bool(false) => words.off.clone().unwrap_or_else(|| "false".to_owned()),
        Value::Int(_) | Value::Float(_) | Value::Struct(_) => json_of(value, words).to_string(),
    }
}

/// A value as JSON; a switch as its word where one is named. A float without a fraction is written without one: devices
/// that take whole numbers only take `21`, and to the others it is the same.
pub fn json_of(value: &Value, words: &Words) -> Json {
    /// Beyond 2^53 a float no longer names one integer.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Bool(on) => {
            let word = if *on { &words.on } else { &words.off };
            word.clone().map_or(Json::Bool(*on), Json::String)
        }
        Value::Int(int) => Json::from(*int),
        Value::Float(float) if float.fract() == 0.0 && float.abs() <= EXACT => Json::from(*float as i64),
        Value::Float(float) => Json::from(*float),
        Value::Text(text) => Json::from(text.as_str()),
        Value::Struct(fields) => {
            let field = |(name, value): (&String, &Value)| (name.clone(), json_of(value, words));
            Json::Object(fields.iter().map(field).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn pick(body: &str, pointer: Option<&str>, wanted: ValueType) -> Option<Result<Value, NotAValue>> {
        let sought = Sought { pointer: pointer.map(|p| p.parse().unwrap()), ..Sought::default() };
        Some(sought.pick(&Body::parse(body.as_bytes())?, wanted)?.map(|picked| picked.value))
    }

    #[test]
    fn values_are_picked_as_devices_write_them() {
        use ValueType::{Bool, Bytes, Float, Int, String, Struct};
        let text = |t: &str| Value::Text(t.into());
        let table = [
            ("21.5", None, Float, Value::Float(21.5)),
            (" 21.5\r\n", None, Float, Value::Float(21.5)),
            ("\"42\"", None, Int, Value::Int(42)),
            ("-3", None, Int, Value::Int(-3)),
            ("ON", None, Bool, Value::Bool(true)),
            ("0", None, Bool, Value::Bool(false)),
            (r#"{"a":{"b":[1,2.5]}}"#, Some("a.b.1"), Float, Value::Float(2.5)),
            (r#"{"state":"off"}"#, Some("/state"), Bool, Value::Bool(false)),
            (r#"{"state":true}"#, Some("/state"), Bool, Value::Bool(true)),
            ("open", None, String, text("open")),
            ("7", None, String, text("7")),
            (r#""aGk=""#, None, Bytes, text("aGk=")),
            (r#"{"x":1}"#, None, Struct, Value::Struct([("x".to_owned(), Value::Int(1))].into())),
        ];
        for (body, pointer, wanted, value) in table {
            assert_eq!(pick(body, pointer, wanted), Some(Ok(value)), "{body}");
        }
    }

    #[test]
    fn what_is_no_value_of_the_type_is_said() {
        use ValueType::{Bool, Float, Int, String, Struct};
        let table = [
            ("warm", None, Float),
            ("true", None, Int),
            ("2", None, Bool),
            ("NaN", None, Float),
            ("inf", None, Float),
            ("null", None, Float),
            ("null", None, String),
            ("[1]", None, String),
            (r#"{"a":[1]}"#, None, Struct),
            (r#"{"a":null}"#, Some("/a"), Int),
        ];
        for (body, pointer, wanted) in table {
            assert!(matches!(pick(body, pointer, wanted), Some(Err(_))), "{body}");
        }
        assert_eq!(pick("{}", Some("/a"), Int), None, "not spoken of");
        assert_eq!(Body::parse(&[0xff, 0xfe]), None);
        let long = pick(&format!("\"{}\"", "x".repeat(500)), None, Int).unwrap().unwrap_err();
        assert!(long.to_string().len() < 100);
    }

    #[test]
    fn a_devices_own_words_replace_the_usual_ones() {
        let words = Words { on: Some("LOCK".into()), off: Some("UNLOCK".into()) };
        let say = |json: Json| value_of(&json, ValueType::Bool, &words).ok();
        assert_eq!(say(json!("lock")), Some(Value::Bool(true)));
        assert_eq!(say(json!("UNLOCK")), Some(Value::Bool(false)));
        assert_eq!((say(json!("ON")), say(json!(true))), (None, None));
        assert_eq!(text_of(&Value::Bool(true), &words), "LOCK");
        assert_eq!(json_of(&Value::Bool(false), &words), json!("UNLOCK"));
    }

    #[test]
    fn numbers_are_told_in_their_shortest_form() {
        let words = Words::default();
        for (value, text) in [(Value::Float(40.0), "40"), (Value::Float(0.1), "0.1"), (Value::Int(-7), "-7")]
        {
            assert_eq!(text_of(&value, &words), text);
        }
        assert_eq!(text_of(&Value::Float(1e300), &words), "1e+300");
    }

    #[test]
    fn the_time_at_the_source_comes_along() {
        let sought = Sought {
            time: Some("t".parse().unwrap()),
            pointer: Some("v".parse().unwrap()),
            ..Sought::default()
        };
        let body = Body::parse(br#"{"v": 1, "t": 1709208000}"#).unwrap();
        let picked = sought.pick(&body, ValueType::Int).unwrap().unwrap();
        assert_eq!(picked, Picked { value: Value::Int(1), time: Some(UnixMillis(1_709_208_000_000)) });
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(body) = Body::parse(&bytes) {
                for wanted in [ValueType::Bool, ValueType::Float, ValueType::String, ValueType::Struct] {
                    drop(Sought::default().pick(&body, wanted));
                }
            }
        }

        #[test]
        fn a_number_that_is_told_is_heard_again(number in -1e12..1e12f64) {
            let text = text_of(&Value::Float(number), &Words::default());
            let heard = pick(&text, None, ValueType::Float).unwrap().unwrap();
            // serde_json reads the last bit as it comes.
            prop_assert!((heard.as_f64().unwrap() - number).abs() <= number.abs() * f64::EPSILON);
        }
    }
}
