//! PUBLISH and its acknowledgements, both ways (MQTT 5.0 §3.3 to §3.7 and §4.3).

use std::time::Duration;

use bus::{Mono, Topic};
use bytes::Bytes;
use mqtt_protocol_core::mqtt::Version;
use mqtt_protocol_core::mqtt::packet::{
    MessageExpiryInterval, Packet, Property, Qos, ReasonString, SubscriptionIdentifier, v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::{PubackReasonCode, PubrecReasonCode};

use super::{Answer, CloseReason, Message, Output, Session, State, Unanswered};
use crate::gate::{Delivery, Refusal, route};

/// A PUBLISH as both versions have it.
struct Incoming<'a> {
    topic: &'a str,
    payload: &'a [u8],
    qos: Qos,
    retain: bool,
    packet: u16,
    properties: &'a [Property],
}

impl Session {
    pub(super) fn handle_publish_3(&mut self, publish: &v3_1_1::Publish) {
        self.handle_incoming(Incoming {
            topic: publish.topic_name(),
            payload: publish.payload().as_slice(),
            qos: publish.qos(),
            retain: publish.retain(),
            packet: publish.packet_id().unwrap_or_default(),
            properties: &[],
        });
    }

    pub(super) fn handle_publish_5(&mut self, publish: &v5_0::Publish) {
        self.handle_incoming(Incoming {
            topic: publish.topic_name(),
            payload: publish.payload().as_slice(),
            qos: publish.qos(),
            retain: publish.retain(),
            packet: publish.packet_id().unwrap_or_default(),
            properties: publish.props(),
        });
    }

    fn handle_incoming(&mut self, incoming: Incoming<'_>) {
        self.stats.received += 1;
        let Incoming { topic, payload, qos, retain, packet, properties } = incoming;
        let Ok(topic) = Topic::new(topic) else { return self.finish(CloseReason::Malformed) };
        if properties.iter().any(|p| matches!(p, Property::SubscriptionIdentifier(_))) {
            return self.finish(CloseReason::Malformed);
        }
        let route = match route(&topic, retain) {
            Ok(route) => route,
            Err(refusal) => return self.acknowledge(packet, qos, Err(refusal)),
        };
        let message = Message {
            topic,
            payload: Bytes::copy_from_slice(payload),
            qos,
            retain,
            expires: expiry_of(properties).map(|life| self.now + life),
            properties: passed_on(properties),
            from: Some(self.id),
        };
        let answer = (route.reaches_node() && qos != Qos::AtMostOnce).then(|| self.await_answer(packet, qos));
        self.outputs.push_back(Output::Publish { message, route, answer });
        if answer.is_none() {
            self.acknowledge(packet, qos, Ok(()));
        }
    }

    fn await_answer(&mut self, packet: u16, qos: Qos) -> Answer {
        self.last_answer += 1;
        let answer = Answer(self.last_answer);
        if let State::Open(open) = &mut self.state {
            open.unanswered.insert(answer, Unanswered { packet, qos, since: self.now });
        }
        answer
    }

    /// The node has the message safe, or will not have it. Late answers are ignored.
    pub fn handle_answer(&mut self, answer: Answer, outcome: Result<(), Refusal>, now: Mono) {
        self.now = now;
        let State::Open(open) = &mut self.state else { return };
        if let Some(Unanswered { packet, qos, since: _ }) = open.unanswered.remove(&answer) {
            self.acknowledge(packet, qos, outcome);
        }
    }

    /// In 3.1.1 a message can only be acknowledged or the connection closed (§3.3.5). What is not taken is acknowledged,
    /// dropped and counted; what is taken and may be forgotten, or may be taken later, is not acknowledged.
    fn acknowledge(&mut self, packet: u16, qos: Qos, outcome: Result<(), Refusal>) {
        self.stats.refused += u64::from(outcome.is_err());
        let is_5 = self.mqtt.get_protocol_version() == Version::V5_0;
        let built = match (qos, is_5) {
            (Qos::AtMostOnce, _) => return,
            (_, false) if matches!(outcome, Err(Refusal::Disk | Refusal::Quota)) => {
                return self.finish(CloseReason::Unkept);
            }
            (Qos::AtLeastOnce, true) => puback_5(packet, outcome, self.reason_of(outcome)),
            (Qos::AtLeastOnce, false) => {
                v3_1_1::Puback::builder().packet_id(packet).build().ok().map(Into::into)
            }
            (Qos::ExactlyOnce, true) => pubrec_5(packet, outcome, self.reason_of(outcome)),
            (Qos::ExactlyOnce, false) => {
                v3_1_1::Pubrec::builder().packet_id(packet).build().ok().map(Into::into)
            }
        };
        self.send_built(built);
    }

    /// The text of a refusal, for a client that wants it.
    fn reason_of(&self, outcome: Result<(), Refusal>) -> Option<Property> {
        let refusal = outcome.err()?;
        let wants = matches!(&self.state, State::Open(open) if open.wants_reasons);
        ReasonString::new(refusal.to_string()).ok().filter(|_| wants).map(Property::ReasonString)
    }

    pub(super) fn complete_3(&mut self, packet: u16) {
        let built = v3_1_1::Pubcomp::builder().packet_id(packet).build();
        self.send_built(built.ok().map(Into::into));
    }

    pub(super) fn complete_5(&mut self, packet: u16) {
        let built = v5_0::Pubcomp::builder().packet_id(packet).build();
        self.send_built(built.ok().map(Into::into));
    }

    pub(super) fn release_3(&mut self, packet: u16) {
        let built = v3_1_1::Pubrel::builder().packet_id(packet).build();
        self.send_built(built.ok().map(Into::into));
    }

    /// After a PUBREC that says no, nothing follows (MQTT 5.0 §4.3.3).
    pub(super) fn release_5(&mut self, pubrec: &v5_0::Pubrec) {
        if pubrec.reason_code().is_some_and(|code| code.is_failure()) {
            return;
        }
        let built = v5_0::Pubrel::builder().packet_id(pubrec.packet_id()).build();
        self.send_built(built.ok().map(Into::into));
    }

    /// Sends a message to the client; only after [`Session::wants_delivery`].
    pub fn handle_delivery(&mut self, delivery: &Delivery, now: Mono) {
        self.now = now;
        if !matches!(self.state, State::Open(_)) {
            return;
        }
        if delivery.message.is_expired(now) {
            self.stats.expired += 1;
            return;
        }
        let packet = match delivery.qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce | Qos::ExactlyOnce => match self.mqtt.acquire_packet_id() {
                Ok(id) => Some(id),
                Err(_) => return self.close(CloseReason::TooSlow, now),
            },
        };
        let built = match self.mqtt.get_protocol_version() {
            Version::V5_0 => publish_5(delivery, packet, now),
            Version::V3_1_1 | Version::Undetermined => publish_3(delivery, packet),
        };
        self.send_publish(built, packet);
    }

    fn send_publish(&mut self, built: Option<Packet>, id: Option<u16>) {
        let before = self.unsent.len();
        if let Some(built) = built {
            self.send(built);
        }
        let sent = self.unsent.len() > before;
        self.stats.sent += u64::from(sent);
        self.stats.too_large += u64::from(!sent);
        match (id, sent, &mut self.state) {
            (Some(_), true, State::Open(open)) => open.in_flight += 1,
            (Some(id), false, _) => drop(self.mqtt.release_packet_id(id)),
            _ => {}
        }
    }
}

fn puback_5(packet: u16, outcome: Result<(), Refusal>, reason: Option<Property>) -> Option<Packet> {
    let code = outcome.map_or_else(Refusal::puback, |()| PubackReasonCode::Success);
    let puback = v5_0::Puback::builder().packet_id(packet).reason_code(code);
    match reason {
        Some(reason) => puback.props(vec![reason]),
        None => puback,
    }
    .build()
    .ok()
    .map(Into::into)
}

fn pubrec_5(packet: u16, outcome: Result<(), Refusal>, reason: Option<Property>) -> Option<Packet> {
    let code = outcome.map_or_else(Refusal::pubrec, |()| PubrecReasonCode::Success);
    let pubrec = v5_0::Pubrec::builder().packet_id(packet).reason_code(code);
    match reason {
        Some(reason) => pubrec.props(vec![reason]),
        None => pubrec,
    }
    .build()
    .ok()
    .map(Into::into)
}

fn publish_3(delivery: &Delivery, packet: Option<u16>) -> Option<Packet> {
    let Delivery { message, qos, retain, subscription: _ } = delivery;
    let builder = v3_1_1::Publish::builder().topic_name(message.topic.as_str()).ok()?;
    let builder = builder.qos(*qos).retain(*retain).payload(&message.payload[..]);
    let builder = match packet {
        Some(id) => builder.packet_id(id),
        None => builder,
    };
    builder.build().ok().map(Into::into)
}

fn publish_5(delivery: &Delivery, packet: Option<u16>, now: Mono) -> Option<Packet> {
    let Delivery { message, qos, retain, subscription } = delivery;
    let mut properties = message.properties.clone();
    if let Some(left) = message.seconds_left(now) {
        properties.push(Property::MessageExpiryInterval(MessageExpiryInterval::new(left).ok()?));
    }
    if let Some(id) = subscription {
        properties.push(Property::SubscriptionIdentifier(SubscriptionIdentifier::new(*id).ok()?));
    }
    let builder = v5_0::Publish::builder().topic_name(message.topic.as_str()).ok()?;
    let builder = builder.qos(*qos).retain(*retain).props(properties).payload(&message.payload[..]);
    let builder = match packet {
        Some(id) => builder.packet_id(id),
        None => builder,
    };
    builder.build().ok().map(Into::into)
}

pub(super) fn expiry_of(properties: &[Property]) -> Option<Duration> {
    properties.iter().find_map(|property| {
        if let Property::MessageExpiryInterval(life) = property {
            Some(Duration::from_secs(life.val().into()))
        } else {
            None
        }
    })
}

/// The properties that a receiver gets as the publisher set them (MQTT 5.0 §3.3.2.3).
pub(super) fn passed_on(properties: &[Property]) -> Vec<Property> {
    let is_passed_on = |property: &&Property| {
        matches!(
            property,
            Property::PayloadFormatIndicator(_)
                | Property::ContentType(_)
                | Property::ResponseTopic(_)
                | Property::CorrelationData(_)
                | Property::UserProperty(_)
        )
    };
    properties.iter().filter(is_passed_on).cloned().collect()
}
