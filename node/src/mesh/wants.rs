//! The filters below `mesh/` that clients of this node's broker ask for. They outlive the process, as sessions do.

use std::collections::BTreeMap;

use bus::{Filter, Topic};
use metadata::{Key, Keyspace};
use minicbor::{Decode, Encode};

use super::{encode, hash, key};

const PREFIX: &str = "/mesh/want/";

/// As many as the bus tells of one edge. Further ones are not told, and counted.
pub(super) const MAX_WANTS: usize = bus::bus::MAX_FILTERS_PER_PEER;

/// A filter that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Want {
    #[n(0)]
    pub(super) filter: Filter,
    /// Another one each time that the filter is newly asked for, after nobody did.
    #[n(1)]
    pub(super) generation: u64,
}

#[derive(Debug)]
struct Held {
    generation: u64,
    /// Somebody asked in this process.
    confirmed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Wants {
    held: BTreeMap<Filter, Held>,
    refused: u64,
}

/// Whether a filter can match below `mesh/`.
pub(super) fn concerns(filter: &Filter) -> bool {
    matches!(filter.as_str().split('/').next(), Some("mesh" | "+" | "#"))
}

fn key_of(filter: &Filter) -> Key {
    key(&format!("{PREFIX}{}", hash(filter.as_str())))
}

impl Wants {
    pub(super) fn load(ks: &Keyspace) -> Self {
        let rows = ks.range(PREFIX).filter_map(|(_, bytes)| minicbor::decode::<Want>(bytes).ok());
        let held = rows.map(|Want { filter, generation }| (filter, Held { generation, confirmed: false }));
        Self { held: held.collect(), refused: 0 }
    }

    /// Filters beyond [`MAX_WANTS`].
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn matches(&self, topic: &Topic) -> bool {
        self.held.keys().any(|filter| filter.matches(topic))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Want> {
        self.held.iter().map(|(filter, held)| Want { filter: filter.clone(), generation: held.generation })
    }

    /// The first subscriber came: the want, if it is a new one.
    pub(super) fn add(&mut self, filter: &Filter, ks: &mut Keyspace) -> Option<Want> {
        if !concerns(filter) {
            return None;
        }
        if let Some(held) = self.held.get_mut(filter) {
            held.confirmed = true;
            return None;
        }
        if self.held.len() >= MAX_WANTS {
            self.refused += 1;
            return None;
        }
        // The revision that this cycle's commit will have.
        let generation = ks.revision().0 + 1;
        self.held.insert(filter.clone(), Held { generation, confirmed: true });
        let want = Want { filter: filter.clone(), generation };
        ks.put(key_of(filter), encode(&want));
        Some(want)
    }

    /// The last subscriber left. True if the filter was held.
    pub(super) fn remove(&mut self, filter: &Filter, ks: &mut Keyspace) -> bool {
        let held = self.held.remove(filter).is_some();
        if held {
            ks.delete(&key_of(filter));
        }
        held
    }

    /// Those that nobody has asked for since the start.
    pub(super) fn unconfirmed(&self) -> Vec<Filter> {
        let unconfirmed = self.held.iter().filter(|(_, held)| !held.confirmed);
        unconfirmed.map(|(filter, _)| filter.clone()).collect()
    }
}
