//! Between a device's raw number and the property's.

use std::collections::BTreeMap;

use bus::twin::Json;
use bus::value::WrongValue;
use bus::{Value, ValueType};

/// Keys beside a property's address that the SDK takes for itself.
const SCALE: &str = "scale";
const SHIFT: &str = "shift";

/// How near a raw number comes to a whole one, in parts of it, to be meant as that: 0.29 / 0.01 is 28.999999999999996.
const NEARLY_WHOLE: f64 = 1e-9;

/// `value = raw * scale + shift`.
///
/// Nothing is computed without a scale, so every number goes through as it is. Otherwise numbers are 64-bit floats: a
/// scale of 0.1 divides by 10 (3 is 0.3, not 0.30000000000000004), a raw number that is whole but for the float's error
/// is whole, and an int property is rounded half away from zero, both ways. An int property beyond 2^53 and whatever is
/// not finite is an error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    scale: f64,
    shift: f64,
}

impl Scale {
    pub(crate) const NONE: Self = Self { scale: 1.0, shift: 0.0 };

    /// Takes `scale` and `shift` out of an address object; any other address is left as it is. The error begins with the
    /// name of the field, as in `.scale: 0 is ..`.
    pub(crate) fn take_from(address: &mut Json, value_type: ValueType) -> Result<Self, String> {
        let Json::Object(fields) = address else { return Ok(Self::NONE) };
        let scale = number(fields, SCALE)?.unwrap_or(1.0);
        let shift = number(fields, SHIFT)?.unwrap_or(0.0);
        if scale == 0.0 {
            return Err(format!(
                ".{SCALE}: 0 makes every value the same; leave it out for numbers as they are"
            ));
        }
        let scale = Self { scale, shift };
        if scale != Self::NONE && !matches!(value_type, ValueType::Int | ValueType::Float) {
            let given = if scale.scale == 1.0 { SHIFT } else { SCALE };
            return Err(format!(
                ".{given}: only numbers are scaled, and the property's type is {value_type:?}"
            ));
        }
        Ok(scale)
    }

    /// What the device said, as the property holds it.
    pub(crate) fn read(self, raw: Value, value_type: ValueType) -> Result<Value, WrongValue> {
        match number_of(&raw) {
            Some(number) if self != Self::NONE => fit(self.up(number), value_type),
            _ => raw.coerce(value_type),
        }
    }

    /// What the device shall be told: of the property's type too, but raw.
    pub(crate) fn write(self, value: Value, value_type: ValueType) -> Result<Value, WrongValue> {
        match number_of(&value) {
            Some(number) if self != Self::NONE => fit(settled(self.down(number)), value_type),
            _ => value.coerce(value_type),
        }
    }

    fn up(self, raw: f64) -> f64 {
        let scaled = match self.divisor() {
            Some(divisor) => raw / divisor,
            None => raw * self.scale,
        };
        scaled + self.shift
    }

    fn down(self, value: f64) -> f64 {
        let shifted = value - self.shift;
        match self.divisor() {
            Some(divisor) => shifted * divisor,
            None => shifted / self.scale,
        }
    }

    /// The whole number that the scale is one part of, if it is a decimal or such: dividing by it rounds once only.
    fn divisor(self) -> Option<f64> {
        let divisor = settled(self.scale.recip());
        (self.scale.abs() < 1.0 && divisor.fract() == 0.0).then_some(divisor)
    }
}

fn number(fields: &mut BTreeMap<String, Json>, key: &str) -> Result<Option<f64>, String> {
    let number = match fields.remove(key) {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::Int(number)) => number as f64,
        Some(Json::Float(number)) => number,
        Some(Json::Bool(_) | Json::Text(_) | Json::List(_) | Json::Object(_)) => f64::NAN,
    };
    if number.is_finite() { Ok(Some(number)) } else { Err(format!(".{key}: expected a number, such as 0.1")) }
}

fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Int(_) | Value::Float(_) => value.as_f64(),
        Value::Bool(_) | Value::Text(_) | Value::Struct(_) => None,
    }
}

fn fit(number: f64, value_type: ValueType) -> Result<Value, WrongValue> {
    let number = if value_type == ValueType::Int { number.round() } else { number };
    Value::Float(number).coerce(value_type)
}

/// The whole number that a number is, but for a float's error.
fn settled(number: f64) -> f64 {
    let whole = number.round();
    if (number - whole).abs() <= NEARLY_WHOLE * whole.abs() { whole } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(fields: &[(&str, Json)]) -> Json {
        Json::Object(fields.iter().map(|(key, json)| ((*key).to_owned(), json.clone())).collect())
    }

    fn scale(scale: f64, shift: f64) -> Scale {
        Scale { scale, shift }
    }

    #[test]
    fn scale_and_shift_are_taken_out_of_an_address_and_nothing_else_is() {
        let offset = ("offset", Json::Int(2));
        let mut full = address(&[offset.clone(), ("scale", Json::Float(0.1)), ("shift", Json::Int(-40))]);
        assert_eq!(Scale::take_from(&mut full, ValueType::Int), Ok(scale(0.1, -40.0)));
        assert_eq!(full, address(&[offset]));
        for mut plain in [Json::Text("scale".into()), Json::Int(3), Json::Null, address(&[])] {
            let before = plain.clone();
            assert_eq!(Scale::take_from(&mut plain, ValueType::Float), Ok(Scale::NONE));
            assert_eq!(plain, before);
        }
        let mut coil = address(&[("scale", Json::Int(1))]);
        assert_eq!(Scale::take_from(&mut coil, ValueType::Bool), Ok(Scale::NONE), "KubeEdge's coils have it");
    }

    #[test]
    fn a_senseless_scale_is_refused_with_the_fields_name() {
        let wrong = [
            ("scale", Json::Int(0), ValueType::Float),
            ("scale", Json::Float(f64::NAN), ValueType::Float),
            ("scale", Json::Text("0.1".into()), ValueType::Float),
            ("shift", Json::Float(f64::INFINITY), ValueType::Float),
            ("shift", Json::Bool(true), ValueType::Int),
            ("scale", Json::Int(2), ValueType::Bool),
            ("shift", Json::Int(2), ValueType::String),
        ];
        for (key, json, value_type) in wrong {
            let mut address = address(&[(key, json.clone())]);
            let why = Scale::take_from(&mut address, value_type).unwrap_err();
            assert!(why.starts_with(&format!(".{key}: ")), "{json:?}: {why}");
        }
    }

    #[test]
    fn raw_numbers_and_values_go_over_into_each_other() {
        use Value::{Float, Int};
        use ValueType as T;
        let table = [
            (scale(0.1, 0.0), T::Float, Int(3), Float(0.3)),
            (scale(0.1, 0.0), T::Float, Int(-231), Float(-23.1)),
            (scale(0.01, 0.0), T::Float, Int(29), Float(0.29)),
            (scale(0.5, -40.0), T::Float, Int(130), Float(25.0)),
            (scale(10.0, 0.0), T::Int, Int(23), Int(230)),
            (scale(-2.0, 7.0), T::Int, Int(3), Int(1)),
            (scale(1.0, 273.15), T::Float, Float(20.0), Float(293.15)),
        ];
        for (scale, value_type, raw, value) in table {
            assert_eq!(scale.read(raw.clone(), value_type), Ok(value.clone()), "{scale:?} {raw}");
            let told = scale.write(value, value_type).unwrap();
            assert_eq!(told.coerce(T::Float), raw.coerce(T::Float), "{scale:?}");
        }
    }

    #[test]
    fn an_int_is_rounded_half_away_from_zero_and_what_it_cannot_hold_is_an_error() {
        let half = scale(0.5, 0.0);
        for (raw, value) in [(5, 3), (-5, -3), (4, 2), (1, 1)] {
            assert_eq!(half.read(Value::Int(raw), ValueType::Int), Ok(Value::Int(value)));
        }
        assert_eq!(scale(10.0, 0.0).write(Value::Int(235), ValueType::Int), Ok(Value::Int(24)));
        let huge = scale(f64::MAX, 0.0);
        assert_eq!(huge.read(Value::Float(10.0), ValueType::Float), Err(WrongValue::NotFinite));
        assert_eq!(
            scale(1e-300, 0.0).write(Value::Float(1e300), ValueType::Float),
            Err(WrongValue::NotFinite)
        );
        assert!(scale(2.0, 0.0).read(Value::Int(i64::MAX), ValueType::Int).is_err(), "beyond 2^53");
        assert_eq!(Scale::NONE.read(Value::Int(i64::MAX), ValueType::Int), Ok(Value::Int(i64::MAX)));
        assert!(half.read(Value::Text("5".into()), ValueType::Float).is_err());
        assert!(half.read(Value::Bool(true), ValueType::Float).is_err());
    }

    proptest! {
        #[test]
        fn a_raw_integer_survives_both_ways(raw in -100_000i64..100_000, digits in 0i32..5, shift in -500i32..500) {
            let scale = scale(10f64.powi(-digits), f64::from(shift));
            let value = scale.read(Value::Int(raw), ValueType::Float).unwrap();
            prop_assert_eq!(scale.write(value, ValueType::Float), Ok(Value::Float(raw as f64)));
        }
    }
}
