//! Numbers and switches as people and KubeEdge write them: `502` or `"502"`, `true` or `"true"`.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::str::FromStr;

use kubebus_sdk::schemars::{Schema, SchemaGenerator, json_schema};
use serde::Deserializer;
use serde::de::{Error, Visitor};

/// A whole number, if it is there.
pub(crate) fn number<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64> + FromStr,
{
    from.deserialize_any(Number(PhantomData)).map(Some)
}

pub(crate) fn number_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["integer", "string"], "pattern": "^[0-9]+$" })
}

/// A switch, if it is there.
pub(crate) fn switch<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    from.deserialize_any(Switch).map(Some)
}

pub(crate) fn switch_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": [true, false, "true", "false"] })
}

struct Number<T>(PhantomData<T>);

impl<T: TryFrom<i64> + FromStr> Visitor<'_> for Number<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<T, E> {
        T::try_from(n).map_err(|_| out_of_range(n))
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<T, E> {
        i64::try_from(n).ok().and_then(|n| T::try_from(n).ok()).ok_or_else(|| out_of_range(n))
    }

    fn visit_f64<E: Error>(self, n: f64) -> Result<T, E> {
        if n.fract() != 0.0 || n.abs() > f64::from(u32::MAX) {
            return Err(E::custom(format!("{n} is not a whole number")));
        }
        self.visit_i64(n as i64)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.trim().parse().map_err(|_| E::custom(format!("'{}' is not a number for this", shortened(text))))
    }
}

struct Switch;

impl Visitor<'_> for Switch {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<bool, E> {
        Ok(on)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        text.parse().map_err(|_| E::custom(format!("'{}' is neither true nor false", shortened(text))))
    }
}

fn out_of_range<E: Error>(n: impl Display) -> E {
    E::custom(format!("{n} is out of range"))
}

/// Of a text that may be long, what a message shows.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

/// For a text of the device's or a person's: never longer than a line.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", shortened(text))
}
