//! The last word on each topic (MQTT 5.0 §3.3.1.3).

use std::collections::BTreeMap;
use std::sync::Arc;

use bus::{Filter, Mono};

use super::Message;

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
    by_topic: BTreeMap<String, Arc<Message>>,
    bytes: usize,
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
    pub fn store(&mut self, message: &Arc<Message>, now: Mono) -> Result<(), Full> {
        if message.payload.is_empty() {
            self.remove(message.topic.as_str());
            return Ok(());
        }
        if !self.has_room_for(message) {
            self.forget_expired(now);
        }
        if !self.has_room_for(message) {
            return Err(Full);
        }
        self.remove(message.topic.as_str());
        self.bytes += message.size();
        self.by_topic.insert(message.topic.as_str().to_owned(), Arc::clone(message));
        Ok(())
    }

    fn has_room_for(&self, message: &Message) -> bool {
        let old = self.by_topic.get(message.topic.as_str());
        let count = self.by_topic.len() + usize::from(old.is_none());
        let bytes = self.bytes - old.map_or(0, |m| m.size()) + message.size();
        count <= MAX_RETAINED && bytes <= MAX_RETAINED_BYTES
    }

    fn remove(&mut self, topic: &str) {
        if let Some(old) = self.by_topic.remove(topic) {
            self.bytes -= old.size();
        }
    }

    fn forget_expired(&mut self, now: Mono) {
        let bytes = &mut self.bytes;
        self.by_topic.retain(|_, message| {
            let keep = !message.is_expired(now);
            if !keep {
                *bytes -= message.size();
            }
            keep
        });
    }

    /// What a new subscriber of `filter` is to hear first, in the order of topics.
    pub fn matching<'a>(&'a self, filter: &'a Filter, now: Mono) -> impl Iterator<Item = &'a Arc<Message>> {
        let prefix = literal_prefix(filter);
        self.by_topic
            .range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded))
            .take_while(move |(topic, _)| topic.starts_with(prefix))
            .map(|(_, message)| message)
            .filter(move |message| filter.matches(&message.topic) && !message.is_expired(now))
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
    use bus::Topic;
    use bytes::Bytes;

    use super::*;
    use crate::gate::Qos;

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
