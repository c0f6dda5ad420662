//! KubeEdge's topics below `$hw/events/`, parsed and formatted in one place.

use std::fmt;

use bus::twin::DeviceId;
use bus::{Name, Topic};

/// The namespace of a device that is named without one.
const DEFAULT_NAMESPACE: &str = "default";

/// Longest name of a Kubernetes object; what is longer names none, and answers would not fit into a topic.
const MAX_NAME: usize = 253;

const DEVICE: &str = "$hw/events/device/";
const NODE: &str = "$hw/events/node/";

/// A device as a client addresses it: `<namespace>/<name>`, or `<name>` alone as up to KubeEdge 1.16, which is one in
/// the namespace `default`. Answers go out in the form of the question.
///
/// It may name something that no device can be called: that client is to hear so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    namespace: Option<Box<str>>,
    name: Box<str>,
}

impl Address {
    /// `None` unless it is one or two levels of a sane length.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/').map_or((None, text), |(ns, name)| (Some(ns), name));
        let is_name = |part: &str| (1..=MAX_NAME).contains(&part.len()) && !part.contains('/');
        let valid = is_name(name) && namespace.is_none_or(is_name);
        valid.then(|| Self { namespace: namespace.map(Into::into), name: name.into() })
    }

    /// The ways in which a client can address a device.
    pub fn forms(device: &DeviceId) -> impl Iterator<Item = Self> + use<> {
        let name = device.name.as_str();
        let whole = Self { namespace: Some(device.namespace.as_str().into()), name: name.into() };
        let is_default = device.namespace.as_str() == DEFAULT_NAMESPACE;
        let short = is_default.then(|| Self { namespace: None, name: name.into() });
        std::iter::once(whole).chain(short)
    }

    pub fn device(&self) -> Option<DeviceId> {
        let namespace = self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        Some(DeviceId { namespace: Name::new(namespace).ok()?, name: Name::new(&self.name).ok()? })
    }

    /// As KubeEdge's payloads name it, whatever the form: `<namespace>/<name>`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE), self.name)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// What is said about a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    TwinUpdate,
    TwinUpdateResult,
    TwinUpdateDocument,
    TwinUpdateDelta,
    TwinGet,
    TwinGetResult,
    /// What KubeEdge's cloud was meant to say, and any client of its broker may.
    TwinCloudUpdated,
    StateUpdate,
    StateUpdateResult,
    /// Attributes: `v1beta1` devices have none.
    Updated,
}

impl Verb {
    const ALL: [Self; 10] = [
        Self::TwinUpdate,
        Self::TwinUpdateResult,
        Self::TwinUpdateDocument,
        Self::TwinUpdateDelta,
        Self::TwinGet,
        Self::TwinGetResult,
        Self::TwinCloudUpdated,
        Self::StateUpdate,
        Self::StateUpdateResult,
        Self::Updated,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::TwinUpdate => "twin/update",
            Self::TwinUpdateResult => "twin/update/result",
            Self::TwinUpdateDocument => "twin/update/document",
            Self::TwinUpdateDelta => "twin/update/delta",
            Self::TwinGet => "twin/get",
            Self::TwinGetResult => "twin/get/result",
            Self::TwinCloudUpdated => "twin/cloud_updated",
            Self::StateUpdate => "state/update",
            Self::StateUpdateResult => "state/update/result",
            Self::Updated => "updated",
        }
    }
}

/// What is said about the devices of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeVerb {
    MembershipGet,
    MembershipGetResult,
    MembershipUpdated,
}

impl NodeVerb {
    const ALL: [Self; 3] = [Self::MembershipGet, Self::MembershipGetResult, Self::MembershipUpdated];

    fn as_str(self) -> &'static str {
        match self {
            Self::MembershipGet => "membership/get",
            Self::MembershipGetResult => "membership/get/result",
            Self::MembershipUpdated => "membership/updated",
        }
    }
}

/// A topic below `$hw/events/` that means something here.
///
/// ```
/// use bus::Topic;
/// use device_twin::kubeedge::{HwTopic, Verb};
/// let topic = Topic::new("$hw/events/device/dev1/twin/update")?;
/// let parsed = HwTopic::parse(topic.as_str()).expect("one of KubeEdge's");
/// assert!(matches!(&parsed, HwTopic::Device(address, Verb::TwinUpdate) if address.id() == "default/dev1"));
/// assert_eq!(parsed.topic(), topic);
/// assert_eq!(parsed.answer().expect("it is answered").topic().as_str(), "$hw/events/device/dev1/twin/update/result");
/// # Ok::<(), bus::topic::InvalidTopic>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HwTopic {
    Device(Address, Verb),
    /// The node's name as the client wrote it; KubeEdge does not look at it in a question.
    Node(Box<str>, NodeVerb),
}

impl HwTopic {
    /// `None` if it has none of the shapes above. No shape is the end of another with one level more, so how many levels
    /// address the device is never in doubt.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix(DEVICE) {
            return Verb::ALL
                .into_iter()
                .find_map(|verb| Some(Self::Device(Address::parse(before(rest, verb.as_str())?)?, verb)));
        }
        let rest = text.strip_prefix(NODE)?;
        NodeVerb::ALL.into_iter().find_map(|verb| {
            let node = before(rest, verb.as_str())?;
            let valid = (1..=MAX_NAME).contains(&node.len()) && !node.contains('/');
            valid.then(|| Self::Node(node.into(), verb))
        })
    }

    #[expect(clippy::expect_used, reason = "addresses and nodes come from topics or names, and are bounded")]
    pub fn topic(&self) -> Topic {
        let text = match self {
            Self::Device(address, verb) => format!("{DEVICE}{address}/{}", verb.as_str()),
            Self::Node(node, verb) => format!("{NODE}{node}/{}", verb.as_str()),
        };
        Topic::new(&text).expect("parts of a topic")
    }

    /// Where whoever speaks here is answered; `None` if clients do not speak here.
    pub fn answer(&self) -> Option<Self> {
        Some(match self {
            Self::Device(address, Verb::TwinUpdate) => Self::Device(address.clone(), Verb::TwinUpdateResult),
            Self::Device(address, Verb::TwinGet) => Self::Device(address.clone(), Verb::TwinGetResult),
            Self::Device(address, Verb::StateUpdate) => {
                Self::Device(address.clone(), Verb::StateUpdateResult)
            }
            Self::Node(node, NodeVerb::MembershipGet) => {
                Self::Node(node.clone(), NodeVerb::MembershipGetResult)
            }
            Self::Device(
                _,
                Verb::TwinUpdateResult
                | Verb::TwinUpdateDocument
                | Verb::TwinUpdateDelta
                | Verb::TwinGetResult
                | Verb::TwinCloudUpdated
                | Verb::StateUpdateResult
                | Verb::Updated,
            )
            | Self::Node(_, NodeVerb::MembershipGetResult | NodeVerb::MembershipUpdated) => return None,
        })
    }
}

/// What comes before the level or levels `verb`.
fn before<'a>(text: &'a str, verb: &str) -> Option<&'a str> {
    text.strip_suffix(verb)?.strip_suffix('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_reads_back_in_both_forms() {
        for address in ["default/dev1", "dev1", "hw/twin", "twin", "dev/Ä b"] {
            for verb in Verb::ALL {
                let text = format!("$hw/events/device/{address}/{}", verb.as_str());
                let expected = HwTopic::Device(Address::parse(address).unwrap(), verb);
                assert_eq!(HwTopic::parse(&text), Some(expected.clone()), "{text}");
                assert_eq!(expected.topic().as_str(), text);
            }
        }
        for verb in NodeVerb::ALL {
            let text = format!("$hw/events/node/edge-1/{}", verb.as_str());
            assert_eq!(HwTopic::parse(&text).unwrap().topic().as_str(), text);
        }
    }

    #[test]
    fn other_shapes_are_not_kubeedges() {
        let long = format!("$hw/events/device/{}/twin/get", "x".repeat(MAX_NAME + 1));
        for text in [
            "$hw/events/device/twin/update",
            "$hw/events/device//twin/update",
            "$hw/events/device/a//twin/update",
            "$hw/events/device/a/b/c/twin/update",
            "$hw/events/device/a/state/get",
            "$hw/events/device/a/twin/update/result/x",
            "$hw/events/node/membership/get",
            "$hw/events/node/a/b/membership/get",
            "$hw/events/upload/x",
            "hw/events/device/a/twin/get",
            &long,
        ] {
            assert_eq!(HwTopic::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_device_of_the_default_namespace_has_two_addresses() {
        let forms = |text: &str| -> Vec<String> {
            Address::forms(&text.parse().unwrap()).map(|address| address.to_string()).collect()
        };
        assert_eq!(forms("default/dev1"), ["default/dev1", "dev1"]);
        assert_eq!(forms("water/dev1"), ["water/dev1"]);
        let device = |text: &str| Address::parse(text).unwrap().device().map(|device| device.to_string());
        assert_eq!(device("dev1"), Some("default/dev1".to_owned()));
        assert_eq!(device("default/devX"), None);
    }
}
