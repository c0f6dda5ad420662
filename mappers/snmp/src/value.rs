//! Values, in both directions.

use std::net::Ipv4Addr;

use async_snmp::{Oid, Value as Snmp};
use bytes::Bytes;
use data_encoding::BASE64;
use kubebus_sdk::{Value, ValueType};

use crate::address::Kind;

/// Why a value does not go over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// Never: the property is described wrongly.
    Type(String),
    /// Not this value.
    Value(String),
}

/// What the agent has, as a property of this type holds it. Octets are text, numbers written as text (as many agents do
/// with fractions), or bytes, whatever the property is; a bool is a TruthValue (RFC 2579): 1 is true, 2 is false.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library may learn more types, which are no values to us"
)]
pub(crate) fn decode(value: &Snmp, wanted: ValueType) -> Result<Value, Mismatch> {
    if let Some(float) = value.as_opaque_float().map(f64::from).or_else(|| value.as_opaque_double()) {
        return number(Value::Float(float), wanted);
    }
    match value {
        Snmp::Integer(i) if wanted == ValueType::Bool => truth(*i),
        Snmp::Integer(i) => number(Value::Int(i64::from(*i)), wanted),
        Snmp::Counter32(n) | Snmp::Gauge32(n) | Snmp::UInteger32(n) | Snmp::TimeTicks(n) => {
            number(Value::Int(i64::from(*n)), wanted)
        }
        Snmp::Counter64(n) => match i64::try_from(*n) {
            Ok(n) => number(Value::Int(n), wanted),
            Err(_) if wanted == ValueType::Float => Ok(Value::Float(*n as f64)),
            Err(_) => Err(Mismatch::Value(format!("{n} is too large: make the property a float"))),
        },
        Snmp::OctetString(octets) | Snmp::Opaque(octets) | Snmp::Nsap(octets) => {
            text_or_bytes(octets, wanted)
        }
        Snmp::ObjectIdentifier(oid) => string(oid.to_string(), wanted),
        Snmp::IpAddress(octets) => string(Ipv4Addr::from(*octets).to_string(), wanted),
        other => Err(Mismatch::Value(format!("the agent has {} there", other.kind()))),
    }
}

fn truth(i: i32) -> Result<Value, Mismatch> {
    match i {
        1 => Ok(Value::Bool(true)),
        2 => Ok(Value::Bool(false)),
        _ => Err(Mismatch::Value(format!("{i} is no TruthValue (1 or 2): make the property an int"))),
    }
}

fn number(value: Value, wanted: ValueType) -> Result<Value, Mismatch> {
    match wanted {
        ValueType::Int | ValueType::Float => Ok(value),
        ValueType::Bool | ValueType::String | ValueType::Bytes | ValueType::Struct => Err(Mismatch::Type(
            format!("the agent has the number {value} there: make the property an int or float"),
        )),
    }
}

fn string(text: String, wanted: ValueType) -> Result<Value, Mismatch> {
    match wanted {
        ValueType::String => Ok(Value::Text(text)),
        ValueType::Bool | ValueType::Int | ValueType::Float | ValueType::Bytes | ValueType::Struct => {
            Err(Mismatch::Type(format!("the agent has {text} there: make the property a string")))
        }
    }
}

fn text_or_bytes(octets: &[u8], wanted: ValueType) -> Result<Value, Mismatch> {
    let text = || std::str::from_utf8(octets);
    match wanted {
        ValueType::Bytes => Ok(Value::Text(BASE64.encode(octets))),
        ValueType::String => text()
            .map(|text| Value::Text(text.to_owned()))
            .map_err(|_| Mismatch::Value("octets that are no UTF-8: make the property bytes".to_owned())),
        ValueType::Int | ValueType::Float => {
            text().ok().and_then(|text| parse(text.trim())).ok_or_else(|| {
                Mismatch::Value("octets that are no number: make the property a string or bytes".to_owned())
            })
        }
        ValueType::Bool | ValueType::Struct => {
            Err(Mismatch::Type("the agent has octets there: make the property a string or bytes".to_owned()))
        }
    }
}

fn parse(text: &str) -> Option<Value> {
    let float = || text.parse().ok().filter(|float: &f64| float.is_finite()).map(Value::Float);
    text.parse().ok().map(Value::Int).or_else(float)
}

/// What a SET carries for this value.
pub(crate) fn encode(value: &Value, kind: Kind, of: ValueType) -> Result<Snmp, Mismatch> {
    match kind {
        Kind::Integer => match value {
            Value::Bool(truth) => Ok(Snmp::Integer(if *truth { 1 } else { 2 })),
            Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::Struct(_) => {
                whole(value).map(Snmp::Integer)
            }
        },
        Kind::Gauge => whole(value).map(Snmp::Gauge32),
        Kind::TimeTicks => whole(value).map(Snmp::TimeTicks),
        Kind::Octets => octets(value, of).map(Snmp::OctetString),
        Kind::Oid => match value {
            Value::Text(text) => {
                let oid =
                    Oid::parse(text).ok().filter(|oid| oid.validate_for_wire().is_ok() && !oid.is_empty());
                oid.map(Snmp::ObjectIdentifier).ok_or_else(|| Mismatch::Value(format!("'{text}' is no OID")))
            }
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Struct(_) => {
                Err(unfit(value, "an OID"))
            }
        },
        Kind::Ip => match value {
            Value::Text(text) => match text.parse::<Ipv4Addr>() {
                Ok(ip) => Ok(Snmp::IpAddress(ip.octets())),
                Err(_) => Err(Mismatch::Value(format!("'{text}' is no IPv4 address"))),
            },
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Struct(_) => {
                Err(unfit(value, "an IPv4 address"))
            }
        },
    }
}

/// A whole number that the type on the wire can carry.
fn whole<T: TryFrom<i64>>(value: &Value) -> Result<T, Mismatch> {
    let whole = match value {
        Value::Int(i) => Some(*i),
        Value::Float(_) => match value.clone().coerce(ValueType::Int) {
            Ok(Value::Int(i)) => Some(i),
            _ => None,
        },
        Value::Bool(_) | Value::Text(_) | Value::Struct(_) => return Err(unfit(value, "a number")),
    };
    let fits = whole.and_then(|i| T::try_from(i).ok());
    fits.ok_or_else(|| Mismatch::Value(format!("{value} does not go into 32 bits of the object's type")))
}

fn octets(value: &Value, of: ValueType) -> Result<Bytes, Mismatch> {
    match value {
        Value::Text(base64) if of == ValueType::Bytes => BASE64
            .decode(base64.as_bytes())
            .map(Bytes::from)
            .map_err(|e| Mismatch::Value(format!("bytes are written in Base64: {e}"))),
        Value::Text(text) => Ok(Bytes::from(text.clone())),
        Value::Int(_) | Value::Float(_) => Ok(Bytes::from(value.to_string())),
        Value::Bool(_) | Value::Struct(_) => Err(unfit(value, "text")),
    }
}

fn unfit(value: &Value, wanted: &str) -> Mismatch {
    Mismatch::Type(format!("the object takes {wanted}, the property holds {value}"))
}

/// What a SET must carry for an object that has this value; `None` for one that nobody writes.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library may learn more types, which are no values to us"
)]
pub(crate) fn kind_of(value: &Snmp) -> Option<Kind> {
    match value {
        Snmp::Integer(_) => Some(Kind::Integer),
        Snmp::Gauge32(_) | Snmp::UInteger32(_) => Some(Kind::Gauge),
        Snmp::TimeTicks(_) => Some(Kind::TimeTicks),
        Snmp::OctetString(_) => Some(Kind::Octets),
        Snmp::ObjectIdentifier(_) => Some(Kind::Oid),
        Snmp::IpAddress(_) => Some(Kind::Ip),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octet_string(octets: &'static [u8]) -> Snmp {
        Snmp::OctetString(Bytes::from_static(octets))
    }

    #[test]
    fn values_come_over_as_the_property_holds_them() {
        let float = Snmp::Opaque(Bytes::from_static(&[0x9f, 0x78, 0x04, 0x3f, 0xc0, 0, 0]));
        let table = [
            (Snmp::Integer(-7), ValueType::Int, Value::Int(-7)),
            (Snmp::Integer(1), ValueType::Bool, Value::Bool(true)),
            (Snmp::Integer(2), ValueType::Bool, Value::Bool(false)),
            (Snmp::Counter32(u32::MAX), ValueType::Int, Value::Int(4_294_967_295)),
            (Snmp::Gauge32(5), ValueType::Float, Value::Int(5)),
            (Snmp::TimeTicks(100), ValueType::Int, Value::Int(100)),
            (Snmp::Counter64(u64::MAX), ValueType::Float, Value::Float(u64::MAX as f64)),
            (octet_string(b"pump 1"), ValueType::String, Value::Text("pump 1".into())),
            (octet_string(b" 0.25\n"), ValueType::Float, Value::Float(0.25)),
            (octet_string(b"12"), ValueType::Int, Value::Int(12)),
            (octet_string(&[0, 255]), ValueType::Bytes, Value::Text("AP8=".into())),
            (float, ValueType::Float, Value::Float(1.5)),
            (Snmp::IpAddress([10, 0, 0, 8]), ValueType::String, Value::Text("10.0.0.8".into())),
            (Snmp::ObjectIdentifier(Oid::from([1, 3, 6])), ValueType::String, Value::Text("1.3.6".into())),
        ];
        for (value, wanted, expected) in table {
            assert_eq!(decode(&value, wanted), Ok(expected), "{value:?}");
        }
    }

    #[test]
    fn a_value_that_may_get_better_is_told_from_a_property_of_the_wrong_type() {
        let bad_value = [
            (Snmp::Integer(3), ValueType::Bool),
            (Snmp::Counter64(u64::MAX), ValueType::Int),
            (octet_string(&[255]), ValueType::String),
            (octet_string(b"n/a"), ValueType::Float),
            (octet_string(b"inf"), ValueType::Float),
            (Snmp::Null, ValueType::Int),
        ];
        for (value, wanted) in bad_value {
            assert!(matches!(decode(&value, wanted), Err(Mismatch::Value(_))), "{value:?}");
        }
        let bad_type = [
            (Snmp::Integer(3), ValueType::String),
            (Snmp::IpAddress([1, 2, 3, 4]), ValueType::Int),
            (octet_string(b"on"), ValueType::Bool),
        ];
        for (value, wanted) in bad_type {
            assert!(matches!(decode(&value, wanted), Err(Mismatch::Type(_))), "{value:?}");
        }
    }

    #[test]
    fn a_write_carries_the_objects_own_type() {
        let text = |text: &str| Value::Text(text.into());
        let table = [
            (Value::Float(21.0), Kind::Integer, ValueType::Float, Snmp::Integer(21)),
            (Value::Bool(false), Kind::Integer, ValueType::Bool, Snmp::Integer(2)),
            (Value::Int(4_294_967_295), Kind::Gauge, ValueType::Int, Snmp::Gauge32(u32::MAX)),
            (Value::Int(9), Kind::TimeTicks, ValueType::Int, Snmp::TimeTicks(9)),
            (text("hall"), Kind::Octets, ValueType::String, octet_string(b"hall")),
            (text("AP8="), Kind::Octets, ValueType::Bytes, octet_string(&[0, 255])),
            (Value::Float(0.5), Kind::Octets, ValueType::Float, octet_string(b"0.5")),
            (text("10.0.0.8"), Kind::Ip, ValueType::String, Snmp::IpAddress([10, 0, 0, 8])),
            (text("1.3.6"), Kind::Oid, ValueType::String, Snmp::ObjectIdentifier(Oid::from([1, 3, 6]))),
        ];
        for (value, kind, of, expected) in table {
            assert_eq!(encode(&value, kind, of), Ok(expected), "{value}");
        }
        let refused = [
            (Value::Float(21.5), Kind::Integer, ValueType::Float),
            (Value::Int(-1), Kind::Gauge, ValueType::Int),
            (Value::Int(3_000_000_000), Kind::Integer, ValueType::Int),
            (text("x"), Kind::Integer, ValueType::String),
            (text("?"), Kind::Octets, ValueType::Bytes),
            (text("300.1.1.1"), Kind::Ip, ValueType::String),
            (text(""), Kind::Oid, ValueType::String),
        ];
        for (value, kind, of) in refused {
            assert!(encode(&value, kind, of).is_err(), "{value}");
        }
    }
}
