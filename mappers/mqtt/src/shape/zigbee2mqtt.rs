//! Zigbee2MQTT (<https://www.zigbee2mqtt.io/guide/usage/mqtt_topics_and_messages.html>): a device's state is JSON on
//! `zigbee2mqtt/NAME`, whether it is there on `zigbee2mqtt/NAME/availability`; it is written on `.../set` and asked on
//! `.../get`. When the bridge itself is gone (`zigbee2mqtt/bridge/state`), so are its devices.

use kubebus_sdk::{Error, Point, Value};
use mapper_payload::{Body, Words, json_of};
use serde_json::{Map, Value as Json};

use super::{Command, Meaning, bad, body, words, words_or};
use crate::config::{self, Address, Config};

/// The base topic as it is when nobody has changed it.
const BASE: &str = "zigbee2mqtt";

/// See the module's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Zigbee {
    state: String,
    availability: String,
    bridge: String,
}

impl Zigbee {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let name = config::topic("topic", config::needed("topic", config.topic.as_ref())?)?;
        let base = config::topic("base_topic", config.base_topic.as_deref().unwrap_or(BASE))?;
        let state = format!("{base}/{name}");
        Ok(Self {
            availability: format!("{state}/availability"),
            state,
            bridge: format!("{base}/bridge/state"),
        })
    }

    pub(super) fn filters(&self) -> Vec<String> {
        vec![self.state.clone(), self.availability.clone(), self.bridge.clone()]
    }

    pub(super) fn understand(&self, topic: &str, payload: &[u8]) -> Meaning {
        if topic == self.state {
            return body(payload);
        }
        if topic != self.availability && topic != self.bridge {
            return Meaning::Nothing;
        }
        match (Body::parse(payload).as_ref().and_then(state_word), topic == self.bridge) {
            (Some("offline"), true) => Meaning::Bridge(false),
            (Some("online"), true) => Meaning::Bridge(true),
            (Some("offline"), false) => Meaning::Online(false),
            (Some("online"), false) => Meaning::Online(true),
            (Some(_) | None, _) => Meaning::Nothing,
        }
    }

    pub(super) fn command(&self, point: &Point<Address>, value: &Value) -> Result<Command, Error> {
        let Some(pointer) = &point.address.pointer else {
            return Err(bad(point, "pointer: is needed by this shape, such as \"/state\""));
        };
        let document = pointer.around(json_of(value, &switch_words(&point.address)));
        let payload = document.to_string().into_bytes();
        Ok(Command { topic: format!("{}/set", self.state), payload, name: pointer.to_string() })
    }

    /// One question for all points that can be asked for.
    pub(super) fn question<'a>(
        &self,
        addresses: impl Iterator<Item = &'a Address>,
    ) -> Option<(String, String)> {
        let askable = addresses.filter(|address| address.get);
        let keys = askable.filter_map(|address| address.pointer.as_ref()?.first());
        let wanted: Map<String, Json> = keys.map(|key| (key.to_owned(), Json::from(""))).collect();
        (!wanted.is_empty()).then(|| (format!("{}/get", self.state), Json::Object(wanted).to_string()))
    }
}

/// Switches are `ON` and `OFF` (`state`, `state_left`), other binary values JSON's own.
fn switch_words(address: &Address) -> Words {
    let is_switch =
        address.pointer.as_ref().and_then(|p| p.last()).is_some_and(|key| key.starts_with("state"));
    if is_switch { words_or(address, "ON", "OFF") } else { words(address) }
}

/// `online`, or `{"state":"online"}` since version 1.31.
fn state_word(body: &Body) -> Option<&str> {
    body.0.as_str().or_else(|| body.0.get("state")?.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::Voice;
    use super::*;
    use serde_json::json;

    fn voice() -> Voice {
        let json = r#"{"broker":"b","shape":"zigbee2mqtt","topic":"attic/lamp"}"#;
        Voice::new(&serde_json::from_str(json).unwrap()).unwrap()
    }

    #[test]
    fn messages_are_understood_as_zigbee2mqtt_means_them() {
        let voice = voice();
        let table = [
            ("zigbee2mqtt/attic/lamp", r#"{"state":"ON"}"#, Meaning::Body(Body(json!({"state": "ON"})))),
            ("zigbee2mqtt/attic/lamp/availability", "online", Meaning::Online(true)),
            ("zigbee2mqtt/attic/lamp/availability", r#"{"state":"offline"}"#, Meaning::Online(false)),
            ("zigbee2mqtt/bridge/state", r#"{"state":"offline"}"#, Meaning::Bridge(false)),
            ("zigbee2mqtt/bridge/state", "online", Meaning::Bridge(true)),
            ("zigbee2mqtt/attic/lamp/availability", "[]", Meaning::Nothing),
            ("zigbee2mqtt/other", "{}", Meaning::Nothing),
        ];
        for (topic, payload, meaning) in table {
            assert_eq!(voice.understand(topic, payload.as_bytes()), meaning, "{topic} {payload}");
        }
    }

    #[test]
    fn only_what_can_be_asked_for_is_asked_for() {
        let address = |json| serde_json::from_value::<Address>(json).unwrap();
        let addresses = [
            address(json!({"pointer": "/state", "get": true})),
            address(json!({"pointer": "/color/x", "get": true})),
            address(json!({"pointer": "/battery"})),
        ];
        let asked = voice().questions(addresses.iter());
        assert_eq!(asked, [("zigbee2mqtt/attic/lamp/get".into(), r#"{"color":"","state":""}"#.into())]);
        assert_eq!(voice().questions(addresses[2..].iter()), []);
    }
}
