//! From manifests to devices: what a device's manifest, its model and its policies say together.
//!
//! This is where documents of KubeEdge end. What comes out, [`DeviceInfo`] and [`Property`], names none of their types,
//! and nothing behind it knows where a device was described. An importer of other models (WoT Thing Models, vendors'
//! files) plugs in here: it is one more `Kind` of manifest in the catalog, and one more function beside [`device`] that
//! makes a [`DeviceInfo`] of it. The policies apply to its properties as they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bus::twin::{DeviceId, Json};
use bus::{Name, ValueType};

use super::FieldError;
use super::device::{DeviceMethod, DeviceModelSpec, DeviceProperty, DeviceSpec, ModelProperty};
use super::merge::{Merged, NamedPolicy};
use super::property::Property;
use crate::unit::Unit;

/// How often KubeEdge's mappers read a property that does not say (`DefaultCollectCycle`).
const DEFAULT_POLL: Duration = Duration::from_secs(1);

/// One device, resolved: its manifest, model and policies taken together.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceInfo {
    pub node: Option<Name>,
    pub mapper: Option<Name>,
    pub connection: Json,
    pub properties: Properties,
    pub methods: Methods,
    /// Why properties are missing, for people.
    pub problem: Option<String>,
}

impl DeviceInfo {
    /// Whether a command of this name may set these properties: `set` any, a method of the manifest its own.
    ///
    /// # Errors
    /// Names what there is.
    pub(crate) fn check_command<'a>(
        &self,
        name: &str,
        mut properties: impl Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        let method = self.methods.get(name);
        if name != crate::command::SET && method.is_none() {
            let known: Vec<&str> = self.methods.keys().map(String::as_str).collect();
            let methods = if known.is_empty() { String::new() } else { format!(", {}", known.join(", ")) };
            let name = super::cut(name);
            return Err(format!("there is no command '{name}'; there is set, reset-rule{methods}"));
        }
        let is_known = |property: &str| match method {
            Some(method) => method.iter().any(|known| **known == *property),
            None => self.properties.contains_key(property),
        };
        match properties.find(|property| !is_known(property)) {
            Some(unknown) => Err(format!("'{}' is no property of '{name}'", super::cut(unknown))),
            None => Ok(()),
        }
    }
}

/// By name. Devices of one model mostly agree on their properties, and then share them.
pub type Properties = BTreeMap<Arc<str>, Arc<Property>>;

/// A group of properties that belong together, as KubeEdge's `methods` have it.
pub type Methods = BTreeMap<String, Vec<Arc<str>>>;

/// What one device is resolved from.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    pub(super) device: &'a DeviceSpec,
    pub(super) model_id: Option<&'a DeviceId>,
    pub(super) model: Option<&'a DeviceModelSpec>,
    /// That of the model and its policies. Needed only where the device lists no properties.
    pub(super) common: Option<&'a Common>,
    /// Those of the model.
    pub(super) policies: &'a [NamedPolicy<'a>],
    /// The properties of another device of the model.
    pub(super) known: Option<&'a Properties>,
}

/// A model's properties with its policies, by their place in the model, as every device has them that says nothing of
/// them: they are resolved once, and not for each device.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Common(Vec<CommonProperty>);

#[derive(Debug, Clone, PartialEq)]
struct CommonProperty {
    property: Option<(Arc<str>, Arc<Property>)>,
    misfit: Option<Misfit>,
}

impl Common {
    pub(super) fn new(model: &DeviceModelSpec, policies: &[NamedPolicy<'_>]) -> Self {
        let resolved = model.properties.iter().enumerate().map(|(at, m)| {
            let Resolved { property, misfits } = property(at, m, None, policies);
            CommonProperty {
                property: property.map(|property| (Arc::from(m.name.as_str()), Arc::new(property))),
                misfit: misfits.into_iter().next(),
            }
        });
        Self(resolved.collect())
    }
}

/// What a policy says that its model cannot bear. It has no effect; where that would be unsafe, the property has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misfit {
    pub(super) policy: DeviceId,
    /// The property's place in its model.
    pub(super) at: usize,
    pub(super) error: FieldError,
}

/// The device that its sources make.
pub(super) fn device(sources: &Sources<'_>) -> DeviceInfo {
    let Sources { device, model_id, model, .. } = *sources;
    let (properties, misfit) = model.map(|model| properties(sources, model)).unwrap_or_default();
    let (methods, lost) = methods(&device.methods, model, &properties);
    let problem = match (model_id, model) {
        (None, _) => Some("spec.deviceModelRef is missing".to_owned()),
        (Some(id), None) => Some(format!("model {id} is not known here")),
        (Some(_), Some(model)) => missing_in_model(device, model),
    };
    let defaults = model.map(|model| model.protocol_config_data.clone()).unwrap_or_default();
    DeviceInfo {
        node: device.node_name.clone(),
        mapper: device.protocol.mapper().ok().flatten(),
        connection: merge(defaults, device.protocol.config_data.clone()),
        properties,
        methods,
        problem: problem.or_else(|| misfit.map(|misfit| misfit.to_string())).or(lost),
    }
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TwinPolicy {}: {}", self.policy, self.error)
    }
}

/// What the policies of a model say that it cannot bear.
pub(super) fn misfits(model: &DeviceModelSpec, policies: &[NamedPolicy<'_>]) -> Vec<Misfit> {
    let resolved = model.properties.iter().enumerate().map(|(at, m)| property(at, m, None, policies));
    resolved.flat_map(|resolved| resolved.misfits).collect()
}

fn missing_in_model(spec: &DeviceSpec, model: &DeviceModelSpec) -> Option<String> {
    let known = |name: &str| model.properties.iter().any(|p| p.name == name);
    let missing = spec.properties.iter().find(|p| !known(&p.name))?;
    Some(format!("property '{}' is not in the model", missing.name))
}

/// The properties that the device lists; all of the model's if it lists none. Those that are as `known` are shared.
/// With the first thing that does not fit.
fn properties(sources: &Sources<'_>, model: &DeviceModelSpec) -> (Properties, Option<Misfit>) {
    let Sources { device, common, policies, known, .. } = sources;
    let own = |name: &str| device.properties.iter().find(|p| p.name == name);
    let mut first = None;
    let mut all = Properties::new();
    for (at, m) in model.properties.iter().enumerate() {
        if device.properties.is_empty() {
            let Some(CommonProperty { property, misfit }) = common.and_then(|common| common.0.get(at)) else {
                continue;
            };
            first = first.or_else(|| misfit.clone());
            all.extend(property.clone());
            continue;
        }
        if own(&m.name).is_none() {
            continue;
        }
        let Resolved { property, misfits } = property(at, m, own(&m.name), policies);
        first = first.or(misfits.into_iter().next());
        let Some(property) = property else { continue };
        let (name, shared) = match known.and_then(|known| known.get_key_value(m.name.as_str())) {
            Some((name, same)) if **same == property => (Arc::clone(name), Arc::clone(same)),
            Some((name, _)) => (Arc::clone(name), Arc::new(property)),
            None => (Arc::from(m.name.as_str()), Arc::new(property)),
        };
        all.insert(name, shared);
    }
    (all, first)
}

/// The groups of properties, and what one of them names in vain. A stream belongs to a group without having a twin.
fn methods(
    spec: &[DeviceMethod],
    model: Option<&DeviceModelSpec>,
    properties: &Properties,
) -> (Methods, Option<String>) {
    let Some(model) = model else { return (Methods::new(), None) };
    let is_stream = |name: &str| {
        model.properties.iter().any(|p| p.name == name && p.property_type.value_type().is_none())
    };
    let mut lost = None;
    let mut all = Methods::new();
    for method in spec {
        let mut members = Vec::with_capacity(method.property_names.len());
        for name in method.property_names.iter().filter(|name| !is_stream(name)) {
            match properties.get_key_value(name.as_str()) {
                Some((name, _)) => members.push(Arc::clone(name)),
                None => {
                    lost.get_or_insert_with(|| {
                        format!(
                            "method '{}' names '{}', which is no property here",
                            method.name,
                            super::cut(name)
                        )
                    });
                }
            }
        }
        all.insert(method.name.clone(), members);
    }
    (all, lost)
}

/// One property, and what its policies say in vain.
struct Resolved {
    /// `None` for a stream, which has no value, and where nobody knows what the device counts in.
    property: Option<Property>,
    misfits: Vec<Misfit>,
}

fn property(
    at: usize,
    model: &ModelProperty,
    device: Option<&DeviceProperty>,
    policies: &[NamedPolicy<'_>],
) -> Resolved {
    let Some(value_type) = model.property_type.value_type() else {
        return Resolved { property: None, misfits: Vec::new() };
    };
    let merged = Merged::new(&model.name, policies);
    let mut property = plain(value_type, model, device, &merged);
    let mut misfits = Vec::new();
    let fit = |(policy, error): (&DeviceId, FieldError)| Misfit { policy: policy.clone(), at, error };
    match merged.values(&property) {
        Ok(values) => property.values = values,
        Err(misfit) => misfits.push(fit(misfit)),
    }
    match merged.fail_safe(&property) {
        Ok(value) => property.policy.fail_safe = value,
        Err(misfit) => misfits.push(fit(misfit)),
    }
    // A value in a unit that nobody knows must not reach a device, nor be taken from one.
    let property = match merged.device_unit(&property) {
        Ok(device) => Some(Property { device: device.map(Box::new), ..property }),
        Err(misfit) => {
            misfits.push(fit(misfit));
            None
        }
    };
    Resolved { property, misfits }
}

/// Without what may not fit.
fn plain(
    value_type: ValueType,
    model: &ModelProperty,
    device: Option<&DeviceProperty>,
    merged: &Merged<'_>,
) -> Property {
    let defaults = model.visitors.clone().unwrap_or_default().config_data;
    let own = device.and_then(|d| d.visitors.clone()).unwrap_or_default().config_data;
    let code = merged.first(|p| p.unit.as_deref()).map(|(_, code)| code);
    let unit = code.unwrap_or(&model.unit);
    Property {
        value_type,
        writable: model.access_mode == super::AccessMode::ReadWrite,
        unit: Some(unit.to_owned()).filter(|unit| !unit.is_empty()),
        ucum: code.map_or_else(|| Unit::of_text(&model.unit), |code| Unit::parse(code).ok()),
        device: None,
        minimum: model.minimum(),
        maximum: model.maximum(),
        values: None,
        address: merge(defaults, own),
        poll: device.and_then(|d| d.collect_cycle).map_or(DEFAULT_POLL, Duration::from_millis),
        manifest_desired: device.and_then(DeviceProperty::wish).map(str::to_owned),
        policy: merged.policy(),
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
