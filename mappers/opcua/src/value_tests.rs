//! Which value becomes which.

use super::*;
use opcua::types::StatusCode;

fn data(value: impl Into<Variant>) -> DataValue {
    DataValue { value: Some(value.into()), ..DataValue::default() }
}

#[test]
fn every_scalar_becomes_a_value() {
    let table: Vec<(Variant, Value)> = vec![
        (true.into(), Value::Bool(true)),
        ((-7i8).into(), Value::Int(-7)),
        (7u8.into(), Value::Int(7)),
        ((-300i16).into(), Value::Int(-300)),
        (i64::MIN.into(), Value::Int(i64::MIN)),
        (Variant::UInt64(7), Value::Int(7)),
        (1.5f32.into(), Value::Float(1.5)),
        (1e300f64.into(), Value::Float(1e300)),
        ("on".into(), Value::Text("on".into())),
        (LocalizedText::from("an").into(), Value::Text("an".into())),
        (ByteString::from(b"kit".to_vec()).into(), Value::Text("a2l0".into())),
        (Variant::Variant(Box::new(3i32.into())), Value::Int(3)),
    ];
    for (variant, value) in table {
        assert_eq!(from_variant(&variant), Ok(value), "{variant:?}");
    }
}

#[test]
fn what_is_no_value_of_ours_says_why() {
    assert!(
        matches!(from_variant(&vec![1i32, 2].into()), Err(Unfit::Kind(why)) if why.contains("array of 2"))
    );
    assert!(matches!(from_variant(&f64::NAN.into()), Err(Unfit::Value(_))));
    assert!(matches!(from_variant(&Variant::UInt64(u64::MAX)), Err(Unfit::Value(_))));
}

#[test]
fn a_value_goes_out_in_the_nodes_own_type_or_not_at_all() {
    let table = [
        (Value::Bool(true), Type::Boolean, Some(Variant::from(true))),
        (Value::Int(255), Type::Byte, Some(Variant::Byte(255))),
        (Value::Int(256), Type::Byte, None),
        (Value::Int(-1), Type::UInt32, None),
        (Value::Int(3), Type::Float, Some(Variant::Float(3.0))),
        (Value::Float(3.0), Type::Int16, Some(Variant::Int16(3))),
        (Value::Float(3.5), Type::Int16, None),
        (Value::Float(1e300), Type::Float, None),
        (Value::Float(0.1), Type::Double, Some(Variant::Double(0.1))),
        (Value::Text("on".into()), Type::String, Some(Variant::from("on"))),
        (Value::Text("a2l0".into()), Type::ByteString, Some(ByteString::from(b"kit".to_vec()).into())),
        (Value::Text("%".into()), Type::ByteString, None),
        (Value::Text("on".into()), Type::Boolean, None),
        (Value::Bool(true), Type::Int32, None),
    ];
    for (value, kind, variant) in table {
        assert_eq!(to_variant(&value, kind).ok(), variant, "{value} as {kind}");
    }
    let why = to_variant(&Value::Int(256), Type::Byte).unwrap_err();
    assert_eq!(why, "256 does not fit the node, which holds a Byte");
}

#[test]
fn times_before_1970_and_none_at_all_are_not_told() {
    assert_eq!(time(&DateTime::ymd(1970, 1, 2)), Some(UnixMillis(86_400_000)));
    assert_eq!(time(&DateTime::ymd(1969, 1, 1)), None);
    assert_eq!(time(&DateTime::null()), None);
}

#[test]
fn a_status_is_the_values_quality() {
    assert_eq!(status::quality(data(1i32).status()), Quality::Good);
    let uncertain = StatusCode::UncertainLastUsableValue;
    assert_eq!(status::quality(uncertain), Quality::Uncertain);
    assert_eq!(status::quality(StatusCode::BadSensorFailure), Quality::Bad);
}
