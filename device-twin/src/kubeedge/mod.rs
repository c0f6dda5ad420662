//! KubeEdge's MQTT topics, so that what was written for its edges runs unchanged: `$hw/events/device/..` and
//! `$hw/events/node/<node>/membership/..` as KubeEdge 1.23 has them, on the twins that are here anyway.
//!
//! [`topic`] has the topics in both directions, [`wire`] the JSON, [`update`] what a message means for a property, and
//! [`listeners`] who wants to hear what. `edge/kubeedge.rs` puts them together; no state of a twin is kept here.
//!
//! | theirs | ours |
//! |---|---|
//! | `actual` | a report of the property |
//! | `expected` of a message | a wish, exactly as `twin/../set/<property>`: the arbiter decides |
//! | `expected` of an answer | what the node wants of the device now: the strongest slot, or what is asked for |
//! | `delta` | where the two differ, and what a write is under way for |
//! | a client that subscribes to one device's `delta` by its name | the device's mapper |
//!
//! So a wish that is too old, or that an interlock keeps from having an effect, is in no `delta`, and nothing a client
//! can read makes it move something by a value that is over.

pub mod listeners;
pub mod topic;
pub mod update;
pub mod wire;

pub use listeners::Listeners;
pub use topic::{Address, HwTopic, NodeVerb, Verb};
pub use update::Refused;

use bus::{Now, Topic};

use crate::twin::{Publish, json};

/// An answer or a message on a topic of KubeEdge's; none of them is retained.
pub(crate) fn say(topic: &HwTopic, body: &impl serde::Serialize) -> Publish {
    Publish { topic: topic.topic(), payload: json(body), retain: false, expiry: None }
}

/// What a client is told that asked for something on `topic` and does not get it; with its own `event_id`, as far as
/// that can be read. `None` if KubeEdge has no place for an answer.
pub(crate) fn refusal(topic: &HwTopic, payload: &[u8], why: &Refused, now: Now) -> Option<Publish> {
    let body = wire::ErrorResult {
        event_id: wire::event_id_of(payload),
        timestamp: now.wall,
        code: why.code(),
        reason: crate::twin::brief(&why.to_string()),
    };
    Some(say(&topic.answer()?, &body))
}

/// Whether a filter or topic is one of KubeEdge's, which the node serves.
pub fn is_served(text: &str) -> bool {
    text.starts_with("$hw/")
}

/// Whether a topic is the one on which KubeEdge's mappers tell apps their readings past the node, which only relays it:
/// `$ke/events/device/<namespace>/<name>/data/update`, or without the namespace.
pub fn is_data_update(topic: &Topic) -> bool {
    let rest = topic.as_str().strip_prefix("$ke/events/device/");
    let address = rest.and_then(|rest| rest.strip_suffix("/data/update"));
    address.is_some_and(|address| Address::parse(address).is_some())
}

/// A name for a message that answers none: of the form of a random UUID (RFC 9562 §5.4), drawn from the process's seed.
pub(crate) fn fresh_event_id(seed: u64, number: u64) -> String {
    use sha2::{Digest, Sha256};
    let mut digest = Sha256::new();
    digest.update(seed.to_be_bytes());
    digest.update(number.to_be_bytes());
    let mut id: [u8; 16] = [0; 16];
    id.copy_from_slice(&digest.finalize()[..16]);
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    let hex = u128::from_be_bytes(id);
    let text = format!("{hex:032x}");
    let [a, b, c, d, e] = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
    format!("{a}-{b}-{c}-{d}-{e}")
}

#[cfg(test)]
mod tests;
