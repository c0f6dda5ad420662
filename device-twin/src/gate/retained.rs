//! The last word on each topic (MQTT 5.0 §3.3.1.3).

use std::collections::BTreeMap;
use std::sync::Arc;

use bus::{Filter, Mono, Topic};
use bytes::Bytes;

use super::message::{Property, Qos};
use super::{Message, SessionId, properties};

/// Most retained messages. A site of 5,000 points has some 20,000 twin topics; beyond the bound a new topic is
/// refused and counted, known topics go on.
pub const MAX_RETAINED: usize = 65_536;

/// Most bytes retained, topics and payloads; 64 MiB is what an edge of 512 MiB can spare. When full as above.
pub const MAX_RETAINED_BYTES: usize = 64 << 20;

/// The bound was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// All retained messages, by topic.
#[derive(Debug, Default)]
pub struct Retained {
    by_topic: BTreeMap<Topic, Kept>,
    bytes: usize,
    /// What expired and made room; at most one store's worth, until it is taken.
    forgotten: Vec<Topic>,
}

/// A retained message: an edge has one for each property, so it takes little room.
#[derive(Debug)]
struct Kept {
    payload: Bytes,
    qos: Qos,
    /// `None` for what the node says itself.
    rest: Option<Box<Rest>>,
}

#[derive(Debug)]
struct Rest {
    expires: Option<Mono>,
    properties: Vec<Property>,
    from: Option<SessionId>,
}

impl Kept {
    fn new(message: &Message) -> Self {
        let Message { topic: _, payload, qos, retain: _, expires, properties, from } = message;
        let is_plain = expires.is_none() && properties.is_empty() && from.is_none();
        let rest = || Box::new(Rest { expires: *expires, properties: properties.clone(), from: *from });
        Self { payload: payload.clone(), qos: *qos, rest: (!is_plain).then(rest) }
    }

    fn message(&self, topic: &Topic) -> Message {
        let rest = self.rest.as_deref();
        Message {
            topic: topic.clone(),
            payload: self.payload.clone(),
            qos: self.qos,
            retain: true,
            expires: rest.and_then(|rest| rest.expires),
            properties: rest.map(|rest| rest.properties.clone()).unwrap_or_default(),
            from: rest.and_then(|rest| rest.from),
        }
    }

    fn is_expired(&self, now: Mono) -> bool {
        self.rest.as_deref().and_then(|rest| rest.expires).is_some_and(|at| at <= now)
    }
}

/// As [`Message::size`].
fn size(topic: &Topic, kept: &Kept) -> usize {
    let properties = kept.rest.as_deref().map_or(0, |rest| properties::size(&rest.properties));
    topic.as_str().len() + kept.payload.len() + properties
}

impl Retained {
    pub fn len(&self) -> usize {
        self.by_topic.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Remembers a message; an empty payload forgets the topic.
    pub fn store(&mut self, message: &Message, now: Mono) -> Result<(), Full> {
        if message.payload.is_empty() {
            self.remove(&message.topic);
            return Ok(());
        }
        if !self.has_room_for(message) {
            self.forget_expired(now);
        }
        if !self.has_room_for(message) {
            return Err(Full);
        }
        self.remove(&message.topic);
        self.bytes += message.size();
        self.by_topic.insert(message.topic.clone(), Kept::new(message));
        Ok(())
    }

    fn has_room_for(&self, message: &Message) -> bool {
        let old = self.by_topic.get(&message.topic);
        let count = self.by_topic.len() + usize::from(old.is_none());
        let bytes = self.bytes - old.map_or(0, |kept| size(&message.topic, kept)) + message.size();
        count <= MAX_RETAINED && bytes <= MAX_RETAINED_BYTES
    }

    fn remove(&mut self, topic: &Topic) {
        if let Some(old) = self.by_topic.remove(topic) {
            self.bytes -= size(topic, &old);
        }
    }

    fn forget_expired(&mut self, now: Mono) {
        let Self { by_topic, bytes, forgotten } = self;
        by_topic.retain(|topic, kept| {
            let keep = !kept.is_expired(now);
            if !keep {
                *bytes -= size(topic, kept);
                forgotten.push(topic.clone());
            }
            keep
        });
    }

    /// Topics whose message expired and was forgotten since this was last asked.
    pub fn take_forgotten(&mut self) -> Vec<Topic> {
        std::mem::take(&mut self.forgotten)
    }

    /// What a new subscriber of `filter` is to hear first, in the order of topics.
    pub fn matching<'a>(&'a self, filter: &'a Filter, now: Mono) -> impl Iterator<Item = Arc<Message>> {
        let prefix = literal_prefix(filter);
        self.by_topic
            .range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded))
            .take_while(move |(topic, _)| topic.as_str().starts_with(prefix))
            .filter(move |(topic, kept)| filter.matches(topic) && !kept.is_expired(now))
            .map(|(topic, kept)| Arc::new(kept.message(topic)))
    }
}

/// What every topic that the filter matches begins with. `a/#` matches `a` too, so the last `/` is not part of it.
fn literal_prefix(filter: &Filter) -> &str {
    let text = filter.as_str();
    let end = text.find(['+', '#']).unwrap_or(text.len());
    text[..end].strip_suffix('/').filter(|_| end < text.len()).unwrap_or(&text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: &'static str, expires: Option<Mono>) -> Arc<Message> {
        Arc::new(Message {
            topic: Topic::new(topic).unwrap(),
            payload: Bytes::from_static(payload.as_bytes()),
            qos: Qos::AtMostOnce,
            retain: true,
            expires,
            properties: vec![],
            from: None,
        })
    }

    fn heard(retained: &Retained, filter: &str, now: Mono) -> Vec<String> {
        let filter = Filter::new(filter).unwrap();
        retained.matching(&filter, now).map(|m| m.topic.to_string()).collect()
    }

    #[test]
    fn a_subscriber_hears_the_last_word_of_each_matching_topic() {
        let mut retained = Retained::default();
        for topic in ["a", "a/b", "a/c", "ab", "z/a"] {
            retained.store(&message(topic, "old", None), Mono::ZERO).unwrap();
            retained.store(&message(topic, "new", None), Mono::ZERO).unwrap();
        }
        assert_eq!(heard(&retained, "a/#", Mono::ZERO), ["a", "a/b", "a/c"]);
        assert_eq!(heard(&retained, "+/a", Mono::ZERO), ["z/a"]);
        assert_eq!(heard(&retained, "a/b", Mono::ZERO), ["a/b"]);
        assert_eq!(heard(&retained, "#", Mono::ZERO).len(), 5);
        assert_eq!(retained.bytes(), "aa/ba/cabz/a".len() + 5 * 3);
    }

    #[test]
    fn an_empty_payload_forgets_and_an_old_message_is_not_heard() {
        let mut retained = Retained::default();
        retained.store(&message("a", "x", None), Mono::ZERO).unwrap();
        retained.store(&message("b", "x", Some(Mono(5))), Mono::ZERO).unwrap();
        retained.store(&message("a", "", None), Mono::ZERO).unwrap();
        assert_eq!(heard(&retained, "#", Mono(4)), ["b"]);
        assert_eq!(heard(&retained, "#", Mono(5)), [""; 0]);
        assert_eq!(retained.len(), 1);
    }

    #[test]
    fn a_full_store_refuses_new_topics_and_serves_known_ones() {
        let mut retained = Retained::default();
        for n in 0..MAX_RETAINED {
            retained.store(&message(&format!("t/{n}"), "x", None), Mono::ZERO).unwrap();
        }
        assert_eq!(retained.store(&message("new", "x", None), Mono::ZERO), Err(Full));
        assert_eq!(retained.store(&message("t/7", "y", Some(Mono(9))), Mono::ZERO), Ok(()));
        assert_eq!(retained.store(&message("new", "x", None), Mono(9)), Ok(()));
    }
}
