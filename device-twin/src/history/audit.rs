//! Who decided what about a device, and what became of it: one line of JSON each.
//!
//! ```json
//! {"at":1760000000000,"device":"water/valve","property":"position","event":"set","value":40,"by":"alice","via":"desired","id":"4.17"}
//! {"at":1760000001200,"device":"water/valve","property":"position","event":"outcome","id":"4.17","outcome":"succeeded"}
//! ```
//!
//! A decision that something will become of has an id, unique within its property (or within its device, without a
//! property): a version, a command's id, the id of a write. Its outcome is an entry of its own that names the same id,
//! for it may come hours later.

use bus::twin::{DesiredVersion, DeviceId, Outcome};
use bus::{UnixMillis, Value};
use serde::{Deserialize, Serialize};

use crate::arbiter::Slot;
use crate::authority::{Authority, Holder};
use crate::command::Command;

/// One line of the audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// On the edge's clock.
    pub at: UnixMillis,
    #[serde(with = "device_text")]
    pub device: DeviceId,
    /// `None`: it is about the whole device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub property: Option<String>,
    #[serde(flatten)]
    pub event: AuditEvent,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum AuditEvent {
    /// A desired value, or a wish on MQTT.
    Set(Decision),
    /// A command was given; `value` holds its arguments, `detail` its name.
    Command(Decision),
    /// Somebody at the site set it, or with no value let go of it.
    Operator(Decision),
    /// A rule or interlock decided; `by` is the rule.
    Rule(Decision),
    /// Nobody had anything to say any more, so that the fail-safe value holds.
    FailSafe(Decision),
    /// Who may decide changed; `value` is who now may.
    Authority(Decision),
    /// A latch was reset.
    Reset(Decision),
    /// What became of an earlier decision.
    Outcome(Ended),
}

/// Who wants what.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Decision {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// For people: a user, a client's name, a rule.
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    /// What its outcome names; `None`: it is an end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// How a decision ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    pub id: String,
    pub outcome: Outcome,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// How a decision reaches an actuator. In JSON `"desired"` or the slot's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ViaText", into = "ViaText")]
pub enum Via {
    Desired,
    Slot(Slot),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum ViaText {
    Slot(Slot),
    Word(Word),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Desired,
}

impl From<Via> for ViaText {
    fn from(via: Via) -> Self {
        match via {
            Via::Desired => Self::Word(Word::Desired),
            Via::Slot(slot) => Self::Slot(slot),
        }
    }
}

impl From<ViaText> for Via {
    fn from(text: ViaText) -> Self {
        match text {
            ViaText::Word(Word::Desired) => Self::Desired,
            ViaText::Slot(slot) => Self::Slot(slot),
        }
    }
}

impl AuditEvent {
    /// Somebody wishes this, or takes the wish back.
    pub(crate) fn wish(value: Option<Value>, version: Option<DesiredVersion>, by: &str) -> Self {
        let (via, id) = (Some(Via::Desired), version.map(|version| version.to_string()));
        Self::Set(Decision { value, by: by.to_owned(), via, id, detail: String::new() })
    }

    pub(crate) fn command(command: &Command) -> Self {
        Self::Command(Decision {
            value: Some(Value::Struct(command.args.clone())),
            by: command.by.clone(),
            via: Some(Via::Slot(Slot::COMMAND)),
            id: Some(command.id.to_string()),
            detail: command.name.clone(),
        })
    }

    pub(crate) fn authority(authority: &Authority) -> Self {
        let holder = match authority.holder() {
            Holder::Cloud => "cloud",
            Holder::Edge => "edge",
        };
        let (value, detail) = (Some(Value::Text(holder.to_owned())), authority.reason.clone());
        Self::Authority(Decision { value, by: authority.by.clone(), detail, ..Decision::default() })
    }

    pub(crate) fn ended(id: String, (outcome, detail): (Outcome, &str)) -> Self {
        Self::Outcome(Ended { id, outcome, detail: detail.to_owned() })
    }

    /// `None` for an outcome.
    pub fn decision(&self) -> Option<&Decision> {
        match self {
            Self::Set(decision)
            | Self::Command(decision)
            | Self::Operator(decision)
            | Self::Rule(decision)
            | Self::FailSafe(decision)
            | Self::Authority(decision)
            | Self::Reset(decision) => Some(decision),
            Self::Outcome(_) => None,
        }
    }

    /// As in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Set(_) => "set",
            Self::Command(_) => "command",
            Self::Operator(_) => "operator",
            Self::Rule(_) => "rule",
            Self::FailSafe(_) => "failsafe",
            Self::Authority(_) => "authority",
            Self::Reset(_) => "reset",
            Self::Outcome(_) => "outcome",
        }
    }
}

/// A device as people write it.
mod device_text {
    use bus::twin::DeviceId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(device: &DeviceId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(device)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DeviceId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(property: Option<&str>, event: AuditEvent) -> AuditEntry {
        let device = "water/valve".parse().unwrap();
        AuditEntry { at: UnixMillis(1_760_000_000_000), device, property: property.map(str::to_owned), event }
    }

    #[test]
    fn entries_are_flat_lines_and_read_back() {
        let set = Decision {
            value: Some(Value::Int(40)),
            by: "alice".into(),
            via: Some(Via::Desired),
            id: Some("4.17".into()),
            detail: String::new(),
        };
        let rule = Decision {
            value: Some(Value::Float(2.5)),
            by: "water/fill-tank".into(),
            via: Some(Via::Slot(Slot::LOCAL_RULE)),
            id: Some("w-1".into()),
            detail: "case adjust".into(),
        };
        let fields = [("speed".to_owned(), Value::Int(3))];
        let command =
            Decision { value: Some(Value::Struct(fields.into())), detail: "flush".into(), ..set.clone() };
        let let_go = Decision { by: "panel".into(), ..Decision::default() };
        let ended = |outcome, detail: &str| Ended { id: "4.17".into(), outcome, detail: detail.into() };
        for (entry, line) in [
            (
                entry(Some("position"), AuditEvent::Set(set)),
                r#"{"at":1760000000000,"device":"water/valve","property":"position","event":"set","value":40,"by":"alice","via":"desired","id":"4.17"}"#,
            ),
            (
                entry(Some("position"), AuditEvent::Rule(rule)),
                r#"{"at":1760000000000,"device":"water/valve","property":"position","event":"rule","value":2.5,"by":"water/fill-tank","via":10,"id":"w-1","detail":"case adjust"}"#,
            ),
            (
                entry(None, AuditEvent::Command(command)),
                r#"{"at":1760000000000,"device":"water/valve","event":"command","value":{"speed":3},"by":"alice","via":"desired","id":"4.17","detail":"flush"}"#,
            ),
            (
                entry(Some("position"), AuditEvent::Operator(let_go)),
                r#"{"at":1760000000000,"device":"water/valve","property":"position","event":"operator","by":"panel"}"#,
            ),
            (
                entry(Some("position"), AuditEvent::Outcome(ended(Outcome::Succeeded, ""))),
                r#"{"at":1760000000000,"device":"water/valve","property":"position","event":"outcome","id":"4.17","outcome":"succeeded"}"#,
            ),
            (
                entry(None, AuditEvent::Outcome(ended(Outcome::Expired, "3h old"))),
                r#"{"at":1760000000000,"device":"water/valve","event":"outcome","id":"4.17","outcome":"expired","detail":"3h old"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&entry).unwrap(), line);
            assert_eq!(serde_json::from_str::<AuditEntry>(line).unwrap(), entry);
            assert!(line.contains(&format!("\"event\":\"{}\"", entry.event.name())));
        }
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for line in [
            "{}",
            r#"{"at":1,"device":"Water/valve","event":"reset","by":"x"}"#,
            r#"{"at":1,"device":"water/valve","event":"moved","by":"x"}"#,
            r#"{"at":1,"device":"water/valve","event":"set","by":"x","via":17}"#,
            r#"{"at":1,"device":"water/valve","event":"set","by":"x","via":"slot"}"#,
        ] {
            assert!(serde_json::from_str::<AuditEntry>(line).is_err(), "{line}");
        }
    }
}
