//! What a node knows of devices: manifests in, resolved properties out.

use std::collections::{BTreeMap, BTreeSet};

use bus::Name;
use bus::twin::DeviceId;
use bytes::Bytes;
use thiserror::Error;

use super::device::{DeviceModelSpec, DeviceSpec};
use super::links::Links;
use super::merge::NamedPolicy;
use super::policy::TwinPolicySpec;
use super::property::Property;
use super::resolve::{self, Common, DeviceInfo, Properties, Sources};
use super::{Document, ManifestError, Spec};
use crate::command::Command;
use crate::rule::RuleSpec;
use crate::twin::explain;

/// The kinds of manifest that a node keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Device,
    Model,
    Policy,
    Rule,
}

/// Where manifests lie in a keyspace: `/m/device/<ns>/<name>` at an edge, `/c/resource/devicemodel/<ns>/<name>` in
/// the cloud; the same JSON in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Edge,
    Cloud,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Model, Self::Policy, Self::Device, Self::Rule];

    /// The prefix of this kind's keys.
    pub fn prefix(self, layout: Layout) -> &'static str {
        match (layout, self) {
            (Layout::Edge, Self::Device) => "/m/device/",
            (Layout::Edge, Self::Model) => "/m/model/",
            (Layout::Edge, Self::Policy) => "/m/policy/",
            (Layout::Edge, Self::Rule) => "/m/rule/",
            (Layout::Cloud, Self::Device) => "/c/resource/device/",
            (Layout::Cloud, Self::Model) => "/c/resource/devicemodel/",
            (Layout::Cloud, Self::Policy) => "/c/resource/twinpolicy/",
            (Layout::Cloud, Self::Rule) => "/c/resource/rule/",
        }
    }

    /// What a key names, `None` if it is no manifest's.
    pub fn of_key(layout: Layout, key: &str) -> Option<(Self, DeviceId)> {
        Self::ALL.into_iter().find_map(|kind| {
            let rest = key.strip_prefix(kind.prefix(layout))?;
            let (namespace, name) = rest.split_once('/')?;
            let id = DeviceId { namespace: Name::new(namespace).ok()?, name: Name::new(name).ok()? };
            Some((kind, id))
        })
    }
}

/// What a new manifest touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Devices(BTreeSet<DeviceId>),
    Rule(DeviceId),
}

/// Why a property is not found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Lookup {
    #[error("device {0} is not known here")]
    Device(DeviceId),
    #[error("device {0} has no property '{1}'")]
    Property(DeviceId, String),
}

/// Why a command cannot be given to a device.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidCommand {
    #[error(transparent)]
    Lookup(#[from] Lookup),
    #[error("{0}")]
    Unfit(String),
}

/// Every manifest a node knows, and the devices they make.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalog {
    devices: BTreeMap<DeviceId, Manifest>,
    models: BTreeMap<DeviceId, DeviceModelSpec>,
    policies: BTreeMap<DeviceId, TwinPolicySpec>,
    rules: BTreeMap<DeviceId, RuleSpec>,
    resolved: BTreeMap<DeviceId, DeviceInfo>,
    /// The properties of the device of each model that was resolved last.
    shared: BTreeMap<DeviceId, Properties>,
    unreadable: BTreeMap<(Kind, DeviceId), ManifestError>,
    /// Of each model that has devices which say nothing of its properties.
    common: BTreeMap<DeviceId, Common>,
    /// The devices of each model.
    users: Links,
    /// The policies of each model.
    policies_of: Links,
    /// The rules that speak of each device.
    rules_about: Links,
}

/// A device's manifest as the keyspace holds it too: read, it would be several times as large.
#[derive(Debug, Clone, PartialEq)]
struct Manifest {
    model: Option<DeviceId>,
    json: Bytes,
}

impl Catalog {
    /// Takes a manifest in, or out with `None`. One that cannot be read counts as absent and is listed in
    /// [`Self::unreadable`].
    pub fn put(&mut self, kind: Kind, id: &DeviceId, json: Option<&Bytes>) -> Change {
        self.unreadable.remove(&(kind, id.clone()));
        match kind {
            Kind::Device => {
                let problem = self.put_device(id, json).err();
                self.note(kind, id, problem);
                Change::Devices([id.clone()].into())
            }
            Kind::Model => {
                let problem = store(&mut self.models, id, json);
                self.common.remove(id);
                self.note(kind, id, problem);
                self.resolve_all(self.users_of(id))
            }
            Kind::Policy => self.put_policy(id, json),
            Kind::Rule => {
                let problem = self.put_rule(id, json);
                self.note(kind, id, problem);
                Change::Rule(id.clone())
            }
        }
    }

    fn put_rule(&mut self, id: &DeviceId, json: Option<&Bytes>) -> Option<ManifestError> {
        let spoken_of = |rules: &BTreeMap<_, _>| rules.get(id).map(|rule| devices_of(id, rule));
        self.rules_about.unlink(spoken_of(&self.rules).iter().flatten(), id);
        let problem = store(&mut self.rules, id, json);
        self.rules_about.link(spoken_of(&self.rules).iter().flatten(), id);
        problem
    }

    fn put_device(&mut self, id: &DeviceId, json: Option<&Bytes>) -> Result<(), ManifestError> {
        self.resolved.remove(id);
        let before = self.devices.remove(id).and_then(|manifest| manifest.model);
        self.users.unlink(&before, id);
        let Some(json) = json else { return Ok(()) };
        let spec = Document::<DeviceSpec>::from_json(json)?.spec;
        let manifest = Manifest { model: model_of(id, &spec), json: json.clone() };
        self.users.link(&manifest.model, id);
        self.devices.insert(id.clone(), manifest);
        self.resolve(id, &spec);
        Ok(())
    }

    /// A policy touches the users of the model it speaks of now, and of the one it spoke of before.
    fn put_policy(&mut self, id: &DeviceId, json: Option<&Bytes>) -> Change {
        let model = |policies: &BTreeMap<_, TwinPolicySpec>| {
            policies.get(id).map(|policy| beside(id, policy.model.clone()))
        };
        let before = model(&self.policies);
        self.policies_of.unlink(&before, id);
        let problem = store(&mut self.policies, id, json);
        self.note(Kind::Policy, id, problem);
        let after = model(&self.policies);
        self.policies_of.link(&after, id);
        for model in before.iter().chain(&after) {
            self.common.remove(model);
        }
        let users = before.iter().chain(&after).flat_map(|model| self.users_of(model)).collect();
        self.resolve_all(users)
    }

    fn note(&mut self, kind: Kind, id: &DeviceId, problem: Option<ManifestError>) {
        if let Some(problem) = problem {
            self.unreadable.insert((kind, id.clone()), problem);
        }
    }

    fn users_of(&self, model: &DeviceId) -> BTreeSet<DeviceId> {
        self.users.to(model).cloned().collect()
    }

    fn resolve_all(&mut self, ids: BTreeSet<DeviceId>) -> Change {
        for id in &ids {
            let readable = self.devices.get(id).map(|manifest| Document::from_json(&manifest.json));
            if let Some(Ok(document)) = readable {
                self.resolve(id, &document.spec);
            }
        }
        Change::Devices(ids)
    }

    fn resolve(&mut self, id: &DeviceId, spec: &DeviceSpec) {
        let model_id = model_of(id, spec);
        if let Some(model) = model_id.as_ref().filter(|_| spec.properties.is_empty()) {
            self.make_common(model);
        }
        let policies = model_id.as_ref().map_or_else(Vec::new, |m| self.policies_of(m));
        let info = resolve::device(&Sources {
            device: spec,
            model_id: model_id.as_ref(),
            model: model_id.as_ref().and_then(|m| self.models.get(m)),
            common: model_id.as_ref().and_then(|m| self.common.get(m)),
            policies: &policies,
            known: model_id.as_ref().and_then(|m| self.shared.get(m)),
        });
        self.shared.extend(model_id.map(|m| (m, info.properties.clone())));
        self.resolved.insert(id.clone(), info);
    }

    fn make_common(&mut self, model_id: &DeviceId) {
        if !self.common.contains_key(model_id)
            && let Some(model) = self.models.get(model_id)
        {
            let common = Common::new(model, &self.policies_of(model_id));
            self.common.insert(model_id.clone(), common);
        }
    }

    pub(super) fn policies_of(&self, model: &DeviceId) -> Vec<NamedPolicy<'_>> {
        self.policies_of.to(model).filter_map(|id| self.policies.get_key_value(id)).collect()
    }

    pub(super) fn model(&self, id: &DeviceId) -> Option<&DeviceModelSpec> {
        self.models.get(id)
    }

    /// Whether the device's properties can be known.
    pub(super) fn has_model_of(&self, device: &DeviceId) -> bool {
        let model = self.devices.get(device).and_then(|manifest| manifest.model.as_ref());
        model.is_some_and(|model| self.models.contains_key(model))
    }

    /// The part of the catalog that this manifest can make a difference to the rules of: those that speak of the devices
    /// that it touches, and all that they rest on. A manifest can be tried out on it at the price of that part; without
    /// such a rule it is empty.
    pub(super) fn around(&self, kind: Kind, id: &DeviceId, json: &Bytes) -> Self {
        let touched = self.touched_by(kind, id, json);
        let near: BTreeSet<&DeviceId> =
            touched.iter().flat_map(|device| self.rules_about.to(device)).collect();
        let mut around = Self { rules: part(&self.rules, near.into_iter()), ..Self::default() };
        if around.rules.is_empty() {
            return around;
        }
        let ids: BTreeSet<DeviceId> =
            around.rules.iter().flat_map(|(id, rule)| devices_of(id, rule)).collect();
        around.devices = part(&self.devices, ids.iter());
        around.resolved = part(&self.resolved, ids.iter());
        let own = Document::<DeviceSpec>::from_json(json).ok().and_then(|device| model_of(id, &device.spec));
        let models: BTreeSet<DeviceId> =
            around.devices.values().filter_map(|device| device.model.clone()).chain(own).collect();
        around.models = part(&self.models, models.iter());
        let policies = models.iter().flat_map(|model| self.policies_of.to(model));
        around.policies = part(&self.policies, policies);
        around.link_all();
        around
    }

    fn link_all(&mut self) {
        for (id, device) in &self.devices {
            self.users.link(&device.model, id);
        }
        for (id, policy) in &self.policies {
            self.policies_of.link([&beside(id, policy.model.clone())], id);
        }
        for (id, rule) in &self.rules {
            self.rules_about.link(&devices_of(id, rule), id);
        }
    }

    fn touched_by(&self, kind: Kind, id: &DeviceId, json: &Bytes) -> BTreeSet<DeviceId> {
        match kind {
            Kind::Device => BTreeSet::from([id.clone()]),
            Kind::Model => self.users_of(id),
            Kind::Policy => {
                let new = Document::<TwinPolicySpec>::from_json(json).ok().map(|policy| policy.spec.model);
                let old = self.policies.get(id).map(|policy| policy.model.clone());
                new.into_iter().chain(old).flat_map(|name| self.users_of(&beside(id, name))).collect()
            }
            Kind::Rule => BTreeSet::new(),
        }
    }

    pub fn device(&self, id: &DeviceId) -> Option<&DeviceInfo> {
        self.resolved.get(id)
    }

    pub fn devices(&self) -> impl Iterator<Item = (&DeviceId, &DeviceInfo)> {
        self.resolved.iter()
    }

    pub fn rules(&self) -> impl Iterator<Item = (&DeviceId, &RuleSpec)> {
        self.rules.iter()
    }

    /// The rules that read or move something of `device`.
    pub fn rules_about(&self, device: &DeviceId) -> impl Iterator<Item = &DeviceId> {
        self.rules_about.to(device)
    }

    pub fn rule(&self, id: &DeviceId) -> Option<&RuleSpec> {
        self.rules.get(id)
    }

    /// Manifests that could not be read: written by a newer version, or not by the controller.
    pub fn unreadable(&self) -> impl Iterator<Item = (&(Kind, DeviceId), &ManifestError)> {
        self.unreadable.iter()
    }

    pub fn property(&self, device: &DeviceId, property: &str) -> Result<&Property, Lookup> {
        let info = self.device(device).ok_or_else(|| Lookup::Device(device.clone()))?;
        let found = info.properties.get(property);
        found.map(|p| &**p).ok_or_else(|| Lookup::Property(device.clone(), super::cut(property)))
    }

    /// Whether the device knows the command, and its properties can hold the arguments.
    pub(crate) fn check_command(&self, device: &DeviceId, command: &Command) -> Result<(), InvalidCommand> {
        let info = self.device(device).ok_or_else(|| Lookup::Device(device.clone()))?;
        let names = command.args.keys().map(String::as_str);
        info.check_command(&command.name, names).map_err(InvalidCommand::Unfit)?;
        for (name, value) in &command.args {
            let unfit = |why| InvalidCommand::Unfit(format!("{name}: {}", explain(&why)));
            self.property(device, name)?.check_desired(value.clone()).map_err(unfit)?;
        }
        Ok(())
    }
}

fn store<S: Spec>(
    into: &mut BTreeMap<DeviceId, S>,
    id: &DeviceId,
    json: Option<&Bytes>,
) -> Option<ManifestError> {
    match json.map(|json| Document::<S>::from_json(json)) {
        Some(Ok(document)) => {
            into.insert(id.clone(), document.spec);
            None
        }
        Some(Err(problem)) => {
            into.remove(id);
            Some(problem)
        }
        None => {
            into.remove(id);
            None
        }
    }
}

/// The devices that a rule speaks of.
fn devices_of(id: &DeviceId, rule: &RuleSpec) -> BTreeSet<DeviceId> {
    let inputs = rule.inputs.values().map(|input| &input.device);
    inputs.chain([&rule.output.device]).filter_map(|device| RuleSpec::device(id, device)).collect()
}

fn part<'i, T: Clone>(
    all: &BTreeMap<DeviceId, T>,
    ids: impl Iterator<Item = &'i DeviceId>,
) -> BTreeMap<DeviceId, T> {
    ids.filter_map(|id| Some((id.clone(), all.get(id)?.clone()))).collect()
}

fn model_of(id: &DeviceId, spec: &DeviceSpec) -> Option<DeviceId> {
    Some(beside(id, spec.device_model_ref.as_ref()?.name.clone()))
}

/// `name` in the namespace of `id`.
fn beside(id: &DeviceId, name: Name) -> DeviceId {
    DeviceId { namespace: id.namespace.clone(), name }
}
