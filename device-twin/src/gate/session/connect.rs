//! CONNECT: who comes, with which will, to which session (MQTT 5.0 §3.1, 3.1.1 §3.1).

use std::time::Duration;

use bus::Topic;
use bytes::Bytes;
use mqtt_protocol_core::mqtt::Version;
use mqtt_protocol_core::mqtt::packet::{
    AssignedClientIdentifier, Packet, Property, Qos, ReceiveMaximum, ServerKeepAlive, TopicAliasMaximum,
    v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, ConnectReturnCode};

use super::publish::{expiry_of, passed_on};
use super::{
    ALIASES_FROM_CLIENT, Aliases, BTreeMap, BTreeSet, CloseReason, Expiry, InFlight, LastWill, Message, Open,
    Opening, Output, Pending, RECEIVE_MAXIMUM_TOLD, Session, State, Wanted,
};
use crate::gate::Refusal;
use crate::gate::hub::{self, Opened};

/// Longest client id; the standard demands 23 (3.1.1 §3.1.3.1), ids end up in logs and metrics.
const MAX_CLIENT_ID: usize = 256;

/// A will as both versions have it.
struct Will<'a> {
    topic: &'a str,
    payload: &'a [u8],
    qos: Qos,
    retain: bool,
    properties: &'a [Property],
}

impl Session {
    pub(super) fn handle_connect_3(&mut self, connect: &v3_1_1::Connect) {
        self.keep_alive_is(connect.keep_alive());
        let name = connect.client_id();
        if name.contains('\0') {
            return self.finish(CloseReason::Malformed);
        }
        if name.len() > MAX_CLIENT_ID || (name.is_empty() && !connect.clean_session()) {
            return self.refuse_3(ConnectReturnCode::IdentifierRejected);
        }
        let will = connect.will_topic().map(|topic| Will {
            topic,
            payload: connect.will_payload().unwrap_or_default(),
            qos: connect.will_qos(),
            retain: connect.will_retain(),
            properties: &[],
        });
        let Ok(will) = self.check_will(will) else { return self.refuse_3(ConnectReturnCode::NotAuthorized) };
        // 3.1.1 §3.1.2.4: what is not clean lasts until it is asked to be.
        let clean = connect.clean_session();
        let expiry = if clean { Expiry::AtOnce } else { Expiry::Never };
        let opening =
            Opening { will, wants_reasons: false, expiry, properties: vec![], early: vec![], aliases: 0 };
        self.ask_to_open(name, clean, opening);
    }

    pub(super) fn handle_connect_5(&mut self, connect: &v5_0::Connect) {
        self.keep_alive_is(connect.keep_alive());
        let name = connect.client_id();
        if name.contains('\0') {
            return self.refuse_5(ConnectReasonCode::MalformedPacket);
        }
        if name.len() > MAX_CLIENT_ID {
            return self.refuse_5(ConnectReasonCode::ClientIdentifierNotValid);
        }
        if connect.props().iter().any(|p| matches!(p, Property::AuthenticationMethod(_))) {
            return self.refuse_5(ConnectReasonCode::BadAuthenticationMethod);
        }
        if connect.props().iter().any(|p| matches!(p, Property::AuthenticationData(_))) {
            return self.refuse_5(ConnectReasonCode::ProtocolError);
        }
        let will = connect.will_topic().map(|topic| Will {
            topic,
            payload: connect.will_payload().unwrap_or_default(),
            qos: connect.will_qos(),
            retain: connect.will_retain(),
            properties: connect.will_props(),
        });
        let will = match self.check_will(will) {
            Ok(will) => will,
            Err(refusal) => return self.refuse_5(refusal.connack()),
        };
        let opening = Opening {
            will,
            wants_reasons: wants_reasons(connect.props()),
            expiry: session_expiry(connect.props()),
            properties: self.terms_for(connect),
            early: vec![],
            aliases: if self.no_aliases { 0 } else { topic_aliases(connect.props()) },
        };
        self.ask_to_open(name, connect.clean_start(), opening);
    }

    /// The protocol layer has set the timer, unless there is to be none.
    fn keep_alive_is(&mut self, seconds: u16) {
        if seconds == 0 {
            self.deadline = None;
        }
    }

    fn check_will(&self, will: Option<Will<'_>>) -> Result<Option<LastWill>, Refusal> {
        let Some(Will { topic, payload, qos, retain, properties }) = will else { return Ok(None) };
        let topic = Topic::new(topic).map_err(|_| Refusal::UnknownShape)?;
        let route = self.route(&topic, retain)?;
        if !self.may_be_answered(&topic, properties) {
            return Err(Refusal::NotAllowed);
        }
        let message = Message {
            topic,
            payload: Bytes::copy_from_slice(payload),
            qos,
            retain,
            expires: None,
            properties: passed_on(properties),
            from: None,
        };
        Ok(Some(LastWill { message, route, life: expiry_of(properties), delay: delay_of(properties) }))
    }

    /// What CONNACK says beside what the protocol layer adds.
    fn terms_for(&self, connect: &v5_0::Connect) -> Vec<Property> {
        let mut properties = Vec::new();
        properties.extend(ReceiveMaximum::new(RECEIVE_MAXIMUM_TOLD).map(Property::ReceiveMaximum));
        properties.extend(TopicAliasMaximum::new(ALIASES_FROM_CLIENT).map(Property::TopicAliasMaximum));
        let (most, wished) = (self.terms.max_keep_alive, connect.keep_alive());
        if most > 0 && (wished == 0 || wished > most) {
            properties.extend(ServerKeepAlive::new(most).map(Property::ServerKeepAlive));
        }
        if connect.client_id().is_empty() {
            let assigned = AssignedClientIdentifier::new(self.assigned_name());
            properties.extend(assigned.map(Property::AssignedClientIdentifier));
        }
        properties
    }

    fn ask_to_open(&mut self, name: &str, clean: bool, opening: Opening) {
        let name = if name.is_empty() { self.assigned_name() } else { name.to_owned() };
        let who = self.who().clone();
        let client = who.session_name(&name);
        let expiry = opening.expiry;
        self.state = State::Opening(Box::new(opening));
        self.outputs.push_back(Output::Open(hub::Open { conn: self.id, name, client, who, clean, expiry }));
    }

    /// A name that no client is likely to choose; connection numbers are never reused in one start of the broker.
    pub(super) fn assigned_name(&self) -> String {
        format!("kubebus-{:x}-{}", self.terms.start, self.id.0)
    }

    /// The session stands. `released`: QoS 2 messages that the client has, and is to be told to forget.
    pub fn handle_opened(&mut self, opened: Opened, released: &[u16], now: bus::Mono) {
        self.now = now;
        let State::Opening(opening) = std::mem::replace(&mut self.state, State::Closed) else { return };
        let Opening { mut will, wants_reasons, expiry, properties, early, aliases } = *opening;
        let Opened { conn: _, session, kept, present, received, filters } = opened;
        // Rights may be others by now than when the session was stored.
        let (filters, forbidden): (BTreeSet<Wanted>, BTreeSet<Wanted>) =
            filters.into_iter().partition(|wanted| self.may_subscribe(&wanted.filter));
        if let Some(will) = &mut will {
            will.message.from = Some(session);
        }
        let mut handled = self.mqtt.get_qos2_publish_handled();
        handled.extend(&received);
        self.mqtt.restore_qos2_publish_handled(handled);
        self.state = State::Open(Box::new(Open {
            session,
            kept,
            expiry,
            will,
            filters,
            unanswered: BTreeMap::new(),
            receiving: received,
            in_flight: InFlight::default(),
            to_release: released.iter().copied().collect(),
            last_packet: 0,
            aliases: Aliases::new(aliases),
            wants_reasons,
        }));
        self.greet(present, properties);
        if !forbidden.is_empty() {
            let answer = self.await_answer(Pending::Nothing);
            self.outputs.push_back(Output::Unsubscribe { wanted: forbidden.into_iter().collect(), answer });
        }
        self.release_more();
        self.handle_bytes(&early, now);
    }

    fn greet(&mut self, present: bool, properties: Vec<Property>) {
        let connack: Option<Packet> = match self.mqtt.get_protocol_version() {
            Version::V5_0 => {
                let connack = v5_0::Connack::builder().session_present(present);
                let connack = connack.reason_code(ConnectReasonCode::Success).props(properties);
                connack.build().ok().map(Into::into)
            }
            Version::V3_1_1 | Version::Undetermined => {
                let connack = v3_1_1::Connack::builder().session_present(present);
                connack.return_code(ConnectReturnCode::Accepted).build().ok().map(Into::into)
            }
        };
        self.send_built(connack);
    }

    pub(super) fn refuse_full(&mut self) {
        match self.mqtt.get_protocol_version() {
            Version::V5_0 => self.refuse_5(ConnectReasonCode::QuotaExceeded),
            Version::V3_1_1 | Version::Undetermined => self.refuse_3(ConnectReturnCode::ServerUnavailable),
        }
    }

    pub(super) fn refuse_3(&mut self, code: ConnectReturnCode) {
        let connack = v3_1_1::Connack::builder().session_present(false).return_code(code).build();
        self.send_built(connack.ok().map(Into::into));
        self.finish(CloseReason::Refused);
    }

    pub(super) fn refuse_5(&mut self, code: ConnectReasonCode) {
        let connack = v5_0::Connack::builder().session_present(false).reason_code(code).build();
        self.send_built(connack.ok().map(Into::into));
        self.finish(CloseReason::Refused);
    }
}

fn delay_of(properties: &[Property]) -> Duration {
    let delay = properties.iter().find_map(|property| {
        let Property::WillDelayInterval(seconds) = property else { return None };
        Some(Duration::from_secs(seconds.val().into()))
    });
    delay.unwrap_or_default()
}

fn session_expiry(properties: &[Property]) -> Expiry {
    let seconds = properties.iter().find_map(|property| {
        let Property::SessionExpiryInterval(seconds) = property else { return None };
        Some(seconds.val())
    });
    Expiry::of(seconds.unwrap_or_default())
}

fn topic_aliases(properties: &[Property]) -> u16 {
    let most = properties.iter().find_map(|property| {
        let Property::TopicAliasMaximum(most) = property else { return None };
        Some(most.val())
    });
    most.unwrap_or_default()
}

/// Wanted unless refused.
fn wants_reasons(properties: &[Property]) -> bool {
    let refused =
        |p: &Property| matches!(p, Property::RequestProblemInformation(wanted) if wanted.val() == 0);
    !properties.iter().any(refused)
}
