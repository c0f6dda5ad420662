//! Each device's manifests, copied to the edge that serves it.
//!
//! A device is *bound* to an edge when its `spec.nodeName` names a node that has joined and its model exists. The
//! edge then gets, under `/e/<edge>/`, the device, its model, the policies that select the model, and the rules whose
//! output is the device; and nothing else. What no longer belongs there goes in the same cycle. Desired values go
//! only with the device itself: when it is deleted or moves to another edge, since a wish made for one place must not
//! act at another.

mod references;

use std::collections::BTreeSet;
use std::fmt;

use bus::Name;
use bus::twin::DeviceId;
use device_twin::model::{DeviceModelSpec, DeviceSpec, Document, Kind, Layout, Spec, TwinPolicySpec};
use device_twin::rule::RuleSpec;
use metadata::{Key, Keyspace};

use self::references::References;
use crate::record::own_key;
use crate::{nodes, resource};

/// The reconciler. Its index follows from the keyspace alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binder {
    nodes: BTreeSet<Name>,
    devices: BTreeSet<DeviceId>,
    models: BTreeSet<DeviceId>,
    node_of_device: References<Name>,
    model_of_device: References<DeviceId>,
    model_of_policy: References<DeviceId>,
    device_of_rule: References<DeviceId>,
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
    /// The index of `ks` as it is. Follow with [`Self::reconcile_all`].
    pub fn load(ks: &Keyspace) -> Self {
        let mut binder = Self::default();
        for kind in Kind::ALL {
            resource::list(kind, None, ks).for_each(|(id, json)| binder.index(kind, &id, Some(json)));
        }
        let nodes = ks.range(nodes::PREFIX).filter_map(|(key, _)| node_of_key(key.as_str()));
        binder.nodes = nodes.collect();
        binder
    }

    /// Brings every edge in line; writes nothing where all is well.
    pub fn reconcile_all(&self, ks: &mut Keyspace) {
        let mut edges = self.nodes.clone();
        edges.extend(ks.range("/e/").filter_map(|(key, _)| edge_of_key(key.as_str())));
        edges.iter().for_each(|edge| self.reconcile(edge, ks));
    }

    /// Brings those edges in line that the changed keys concern: manifests and nodes, other keys are passed over.
    /// `ks` already holds the changes, of this cycle or of one before.
    pub fn handle_changes<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>, ks: &mut Keyspace) {
        let mut edges = BTreeSet::new();
        for key in keys {
            if let Some((kind, id)) = Kind::of_key(Layout::Cloud, key.as_str()) {
                edges.extend(self.edges_with(kind, &id));
                self.index(kind, &id, ks.get(key.as_str()).map(AsRef::as_ref));
                edges.extend(self.edges_with(kind, &id));
            } else if let Some(node) = node_of_key(key.as_str()) {
                let _ = if nodes::exists(&node, ks) {
                    self.nodes.insert(node.clone())
                } else {
                    self.nodes.remove(&node)
                };
                edges.insert(node);
            }
        }
        edges.iter().for_each(|edge| self.reconcile(edge, ks));
    }

    /// Where `device` runs; `None` if there is no such device.
    pub fn device(&self, device: &DeviceId) -> Option<Placement> {
        self.devices.contains(device).then(|| self.place(device))
    }

    /// Where `rule` runs: where its output's device does. `None` if there is no such rule.
    pub fn rule(&self, rule: &DeviceId) -> Option<Placement> {
        let device = self.device_of_rule.of(rule)?;
        Some(self.device(device).unwrap_or_else(|| Placement::DeviceMissing(device.clone())))
    }

    fn place(&self, device: &DeviceId) -> Placement {
        let Some(node) = self.node_of_device.of(device) else { return Placement::NoNode };
        let Some(model) = self.model_of_device.of(device) else { return Placement::NoModel };
        if !self.models.contains(model) {
            return Placement::ModelMissing(model.clone());
        }
        if !self.nodes.contains(node) {
            return Placement::NodeMissing(node.clone());
        }
        Placement::At(node.clone())
    }

    /// A manifest that cannot be read counts as absent.
    fn index(&mut self, kind: Kind, id: &DeviceId, json: Option<&[u8]>) {
        match kind {
            Kind::Device => self.index_device(id, spec::<DeviceSpec>(json)),
            Kind::Model => set(&mut self.models, id, spec::<DeviceModelSpec>(json).is_some()),
            Kind::Policy => {
                let model = spec::<TwinPolicySpec>(json).map(|policy| beside(id, policy.model));
                self.model_of_policy.set(id, model);
            }
            Kind::Rule => {
                let device =
                    spec::<RuleSpec>(json).and_then(|rule| RuleSpec::device(id, &rule.output.device));
                self.device_of_rule.set(id, device);
            }
        }
    }

    fn index_device(&mut self, id: &DeviceId, device: Option<DeviceSpec>) {
        set(&mut self.devices, id, device.is_some());
        let (node, model) = device.map_or((None, None), |spec| (spec.node_name, spec.device_model_ref));
        self.node_of_device.set(id, node);
        self.model_of_device.set(id, model.map(|model| beside(id, model.name)));
    }

    /// The edges that have or should have this manifest, as the index is now.
    fn edges_with(&self, kind: Kind, id: &DeviceId) -> BTreeSet<Name> {
        let of_device = |device: &DeviceId| self.node_of_device.of(device).cloned();
        let of_model = |model: &DeviceId| self.model_of_device.to(model).filter_map(of_device).collect();
        match kind {
            Kind::Device => of_device(id).into_iter().collect(),
            Kind::Model => of_model(id),
            Kind::Policy => self.model_of_policy.of(id).map(of_model).unwrap_or_default(),
            Kind::Rule => self.device_of_rule.of(id).and_then(of_device).into_iter().collect(),
        }
    }

    fn reconcile(&self, edge: &Name, ks: &mut Keyspace) {
        let wanted = self.wanted(edge);
        for kind in Kind::ALL {
            remove_unwanted(&at_edge(edge, kind), &wanted, kind, ks);
        }
        for (kind, id) in &wanted {
            if let Some(json) = resource::get(*kind, id, ks).cloned() {
                ks.put(own_key(&format!("{}{id}", at_edge(edge, *kind))), json);
            }
        }
        self.remove_stray_wishes(edge, ks);
    }

    fn wanted(&self, edge: &Name) -> BTreeSet<(Kind, DeviceId)> {
        let mut wanted = BTreeSet::new();
        for device in self.node_of_device.to(edge) {
            let Placement::At(_) = self.place(device) else { continue };
            wanted.insert((Kind::Device, device.clone()));
            let model = self.model_of_device.of(device);
            wanted.extend(model.map(|model| (Kind::Model, model.clone())));
            let policies = model.into_iter().flat_map(|model| self.model_of_policy.to(model));
            wanted.extend(policies.map(|policy| (Kind::Policy, policy.clone())));
            wanted.extend(self.device_of_rule.to(device).map(|rule| (Kind::Rule, rule.clone())));
        }
        wanted
    }

    /// Desired values for devices that are not, or no longer, this edge's. Those of a node that was removed wait for the next
    /// one of that name, to which the devices are still bound.
    fn remove_stray_wishes(&self, edge: &Name, ks: &mut Keyspace) {
        let prefix = format!("/e/{edge}/desired/");
        let belongs = |key: &Key| {
            let device = device_of_wish(&key.as_str()[prefix.len()..]);
            device.is_some_and(|device| self.node_of_device.of(&device) == Some(edge))
        };
        let stray: Vec<Key> =
            ks.range(&prefix).map(|(key, _)| key).filter(|key| !belongs(key)).cloned().collect();
        stray.iter().for_each(|key| ks.delete(key));
    }
}

fn remove_unwanted(prefix: &str, wanted: &BTreeSet<(Kind, DeviceId)>, kind: Kind, ks: &mut Keyspace) {
    let belongs = |key: &Key| {
        let id: Option<DeviceId> = key.as_str()[prefix.len()..].parse().ok();
        id.is_some_and(|id| wanted.contains(&(kind, id)))
    };
    let stray: Vec<Key> = ks.range(prefix).map(|(key, _)| key).filter(|key| !belongs(key)).cloned().collect();
    stray.iter().for_each(|key| ks.delete(key));
}

fn spec<S: Spec>(json: Option<&[u8]>) -> Option<S> {
    Some(Document::<S>::from_json(json?).ok()?.spec)
}

fn set(ids: &mut BTreeSet<DeviceId>, id: &DeviceId, present: bool) {
    if present {
        ids.insert(id.clone());
    } else {
        ids.remove(id);
    }
}

/// `name` in the namespace of `id`.
fn beside(id: &DeviceId, name: Name) -> DeviceId {
    DeviceId { namespace: id.namespace.clone(), name }
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
