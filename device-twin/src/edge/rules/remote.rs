//! What other sites say of their twins.

use std::time::Duration;

use bus::twin::TwinTopic;
use bus::{Filter, Mono, Now, Quality, Topic, Value};

use super::Source;
use crate::rule::{From, Reading};
use crate::twin::{DesiredBody, PropertyId, ReportedBody};

/// What another site said last.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Remote {
    pub(super) value: Value,
    pub(super) quality: Quality,
    /// When it came, and how old it was then.
    heard: Mono,
    pub(super) age: Option<Duration>,
}

impl Remote {
    pub(super) fn reading(&self, now: Mono) -> Reading {
        let Self { value, quality, heard, age } = self.clone();
        Reading { value, quality, age: age.map(|age| age + now.since(heard)) }
    }

    /// When it was read, on this node's clock.
    pub(super) fn read_at(&self) -> Option<Mono> {
        let age = u64::try_from(self.age?.as_micros()).unwrap_or(u64::MAX);
        Some(Mono(self.heard.0.saturating_sub(age)))
    }
}

/// `None` if the message is no twin's; an empty one takes back what was said.
pub(super) fn remote(
    topic: &Topic,
    payload: &[u8],
    travelled: Option<Duration>,
    now: Now,
) -> Option<(Source, Option<Remote>)> {
    let heard = now.mono;
    match TwinTopic::parse(topic)? {
        TwinTopic::Reported { device, property } => {
            let body: Option<ReportedBody> = serde_json::from_slice(payload).ok();
            let remote = body.map(|body| Remote {
                value: body.value,
                quality: body.quality,
                heard,
                age: body.age_ms.map(Duration::from_millis).zip(travelled).map(|(age, way)| age + way),
            });
            Some(((From::Reported, PropertyId::new(&device, &property)), remote))
        }
        TwinTopic::Desired { device, property } => {
            let body: Option<DesiredBody> = serde_json::from_slice(payload).ok();
            let remote =
                body.map(|body| Remote { value: body.value, quality: Quality::Good, heard, age: None });
            Some(((From::Desired, PropertyId::new(&device, &property)), remote))
        }
        TwinTopic::Set { .. }
        | TwinTopic::Report { .. }
        | TwinTopic::ReportMany { .. }
        | TwinTopic::Result { .. }
        | TwinTopic::Command { .. }
        | TwinTopic::State { .. } => None,
    }
}

pub(super) fn filter((from, id): &Source) -> Option<Filter> {
    let topic = match from {
        From::Reported => id.reported_topic(),
        From::Desired => id.desired_topic(),
    };
    Filter::new(topic.topic().as_str()).ok()
}
