//! What manifests say of each other, and what follows for the edges.

use std::collections::BTreeSet;

use bus::Name;
use bus::twin::DeviceId;
use device_twin::model::{DeviceModelSpec, DeviceSpec, Document, Kind, Spec, TwinPolicySpec};
use device_twin::rule::RuleSpec;

use super::Placement;
use super::devices::{Asked, Devices, use_of};
use super::references::References;
use super::stale::Stale;

/// Who is there and who refers to whom. Follows from the keyspace alone; a manifest that cannot be read counts as
/// absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Register {
    nodes: BTreeSet<Name>,
    models: BTreeSet<DeviceId>,
    devices: Devices,
    model_of_policy: References<DeviceId>,
    device_of_rule: References<DeviceId>,
}

impl Register {
    /// A node joined or went; false if that was known.
    pub(super) fn set_node(&mut self, node: &Name, is_there: bool) -> bool {
        if is_there { self.nodes.insert(node.clone()) } else { self.nodes.remove(node) }
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Name> {
        self.nodes.iter()
    }

    /// A manifest is this from here on, or gone; `stale` are the edges' rows that may be others now.
    pub(super) fn set(&mut self, kind: Kind, id: &DeviceId, json: Option<&[u8]>, stale: &mut Stale) {
        match kind {
            Kind::Device => self.set_device(id, spec::<DeviceSpec>(json), stale),
            Kind::Model => self.set_model(id, spec::<DeviceModelSpec>(json).is_some(), stale),
            Kind::Policy => {
                let model = spec::<TwinPolicySpec>(json).map(|policy| beside(id, policy.model));
                self.set_policy(id, model, stale);
            }
            Kind::Rule => {
                let device =
                    spec::<RuleSpec>(json).and_then(|rule| RuleSpec::device(id, &rule.output.device));
                self.set_rule(id, device, stale);
            }
        }
    }

    /// The device's own row. If it asks for something else than before also its rules, and the model with its policies
    /// where it was the last one to ask for that, or is the first.
    fn set_device(&mut self, id: &DeviceId, spec: Option<DeviceSpec>, stale: &mut Stale) {
        let asked = spec.map(|spec| Asked {
            node: spec.node_name,
            model: spec.device_model_ref.map(|model| beside(id, model.name)),
        });
        let use_now = asked.as_ref().and_then(use_of);
        let was_used = use_now.as_ref().is_some_and(|(edge, model)| self.devices.is_used(model, edge));
        let before = self.devices.set(id, asked);
        let use_before = before.as_ref().and_then(use_of);
        for (edge, _) in [&use_before, &use_now].into_iter().flatten() {
            stale.row(edge, Kind::Device, id);
            if use_before != use_now {
                self.device_of_rule.to(id).for_each(|rule| stale.row(edge, Kind::Rule, rule));
            }
        }
        if let Some((edge, model)) = use_before.filter(|(edge, model)| !self.devices.is_used(model, edge)) {
            self.shared_rows(&edge, &model, stale);
        }
        if let Some((edge, model)) = use_now.filter(|_| !was_used) {
            self.shared_rows(&edge, &model, stale);
        }
        let home = self.devices.node_of(id);
        if let Some(left) = before.and_then(|before| before.node).filter(|left| Some(left) != home) {
            stale.wishes(&left, id);
        }
    }

    /// What the devices of a model at an edge have in common.
    fn shared_rows(&self, edge: &Name, model: &DeviceId, stale: &mut Stale) {
        stale.row(edge, Kind::Model, model);
        self.model_of_policy.to(model).for_each(|policy| stale.row(edge, Kind::Policy, policy));
    }

    /// Its own rows. Where it comes or goes, so do its devices.
    fn set_model(&mut self, id: &DeviceId, is_there: bool, stale: &mut Stale) {
        let was_there = if is_there { !self.models.insert(id.clone()) } else { self.models.remove(id) };
        for edge in self.devices.edges_of(id) {
            if was_there == is_there {
                stale.row(edge, Kind::Model, id);
            } else {
                self.rows_of_model(edge, id, &mut |kind, id| stale.row(edge, kind, id));
            }
        }
    }

    fn set_policy(&mut self, id: &DeviceId, model: Option<DeviceId>, stale: &mut Stale) {
        let before = self.model_of_policy.set(id, model.clone());
        for model in [before, model].into_iter().flatten() {
            self.devices.edges_of(&model).for_each(|edge| stale.row(edge, Kind::Policy, id));
        }
    }

    fn set_rule(&mut self, id: &DeviceId, device: Option<DeviceId>, stale: &mut Stale) {
        let before = self.device_of_rule.set(id, device.clone());
        for device in [before, device].into_iter().flatten() {
            self.devices.node_of(&device).into_iter().for_each(|edge| stale.row(edge, Kind::Rule, id));
        }
    }

    /// All that an edge has for one model, if that and the edge are there.
    fn rows_of_model(&self, edge: &Name, model: &DeviceId, each: &mut impl FnMut(Kind, &DeviceId)) {
        each(Kind::Model, model);
        self.model_of_policy.to(model).for_each(|policy| each(Kind::Policy, policy));
        for device in self.devices.users_of(model, edge) {
            each(Kind::Device, device);
            self.device_of_rule.to(device).for_each(|rule| each(Kind::Rule, rule));
        }
    }

    /// All that may belong to an edge.
    pub(super) fn rows_at(&self, edge: &Name, each: &mut impl FnMut(Kind, &DeviceId)) {
        self.devices.models_at(edge).for_each(|model| self.rows_of_model(edge, model, each));
    }

    /// Whether an edge is to have a manifest.
    pub(super) fn belongs(&self, edge: &Name, kind: Kind, id: &DeviceId) -> bool {
        let has_model = |model: &DeviceId| {
            self.nodes.contains(edge) && self.models.contains(model) && self.devices.is_used(model, edge)
        };
        let has_device = |device: &DeviceId| {
            let asked = self.devices.get(device).filter(|asked| asked.node.as_ref() == Some(edge));
            asked.and_then(|asked| asked.model.as_ref()).is_some_and(has_model)
        };
        match kind {
            Kind::Device => has_device(id),
            Kind::Model => has_model(id),
            Kind::Policy => self.model_of_policy.of(id).is_some_and(has_model),
            Kind::Rule => self.device_of_rule.of(id).is_some_and(has_device),
        }
    }

    /// Whether an edge is where wishes for a device go. Those of a node that was removed wait for the next one of that
    /// name, to which the devices are still bound.
    pub(super) fn is_home(&self, edge: &Name, device: &DeviceId) -> bool {
        self.devices.node_of(device) == Some(edge)
    }

    pub(super) fn device(&self, device: &DeviceId) -> Option<Placement> {
        let Asked { node, model } = self.devices.get(device)?;
        let Some(node) = node else { return Some(Placement::NoNode) };
        let Some(model) = model else { return Some(Placement::NoModel) };
        Some(if !self.models.contains(model) {
            Placement::ModelMissing(model.clone())
        } else if !self.nodes.contains(node) {
            Placement::NodeMissing(node.clone())
        } else {
            Placement::At(node.clone())
        })
    }

    pub(super) fn rule(&self, rule: &DeviceId) -> Option<Placement> {
        let device = self.device_of_rule.of(rule)?;
        Some(self.device(device).unwrap_or_else(|| Placement::DeviceMissing(device.clone())))
    }
}

fn spec<S: Spec>(json: Option<&[u8]>) -> Option<S> {
    Some(Document::<S>::from_json(json?).ok()?.spec)
}

/// `name` in the namespace of `id`.
fn beside(id: &DeviceId, name: Name) -> DeviceId {
    DeviceId { namespace: id.namespace.clone(), name }
}
