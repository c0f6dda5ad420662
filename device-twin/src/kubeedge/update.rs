//! What KubeEdge's messages mean for properties that a model describes, and how those are shown in them.

use std::collections::BTreeMap;

use bus::twin::ReportBody;
use bus::{UnixMillis, Value, ValueType};
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::wire::{MsgTwin, TwinMap, TwinUpdate, TwinValue, TypeMetadata};
use crate::model::{DeviceInfo, InvalidValue, Property};
use crate::twin::{SetBody, brief, explain};

/// Longest value in bytes. KubeEdge takes 512 of a few characters; this is any text, and a quarter of the largest packet
/// that the broker takes, as an answer may show a value twice. What is longer is refused.
pub const MAX_VALUE: usize = 64 * 1024;

/// Why a message has no effect. Each begins with KubeEdge's own words where it has some.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("Unmarshal update request body failed, please check the request ({0})")]
    Update(String),
    #[error("Unmarshal twin info failed , err: {0}")]
    Get(String),
    #[error("Unmarshal get membership info failed , err: {0}")]
    Membership(String),
    #[error("Update twin error, key:twin does not exist")]
    NoTwin,
    #[error("update rejected due to the device is not existed")]
    NoDevice,
    #[error("Device {0} not found while getting twin")]
    NotFound(String),
    #[error("'{0}' is no property of the device; add it to the DeviceModel and apply that")]
    Unknown(String),
    #[error(
        "'{0}' is a property of the DeviceModel and is not deleted here; take it out there and apply that"
    )]
    Delete(String),
    #[error("'{0}' has an actual without a value")]
    NoValue(String),
    #[error("a value of '{0}' is longer than {MAX_VALUE} bytes")]
    TooLong(String),
    #[error("{kubeedge} ({property}: {detail})")]
    Type { kubeedge: &'static str, property: String, detail: String },
    #[error("{property}: {detail}")]
    Value { property: String, detail: String },
    /// The arbiter, or the state of the device, keeps a wish from having an effect.
    #[error("{property}: {detail}")]
    Held { property: String, detail: String },
    #[error("'{0}' is no state; there is online, offline, ok, unknown, unhealthy, error and disconnected")]
    State(String),
    #[error(
        "KubeEdge's topics are served at edges; in the cloud publish on twin/<namespace>/<device>/set/<property>"
    )]
    NotHere,
}

impl Refused {
    pub fn code(&self) -> u16 {
        match self {
            Self::NoDevice | Self::NotFound(_) | Self::NotHere => 404,
            Self::Held { .. } => 409,
            Self::Update(_)
            | Self::Get(_)
            | Self::Membership(_)
            | Self::NoTwin
            | Self::Unknown(_)
            | Self::Delete(_)
            | Self::NoValue(_)
            | Self::TooLong(_)
            | Self::Type { .. }
            | Self::Value { .. }
            | Self::State(_) => 400,
        }
    }

    fn value(property: &str, why: &InvalidValue, value_type: ValueType) -> Self {
        let property = property.to_owned();
        match (why, words_of(value_type)) {
            (InvalidValue::Text(..) | InvalidValue::Type(_), Some(kubeedge)) => {
                Self::Type { kubeedge, property, detail: explain(why) }
            }
            _ => Self::Value { property, detail: explain(why) },
        }
    }
}

/// KubeEdge's words for a value of another type.
fn words_of(value_type: ValueType) -> Option<&'static str> {
    match value_type {
        ValueType::Int => Some("the value is not int or integer"),
        ValueType::Float => Some("the value is not float"),
        ValueType::Bool => Some("the bool value must be true or false"),
        ValueType::String | ValueType::Bytes | ValueType::Struct => None,
    }
}

/// KubeEdge's name of a type. It has none for bytes and structs, which travel as text there too.
fn type_name(value_type: ValueType) -> &'static str {
    match value_type {
        ValueType::Bool => "boolean",
        ValueType::Int => "int",
        ValueType::Float => "float",
        ValueType::String | ValueType::Bytes | ValueType::Struct => "string",
    }
}

/// Reads a message of a client: an object, as an array would count as one whose members are in order.
pub fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    if payload.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err("expected a JSON object".to_owned());
    }
    serde_json::from_slice(payload).map_err(|why| brief(&why.to_string()))
}

/// A value as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    pub text: String,
    /// As the device counts; checked against its property.
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    Set(Given),
    /// `expected` with an empty value: what was wished here is taken back.
    LetGo,
}

/// What a message says of one property, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub property: String,
    pub actual: Option<Given>,
    pub wish: Option<Wish>,
}

/// Checks a whole message: one property that is wrong refuses all of it. `echoes` says of a property whether an
/// `expected` beside an `actual` is what a mapper was told, and no wish.
pub fn check(
    update: TwinUpdate,
    device: &DeviceInfo,
    echoes: impl Fn(&str) -> bool,
) -> Result<Vec<Change>, Refused> {
    let twin = update.twin.ok_or(Refused::NoTwin)?;
    let changes = twin.into_iter().map(|(name, said)| {
        let property = device.properties.get(name.as_str()).ok_or_else(|| Refused::Unknown(brief(&name)))?;
        let said = said.ok_or_else(|| Refused::Delete(name.clone()))?;
        let echo = said.actual.is_some() && echoes(&name);
        let actual = said.actual.map(|actual| read_actual(&name, actual, property)).transpose()?;
        let wish = said.expected.filter(|_| !echo).map(|expected| read_wish(&name, expected, property));
        Ok(Change { property: name, actual, wish: wish.transpose()? })
    });
    let said = changes.collect::<Result<Vec<_>, _>>()?;
    Ok(said.into_iter().filter(|change| change.actual.is_some() || change.wish.is_some()).collect())
}

fn read_actual(name: &str, actual: TwinValue, property: &Property) -> Result<Given, Refused> {
    let text = actual.value.ok_or_else(|| Refused::NoValue(name.to_owned()))?;
    let value = parse(name, &text, property)?;
    let report = ReportBody::Bare(value.clone());
    let checked = property.check_report(report, UnixMillis::default());
    checked.map_err(|why| Refused::value(name, &why, property.value_type))?;
    Ok(Given { text, value })
}

fn read_wish(name: &str, expected: TwinValue, property: &Property) -> Result<Wish, Refused> {
    let text = expected.value.unwrap_or_default();
    if text.is_empty() {
        return Ok(Wish::LetGo);
    }
    let value = parse(name, &text, property)?;
    let wish = SetBody::Bare(property.from_device(value.clone()));
    wish.check(property).map_err(|why| Refused::value(name, &why, property.value_type))?;
    Ok(Wish::Set(Given { text, value }))
}

fn parse(name: &str, text: &str, property: &Property) -> Result<Value, Refused> {
    if text.len() > MAX_VALUE {
        return Err(Refused::TooLong(name.to_owned()));
    }
    property.parse(text).map_err(|why| Refused::value(name, &why, property.value_type))
}

/// A value of a property with when it came about, as far as that is known; in the property's unit.
pub type Dated = (Value, Option<UnixMillis>);

/// What is known of a property.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Shown {
    pub expected: Option<Dated>,
    pub actual: Option<Dated>,
    /// A write is under way, whatever the device said last.
    pub is_asked: bool,
}

impl Shown {
    pub fn is_empty(&self) -> bool {
        self.expected.is_none() && self.actual.is_none()
    }

    /// A deadband makes two values one, as everywhere.
    pub fn differs(&self, property: &Property) -> bool {
        match (&self.expected, &self.actual) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some((expected, _)), Some((actual, _))) => {
                self.is_asked || !property.is_unchanged(actual, expected)
            }
        }
    }
}

/// A property without values. It is always `optional`, as every property of KubeEdge's is that nobody made otherwise.
fn plain(property: &Property) -> MsgTwin {
    let type_name = Some(type_name(property.value_type).to_owned());
    MsgTwin { optional: Some(true), metadata: Some(TypeMetadata { type_name }), ..MsgTwin::default() }
}

/// A property as all messages but a `result` have it.
pub fn show(property: &Property, shown: &Shown) -> MsgTwin {
    let value = |(value, at): &Dated| TwinValue::new(as_text(property, value), *at);
    MsgTwin {
        expected: shown.expected.as_ref().map(value),
        actual: shown.actual.as_ref().map(value),
        ..plain(property)
    }
}

/// What was taken of one property, in the words in which it came.
pub fn taken(property: &Property, change: &Change, at: UnixMillis) -> MsgTwin {
    let value = |text: &str| TwinValue::new(text.to_owned(), Some(at));
    let expected = change.wish.as_ref().map(|wish| match wish {
        Wish::Set(given) => value(&given.text),
        Wish::LetGo => value(""),
    });
    let actual = change.actual.as_ref().map(|given| value(&given.text));
    MsgTwin { expected, actual, ..plain(property) }
}

/// All properties of a device, for `twin/get`.
pub fn all<'a>(twins: impl Iterator<Item = (&'a str, &'a Property, Shown)>) -> TwinMap {
    twins.map(|(name, property, shown)| (name.to_owned(), Some(show(property, &shown)))).collect()
}

/// What is expected and not there: each property of which something is expected, and of those that are elsewhere what.
/// `None` if all are where they shall be.
pub fn delta<'a>(
    twins: impl Iterator<Item = (&'a str, &'a Property, Shown)>,
) -> Option<(BTreeMap<String, MsgTwin>, BTreeMap<String, String>)> {
    let (mut expected, mut differing) = (BTreeMap::new(), BTreeMap::new());
    for (name, property, shown) in twins {
        let Some((value, _)) = &shown.expected else { continue };
        if shown.differs(property) {
            differing.insert(name.to_owned(), as_text(property, value));
        }
        expected.insert(name.to_owned(), show(property, &shown));
    }
    (!differing.is_empty()).then_some((expected, differing))
}

/// A value as the device counts and KubeEdge writes it.
fn as_text(property: &Property, value: &Value) -> String {
    match property.to_device(value.clone()) {
        Value::Text(text) => text,
        value @ Value::Struct(_) => serde_json::to_string(&value).unwrap_or_default(),
        value @ (Value::Bool(_) | Value::Int(_) | Value::Float(_)) => value.to_string(),
    }
}

/// What a mapper says of its device in `state/update`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    There,
    Away,
    Unwell,
}

impl Condition {
    /// Whatever the case of its letters. KubeEdge drops `error` and `disconnected` without a word, though its own mappers
    /// say them.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "online" | "ok" => Some(Self::There),
            "offline" | "disconnected" => Some(Self::Away),
            "unknown" | "unhealthy" | "error" => Some(Self::Unwell),
            _ => None,
        }
    }
}

/// RFC 3339 in UTC, to the second.
pub fn rfc3339(at: UnixMillis) -> String {
    /// The last second that has four digits for its year.
    const LAST: u64 = 253_402_300_799;
    let second = std::time::Duration::from_secs((at.0 / 1000).min(LAST));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + second).to_string()
}
