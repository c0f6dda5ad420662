//! OPC UA's values and ours.

use kubebus_sdk::{Error, Point, Quality, UnixMillis, Value, ValueType};
use opcua::types::{
    ByteString, DataValue, DateTime, Guid, LocalizedText, Variant, VariantScalarTypeId as Type,
};

use crate::address::Address;
use crate::status;

/// A value with its quality and, if the server says, the time at its source.
pub(crate) type Reading = (Value, Quality, Option<UnixMillis>);

/// What a server says of one point. A bad value counts as a value, of bad quality, if there is one.
pub(crate) fn reading(
    point: &Point<Address>,
    node: &str,
    data: &DataValue,
    known: bool,
) -> Result<Reading, Error> {
    let status = data.status();
    let none = matches!(data.value, None | Some(Variant::Empty));
    if status.is_bad() && none {
        return Err(status::point(&point.name, node, status, known));
    }
    if none {
        return Err(Error::Device(format!("{node} has no value")));
    }
    let variant = data.value.as_ref().unwrap_or(&Variant::Empty);
    let value = from_variant(variant).map_err(|why| unfit(point, node, why))?;
    if matches!(value, Value::Text(_)) != matches!(point.value_type, ValueType::String | ValueType::Bytes) {
        let why = format!("holds {}, which is no {:?}", kind_name(variant), point.value_type);
        return Err(unfit(point, node, Unfit::Kind(why)));
    }
    Ok((value, status::quality(status), data.source_timestamp.as_ref().and_then(time)))
}

/// Why a value is none of ours.
#[derive(Debug, PartialEq)]
pub(crate) enum Unfit {
    /// It never will be.
    Kind(String),
    /// This one is not.
    Value(String),
}

fn unfit(point: &Point<Address>, node: &str, why: Unfit) -> Error {
    match why {
        Unfit::Kind(why) => Error::BadAddress { point: point.name.clone(), why: format!("{node} {why}") },
        Unfit::Value(why) => Error::Device(format!("{node} {why}")),
    }
}

fn from_variant(variant: &Variant) -> Result<Value, Unfit> {
    let float = |f: f64| {
        if f.is_finite() { Ok(Value::Float(f)) } else { Err(Unfit::Value(format!("is {f}"))) }
    };
    let text = |text: &dyn ToString| Ok(Value::Text(text.to_string()));
    match variant {
        Variant::Boolean(v) => Ok(Value::Bool(*v)),
        Variant::SByte(v) => Ok(Value::Int((*v).into())),
        Variant::Byte(v) => Ok(Value::Int((*v).into())),
        Variant::Int16(v) => Ok(Value::Int((*v).into())),
        Variant::UInt16(v) => Ok(Value::Int((*v).into())),
        Variant::Int32(v) => Ok(Value::Int((*v).into())),
        Variant::UInt32(v) => Ok(Value::Int((*v).into())),
        Variant::Int64(v) => Ok(Value::Int(*v)),
        Variant::UInt64(v) => i64::try_from(*v)
            .map(Value::Int)
            .map_err(|_| Unfit::Value(format!("is {v}, more than an int holds"))),
        Variant::Float(v) => float((*v).into()),
        Variant::Double(v) => float(*v),
        Variant::String(v) => text(&v.as_ref()),
        Variant::LocalizedText(v) => text(&v.text.as_ref()),
        Variant::QualifiedName(v) => text(&v.name.as_ref()),
        Variant::XmlElement(v) => text(&v.to_string()),
        Variant::DateTime(v) => text(&v.to_rfc3339()),
        Variant::Guid(v) => text(v),
        Variant::ByteString(v) => text(&v.as_base64()),
        Variant::NodeId(v) => text(v),
        Variant::StatusCode(v) => Ok(Value::Int(v.bits().into())),
        Variant::Variant(inner) if !matches!(**inner, Variant::Variant(_)) => from_variant(inner),
        Variant::Array(array) => Err(Unfit::Kind(format!(
            "is an array of {} values; arrays are not read: give each value a node of its own on the server",
            array.values.len()
        ))),
        Variant::Empty
        | Variant::ExpandedNodeId(_)
        | Variant::ExtensionObject(_)
        | Variant::Variant(_)
        | Variant::DataValue(_)
        | Variant::DiagnosticInfo(_) => {
            Err(Unfit::Kind(format!("holds {}, which is not read", kind_name(variant))))
        }
    }
}

fn kind_name(variant: &Variant) -> String {
    variant.scalar_type_id().map_or_else(|| "nothing".to_owned(), |kind| format!("a {kind}"))
}

/// Our value in the node's own type; the reason if it does not fit.
pub(crate) fn to_variant(value: &Value, kind: Type) -> Result<Variant, String> {
    let variant = match (value, kind) {
        (Value::Bool(v), Type::Boolean) => Some(Variant::Boolean(*v)),
        (Value::Int(v), _) => integer(*v, kind),
        (Value::Float(v), Type::Double) => Some(Variant::Double(*v)),
        (Value::Float(v), Type::Float) => Some(*v as f32).filter(|f| f.is_finite()).map(Variant::Float),
        (Value::Float(v), _) => whole(*v).and_then(|v| integer(v, kind)),
        (Value::Text(v), _) => text(v, kind),
        _ => None,
    };
    variant.ok_or_else(|| format!("{value} does not fit the node, which holds a {kind}"))
}

/// Beyond 2^53 a float no longer names one integer.
fn whole(float: f64) -> Option<i64> {
    (float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0).then_some(float as i64)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "there are dozens, and these are ours")]
fn integer(v: i64, kind: Type) -> Option<Variant> {
    match kind {
        Type::SByte => v.try_into().ok().map(Variant::SByte),
        Type::Byte => v.try_into().ok().map(Variant::Byte),
        Type::Int16 => v.try_into().ok().map(Variant::Int16),
        Type::UInt16 => v.try_into().ok().map(Variant::UInt16),
        Type::Int32 => v.try_into().ok().map(Variant::Int32),
        Type::UInt32 => v.try_into().ok().map(Variant::UInt32),
        Type::Int64 => Some(Variant::Int64(v)),
        Type::UInt64 => v.try_into().ok().map(Variant::UInt64),
        Type::Float => Some(Variant::Float(v as f32)),
        Type::Double => Some(Variant::Double(v as f64)),
        _ => None,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "there are dozens, and these are ours")]
fn text(v: &str, kind: Type) -> Option<Variant> {
    match kind {
        Type::String => Some(Variant::from(v)),
        Type::LocalizedText => Some(Variant::from(LocalizedText::from(v))),
        Type::DateTime => DateTime::parse_from_rfc3339(v).ok().map(Variant::from),
        Type::Guid => v.parse::<Guid>().ok().map(Variant::from),
        Type::ByteString => ByteString::from_base64(v).map(Variant::from),
        _ => None,
    }
}

fn time(time: &DateTime) -> Option<UnixMillis> {
    if time.is_null() {
        return None;
    }
    u64::try_from(time.as_chrono().timestamp_millis()).ok().map(UnixMillis)
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
