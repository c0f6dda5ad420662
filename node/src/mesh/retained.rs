//! Retained messages below `mesh/`, as the cloud keeps them for whoever asks later.

use std::collections::BTreeMap;

use bus::{Filter, Topic, UnixMillis};
use metadata::Keyspace;

use super::parcel::Parcel;
use super::{hash, key};

const PREFIX: &str = "/c/mesh/retained/";

/// Topics that keep a message. One more is delivered and not kept, which is counted.
pub(super) const MAX_RETAINED: usize = 16_384;
/// All of them together, as they are stored; what is more is delivered and not kept.
pub(super) const MAX_RETAINED_BYTES: usize = 32 << 20;

#[derive(Debug, Default)]
pub(super) struct Retained {
    /// With the size of the row.
    topics: BTreeMap<Topic, usize>,
    bytes: usize,
    refused: u64,
}

impl Retained {
    pub(super) fn load(ks: &Keyspace) -> Self {
        let mut all = Self::default();
        for (_, bytes) in ks.range(PREFIX) {
            if let Some(Parcel { message, .. }) = Parcel::decode(bytes) {
                all.bytes += bytes.len();
                all.topics.insert(message.topic, bytes.len());
            }
        }
        all
    }

    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Keeps a retained message instead of what was kept of its topic; one without payload ends that.
    pub(super) fn keep(&mut self, parcel: &Parcel, ks: &mut Keyspace) {
        let topic = &parcel.message.topic;
        self.remove(topic, ks);
        if parcel.message.payload.is_empty() {
            return;
        }
        let value = parcel.encode();
        if self.topics.len() >= MAX_RETAINED || self.bytes + value.len() > MAX_RETAINED_BYTES {
            self.refused += 1;
            return;
        }
        self.bytes += value.len();
        self.topics.insert(topic.clone(), value.len());
        ks.put(key_of(topic), value);
    }

    fn remove(&mut self, topic: &Topic, ks: &mut Keyspace) {
        if let Some(len) = self.topics.remove(topic) {
            self.bytes -= len;
            ks.delete(&key_of(topic));
        }
    }

    /// What is kept for `filter` and still alive, as it is now.
    pub(super) fn matching(&mut self, filter: &Filter, ks: &mut Keyspace, wall: UnixMillis) -> Vec<Parcel> {
        let topics: Vec<Topic> = self.topics.keys().filter(|topic| filter.matches(topic)).cloned().collect();
        let mut found = Vec::new();
        for topic in topics {
            let parcel = ks.get(key_of(&topic).as_str()).and_then(|bytes| Parcel::decode(bytes));
            match parcel.and_then(|parcel| parcel.aged(wall, wall)) {
                Some(parcel) => found.push(parcel),
                None => self.remove(&topic, ks),
            }
        }
        found
    }
}

fn key_of(topic: &Topic) -> metadata::Key {
    key(&format!("{PREFIX}{}", hash(topic.as_str())))
}
