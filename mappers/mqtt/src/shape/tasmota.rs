//! Tasmota (<https://tasmota.github.io/docs/MQTT/>, <https://tasmota.github.io/docs/Commands/>): a device speaks JSON on
//! `stat/TOPIC/...` and `tele/TOPIC/...`, its will is on `tele/TOPIC/LWT`, and it takes plain words on
//! `cmnd/TOPIC/COMMAND`. It answers a command on `stat/TOPIC/RESULT`, also one that it does not know.

use kubebus_sdk::{Error, Point, Value};
use mapper_payload::{Body, text_of};
use serde_json::Value as Json;

use super::{Command, Meaning, bad, words_or};
use crate::config::{self, Address, Config};

/// FullTopic as it is when nobody has changed it.
const FULL_TOPIC: &str = "%prefix%/%topic%/";

/// The state (`STATUS 11`) and the sensors (`STATUS 10`): asking changes nothing in the device.
const QUESTIONS: [&str; 2] = ["11", "10"];

/// See the module's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tasmota {
    tele: String,
    stat: String,
    cmnd: String,
}

impl Tasmota {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let topic = config::topic("topic", config::needed("topic", config.topic.as_ref())?)?;
        let full = config.full_topic.as_deref().unwrap_or(FULL_TOPIC);
        if !full.contains("%prefix%") || !full.contains("%topic%") {
            return Err(config::wrong("full_topic", "must name %prefix% and %topic%"));
        }
        let slash = if full.ends_with('/') { "" } else { "/" };
        let of = |prefix| full.replace("%prefix%", prefix).replace("%topic%", topic) + slash;
        config::topic("full_topic", &of("tele"))?;
        Ok(Self { tele: of("tele"), stat: of("stat"), cmnd: of("cmnd") })
    }

    pub(super) fn filters(&self) -> Vec<String> {
        vec![format!("{}+", self.tele), format!("{}+", self.stat)]
    }

    pub(super) fn understand(&self, topic: &str, payload: &[u8]) -> Meaning {
        let own = |prefix: &str| topic.strip_prefix(prefix).map(str::to_owned);
        let Some(kind) = own(&self.tele).or_else(|| own(&self.stat)) else { return Meaning::Nothing };
        if kind == "LWT" {
            return match payload.trim_ascii() {
                b"Online" => Meaning::Online(true),
                b"Offline" => Meaning::Online(false),
                _ => Meaning::Nothing,
            };
        }
        match Body::parse(payload) {
            Some(Body(json @ Json::Object(_))) => meaning_of(json),
            // `stat/TOPIC/POWER1 ON`: one word beside the JSON of the same news.
            Some(Body(word)) => Meaning::Body(Body(Json::Object([(kind, word)].into_iter().collect()))),
            None => Meaning::Nothing,
        }
    }

    pub(super) fn command(&self, point: &Point<Address>, value: &Value) -> Result<Command, Error> {
        let Address { command, pointer, .. } = &point.address;
        let own = command.as_deref().or_else(|| pointer.as_ref()?.last());
        let name = own.ok_or_else(|| bad(point, "command: the one that writes it, such as \"POWER\""))?;
        if !config::is_topic(name) || name.contains('/') {
            return Err(bad(point, "command: must be one word"));
        }
        let payload = text_of(value, &words_or(&point.address, "ON", "OFF"));
        Ok(Command {
            topic: format!("{}{name}", self.cmnd),
            payload: payload.into_bytes(),
            name: name.to_owned(),
        })
    }

    pub(super) fn questions(&self) -> Vec<(String, String)> {
        QUESTIONS.iter().map(|which| (format!("{}STATUS", self.cmnd), (*which).to_owned())).collect()
    }
}

/// `{"Command":"Unknown","Input":"DIMMR"}` is a refusal; the answers to our questions wrap what telemetry says plainly.
fn meaning_of(mut json: Json) -> Meaning {
    if let (Some("Unknown" | "Error"), Some(input)) = (json["Command"].as_str(), json["Input"].as_str()) {
        return Meaning::Refusal(input.to_owned());
    }
    for wrapper in ["StatusSTS", "StatusSNS"] {
        if let Some(inner) = json.get_mut(wrapper) {
            return Meaning::Body(Body(inner.take()));
        }
    }
    Meaning::Body(Body(json))
}

#[cfg(test)]
mod tests {
    use super::super::Voice;
    use super::*;
    use serde_json::json;

    fn voice(more: &str) -> Result<Voice, Error> {
        let json = format!(r#"{{"broker":"b","shape":"tasmota"{more}}}"#);
        Voice::new(&serde_json::from_str(&json).unwrap())
    }

    #[test]
    fn messages_are_understood_as_tasmota_means_them() {
        let voice = voice(r#","topic":"kitchen""#).unwrap();
        assert_eq!(voice.filters(), ["tele/kitchen/+", "stat/kitchen/+"]);
        let body = |json| Meaning::Body(Body(json));
        let table = [
            ("tele/kitchen/LWT", "Online", Meaning::Online(true)),
            ("tele/kitchen/LWT", "Offline", Meaning::Online(false)),
            ("tele/kitchen/LWT", "?", Meaning::Nothing),
            ("stat/kitchen/POWER", "ON", body(json!({"POWER": "ON"}))),
            ("stat/kitchen/RESULT", r#"{"POWER":"OFF"}"#, body(json!({"POWER": "OFF"}))),
            ("stat/kitchen/STATUS11", r#"{"StatusSTS":{"POWER":"ON"}}"#, body(json!({"POWER": "ON"}))),
            ("stat/kitchen/STATUS10", r#"{"StatusSNS":{"T":1}}"#, body(json!({"T": 1}))),
            ("stat/kitchen/RESULT", r#"{"Command":"Unknown","Input":"X"}"#, Meaning::Refusal("X".into())),
            ("stat/kitchen/RESULT", r#"{"Command":"Unknown"}"#, body(json!({"Command": "Unknown"}))),
            ("tele/hall/STATE", "{}", Meaning::Nothing),
        ];
        for (topic, payload, meaning) in table {
            assert_eq!(voice.understand(topic, payload.as_bytes()), meaning, "{topic} {payload}");
        }
        assert_eq!(voice.understand("tele/kitchen/STATE", &[0xff]), Meaning::Nothing);
    }

    #[test]
    fn topics_follow_the_full_topic() {
        let own = voice(r#","topic":"kitchen","full_topic":"home/%topic%/%prefix%""#).unwrap();
        assert_eq!(own.filters(), ["home/kitchen/tele/+", "home/kitchen/stat/+"]);
        let faults = ["", r#","topic":"a/#""#, r#","topic":"a","full_topic":"x/%topic%""#];
        for fault in faults {
            assert!(matches!(voice(fault), Err(Error::Config(why)) if why.contains("topic")), "{fault}");
        }
    }
}
