//! A device, a model or a policy that changes under documents that rest on it.

use bus::twin::DeviceId;
use bytes::Bytes;

use super::rule::check_rule;
use crate::model::resolve::{self, Misfit};
use crate::model::{Catalog, DeviceModelSpec, FieldError, Kind, TwinPolicySpec};

/// A policy against its model.
pub(super) fn check_policy(id: &DeviceId, policy: &TwinPolicySpec, catalog: &Catalog) -> Vec<FieldError> {
    let model_id = DeviceId { namespace: id.namespace.clone(), name: policy.model.clone() };
    let Some(model) = catalog.model(&model_id) else { return Vec::new() };
    if let Some(missing) = missing_property(&model_id, model, policy) {
        return vec![missing];
    }
    let before = catalog.policies_of(&model_id);
    let others = before.iter().filter(|(other, _)| *other != id).copied();
    let mut after: Vec<_> = others.chain([(id, policy)]).collect();
    after.sort_by_key(|(id, _)| *id);
    let old = resolve::misfits(model, &before);
    let of_others = |misfit: &Misfit| FieldError::new("spec", misfit.to_string());
    let new = resolve::misfits(model, &after).into_iter().filter_map(|misfit| {
        if misfit.policy == *id {
            return Some(FieldError::new(misfit.error.field, about(model, misfit.at, &misfit.error.reason)));
        }
        (!old.contains(&misfit)).then(|| of_others(&misfit))
    });
    let mut errors: Vec<FieldError> = Vec::new();
    // What is said of all properties may be wrong with several of them, for one reason.
    new.for_each(|error| {
        if !errors.contains(&error) {
            errors.push(error)
        }
    });
    errors
}

fn about(model: &DeviceModelSpec, at: usize, reason: &str) -> String {
    model
        .properties
        .get(at)
        .map_or_else(|| reason.to_owned(), |property| format!("{}: {reason}", property.name))
}

fn missing_property(id: &DeviceId, model: &DeviceModelSpec, policy: &TwinPolicySpec) -> Option<FieldError> {
    let name = policy.property.as_deref()?;
    if model.properties.iter().any(|property| property.name == name) {
        return None;
    }
    let all: Vec<&str> = model.properties.iter().map(|property| property.name.as_str()).collect();
    let reason = format!("model {id} has no property '{name}'; it has {}", all.join(", "));
    Some(FieldError::new("spec.property", reason))
}

/// A model against the policies that speak of it.
pub(super) fn check_model(id: &DeviceId, model: &DeviceModelSpec, catalog: &Catalog) -> Vec<FieldError> {
    let policies = catalog.policies_of(id);
    let old = catalog.model(id).map(|old| resolve::misfits(old, &policies)).unwrap_or_default();
    let is_new =
        |misfit: &Misfit| !old.iter().any(|old| (&old.policy, &old.error) == (&misfit.policy, &misfit.error));
    let new = resolve::misfits(model, &policies).into_iter().filter(is_new);
    new.map(|misfit| FieldError::new(format!("spec.properties[{}]", misfit.at), misfit.to_string())).collect()
}

/// The rules that are in order now, and would not be with the manifest in place.
pub(super) fn broken_rules(kind: Kind, id: &DeviceId, json: &Bytes, catalog: &Catalog) -> Vec<FieldError> {
    let before = catalog.around(kind, id, json);
    if before.rules().next().is_none() {
        return Vec::new();
    }
    let mut after = before.clone();
    after.put(kind, id, Some(json));
    let mut errors = Vec::new();
    for (rule_id, rule) in before.rules() {
        let old = check_rule(rule_id, rule, &before);
        let new = check_rule(rule_id, rule, &after).into_iter().filter(|error| !old.contains(error));
        errors
            .extend(new.map(|error| FieldError::new("spec", format!("rule {rule_id} would break: {error}"))));
    }
    errors
}
