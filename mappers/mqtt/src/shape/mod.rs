//! How devices of each shape speak: what their messages mean, and what they are told.
//!
//! Pure: topics and payloads in, meanings and commands out.

mod plain;
mod tasmota;
mod zigbee2mqtt;

use kubebus_sdk::{Error, Point, Value};
use mapper_payload::{Body, Sought, Words};

use crate::board::Source;
use crate::config::{Address, Config, Shape};
use crate::sparkplug::{MAX_NAME, Unit};

/// One device's way to speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Voice {
    Plain(plain::Plain),
    Tasmota(tasmota::Tasmota),
    Zigbee(zigbee2mqtt::Zigbee),
    Sparkplug(Unit),
}

/// What a message of a device means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Meaning {
    Body(Body),
    /// It is there, or not.
    Online(bool),
    /// What it is reached through is there, or not.
    Bridge(bool),
    /// It could not carry out the command of this name.
    Refusal(String),
    Nothing,
}

/// What is published to a device: at QoS 1, never retained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    /// What the device calls it when it refuses.
    pub(crate) name: String,
}

impl Voice {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        Ok(match config.shape {
            Shape::Plain => Self::Plain(plain::Plain::new(config)?),
            Shape::Tasmota => Self::Tasmota(tasmota::Tasmota::new(config)?),
            Shape::Zigbee2mqtt => Self::Zigbee(zigbee2mqtt::Zigbee::new(config)?),
            Shape::Sparkplug => Self::Sparkplug(Unit::new(config)?),
        })
    }

    /// What to subscribe to for the device itself; a plain point's topic comes with the point.
    pub(crate) fn filters(&self) -> Vec<String> {
        match self {
            Self::Plain(plain) => plain.filters(),
            Self::Tasmota(tasmota) => tasmota.filters(),
            Self::Zigbee(zigbee) => zigbee.filters(),
            Self::Sparkplug(unit) => vec![unit.node.filter()],
        }
    }

    /// What a point listens to.
    pub(crate) fn source(&self, point: &Point<Address>) -> Result<Source, Error> {
        let Point { address, .. } = point;
        match self {
            Self::Plain(_) => plain::source(address),
            Self::Tasmota(_) | Self::Zigbee(_) => pointed(address),
            Self::Sparkplug(_) => metric(address).map(|name| Source::Metric(name.to_owned())),
        }
        .map_err(|why| bad(point, why))
    }

    pub(crate) fn understand(&self, topic: &str, payload: &[u8]) -> Meaning {
        match self {
            Self::Plain(plain) => plain.understand(topic, payload),
            Self::Tasmota(tasmota) => tasmota.understand(topic, payload),
            Self::Zigbee(zigbee) => zigbee.understand(topic, payload),
            Self::Sparkplug(_) => Meaning::Nothing, // its node understands it
        }
    }

    /// How a value is written. Sparkplug's commands need the node's birth: see `sparkplug::node`.
    pub(crate) fn command(&self, point: &Point<Address>, value: &Value) -> Result<Command, Error> {
        match self {
            Self::Plain(_) => plain::command(point, value),
            Self::Tasmota(tasmota) => tasmota.command(point, value),
            Self::Zigbee(zigbee) => zigbee.command(point, value),
            Self::Sparkplug(_) => Err(Error::Bug("a Sparkplug command is made by its node".to_owned())),
        }
    }

    /// Questions that change nothing: topic and payload.
    pub(crate) fn questions<'a>(
        &self,
        addresses: impl Iterator<Item = &'a Address>,
    ) -> Vec<(String, String)> {
        match self {
            Self::Plain(_) | Self::Sparkplug(_) => Vec::new(),
            Self::Tasmota(tasmota) => tasmota.questions(),
            Self::Zigbee(zigbee) => zigbee.question(addresses).into_iter().collect(),
        }
    }
}

/// The metric of a Sparkplug point.
pub(crate) fn metric(address: &Address) -> Result<&str, &'static str> {
    let name = address.metric.as_deref().ok_or("metric: is needed by this shape")?;
    if name.is_empty() || name.len() > MAX_NAME { Err("metric: is empty or too long") } else { Ok(name) }
}

fn pointed(address: &Address) -> Result<Source, &'static str> {
    if address.pointer.is_none() {
        return Err("pointer: is needed by this shape, such as \"/POWER\" or \"/state\"");
    }
    Ok(Source::Body(sought(address)))
}

fn sought(address: &Address) -> Sought {
    let Address { pointer, time, .. } = address;
    Sought { pointer: pointer.clone(), time: time.clone(), words: words(address) }
}

fn words(address: &Address) -> Words {
    Words { on: address.on.clone(), off: address.off.clone() }
}

/// The words of the address, and others where it has none.
fn words_or(address: &Address, on: &str, off: &str) -> Words {
    let Words { on: own_on, off: own_off } = words(address);
    Words { on: own_on.or_else(|| Some(on.to_owned())), off: own_off.or_else(|| Some(off.to_owned())) }
}

pub(crate) fn bad(point: &Point<Address>, why: impl ToString) -> Error {
    Error::BadAddress { point: point.name.clone(), why: why.to_string() }
}

/// JSON objects of any depth are bounded by the parser's own limit; a message that is none means nothing.
fn body(payload: &[u8]) -> Meaning {
    Body::parse(payload).map_or(Meaning::Nothing, Meaning::Body)
}
