//! A broker that the site has already: what this node says there, and what it hears. Pure; `io::external` drives it.
//!
//! There are two sessions, since what waited in that broker while this node was away is of an age that nobody knows:
//!
//! | side | session | carries | what comes in the node's absence |
//! |---|---|---|---|
//! | twins | clean | `twin/..`, `mapper/..`, `$hw/..` | is not heard: no wish and no reading of unknown age is acted on |
//! | mesh | kept | `mesh/..` | waits in the broker, as its bounds allow |
//!
//! Retained topics of the twins' side are remembered here, and said anew to each connection: the broker may have been
//! started without what it knew. Everything else on that side is for those who are there now.
//!
//! Nothing is said at QoS 2, and `mesh/..` over a broken connection at least once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bus::twin::MapperTopic;
use bus::{Filter, Mono, Name, Topic};

use crate::Receipt;
use crate::gate::{Message, Qos, Refusal, route};
use crate::kubeedge::{HwTopic, Verb};

/// Messages handed to a connection and not yet on the wire.
pub const WINDOW: usize = 64;

/// Messages of a side for those who are there now, in bytes with [`OVERHEAD`] each; above it the newest is dropped and
/// counted.
const MAX_PASSING: usize = 4 << 20;

/// Mappers and devices of KubeEdge's that are heard of on one connection: what an edge has. More are not looked after.
const MAX_SPEAKERS: usize = 1024;

/// What even an empty message takes of [`MAX_PASSING`].
const OVERHEAD: usize = 256;

/// One of the two sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Twins,
    Mesh,
}

impl Side {
    pub const ALL: [Self; 2] = [Self::Twins, Self::Mesh];

    /// Whose topic it is.
    fn of(topic: &Topic) -> Self {
        if topic.as_str().starts_with("mesh/") { Self::Mesh } else { Self::Twins }
    }

    fn index(self) -> usize {
        match self {
            Self::Twins => 0,
            Self::Mesh => 1,
        }
    }
}

/// What waits to be said on the twins' side.
#[derive(Debug)]
enum Waiting {
    /// The newest of a retained topic.
    Retained(Topic),
    Passing(Message),
}

/// A message of the mesh whose end the node waits for.
#[derive(Debug)]
struct Owed {
    message: Message,
    receipt: Receipt,
    state: Delivery,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Waits,
    Handed,
    Done,
}

/// What the broker's acknowledgement of a packet means.
#[derive(Debug)]
enum Flight {
    /// The nth message with a receipt.
    Owed(u64),
    /// The end of a retained topic.
    Ending(Topic),
}

/// What the broker said that it takes (MQTT 5.0 §3.2.2.3).
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_packet: usize,
    pub max_qos: Qos,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_packet: usize::MAX, max_qos: Qos::ExactlyOnce }
    }
}

/// What a packet has besides what [`Message::size`] counts.
const HEADERS: usize = 64;

/// What becomes of a message that the broker has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    Taken,
    /// And never will be.
    Refused,
    /// Perhaps later: it has too much to do, or no room.
    Later,
}

/// What follows from the end of a connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// They cannot be reached any more.
    pub mappers: BTreeSet<Name>,
    /// Nobody is known any more to want these.
    pub interests: BTreeSet<Filter>,
}

/// One connection's part.
#[derive(Debug, Default)]
struct Wire {
    is_up: bool,
    limits: Limits,
    passing_bytes: usize,
    /// Handed over, in order, their packet ids not known yet.
    handed: VecDeque<Option<Flight>>,
    flights: BTreeMap<u16, Flight>,
}

/// What is said and heard.
#[derive(Debug, Default)]
pub struct Desk {
    /// An empty payload: an end that the broker has not acknowledged yet.
    retained: BTreeMap<Topic, Message>,
    /// Retained topics in `waiting`.
    unsaid: BTreeSet<Topic>,
    /// Of the twins' side, in order.
    waiting: VecDeque<Waiting>,
    /// Of the mesh, without a receipt.
    passing: VecDeque<Message>,
    /// Bounded by what the node publishes before it has seen their receipts.
    owed: VecDeque<Owed>,
    /// The number of the first of `owed`.
    first_owed: u64,
    /// The first of `owed` that may wait to be handed over.
    next_owed: u64,
    receipts: VecDeque<Receipt>,
    wires: [Wire; 2],
    /// Those that are online by what was heard on this connection.
    mappers: BTreeSet<Name>,
    /// What KubeEdge's mappers that speak on this connection must be listening to: the broker does not tell.
    interests: BTreeSet<Filter>,
    /// Messages dropped since this was last looked at.
    pub dropped: u64,
    /// And messages larger than the broker takes.
    pub too_large: u64,
}

impl Desk {
    /// The node publishes.
    pub fn announce(&mut self, message: Message, receipt: Option<Receipt>) {
        let side = Side::of(&message.topic);
        match (side, receipt) {
            (_, Some(receipt)) => self.owed.push_back(Owed { message, receipt, state: Delivery::Waits }),
            (Side::Twins, None) if message.retain => self.retain(message),
            (_, None) => self.pass(side, message),
        }
    }

    fn retain(&mut self, message: Message) {
        let topic = message.topic.clone();
        self.retained.insert(topic.clone(), message);
        if self.wire(Side::Twins).is_up && self.unsaid.insert(topic.clone()) {
            self.waiting.push_back(Waiting::Retained(topic));
        }
    }

    fn pass(&mut self, side: Side, message: Message) {
        let size = message.size() + OVERHEAD;
        let wire = self.wire_mut(side);
        if !wire.is_up || wire.passing_bytes + size > MAX_PASSING {
            self.dropped += 1;
            return;
        }
        wire.passing_bytes += size;
        match side {
            Side::Twins => self.waiting.push_back(Waiting::Passing(message)),
            Side::Mesh => self.passing.push_back(message),
        }
    }

    fn wire(&self, side: Side) -> &Wire {
        &self.wires[side.index()]
    }

    fn wire_mut(&mut self, side: Side) -> &mut Wire {
        &mut self.wires[side.index()]
    }

    /// The broker has let this node in, and it has subscribed.
    pub fn handle_up(&mut self, side: Side, limits: Limits) {
        *self.wire_mut(side) = Wire { is_up: true, limits, ..Wire::default() };
        if side == Side::Twins {
            self.unsaid = self.retained.keys().cloned().collect();
            self.waiting = self.unsaid.iter().cloned().map(Waiting::Retained).collect();
        }
    }

    /// The connection is gone.
    pub fn handle_down(&mut self, side: Side) -> Gone {
        *self.wire_mut(side) = Wire::default();
        match side {
            Side::Twins => {
                let waiting = std::mem::take(&mut self.waiting).into_iter();
                self.dropped += waiting.filter(|one| matches!(one, Waiting::Passing(_))).count() as u64;
                self.unsaid.clear();
                Gone {
                    mappers: std::mem::take(&mut self.mappers),
                    interests: std::mem::take(&mut self.interests),
                }
            }
            Side::Mesh => {
                self.dropped += std::mem::take(&mut self.passing).len() as u64;
                for owed in self.owed.iter_mut().filter(|owed| owed.state == Delivery::Handed) {
                    owed.state = Delivery::Waits;
                }
                self.next_owed = self.first_owed;
                Gone::default()
            }
        }
    }

    pub fn is_up(&self, side: Side) -> bool {
        self.wire(side).is_up
    }

    /// Whether something waits that a connection could be given.
    pub fn has_more(&self, side: Side) -> bool {
        let waits = match side {
            Side::Twins => !self.waiting.is_empty(),
            Side::Mesh => !self.passing.is_empty(),
        };
        self.is_up(side) && waits
    }

    /// What the connection is to say next. [`Self::handle_handed`] and [`Self::handle_acked`] tell what becomes of it.
    pub fn next(&mut self, side: Side, now: Mono) -> Option<Message> {
        while self.wire(side).is_up && self.wire(side).handed.len() < WINDOW {
            let (mut message, flight) = match side {
                Side::Twins => self.next_of_twins(now)?,
                Side::Mesh => self.next_of_mesh(now)?,
            };
            let Limits { max_packet, max_qos } = self.wire(side).limits;
            if message.size() + HEADERS > max_packet {
                self.too_large += 1;
                // It would end every connection that it is said on.
                flight.into_iter().for_each(|flight| self.land(flight));
                continue;
            }
            // A client of this broker's begins with every connection anew: QoS 2 could not keep its word.
            message.qos = message.qos.min(Qos::AtLeastOnce).min(max_qos);
            self.wire_mut(side).handed.push_back(flight);
            return Some(message);
        }
        None
    }

    fn passes(&mut self, side: Side, message: &Message) {
        self.wire_mut(side).passing_bytes -= message.size() + OVERHEAD;
    }

    fn next_of_twins(&mut self, now: Mono) -> Option<(Message, Option<Flight>)> {
        loop {
            let message = match self.waiting.pop_front()? {
                Waiting::Passing(message) => {
                    self.passes(Side::Twins, &message);
                    message
                }
                Waiting::Retained(topic) => {
                    self.unsaid.remove(&topic);
                    let Some(message) = self.retained.get(&topic) else { continue };
                    message.clone()
                }
            };
            if message.is_expired(now) {
                self.dropped += 1;
                continue;
            }
            let ends = message.retain && message.payload.is_empty();
            let flight = ends.then(|| Flight::Ending(message.topic.clone()));
            return Some((message, flight));
        }
    }

    fn next_of_mesh(&mut self, now: Mono) -> Option<(Message, Option<Flight>)> {
        while let Some(owed) =
            self.owed.get_mut(usize::try_from(self.next_owed - self.first_owed).unwrap_or(usize::MAX))
        {
            let number = self.next_owed;
            self.next_owed += 1;
            match owed.state {
                Delivery::Waits if owed.message.is_expired(now) => {
                    self.dropped += 1;
                    self.end_owed(number);
                }
                Delivery::Waits => {
                    owed.state = Delivery::Handed;
                    return Some((owed.message.clone(), Some(Flight::Owed(number))));
                }
                Delivery::Handed | Delivery::Done => {}
            }
        }
        let message = self.passing.pop_front()?;
        self.passes(Side::Mesh, &message);
        Some((message, None))
    }

    /// The oldest message that was handed over is on the wire as `packet`; 0: at QoS 0.
    pub fn handle_handed(&mut self, side: Side, packet: u16) {
        let Some(Some(flight)) = self.wire_mut(side).handed.pop_front() else { return };
        if packet == 0 {
            self.land(flight);
        } else {
            self.wire_mut(side).flights.insert(packet, flight);
        }
    }

    /// The broker's word on it. What it may take later is said again on the next connection.
    pub fn handle_acked(&mut self, side: Side, packet: u16, ack: Ack) {
        match (self.wire_mut(side).flights.remove(&packet), ack) {
            (Some(flight), Ack::Taken) => self.land(flight),
            (Some(Flight::Owed(number)), Ack::Refused) => self.end_owed(number),
            (Some(Flight::Ending(_) | Flight::Owed(_)), _) | (None, _) => {}
        }
    }

    fn land(&mut self, flight: Flight) {
        match flight {
            Flight::Owed(number) => self.end_owed(number),
            Flight::Ending(topic) => {
                if self.retained.get(&topic).is_some_and(|message| message.payload.is_empty()) {
                    self.retained.remove(&topic);
                }
            }
        }
    }

    /// Receipts come in the order of publishing.
    fn end_owed(&mut self, number: u64) {
        let index = number.checked_sub(self.first_owed).and_then(|index| usize::try_from(index).ok());
        if let Some(owed) = index.and_then(|index| self.owed.get_mut(index)) {
            owed.state = Delivery::Done;
        }
        while let Some(owed) = self.owed.pop_front_if(|owed| owed.state == Delivery::Done) {
            self.first_owed += 1;
            self.receipts.push_back(owed.receipt);
        }
        self.next_owed = self.next_owed.max(self.first_owed);
    }

    pub fn poll_receipt(&mut self) -> Option<Receipt> {
        self.receipts.pop_front()
    }

    /// Somebody published. Whether the node is to hear it.
    ///
    /// # Errors
    /// Why it is not taken, by the same rules as those of the embedded broker.
    pub fn hear(&mut self, topic: &Topic, payload: &[u8], retain: bool) -> Result<bool, Refusal> {
        let route = route(topic, retain)?;
        if let Some(MapperTopic::State { mapper }) = MapperTopic::parse(topic) {
            match payload {
                b"online" | b"\"online\"" if self.mappers.len() < MAX_SPEAKERS => {
                    self.mappers.insert(mapper);
                }
                b"offline" | b"\"offline\"" => {
                    self.mappers.remove(&mapper);
                }
                _ => {}
            }
        }
        Ok(route.reaches_node())
    }

    /// What somebody must be listening to who says this: KubeEdge's mappers report on `twin/update` and act on its delta.
    /// What is new of it.
    pub fn listens(&mut self, topic: &Topic, payload: &[u8]) -> Vec<Filter> {
        let reports = payload.windows(ACTUAL.len()).any(|window| window == ACTUAL);
        let is_update = matches!(HwTopic::parse(topic.as_str()), Some(HwTopic::Device(_, Verb::TwinUpdate)));
        if !reports || !is_update || self.interests.len() >= MAX_SPEAKERS {
            return Vec::new();
        }
        let filters = ["delta", "document"].map(|what| Filter::new(&format!("{topic}/{what}")).ok());
        filters.into_iter().flatten().filter(|filter| self.interests.insert(filter.clone())).collect()
    }
}

/// What a report of KubeEdge's has, and a wish has not.
const ACTUAL: &[u8] = b"\"actual\"";

#[cfg(test)]
mod tests;
