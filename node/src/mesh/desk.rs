//! The way of other sites' messages to this node's own broker: in order, and each until the broker has it safe.

use std::collections::VecDeque;

use bus::{Filter, Topic};
use bytes::Bytes;
use device_twin::{Announcement, Expiry, Receipt};
use metadata::Keyspace;

use super::parcel::Parcel;
use super::shelf::Shelf;
use super::wants::{Want, Wants};

/// A message that was handed out, or one that the broker does not need.
#[derive(Debug)]
struct UnderWay<At> {
    receipt: Receipt,
    taken: bool,
    /// Where it stands: everything up to there is consumed with it.
    at: At,
    /// What the broker retains with it: the message of this number, or nothing any more.
    shelve: Option<(Topic, Option<u64>)>,
}

/// The desk of one node. `At` is a place in the order of messages.
#[derive(Debug)]
pub(super) struct Desk<At> {
    pub(super) wants: Wants,
    shelf: Shelf,
    last_receipt: u64,
    under_way: VecDeque<UnderWay<At>>,
    /// Bounded by what is handed in before it is taken.
    said: VecDeque<Announcement>,
    /// Retained messages that the shelf had no room for.
    unkept: u64,
}

impl<At: Copy> Desk<At> {
    pub(super) fn load(ks: &Keyspace) -> Self {
        Self {
            wants: Wants::load(ks),
            shelf: Shelf::load(ks),
            last_receipt: 0,
            under_way: VecDeque::new(),
            said: VecDeque::new(),
            unkept: 0,
        }
    }

    pub(super) fn poll(&mut self) -> Option<Announcement> {
        self.said.pop_front()
    }

    pub(super) fn unkept(&self) -> u64 {
        self.unkept
    }

    /// Handed out and not safe yet.
    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// What was handed out is of no concern any more: its order is not ours.
    pub(super) fn clear(&mut self) {
        self.under_way.clear();
    }

    /// Hands a message out; `None`: it is too old by now.
    pub(super) fn hand(&mut self, parcel: Option<Parcel>, at: At) {
        self.last_receipt += 1;
        let receipt = Receipt(self.last_receipt);
        let wanted = parcel.filter(|parcel| self.is_needed(parcel));
        let Some(Parcel { message, kept, .. }) = wanted else {
            return self.under_way.push_back(UnderWay { receipt, taken: true, at, shelve: None });
        };
        let clears = message.payload.is_empty();
        let retain = message.retain && (clears || self.shelf.has_room_for(&message.topic));
        self.unkept += u64::from(message.retain && !retain);
        let shelve = retain.then(|| (message.topic.clone(), kept.filter(|_| !clears)));
        self.under_way.push_back(UnderWay { receipt, taken: false, at, shelve });
        self.said.push_back(Announcement {
            topic: message.topic,
            payload: message.payload,
            qos: message.qos,
            retain,
            expiry: message.expiry.map(Expiry),
            properties: message.properties,
            receipt: Some(receipt),
        });
    }

    fn is_needed(&self, parcel: &Parcel) -> bool {
        let topic = &parcel.message.topic;
        self.wants.matches(topic) && !(parcel.replay && self.shelf.has(topic, parcel.kept))
    }

    /// The broker has the message of this receipt safe.
    pub(super) fn handle_taken(&mut self, receipt: Receipt) {
        if let Ok(at) = self.under_way.binary_search_by_key(&receipt, |under_way| under_way.receipt) {
            self.under_way[at].taken = true;
        }
    }

    /// Up to where everything is consumed now, if that is news.
    pub(super) fn consumed(&mut self, ks: &mut Keyspace) -> Option<At> {
        let mut consumed = None;
        while let Some(done) = self.under_way.pop_front_if(|first| first.taken) {
            consumed = Some(done.at);
            match done.shelve {
                Some((topic, Some(number))) if self.wants.matches(&topic) => {
                    self.shelf.put(&topic, number, ks);
                }
                Some((topic, Some(_))) => self.forget(topic, ks),
                Some((topic, None)) => self.shelf.remove(&topic, ks),
                None => {}
            }
        }
        consumed
    }

    /// The first subscriber of a filter came: the want, if it is new.
    pub(super) fn handle_wanted(&mut self, filter: &Filter, ks: &mut Keyspace) -> Option<Want> {
        self.wants.add(filter, ks)
    }

    /// The last subscriber of a filter left: the broker forgets what nobody asks for. True if the filter was held.
    pub(super) fn handle_unwanted(&mut self, filter: &Filter, ks: &mut Keyspace) -> bool {
        if !self.wants.remove(filter, ks) {
            return false;
        }
        let left: Vec<Topic> =
            self.shelf.topics().filter(|topic| !self.wants.matches(topic)).cloned().collect();
        left.into_iter().for_each(|topic| self.forget(topic, ks));
        true
    }

    fn forget(&mut self, topic: Topic, ks: &mut Keyspace) {
        self.shelf.remove(&topic, ks);
        let cleared = device_twin::Publish { topic, payload: Bytes::new(), retain: true, expiry: None };
        self.said.push_back(cleared.into());
    }
}
