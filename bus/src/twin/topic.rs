//! The topics of twins and mappers, parsed and formatted in one place.

use super::DeviceId;
use crate::{Name, Topic};

/// A topic under `twin/<namespace>/<device>/`.
///
/// ```
/// use bus::{Topic, twin::TwinTopic};
/// let topic = Topic::new("twin/water/tank/reported/level")?;
/// let parsed = TwinTopic::parse(&topic).expect("a twin topic");
/// assert!(matches!(&parsed, TwinTopic::Reported { property, .. } if property == "level"));
/// assert_eq!(parsed.topic(), topic);
/// # Ok::<(), bus::topic::InvalidTopic>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TwinTopic {
    /// `reported/<property>`: retained, published by nodes only.
    Reported { device: DeviceId, property: String },
    /// `desired/<property>`: retained, published by nodes only.
    Desired { device: DeviceId, property: String },
    /// `set/<property>`: an app's wish; a retained one is refused.
    Set { device: DeviceId, property: String },
    /// `report/<property>`: a mapper's report of one property.
    Report { device: DeviceId, property: String },
    /// `report`: several properties at once.
    ReportMany { device: DeviceId },
    /// `result`: what became of a set, a report or a command.
    Result { device: DeviceId },
    /// `command/<name>`.
    Command { device: DeviceId, name: String },
    /// `state`: online, degraded or offline; retained, published by nodes only.
    State { device: DeviceId },
}

impl TwinTopic {
    /// `None` if the topic is outside `twin/` or has none of the shapes above.
    pub fn parse(topic: &Topic) -> Option<Self> {
        let mut levels = topic.as_str().split('/');
        if levels.next()? != "twin" {
            return None;
        }
        let device =
            DeviceId { namespace: Name::new(levels.next()?).ok()?, name: Name::new(levels.next()?).ok()? };
        let (verb, property) = (levels.next()?, levels.next());
        if levels.next().is_some() || property.is_some_and(|p| !is_property(p)) {
            return None;
        }
        Some(match (verb, property.map(str::to_owned)) {
            ("reported", Some(property)) => Self::Reported { device, property },
            ("desired", Some(property)) => Self::Desired { device, property },
            ("set", Some(property)) => Self::Set { device, property },
            ("report", Some(property)) => Self::Report { device, property },
            ("report", None) => Self::ReportMany { device },
            ("result", None) => Self::Result { device },
            ("command", Some(name)) => Self::Command { device, name },
            ("state", None) => Self::State { device },
            _ => return None,
        })
    }

    pub fn topic(&self) -> Topic {
        let text = match self {
            Self::Reported { device, property } => format!("twin/{device}/reported/{property}"),
            Self::Desired { device, property } => format!("twin/{device}/desired/{property}"),
            Self::Set { device, property } => format!("twin/{device}/set/{property}"),
            Self::Report { device, property } => format!("twin/{device}/report/{property}"),
            Self::ReportMany { device } => format!("twin/{device}/report"),
            Self::Result { device } => format!("twin/{device}/result"),
            Self::Command { device, name } => format!("twin/{device}/command/{name}"),
            Self::State { device } => format!("twin/{device}/state"),
        };
        make(&text)
    }

    pub fn device(&self) -> &DeviceId {
        match self {
            Self::Reported { device, .. }
            | Self::Desired { device, .. }
            | Self::Set { device, .. }
            | Self::Report { device, .. }
            | Self::ReportMany { device }
            | Self::Result { device }
            | Self::Command { device, .. }
            | Self::State { device } => device,
        }
    }

    /// Whether only nodes may publish it.
    pub fn is_nodes_only(&self) -> bool {
        matches!(
            self,
            Self::Reported { .. } | Self::Desired { .. } | Self::Result { .. } | Self::State { .. }
        )
    }
}

/// Whether a text can name a property or command: 1 to 128 bytes of letters, digits, `_`, `-` and `.`
/// (what KubeEdge's CRDs let through in practice, minus what would need escaping in a topic).
pub(crate) fn is_property(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

/// A topic under `mapper/<mapper>/`: how the node and a mapper's process work together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum MapperTopic {
    /// Node to mapper, retained: [`super::MapperConfig`].
    Config { mapper: Name },
    /// Node to mapper, never retained, with an expiry: [`super::WriteRequest`].
    Write { mapper: Name },
    /// Mapper to node: [`super::WriteResult`].
    Result { mapper: Name },
    /// Mapper to node, retained, also its will: `online` or `offline`.
    State { mapper: Name },
    /// Mapper to people, retained: [`super::MapperHealth`]. Nodes pass it on and decide nothing by it.
    Health { mapper: Name },
}

impl MapperTopic {
    pub fn parse(topic: &Topic) -> Option<Self> {
        let mut levels = topic.as_str().split('/');
        if levels.next()? != "mapper" {
            return None;
        }
        let mapper = Name::new(levels.next()?).ok()?;
        let verb = levels.next()?;
        if levels.next().is_some() {
            return None;
        }
        Some(match verb {
            "config" => Self::Config { mapper },
            "write" => Self::Write { mapper },
            "result" => Self::Result { mapper },
            "state" => Self::State { mapper },
            "health" => Self::Health { mapper },
            _ => return None,
        })
    }

    pub fn topic(&self) -> Topic {
        let text = match self {
            Self::Config { mapper } => format!("mapper/{mapper}/config"),
            Self::Write { mapper } => format!("mapper/{mapper}/write"),
            Self::Result { mapper } => format!("mapper/{mapper}/result"),
            Self::State { mapper } => format!("mapper/{mapper}/state"),
            Self::Health { mapper } => format!("mapper/{mapper}/health"),
        };
        make(&text)
    }

    pub fn mapper(&self) -> &Name {
        match self {
            Self::Config { mapper }
            | Self::Write { mapper }
            | Self::Result { mapper }
            | Self::State { mapper }
            | Self::Health { mapper } => mapper,
        }
    }
}

#[expect(
    clippy::expect_used,
    reason = "every part was checked: names and properties hold no wildcard or NUL"
)]
fn make(text: &str) -> Topic {
    Topic::new(text).expect("parts of a twin topic are checked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_reads_back() {
        for text in [
            "twin/water/tank/reported/level",
            "twin/water/tank/desired/level",
            "twin/water/tank/set/level",
            "twin/water/tank/report/level",
            "twin/water/tank/report",
            "twin/water/tank/result",
            "twin/water/tank/command/reset",
            "twin/water/tank/state",
        ] {
            let topic = Topic::new(text).unwrap();
            assert_eq!(TwinTopic::parse(&topic).expect(text).topic(), topic);
        }
        for verb in ["config", "write", "result", "state", "health"] {
            let text = &format!("mapper/plc-1/{verb}");
            let topic = Topic::new(text).unwrap();
            assert_eq!(MapperTopic::parse(&topic).expect(text).topic(), topic);
        }
    }

    #[test]
    fn other_shapes_are_not_twin_topics() {
        for text in [
            "twin/water/tank",
            "twin/water/tank/reported",
            "twin/W/t/state",
            "twin/a/b/set/x/y",
            "x/a/b/state",
            "twin/a/b/set/ä",
        ] {
            assert_eq!(TwinTopic::parse(&Topic::new(text).unwrap()), None, "{text}");
        }
    }
}
