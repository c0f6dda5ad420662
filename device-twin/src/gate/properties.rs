//! The properties that MQTT 5 passes on, here and on the bus.

use bus::{Properties, Qos};
use mqtt_protocol_core::mqtt::packet::{
    ContentType, CorrelationData, PayloadFormat, PayloadFormatIndicator, Property, Qos as MqttQos,
    ResponseTopic, UserProperty,
};

/// As the bus carries them; all others are the broker's own.
pub fn to_bus(properties: &[Property]) -> Properties {
    let mut all = Properties::default();
    for property in properties {
        if let Property::PayloadFormatIndicator(format) = property {
            all.text = Some(format.val() == PayloadFormat::String as u8);
        } else if let Property::ContentType(kind) = property {
            all.content_type = Some(kind.val().to_owned());
        } else if let Property::ResponseTopic(topic) = property {
            all.response_topic = Some(topic.val().to_owned());
        } else if let Property::CorrelationData(data) = property {
            all.correlation = Some(data.val().to_vec());
        } else if let Property::UserProperty(user) = property {
            all.user.push((user.key().to_owned(), user.val().to_owned()));
        }
    }
    all
}

/// Bytes that they pin.
pub fn size(properties: &[Property]) -> usize {
    let of = |property: &Property| {
        if let Property::ContentType(kind) = property {
            kind.val().len()
        } else if let Property::ResponseTopic(topic) = property {
            topic.val().len()
        } else if let Property::CorrelationData(data) = property {
            data.val().len()
        } else if let Property::UserProperty(user) = property {
            user.key().len() + user.val().len()
        } else {
            0
        }
    };
    properties.iter().map(|property| size_of::<Property>() + of(property)).sum()
}

/// As clients get them. What MQTT cannot say is left out: a peer may send anything.
pub fn from_bus(properties: &Properties) -> Vec<Property> {
    let Properties { text, content_type, response_topic, correlation, user } = properties;
    let format = text.map(|text| if text { PayloadFormat::String } else { PayloadFormat::Binary });
    let format = format.and_then(|format| PayloadFormatIndicator::new(format).ok());
    let kind = content_type.as_ref().and_then(|kind| ContentType::new(kind.as_str()).ok());
    // A response topic is one to publish to (MQTT 5.0 §3.3.2.3.5).
    let topic = response_topic.as_ref().filter(|topic| !topic.contains(['+', '#']));
    let topic = topic.and_then(|topic| ResponseTopic::new(topic.as_str()).ok());
    let data = correlation.as_ref().and_then(|data| CorrelationData::new(data.clone()).ok());
    let user = user.iter().filter_map(|(key, value)| UserProperty::new(key.as_str(), value.as_str()).ok());
    let single = [
        format.map(Property::PayloadFormatIndicator),
        kind.map(Property::ContentType),
        topic.map(Property::ResponseTopic),
        data.map(Property::CorrelationData),
    ];
    single.into_iter().flatten().chain(user.map(Property::UserProperty)).collect()
}

pub fn qos_to_bus(qos: MqttQos) -> Qos {
    match qos {
        MqttQos::AtMostOnce => Qos::AtMostOnce,
        MqttQos::AtLeastOnce => Qos::AtLeastOnce,
        MqttQos::ExactlyOnce => Qos::ExactlyOnce,
    }
}

pub fn qos_from_bus(qos: Qos) -> MqttQos {
    match qos {
        Qos::AtMostOnce => MqttQos::AtMostOnce,
        Qos::AtLeastOnce => MqttQos::AtLeastOnce,
        Qos::ExactlyOnce => MqttQos::ExactlyOnce,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_on_comes_back_from_the_bus() {
        let all = Properties {
            text: Some(true),
            content_type: Some("text/plain".into()),
            response_topic: Some("mesh/answers".into()),
            correlation: Some(vec![0, 255]),
            user: vec![("k".into(), "1".into()), ("k".into(), "2".into())],
        };
        for properties in [all, Properties::default()] {
            assert_eq!(to_bus(&from_bus(&properties)), properties);
        }
    }

    #[test]
    fn what_mqtt_cannot_say_is_left_out() {
        let properties = Properties { response_topic: Some("a/#".into()), ..Properties::default() };
        assert_eq!(from_bus(&properties), []);
    }
}
