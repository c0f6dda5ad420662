//! One client's session: MQTT 3.1.1 or 5.0 as the client wishes, over any ordered stream of bytes.
//!
//! ```text
//!                 CONNECT taken                DISCONNECT, error, silence, handle_gone(), close()
//!   Greeting ----------------------> Open ------------------------------------------> Closed
//!      |                                                                                ^
//!      +---- anything else, CONNECT_TIMEOUT, CONNECT refused ---------------------------+
//! ```
//! The client's will is published on every way out of `Open` but an orderly DISCONNECT. Sessions are clean: nothing
//! outlives the connection. A 3.1.1 client is told so by `session present = 0`, a 5.0 client by an expiry of 0.
//!
//! Grammar: `handle_*`, then `take_bytes()` for the socket and `poll_output()` to `None`, then `poll_timeout()`.

mod connect;
mod publish;
mod subscribe;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bus::{Filter, Mono};
use mqtt_protocol_core::mqtt::connection::{ConnectionOptions, Event, TimerKind};
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait, Packet, v5_0};
use mqtt_protocol_core::mqtt::result_code::{DisconnectReasonCode, MqttError};
use mqtt_protocol_core::mqtt::{Connection, Version, common::Cursor, role};
use thiserror::Error;

use super::hub::Wish;
use super::{ConnId, Message, Qos, Route};

/// A connection that has not said CONNECT by then is closed: sockets are not for free.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// QoS 1 and 2 messages on their way to one client; keeps a fast link busy at 10 ms of round trip. When full, the
/// rest waits in the client's queue.
pub const MAX_IN_FLIGHT: usize = 256;

/// QoS 1 and 2 messages of one client that wait for the node. When full, no more is read from it.
pub const MAX_UNANSWERED: usize = 1024;

/// How long the node may take over a message. Then the client is disconnected: it comes back and sends it again,
/// which it would not do on the same connection (MQTT 5.0 §4.4).
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a client may have unanswered by protocol: [`MAX_UNANSWERED`] and what one read of the socket may add.
const RECEIVE_MAXIMUM: u16 = 4096;

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
            | Self::Unkept => None,
        }
    }
}

/// What a session wants done, in this order; bytes for the socket are taken apart from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// The client is let in; whoever had this name must go.
    Opened {
        client: String,
    },
    /// The client (or its will) published. If the route reaches the node and `answer` is given, the session waits
    /// for [`Session::handle_answer`] with it.
    Publish {
        message: Message,
        route: Route,
        answer: Option<Answer>,
    },
    Subscribe(Wish),
    Unsubscribe(Filter),
    /// Write what there is, then close the socket. Always the last.
    Close(CloseReason),
}

/// A message of the client that waits to be acknowledged. Counted up and never reused, unlike packet ids: an answer
/// that comes late acknowledges nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer(u64);

/// A client's message that the node has not answered for.
#[derive(Debug)]
struct Unanswered {
    packet: u16,
    qos: Qos,
    since: Mono,
}

/// What happened so far in this session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub received: u64,
    pub sent: u64,
    pub refused: u64,
    pub expired: u64,
    /// Deliveries larger than the client said it takes.
    pub too_large: u64,
}

#[derive(Debug)]
enum State {
    Greeting,
    Open(Box<Open>),
    Closed,
}

#[derive(Debug)]
struct Open {
    will: Option<LastWill>,
    filters: BTreeSet<Filter>,
    unanswered: BTreeMap<Answer, Unanswered>,
    in_flight: usize,
    /// The client takes a reason's text on every packet (MQTT 5.0 §3.1.2.11.7).
    wants_reasons: bool,
}

impl Open {
    fn answer_deadline(&self) -> Option<(Mono, &'static str)> {
        self.unanswered.values().next().map(|oldest| (oldest.since + ANSWER_TIMEOUT, "answer of the node"))
    }
}

/// What is published in the client's name when it vanishes.
#[derive(Debug)]
struct LastWill {
    message: Message,
    route: Route,
    /// Its expiry counts from the publication (MQTT 5.0 §3.1.3.2.4).
    life: Option<Duration>,
}

/// The flags of a fixed header (MQTT 5.0 §2.1.3), which the protocol layer does not look at.
fn has_valid_flags(first: u8) -> bool {
    match (first >> 4, first & 0x0f) {
        (3, _) => true,
        (6 | 8 | 10, flags) => flags == 0b0010,
        (_, flags) => flags == 0,
    }
}

/// One client's session.
pub struct Session {
    id: ConnId,
    /// The time of the input being handled.
    now: Mono,
    mqtt: Connection<role::Server>,
    state: State,
    last_answer: u64,
    /// The next byte begins a packet.
    between_packets: bool,
    unsent: Vec<u8>,
    outputs: VecDeque<Output>,
    deadline: Option<Mono>,
    stats: Stats,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Session {
    /// `max_packet`: largest packet taken from the client, in bytes; above it the connection is closed.
    pub fn new(id: ConnId, max_packet: u32, now: Mono) -> Self {
        let options =
            ConnectionOptions::new().maximum_packet_size_recv(max_packet).receive_maximum(RECEIVE_MAXIMUM);
        Self {
            id,
            now,
            mqtt: Connection::with_options(Version::Undetermined, options),
            state: State::Greeting,
            last_answer: 0,
            between_packets: true,
            unsent: Vec::new(),
            outputs: VecDeque::new(),
            deadline: Some(now + CONNECT_TIMEOUT),
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
            State::Greeting => silence("connect timeout"),
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
            State::Greeting => true,
            State::Open(open) => open.unanswered.len() < MAX_UNANSWERED,
            State::Closed => false,
        }
    }

    /// Whether [`Session::handle_delivery`] would send at once.
    pub fn wants_delivery(&self) -> bool {
        let State::Open(open) = &self.state else { return false };
        let vacancy = self.mqtt.get_receive_maximum_vacancy_for_send();
        open.in_flight < MAX_IN_FLIGHT && vacancy != Some(0) && self.unsent.len() < MAX_UNSENT
    }

    /// Bytes from the socket.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Mono) {
        self.now = now;
        let mut cursor = Cursor::new(bytes);
        while let Some(first) = cursor.remaining_slice().first()
            && !matches!(self.state, State::Closed)
        {
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
            State::Greeting if silent => self.finish(CloseReason::ConnectTimeout),
            State::Open(_) if silent => {
                let events = self.mqtt.notify_timer_fired(TimerKind::PingreqRecv);
                self.queue_packets(events);
                self.finish(CloseReason::KeepAlive);
            }
            State::Open(open) if open.answer_deadline().is_some_and(|(at, _)| at <= now) => {
                self.close(CloseReason::NodeBusy, now);
            }
            State::Greeting | State::Open(_) | State::Closed => {}
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
        if let (State::Open(_), Some(code)) = (&self.state, why.code()) {
            self.say_goodbye(code);
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
        if let State::Open(open) = state
            && let Some(LastWill { mut message, route, life }) = open.will
        {
            message.expires = life.map(|life| self.now + life);
            self.outputs.push_back(Output::Publish { message, route, answer: None });
        }
        self.outputs.push_back(Output::Close(why));
    }

    fn handle_events(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::NotifyPacketReceived(packet) => self.handle_packet(packet),
                Event::RequestSendPacket { packet, .. } => self.queue(&packet),
                Event::NotifyPacketIdReleased(_) => self.landed(),
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
    fn landed(&mut self) {
        if let State::Open(open) = &mut self.state {
            open.in_flight = open.in_flight.saturating_sub(1);
        }
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
            Packet::V3_1_1Connect(connect) => self.handle_connect_3(&connect),
            Packet::V5_0Connect(connect) => self.handle_connect_5(&connect),
            other if matches!(self.state, State::Open(_)) => self.handle_open_packet(other),
            _ => self.finish(CloseReason::Malformed),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all other packets are the protocol layer's affair")]
    fn handle_open_packet(&mut self, packet: Packet) {
        match packet {
            Packet::V3_1_1Publish(publish) => self.handle_publish_3(&publish),
            Packet::V5_0Publish(publish) => self.handle_publish_5(&publish),
            Packet::V3_1_1Pubrel(pubrel) => self.complete_3(pubrel.packet_id()),
            Packet::V5_0Pubrel(pubrel) => self.complete_5(pubrel.packet_id()),
            Packet::V3_1_1Pubrec(pubrec) => self.release_3(pubrec.packet_id()),
            Packet::V5_0Pubrec(pubrec) => self.release_5(&pubrec),
            Packet::V3_1_1Subscribe(subscribe) => self.handle_subscribe_3(&subscribe),
            Packet::V5_0Subscribe(subscribe) => self.handle_subscribe_5(&subscribe),
            Packet::V3_1_1Unsubscribe(unsubscribe) => self.handle_unsubscribe_3(&unsubscribe),
            Packet::V5_0Unsubscribe(unsubscribe) => self.handle_unsubscribe_5(&unsubscribe),
            Packet::V3_1_1Pingreq(_) | Packet::V5_0Pingreq(_) => self.answer_ping(),
            Packet::V3_1_1Disconnect(_) => self.leave(false),
            Packet::V5_0Disconnect(disconnect) => {
                let with_will =
                    disconnect.reason_code() == Some(DisconnectReasonCode::DisconnectWithWillMessage);
                self.leave(with_will);
            }
            _ => {}
        }
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
            if let Event::RequestSendPacket { packet, .. } = event {
                self.queue(&packet);
            }
        }
    }

    fn queue(&mut self, packet: &Packet) {
        self.unsent.extend_from_slice(&packet.to_continuous_buffer());
    }
}
