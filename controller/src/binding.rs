//! Each device's manifests, copied to the edge that serves it.
//!
//! A device is *bound* to an edge when its `spec.nodeName` names a node that has joined and its model exists. The
//! edge then gets, under `/e/<edge>/`, the device, its model, the policies that select the model, and the rules whose
//! output is the device; and nothing else. What no longer belongs there goes in the same cycle. Desired values go
//! only with the device itself: when it is deleted or moves to another edge, since a wish made for one place must not
//! act at another.
//!
//! A change costs what it concerns, not what its edge has: a register knows who refers to whom, a manifest is
//! decoded once when it changes, and of the edges' rows those are looked at that may be others now. That holds as long as
//! the rows were in line before; a start makes sure of it with [`Binder::reconcile_all`]. What a cycle changes for the
//! edges is in the cycle's own commit, however many devices a model or a node brings: no edge sees a device without the
//! policies and interlocks that are there for it. Rows share the manifests' bytes.

mod devices;
mod references;
mod register;
mod stale;

use std::collections::BTreeSet;
use std::fmt;

use bus::Name;
use bus::twin::DeviceId;
use bytes::Bytes;
use device_twin::model::{Kind, Layout};
use metadata::{Key, Keyspace};

use self::register::Register;
use self::stale::Stale;
use crate::record::own_key;
use crate::{nodes, resource};

/// The reconciler. What it knows follows from the keyspace alone.
#[derive(Debug, Clone, Default)]
pub struct Binder {
    register: Register,
    stats: Stats,
}

/// What binding has cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Manifests.
    pub decoded: u64,
    /// Rows of edges that were held against what they should be.
    pub compared: u64,
}

/// Where a device or a rule runs, or what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    At(Name),
    /// The device names no node.
    NoNode,
    NodeMissing(Name),
    /// The device names no model.
    NoModel,
    ModelMissing(DeviceId),
    /// The rule's output.
    DeviceMissing(DeviceId),
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(edge) => write!(f, "runs at edge/{edge}"),
            Self::NoNode => f.write_str("waits: spec.nodeName names no edge"),
            Self::NodeMissing(edge) => write!(f, "waits: edge/{edge} has not joined"),
            Self::NoModel => f.write_str("waits: spec.deviceModelRef names no model"),
            Self::ModelMissing(model) => write!(f, "waits: model {model} does not exist"),
            Self::DeviceMissing(device) => write!(f, "waits: device {device} does not exist"),
        }
    }
}

impl Binder {
    /// What `ks` says as it is. Follow with [`Self::reconcile_all`].
    pub fn load(ks: &Keyspace) -> Self {
        let mut binder = Self::default();
        for kind in Kind::ALL {
            for (id, json) in resource::list(kind, None, ks) {
                // Everything is looked at afterwards.
                binder.take(kind, &id, Some(json), &mut Stale::default());
            }
        }
        for (key, _) in ks.range(nodes::PREFIX) {
            node_of_key(key.as_str()).map(|node| binder.register.set_node(&node, true));
        }
        binder
    }

    /// Brings every edge in line; writes nothing where all is well.
    pub fn reconcile_all(&mut self, ks: &mut Keyspace) {
        let mut edges: BTreeSet<Name> = self.register.nodes().cloned().collect();
        edges.extend(ks.range("/e/").filter_map(|(key, _)| edge_of_key(key.as_str())));
        edges.iter().for_each(|edge| self.reconcile(edge, ks));
    }

    /// Brings those rows of edges in line that the changed keys concern: manifests and nodes, other keys are passed over.
    /// `ks` already holds the changes, of this cycle or of one before.
    pub fn handle_changes<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>, ks: &mut Keyspace) {
        let mut stale = Stale::default();
        for key in keys.into_iter().collect::<BTreeSet<_>>() {
            if let Some((kind, id)) = Kind::of_key(Layout::Cloud, key.as_str()) {
                self.take(kind, &id, ks.get(key.as_str()), &mut stale);
            } else if let Some(node) = node_of_key(key.as_str()) {
                let is_news = self.register.set_node(&node, nodes::exists(&node, ks));
                // Else another certificate or LAN, unless it went and came again at once: then its rows are gone.
                if is_news || ks.range(&at_edge(&node, Kind::Device)).next().is_none() {
                    stale.edges.insert(node);
                }
            }
        }
        self.settle(&stale, ks);
    }

    /// Where `device` runs; `None` if there is no such device.
    pub fn device(&self, device: &DeviceId) -> Option<Placement> {
        self.register.device(device)
    }

    /// Where `rule` runs: where its output's device does. `None` if there is no such rule.
    pub fn rule(&self, rule: &DeviceId) -> Option<Placement> {
        self.register.rule(rule)
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn take(&mut self, kind: Kind, id: &DeviceId, json: Option<&Bytes>, stale: &mut Stale) {
        self.stats.decoded += u64::from(json.is_some());
        self.register.set(kind, id, json.map(AsRef::as_ref), stale);
    }

    fn settle(&mut self, stale: &Stale, ks: &mut Keyspace) {
        stale.edges.iter().for_each(|edge| self.reconcile(edge, ks));
        for (edge, kind, id) in &stale.rows {
            self.settle_row(edge, *kind, id, ks);
        }
        for (edge, device) in &stale.wishes {
            self.remove_stray_wishes(edge, &format!("{device}/"), ks);
        }
    }

    fn settle_row(&mut self, edge: &Name, kind: Kind, id: &DeviceId, ks: &mut Keyspace) {
        self.stats.compared += 1;
        let row = own_key(&format!("{}{id}", at_edge(edge, kind)));
        let manifest = resource::get(kind, id, ks).filter(|_| self.register.belongs(edge, kind, id));
        match manifest.cloned() {
            Some(json) => ks.put(row, json),
            None => ks.delete(&row),
        }
    }

    /// All that the edge has, and should have.
    fn reconcile(&mut self, edge: &Name, ks: &mut Keyspace) {
        for kind in Kind::ALL {
            self.remove_unwanted(edge, kind, ks);
        }
        let mut wanted = BTreeSet::new();
        self.register.rows_at(edge, &mut |kind, id| {
            wanted.insert((kind, id.clone()));
        });
        for (kind, id) in &wanted {
            self.settle_row(edge, *kind, id, ks);
        }
        self.remove_stray_wishes(edge, "", ks);
    }

    fn remove_unwanted(&mut self, edge: &Name, kind: Kind, ks: &mut Keyspace) {
        let prefix = at_edge(edge, kind);
        let belongs = |key: &Key| {
            let id = key.as_str()[prefix.len()..].parse().ok();
            id.is_some_and(|id| self.register.belongs(edge, kind, &id))
        };
        let stray: Vec<Key> =
            ks.range(&prefix).map(|(key, _)| key).filter(|key| !belongs(key)).cloned().collect();
        stray.iter().for_each(|key| ks.delete(key));
    }

    /// Desired values, of those below `of`, for devices that are not, or no longer, this edge's.
    fn remove_stray_wishes(&self, edge: &Name, of: &str, ks: &mut Keyspace) {
        let prefix = format!("/e/{edge}/desired/");
        let belongs = |key: &Key| {
            let device = device_of_wish(&key.as_str()[prefix.len()..]);
            device.is_some_and(|device| self.register.is_home(edge, &device))
        };
        let wishes = ks.range(&format!("{prefix}{of}")).map(|(key, _)| key);
        let stray: Vec<Key> = wishes.filter(|key| !belongs(key)).cloned().collect();
        stray.iter().for_each(|key| ks.delete(key));
    }
}

/// The cloud's side of what the edge sees as `/m/<kind>/`.
fn at_edge(edge: &Name, kind: Kind) -> String {
    format!("/e/{edge}/{}", kind.prefix(Layout::Edge).trim_start_matches("/m/"))
}

fn node_of_key(key: &str) -> Option<Name> {
    Name::new(key.strip_prefix(nodes::PREFIX)?).ok()
}

fn edge_of_key(key: &str) -> Option<Name> {
    Name::new(key.strip_prefix("/e/")?.split('/').next()?).ok()
}

/// The device of `<namespace>/<device>/<property>`.
fn device_of_wish(rest: &str) -> Option<DeviceId> {
    let mut parts = rest.split('/');
    let (namespace, name) = (parts.next()?, parts.next()?);
    Some(DeviceId { namespace: Name::new(namespace).ok()?, name: Name::new(name).ok()? })
}

#[cfg(test)]
mod tests;
