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

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bus::twin::MapperTopic;
use bus::{Mono, Name, Topic};

use crate::Receipt;
use crate::gate::{Message, Qos, Refusal, route};

/// Messages handed to a connection and not yet on the wire.
pub const WINDOW: usize = 64;

/// Messages for those who are there now, in bytes with [`OVERHEAD`] each; above it the newest is dropped and counted.
const MAX_PASSING: usize = 4 << 20;

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

/// One connection's part.
#[derive(Debug, Default)]
struct Wire {
    is_up: bool,
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
    passing_bytes: usize,
    /// Bounded by what the node publishes before it has seen their receipts.
    owed: VecDeque<Owed>,
    /// The number of the first of `owed`.
    first_owed: u64,
    /// The first of `owed` that may wait to be handed over.
    next_owed: u64,
    receipts: VecDeque<Receipt>,
    wires: [Wire; 2],
    /// Those that were heard of on this connection.
    mappers: BTreeSet<Name>,
    /// Messages dropped since the start.
    pub dropped: u64,
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
        if !self.wire(side).is_up || self.passing_bytes + message.size() + OVERHEAD > MAX_PASSING {
            self.dropped += 1;
            return;
        }
        self.passing_bytes += message.size() + OVERHEAD;
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
    pub fn handle_up(&mut self, side: Side) {
        *self.wire_mut(side) = Wire { is_up: true, ..Wire::default() };
        if side == Side::Twins {
            self.unsaid = self.retained.keys().cloned().collect();
            self.waiting = self.unsaid.iter().cloned().map(Waiting::Retained).collect();
        }
    }

    /// The connection is gone. Returns the mappers that cannot be reached any more.
    pub fn handle_down(&mut self, side: Side) -> BTreeSet<Name> {
        *self.wire_mut(side) = Wire::default();
        match side {
            Side::Twins => {
                for waiting in std::mem::take(&mut self.waiting) {
                    if let Waiting::Passing(message) = waiting {
                        self.drop_passing(&message);
                    }
                }
                self.unsaid.clear();
                std::mem::take(&mut self.mappers)
            }
            Side::Mesh => {
                for message in std::mem::take(&mut self.passing) {
                    self.drop_passing(&message);
                }
                for owed in self.owed.iter_mut().filter(|owed| owed.state == Delivery::Handed) {
                    owed.state = Delivery::Waits;
                }
                self.next_owed = self.first_owed;
                BTreeSet::new()
            }
        }
    }

    fn drop_passing(&mut self, message: &Message) {
        self.passing_bytes -= message.size() + OVERHEAD;
        self.dropped += 1;
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
        if !self.wire(side).is_up || self.wire(side).handed.len() >= WINDOW {
            return None;
        }
        let (message, flight) = match side {
            Side::Twins => self.next_of_twins(now)?,
            Side::Mesh => self.next_of_mesh(now)?,
        };
        self.wire_mut(side).handed.push_back(flight);
        Some(message)
    }

    fn next_of_twins(&mut self, now: Mono) -> Option<(Message, Option<Flight>)> {
        loop {
            let mut message = match self.waiting.pop_front()? {
                Waiting::Passing(message) => {
                    self.passing_bytes -= message.size() + OVERHEAD;
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
            // What a node says of twins is said again when it changes or a connection breaks: no need of QoS 2.
            message.qos = message.qos.min(Qos::AtLeastOnce);
            let ends = message.retain && message.payload.is_empty();
            let flight = ends.then(|| Flight::Ending(message.topic.clone()));
            return Some((message, flight));
        }
    }

    fn next_of_mesh(&mut self, now: Mono) -> Option<(Message, Option<Flight>)> {
        while let Some(owed) = self.owed.get_mut(usize::try_from(self.next_owed - self.first_owed).ok()?) {
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
        self.passing_bytes -= message.size() + OVERHEAD;
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

    /// The broker has it.
    pub fn handle_acked(&mut self, side: Side, packet: u16) {
        if let Some(flight) = self.wire_mut(side).flights.remove(&packet) {
            self.land(flight);
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
    pub fn hear(&mut self, topic: &Topic, retain: bool) -> Result<bool, Refusal> {
        let route = route(topic, retain)?;
        if let Some(MapperTopic::State { mapper }) = MapperTopic::parse(topic) {
            self.mappers.insert(mapper);
        }
        Ok(route.reaches_node())
    }
}

#[cfg(test)]
mod tests;
