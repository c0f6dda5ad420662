//! Typed values of device properties, with quality and source time.

use std::collections::BTreeMap;
use std::fmt;

use minicbor::{Decode, Decoder, Encode, decode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::UnixMillis;

/// What a property holds. In JSON it is the natural form: `true`, `42`, `3.5`, `"open"`, `{..}`; bytes are base64
/// text and told from a string by the model's type only.
#[derive(Debug, Clone, PartialEq, Encode, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    #[n(0)]
    Bool(#[n(0)] bool),
    #[n(1)]
    Int(#[n(0)] i64),
    #[n(2)]
    Float(#[n(0)] f64),
    #[n(3)]
    Text(#[n(0)] String),
    #[n(4)]
    Struct(#[n(0)] BTreeMap<String, Self>),
}

/// Structs within structs that are read from a peer, as deep as JSON is read: deeper ones would cost stack.
const MAX_DEPTH: usize = 128;

/// By hand, and not derived, for the sake of `MAX_DEPTH`.
impl<'b, C> Decode<'b, C> for Value {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        Self::decode_within(d, MAX_DEPTH)
    }
}

impl Value {
    fn decode_within(d: &mut Decoder<'_>, depth: usize) -> Result<Self, decode::Error> {
        let malformed = || decode::Error::message("not a value");
        if d.array()? != Some(2) {
            return Err(malformed());
        }
        let variant = d.u32()?;
        if d.array()? != Some(1) {
            return Err(malformed());
        }
        match variant {
            0 => Ok(Self::Bool(d.bool()?)),
            1 => Ok(Self::Int(d.i64()?)),
            2 => Ok(Self::Float(d.f64()?)),
            3 => Ok(Self::Text(d.str()?.to_owned())),
            4 => Self::decode_fields(d, depth.checked_sub(1).ok_or_else(malformed)?),
            _ => Err(malformed()),
        }
    }

    fn decode_fields(d: &mut Decoder<'_>, depth: usize) -> Result<Self, decode::Error> {
        let len = d.map()?.ok_or_else(|| decode::Error::message("not a value"))?;
        let mut fields = BTreeMap::new();
        for _ in 0..len {
            fields.insert(d.str()?.to_owned(), Self::decode_within(d, depth)?);
        }
        Ok(Self::Struct(fields))
    }
}

/// The type that a model gives a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    #[n(0)]
    Bool,
    #[n(1)]
    Int,
    #[n(2)]
    Float,
    #[n(3)]
    String,
    /// Base64 text (RFC 4648 §4).
    #[n(4)]
    Bytes,
    #[n(5)]
    Struct,
}

/// A value that its property cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WrongValue {
    #[error("expected {expected:?}, got {got}")]
    Type { expected: ValueType, got: String },
    #[error("not a finite number")]
    NotFinite,
}

impl Value {
    /// The value as `expected` holds it: a whole float becomes an int and an int a float, nothing else is guessed.
    pub fn coerce(self, expected: ValueType) -> Result<Self, WrongValue> {
        /// Beyond 2^53 a float no longer names one integer.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match (expected, self) {
            (_, Self::Float(f)) if !f.is_finite() => Err(WrongValue::NotFinite),
            (ValueType::Float, Self::Int(i)) => Ok(Self::Float(i as f64)),
            (ValueType::Int, Self::Float(f)) if f.fract() == 0.0 && f.abs() <= EXACT => {
                Ok(Self::Int(f as i64))
            }
            (ValueType::Bool, v @ Self::Bool(_))
            | (ValueType::Int, v @ Self::Int(_))
            | (ValueType::Float, v @ Self::Float(_))
            | (ValueType::String, v @ Self::Text(_))
            | (ValueType::Struct, v @ Self::Struct(_)) => Ok(v),
            (ValueType::Bytes, Self::Text(t)) if data_encoding::BASE64.decode(t.as_bytes()).is_ok() => {
                Ok(Self::Text(t))
            }
            (expected, got) => Err(WrongValue::Type { expected, got: got.to_string() }),
        }
    }

    /// The value as a number, for rules and deadbands.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(i) => Some(*i as f64),
            Self::Float(f) => Some(*f),
            Self::Bool(b) => Some(f64::from(u8::from(*b))),
            Self::Text(_) | Self::Struct(_) => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Int(i) => write!(f, "{i}"),
            Self::Float(x) => write!(f, "{x}"),
            Self::Text(t) => f.write_str(t),
            Self::Struct(fields) => {
                f.write_str("{")?;
                for (i, (k, v)) in fields.iter().enumerate() {
                    write!(f, "{}{k}: {v}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
        }
    }
}

/// How far a value can be trusted (OPC UA Part 8 §5.3's three severities). Ordered: the worse is the smaller.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// Not to be used: sensor fault, no connection, older than its `max_age`.
    #[n(0)]
    Bad,
    /// Perhaps: simulated, substituted, implausible.
    #[n(1)]
    Uncertain,
    #[n(2)]
    #[default]
    Good,
}

/// One reading of one property. In JSON `{"value": 3.2, "time": 1760000000000, "quality": "good"}`; a bare value is
/// read as a good one of now.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub struct Sample {
    #[n(0)]
    pub value: Value,
    /// When it was read at its source.
    #[n(1)]
    pub time: UnixMillis,
    #[n(2)]
    pub quality: Quality,
}

#[cfg(test)]
mod tests {
    use minicbor::decode;

    use super::*;

    #[test]
    fn json_is_the_natural_form() {
        for (json, value) in [
            ("true", Value::Bool(true)),
            ("42", Value::Int(42)),
            ("3.5", Value::Float(3.5)),
            ("\"open\"", Value::Text("open".into())),
        ] {
            assert_eq!(serde_json::from_str::<Value>(json).unwrap(), value);
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
        }
    }

    #[test]
    fn values_read_back_from_the_wire_and_too_deep_ones_are_refused() {
        let nested = |depth: usize| {
            (0..depth).fold(Value::Int(-1), |inner, _| Value::Struct([("x".to_owned(), inner)].into()))
        };
        let samples = [Value::Bool(true), Value::Float(2.5), Value::Text("a".into()), nested(MAX_DEPTH)];
        for value in samples {
            let bytes = minicbor::to_vec(&value).unwrap();
            assert_eq!(decode::<Value>(&bytes).unwrap(), value);
        }
        let bytes = minicbor::to_vec(nested(MAX_DEPTH + 1)).unwrap();
        assert!(decode::<Value>(&bytes).is_err());
    }

    #[test]
    fn only_exact_conversions_happen() {
        assert_eq!(Value::Float(3.0).coerce(ValueType::Int), Ok(Value::Int(3)));
        assert_eq!(Value::Int(3).coerce(ValueType::Float), Ok(Value::Float(3.0)));
        assert!(Value::Float(3.5).coerce(ValueType::Int).is_err());
        assert!(Value::Text("3".into()).coerce(ValueType::Int).is_err());
        assert!(Value::Bool(true).coerce(ValueType::Int).is_err());
        assert_eq!(Value::Float(f64::NAN).coerce(ValueType::Float), Err(WrongValue::NotFinite));
    }
}
