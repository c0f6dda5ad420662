//! All devices on one connection to a broker: who listens to which topic, what each has said, what is to be asked for.
//!
//! Pure: inputs come by methods, what is to be sent is drained by [`Exchange::poll_request`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kubebus_sdk::{Error, Quality, UnixMillis};
use tokio::sync::Notify;

use crate::board::{Board, Origin};
use crate::shape::{Meaning, Voice};
use crate::sparkplug::{Effect, Node, NodeId, Unit, node, topic};

/// A node is asked for a rebirth no more often than this: it answers with everything that it knows.
const REBIRTH_PAUSE: Duration = Duration::from_secs(5);

/// Filters in one SUBSCRIBE.
const FILTERS_AT_ONCE: usize = 32;

pub(crate) type MemberId = u64;

/// One device on this connection.
struct Member {
    voice: Arc<Voice>,
    board: Board,
    filters: BTreeSet<String>,
    /// Told when there is something to pass on.
    news: Arc<Notify>,
}

/// What the broker thinks of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Grant {
    Asked,
    Granted,
    Refused(String),
}

struct Filter {
    members: BTreeSet<MemberId>,
    /// Asked for and not answered: so many times.
    open: usize,
    refused: Option<String>,
}

#[derive(Default)]
struct Seat {
    node: Node,
    members: BTreeSet<MemberId>,
    rebirth_wanted: bool,
    asked: Option<Instant>,
}

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Subscribe(Vec<String>),
    Unsubscribe(String),
    /// At QoS 0, not retained.
    Publish {
        topic: String,
        payload: Vec<u8>,
    },
}

/// See the module's page.
#[derive(Default)]
pub(crate) struct Exchange {
    members: BTreeMap<MemberId, Member>,
    next_id: MemberId,
    filters: BTreeMap<String, Filter>,
    nodes: BTreeMap<NodeId, Seat>,
    to_subscribe: VecDeque<String>,
    to_unsubscribe: VecDeque<String>,
    to_publish: VecDeque<(String, Vec<u8>)>,
    ended: Option<Error>,
}

impl Exchange {
    /// A device begins to listen.
    pub(crate) fn join(&mut self, voice: Arc<Voice>) -> (MemberId, Arc<Notify>) {
        let (id, news) = (self.next_id, Arc::new(Notify::new()));
        self.next_id += 1;
        let filters = voice.filters();
        let seat = if let Voice::Sparkplug(unit) = &*voice { Some(unit.node.clone()) } else { None };
        let member =
            Member { voice, board: Board::default(), filters: BTreeSet::new(), news: Arc::clone(&news) };
        self.members.insert(id, member);
        filters.into_iter().for_each(|filter| self.want(id, filter));
        if let Some(node) = seat {
            let seat = self.nodes.entry(node).or_default();
            seat.members.insert(id);
        }
        (id, news)
    }

    /// Somebody listens for what was said before: only a rebirth says it again.
    pub(crate) fn want_rebirth(&mut self, node: &NodeId) {
        if let Some(seat) = self.nodes.get_mut(node) {
            seat.rebirth_wanted = true;
        }
    }

    pub(crate) fn leave(&mut self, id: MemberId) {
        let Some(member) = self.members.remove(&id) else { return };
        for name in member.filters {
            let Some(filter) = self.filters.get_mut(&name) else { continue };
            filter.members.remove(&id);
            if filter.members.is_empty() {
                self.filters.remove(&name);
                self.to_subscribe.retain(|waiting| *waiting != name);
                self.to_unsubscribe.push_back(name);
            }
        }
        self.nodes.retain(|_, seat| {
            seat.members.remove(&id);
            !seat.members.is_empty()
        });
    }

    /// Subscribes, also if another member has: the broker then sends again what it has retained.
    pub(crate) fn want(&mut self, id: MemberId, name: String) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if !member.filters.insert(name.clone()) {
            return;
        }
        let fresh = Filter { members: BTreeSet::new(), open: 0, refused: None };
        let filter = self.filters.entry(name.clone()).or_insert(fresh);
        filter.members.insert(id);
        filter.open += 1;
        self.to_unsubscribe.retain(|waiting| *waiting != name);
        self.to_subscribe.push_back(name);
    }

    /// Subscribes once more, for what the broker has retained: somebody new listens.
    pub(crate) fn renew(&mut self, name: &str) {
        let Some(filter) = self.filters.get_mut(name) else { return };
        if !self.to_subscribe.iter().any(|waiting| waiting == name) {
            filter.open += 1;
            self.to_subscribe.push_back(name.to_owned());
        }
    }

    /// The broker's answer.
    pub(crate) fn handle_granted(&mut self, name: &str, refused: Option<String>) {
        let Some(filter) = self.filters.get_mut(name) else { return };
        filter.open = filter.open.saturating_sub(1);
        filter.refused = refused;
    }

    pub(crate) fn grant(&self, name: &str) -> Grant {
        match self.filters.get(name) {
            None => Grant::Asked,
            Some(filter) if filter.open > 0 => Grant::Asked,
            Some(Filter { refused: Some(why), .. }) => Grant::Refused(why.clone()),
            Some(_) => Grant::Granted,
        }
    }

    /// Everything that this device has subscribed to for itself.
    pub(crate) fn filters_of(&self, id: MemberId) -> Vec<String> {
        self.members.get(&id).map(|member| member.filters.iter().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn handle_message(&mut self, topic: &str, payload: &[u8], retained: bool, now: UnixMillis) {
        let origin = if retained { Origin::Retained } else { Origin::Live };
        for id in self.listeners(topic) {
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.hear(topic, payload, origin, now);
        }
        if let Some((node, device, kind)) = topic::parse(topic)
            && !retained // births and data are never retained (§6.4): what is, is from another life
            && let Some(seat) = self.nodes.get_mut(&node)
        {
            let effects = seat.node.handle(device, kind, payload);
            self.carry_out(&node, effects, now);
        }
    }

    /// Those with this very topic, and those with all topics beside it.
    fn listeners(&self, topic: &str) -> BTreeSet<MemberId> {
        let beside = topic.rsplit_once('/').map(|(parent, _)| format!("{parent}/+"));
        let filters = [Some(topic.to_owned()), beside];
        let found = filters.iter().flatten().filter_map(|filter| self.filters.get(filter));
        found.flat_map(|filter| filter.members.iter().copied()).collect()
    }

    fn carry_out(&mut self, node: &NodeId, effects: Vec<Effect>, now: UnixMillis) {
        let Some(seat) = self.nodes.get_mut(node) else { return };
        if effects.contains(&Effect::Online(None)) {
            seat.rebirth_wanted = false;
        }
        seat.rebirth_wanted |= effects.contains(&Effect::Rebirth);
        for id in &seat.members {
            let Some(member) = self.members.get_mut(id) else { continue };
            let Voice::Sparkplug(unit) = &*member.voice else { continue };
            effects.iter().for_each(|effect| apply(&mut member.board, unit, effect, now));
            member.news.notify_one();
        }
    }

    pub(crate) fn board(&mut self, id: MemberId) -> Result<&mut Board, Error> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let member =
            self.members.get_mut(&id).ok_or_else(|| Error::Bug("a session that has left".to_owned()))?;
        Ok(&mut member.board)
    }

    pub(crate) fn node(&self, id: &NodeId) -> Option<&Node> {
        self.nodes.get(id).map(|seat| &seat.node)
    }

    /// A question that changes nothing in the device.
    pub(crate) fn ask(&mut self, topic: String, payload: Vec<u8>) {
        const WAITING: usize = 1024;
        if self.to_publish.len() < WAITING {
            self.to_publish.push_back((topic, payload));
        }
    }

    /// What is to be sent next.
    pub(crate) fn poll_request(&mut self, now: Instant, wall: UnixMillis) -> Option<Request> {
        if let Some(filter) = self.to_unsubscribe.pop_front() {
            return Some(Request::Unsubscribe(filter));
        }
        if !self.to_subscribe.is_empty() {
            let some = self.to_subscribe.len().min(FILTERS_AT_ONCE);
            return Some(Request::Subscribe(self.to_subscribe.drain(..some).collect()));
        }
        let due =
            self.nodes.iter_mut().find(|(_, seat)| seat.rebirth_due().is_some_and(|due| due <= Some(now)));
        if let Some((node, seat)) = due {
            (seat.rebirth_wanted, seat.asked) = (false, Some(now));
            return Some(Request::Publish { topic: node.command_topic(), payload: node::rebirth(wall) });
        }
        self.to_publish.pop_front().map(|(topic, payload)| Request::Publish { topic, payload })
    }

    /// When there is something to send without anything happening before.
    pub(crate) fn next_request(&self) -> Option<Instant> {
        self.nodes.values().filter_map(|seat| seat.rebirth_due().flatten()).min()
    }

    /// The connection is gone, and with it what was sure. Said once; the first reason counts.
    pub(crate) fn end(&mut self, why: Error) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(why);
        for member in self.members.values_mut() {
            member.board.worsen(Quality::Bad);
            member.news.notify_one();
        }
    }

    pub(crate) fn ended(&self) -> Option<&Error> {
        self.ended.as_ref()
    }

    /// What one device's task passes on.
    pub(crate) fn take_changed(&mut self, id: MemberId) -> Vec<(String, Result<crate::board::Known, Error>)> {
        self.members.get_mut(&id).map(|member| member.board.take_changed()).unwrap_or_default()
    }
}

impl Member {
    fn hear(&mut self, topic: &str, payload: &[u8], origin: Origin, now: UnixMillis) {
        match self.voice.understand(topic, payload) {
            Meaning::Body(body) => {
                // Its bridge speaks for it, and may have called it gone long ago.
                if origin == Origin::Live && matches!(*self.voice, Voice::Zigbee(_)) {
                    self.board.go_online();
                }
                self.board.hear(topic, &body, origin, now);
            }
            Meaning::Online(true) => self.board.go_online(),
            Meaning::Online(false) => self.board.go_offline(),
            Meaning::Bridge(is_online) => self.board.bridge(is_online),
            Meaning::Refusal(command) if origin == Origin::Live => self.board.refuse(&command),
            Meaning::Refusal(_) | Meaning::Nothing => return,
        }
        self.news.notify_one();
    }
}

impl Seat {
    /// `None`: nothing is wanted; `Some(None)`: at once.
    fn rebirth_due(&self) -> Option<Option<Instant>> {
        self.rebirth_wanted.then(|| self.asked.map(|asked| asked + REBIRTH_PAUSE))
    }
}

fn apply(board: &mut Board, unit: &Unit, effect: &Effect, now: UnixMillis) {
    match effect {
        Effect::Said { device, metric, said } if *device == unit.device => {
            board.hear_metric(metric, said, now)
        }
        Effect::Online(device) if *device == unit.device => board.go_online(),
        Effect::Offline(device) if *device == unit.device => board.go_offline(),
        Effect::AllOffline => board.go_offline(),
        Effect::Missed => board.worsen(Quality::Uncertain),
        Effect::Said { .. } | Effect::Online(_) | Effect::Offline(_) | Effect::Rebirth => {}
    }
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
