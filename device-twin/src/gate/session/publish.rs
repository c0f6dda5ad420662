//! PUBLISH and its acknowledgements, both ways (MQTT 5.0 §3.3 to §3.7 and §4.3).

use std::time::Duration;

use bus::twin::TwinTopic;
use bus::{Mono, Topic};
use bytes::Bytes;
use mqtt_protocol_core::mqtt::Version;
use mqtt_protocol_core::mqtt::packet::{
    MessageExpiryInterval, Packet, Property, Qos, ReasonString, SubscriptionIdentifier, TopicAlias, v3_1_1,
    v5_0,
};
use mqtt_protocol_core::mqtt::result_code::{PubackReasonCode, PubcompReasonCode, PubrecReasonCode};

use super::{Answer, CloseReason, MAX_IN_FLIGHT, Message, Output, Pending, Session, State, Unanswered};
use crate::gate::queue::Outgoing;
use crate::gate::{Delivery, Refusal};

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
        // Zero is no packet's number (MQTT 5.0 §2.2.1); the protocol layer panics at the second one.
        if properties.iter().any(is_wrong) || (packet == 0 && qos != Qos::AtMostOnce) {
            return self.protocol_error();
        }
        let route = match self.route(&topic, retain) {
            Ok(route) => route,
            Err(refusal) => return self.acknowledge(packet, qos, Err(refusal)),
        };
        if !self.may_be_answered(&topic, properties) {
            return self.acknowledge(packet, qos, Err(Refusal::NotAllowed));
        }
        let State::Open(open) = &self.state else { return };
        let (from, kept) = (Some(open.session), open.kept);
        let message = Message {
            topic,
            payload: Bytes::copy_from_slice(payload),
            qos,
            retain,
            expires: expiry_of(properties).map(|life| self.now + life),
            properties: passed_on(properties),
            from,
        };
        if let State::Open(open) = &mut self.state
            && qos == Qos::ExactlyOnce
        {
            open.receiving.insert(packet);
        }
        let answer = (qos != Qos::AtMostOnce).then(|| self.await_answer(Pending::Publish { packet, qos }));
        let packet = (kept && qos == Qos::ExactlyOnce).then_some(packet);
        self.outputs.push_back(Output::Publish { message, route, answer, packet });
    }

    /// The node says no more on a client's behalf than the client could say itself: it answers commands.
    pub(super) fn may_be_answered(&self, topic: &Topic, properties: &[Property]) -> bool {
        if !matches!(TwinTopic::parse(topic), Some(TwinTopic::Command { .. })) {
            return true;
        }
        let response = properties.iter().find_map(|property| {
            let Property::ResponseTopic(response) = property else { return None };
            // What is no topic is refused with the command.
            Topic::new(response.val()).ok()
        });
        response.is_none_or(|response| self.admitted.permit.may_publish(&response))
    }

    pub(super) fn await_answer(&mut self, what: Pending) -> Answer {
        self.last_answer += 1;
        let answer = Answer(self.last_answer);
        if let State::Open(open) = &mut self.state {
            open.unanswered.insert(answer, Unanswered { what, since: self.now });
        }
        answer
    }

    /// What the client said is safe, or will not be taken. To a connection that is over it only tells what became of the
    /// client's QoS 2 messages.
    pub fn handle_answer(&mut self, answer: Answer, outcome: Result<(), Refusal>, now: Mono) {
        self.now = now;
        if let Some(packet) = self.undecided.remove(&answer)
            && outcome.is_err()
        {
            self.left.received.as_mut().map(|received| received.remove(&packet));
            self.left.not_taken.insert(packet);
        }
        let State::Open(open) = &mut self.state else { return };
        let Some(Unanswered { what, since: _ }) = open.unanswered.remove(&answer) else { return };
        match what {
            Pending::Publish { packet, qos } => self.acknowledge(packet, qos, outcome),
            Pending::Suback { packet, codes } => self.say_suback(packet, codes),
            Pending::Unsuback { packet, codes } => self.say_unsuback(packet, codes),
            Pending::Release { packet } => self.release(packet),
            Pending::Complete { packet } => self.say_pubcomp(packet, true),
            Pending::Nothing => {}
        }
    }

    /// In 3.1.1 a message can only be acknowledged or the connection closed (§3.3.5). What is not taken is acknowledged,
    /// dropped and counted; what is taken and may be forgotten, or may be taken later, is not acknowledged.
    fn acknowledge(&mut self, packet: u16, qos: Qos, outcome: Result<(), Refusal>) {
        self.stats.refused += u64::from(outcome.is_err());
        if let State::Open(open) = &mut self.state
            && outcome.is_err()
            && open.receiving.remove(&packet)
            && open.kept
        {
            let answer = self.await_answer(Pending::Nothing);
            self.outputs.push_back(Output::Forget { packet, answer });
        }
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

    /// PUBREL came: the client will not send this message again.
    pub(super) fn complete(&mut self, packet: u16) {
        let State::Open(open) = &mut self.state else { return };
        let (is_known, kept) = (open.receiving.remove(&packet), open.kept);
        if is_known && kept {
            let answer = self.await_answer(Pending::Complete { packet });
            return self.outputs.push_back(Output::Forget { packet, answer });
        }
        self.say_pubcomp(packet, is_known);
    }

    fn say_pubcomp(&mut self, packet: u16, is_known: bool) {
        let built: Option<Packet> = match self.mqtt.get_protocol_version() {
            Version::V5_0 if !is_known => {
                let pubcomp = v5_0::Pubcomp::builder().packet_id(packet);
                let pubcomp = pubcomp.reason_code(PubcompReasonCode::PacketIdentifierNotFound);
                pubcomp.build().ok().map(Into::into)
            }
            Version::V5_0 => v5_0::Pubcomp::builder().packet_id(packet).build().ok().map(Into::into),
            Version::V3_1_1 | Version::Undetermined => {
                v3_1_1::Pubcomp::builder().packet_id(packet).build().ok().map(Into::into)
            }
        };
        self.send_built(built);
    }

    /// PUBREC came. Where the session is kept, that the client has the message must be safe before it is told to forget
    /// the packet's number.
    pub(super) fn received(&mut self, packet: u16) {
        if matches!(&self.state, State::Open(open) if open.kept) {
            let answer = self.await_answer(Pending::Release { packet });
            self.outputs.push_back(Output::Received { packet, answer });
        } else {
            self.release(packet);
        }
    }

    /// After a PUBREC that says no, nothing follows (MQTT 5.0 §4.3.3).
    pub(super) fn received_5(&mut self, pubrec: &v5_0::Pubrec) {
        if pubrec.reason_code().is_none_or(|code| !code.is_failure()) {
            self.received(pubrec.packet_id());
        }
    }

    fn release(&mut self, packet: u16) {
        let built: Option<Packet> = match self.mqtt.get_protocol_version() {
            Version::V5_0 => v5_0::Pubrel::builder().packet_id(packet).build().ok().map(Into::into),
            Version::V3_1_1 | Version::Undetermined => {
                v3_1_1::Pubrel::builder().packet_id(packet).build().ok().map(Into::into)
            }
        };
        self.send_built(built);
    }

    /// As many as the client's receive maximum allows.
    pub(super) fn release_more(&mut self) {
        while self.mqtt.get_receive_maximum_vacancy_for_send() != Some(0)
            && let State::Open(open) = &mut self.state
            && let Some(packet) = open.to_release.pop_front()
        {
            self.release_again(packet);
        }
    }

    /// PUBREL of a message that went out on a connection before this one. The protocol layer is led through the flow
    /// without a word to the client: told the PUBREL alone, it would count the PUBCOMP against nothing.
    fn release_again(&mut self, packet: u16) {
        debug_assert!(self.between_packets, "in the middle of a packet of the client's");
        if self.mqtt.register_packet_id(packet).is_err() {
            return;
        }
        let Ok(topic) = Topic::new("-") else { return };
        let publish = self.publish(&topic, &[], (Qos::ExactlyOnce, false), Some(packet), (true, vec![]));
        let Some(publish) = publish else { return };
        drop(self.mqtt.send(publish));
        let [high, low] = packet.to_be_bytes();
        drop(self.mqtt.recv(&mut super::Cursor::new(&[0x50, 2, high, low])));
        if let State::Open(open) = &mut self.state {
            open.in_flight.insert(packet, 0);
        }
        self.release(packet);
    }

    /// Sends a message to the client; only after [`Session::wants_delivery`].
    pub fn handle_outgoing(&mut self, outgoing: &Outgoing, now: Mono) {
        self.now = now;
        if !matches!(self.state, State::Open(_)) {
            return;
        }
        let Outgoing { delivery, packet, again } = outgoing;
        if packet.is_none() && delivery.message.is_expired(now) {
            self.stats.expired += 1;
            return;
        }
        let Ok(packet) = self.packet_number(delivery.qos, *packet) else {
            return self.close(CloseReason::TooSlow, now);
        };
        let built = self.message(delivery, packet, *again);
        self.send_publish(built, packet, &delivery.message);
    }

    fn packet_number(&mut self, qos: Qos, wished: Option<u16>) -> Result<Option<u16>, ()> {
        match (qos, wished) {
            (Qos::AtMostOnce, _) => Ok(None),
            (_, Some(packet)) => self.mqtt.register_packet_id(packet).map(|()| Some(packet)).map_err(drop),
            (_, None) => self.next_packet().map(Some).ok_or(()),
        }
    }

    fn next_packet(&mut self) -> Option<u16> {
        let State::Open(open) = &mut self.state else { return None };
        // Fewer than so many are in use.
        for _ in 0..=MAX_IN_FLIGHT {
            open.last_packet = open.last_packet.checked_add(1).unwrap_or(1);
            if self.mqtt.register_packet_id(open.last_packet).is_ok() {
                return Some(open.last_packet);
            }
        }
        None
    }

    fn message(&mut self, delivery: &Delivery, packet: Option<u16>, again: bool) -> Option<Packet> {
        let Delivery { message, qos, retain, subscriptions } = delivery;
        let mut properties = Vec::new();
        if self.mqtt.get_protocol_version() == Version::V5_0 {
            properties.clone_from(&message.properties);
            if let Some(left) = message.seconds_left(self.now) {
                properties.push(Property::MessageExpiryInterval(MessageExpiryInterval::new(left).ok()?));
            }
            for id in subscriptions {
                properties.push(Property::SubscriptionIdentifier(SubscriptionIdentifier::new(*id).ok()?));
            }
        }
        self.publish(&message.topic, &message.payload, (*qos, *retain), packet, (again, properties))
    }

    fn publish(
        &mut self,
        topic: &Topic,
        payload: &[u8],
        (qos, retain): (Qos, bool),
        packet: Option<u16>,
        (again, mut properties): (bool, Vec<Property>),
    ) -> Option<Packet> {
        match self.mqtt.get_protocol_version() {
            Version::V5_0 => {
                let name = self.aliased(topic, &mut properties)?;
                let builder = v5_0::Publish::builder().topic_name(name).ok()?;
                let builder = builder.qos(qos).retain(retain).dup(again).props(properties).payload(payload);
                let builder = match packet {
                    Some(id) => builder.packet_id(id),
                    None => builder,
                };
                builder.build().ok().map(Into::into)
            }
            Version::V3_1_1 | Version::Undetermined => {
                let builder = v3_1_1::Publish::builder().topic_name(topic.as_str()).ok()?;
                let builder = builder.qos(qos).retain(retain).dup(again).payload(payload);
                let builder = match packet {
                    Some(id) => builder.packet_id(id),
                    None => builder,
                };
                builder.build().ok().map(Into::into)
            }
        }
    }

    /// The topic's name, or nothing where the client knows it by its number.
    fn aliased<'a>(&mut self, topic: &'a Topic, properties: &mut Vec<Property>) -> Option<&'a str> {
        let State::Open(open) = &mut self.state else { return Some(topic.as_str()) };
        let Some((number, known)) = open.aliases.number(topic) else { return Some(topic.as_str()) };
        properties.push(Property::TopicAlias(TopicAlias::new(number).ok()?));
        Some(if known { "" } else { topic.as_str() })
    }

    fn send_publish(&mut self, built: Option<Packet>, id: Option<u16>, message: &Message) {
        let before = self.unsent.len();
        if let Some(built) = built {
            self.send(built);
        }
        let sent = self.unsent.len() > before;
        self.stats.sent += u64::from(sent);
        self.stats.too_large += u64::from(!sent);
        let State::Open(open) = &mut self.state else { return };
        if !sent {
            open.aliases.forget(&message.topic);
        }
        match (id, sent) {
            (Some(packet), true) => open.in_flight.insert(packet, message.size()),
            (Some(packet), false) => {
                drop(self.mqtt.release_packet_id(packet));
                if open.kept {
                    self.outputs.push_back(Output::Finished { packet });
                }
            }
            (None, _) => {}
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

/// What a client may not say in PUBLISH (MQTT 5.0 §3.3.4), and an answer that could go nowhere (§3.3.2.3.5).
#[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is wrong there")]
fn is_wrong(property: &Property) -> bool {
    match property {
        Property::SubscriptionIdentifier(_) => true,
        Property::ResponseTopic(topic) => topic.val().contains(['+', '#']),
        _ => false,
    }
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
