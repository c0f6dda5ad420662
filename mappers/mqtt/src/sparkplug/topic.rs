//! Where Sparkplug's messages go (specification §4): `spBv1.0/GROUP/KIND/NODE[/DEVICE]`.

use kubebus_sdk::Error;

use crate::config::{self, Config};

const NAMESPACE: &str = "spBv1.0";

/// An edge node, in its group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId {
    pub(crate) group: String,
    pub(crate) node: String,
}

/// What one of our devices is: an edge node's device, or the node itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) node: NodeId,
    pub(crate) device: Option<String>,
}

/// What a message of an edge node is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Birth,
    Data,
    Death,
}

impl Unit {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let named = |field, value| config::level(field, config::needed(field, value)?).map(str::to_owned);
        let node = NodeId {
            group: named("group", config.group.as_ref())?,
            node: named("node", config.node.as_ref())?,
        };
        let device = config.device.as_ref();
        let device = device.map(|device| config::level("device", device).map(str::to_owned)).transpose()?;
        Ok(Self { node, device })
    }

    /// Where its commands go (`DCMD`, `NCMD`).
    pub(crate) fn command_topic(&self) -> String {
        let NodeId { group, node } = &self.node;
        match &self.device {
            Some(device) => format!("{NAMESPACE}/{group}/DCMD/{node}/{device}"),
            None => self.node.command_topic(),
        }
    }
}

impl NodeId {
    /// Everything that the node and its devices say.
    pub(crate) fn filter(&self) -> String {
        format!("{NAMESPACE}/{}/+/{}/#", self.group, self.node)
    }

    pub(crate) fn command_topic(&self) -> String {
        format!("{NAMESPACE}/{}/NCMD/{}", self.group, self.node)
    }
}

/// Who says what. `None` for commands and for what is none of Sparkplug's topics.
pub(crate) fn parse(topic: &str) -> Option<(NodeId, Option<String>, Kind)> {
    let mut levels = topic.split('/');
    let (NAMESPACE, group, kind, node) = (levels.next()?, levels.next()?, levels.next()?, levels.next()?)
    else {
        return None;
    };
    let (device, more) = (levels.next(), levels.next());
    let kind = match (kind, device) {
        ("NBIRTH", None) | ("DBIRTH", Some(_)) => Kind::Birth,
        ("NDATA", None) | ("DDATA", Some(_)) => Kind::Data,
        ("NDEATH", None) | ("DDEATH", Some(_)) => Kind::Death,
        _ => return None,
    };
    let node = NodeId { group: group.to_owned(), node: node.to_owned() };
    more.is_none().then(|| (node, device.map(str::to_owned), kind))
}

/// Where a host application says whether it is there (specification §6.4.27).
pub(crate) fn state(host_id: &str) -> String {
    format!("{NAMESPACE}/STATE/{host_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_say_who_and_what() {
        let node = || NodeId { group: "plant".into(), node: "gw".into() };
        let device = || Some("pump".to_owned());
        let table = [
            ("spBv1.0/plant/NBIRTH/gw", Some((node(), None, Kind::Birth))),
            ("spBv1.0/plant/NDEATH/gw", Some((node(), None, Kind::Death))),
            ("spBv1.0/plant/DDATA/gw/pump", Some((node(), device(), Kind::Data))),
            ("spBv1.0/plant/NDATA/gw/pump", None),
            ("spBv1.0/plant/DDATA/gw", None),
            ("spBv1.0/plant/DDATA/gw/pump/x", None),
            ("spBv1.0/plant/DCMD/gw/pump", None),
            ("spBv1.0/STATE/host", None),
            ("spAv1.0/plant/NBIRTH/gw", None),
            ("", None),
        ];
        for (topic, expected) in table {
            assert_eq!(parse(topic), expected, "{topic}");
        }
        let unit = |device| Unit { node: node(), device };
        assert_eq!(unit(device()).command_topic(), "spBv1.0/plant/DCMD/gw/pump");
        assert_eq!(unit(None).command_topic(), "spBv1.0/plant/NCMD/gw");
    }
}
