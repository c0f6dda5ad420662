//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5.0 §3.8 to §3.11).

use mqtt_protocol_core::mqtt::packet::{Property, Qos, SubEntry, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::{SubackReasonCode, SubackReturnCode, UnsubackReasonCode};

use super::{Filter, MAX_FILTERS, Output, Session, State};
use crate::gate::hub::Wish;
use crate::gate::policy;

impl Session {
    pub(super) fn handle_subscribe_3(&mut self, subscribe: &v3_1_1::Subscribe) {
        let codes = subscribe
            .entries()
            .iter()
            .map(|entry| match self.subscribe(entry, None) {
                Ok(Qos::AtMostOnce) => SubackReturnCode::SuccessMaximumQos0,
                Ok(Qos::AtLeastOnce) => SubackReturnCode::SuccessMaximumQos1,
                Ok(Qos::ExactlyOnce) => SubackReturnCode::SuccessMaximumQos2,
                Err(_) => SubackReturnCode::Failure,
            })
            .collect();
        let suback = v3_1_1::Suback::builder().packet_id(subscribe.packet_id()).return_codes(codes).build();
        self.send_built(suback.ok().map(Into::into));
    }

    pub(super) fn handle_subscribe_5(&mut self, subscribe: &v5_0::Subscribe) {
        let identifier = identifier_of(subscribe.props());
        let codes = subscribe
            .entries()
            .iter()
            .map(|entry| match self.subscribe(entry, identifier) {
                Ok(Qos::AtMostOnce) => SubackReasonCode::GrantedQos0,
                Ok(Qos::AtLeastOnce) => SubackReasonCode::GrantedQos1,
                Ok(Qos::ExactlyOnce) => SubackReasonCode::GrantedQos2,
                Err(code) => code,
            })
            .collect();
        let suback = v5_0::Suback::builder().packet_id(subscribe.packet_id()).reason_codes(codes).build();
        self.send_built(suback.ok().map(Into::into));
    }

    /// The granted QoS is always the wished one.
    fn subscribe(&mut self, entry: &SubEntry, identifier: Option<u32>) -> Result<Qos, SubackReasonCode> {
        let filter = policy::subscribable(entry.topic_filter())?;
        if !self.may_subscribe(&filter) {
            return Err(SubackReasonCode::NotAuthorized);
        }
        let State::Open(open) = &mut self.state else { return Err(SubackReasonCode::UnspecifiedError) };
        if open.filters.len() >= MAX_FILTERS && !open.filters.contains(&filter) {
            return Err(SubackReasonCode::QuotaExceeded);
        }
        open.filters.insert(filter.clone());
        let options = entry.sub_opts();
        self.outputs.push_back(Output::Subscribe(Wish {
            filter,
            qos: options.qos(),
            no_local: options.nl(),
            as_published: options.rap(),
            retained: options.rh(),
            identifier,
        }));
        Ok(options.qos())
    }

    pub(super) fn handle_unsubscribe_3(&mut self, unsubscribe: &v3_1_1::Unsubscribe) {
        for entry in unsubscribe.entries() {
            self.unsubscribe(entry.as_str());
        }
        let unsuback = v3_1_1::Unsuback::builder().packet_id(unsubscribe.packet_id()).build();
        self.send_built(unsuback.ok().map(Into::into));
    }

    pub(super) fn handle_unsubscribe_5(&mut self, unsubscribe: &v5_0::Unsubscribe) {
        let codes = unsubscribe.entries().iter().map(|entry| self.unsubscribe(entry.as_str())).collect();
        let unsuback =
            v5_0::Unsuback::builder().packet_id(unsubscribe.packet_id()).reason_codes(codes).build();
        self.send_built(unsuback.ok().map(Into::into));
    }

    fn unsubscribe(&mut self, text: &str) -> UnsubackReasonCode {
        let Ok(filter) = Filter::new(text) else { return UnsubackReasonCode::TopicFilterInvalid };
        let State::Open(open) = &mut self.state else { return UnsubackReasonCode::UnspecifiedError };
        if !open.filters.remove(&filter) {
            return UnsubackReasonCode::NoSubscriptionExisted;
        }
        self.outputs.push_back(Output::Unsubscribe(filter));
        UnsubackReasonCode::Success
    }
}

fn identifier_of(properties: &[Property]) -> Option<u32> {
    properties.iter().find_map(|property| {
        if let Property::SubscriptionIdentifier(id) = property { Some(id.val()) } else { None }
    })
}
