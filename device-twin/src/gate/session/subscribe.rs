//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5.0 §3.8 to §3.11).

use mqtt_protocol_core::mqtt::Version;
use mqtt_protocol_core::mqtt::packet::{Packet, Property, Qos, SubEntry, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::{SubackReasonCode, SubackReturnCode, UnsubackReasonCode};

use super::{MAX_FILTERS, Output, Pending, Session, State, Wanted};
use crate::gate::hub::Wish;
use crate::gate::policy;
use crate::gate::subscriptions::Subscription;

impl Session {
    pub(super) fn handle_subscribe_3(&mut self, subscribe: &v3_1_1::Subscribe) {
        self.handle_subscribe(subscribe.packet_id(), subscribe.entries(), None);
    }

    pub(super) fn handle_subscribe_5(&mut self, subscribe: &v5_0::Subscribe) {
        // MQTT 5.0 §3.8.3.1: a group's members cannot refuse their own messages.
        let is_wrong =
            |entry: &SubEntry| entry.sub_opts().nl() && entry.topic_filter().starts_with("$share/");
        if subscribe.entries().iter().any(is_wrong) {
            return self.protocol_error();
        }
        let identifier = identifier_of(subscribe.props());
        self.handle_subscribe(subscribe.packet_id(), subscribe.entries(), identifier);
    }

    fn handle_subscribe(&mut self, packet: u16, entries: &[SubEntry], identifier: Option<u32>) {
        if packet == 0 {
            return self.protocol_error();
        }
        let mut wishes = Vec::new();
        let codes = entries.iter().map(|entry| {
            let wish = self.wish(entry, identifier)?;
            let qos = wish.how.qos;
            wishes.push(wish);
            Ok(qos)
        });
        let codes = codes.collect();
        let answer = self.await_answer(Pending::Suback { packet, codes });
        self.outputs.push_back(Output::Subscribe { wishes, answer });
    }

    /// The granted QoS is always the wished one.
    fn wish(&mut self, entry: &SubEntry, identifier: Option<u32>) -> Result<Wish, SubackReasonCode> {
        let wanted = policy::subscribable(entry.topic_filter())?;
        if !self.may_subscribe(&wanted.filter) {
            return Err(SubackReasonCode::NotAuthorized);
        }
        let State::Open(open) = &mut self.state else { return Err(SubackReasonCode::UnspecifiedError) };
        if open.filters.len() >= MAX_FILTERS && !open.filters.contains(&wanted) {
            return Err(SubackReasonCode::QuotaExceeded);
        }
        open.filters.insert(wanted.clone());
        let options = entry.sub_opts();
        let how = Subscription {
            qos: options.qos(),
            no_local: options.nl(),
            as_published: options.rap(),
            identifier,
        };
        Ok(Wish { wanted, how, retained: options.rh() })
    }

    pub(super) fn say_suback(&mut self, packet: u16, codes: Vec<Result<Qos, SubackReasonCode>>) {
        let built: Option<Packet> = match self.mqtt.get_protocol_version() {
            Version::V5_0 => {
                let codes = codes.into_iter().map(code_5).collect();
                let suback = v5_0::Suback::builder().packet_id(packet).reason_codes(codes);
                suback.build().ok().map(Into::into)
            }
            Version::V3_1_1 | Version::Undetermined => {
                let codes = codes.into_iter().map(code_3).collect();
                let suback = v3_1_1::Suback::builder().packet_id(packet).return_codes(codes);
                suback.build().ok().map(Into::into)
            }
        };
        self.send_built(built);
    }

    pub(super) fn handle_unsubscribe_3(&mut self, unsubscribe: &v3_1_1::Unsubscribe) {
        let texts = unsubscribe.entries().iter().map(|entry| entry.as_str());
        self.handle_unsubscribe(unsubscribe.packet_id(), texts);
    }

    pub(super) fn handle_unsubscribe_5(&mut self, unsubscribe: &v5_0::Unsubscribe) {
        let texts = unsubscribe.entries().iter().map(|entry| entry.as_str());
        self.handle_unsubscribe(unsubscribe.packet_id(), texts);
    }

    fn handle_unsubscribe<'a>(&mut self, packet: u16, texts: impl Iterator<Item = &'a str>) {
        if packet == 0 {
            return self.protocol_error();
        }
        let mut all = Vec::new();
        let codes = texts.map(|text| match self.unwish(text) {
            Ok(wanted) => {
                all.push(wanted);
                UnsubackReasonCode::Success
            }
            Err(code) => code,
        });
        let codes = codes.collect();
        let answer = self.await_answer(Pending::Unsuback { packet, codes });
        self.outputs.push_back(Output::Unsubscribe { wanted: all, answer });
    }

    fn unwish(&mut self, text: &str) -> Result<Wanted, UnsubackReasonCode> {
        let wanted = policy::subscribable(text).map_err(|_| UnsubackReasonCode::TopicFilterInvalid)?;
        let State::Open(open) = &mut self.state else { return Err(UnsubackReasonCode::UnspecifiedError) };
        if !open.filters.remove(&wanted) {
            return Err(UnsubackReasonCode::NoSubscriptionExisted);
        }
        Ok(wanted)
    }

    pub(super) fn say_unsuback(&mut self, packet: u16, codes: Vec<UnsubackReasonCode>) {
        let built: Option<Packet> = match self.mqtt.get_protocol_version() {
            Version::V5_0 => {
                let unsuback = v5_0::Unsuback::builder().packet_id(packet).reason_codes(codes);
                unsuback.build().ok().map(Into::into)
            }
            Version::V3_1_1 | Version::Undetermined => {
                v3_1_1::Unsuback::builder().packet_id(packet).build().ok().map(Into::into)
            }
        };
        self.send_built(built);
    }
}

fn code_5(granted: Result<Qos, SubackReasonCode>) -> SubackReasonCode {
    match granted {
        Ok(Qos::AtMostOnce) => SubackReasonCode::GrantedQos0,
        Ok(Qos::AtLeastOnce) => SubackReasonCode::GrantedQos1,
        Ok(Qos::ExactlyOnce) => SubackReasonCode::GrantedQos2,
        Err(code) => code,
    }
}

fn code_3(granted: Result<Qos, SubackReasonCode>) -> SubackReturnCode {
    match granted {
        Ok(Qos::AtMostOnce) => SubackReturnCode::SuccessMaximumQos0,
        Ok(Qos::AtLeastOnce) => SubackReturnCode::SuccessMaximumQos1,
        Ok(Qos::ExactlyOnce) => SubackReturnCode::SuccessMaximumQos2,
        Err(_) => SubackReturnCode::Failure,
    }
}

fn identifier_of(properties: &[Property]) -> Option<u32> {
    properties.iter().find_map(|property| {
        if let Property::SubscriptionIdentifier(id) = property { Some(id.val()) } else { None }
    })
}
