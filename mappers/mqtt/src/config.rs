//! What a manifest says of a device that speaks MQTT, checked.

use kubebus_sdk::{Error, JsonSchema};
use mapper_payload::{Pointer, Template};
use serde::Deserialize;

/// The port of MQTT without TLS, where the settings name none.
const PORT: u16 = 1883;

/// Longest topic or topic level that a manifest may name, in bytes.
const MAX_TOPIC: usize = 1024;

/// How a device is reached: its broker and how it speaks there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "kubebus_sdk::schemars")]
pub struct Config {
    /// The broker that the device speaks to, `host:port` (MQTT 5, plain TCP; the port may be left out).
    pub broker: String,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub password: Option<String>,
    #[serde(default)]
    pub shape: Shape,
    /// Tasmota: the device's topic. Zigbee2MQTT: its friendly name.
    #[serde(default)]
    pub topic: Option<String>,
    /// Tasmota: its FullTopic, if it was changed. Must name %prefix% and %topic%.
    #[serde(default)]
    pub full_topic: Option<String>,
    /// Zigbee2MQTT: its base topic, if it was changed.
    #[serde(default)]
    pub base_topic: Option<String>,
    /// Plain: where the device says whether it is there.
    #[serde(default)]
    pub availability: Option<Availability>,
    /// Sparkplug: the group's id.
    #[serde(default)]
    pub group: Option<String>,
    /// Sparkplug: the edge node's id.
    #[serde(default)]
    pub node: Option<String>,
    /// Sparkplug: the device's id; without one the metrics are the edge node's own.
    #[serde(default)]
    pub device: Option<String>,
    /// Sparkplug: act as the primary host application of this id: its STATE topic is served.
    #[serde(default)]
    pub host_id: Option<String>,
}

/// How a device speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(crate = "kubebus_sdk::schemars")]
pub enum Shape {
    /// Each property names its topics.
    #[default]
    Plain,
    Tasmota,
    Zigbee2mqtt,
    Sparkplug,
}

/// Where a plain device says whether it is there, often as its will.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "kubebus_sdk::schemars")]
pub struct Availability {
    pub topic: String,
    #[serde(default = "online")]
    pub online: String,
    #[serde(default = "offline")]
    pub offline: String,
}

fn online() -> String {
    "online".to_owned()
}

fn offline() -> String {
    "offline".to_owned()
}

/// Where a property is in what the device says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "kubebus_sdk::schemars")]
pub struct Address {
    /// Plain: the topic that the value comes on.
    #[serde(default)]
    pub topic: Option<String>,
    /// Where in the JSON message the value is; without one it is the whole message. Tasmota, Zigbee2MQTT: `/POWER`,
    /// `/ENERGY/Power`, `/state`.
    #[serde(default)]
    pub pointer: Option<Pointer>,
    /// Where in the message the time of the measurement is: seconds or milliseconds since 1970, or RFC 3339.
    #[serde(default)]
    pub time: Option<Pointer>,
    /// What the device says for true, if not one of the usual words.
    #[serde(default)]
    pub on: Option<String>,
    #[serde(default)]
    pub off: Option<String>,
    /// Plain: where a write goes.
    #[serde(default)]
    pub write: Option<Write>,
    /// Tasmota: the command that writes it, if it is not the last part of the pointer.
    #[serde(default)]
    pub command: Option<String>,
    /// Zigbee2MQTT: the device can be asked for it (`/get`) when it is polled.
    #[serde(default)]
    pub get: bool,
    /// Sparkplug: the metric's name.
    #[serde(default)]
    pub metric: Option<String>,
}

/// How a plain property is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "kubebus_sdk::schemars")]
pub struct Write {
    pub topic: String,
    /// What is sent; without one the plain value.
    #[serde(default)]
    pub payload: Option<Template>,
}

/// What devices of one connection have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Access {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) credentials: Option<(String, String)>,
    pub(crate) host_id: Option<String>,
}

impl Config {
    pub(crate) fn access(&self) -> Result<Access, Error> {
        let (host, port) = match self.broker.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)),
            None => (self.broker.as_str(), Some(PORT)),
        };
        let Some(port) = port.filter(|_| !host.is_empty()) else {
            return Err(wrong("broker", "looks like 10.0.0.5:1883"));
        };
        let credentials = match (&self.user, &self.password) {
            (Some(user), password) => Some((user.clone(), password.clone().unwrap_or_default())),
            (None, None) => None,
            (None, Some(_)) => return Err(wrong("password", "needs a user")),
        };
        if let Some(host_id) = &self.host_id {
            level("host_id", host_id)?;
        }
        Ok(Access { host: host.to_owned(), port, credentials, host_id: self.host_id.clone() })
    }
}

pub(crate) fn wrong(field: &str, why: &str) -> Error {
    Error::Config(format!("{field}: {why}"))
}

/// A setting without which this shape cannot be served.
pub(crate) fn needed<'c>(field: &str, value: Option<&'c String>) -> Result<&'c str, Error> {
    value.map(String::as_str).ok_or_else(|| wrong(field, "is needed by this shape"))
}

/// One level of a topic.
pub(crate) fn level<'t>(field: &str, text: &'t str) -> Result<&'t str, Error> {
    let fits = !text.contains('/') && is_topic(text);
    if fits { Ok(text) } else { Err(wrong(field, "must be one level of a topic: no '/', '+', '#'")) }
}

/// A topic that can be published to.
pub(crate) fn topic<'t>(field: &str, text: &'t str) -> Result<&'t str, Error> {
    if is_topic(text) { Ok(text) } else { Err(wrong(field, "must be a topic without wildcards")) }
}

pub(crate) fn is_topic(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TOPIC && !text.contains(['+', '#', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_broker_is_a_host_and_perhaps_a_port() {
        let access = |broker: &str| config(&format!(r#"{{"broker":"{broker}"}}"#)).access();
        let to = |host: &str, port| Access { host: host.into(), port, credentials: None, host_id: None };
        assert_eq!(access("10.0.0.5:1884"), Ok(to("10.0.0.5", 1884)));
        assert_eq!(access("broker"), Ok(to("broker", 1883)));
        for bad in ["", ":1883", "host:0", "host:x", "host:99999"] {
            assert!(matches!(access(bad), Err(Error::Config(why)) if why.starts_with("broker")), "{bad}");
        }
    }

    #[test]
    fn a_password_alone_and_an_unknown_field_are_refused() {
        let lonely = config(r#"{"broker":"b","password":"x"}"#).access();
        assert!(matches!(lonely, Err(Error::Config(why)) if why.starts_with("password")));
        let unknown = serde_json::from_str::<Config>(r#"{"broker":"b","brokr":"x"}"#).unwrap_err();
        assert!(unknown.to_string().contains("brokr"));
        assert!(serde_json::from_str::<Address>(r#"{"topc":"x"}"#).is_err());
    }

    #[test]
    fn only_devices_with_the_same_access_share_a_connection() {
        let access = |json| config(json).access().unwrap();
        let a = access(r#"{"broker":"b","user":"u","shape":"tasmota"}"#);
        assert_eq!(a, access(r#"{"broker":"b:1883","user":"u","shape":"plain"}"#));
        assert_ne!(a, access(r#"{"broker":"b","user":"v"}"#));
        assert_ne!(a, access(r#"{"broker":"b","user":"u","host_id":"h"}"#));
    }
}
