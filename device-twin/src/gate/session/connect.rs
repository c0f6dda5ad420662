//! CONNECT: who comes, with which will (MQTT 5.0 §3.1, 3.1.1 §3.1).

use bus::Topic;
use bytes::Bytes;
use mqtt_protocol_core::mqtt::packet::{
    AssignedClientIdentifier, Packet, Property, Qos, SessionExpiryInterval, SharedSubscriptionAvailable,
    v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, ConnectReturnCode};

use super::publish::{expiry_of, passed_on};
use super::{BTreeMap, BTreeSet, CloseReason, LastWill, Message, Open, Output, Session, State};
use crate::gate::Refusal;

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
        match self.check_will(will) {
            Ok(will) => self.accept_3(name, will),
            Err(_) => self.refuse_3(ConnectReturnCode::NotAuthorized),
        }
    }

    pub(super) fn handle_connect_5(&mut self, connect: &v5_0::Connect) {
        self.keep_alive_is(connect.keep_alive());
        let name = connect.client_id();
        if name.len() > MAX_CLIENT_ID {
            return self.refuse_5(ConnectReasonCode::ClientIdentifierNotValid);
        }
        if connect.props().iter().any(|p| matches!(p, Property::AuthenticationMethod(_))) {
            return self.refuse_5(ConnectReasonCode::BadAuthenticationMethod);
        }
        let will = connect.will_topic().map(|topic| Will {
            topic,
            payload: connect.will_payload().unwrap_or_default(),
            qos: connect.will_qos(),
            retain: connect.will_retain(),
            properties: connect.will_props(),
        });
        match self.check_will(will) {
            Ok(will) => self.accept_5(name, will, wants_reasons(connect.props())),
            Err(refusal) => self.refuse_5(refusal.connack()),
        }
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
        let message = Message {
            topic,
            payload: Bytes::copy_from_slice(payload),
            qos,
            retain,
            expires: None,
            properties: passed_on(properties),
            from: Some(self.id),
        };
        Ok(Some(LastWill { message, route, life: expiry_of(properties) }))
    }

    fn accept_3(&mut self, name: &str, will: Option<LastWill>) {
        let connack = v3_1_1::Connack::builder()
            .session_present(false)
            .return_code(ConnectReturnCode::Accepted)
            .build();
        let name = if name.is_empty() { self.assigned_name() } else { name.to_owned() };
        self.open(name, will, false, connack.ok().map(Into::into));
    }

    fn accept_5(&mut self, name: &str, will: Option<LastWill>, wants_reasons: bool) {
        let mut properties = Vec::new();
        properties.extend(SessionExpiryInterval::new(0).map(Property::SessionExpiryInterval));
        properties.extend(SharedSubscriptionAvailable::new(0).map(Property::SharedSubscriptionAvailable));
        let mut name = name.to_owned();
        if name.is_empty() {
            name = self.assigned_name();
            let assigned = AssignedClientIdentifier::new(name.as_str());
            properties.extend(assigned.map(Property::AssignedClientIdentifier));
        }
        let connack = v5_0::Connack::builder()
            .session_present(false)
            .reason_code(ConnectReasonCode::Success)
            .props(properties)
            .build();
        self.open(name, will, wants_reasons, connack.ok().map(Into::into));
    }

    /// A name that no client is likely to choose; connection numbers are never reused.
    pub(super) fn assigned_name(&self) -> String {
        format!("kubebus-assigned-{}", self.id.0)
    }

    fn open(&mut self, client: String, will: Option<LastWill>, wants_reasons: bool, connack: Option<Packet>) {
        self.state = State::Open(Box::new(Open {
            will,
            filters: BTreeSet::new(),
            unanswered: BTreeMap::new(),
            in_flight: 0,
            wants_reasons,
        }));
        self.outputs.push_back(Output::Opened { client });
        self.send_built(connack);
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

/// Wanted unless refused.
fn wants_reasons(properties: &[Property]) -> bool {
    let refused =
        |p: &Property| matches!(p, Property::RequestProblemInformation(wanted) if wanted.val() == 0);
    !properties.iter().any(refused)
}
