//! Any device: each property names its own topics.

use kubebus_sdk::{Error, Point, Value};

use super::{Command, Meaning, bad, body, sought, words};
use crate::board::Source;
use crate::config::{self, Address, Availability, Config};

/// See the module's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plain(Option<Availability>);

impl Plain {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        if let Some(Availability { topic, .. }) = &config.availability {
            config::topic("availability.topic", topic)?;
        }
        Ok(Self(config.availability.clone()))
    }

    pub(super) fn filters(&self) -> Vec<String> {
        self.0.iter().map(|availability| availability.topic.clone()).collect()
    }

    pub(super) fn understand(&self, topic: &str, payload: &[u8]) -> Meaning {
        if let Some(availability) = &self.0
            && availability.topic == topic
        {
            let is = |word: &str| payload.trim_ascii() == word.as_bytes();
            if is(&availability.online) {
                return Meaning::Online(true);
            }
            if is(&availability.offline) {
                return Meaning::Online(false);
            }
        }
        body(payload)
    }
}

pub(super) fn source(address: &Address) -> Result<Source, &'static str> {
    let topic = address.topic.as_ref().ok_or("topic: is needed by this shape")?;
    if !config::is_topic(topic) {
        return Err("topic: must be a topic without wildcards");
    }
    Ok(Source::Topic(topic.clone(), sought(address)))
}

pub(super) fn command(point: &Point<Address>, value: &Value) -> Result<Command, Error> {
    let Some(write) = &point.address.write else {
        return Err(bad(point, "write: says where a write goes, such as {\"topic\": \"boiler/set\"}"));
    };
    if !config::is_topic(&write.topic) {
        return Err(bad(point, "write.topic: must be a topic without wildcards"));
    }
    let words = words(&point.address);
    let payload = match &write.payload {
        Some(template) => template.render(value, &words),
        None => mapper_payload::text_of(value, &words),
    };
    Ok(Command { topic: write.topic.clone(), payload: payload.into_bytes(), name: point.name.clone() })
}
