//! What a node knows of devices: manifests in, resolved properties out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bus::twin::{DeviceId, Json};
use bus::value::WrongValue;
use bus::{Name, Quality, Value, ValueType};
use bytes::Bytes;
use thiserror::Error;

use super::device::{DeviceModelSpec, DeviceProperty, DeviceSpec, ModelProperty};
use super::policy::{OnStale, TwinPolicySpec};
use super::{Document, ManifestError, Spec};
use crate::rule::RuleSpec;

/// How often KubeEdge's mappers read a property that does not say (`DefaultCollectCycle`).
const DEFAULT_POLL: Duration = Duration::from_secs(1);

/// How long an actuator's desired value is meant, if no policy says: long enough for a slow link, short enough that
/// nobody has forgotten it.
const DEFAULT_DESIRED_MAX_AGE: Duration = Duration::from_secs(60);

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

/// One device, resolved: its manifest, model and policies taken together.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceInfo {
    pub node: Option<Name>,
    pub mapper: Option<Name>,
    pub connection: Json,
    pub properties: Properties,
    /// Why properties are missing, for people.
    pub problem: Option<String>,
}

/// By name. Devices of one model mostly agree on their properties, and then share them.
pub type Properties = BTreeMap<Arc<str>, Arc<Property>>;

/// One property of a device, resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    pub value_type: ValueType,
    pub writable: bool,
    pub unit: Option<String>,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    /// Where it lives in the device, in the mapper's terms.
    pub address: Json,
    /// Zero: the device pushes.
    pub poll: Duration,
    /// What the device's manifest wishes for it (KubeEdge `desired.value`).
    pub manifest_desired: Option<String>,
    pub policy: Policy,
}

/// [`TwinPolicySpec`], merged and with its defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub actuator: bool,
    pub on_stale: OnStale,
    /// `None`: for ever.
    pub desired_max_age: Option<Duration>,
    pub max_age: Option<Duration>,
    pub deadband: f64,
    pub report_interval: Option<Duration>,
    pub fail_safe: Option<Value>,
    pub write_interval: Option<Duration>,
    /// Per second.
    pub slew: Option<f64>,
    pub local_override: bool,
}

/// Why a value is not one of a property.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum InvalidValue {
    #[error("the property is read-only")]
    ReadOnly,
    #[error("wrong type")]
    Type(#[source] WrongValue),
    #[error("{value} is outside {} to {}", show(.minimum), show(.maximum))]
    Range { value: Value, minimum: Option<f64>, maximum: Option<f64> },
    #[error("'{0}' cannot be read as {1:?}")]
    Text(String, ValueType),
}

fn show(bound: &Option<f64>) -> String {
    bound.map_or_else(|| "any".to_owned(), |b| b.to_string())
}

/// Why a property is not found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Lookup {
    #[error("device {0} is not known here")]
    Device(DeviceId),
    #[error("device {0} has no property '{1}'")]
    Property(DeviceId, String),
}

impl DeviceInfo {
    /// Whether a command of this name may set these properties.
    pub(crate) fn check_command<'a>(
        &self,
        name: &str,
        mut properties: impl Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        if name != crate::command::SET {
            return Err(format!("there is no command '{}'; there is 'set'", super::cut(name)));
        }
        match properties.find(|property| !self.properties.contains_key(*property)) {
            Some(unknown) => Err(format!("there is no property '{}'", super::cut(unknown))),
            None => Ok(()),
        }
    }
}

impl Property {
    /// A desired value as the device shall get it.
    pub fn check_desired(&self, value: Value) -> Result<Value, InvalidValue> {
        if !self.writable {
            return Err(InvalidValue::ReadOnly);
        }
        let value = value.coerce(self.value_type).map_err(InvalidValue::Type)?;
        if self.in_range(&value) { Ok(value) } else { Err(self.out_of_range(value)) }
    }

    /// A reported value, and how far its range lets it be trusted.
    pub fn check_reported(&self, value: Value) -> Result<(Value, Quality), InvalidValue> {
        let value = value.coerce(self.value_type).map_err(InvalidValue::Type)?;
        let quality = if self.in_range(&value) { Quality::Good } else { Quality::Uncertain };
        Ok((value, quality))
    }

    /// A value written as text, as KubeEdge does for every type.
    pub fn parse(&self, text: &str) -> Result<Value, InvalidValue> {
        let wrong = || InvalidValue::Text(super::cut(text), self.value_type);
        match self.value_type {
            ValueType::Bool => text.parse().map(Value::Bool).map_err(|_| wrong()),
            ValueType::Int => text.parse().map(Value::Int).map_err(|_| wrong()),
            ValueType::Float => text.parse().map(Value::Float).map_err(|_| wrong()),
            ValueType::String | ValueType::Bytes => Ok(Value::Text(text.to_owned())),
            ValueType::Struct => serde_json::from_str(text).map_err(|_| wrong()),
        }
    }

    /// Whether a report of `new` says the same as the stored `old`.
    pub fn is_unchanged(&self, old: &Value, new: &Value) -> bool {
        if old == new {
            return true;
        }
        let numeric = matches!(self.value_type, ValueType::Int | ValueType::Float);
        match (numeric, old.as_f64(), new.as_f64()) {
            (true, Some(old), Some(new)) => (old - new).abs() < self.policy.deadband,
            _ => false,
        }
    }

    fn in_range(&self, value: &Value) -> bool {
        let Some(number) = value.as_f64() else { return true };
        !(self.minimum.is_some_and(|min| number < min) || self.maximum.is_some_and(|max| number > max))
    }

    fn out_of_range(&self, value: Value) -> InvalidValue {
        InvalidValue::Range { value, minimum: self.minimum, maximum: self.maximum }
    }
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
                self.note(kind, id, problem);
                self.resolve_all(self.users_of(id))
            }
            Kind::Policy => self.put_policy(id, json),
            Kind::Rule => {
                let problem = store(&mut self.rules, id, json);
                self.note(kind, id, problem);
                Change::Rule(id.clone())
            }
        }
    }

    fn put_device(&mut self, id: &DeviceId, json: Option<&Bytes>) -> Result<(), ManifestError> {
        self.resolved.remove(id);
        self.devices.remove(id);
        let Some(json) = json else { return Ok(()) };
        let spec = Document::<DeviceSpec>::from_json(json)?.spec;
        let manifest = Manifest { model: model_of(id, &spec), json: json.clone() };
        self.devices.insert(id.clone(), manifest);
        self.resolve(id, &spec);
        Ok(())
    }

    /// A policy touches the users of the model it speaks of now, and of the one it spoke of before.
    fn put_policy(&mut self, id: &DeviceId, json: Option<&Bytes>) -> Change {
        let before = self.policies.get(id).map(|p| p.model.clone());
        let problem = store(&mut self.policies, id, json);
        self.note(Kind::Policy, id, problem);
        let after = self.policies.get(id).map(|p| p.model.clone());
        let models: BTreeSet<Name> = before.into_iter().chain(after).collect();
        let users = models
            .into_iter()
            .flat_map(|name| self.users_of(&DeviceId { namespace: id.namespace.clone(), name }))
            .collect();
        self.resolve_all(users)
    }

    fn note(&mut self, kind: Kind, id: &DeviceId, problem: Option<ManifestError>) {
        if let Some(problem) = problem {
            self.unreadable.insert((kind, id.clone()), problem);
        }
    }

    fn users_of(&self, model: &DeviceId) -> BTreeSet<DeviceId> {
        let users = self.devices.iter().filter(|(_, manifest)| manifest.model.as_ref() == Some(model));
        users.map(|(id, _)| id.clone()).collect()
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
        let model = model_id.as_ref().and_then(|m| self.models.get(m));
        let policies = model_id.as_ref().map_or_else(Vec::new, |m| self.policies_of(m));
        let problem = match (&model_id, model) {
            (None, _) => Some("spec.deviceModelRef is missing".to_owned()),
            (Some(m), None) => Some(format!("model {m} is not known here")),
            (Some(_), Some(model)) => missing_in_model(spec, model),
        };
        let defaults = model.map(|m| m.protocol_config_data.clone()).unwrap_or_default();
        let known = model_id.as_ref().and_then(|m| self.shared.get(m));
        let properties = model.map(|m| properties(spec, m, &policies, known)).unwrap_or_default();
        let info = DeviceInfo {
            node: spec.node_name.clone(),
            mapper: spec.protocol.mapper().ok().flatten(),
            connection: merge(defaults, spec.protocol.config_data.clone()),
            properties: properties.clone(),
            problem,
        };
        self.resolved.insert(id.clone(), info);
        self.shared.extend(model_id.map(|m| (m, properties)));
    }

    fn policies_of(&self, model: &DeviceId) -> Vec<&TwinPolicySpec> {
        let of_model = self
            .policies
            .iter()
            .filter(|(id, policy)| id.namespace == model.namespace && policy.model == model.name);
        of_model.map(|(_, policy)| policy).collect()
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

fn model_of(id: &DeviceId, spec: &DeviceSpec) -> Option<DeviceId> {
    let name = spec.device_model_ref.as_ref()?.name.clone();
    Some(DeviceId { namespace: id.namespace.clone(), name })
}

fn missing_in_model(spec: &DeviceSpec, model: &DeviceModelSpec) -> Option<String> {
    let known = |name: &str| model.properties.iter().any(|p| p.name == name);
    let missing = spec.properties.iter().find(|p| !known(&p.name))?;
    Some(format!("property '{}' is not in the model", missing.name))
}

/// The properties that the device lists; all of the model's if it lists none. Those that are as `known` are shared.
fn properties(
    spec: &DeviceSpec,
    model: &DeviceModelSpec,
    policies: &[&TwinPolicySpec],
    known: Option<&Properties>,
) -> Properties {
    let own = |name: &str| spec.properties.iter().find(|p| p.name == name);
    let of_device = |m: &&ModelProperty| spec.properties.is_empty() || own(&m.name).is_some();
    let resolved = model.properties.iter().filter(of_device).filter_map(|m| {
        let property = property(m, own(&m.name), policies)?;
        Some(match known.and_then(|known| known.get_key_value(m.name.as_str())) {
            Some((name, same)) if **same == property => (Arc::clone(name), Arc::clone(same)),
            Some((name, _)) => (Arc::clone(name), Arc::new(property)),
            None => (Arc::from(m.name.as_str()), Arc::new(property)),
        })
    });
    resolved.collect()
}

/// `None` for a stream, which has no value.
fn property(
    model: &ModelProperty,
    device: Option<&DeviceProperty>,
    policies: &[&TwinPolicySpec],
) -> Option<Property> {
    let value_type = model.property_type.value_type()?;
    let defaults = model.visitors.clone().unwrap_or_default().config_data;
    let own = device.and_then(|d| d.visitors.clone()).unwrap_or_default().config_data;
    Some(Property {
        value_type,
        writable: model.access_mode == super::AccessMode::ReadWrite,
        unit: Some(model.unit.clone()).filter(|unit| !unit.is_empty()),
        minimum: model.minimum(),
        maximum: model.maximum(),
        address: merge(defaults, own),
        poll: device.and_then(|d| d.collect_cycle).map_or(DEFAULT_POLL, Duration::from_millis),
        manifest_desired: device.and_then(|d| d.desired.as_ref()).map(|d| d.value.clone()),
        policy: policy(&model.name, value_type, policies),
    })
}

fn policy(property: &str, value_type: ValueType, policies: &[&TwinPolicySpec]) -> Policy {
    let about = |p: &&&TwinPolicySpec| p.property.as_deref() == Some(property);
    let general = |p: &&&TwinPolicySpec| p.property.is_none();
    let ordered: Vec<&TwinPolicySpec> =
        policies.iter().filter(about).chain(policies.iter().filter(general)).copied().collect();
    let actuator = ordered.iter().find_map(|p| p.actuator).unwrap_or(false);
    let on_stale = ordered.iter().find_map(|p| p.on_stale);
    let desired_max_age = ordered.iter().find_map(|p| p.desired_max_age).map(|span| span.0);
    Policy {
        actuator,
        on_stale: on_stale.unwrap_or(if actuator { OnStale::Rearm } else { OnStale::Apply }),
        desired_max_age: desired_max_age.or(actuator.then_some(DEFAULT_DESIRED_MAX_AGE)),
        max_age: ordered.iter().find_map(|p| p.max_age).map(|span| span.0),
        deadband: ordered.iter().find_map(|p| p.deadband).unwrap_or(0.0),
        report_interval: ordered.iter().find_map(|p| p.report_interval).map(|span| span.0),
        write_interval: ordered.iter().find_map(|p| p.write_interval).map(|span| span.0),
        slew: ordered.iter().find_map(|p| p.slew),
        local_override: ordered.iter().find_map(|p| p.local_override).unwrap_or(false),
        fail_safe: ordered
            .iter()
            .find_map(|p| p.fail_safe.clone())
            .and_then(|value| value.coerce(value_type).ok()),
    }
}

/// KubeEdge merges instance over model key by key, one level deep.
fn merge(defaults: Json, own: Json) -> Json {
    match (defaults, own) {
        (Json::Object(mut all), Json::Object(own)) => {
            all.extend(own);
            Json::Object(all)
        }
        (defaults, Json::Null) => defaults,
        (_, own) => own,
    }
}
