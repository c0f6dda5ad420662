//! Who subscribed to what. Equal filters of many clients are one filter to the router.

use std::collections::{BTreeMap, BTreeSet};

use bus::{Filter, Topic};

use super::{ConnId, Qos};

/// A filter's number, for the router; never zero (MQTT 5.0 §3.8.2.1.2), never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilterId(pub usize);

/// Looking through so many filters takes less than a round trip of the router's. An edge that catches up publishes
/// thousands of values that mostly nobody subscribed to, and what is live would wait behind them.
pub(super) const FEW: usize = 32;

/// How one client subscribed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub qos: Qos,
    /// Own messages are not wanted back.
    pub no_local: bool,
    /// The retain flag is to be passed on as the publisher set it.
    pub as_published: bool,
    pub identifier: Option<u32>,
    /// It hears messages with a higher number than this.
    pub after: u64,
}

#[derive(Debug)]
struct Entry {
    filter: Filter,
    subscribers: BTreeMap<ConnId, Subscription>,
}

/// What a subscribe changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribed {
    pub id: FilterId,
    pub first_of_filter: bool,
    pub replaced: bool,
}

/// The table of subscriptions.
#[derive(Debug, Default)]
pub struct Subscriptions {
    ids: BTreeMap<Filter, FilterId>,
    entries: BTreeMap<FilterId, Entry>,
    by_client: BTreeMap<ConnId, BTreeSet<FilterId>>,
    last_id: usize,
}

impl Subscriptions {
    /// False if no filter matches. Among more than a few filters it is not looked for.
    pub fn may_want(&self, topic: &Topic) -> bool {
        self.entries.len() > FEW || self.entries.values().any(|entry| entry.filter.matches(topic))
    }

    /// Different filters in use.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    pub fn subscribe(&mut self, client: ConnId, filter: Filter, how: Subscription) -> Subscribed {
        let known = self.ids.get(&filter).copied();
        let id = known.unwrap_or_else(|| self.enter(filter));
        self.by_client.entry(client).or_default().insert(id);
        let replaced =
            self.entries.get_mut(&id).and_then(|entry| entry.subscribers.insert(client, how)).is_some();
        Subscribed { id, first_of_filter: known.is_none(), replaced }
    }

    fn enter(&mut self, filter: Filter) -> FilterId {
        self.last_id += 1;
        let id = FilterId(self.last_id);
        self.ids.insert(filter.clone(), id);
        self.entries.insert(id, Entry { filter, subscribers: BTreeMap::new() });
        id
    }

    /// The filter, if this was its last subscriber.
    pub fn unsubscribe(&mut self, client: ConnId, filter: &Filter) -> Option<(FilterId, Filter)> {
        let id = *self.ids.get(filter)?;
        self.by_client.get_mut(&client)?.remove(&id);
        self.leave(client, id)
    }

    /// The filters whose last subscriber this was.
    pub fn remove_client(&mut self, client: ConnId) -> Vec<(FilterId, Filter)> {
        let ids = self.by_client.remove(&client).unwrap_or_default();
        ids.into_iter().filter_map(|id| self.leave(client, id)).collect()
    }

    fn leave(&mut self, client: ConnId, id: FilterId) -> Option<(FilterId, Filter)> {
        let entry = self.entries.get_mut(&id)?;
        entry.subscribers.remove(&client);
        if !entry.subscribers.is_empty() {
            return None;
        }
        let filter = self.entries.remove(&id)?.filter;
        self.ids.remove(&filter);
        Some((id, filter))
    }

    pub fn subscribers(&self, id: FilterId) -> impl Iterator<Item = (ConnId, &Subscription)> {
        self.entries.get(&id).into_iter().flat_map(|e| &e.subscribers).map(|(client, how)| (*client, how))
    }

    /// All filters that match, found one by one: for what the router cannot carry.
    pub fn matching(&self, topic: &Topic) -> Vec<FilterId> {
        self.filters().filter(|(_, filter)| filter.matches(topic)).map(|(id, _)| id).collect()
    }

    pub fn filters(&self) -> impl Iterator<Item = (FilterId, &Filter)> {
        self.entries.iter().map(|(id, entry)| (*id, &entry.filter))
    }
}
