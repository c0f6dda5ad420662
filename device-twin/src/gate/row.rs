//! What the broker has the node keep, so that sessions, their messages and what clients retained survive a restart.
//! Both directions of the format.
//!
//! | key | value |
//! |---|---|
//! | `/mqtt/session/<session>` | [`SessionRow`] |
//! | `/mqtt/queue/<session>/<number>` | a message that the session is owed |
//! | `/mqtt/received/<session>/<packet>` | a QoS 2 message of the client that must not be taken twice |
//! | `/mqtt/retained/<hash of the topic>` | a client's retained message |
//!
//! Numbers are hexadecimal and of fixed width: rows come in the order of their numbers.

use std::sync::Arc;

use bus::message::{Properties, Qos};
use bus::{Filter, Mono, Now, Topic, UnixMillis};
use bytes::Bytes;
use metadata::Key;
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use super::properties::{self, qos_from_bus, qos_to_bus};
use super::subscriptions::{Subscription, Wanted};
use super::{Delivery, Message, SessionId};
use crate::twin::{cbor, key};

/// Where all of it is.
pub const ROOT: &str = "/mqtt/";

const SESSION: &str = "/mqtt/session/";
const QUEUE: &str = "/mqtt/queue/";
const RECEIVED: &str = "/mqtt/received/";
const RETAINED: &str = "/mqtt/retained/";

/// One write to the node's store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub key: Key,
    /// `None`: the row goes.
    pub value: Option<Bytes>,
}

impl Row {
    fn put(key: Key, value: &impl Encode<()>) -> Self {
        Self { key, value: Some(cbor(value)) }
    }

    fn gone(key: Key) -> Self {
        Self { key, value: None }
    }
}

/// Numbers in clocks of their own mean nothing after a restart; this relates both.
fn wall_of(at: Mono, now: Now) -> UnixMillis {
    let left = at.since(now.mono);
    UnixMillis(now.wall.0.saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)))
}

/// The past stays the past: it becomes this moment.
pub(super) fn mono_of(at: UnixMillis, now: Now) -> Mono {
    now.mono + at.since(now.wall)
}

/// A session without its messages.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SessionRow {
    #[n(0)]
    pub client: String,
    /// Seconds that it outlives its connection; `None`: for ever.
    #[n(1)]
    pub expiry_s: Option<u32>,
    /// Since when the client is away; `None`: it is here, or was when the node ended.
    #[n(2)]
    pub away_since: Option<UnixMillis>,
    #[n(3)]
    subscriptions: Vec<SubscriptionRow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct SubscriptionRow {
    #[n(0)]
    filter: Filter,
    #[n(1)]
    group: Option<String>,
    #[n(2)]
    qos: Qos,
    #[n(3)]
    no_local: bool,
    #[n(4)]
    as_published: bool,
    #[n(5)]
    identifier: Option<u32>,
}

impl SessionRow {
    pub fn new<'a>(
        client: &str,
        expiry_s: Option<u32>,
        away_since: Option<UnixMillis>,
        subscriptions: impl Iterator<Item = (&'a Wanted, &'a Subscription)>,
    ) -> Self {
        let subscriptions = subscriptions.map(|(wanted, how)| {
            let Subscription { qos, no_local, as_published, identifier } = *how;
            let Wanted { group, filter } = wanted;
            let group = group.as_deref().map(str::to_owned);
            SubscriptionRow {
                filter: filter.clone(),
                group,
                qos: qos_to_bus(qos),
                no_local,
                as_published,
                identifier,
            }
        });
        Self { client: client.to_owned(), expiry_s, away_since, subscriptions: subscriptions.collect() }
    }

    pub fn into_subscriptions(self) -> impl Iterator<Item = (Wanted, Subscription)> {
        self.subscriptions.into_iter().map(|row| {
            let SubscriptionRow { filter, group, qos, no_local, as_published, identifier } = row;
            let how = Subscription { qos: qos_from_bus(qos), no_local, as_published, identifier };
            (Wanted { group: group.map(String::into_boxed_str), filter }, how)
        })
    }

    pub fn row(&self, id: SessionId) -> Row {
        Row::put(key(SESSION, hex(id.0)), self)
    }
}

/// A message that a session is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    pub number: u64,
    pub packet: u16,
    /// The client has it, and is to be told that it may forget the packet's number (QoS 2, after PUBREC): the message
    /// itself is not needed any more.
    pub released: bool,
    pub delivery: Delivery,
}

#[derive(Encode, Decode)]
struct OwedRow {
    #[n(0)]
    packet: u16,
    #[n(1)]
    released: bool,
    #[n(2)]
    qos: Qos,
    #[n(3)]
    retain: bool,
    #[n(4)]
    subscriptions: Vec<u32>,
    #[n(5)]
    message: MessageRow,
}

#[derive(Encode, Decode)]
struct MessageRow {
    #[n(0)]
    topic: Topic,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    payload: Vec<u8>,
    #[n(2)]
    qos: Qos,
    #[n(3)]
    expires: Option<UnixMillis>,
    #[n(4)]
    properties: Properties,
}

impl MessageRow {
    fn of(message: &Message, now: Now) -> Self {
        let Message { topic, payload, qos, retain: _, expires, properties, from: _ } = message;
        Self {
            topic: topic.clone(),
            payload: payload.to_vec(),
            qos: qos_to_bus(*qos),
            expires: expires.map(|at| wall_of(at, now)),
            properties: properties::to_bus(properties),
        }
    }

    fn into_message(self, retain: bool, now: Now) -> Message {
        let Self { topic, payload, qos, expires, properties } = self;
        Message {
            topic,
            payload: payload.into(),
            qos: qos_from_bus(qos),
            retain,
            expires: expires.map(|at| mono_of(at, now)),
            properties: properties::from_bus(&properties),
            from: None,
        }
    }
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn owed_key(session: SessionId, number: u64) -> Key {
    key(QUEUE, format_args!("{}/{}", hex(session.0), hex(number)))
}

impl Owed {
    pub fn row(&self, session: SessionId, now: Now) -> Row {
        let Self { number, packet, released, delivery } = self;
        let Delivery { message, qos, retain, subscriptions } = delivery;
        let mut message = MessageRow::of(message, now);
        if *released {
            message.payload.clear();
            message.properties = Properties::default();
        }
        let subscriptions = subscriptions.clone();
        let row = OwedRow {
            packet: *packet,
            released: *released,
            qos: qos_to_bus(*qos),
            retain: *retain,
            subscriptions,
            message,
        };
        Row::put(owed_key(session, *number), &row)
    }

    pub fn gone(session: SessionId, number: u64) -> Row {
        Row::gone(owed_key(session, number))
    }
}

fn received_key(session: SessionId, packet: u16) -> Key {
    key(RECEIVED, format_args!("{}/{packet:04x}", hex(session.0)))
}

pub fn received(session: SessionId, packet: u16) -> Row {
    Row::put(received_key(session, packet), &true)
}

pub fn received_gone(session: SessionId, packet: u16) -> Row {
    Row::gone(received_key(session, packet))
}

pub fn session_gone(session: SessionId) -> Row {
    Row::gone(key(SESSION, hex(session.0)))
}

fn retained_key(topic: &Topic) -> Key {
    let hash = Sha256::digest(topic.as_str());
    let name: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    key(RETAINED, name)
}

/// A retained message, or with an empty payload that there is none.
pub fn retained(message: &Message, now: Now) -> Row {
    match message.payload.is_empty() {
        true => retained_gone(&message.topic),
        false => Row::put(retained_key(&message.topic), &MessageRow::of(message, now)),
    }
}

pub fn retained_gone(topic: &Topic) -> Row {
    Row::gone(retained_key(topic))
}

/// A row, read.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    Session(SessionId, SessionRow),
    Owed(SessionId, Owed),
    Received(SessionId, u16),
    Retained(Message),
}

impl Kept {
    /// Whose it is.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::Session(id, _) | Self::Owed(id, _) | Self::Received(id, _) => Some(*id),
            Self::Retained(_) => None,
        }
    }

    /// `None` for what another version wrote and this one cannot read.
    pub fn read(key: &str, value: &[u8], now: Now) -> Option<Self> {
        if let Some(rest) = key.strip_prefix(SESSION) {
            return Some(Self::Session(session(rest)?, minicbor::decode(value).ok()?));
        }
        if let Some((id, number)) = key.strip_prefix(QUEUE).and_then(|rest| rest.split_once('/')) {
            let row: OwedRow = minicbor::decode(value).ok()?;
            return Some(Self::Owed(session(id)?, owed(u64::from_str_radix(number, 16).ok()?, row, now)));
        }
        if let Some((id, packet)) = key.strip_prefix(RECEIVED).and_then(|rest| rest.split_once('/')) {
            return Some(Self::Received(session(id)?, u16::from_str_radix(packet, 16).ok()?));
        }
        key.strip_prefix(RETAINED)?;
        let row: MessageRow = minicbor::decode(value).ok()?;
        Some(Self::Retained(row.into_message(true, now)))
    }
}

fn session(hex: &str) -> Option<SessionId> {
    u64::from_str_radix(hex, 16).ok().map(SessionId)
}

fn owed(number: u64, row: OwedRow, now: Now) -> Owed {
    let OwedRow { packet, released, qos, retain, subscriptions, message } = row;
    let message = Arc::new(message.into_message(retain, now));
    let delivery = Delivery { message, qos: qos_from_bus(qos), retain, subscriptions };
    Owed { number, packet, released, delivery }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mqtt_protocol_core::mqtt::packet::{
        ContentType, CorrelationData, PayloadFormat, PayloadFormatIndicator, ResponseTopic, UserProperty,
    };

    use super::*;
    use crate::gate::Qos;

    const THEN: Now = Now { mono: Mono(5_000_000), wall: UnixMillis(1_000_000) };

    /// After a restart a minute later: the monotonic clock begins anew.
    const LATER: Now = Now { mono: Mono(1_000), wall: UnixMillis(1_060_000) };

    fn message() -> Message {
        Message {
            topic: Topic::new("größe/a").unwrap(),
            payload: Bytes::from_static(b"\x00\xff"),
            qos: Qos::ExactlyOnce,
            retain: true,
            expires: Some(THEN.mono + Duration::from_secs(90)),
            properties: vec![
                PayloadFormatIndicator::new(PayloadFormat::String).unwrap().into(),
                ContentType::new("text/plain").unwrap().into(),
                ResponseTopic::new("answers").unwrap().into(),
                CorrelationData::new(b"c1").unwrap().into(),
                UserProperty::new("k", "v").unwrap().into(),
                UserProperty::new("k", "w").unwrap().into(),
            ],
            from: None,
        }
    }

    fn read(row: &Row, now: Now) -> Kept {
        Kept::read(row.key.as_str(), row.value.as_ref().unwrap(), now).unwrap()
    }

    fn later() -> Message {
        Message { expires: Some(LATER.mono + Duration::from_secs(30)), ..message() }
    }

    #[test]
    fn what_is_written_is_read_after_a_restart() {
        let delivery = |message| Delivery {
            message: Arc::new(message),
            qos: Qos::AtLeastOnce,
            retain: true,
            subscriptions: vec![1, 268_435_455],
        };
        let owed = Owed { number: 77, packet: 9, released: false, delivery: delivery(message()) };
        let after = Owed { number: 77, packet: 9, released: false, delivery: delivery(later()) };
        assert_eq!(read(&owed.row(SessionId(3), THEN), LATER), Kept::Owed(SessionId(3), after));
        assert_eq!(read(&received(SessionId(3), 65_535), LATER), Kept::Received(SessionId(3), 65_535));
        assert_eq!(read(&retained(&message(), THEN), LATER), Kept::Retained(later()));
        let wanted = Wanted { group: Some("g".into()), filter: Filter::new("a/#").unwrap() };
        let how =
            Subscription { qos: Qos::ExactlyOnce, no_local: true, as_published: true, identifier: Some(5) };
        let session = SessionRow::new("ä", Some(60), Some(THEN.wall), [(&wanted, &how)].into_iter());
        let Kept::Session(SessionId(3), back) = read(&session.row(SessionId(3)), LATER) else { panic!() };
        assert_eq!(back, session);
        assert_eq!(back.into_subscriptions().collect::<Vec<_>>(), [(wanted, how)]);
    }

    #[test]
    fn what_expired_meanwhile_is_expired() {
        let late = Now { wall: UnixMillis(2_000_000), ..LATER };
        let Kept::Retained(message) = read(&retained(&message(), THEN), late) else { panic!() };
        assert!(message.is_expired(late.mono));
    }

    #[test]
    fn a_message_that_the_client_has_is_not_kept_with_its_payload() {
        let delivery = Delivery {
            message: Arc::new(message()),
            qos: Qos::ExactlyOnce,
            retain: false,
            subscriptions: vec![],
        };
        let owed = Owed { number: 1, packet: 1, released: true, delivery };
        let Kept::Owed(_, back) = read(&owed.row(SessionId(1), THEN), LATER) else { panic!() };
        assert!(back.released && back.delivery.message.payload.is_empty());
    }

    #[test]
    fn rows_that_cannot_be_read_are_passed_over() {
        for (key, value) in [
            ("/mqtt/session/xyz", &b"\x01"[..]),
            ("/mqtt/queue/0000000000000001/1", b"\xff"),
            ("/mqtt/received/1", b""),
            ("/mqtt/other/1", b""),
        ] {
            assert_eq!(Kept::read(key, value, LATER), None, "{key}");
        }
    }

    #[test]
    fn rows_go_by_the_same_key_as_they_came() {
        let delivery = Delivery {
            message: Arc::new(message()),
            qos: Qos::AtLeastOnce,
            retain: false,
            subscriptions: vec![],
        };
        let owed = Owed { number: 1, packet: 1, released: false, delivery };
        let pairs = [
            (owed.row(SessionId(1), THEN), Owed::gone(SessionId(1), 1)),
            (received(SessionId(1), 2), received_gone(SessionId(1), 2)),
            (retained(&message(), THEN), retained(&Message { payload: Bytes::new(), ..message() }, THEN)),
        ];
        for (put, gone) in pairs {
            assert_eq!((put.key, None), (gone.key, gone.value));
        }
    }
}
