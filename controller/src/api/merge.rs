//! Patches: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7396), and Kubernetes' strategic merge patch as far as it means
//! something for our kinds: lists with keys are merged by them, with `$patch: delete`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

use super::schema;

/// Operations of one JSON patch: more than anybody writes.
const MAX_OPERATIONS: usize = 1000;

/// Bytes that all `copy` operations of one patch may copy, and all `move` operations carry down: a few of them double a
/// document until no memory is left, and each looks through what it takes.
const MAX_COPIED: usize = 2 * crate::resource::MAX_MANIFEST_LEN;

/// How deep a patch may nest a document: a few operations that wrap and move it make one that no stack walks through.
const MAX_DEPTH: usize = 64;

/// Why a patch cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatchError {
    #[error("the patch is no list of operations: {0}")]
    Malformed(String),
    #[error("the patch has more than {MAX_OPERATIONS} operations")]
    TooLong,
    #[error("the patch is no object")]
    NoObject,
    #[error("operation {at}, {op} {path}: {why}")]
    Operation { at: usize, op: &'static str, path: String, why: &'static str },
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Operation {
    Add { path: String, value: Value },
    Remove { path: String },
    Replace { path: String, value: Value },
    Move { from: String, path: String },
    Copy { from: String, path: String },
    Test { path: String, value: Value },
}

const TOO_DEEP: &str = "the object would be nested too deep";

const NOTHING: &str = "there is nothing at that path";

/// RFC 6902: all operations, or none.
pub fn json_patch(target: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations: Vec<Operation> = Deserialize::deserialize(patch)
        .map_err(|error: serde_json::Error| PatchError::Malformed(error.to_string()))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLong);
    }
    let (mut patched, mut copied) = (target.clone(), 0);
    for (at, operation) in operations.into_iter().enumerate() {
        let (op, path) = operation.name();
        carry_out(&mut patched, operation, &mut copied).map_err(|why| PatchError::Operation {
            at,
            op,
            path,
            why,
        })?;
    }
    Ok(patched)
}

impl Operation {
    fn name(&self) -> (&'static str, String) {
        let (name, path) = match self {
            Self::Add { path, .. } => ("add", path),
            Self::Remove { path } => ("remove", path),
            Self::Replace { path, .. } => ("replace", path),
            Self::Move { path, .. } => ("move", path),
            Self::Copy { path, .. } => ("copy", path),
            Self::Test { path, .. } => ("test", path),
        };
        (name, path.chars().take(200).collect())
    }
}

fn carry_out(target: &mut Value, operation: Operation, copied: &mut usize) -> Result<(), &'static str> {
    match operation {
        Operation::Add { path, value } => {
            check_depth(&path, &value)?;
            add(target, &path, value)
        }
        Operation::Remove { path } => remove(target, &path).map(drop),
        Operation::Replace { path, value } => {
            check_depth(&path, &value)?;
            *target.pointer_mut(&path).ok_or(NOTHING)? = value;
            Ok(())
        }
        Operation::Move { from, path } => {
            if path.strip_prefix(&from).is_some_and(|rest| rest.starts_with('/')) {
                return Err("a value cannot be moved into itself");
            }
            let value = remove(target, &from)?;
            // What does not get deeper was not too deep before.
            if levels(&path) > levels(&from) {
                moved_or_copied(&value, copied)?;
                check_depth(&path, &value)?;
            }
            add(target, &path, value)
        }
        Operation::Copy { from, path } => {
            let value = target.pointer(&from).ok_or(NOTHING)?;
            moved_or_copied(value, copied)?;
            check_depth(&path, value)?;
            let value = value.clone();
            add(target, &path, value)
        }
        Operation::Test { path, value } => match target.pointer(&path) {
            Some(there) if *there == value => Ok(()),
            Some(_) => Err("the value there is another one"),
            None => Err(NOTHING),
        },
    }
}

fn moved_or_copied(value: &Value, so_far: &mut usize) -> Result<(), &'static str> {
    *so_far += value.to_string().len();
    if *so_far > MAX_COPIED {
        Err("the patch moves and copies more than a manifest can hold")
    } else {
        Ok(())
    }
}

fn levels(path: &str) -> usize {
    path.matches('/').count()
}

/// Level by level, not by recursion.
fn check_depth(path: &str, value: &Value) -> Result<(), &'static str> {
    let mut level = vec![value];
    for _ in levels(path)..MAX_DEPTH {
        let below = level.into_iter().flat_map(|value| match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(fields) => fields.values().collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        });
        level = below.collect();
        if level.is_empty() {
            return Ok(());
        }
    }
    Err(TOO_DEEP)
}

fn parent<'a>(target: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), &'static str> {
    let (parent, last) = path.rsplit_once('/').ok_or("a path begins with '/'")?;
    let last = last.replace("~1", "/").replace("~0", "~");
    Ok((target.pointer_mut(parent).ok_or("there is nothing above that path")?, last))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), &'static str> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    match parent(target, path)? {
        (Value::Object(fields), name) => drop(fields.insert(name, value)),
        (Value::Array(items), at) if at == "-" => items.push(value),
        (Value::Array(items), at) => {
            let at: usize = at.parse().map_err(|_| "is no place in a list")?;
            if at > items.len() {
                return Err("is behind the end of the list");
            }
            items.insert(at, value);
        }
        _ => return Err("what is above that path holds nothing"),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, &'static str> {
    match parent(target, path)? {
        (Value::Object(fields), name) => fields.remove(&name).ok_or(NOTHING),
        (Value::Array(items), at) => match at.parse::<usize>() {
            Ok(at) if at < items.len() => Ok(items.remove(at)),
            _ => Err(NOTHING),
        },
        _ => Err(NOTHING),
    }
}

/// RFC 7396.
pub fn merge_patch(target: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::NoObject);
    }
    Ok(merge(None, Some(target), patch, Lists::Replaced))
}

/// As [`merge_patch`], but lists with keys are merged.
pub fn strategic(schema: &Value, target: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::NoObject);
    }
    Ok(merge(Some(schema), Some(target), patch, Lists::Merged))
}

/// What server-side apply makes of both: as [`strategic`], but nothing goes.
pub(super) fn overlay(schema: &Value, live: &Value, applied: &Value) -> Value {
    merge(Some(schema), Some(live), applied, Lists::Laid)
}

/// What becomes of lists with keys, and of nulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lists {
    Replaced,
    Merged,
    Laid,
}

fn merge(schema: Option<&Value>, target: Option<&Value>, patch: &Value, lists: Lists) -> Value {
    match patch {
        Value::Object(patch) => merge_fields(schema, target, patch, lists),
        Value::Array(items) if lists != Lists::Replaced => match schema::key_of_list(schema) {
            Some(key) => merge_items(schema, key, target, items, lists),
            None => patch.clone(),
        },
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => patch.clone(),
    }
}

fn merge_fields(
    schema: Option<&Value>,
    target: Option<&Value>,
    patch: &Map<String, Value>,
    lists: Lists,
) -> Value {
    let mut fields = target.and_then(Value::as_object).cloned().unwrap_or_default();
    if lists == Lists::Merged && patch.get("$patch").and_then(Value::as_str) == Some("replace") {
        fields.clear();
    }
    for (name, value) in patch {
        if lists == Lists::Merged && name.starts_with('$') {
            continue;
        }
        match (value.is_null(), lists) {
            (true, Lists::Laid) => {}
            (true, Lists::Merged | Lists::Replaced) => drop(fields.remove(name)),
            (false, _) => {
                let merged = merge(schema::field(schema, name), fields.get(name), value, lists);
                fields.insert(name.clone(), merged);
            }
        }
    }
    Value::Object(fields)
}

fn merge_items(
    schema: Option<&Value>,
    key: &str,
    target: Option<&Value>,
    patch: &[Value],
    lists: Lists,
) -> Value {
    let items = target.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut items: Vec<Option<Value>> = items.into_iter().map(Some).collect();
    let below = schema::items(schema);
    let name = |item: &Value| item.get(key).map(Value::to_string);
    let mut places = BTreeMap::new();
    for (at, item) in items.iter().enumerate().rev() {
        places.extend(item.as_ref().and_then(name).map(|name| (name, at)));
    }
    for item in patch {
        let goes = lists == Lists::Merged && item.get("$patch").and_then(Value::as_str) == Some("delete");
        let name = name(item);
        let place = name.as_ref().and_then(|name| places.get(name).copied());
        match place {
            Some(at) if goes => {
                items[at] = None;
                name.map(|name| places.remove(&name));
            }
            Some(at) => items[at] = Some(merge(below, items[at].as_ref(), item, lists)),
            None if goes => {}
            None => {
                places.extend(name.map(|name| (name, items.len())));
                items.push(Some(merge(below, None, item, lists)));
            }
        }
    }
    Value::Array(items.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests;
