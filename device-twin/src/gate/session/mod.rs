//! One client's session: MQTT 3.1.1 or 5.0 as the client wishes, over any ordered stream of bytes.
//!
//! ```text
//!             CONNECT taken           handle_opened        DISCONNECT, error, silence, handle_gone(), close()
//!   Greeting ----------------> Opening -------------> Open -----------------------------------------> Closed
//!      |                          |                                                                     ^
//!      +--------------------------+---- anything else, CONNECT_TIMEOUT, CONNECT refused ----------------+
//! ```
//! The client's will is published, or left to wait, on every way out of `Open` but an orderly DISCONNECT. What outlives
//! the connection is the hub's and the queue's; this is the conversation.
//!
//! Grammar: `handle_*`, then `take_bytes()` for the socket and `poll_output()` to `None`, then `poll_timeout()`.

mod connect;
mod entrance;
mod first;
mod publish;
mod subscribe;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bus::{Mono, Topic};
use mqtt_protocol_core::mqtt::connection::{ConnectionOptions, Event, TimerKind};
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait, Packet, Property, v5_0};
use mqtt_protocol_core::mqtt::result_code::{
    DisconnectReasonCode, MqttError, SubackReasonCode, UnsubackReasonCode,
};
use mqtt_protocol_core::mqtt::{Connection, Version, common::Cursor, role};
use thiserror::Error;

use self::entrance::{Admitted, Waiting};
use self::first::First;
use super::access::{Claim, Guard, Permit, Who};
use super::hub::{self, Expiry, Left, Wish};
use super::subscriptions::Wanted;
use super::{ConnId, Message, Qos, Route, SessionId};

/// A connection that has not said CONNECT by then is closed: sockets are not for free.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// QoS 1 and 2 messages on their way to one client; keeps a fast link busy at 10 ms of round trip. When full, the
/// rest waits in the client's queue.
pub const MAX_IN_FLIGHT: usize = 256;

/// Bytes of such messages: a client that acknowledges nothing pins this and one packet more. As above when full.
const MAX_IN_FLIGHT_BYTES: usize = 1 << 20;

/// Topics that a 5.0 client may give a number on one connection: all of a mapper's (MQTT 5.0 §3.3.2.3.4).
const ALIASES_FROM_CLIENT: u16 = 128;

/// Topics that we give a number on one connection, if the client takes as many.
const ALIASES_TO_CLIENT: u16 = 64;

/// QoS 1 and 2 messages of one client that wait for the node. When full, no more is read from it.
pub const MAX_UNANSWERED: usize = 1024;

/// How long the node may take over a message. Then the client is disconnected: it comes back and sends it again,
/// which it would not do on the same connection (MQTT 5.0 §4.4).
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a client may have unanswered by protocol: [`MAX_UNANSWERED`] and what one read of the socket may add.
const RECEIVE_MAXIMUM: u16 = 4096;

/// What a 5.0 client is told that it may have unanswered (MQTT 5.0 §3.2.2.3.3): as much as is read before the node answers.
const RECEIVE_MAXIMUM_TOLD: u16 = 1024;

/// Bytes for the socket above which no more deliveries are taken: two full packets.
const MAX_UNSENT: usize = 512 * 1024;

/// Filters of one client. When full, SUBSCRIBE is answered with 0x97 (5.0) or 0x80 (3.1.1).
pub const MAX_FILTERS: usize = 256;

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum CloseReason {
    #[error("the client said goodbye")]
    Disconnected,
    #[error("the connection broke")]
    Gone,
    #[error("no CONNECT in time")]
    ConnectTimeout,
    #[error("CONNECT was refused")]
    Refused,
    #[error("malformed packet or protocol error")]
    Malformed,
    #[error("silent for longer than its keep-alive")]
    KeepAlive,
    #[error("the client came back on another connection")]
    TakenOver,
    #[error("too slow for what it subscribed to")]
    TooSlow,
    #[error("the node did not answer in time")]
    NodeBusy,
    #[error("the node cannot keep what the client published, and MQTT 3.1.1 has no other way to say so")]
    Unkept,
    #[error("too many sessions that outlive their connection")]
    Full,
    #[error("the broker stops")]
    Shutdown,
}

impl CloseReason {
    /// What a 5.0 client is told (§3.14.2.1); `None`: nothing is said, or the protocol layer has said it.
    fn code(self) -> Option<DisconnectReasonCode> {
        match self {
            Self::TakenOver => Some(DisconnectReasonCode::SessionTakenOver),
            Self::TooSlow => Some(DisconnectReasonCode::QuotaExceeded),
            Self::NodeBusy => Some(DisconnectReasonCode::ServerBusy),
            Self::Shutdown => Some(DisconnectReasonCode::ServerShuttingDown),
            Self::Disconnected
            | Self::Gone
            | Self::ConnectTimeout
            | Self::Refused
            | Self::Malformed
            | Self::KeepAlive
            | Self::Full
            | Self::Unkept => None,
        }
    }
}

/// What a session wants done, in this order; bytes for the socket are taken apart from it.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Whether this is true is wanted: [`Session::handle_checked`].
    Check(Claim),
    /// The client may be let in: the session waits for [`Session::handle_opened`] or [`Session::close`].
    Open(hub::Open),
    /// The client (or its will) published. With an answer, the session waits for [`Session::handle_answer`] with it.
    /// `packet`: the QoS 2 message must not be taken a second time, whatever happens.
    Publish {
        message: Message,
        route: Route,
        answer: Option<Answer>,
        packet: Option<u16>,
    },
    Subscribe {
        wishes: Vec<Wish>,
        answer: Answer,
    },
    Unsubscribe {
        wanted: Vec<Wanted>,
        answer: Answer,
    },
    /// The client acknowledged a message for good, or cannot take it.
    Finished {
        packet: u16,
    },
    /// The client has a QoS 2 message, and is told so when that is safe.
    Received {
        packet: u16,
        answer: Answer,
    },
    /// The client has done with a QoS 2 message of its own, or it was not taken: it is told when that is safe.
    Forget {
        packet: u16,
        answer: Answer,
    },
    /// Write what there is, then close the socket. Always the last.
    Close(CloseReason),
}

/// A message of the client that waits to be acknowledged. Counted up and never reused, unlike packet ids: an answer
/// that comes late acknowledges nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer(u64);

#[cfg(feature = "io")]
impl Answer {
    /// For who counts by itself.
    pub(crate) fn numbered(number: u64) -> Self {
        Self(number)
    }
}

/// What is said when an answer comes.
#[derive(Debug)]
enum Pending {
    /// PUBACK or PUBREC.
    Publish {
        packet: u16,
        qos: Qos,
    },
    Suback {
        packet: u16,
        codes: Vec<Result<Qos, SubackReasonCode>>,
    },
    Unsuback {
        packet: u16,
        codes: Vec<UnsubackReasonCode>,
    },
    /// PUBREL.
    Release {
        packet: u16,
    },
    /// PUBCOMP.
    Complete {
        packet: u16,
    },
    /// The client did not ask.
    Nothing,
}

/// Something that waits for an answer.
#[derive(Debug)]
struct Unanswered {
    what: Pending,
    since: Mono,
}

/// What happened so far in this session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub received: u64,
    pub sent: u64,
    pub refused: u64,
    /// CONNECTs turned away for who they came from.
    pub not_admitted: u64,
    pub expired: u64,
    /// Deliveries larger than the client said it takes.
    pub too_large: u64,
}

#[derive(Debug)]
enum State {
    Greeting,
    Opening(Box<Opening>),
    Open(Box<Open>),
    Closed,
}

/// A client whose session is being looked up.
#[derive(Debug)]
struct Opening {
    will: Option<LastWill>,
    wants_reasons: bool,
    expiry: Expiry,
    /// Of a 5.0 client: what CONNACK is to say beside the usual.
    properties: Vec<Property>,
    /// What the client said without waiting to be let in; at most one read of the socket.
    early: Vec<u8>,
    /// How many topics the client lets us give a number (MQTT 5.0 §3.1.2.11.5).
    aliases: u16,
}

/// Messages on their way to the client that it has not acknowledged for good.
#[derive(Debug, Default)]
struct InFlight {
    sizes: BTreeMap<u16, usize>,
    bytes: usize,
}

impl InFlight {
    fn has_room(&self) -> bool {
        self.sizes.len() < MAX_IN_FLIGHT && self.bytes < MAX_IN_FLIGHT_BYTES
    }

    fn insert(&mut self, packet: u16, size: usize) {
        let before = self.sizes.insert(packet, size);
        self.bytes = self.bytes + size - before.unwrap_or_default();
    }

    fn remove(&mut self, packet: u16) {
        self.bytes -= self.sizes.remove(&packet).unwrap_or_default();
    }
}

#[derive(Debug)]
struct Open {
    session: SessionId,
    kept: bool,
    expiry: Expiry,
    will: Option<LastWill>,
    filters: BTreeSet<Wanted>,
    unanswered: BTreeMap<Answer, Unanswered>,
    /// The client's QoS 2 messages until their PUBREL; bounded by the receive maximum.
    receiving: BTreeSet<u16>,
    in_flight: InFlight,
    /// Messages of an older connection whose PUBREL waits for room in the client's receive maximum.
    to_release: VecDeque<u16>,
    /// The last packet number that was given out; numbers go round, so that one given back is not given out at once.
    last_packet: u16,
    aliases: Aliases,
    /// The client takes a reason's text on every packet (MQTT 5.0 §3.1.2.11.7).
    wants_reasons: bool,
}

impl Open {
    fn answer_deadline(&self) -> Option<(Mono, &'static str)> {
        self.unanswered.values().next().map(|oldest| (oldest.since + ANSWER_TIMEOUT, "answer of the node"))
    }
}

/// The numbers that topics have to this client, by the place that a topic's hash names: of two that want one place, the
/// newer has it.
#[derive(Debug, Default)]
struct Aliases(Vec<Option<Topic>>);

impl Aliases {
    fn new(most: u16) -> Self {
        Self(vec![None; usize::from(most.min(ALIASES_TO_CLIENT))])
    }

    /// The topic's number, and whether the client knows it already.
    fn number(&mut self, topic: &Topic) -> Option<(u16, bool)> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        topic.hash(&mut hasher);
        let place =
            usize::try_from(hasher.finish() % u64::try_from(self.0.len()).ok().filter(|n| *n > 0)?).ok()?;
        let known = self.0.get(place)?.as_ref() == Some(topic);
        if !known {
            self.0[place] = Some(topic.clone());
        }
        Some((u16::try_from(place + 1).ok()?, known))
    }

    /// The message that was to tell the client of it was not sent.
    fn forget(&mut self, topic: &Topic) {
        self.0.iter_mut().filter(|place| place.as_ref() == Some(topic)).for_each(|place| *place = None);
    }
}

/// What is published in the client's name when it vanishes.
#[derive(Debug)]
struct LastWill {
    message: Message,
    route: Route,
    /// Its expiry counts from the publication (MQTT 5.0 §3.1.3.2.4).
    life: Option<Duration>,
    /// How long it waits for the client to come back (§3.1.3.2.2).
    delay: Duration,
}

/// What the broker is to its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Largest packet taken, in bytes; above it the connection is closed.
    pub max_packet: u32,
    /// Longest silence that a 5.0 client may ask for, in seconds; 0: as long as it likes (MQTT 5.0 §3.2.2.3.14).
    pub max_keep_alive: u16,
    /// Tells names that this start of the broker gives from those of others.
    pub start: u64,
}

/// The flags of a fixed header (MQTT 5.0 §2.1.3), which the protocol layer does not look at.
fn has_valid_flags(first: u8) -> bool {
    match (first >> 4, first & 0x0f) {
        // No QoS 3, and nothing is sent again at QoS 0 (§3.3.1.1).
        (3, flags) => flags & 0x06 != 0x06 && flags & 0x0e != 0x08,
        (6 | 8 | 10, flags) => flags == 0b0010,
        (_, flags) => flags == 0,
    }
}

/// One client's session.
pub struct Session {
    id: ConnId,
    guard: Guard,
    admitted: Admitted,
    waiting: Option<Waiting>,
    terms: Terms,
    /// The time of the input being handled.
    now: Mono,
    mqtt: Connection<role::Server>,
    state: State,
    last_answer: u64,
    /// The next byte begins a packet.
    between_packets: bool,
    /// The first packet, while it is not whole.
    first: Vec<u8>,
    /// The client said that it takes no topic aliases.
    no_aliases: bool,
    unsent: Vec<u8>,
    outputs: VecDeque<Output>,
    deadline: Option<Mono>,
    left: Left,
    /// The client's QoS 2 messages that the node had not answered for when the connection ended.
    undecided: BTreeMap<Answer, u16>,
    stats: Stats,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Session {
    pub fn new(id: ConnId, terms: Terms, now: Mono) -> Self {
        Self::guarded(id, Guard::open(), terms, now)
    }

    /// As [`Session::new`], for those whom the guard lets in.
    pub fn guarded(id: ConnId, guard: Guard, terms: Terms, now: Mono) -> Self {
        let options = ConnectionOptions::new()
            .maximum_packet_size_recv(terms.max_packet)
            .receive_maximum(RECEIVE_MAXIMUM);
        Self {
            id,
            guard,
            admitted: Admitted { who: Who::Anonymous, permit: Permit::All },
            waiting: None,
            terms,
            now,
            mqtt: Connection::with_options(Version::Undetermined, options),
            state: State::Greeting,
            last_answer: 0,
            between_packets: true,
            first: Vec::new(),
            no_aliases: false,
            unsent: Vec::new(),
            outputs: VecDeque::new(),
            deadline: Some(now + CONNECT_TIMEOUT),
            left: Left::default(),
            undecided: BTreeMap::new(),
            stats: Stats::default(),
        }
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        let silence = |reason| self.deadline.map(|at| (at, reason));
        match &self.state {
            // Whoever checks a password has a limit of its own.
            State::Greeting if self.is_being_checked() => None,
            State::Greeting => silence("connect timeout"),
            State::Opening(_) => silence("keep-alive"),
            State::Open(open) => silence("keep-alive").into_iter().chain(open.answer_deadline()).min(),
            State::Closed => None,
        }
    }

    /// What is to be written to the socket.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unsent)
    }

    /// Whether the client's bytes should be read: not while too much of it waits for the node.
    pub fn wants_bytes(&self) -> bool {
        match &self.state {
            State::Greeting => !self.is_being_checked(),
            State::Open(open) => open.unanswered.len() < MAX_UNANSWERED,
            State::Opening(_) | State::Closed => false,
        }
    }

    /// Whether [`Session::handle_outgoing`] would send at once.
    pub fn wants_delivery(&self) -> bool {
        let State::Open(open) = &self.state else { return false };
        let vacancy = self.mqtt.get_receive_maximum_vacancy_for_send();
        let in_turn = open.to_release.is_empty();
        in_turn && open.in_flight.has_room() && vacancy != Some(0) && self.unsent.len() < MAX_UNSENT
    }

    /// Bytes from the socket.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Mono) {
        self.now = now;
        if matches!(self.state, State::Greeting) {
            return self.handle_first(bytes);
        }
        self.handle_rest(bytes);
    }

    fn handle_first(&mut self, bytes: &[u8]) {
        self.first.extend_from_slice(bytes);
        match first::look(&self.first, self.terms.max_packet) {
            First::Partial => {}
            First::Malformed => self.fail(MqttError::MalformedPacket),
            First::Future => {
                self.unsent.extend_from_slice(&[0x20, 0x03, 0x00, 0x84, 0x00]);
                self.finish(CloseReason::Malformed);
            }
            First::Whole { length: _, no_aliases } => {
                let mut all = std::mem::take(&mut self.first);
                // The protocol layer panics at a 0 and takes a 1; it is not asked to give aliases.
                if let Some(place) = no_aliases.and_then(|at| all.get_mut(at)) {
                    *place = 1;
                    self.no_aliases = true;
                }
                self.handle_rest(&all);
            }
        }
    }

    fn handle_rest(&mut self, bytes: &[u8]) {
        let mut cursor = Cursor::new(bytes);
        while let Some(first) = cursor.remaining_slice().first()
            && !matches!(self.state, State::Closed)
        {
            if self.hold(cursor.remaining_slice()) {
                return;
            }
            if let State::Opening(opening) = &mut self.state {
                opening.early.extend_from_slice(cursor.remaining_slice());
                return;
            }
            if self.between_packets && !has_valid_flags(*first) {
                self.fail(MqttError::MalformedPacket);
                return;
            }
            let events = self.mqtt.recv(&mut cursor);
            // Every whole packet has an event, a part of one has none.
            self.between_packets = !events.is_empty();
            self.handle_events(events);
        }
    }

    pub fn handle_timeout(&mut self, now: Mono) {
        self.now = now;
        let silent = self.deadline.is_some_and(|at| at <= now);
        match &self.state {
            State::Greeting if silent && !self.is_being_checked() => self.finish(CloseReason::ConnectTimeout),
            State::Open(_) if silent => {
                let events = self.mqtt.notify_timer_fired(TimerKind::PingreqRecv);
                self.queue_packets(events);
                self.finish(CloseReason::KeepAlive);
            }
            State::Opening(_) if silent => self.finish(CloseReason::KeepAlive),
            State::Open(open) if open.answer_deadline().is_some_and(|(at, _)| at <= now) => {
                self.close(CloseReason::NodeBusy, now);
            }
            State::Greeting | State::Opening(_) | State::Open(_) | State::Closed => {}
        }
    }

    /// The socket is closed or broken.
    pub fn handle_gone(&mut self, now: Mono) {
        self.now = now;
        self.finish(CloseReason::Gone);
    }

    /// The broker wants to be rid of the client.
    pub fn close(&mut self, why: CloseReason, now: Mono) {
        self.now = now;
        match (&self.state, why.code()) {
            (State::Open(_), Some(code)) => self.say_goodbye(code),
            (State::Opening(_), _) if why == CloseReason::Full => self.refuse_full(),
            _ => {}
        }
        if why == CloseReason::Shutdown {
            self.drop_will();
        }
        self.finish(why);
    }

    fn say_goodbye(&mut self, code: DisconnectReasonCode) {
        if self.mqtt.get_protocol_version() != Version::V5_0 {
            return;
        }
        // The long form, with its empty properties: not every client reads the short one (rumqttc 0.25).
        if let Ok(packet) = v5_0::Disconnect::builder().reason_code(code).props(vec![]).build() {
            self.send(packet.into());
        }
    }

    fn drop_will(&mut self) {
        if let State::Open(open) = &mut self.state {
            open.will = None;
        }
    }

    /// The one way out of `Open`.
    fn finish(&mut self, why: CloseReason) {
        let state = std::mem::replace(&mut self.state, State::Closed);
        if matches!(state, State::Closed) {
            return;
        }
        self.deadline = None;
        if let State::Open(open) = state {
            self.leave_behind(*open);
        }
        self.outputs.push_back(Output::Close(why));
    }

    fn leave_behind(&mut self, open: Open) {
        let outlives = self.left.expiry.unwrap_or(open.expiry) != Expiry::AtOnce;
        if let Some(LastWill { mut message, route, life, delay }) = open.will {
            message.expires = life.map(|life| self.now + delay + life);
            match outlives && !delay.is_zero() {
                true => self.left.will = Some((delay, message, route)),
                false => {
                    self.outputs.push_back(Output::Publish { message, route, answer: None, packet: None })
                }
            }
        }
        if open.kept {
            self.left.received = Some(open.receiving);
            let undecided = open.unanswered.into_iter().filter_map(|(answer, unanswered)| {
                let Pending::Publish { packet, qos: Qos::ExactlyOnce } = unanswered.what else { return None };
                Some((answer, packet))
            });
            self.undecided = undecided.collect();
        }
    }

    /// Whether the node has yet to say what became of a message of this connection, now closed: the client will ask
    /// about it on its next one.
    pub fn is_undecided(&self) -> bool {
        !self.undecided.is_empty()
    }

    /// What stays of a closed connection.
    pub fn take_left(&mut self) -> Left {
        // What nobody answered for in time counts as not taken: the client sends it again.
        for packet in std::mem::take(&mut self.undecided).into_values() {
            self.left.received.as_mut().map(|received| received.remove(&packet));
        }
        std::mem::take(&mut self.left)
    }

    fn handle_events(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::NotifyPacketReceived(packet) => self.handle_packet(packet),
                Event::RequestSendPacket { packet, .. } => self.queue(&packet),
                Event::NotifyPacketIdReleased(packet) => self.landed(packet),
                Event::RequestTimerReset { duration_ms, .. } => {
                    self.deadline = Some(self.now + Duration::from_millis(duration_ms));
                }
                Event::RequestTimerCancel(_) => self.deadline = None,
                Event::NotifyError(error) => self.fail(error),
                Event::RequestClose => self.finish(CloseReason::Malformed),
            }
        }
    }

    /// A message to the client is done with.
    fn landed(&mut self, packet: u16) {
        if let State::Open(open) = &mut self.state {
            open.in_flight.remove(packet);
            if open.kept {
                self.outputs.push_back(Output::Finished { packet });
            }
        }
        self.release_more();
    }

    fn fail(&mut self, error: MqttError) {
        if matches!(self.state, State::Greeting) && error == MqttError::UnsupportedProtocolVersion {
            // §3.1.2.2 of 3.1.1: CONNACK 0x01. The protocol layer does not know in which version to say it.
            self.unsent.extend_from_slice(&[0x20, 0x02, 0x00, 0x01]);
        }
        self.finish(CloseReason::Malformed);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are handled alike")]
    fn handle_packet(&mut self, packet: Packet) {
        match packet {
            Packet::V3_1_1Connect(_) | Packet::V5_0Connect(_) => self.handle_connect(packet),
            other if matches!(self.state, State::Open(_)) => self.handle_open_packet(other),
            _ => self.finish(CloseReason::Malformed),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all other packets are the protocol layer's affair")]
    fn handle_open_packet(&mut self, packet: Packet) {
        match packet {
            Packet::V3_1_1Publish(publish) => self.handle_publish_3(&publish),
            Packet::V5_0Publish(publish) => self.handle_publish_5(&publish),
            Packet::V3_1_1Pubrel(pubrel) => self.complete(pubrel.packet_id()),
            Packet::V5_0Pubrel(pubrel) => self.complete(pubrel.packet_id()),
            Packet::V3_1_1Pubrec(pubrec) => self.received(pubrec.packet_id()),
            Packet::V5_0Pubrec(pubrec) => self.received_5(&pubrec),
            Packet::V3_1_1Subscribe(subscribe) => self.handle_subscribe_3(&subscribe),
            Packet::V5_0Subscribe(subscribe) => self.handle_subscribe_5(&subscribe),
            Packet::V3_1_1Unsubscribe(unsubscribe) => self.handle_unsubscribe_3(&unsubscribe),
            Packet::V5_0Unsubscribe(unsubscribe) => self.handle_unsubscribe_5(&unsubscribe),
            Packet::V3_1_1Pingreq(_) | Packet::V5_0Pingreq(_) => self.answer_ping(),
            Packet::V3_1_1Disconnect(_) => self.leave(false),
            Packet::V5_0Disconnect(disconnect) => self.handle_disconnect_5(&disconnect),
            // Nobody has agreed on a method (MQTT 5.0 §4.12).
            Packet::V5_0Auth(_) => self.protocol_error(),
            _ => {}
        }
    }

    /// MQTT 5.0 §3.14.2.2.2: a session that was to end with its connection cannot be made to last by a goodbye.
    fn handle_disconnect_5(&mut self, disconnect: &v5_0::Disconnect) {
        let changed = disconnect.props().iter().flatten().find_map(|property| {
            let Property::SessionExpiryInterval(seconds) = property else { return None };
            Some(Expiry::of(seconds.val()))
        });
        if let State::Open(open) = &self.state
            && open.expiry == Expiry::AtOnce
            && changed.is_some_and(|expiry| expiry != Expiry::AtOnce)
        {
            return self.protocol_error();
        }
        self.left.expiry = changed;
        self.leave(disconnect.reason_code() == Some(DisconnectReasonCode::DisconnectWithWillMessage));
    }

    fn protocol_error(&mut self) {
        self.say_goodbye(DisconnectReasonCode::ProtocolError);
        self.finish(CloseReason::Malformed);
    }

    fn leave(&mut self, with_will: bool) {
        if !with_will {
            self.drop_will();
        }
        self.finish(CloseReason::Disconnected);
    }

    fn answer_ping(&mut self) {
        use mqtt_protocol_core::mqtt::packet::v3_1_1;
        let packet: Option<Packet> = match self.mqtt.get_protocol_version() {
            Version::V5_0 => v5_0::Pingresp::builder().build().ok().map(Into::into),
            Version::V3_1_1 | Version::Undetermined => {
                v3_1_1::Pingresp::builder().build().ok().map(Into::into)
            }
        };
        self.send_built(packet);
    }

    fn send_built(&mut self, packet: Option<Packet>) {
        match packet {
            Some(packet) => self.send(packet),
            None => self.finish(CloseReason::Malformed),
        }
    }

    /// Hands a packet to the protocol layer; what it lets through goes to the socket.
    fn send(&mut self, packet: Packet) {
        let events = self.mqtt.send(packet);
        self.queue_packets(events);
    }

    fn queue_packets(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::RequestSendPacket { packet, .. } => self.queue(&packet),
                Event::RequestTimerReset { duration_ms, .. } => {
                    self.deadline = Some(self.now + Duration::from_millis(duration_ms));
                }
                Event::NotifyPacketReceived(_)
                | Event::NotifyPacketIdReleased(_)
                | Event::RequestTimerCancel(_)
                | Event::NotifyError(_)
                | Event::RequestClose => {}
            }
        }
    }

    fn queue(&mut self, packet: &Packet) {
        self.unsent.extend_from_slice(&packet.to_continuous_buffer());
    }
}
