//! The topics of other sites for which this node's broker keeps a retained message, so that it forgets them when nobody
//! here asks any more: from then on nobody would tell it that they changed.

use std::collections::BTreeMap;

use bus::Topic;
use metadata::Keyspace;

use super::{encode, hash, key};

const PREFIX: &str = "/mesh/kept/";

/// As many as the cloud keeps. Further ones are delivered and not retained here, and counted.
pub(super) const MAX_KEPT: usize = super::retained::MAX_RETAINED;

#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// With the number that the cloud gave the message.
    topics: BTreeMap<Topic, u64>,
}

impl Shelf {
    pub(super) fn load(ks: &Keyspace) -> Self {
        let rows = ks.range(PREFIX).filter_map(|(_, bytes)| minicbor::decode::<(Topic, u64)>(bytes).ok());
        Self { topics: rows.collect() }
    }

    pub(super) fn has(&self, topic: &Topic, number: Option<u64>) -> bool {
        number.is_some() && self.topics.get(topic).copied() == number
    }

    pub(super) fn has_room_for(&self, topic: &Topic) -> bool {
        self.topics.len() < MAX_KEPT || self.topics.contains_key(topic)
    }

    pub(super) fn put(&mut self, topic: &Topic, number: u64, ks: &mut Keyspace) {
        self.topics.insert(topic.clone(), number);
        ks.put(key_of(topic), encode(&(topic, number)));
    }

    pub(super) fn remove(&mut self, topic: &Topic, ks: &mut Keyspace) {
        if self.topics.remove(topic).is_some() {
            ks.delete(&key_of(topic));
        }
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.keys()
    }
}

fn key_of(topic: &Topic) -> metadata::Key {
    key(&format!("{PREFIX}{}", hash(topic.as_str())))
}
