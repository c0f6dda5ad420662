//! What devices ask for, and by whom each model is used.

use std::collections::{BTreeMap, BTreeSet};

use bus::Name;
use bus::twin::DeviceId;

/// The edge and the model that a device's manifest names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) node: Option<Name>,
    pub(super) model: Option<DeviceId>,
}

/// A model at an edge.
pub(super) type Use = (Name, DeviceId);

/// Every device whose manifest can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Devices {
    all: BTreeMap<DeviceId, Asked>,
    /// Those that name an edge and a model.
    users: BTreeMap<Name, BTreeMap<DeviceId, BTreeSet<DeviceId>>>,
    edges: BTreeMap<DeviceId, BTreeSet<Name>>,
}

impl Devices {
    /// What it asks for from here on, `None` if it is gone. Says what it asked for before.
    pub(super) fn set(&mut self, id: &DeviceId, asked: Option<Asked>) -> Option<Asked> {
        let asked = asked.map(|asked| self.shared(asked));
        let before = match asked.clone() {
            Some(asked) => self.all.insert(id.clone(), asked),
            None => self.all.remove(id),
        };
        if before != asked {
            if let Some((edge, model)) = before.as_ref().and_then(use_of) {
                self.leave(id, &edge, &model);
            }
            if let Some((edge, model)) = asked.as_ref().and_then(use_of) {
                self.edges.entry(model.clone()).or_default().insert(edge.clone());
                self.users.entry(edge).or_default().entry(model).or_default().insert(id.clone());
            }
        }
        before
    }

    /// The same names in the memory that other devices hold them in.
    fn shared(&self, Asked { node, model }: Asked) -> Asked {
        let node = node.map(|node| self.users.get_key_value(&node).map_or(node, |(known, _)| known.clone()));
        let model =
            model.map(|model| self.edges.get_key_value(&model).map_or(model, |(known, _)| known.clone()));
        Asked { node, model }
    }

    fn leave(&mut self, id: &DeviceId, edge: &Name, model: &DeviceId) {
        let Some(models) = self.users.get_mut(edge) else { return };
        let Some(users) = models.get_mut(model) else { return };
        users.remove(id);
        if !users.is_empty() {
            return;
        }
        models.remove(model);
        if models.is_empty() {
            self.users.remove(edge);
        }
        if let Some(edges) = self.edges.get_mut(model) {
            edges.remove(edge);
            if edges.is_empty() {
                self.edges.remove(model);
            }
        }
    }

    pub(super) fn get(&self, id: &DeviceId) -> Option<&Asked> {
        self.all.get(id)
    }

    /// The edge that it names, joined or not.
    pub(super) fn node_of(&self, id: &DeviceId) -> Option<&Name> {
        self.all.get(id)?.node.as_ref()
    }

    /// Whether a device there asks for the model.
    pub(super) fn is_used(&self, model: &DeviceId, edge: &Name) -> bool {
        self.edges.get(model).is_some_and(|edges| edges.contains(edge))
    }

    pub(super) fn edges_of(&self, model: &DeviceId) -> impl Iterator<Item = &Name> {
        self.edges.get(model).into_iter().flatten()
    }

    pub(super) fn users_of(&self, model: &DeviceId, edge: &Name) -> impl Iterator<Item = &DeviceId> {
        self.users.get(edge).and_then(|models| models.get(model)).into_iter().flatten()
    }

    /// The models that are asked for at an edge.
    pub(super) fn models_at(&self, edge: &Name) -> impl Iterator<Item = &DeviceId> {
        self.users.get(edge).into_iter().flat_map(BTreeMap::keys)
    }
}

/// What a device uses that names both.
pub(super) fn use_of(Asked { node, model }: &Asked) -> Option<Use> {
    Some((node.clone()?, model.clone()?))
}
