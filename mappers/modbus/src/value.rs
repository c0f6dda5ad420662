//! Registers into values and back.

use data_encoding::BASE64;
use kubebus_sdk::{Value, ValueType};

use crate::address::{Address, Content, Kind, Swap};
use crate::loose::quoted;
use crate::pdu::{MOST_WRITTEN, Request, Table};

/// What the registers of a property say; the error is for people.
pub(crate) fn decode(address: &Address, value_type: ValueType, words: &[u16]) -> Result<Value, String> {
    match address.content(value_type)? {
        Content::RegisterBit(bit) => Ok(Value::Bool(words.first().is_some_and(|word| word >> bit & 1 == 1))),
        Content::Bits(_) => Ok(typed(bits(words), value_type)),
        Content::Text { .. } => Ok(Value::Text(text(&bytes(words, address.swap), value_type))),
        Content::Number(kind) => number(kind, &bytes(words, address.swap)).map(|n| typed(n, value_type)),
        Content::ByType { .. } => Err("it has no content of its own".to_owned()),
    }
}

/// The request that writes `value` there; the error says why there is none.
pub(crate) fn encode(address: &Address, value_type: ValueType, value: &Value) -> Result<Request, String> {
    let start = address.start;
    match (address.table, address.content(value_type)?) {
        (Table::Discrete | Table::Input, _) => Err(format!("a {} can only be read", address.table.key())),
        (_, Content::RegisterBit(_)) => {
            Err("one bit of a register cannot be written: the other fifteen could change meanwhile"
                .to_owned())
        }
        (_, Content::Bits(1)) => Ok(Request::WriteCoil { at: start, on: whole(value)? != 0 }),
        (_, Content::Bits(count)) => Ok(Request::WriteCoils { start, bits: to_bits(count, value)? }),
        (_, Content::Number(kind)) => Ok(write(start, &to_words(&to_bytes(kind, value)?, address.swap))),
        (_, Content::Text { registers }) => {
            Ok(write(start, &to_words(&to_text(registers, value_type, value)?, address.swap)))
        }
        (_, Content::ByType { .. }) => Err("it has no content of its own".to_owned()),
    }
}

fn write(start: u16, words: &[u16]) -> Request {
    match words {
        [word] => Request::WriteRegister { at: start, word: *word },
        words => Request::WriteRegisters { start, words: words.to_vec() },
    }
}

/// The highest byte first.
fn bytes(words: &[u16], swap: Swap) -> Vec<u8> {
    let word = |word: &u16| if swap.bytes { word.to_le_bytes() } else { word.to_be_bytes() };
    if swap.registers {
        words.iter().rev().flat_map(word).collect()
    } else {
        words.iter().flat_map(word).collect()
    }
}

fn to_words(bytes: &[u8], swap: Swap) -> Vec<u16> {
    let word = |pair: &[u8]| {
        let pair = [pair[0], pair[1]];
        if swap.bytes { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }
    };
    let pairs = bytes.chunks_exact(2);
    if swap.registers { pairs.rev().map(word).collect() } else { pairs.map(word).collect() }
}

fn number(kind: Kind, bytes: &[u8]) -> Result<Value, String> {
    fn of<const N: usize>(bytes: &[u8]) -> Result<[u8; N], String> {
        bytes.try_into().map_err(|_| format!("{} bytes instead of {N}", bytes.len()))
    }
    let float =
        |n: f64| if n.is_finite() { Ok(Value::Float(n)) } else { Err(format!("it holds {n}, no number")) };
    let int = |n: i64| Ok(Value::Int(n));
    match kind {
        Kind::Bool | Kind::String | Kind::U16 => int(u16::from_be_bytes(of(bytes)?).into()),
        Kind::I16 => int(i16::from_be_bytes(of(bytes)?).into()),
        Kind::U32 => int(u32::from_be_bytes(of(bytes)?).into()),
        Kind::I32 => int(i32::from_be_bytes(of(bytes)?).into()),
        Kind::U64 => {
            let n = u64::from_be_bytes(of(bytes)?);
            i64::try_from(n).map(Value::Int).map_err(|_| format!("{n} is more than a twin's int holds"))
        }
        Kind::I64 => int(i64::from_be_bytes(of(bytes)?)),
        Kind::F32 => float(f32::from_be_bytes(of(bytes)?).into()),
        Kind::F64 => float(f64::from_be_bytes(of(bytes)?)),
    }
}

fn to_bytes(kind: Kind, value: &Value) -> Result<Vec<u8>, String> {
    fn fits<T: TryFrom<i64>>(value: &Value, kind: Kind) -> Result<T, String> {
        let n = whole(value)?;
        T::try_from(n).map_err(|_| format!("{n} does not fit into {kind:?}"))
    }
    Ok(match kind {
        Kind::Bool | Kind::String | Kind::U16 => fits::<u16>(value, kind)?.to_be_bytes().to_vec(),
        Kind::I16 => fits::<i16>(value, kind)?.to_be_bytes().to_vec(),
        Kind::U32 => fits::<u32>(value, kind)?.to_be_bytes().to_vec(),
        Kind::I32 => fits::<i32>(value, kind)?.to_be_bytes().to_vec(),
        Kind::U64 => fits::<u64>(value, kind)?.to_be_bytes().to_vec(),
        Kind::I64 => whole(value)?.to_be_bytes().to_vec(),
        Kind::F32 => {
            let n = real(value)? as f32;
            if n.is_infinite() {
                return Err(format!("{value} does not fit into {kind:?}"));
            }
            n.to_be_bytes().to_vec()
        }
        Kind::F64 => real(value)?.to_be_bytes().to_vec(),
    })
}

fn real(value: &Value) -> Result<f64, String> {
    value
        .as_f64()
        .filter(|n| n.is_finite())
        .ok_or_else(|| format!("{} is no number", quoted(&value.to_string())))
}

/// A register holds whole numbers: the nearest one to what is wished.
fn whole(value: &Value) -> Result<i64, String> {
    /// Beyond it a float names no single integer.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Int(n) => Ok(*n),
        Value::Bool(on) => Ok(i64::from(*on)),
        Value::Float(_) | Value::Text(_) | Value::Struct(_) => match real(value)?.round() {
            n if n.abs() <= EXACT => Ok(n as i64),
            n => Err(format!("{n} is too large for a register's whole number")),
        },
    }
}

/// A bit or a number as what the property is.
fn typed(value: Value, value_type: ValueType) -> Value {
    match (value_type, &value) {
        (ValueType::Bool, Value::Int(n)) => Value::Bool(*n != 0),
        (ValueType::Bool, Value::Float(n)) => Value::Bool(*n != 0.0),
        _ => value,
    }
}

fn bits(words: &[u16]) -> Value {
    Value::Int(words.iter().rev().fold(0, |n, bit| n << 1 | i64::from(*bit)))
}

fn to_bits(count: u16, value: &Value) -> Result<Vec<bool>, String> {
    let n = whole(value)?;
    if n < 0 || n >> count != 0 {
        return Err(format!("{n} does not fit into {count} coils"));
    }
    Ok((0..count).map(|bit| n >> bit & 1 == 1).collect())
}

/// A text ends at its first NUL; bytes are base64 of all there are.
fn text(bytes: &[u8], value_type: ValueType) -> String {
    if value_type == ValueType::Bytes {
        return BASE64.encode(bytes);
    }
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn to_text(registers: u16, value_type: ValueType, value: &Value) -> Result<Vec<u8>, String> {
    let Value::Text(text) = value else { return Err(format!("{} is no text", quoted(&value.to_string()))) };
    if registers > MOST_WRITTEN {
        return Err(format!("registers: at most {MOST_WRITTEN} can be written at once"));
    }
    let room = usize::from(registers) * 2;
    let is_raw = value_type == ValueType::Bytes;
    let mut bytes = if is_raw {
        BASE64.decode(text.as_bytes()).map_err(|e| format!("no base64: {e}"))?
    } else {
        text.clone().into_bytes()
    };
    if bytes.len() > room || (is_raw && bytes.len() < room) {
        return Err(format!("{} bytes, but there are {room}", bytes.len()));
    }
    bytes.resize(room, 0);
    Ok(bytes)
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
