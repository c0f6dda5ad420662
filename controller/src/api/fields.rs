//! Sets of fields, as `managedFields` has them (`FieldsV1`): who owns what of an object.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::schema;

/// `f:spec`, `f:properties`, `k:{"name":"level"}`, `f:visitors`; a last `.` is the item itself.
pub type Path = Vec<String>;

/// The fields that somebody owns.
pub type Set = BTreeSet<Path>;

/// Nobody owns these: they say what the object is.
fn is_identity(path: &[String]) -> bool {
    match path {
        [one] => matches!(one.as_str(), "f:apiVersion" | "f:kind" | "f:status"),
        [metadata, field] if metadata == "f:metadata" => matches!(
            field.as_str(),
            "f:name"
                | "f:namespace"
                | "f:uid"
                | "f:resourceVersion"
                | "f:generation"
                | "f:creationTimestamp"
                | "f:deletionTimestamp"
                | "f:deletionGracePeriodSeconds"
                | "f:managedFields"
                | "f:generateName"
                | "f:selfLink"
        ),
        _ => false,
    }
}

/// All fields of an object.
pub fn of(schema: &Value, object: &Value) -> Set {
    let mut set = Set::new();
    collect(Some(schema), object, &mut Vec::new(), &mut set);
    set
}

fn collect(schema: Option<&Value>, value: &Value, path: &mut Path, set: &mut Set) {
    if is_identity(path) {
        return;
    }
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                path.push(format!("f:{name}"));
                collect(schema::field(schema, name), value, path, set);
                path.pop();
            }
        }
        Value::Array(items) => match schema::key_of_list(schema) {
            Some(key) => {
                for item in items {
                    path.push(key_element(key, item));
                    path.push(".".to_owned());
                    set.insert(path.clone());
                    path.pop();
                    collect(schema::items(schema), item, path, set);
                    path.pop();
                }
            }
            None => drop(set.insert(path.clone())),
        },
        Value::Null => {}
        // Nothing is said by these.
        Value::Object(_) if path.len() < 2 => {}
        Value::Object(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            set.insert(path.clone());
        }
    }
}

fn key_element(key: &str, item: &Value) -> String {
    let mut named = Map::new();
    named.insert(key.to_owned(), item.get(key).cloned().unwrap_or_default());
    format!("k:{}", Value::Object(named))
}

/// Whether an item is the one that a path's element names.
fn is_item(element: &str, item: &Value) -> bool {
    let named =
        element.strip_prefix("k:").and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
    named.is_some_and(|named| named.iter().all(|(key, value)| item.get(key) == Some(value)))
}

/// What is at the path.
pub fn get<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    let Some((first, rest)) = path.split_first() else { return Some(value) };
    match first.split_once(':') {
        Some(("f", name)) => get(value.get(name)?, rest),
        Some(("k", _)) => get(value.as_array()?.iter().find(|item| is_item(first, item))?, rest),
        _ => Some(value),
    }
}

/// Removes what is at the path, and what holds nothing any more then. The key of an item goes with the item alone.
pub fn remove(value: &mut Value, path: &[String]) {
    match path {
        [] => {}
        [key, last] if key.starts_with("k:") && last == "." => {
            if let Some(items) = value.as_array_mut() {
                items.retain(|item| !is_item(key, item));
            }
        }
        [last] => {
            if let (Some(name), Some(fields)) = (last.strip_prefix("f:"), value.as_object_mut()) {
                fields.remove(name);
            }
        }
        [first, rest @ ..] => {
            if first.starts_with("k:") {
                let is_key = rest.len() == 1
                    && rest[0].strip_prefix("f:").is_some_and(|name| first.contains(&format!("\"{name}\":")));
                let item =
                    value.as_array_mut().and_then(|items| items.iter_mut().find(|item| is_item(first, item)));
                if let (Some(item), false) = (item, is_key) {
                    remove(item, rest);
                }
                return;
            }
            let (Some(name), Some(fields)) = (first.strip_prefix("f:"), value.as_object_mut()) else {
                return;
            };
            if let Some(below) = fields.get_mut(name) {
                remove(below, rest);
                let is_empty = below.as_object().is_some_and(Map::is_empty)
                    || below.as_array().is_some_and(Vec::is_empty);
                if is_empty && !matches!(name, "spec" | "metadata") {
                    fields.remove(name);
                }
            }
        }
    }
}

/// As `fieldsV1` writes it.
pub fn to_json(set: &Set) -> Value {
    let mut root = Map::new();
    for path in set {
        let mut at = &mut root;
        for element in path {
            let below = at.entry(element.clone()).or_insert_with(|| Value::Object(Map::new()));
            // All that is put in here is an object.
            let Value::Object(below) = below else { break };
            at = below;
        }
    }
    Value::Object(root)
}

/// Reads `fieldsV1`; what is deeper than any schema of ours is cut off.
pub fn from_json(fields: &Value) -> Set {
    let mut set = Set::new();
    read(fields, &mut Vec::new(), &mut set);
    set
}

/// Of our own schemas none is half as deep.
const MAX_DEPTH: usize = 32;

fn read(fields: &Value, path: &mut Path, set: &mut Set) {
    let Some(fields) = fields.as_object() else { return };
    if fields.is_empty() || path.len() >= MAX_DEPTH {
        if !path.is_empty() {
            set.insert(path.clone());
        }
        return;
    }
    for (element, below) in fields {
        path.push(element.clone());
        read(below, path, set);
        path.pop();
    }
}

/// For people: `.spec.properties[name="level"].visitors`.
pub fn shown(path: &[String]) -> String {
    let mut text = String::new();
    for element in path {
        match element.split_once(':') {
            Some(("f", name)) => text.push_str(&format!(".{name}")),
            Some(("k", key)) => {
                let inner = key.trim_matches(|c| c == '{' || c == '}').replacen("\":", "=", 1);
                text.push_str(&format!("[{}]", inner.trim_start_matches('"')));
            }
            _ => {}
        }
    }
    text
}
