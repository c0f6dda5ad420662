//! Sets of fields, as `managedFields` has them (`FieldsV1`): who owns what of an object.

use std::collections::{BTreeMap, BTreeSet};

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
    collect(Some(schema), (object, None), &mut Vec::new(), &mut |path, _| {
        set.insert(path.clone());
    });
    set
}

/// The fields of an object whose values `before` has not. The item of a list is one that is not there at all.
pub fn changed(schema: &Value, before: Option<&Value>, object: &Value) -> Set {
    let mut set = Set::new();
    let mut note = |path: &Path, is_new: bool| {
        if is_new {
            set.insert(path.clone());
        }
    };
    collect(Some(schema), (object, before), &mut Vec::new(), &mut note);
    set
}

/// Goes through the fields of `value`, and says of each whether `before` has another value in its place.
fn collect(
    schema: Option<&Value>,
    (value, before): (&Value, Option<&Value>),
    path: &mut Path,
    note: &mut impl FnMut(&Path, bool),
) {
    if is_identity(path) {
        return;
    }
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                path.push(format!("f:{name}"));
                let before = before.and_then(|before| before.get(name));
                collect(schema::field(schema, name), (value, before), path, note);
                path.pop();
            }
        }
        Value::Array(items) => match schema::key_of_list(schema) {
            Some(key) => {
                let known = Items::new(key, before.and_then(Value::as_array));
                for item in items {
                    let element = key_element(key, item);
                    let before = known.get(&element);
                    path.push(element);
                    path.push(".".to_owned());
                    note(path, before.is_none());
                    path.pop();
                    collect(schema::items(schema), (item, before), path, note);
                    path.pop();
                }
            }
            None => note(path, before != Some(value)),
        },
        Value::Null => {}
        // Nothing is said by these.
        Value::Object(_) if path.len() < 2 => {}
        Value::Object(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            note(path, before != Some(value));
        }
    }
}

/// The items of a list by their keys; of two with one key, the first.
struct Items<'a>(BTreeMap<String, &'a Value>);

impl<'a> Items<'a> {
    fn new(key: &str, items: Option<&'a Vec<Value>>) -> Self {
        let items = items.into_iter().flatten().rev();
        Self(items.map(|item| (key_element(key, item), item)).collect())
    }

    fn get(&self, element: &str) -> Option<&'a Value> {
        self.0.get(element).copied()
    }
}

fn key_element(key: &str, item: &Value) -> String {
    let mut named = Map::new();
    named.insert(key.to_owned(), item.get(key).cloned().unwrap_or_default());
    format!("k:{}", Value::Object(named))
}

/// The fields of an item by which a path's element names it.
fn named(element: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(element.strip_prefix("k:")?).ok()
}

/// Whether a set has something at this path, or below it.
pub fn has_below(set: &Set, path: &[String]) -> bool {
    set.range(path.to_vec()..).next().is_some_and(|first| first.starts_with(path))
}

/// Removes what is at the paths, and what holds nothing any more then. The key of an item goes with the item alone.
pub fn remove(value: &mut Value, paths: &Set) {
    remove_below(value, &paths.iter().map(Vec::as_slice).collect::<Vec<_>>());
}

/// `paths` are in order, so that those with the same first element lie together.
fn remove_below(value: &mut Value, paths: &[&[String]]) {
    let groups = paths.chunk_by(|a, b| a.first() == b.first());
    match value {
        Value::Object(fields) => groups.for_each(|group| remove_field(fields, group)),
        Value::Array(items) => remove_items(items, groups),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn remove_field(fields: &mut Map<String, Value>, group: &[&[String]]) {
    let Some(name) = group[0].first().and_then(|first| first.strip_prefix("f:")) else { return };
    if group[0].len() == 1 {
        fields.remove(name);
        return;
    }
    let Some(below) = fields.get_mut(name) else { return };
    remove_below(below, &rest(group));
    let is_empty =
        below.as_object().is_some_and(Map::is_empty) || below.as_array().is_some_and(Vec::is_empty);
    if is_empty && !matches!(name, "spec" | "metadata") {
        fields.remove(name);
    }
}

/// One pass over the list, however many of its items something is removed of.
fn remove_items<'a>(items: &mut Vec<Value>, groups: impl Iterator<Item = &'a [&'a [String]]>) {
    let mut wanted = BTreeMap::new();
    let mut keys: Vec<Vec<String>> = Vec::new();
    for group in groups {
        let Some(names) = group[0].first().and_then(|first| named(first)) else { continue };
        let fields: Vec<String> = names.keys().cloned().collect();
        if !keys.contains(&fields) {
            keys.push(fields);
        }
        wanted.insert(Value::from(names).to_string(), group);
    }
    items.retain_mut(|item| {
        for fields in &keys {
            let names: Map<String, Value> =
                fields.iter().map(|key| (key.clone(), item.get(key).cloned().unwrap_or_default())).collect();
            if let Some(group) = wanted.get(&Value::from(names).to_string()) {
                let below = rest(group);
                if below.iter().any(|path| *path == ["."]) {
                    return false;
                }
                let is_key = |path: &&&[String]| {
                    path.len() == 1
                        && path[0].strip_prefix("f:").is_some_and(|name| fields.iter().any(|key| key == name))
                };
                let paths: Vec<&[String]> = below.iter().filter(|path| !is_key(path)).copied().collect();
                remove_below(item, &paths);
            }
        }
        true
    });
}

/// One level down.
fn rest<'a>(group: &[&'a [String]]) -> Vec<&'a [String]> {
    group.iter().filter_map(|path| path.get(1..)).filter(|path| !path.is_empty()).collect()
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
