//! Answers to who asked: MQTT 5's response topic and correlation data (§4.10).

use bus::{Properties, Qos, Topic};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::announcement::Announcement;
use crate::gate::{Route, route};
use crate::twin::json;

/// Longest correlation data, in bytes: it is stored with the command.
const MAX_CORRELATION: usize = 256;

/// Where the end of a command is told besides `twin/../result`, as the order's message asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTo {
    topic: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation: Option<Box<[u8]>>,
}

/// Why nobody can be answered there.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum InvalidReply {
    #[error("the response topic is none that apps may publish on: name one of your own, or one below mesh/")]
    Topic,
    #[error("correlation data of more than {MAX_CORRELATION} bytes")]
    Correlation,
}

impl ReplyTo {
    /// As a message asks; `None`: it does not.
    pub fn of(properties: &Properties) -> Option<Self> {
        let topic = properties.response_topic.as_deref()?.into();
        Some(Self { topic, correlation: properties.correlation.as_deref().map(Into::into) })
    }

    /// A node says no more on somebody's behalf than he could say himself.
    pub(crate) fn check(&self) -> Result<(), InvalidReply> {
        if self.correlation.as_ref().is_some_and(|data| data.len() > MAX_CORRELATION) {
            return Err(InvalidReply::Correlation);
        }
        let topic = Topic::new(&self.topic).ok();
        topic.filter(may_answer_on).map(drop).ok_or(InvalidReply::Topic)
    }

    /// `None`: what was stored names no topic.
    pub(crate) fn answer(&self, body: &impl Serialize) -> Option<Announcement> {
        Some(Announcement {
            topic: Topic::new(&self.topic).ok()?,
            payload: json(body),
            qos: Qos::ExactlyOnce,
            retain: false,
            expiry: None,
            properties: Properties {
                correlation: self.correlation.as_deref().map(Vec::from),
                ..Properties::default()
            },
            receipt: None,
        })
    }
}

/// What apps tell each other on: neither twins nor mappers nor KubeEdge's topics.
fn may_answer_on(topic: &Topic) -> bool {
    let is_system = topic.as_str().starts_with('$');
    match route(topic, false) {
        Ok(Route::Local) => !is_system,
        Ok(Route::Both) => topic.as_str().starts_with("mesh/"),
        Ok(Route::Node) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(topic: &str, correlation: usize) -> ReplyTo {
        let properties = Properties {
            response_topic: Some(topic.to_owned()),
            correlation: Some(vec![7; correlation]),
            ..Properties::default()
        };
        ReplyTo::of(&properties).unwrap()
    }

    #[test]
    fn nodes_answer_where_apps_may_speak_and_nowhere_else() {
        for topic in ["answers/app-1", "mesh/answers"] {
            assert_eq!(reply(topic, MAX_CORRELATION).check(), Ok(()), "{topic}");
        }
        for topic in [
            "twin/water/valve/reported/position",
            "twin/water/valve/set/position",
            "mapper/virtual/write",
            "mapper/virtual/state",
            "$hw/events/device/d/twin/update",
            "$ke/events/device/default/d/data/update",
            "$SYS/x",
            "a/#",
            "",
        ] {
            assert_eq!(reply(topic, 0).check(), Err(InvalidReply::Topic), "{topic}");
        }
        assert_eq!(reply("answers", MAX_CORRELATION + 1).check(), Err(InvalidReply::Correlation));
        assert_eq!(ReplyTo::of(&Properties::default()), None);
    }
}
