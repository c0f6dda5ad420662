//! Labels of sites and edges: `/c/label/site/<name>`, `/c/label/edge/<name>`.
//!
//! Access policies select by them (`matchLabels`). An edge has the labels of its site and its own, which go before the
//! site's. Only the cloud knows labels: rules that it tells name the sites and edges that have them now.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bus::{Name, NodeId, NodeKind};
use metadata::{Key, Keyspace};
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::record::{self, DamagedRecord};
use crate::{nodes, site};

pub(crate) const PREFIX: &str = "/c/label/";

/// Of one site or edge. More is an inventory, for which other systems are better.
pub const MAX_LABELS: usize = 32;

/// Sites that have labels and maybe no node yet; edges are in the register anyway.
pub const MAX_SITES: usize = 4096;

/// By key.
pub type Labels = BTreeMap<String, String>;

/// What can have labels: `site/plant-a`, `edge/pumps`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Labelled {
    Site(Name),
    Edge(Name),
}

/// What is to become of labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    pub set: Labels,
    pub remove: Vec<String>,
}

/// Why a text is neither site nor edge, or no label.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidLabel {
    #[error("'{0}' has no labels; write site/NAME or edge/NAME")]
    Labelled(String),
    #[error(
        "'{0}' is no label's key or value: use 1 to 63 of letters, digits, '-', '_', '.' and '/', with a letter or digit \
         at both ends; a value may be empty"
    )]
    Text(String),
}

/// Why labels were not changed.
#[derive(Debug, Error)]
pub enum LabelError {
    #[error(transparent)]
    Invalid(#[from] InvalidLabel),
    #[error("no node '{0}'; see 'kubebus get nodes'")]
    UnknownEdge(Name),
    #[error("{0} would have more than {MAX_LABELS} labels")]
    TooMany(Labelled),
    #[error("there are {MAX_SITES} sites with labels, the most that fit")]
    TooManySites,
    #[error(transparent)]
    Damaged(#[from] DamagedRecord),
}

/// A struct, so that a later version can say more.
#[derive(Encode, Decode)]
struct Record {
    #[n(0)]
    labels: Labels,
}

impl fmt::Display for Labelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site(name) => write!(f, "site/{name}"),
            Self::Edge(name) => write!(f, "edge/{name}"),
        }
    }
}

impl FromStr for Labelled {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        let invalid = || InvalidLabel::Labelled(text.chars().take(80).collect());
        let (kind, name) = text.split_once('/').ok_or_else(invalid)?;
        let name = Name::new(name).map_err(|_| invalid())?;
        match kind {
            "site" => Ok(Self::Site(name)),
            "edge" => Ok(Self::Edge(name)),
            _ => Err(invalid()),
        }
    }
}

/// Whether a text can be a label's key.
pub(crate) fn check_key(text: &str) -> Result<(), InvalidLabel> {
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./".contains(byte);
    let bytes = text.as_bytes();
    let is_valid =
        bytes.len() <= 63 && is_end(bytes.first()) && is_end(bytes.last()) && bytes.iter().all(is_inner);
    if is_valid { Ok(()) } else { Err(InvalidLabel::Text(text.chars().take(80).collect())) }
}

/// Whether a text can be a label's value.
pub(crate) fn check_value(text: &str) -> Result<(), InvalidLabel> {
    if text.is_empty() { Ok(()) } else { check_key(text) }
}

/// Its own labels.
pub fn of(labelled: &Labelled, ks: &Keyspace) -> Result<Labels, DamagedRecord> {
    let record: Option<Record> = record::get(ks, &key(labelled))?;
    Ok(record.map(|record| record.labels).unwrap_or_default())
}

/// Changes labels and says what they are then. Writes nothing if it fails.
pub fn change(
    labelled: &Labelled,
    Change { set, remove }: Change,
    ks: &mut Keyspace,
) -> Result<Labels, LabelError> {
    for (key, value) in &set {
        check_key(key)?;
        check_value(value)?;
    }
    if let Labelled::Edge(name) = labelled
        && !nodes::exists(name, ks)
    {
        return Err(LabelError::UnknownEdge(name.clone()));
    }
    let mut labels = of(labelled, ks)?;
    labels.retain(|key, _| !remove.contains(key));
    labels.extend(set);
    if labels.len() > MAX_LABELS {
        return Err(LabelError::TooMany(labelled.clone()));
    }
    let is_new = ks.get(&key(labelled)).is_none();
    if is_new && matches!(labelled, Labelled::Site(_)) {
        make_room(ks)?;
    }
    // The row stays though it is empty: its revision says when it was written last.
    record::put(ks, &key(labelled), &Record { labels: labels.clone() });
    Ok(labels)
}

/// For the row of one more site: those that are empty go first.
fn make_room(ks: &mut Keyspace) -> Result<(), LabelError> {
    if ks.range(SITES).count() < MAX_SITES {
        return Ok(());
    }
    let is_empty =
        |bytes: &[u8]| minicbor::decode::<Record>(bytes).is_ok_and(|record| record.labels.is_empty());
    let empty: Vec<Key> =
        ks.range(SITES).filter(|(_, bytes)| is_empty(bytes)).map(|(key, _)| key.clone()).collect();
    empty.iter().for_each(|key| ks.delete(key));
    if empty.is_empty() { Err(LabelError::TooManySites) } else { Ok(()) }
}

const SITES: &str = "/c/label/site/";

/// The edge is gone, and whoever takes its name is another.
pub(crate) fn remove(edge: &Name, ks: &mut Keyspace) {
    record::delete(ks, &key(&Labelled::Edge(edge.clone())));
}

/// Which sites and edges have which labels.
#[derive(Debug, Default)]
pub(crate) struct Map {
    sites: BTreeMap<Name, Labels>,
    /// Without those of their sites.
    edges: BTreeMap<Name, Labels>,
    members: BTreeMap<Name, Vec<NodeId>>,
}

/// Who has labels: whole sites, or edges of a site of which others have not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selected {
    Site(Name),
    Edge(Name),
}

impl Map {
    /// What cannot be read is labelled with nothing.
    pub(crate) fn read(ks: &Keyspace) -> Self {
        let mut map = Self::default();
        for (node, site) in site::list(site::PREFIX, ks) {
            map.members.entry(site).or_default().push(node);
        }
        for (key, bytes) in ks.range(PREFIX) {
            let labelled = key.as_str().strip_prefix(PREFIX).and_then(|text| text.parse().ok());
            let record = minicbor::decode::<Record>(bytes).ok();
            match (labelled, record) {
                // The row of a site that had labels once is as good as none.
                (Some(Labelled::Site(_)), Some(record)) if record.labels.is_empty() => {}
                (Some(Labelled::Site(name)), Some(record)) => drop(map.sites.insert(name, record.labels)),
                (Some(Labelled::Edge(name)), Some(record)) => drop(map.edges.insert(name, record.labels)),
                (None, _) | (_, None) => {}
            }
        }
        map
    }

    /// Who has all of `wanted`. A site is named where all of its members have them, so that who joins it later is meant
    /// too; a site that nobody has joined yet is named for its own labels.
    pub(crate) fn select(&self, wanted: &Labels) -> Vec<Selected> {
        let nobody = Vec::new();
        let all =
            self.members.keys().chain(self.sites.keys().filter(|site| !self.members.contains_key(*site)));
        let mut selected = Vec::new();
        for site in all {
            let members = self.members.get(site).unwrap_or(&nobody);
            let has_all =
                |node: &NodeId| wanted.iter().all(|(key, value)| self.label(site, node, key) == Some(value));
            let of_site = self.sites.get(site);
            let is_meant =
                wanted.iter().all(|(key, value)| of_site.and_then(|site| site.get(key)) == Some(value));
            if is_meant && members.iter().all(has_all) {
                selected.push(Selected::Site(site.clone()));
            } else {
                // WireGuard clients have their site's labels, and rules name them as they do edges.
                let named = |node: &&NodeId| matches!(node.kind, NodeKind::Edge | NodeKind::Wireguard);
                let nodes = members.iter().filter(|node| named(node) && has_all(node));
                selected.extend(nodes.map(|node| Selected::Edge(node.name.clone())));
            }
        }
        selected
    }

    fn label(&self, site: &Name, node: &NodeId, key: &str) -> Option<&String> {
        let own = if node.kind == NodeKind::Edge { self.edges.get(&node.name) } else { None };
        own.and_then(|labels| labels.get(key)).or_else(|| self.sites.get(site)?.get(key))
    }
}

fn key(labelled: &Labelled) -> String {
    format!("{PREFIX}{labelled}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn label(text: &str, pairs: &[(&str, &str)], ks: &mut Keyspace) {
        record::put(ks, &format!("{PREFIX}{text}"), &Record { labels: labels(pairs) });
    }

    fn add(node: &str, at: &str, ks: &mut Keyspace) {
        site::put(&node.parse().unwrap(), &name(at), ks);
    }

    fn selected(pairs: &[(&str, &str)], ks: &Keyspace) -> Vec<String> {
        let shown = |selected: Selected| match selected {
            Selected::Site(name) => format!("site/{name}"),
            Selected::Edge(name) => format!("edge/{name}"),
        };
        Map::read(ks).select(&labels(pairs)).into_iter().map(shown).collect()
    }

    #[test]
    fn sites_are_meant_as_a_whole_where_all_their_members_are() {
        let mut ks = Keyspace::new();
        for (node, at) in [
            ("cloud/hq", "hq"),
            ("edge/a", "plant-a"),
            ("edge/a2", "plant-a"),
            ("edge/b", "plant-b"),
            ("edge/b2", "plant-b"),
            ("edge/c", "plant-c"),
        ] {
            add(node, at, &mut ks);
        }
        label("site/plant-a", &[("tier", "pump"), ("zone", "north")], &mut ks);
        label("site/plant-b", &[("tier", "pump")], &mut ks);
        label("edge/b2", &[("tier", "office")], &mut ks);
        label("edge/c", &[("tier", "pump")], &mut ks);
        label("site/to-be", &[("tier", "pump")], &mut ks);
        label("site/hq", &[("tier", "office")], &mut ks);
        ks.put(record::own_key("/c/label/site/odd"), bytes::Bytes::from_static(&[0xff]));
        assert_eq!(selected(&[("tier", "pump")], &ks), ["site/plant-a", "edge/b", "edge/c", "site/to-be"]);
        assert_eq!(selected(&[("tier", "pump"), ("zone", "north")], &ks), ["site/plant-a"]);
        assert_eq!(selected(&[("tier", "office")], &ks), ["site/hq", "edge/b2"]);
        assert_eq!(selected(&[("tier", "mill")], &ks), [""; 0]);
    }

    #[test]
    fn labels_are_set_and_removed_and_nonsense_is_refused() {
        let mut ks = Keyspace::new();
        let plant = Labelled::Site(name("plant"));
        let set = |pairs: &[(&str, &str)]| Change { set: labels(pairs), remove: Vec::new() };
        change(&plant, set(&[("tier", "pump"), ("zone", "")]), &mut ks).unwrap();
        let next = Change { remove: vec!["zone".to_owned()], ..set(&[("kb.io/line", "2")]) };
        let now = change(&plant, next, &mut ks).unwrap();
        assert_eq!(now, labels(&[("kb.io/line", "2"), ("tier", "pump")]));
        assert_eq!(of(&plant, &ks).unwrap(), now);
        for (key, value) in [("", "x"), ("-a", "x"), ("a", "x y"), ("a\n", "x"), (&*"k".repeat(64), "x")] {
            let error = change(&plant, set(&[(key, value)]), &mut ks).unwrap_err();
            assert!(matches!(error, LabelError::Invalid(InvalidLabel::Text(_))), "{key}={value}: {error}");
        }
        let edge = Labelled::Edge(name("a"));
        let error = change(&edge, set(&[("tier", "pump")]), &mut ks).unwrap_err();
        assert_eq!(error.to_string(), "no node 'a'; see 'kubebus get nodes'");
        let many: Labels = (0..MAX_LABELS).map(|number| (format!("k{number}"), String::new())).collect();
        let error = change(&plant, Change { set: many, remove: Vec::new() }, &mut ks).unwrap_err();
        assert_eq!(error.to_string(), "site/plant would have more than 32 labels");
        assert_eq!(of(&plant, &ks).unwrap(), now, "nothing was written");
        let all = Change { set: Labels::new(), remove: vec!["kb.io/line".to_owned(), "tier".to_owned()] };
        assert_eq!(change(&plant, all, &mut ks).unwrap(), Labels::new());
        assert_eq!(ks.range(PREFIX).count(), 1, "its revision says when the last one went");
        label("site/other", &[], &mut ks);
        assert_eq!(selected(&[], &ks), [""; 0]);
        for number in 2..MAX_SITES {
            label(&format!("site/s{number}"), &[("tier", "pump")], &mut ks);
        }
        let full = Labelled::Site(name("full"));
        change(&full, set(&[("tier", "pump")]), &mut ks).unwrap();
        assert_eq!(ks.range(PREFIX).count(), MAX_SITES - 1, "what is empty makes room");
        change(&plant, set(&[("tier", "pump")]), &mut ks).unwrap();
        let error = change(&Labelled::Site(name("more")), set(&[("tier", "pump")]), &mut ks).unwrap_err();
        assert!(matches!(error, LabelError::TooManySites), "{error}");
        for text in ["plant", "node/a", "site/No Name"] {
            assert!(text.parse::<Labelled>().is_err(), "{text}");
        }
    }
}
