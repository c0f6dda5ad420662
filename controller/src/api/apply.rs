//! Server-side apply: each field has owners, and who applies what another owns is told so.
//!
//! ```text
//!   applied, live, owners
//!      |
//!      1. applied fields that differ from live and that others own: conflict, unless forced
//!      2. live, overlaid with applied
//!      3. what this manager applied before and does not now, and nobody else owns, goes
//!      4. owners: this manager's set is what it applies; forced fields leave the others
//! ```
//! Any other write makes its manager the owner of what it changes (`Update`), and takes that from the others.

use serde_json::{Value, json};

use super::fields::{self, Set};
use super::merge::overlay;
use super::refusal::Cause;

/// Managers that one object remembers; the oldest updates are forgotten first.
const MAX_MANAGERS: usize = 32;

/// Who owns what.
#[derive(Debug, Clone, PartialEq)]
struct Owner {
    manager: String,
    is_apply: bool,
    time: String,
    set: Set,
}

fn owners(object: &Value) -> Vec<Owner> {
    let read = |entry: &Value| {
        Some(Owner {
            manager: entry["manager"].as_str()?.to_owned(),
            is_apply: entry["operation"] == "Apply",
            time: entry["time"].as_str().unwrap_or_default().to_owned(),
            set: fields::from_json(&entry["fieldsV1"]),
        })
    };
    object["metadata"]["managedFields"].as_array().into_iter().flatten().filter_map(read).collect()
}

fn put_owners(object: &mut Value, mut owners: Vec<Owner>) {
    owners.retain(|owner| !owner.set.is_empty());
    while owners.len() > MAX_MANAGERS {
        let oldest = owners.iter().position(|owner| !owner.is_apply).unwrap_or(0);
        owners.remove(oldest);
    }
    let api_version = object["apiVersion"].clone();
    let entries = owners.iter().map(|owner| {
        json!({
            "manager": owner.manager, "operation": if owner.is_apply { "Apply" } else { "Update" },
            "apiVersion": api_version, "time": owner.time, "fieldsType": "FieldsV1",
            "fieldsV1": fields::to_json(&owner.set),
        })
    });
    object["metadata"]["managedFields"] = entries.collect();
}

/// What an update makes of the owners.
pub fn note_update(schema: &Value, before: Option<&Value>, after: &mut Value, manager: &str, time: &str) {
    let mut owners = before.map(owners).unwrap_or_default();
    let now = fields::of(schema, after);
    let changed = fields::changed(schema, before, after);
    for owner in &mut owners {
        owner.set.retain(|path| now.contains(path) && !changed.contains(path));
    }
    if !changed.is_empty() {
        match owners.iter_mut().find(|owner| owner.manager == manager && !owner.is_apply) {
            Some(owner) => {
                owner.set.extend(changed);
                time.clone_into(&mut owner.time);
            }
            None => owners.push(Owner {
                manager: manager.to_owned(),
                is_apply: false,
                time: time.to_owned(),
                set: changed,
            }),
        }
    }
    put_owners(after, owners);
}

/// What is applied, by whom.
#[derive(Debug, Clone, Copy)]
pub struct Applied<'a> {
    pub config: &'a Value,
    pub manager: &'a str,
    pub force: bool,
    pub time: &'a str,
}

/// The object after an apply.
///
/// # Errors
/// Fields that others own and that would change, with their owners.
pub fn apply(schema: &Value, live: Option<&Value>, applied: Applied<'_>) -> Result<Value, Vec<Cause>> {
    let Applied { config, manager, force, time } = applied;
    let nothing = json!({});
    let live = live.unwrap_or(&nothing);
    let mut owners = owners(live);
    let wanted = fields::of(schema, config);
    // An item that is there anyway is in nobody's way.
    let is_field = |path: &fields::Path| path.last().is_none_or(|last| last != ".");
    let differing: Set = fields::changed(schema, Some(live), config).into_iter().filter(is_field).collect();
    let mut conflicts = Vec::new();
    for owner in owners.iter_mut().filter(|owner| !(owner.is_apply && owner.manager == manager)) {
        let disputed: Vec<fields::Path> = differing.intersection(&owner.set).cloned().collect();
        for path in disputed {
            if force {
                owner.set.remove(&path);
            } else {
                conflicts.push(conflict(owner, &path));
            }
        }
    }
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    let mut merged = overlay(schema, live, config);
    let own = owners.iter().position(|owner| owner.is_apply && owner.manager == manager);
    let before = own.map(|at| std::mem::take(&mut owners[at].set)).unwrap_or_default();
    let is_held = |path: &&fields::Path| {
        // An item, or an object, stays as long as somebody owns something of it.
        let stem = match path.split_last() {
            Some((last, item)) if last == "." => item,
            _ => path.as_slice(),
        };
        owners.iter().map(|owner| &owner.set).chain([&wanted]).any(|set| fields::has_below(set, stem))
    };
    let let_go: Set = before.difference(&wanted).filter(|path| !is_held(path)).cloned().collect();
    fields::remove(&mut merged, &let_go);
    let is_same = before == wanted && own.is_some();
    let mine = Owner {
        manager: manager.to_owned(),
        is_apply: true,
        time: match own {
            Some(at) if is_same => owners[at].time.clone(),
            _ => time.to_owned(),
        },
        set: wanted,
    };
    match own {
        Some(at) => owners[at] = mine,
        None => owners.push(mine),
    }
    put_owners(&mut merged, owners);
    Ok(merged)
}

fn conflict(owner: &Owner, path: &[String]) -> Cause {
    Cause {
        reason: "FieldManagerConflict",
        message: format!("conflict with \"{}\"", owner.manager),
        field: fields::shown(path),
    }
}

#[cfg(test)]
mod tests;
