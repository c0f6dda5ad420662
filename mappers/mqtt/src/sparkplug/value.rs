//! A metric's value, by its data type (specification §6.4.16).

use data_encoding::BASE64;
use kubebus_sdk::Value;

use super::message::Wire;

/// Data types by their number.
mod data_type {
    pub(super) const INT8: u32 = 1;
    pub(super) const INT16: u32 = 2;
    pub(super) const INT32: u32 = 3;
    pub(super) const INT64: u32 = 4;
    pub(super) const UINT8: u32 = 5;
    pub(super) const UINT16: u32 = 6;
    pub(super) const UINT32: u32 = 7;
    pub(super) const UINT64: u32 = 8;
    pub(super) const FLOAT: u32 = 9;
    pub(super) const DOUBLE: u32 = 10;
    pub(super) const BOOLEAN: u32 = 11;
    pub(super) const STRING: u32 = 12;
    pub(super) const DATE_TIME: u32 = 13;
    pub(super) const TEXT: u32 = 14;
    pub(super) const UUID: u32 = 15;
    pub(super) const BYTES: u32 = 17;
    pub(super) const FILE: u32 = 18;
}

/// Negative numbers travel as two's complement in unsigned fields, whose width senders do not agree on: small types are
/// cut to their own width.
pub(crate) fn read(wire: &Wire, data_type: u32) -> Result<Value, String> {
    use data_type::{INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64};
    let bits = match wire {
        Wire::Int(bits) => u64::from(*bits),
        Wire::Long(bits) => *bits,
        Wire::Float(float) => return Ok(Value::Float(f64::from(*float))),
        Wire::Double(double) => return Ok(Value::Float(*double)),
        Wire::Boolean(on) => return Ok(Value::Bool(*on)),
        Wire::Text(text) => return Ok(Value::Text(text.clone())),
        Wire::Bytes(bytes) => return Ok(Value::Text(BASE64.encode(bytes))),
    };
    let int = match data_type {
        INT8 => i64::from(bits as i8),
        INT16 => i64::from(bits as i16),
        INT32 => i64::from(bits as i32),
        INT64 => bits as i64,
        UINT8 => i64::from(bits as u8),
        UINT16 => i64::from(bits as u16),
        UINT32 => i64::from(bits as u32),
        UINT64 | data_type::DATE_TIME => {
            i64::try_from(bits).map_err(|_| format!("{bits} does not fit into 63 bits"))?
        }
        other => return Err(format!("data type {other} is no whole number")),
    };
    Ok(Value::Int(int))
}

/// A value as the metric's data type has it. An error says what it can hold.
pub(crate) fn write(value: &Value, data_type: u32) -> Result<Wire, String> {
    use data_type::{BOOLEAN, BYTES, DOUBLE, FILE, FLOAT, STRING, TEXT, UUID};
    match (data_type, value) {
        (BOOLEAN, Value::Bool(on)) => Ok(Wire::Boolean(*on)),
        (FLOAT, Value::Float(_) | Value::Int(_)) => {
            let float = value.as_f64().unwrap_or_default() as f32;
            // What is too large for 32 bits would become infinite.
            if float.is_finite() {
                Ok(Wire::Float(float))
            } else {
                Err(format!("{value} does not fit into a 32-bit float"))
            }
        }
        (DOUBLE, Value::Float(_) | Value::Int(_)) => Ok(Wire::Double(value.as_f64().unwrap_or_default())),
        (STRING | TEXT | UUID, Value::Text(text)) => Ok(Wire::Text(text.clone())),
        (BYTES | FILE, Value::Text(text)) => {
            BASE64.decode(text.as_bytes()).map(Wire::Bytes).map_err(|_| "bytes are base64 text".to_owned())
        }
        (_, Value::Int(int)) => whole(*int, data_type),
        (_, Value::Float(float)) if float.fract() == 0.0 && float.abs() < 9e15 => {
            whole(*float as i64, data_type)
        }
        (_, other) => Err(format!("the metric's data type {data_type} does not take {other}")),
    }
}

fn whole(int: i64, data_type: u32) -> Result<Wire, String> {
    use data_type::{DATE_TIME, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64};
    let fits = match data_type {
        INT8 => i8::try_from(int).is_ok(),
        INT16 => i16::try_from(int).is_ok(),
        INT32 => i32::try_from(int).is_ok(),
        INT64 => true,
        UINT8 => u8::try_from(int).is_ok(),
        UINT16 => u16::try_from(int).is_ok(),
        UINT32 => u32::try_from(int).is_ok(),
        UINT64 | DATE_TIME => int >= 0,
        other => return Err(format!("data type {other} cannot be written by this mapper")),
    };
    if !fits {
        return Err(format!("{int} does not fit the metric's data type {data_type}"));
    }
    let is_long = matches!(data_type, INT64 | UINT64 | DATE_TIME);
    Ok(if is_long { Wire::Long(int as u64) } else { Wire::Int(int as u32) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_type::*;

    #[test]
    fn whole_numbers_keep_their_sign_in_every_width() {
        let table = [
            (Wire::Int(0xff), INT8, -1),
            (Wire::Int(0xffff_ffff), INT8, -1),
            (Wire::Int(0x8000), INT16, -32768),
            (Wire::Int(0xffff_fffe), INT32, -2),
            (Wire::Long(u64::MAX), INT32, -1),
            (Wire::Long(u64::MAX), INT64, -1),
            (Wire::Int(200), UINT8, 200),
            (Wire::Long(0xffff_ffff), UINT32, 4_294_967_295),
            (Wire::Long(7), UINT64, 7),
        ];
        for (wire, data_type, int) in table {
            assert_eq!(read(&wire, data_type), Ok(Value::Int(int)), "{wire:?} {data_type}");
        }
        assert!(read(&Wire::Long(u64::MAX), UINT64).is_err());
        assert!(read(&Wire::Int(1), STRING).is_err());
    }

    #[test]
    fn what_is_written_reads_back() {
        let text = |t: &str| Value::Text(t.into());
        let table = [
            (Value::Int(-5), INT8),
            (Value::Int(-5), INT32),
            (Value::Int(i64::MIN), INT64),
            (Value::Int(65535), UINT16),
            (Value::Float(21.5), FLOAT),
            (Value::Float(0.1), DOUBLE),
            (Value::Bool(true), BOOLEAN),
            (text("hello"), STRING),
            (text("aGk="), BYTES),
        ];
        for (value, data_type) in table {
            let wire = write(&value, data_type).unwrap();
            assert_eq!(read(&wire, data_type), Ok(value), "{data_type}");
        }
        assert_eq!(write(&Value::Float(40.0), INT16), Ok(Wire::Int(40)));
    }

    #[test]
    fn what_a_type_cannot_hold_is_refused() {
        let table = [
            (Value::Int(128), INT8),
            (Value::Int(-1), UINT32),
            (Value::Int(-1), UINT64),
            (Value::Float(1.5), INT32),
            (Value::Float(1e39), FLOAT),
            (Value::Float(f64::NAN), FLOAT),
            (Value::Bool(true), INT32),
            (Value::Text("x".into()), BOOLEAN),
            (Value::Text("?".into()), BYTES),
            (Value::Int(1), 19),
        ];
        for (value, data_type) in table {
            assert!(write(&value, data_type).is_err(), "{value} {data_type}");
        }
    }
}
