//! A value in few bytes. Readings have few decimals, so most floats are a small integer and a power of ten.
//!
//! | kind | bytes |
//! |---|---|
//! | false, true | none |
//! | int | zigzag varint |
//! | decimal | the float times 10^scale, as a zigzag varint; scale 0 to 3 |
//! | single, double | 4 or 8, little-endian: the float that is no decimal |
//! | text | length, UTF-8 |
//! | struct | length, minicbor of [`Value`] |

use bus::Value;

use super::varint::{self, take_slice};
use crate::twin;

/// The kinds' numbers in three bits.
const FALSE: u8 = 0;
const TRUE: u8 = 1;
const INT: u8 = 2;
const DECIMAL: u8 = 3;
const SINGLE: u8 = 4;
const DOUBLE: u8 = 5;
const TEXT: u8 = 6;
const STRUCT: u8 = 7;

/// Powers of ten that a decimal can have.
const POWERS: [f64; 4] = [1.0, 10.0, 100.0, 1000.0];
/// Beyond this a decimal is no shorter than a single.
const MAX_MANTISSA: i64 = 1 << 27;

/// A value as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packed<'a> {
    pub(super) kind: u8,
    pub(super) scale: u8,
    pub(super) bytes: &'a [u8],
}

impl<'a> Packed<'a> {
    /// Packs `value`, with `room` for the bytes.
    pub(crate) fn new(value: &Value, room: &'a mut Vec<u8>) -> Self {
        room.clear();
        let (kind, scale) = pack(value, room);
        Self { kind, scale, bytes: room }
    }

    /// Takes a value off the front of `rest`; `None` if it is not whole.
    pub(super) fn take(kind: u8, scale: u8, rest: &mut &'a [u8]) -> Option<Self> {
        let start = *rest;
        match kind {
            FALSE | TRUE => {}
            INT | DECIMAL => drop(varint::take(rest)?),
            SINGLE => drop(take_slice(rest, 4)?),
            DOUBLE => drop(take_slice(rest, 8)?),
            _ => drop(take_long(rest)?),
        }
        let bytes = start.get(..start.len() - rest.len())?;
        Some(Self { kind, scale, bytes })
    }

    /// Bytes that it takes, without its head.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn unpack(&self) -> Option<Value> {
        let mut bytes = self.bytes;
        Some(match self.kind {
            FALSE => Value::Bool(false),
            TRUE => Value::Bool(true),
            INT => Value::Int(varint::unzigzag(varint::take(&mut bytes)?)),
            DECIMAL => {
                let mantissa = varint::unzigzag(varint::take(&mut bytes)?);
                Value::Float(mantissa as f64 / POWERS.get(usize::from(self.scale))?)
            }
            SINGLE => Value::Float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
            DOUBLE => Value::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
            TEXT => Value::Text(std::str::from_utf8(take_long(&mut bytes)?).ok()?.to_owned()),
            _ => twin::decode(take_long(&mut bytes)?)?,
        })
    }
}

/// Takes bytes that their length precedes.
pub(super) fn take_long<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint::take(rest)?).ok()?;
    take_slice(rest, length)
}

pub(super) fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Kind and scale.
fn pack(value: &Value, out: &mut Vec<u8>) -> (u8, u8) {
    match value {
        Value::Bool(false) => (FALSE, 0),
        Value::Bool(true) => (TRUE, 0),
        Value::Int(int) => {
            varint::put(out, varint::zigzag(*int));
            (INT, 0)
        }
        Value::Float(float) => pack_float(*float, out),
        Value::Text(text) => {
            put_long(out, text.as_bytes());
            (TEXT, 0)
        }
        Value::Struct(_) => {
            put_long(out, &twin::cbor(value));
            (STRUCT, 0)
        }
    }
}

fn pack_float(float: f64, out: &mut Vec<u8>) -> (u8, u8) {
    if let Some((mantissa, scale)) = decimal(float) {
        varint::put(out, varint::zigzag(mantissa));
        return (DECIMAL, scale);
    }
    let single = float as f32;
    if f64::from(single).to_bits() == float.to_bits() {
        out.extend_from_slice(&single.to_le_bytes());
        return (SINGLE, 0);
    }
    out.extend_from_slice(&float.to_le_bytes());
    (DOUBLE, 0)
}

/// The float as a decimal, if that gives back the same bits.
fn decimal(float: f64) -> Option<(i64, u8)> {
    (0..).zip(POWERS).find_map(|(scale, power)| {
        // As an integer, which has no -0.
        let mantissa = (float * power).round() as i64;
        let is_same = mantissa.saturating_abs() < MAX_MANTISSA
            && (mantissa as f64 / power).to_bits() == float.to_bits();
        is_same.then_some((mantissa, scale))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that `value` takes, once it has read back the same.
    fn length(value: &Value) -> usize {
        let mut room = Vec::new();
        let packed = Packed::new(value, &mut room);
        let with_more = [packed.bytes, &[0xff, 0xff]].concat();
        let mut rest = &with_more[..];
        let taken = Packed::take(packed.kind, packed.scale, &mut rest).unwrap();
        assert_eq!((taken, rest), (packed, &[0xff, 0xff][..]));
        let back = taken.unpack().unwrap();
        match (&back, value) {
            (Value::Float(back), Value::Float(float)) => assert_eq!(back.to_bits(), float.to_bits()),
            _ => assert_eq!(&back, value),
        }
        packed.len()
    }

    #[test]
    fn readings_take_few_bytes() {
        let float = |float| length(&Value::Float(float));
        assert_eq!([0.0, 20.5, 21.37, 3.217, -0.1, 1013.25].map(float), [1, 2, 2, 2, 1, 3]);
        assert_eq!(
            [-0.0, 0.00390625, 1.0 / 3.0, 1e300, f64::NAN, f64::INFINITY].map(float),
            [4, 4, 8, 8, 4, 4]
        );
        assert_eq!([0, -64, 64, i64::MIN].map(|int| length(&Value::Int(int))), [1, 1, 2, 10]);
        assert_eq!([length(&Value::Bool(true)), length(&Value::Text("open".into()))], [0, 5]);
        let fields = [("x".to_owned(), Value::Text("y".into())), ("z".to_owned(), Value::Struct([].into()))];
        assert!(length(&Value::Struct(fields.into())) < 24);
    }

    #[test]
    fn a_value_that_is_cut_short_is_none() {
        for (kind, bytes) in [(INT, &[0x80][..]), (SINGLE, &[0; 3]), (DOUBLE, &[0; 7]), (TEXT, &[2, b'a'])] {
            assert_eq!(Packed::take(kind, 0, &mut &*bytes), None);
        }
        assert_eq!(Packed { kind: STRUCT, scale: 0, bytes: &[1, 0xff] }.unpack(), None);
        assert_eq!(Packed { kind: TEXT, scale: 0, bytes: &[1, 0xff] }.unpack(), None);
    }

    proptest! {
        #[test]
        fn every_float_and_every_int_reads_back_bit_for_bit(bits: u64, decimals in -4_000_000i64..4_000_000) {
            length(&Value::Float(f64::from_bits(bits)));
            length(&Value::Int(bits as i64));
            for power in POWERS {
                prop_assert!(length(&Value::Float(decimals as f64 / power)) <= 4);
            }
        }
    }
}
