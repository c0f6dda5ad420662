//! What a create, an update, a patch or a delete makes of an object: everything about a write that needs no store.

use bus::UnixMillis;
use metadata::Revision;
use serde_json::{Value, json};

use super::apply::{self, Applied};
use super::call::{PatchType, Validation, Write};
use super::merge;
use super::object::{timestamp, uid};
use super::refusal::{About, Cause};
use super::schema;
use super::size::{MAX_OBJECT_LEN, check_len, len};
use super::{Id, Kind, Refusal, Verb};
use crate::label;

/// What is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Current {
    /// As [`super::object::stored`] has it.
    pub object: Value,
    /// As [`super::object::written_at`] says.
    pub written: Revision,
    /// As [`super::object::newest`] says.
    pub newest: Revision,
}

/// What it becomes.
#[derive(Debug, Clone, PartialEq)]
pub enum Draft {
    Store {
        object: Value,
        created: bool,
        warnings: Vec<String>,
    },
    Unchanged {
        warnings: Vec<String>,
    },
    /// `last`: as the write left it, where that was no delete.
    Remove {
        last: Option<Value>,
    },
}

/// When and for whom something is written.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: UnixMillis,
    /// The store's; with the time and the name it makes uids and names unique.
    pub revision: Revision,
}

/// What the object is called that a request is about.
pub fn id_of(write: &Write, body: &Value, moment: Moment) -> Result<Id, Refusal> {
    let namespace = namespace_of(write, body)?;
    let given = body["metadata"]["name"].as_str().filter(|name| !name.is_empty());
    let name = match (&write.name, given) {
        (Some(name), Some(given)) if name != given && write.verb != Verb::Delete => {
            return Err(Refusal::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
        (Some(name), _) => name.clone(),
        (None, Some(given)) => given.to_owned(),
        (None, None) => generated(write.kind, namespace.as_deref(), body, moment)?,
    };
    if bus::Name::new(&name).is_err()
        || namespace.as_deref().is_some_and(|text| bus::Name::new(text).is_err())
    {
        let cause = Cause::invalid(
            "metadata.name",
            format!("Invalid value: \"{}\": use 1 to 63 of a-z, 0-9 and '-'", cut(&name)),
        );
        return Err(invalid(write.kind, &name, vec![cause]));
    }
    Ok(Id::new(namespace.as_deref(), &name))
}

fn namespace_of(write: &Write, body: &Value) -> Result<Option<String>, Refusal> {
    if !write.kind.info().namespaced {
        return Ok(None);
    }
    let given = body["metadata"]["namespace"].as_str().filter(|namespace| !namespace.is_empty());
    match (&write.namespace, given) {
        (Some(path), Some(given)) if path != given && write.verb != Verb::Delete => {
            Err(Refusal::bad_request(format!(
                "the namespace of the provided object does not match the namespace sent on the request ({given}, {path})"
            )))
        }
        (Some(path), _) => Ok(Some(path.clone())),
        (None, _) => {
            Err(Refusal::bad_request("an object of this kind is written below /namespaces/<namespace>/"))
        }
    }
}

fn generated(kind: Kind, namespace: Option<&str>, body: &Value, moment: Moment) -> Result<String, Refusal> {
    let Some(begin) = body["metadata"]["generateName"].as_str().filter(|begin| !begin.is_empty()) else {
        let cause = Cause {
            reason: "FieldValueRequired",
            ..Cause::invalid("metadata.name", "Required value: name or generateName is required")
        };
        return Err(invalid(kind, "", vec![cause]));
    };
    let begin: String = begin.chars().take(57).collect();
    let (now, revision) = (moment.now.0.to_string(), moment.revision.0.to_string());
    let unique = uid(&[kind.info().plural, namespace.unwrap_or_default(), &begin, &now, &revision]);
    Ok(format!("{begin}{}", &unique[..5]))
}

/// What a write of a manifest makes of what is there.
pub fn draft(
    write: &Write,
    id: &Id,
    body: &Value,
    current: Option<&Current>,
    moment: Moment,
) -> Result<Draft, Refusal> {
    let (kind, info) = (write.kind, write.kind.info());
    let not_found = || Refusal::not_found(info.group, info.plural, id.name());
    match (write.verb, write.patch, current) {
        (Verb::Create, _, Some(_)) => Err(Refusal::exists(info.group, info.plural, id.name())),
        (Verb::Create, _, None) => {
            check_type(kind, body)?;
            if body["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
                return Err(Refusal::bad_request(
                    "resourceVersion should not be set on objects to be created",
                ));
            }
            finish(write, id, body.clone(), None, moment, true)
        }
        (Verb::Update, _, Some(current)) => {
            check_type(kind, body)?;
            finish(write, id, body.clone(), Some(current), moment, true)
        }
        (Verb::Patch, Some(PatchType::Apply), current) => applied(write, id, body, current, moment),
        (Verb::Patch, Some(_), Some(current)) => {
            let patched = patched(write, id, body, current)?;
            finish(write, id, patched, Some(current), moment, true)
        }
        (Verb::Delete, _, Some(current)) => delete(kind, id, body, current, moment),
        _ => Err(not_found()),
    }
}

/// What an update or a patch makes of an object, checked for nothing but that it is not too late.
pub fn patched(write: &Write, id: &Id, body: &Value, current: &Current) -> Result<Value, Refusal> {
    let (kind, info) = (write.kind, write.kind.info());
    let mut live = current.object.clone();
    live["metadata"]["resourceVersion"] = current.written.0.to_string().into();
    let patched = match write.patch {
        None => {
            check_type(kind, body)?;
            Ok(body.clone())
        }
        Some(PatchType::Json) => merge::json_patch(&live, body),
        Some(PatchType::Merge) => merge::merge_patch(&live, body),
        Some(PatchType::Strategic | PatchType::Apply) => merge::strategic(schema::of(kind), &live, body),
    };
    let patched = patched.map_err(|error| match error {
        merge::PatchError::Operation { .. } => Refusal {
            about: About::new(info.group, info.plural, id.name()),
            ..Refusal::new(422, "Invalid", error.to_string())
        },
        merge::PatchError::Malformed(_) | merge::PatchError::TooLong | merge::PatchError::NoObject => {
            Refusal::bad_request(error.to_string())
        }
    })?;
    check_metadata(kind, id, &patched, Some(current))?;
    Ok(patched)
}

fn applied(
    write: &Write,
    id: &Id,
    body: &Value,
    current: Option<&Current>,
    moment: Moment,
) -> Result<Draft, Refusal> {
    let kind = write.kind;
    check_type(kind, body)?;
    if body["metadata"]
        .get("managedFields")
        .is_some_and(|fields| fields.as_array().is_none_or(|all| !all.is_empty()))
    {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    let time = timestamp(moment.now);
    let config =
        Applied { config: body, manager: &write.options.manager, force: write.options.force, time: &time };
    let merged = apply::apply(schema::of(kind), current.map(|current| &current.object), config);
    let merged = merged.map_err(|causes| {
        let each: Vec<String> =
            causes.iter().map(|cause| format!("{}: {}", cause.message, cause.field)).collect();
        let count = each.len();
        let plural = if count == 1 { "conflict" } else { "conflicts" };
        Refusal {
            causes,
            ..Refusal::new(
                409,
                "Conflict",
                format!("Apply failed with {count} {plural}: {}", each.join("\n")),
            )
        }
    })?;
    finish(write, id, merged, current, moment, false)
}

/// Checks and completes an object that is to be stored.
fn finish(
    write: &Write,
    id: &Id,
    mut object: Value,
    current: Option<&Current>,
    moment: Moment,
    is_update: bool,
) -> Result<Draft, Refusal> {
    let kind = write.kind;
    check_metadata(kind, id, &object, current)?;
    // A patch can make more of an object than it is itself.
    check_len("the object", len(&object), MAX_OBJECT_LEN)?;
    let warnings = check_fields(write, &object)?;
    complete(kind, id, &mut object, current.map(|current| &current.object), moment);
    if is_update {
        let before = current.map(|current| &current.object);
        apply::note_update(
            schema::of(kind),
            before,
            &mut object,
            &write.options.manager,
            &timestamp(moment.now),
        );
    }
    let is_going = object["metadata"].get("deletionTimestamp").is_some();
    let has_finalizers = object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
    match current {
        Some(_) if is_going && !has_finalizers => Ok(Draft::Remove { last: Some(object) }),
        Some(current) if is_same(&current.object, &object) => Ok(Draft::Unchanged { warnings }),
        current => Ok(Draft::Store { object, created: current.is_none(), warnings }),
    }
}

/// Whether nothing but the times of owners differs.
fn is_same(before: &Value, after: &Value) -> bool {
    let plain = |object: &Value| {
        let mut object = object.clone();
        if let Some(entries) = object["metadata"].get_mut("managedFields").and_then(Value::as_array_mut) {
            entries.iter_mut().for_each(|entry| entry["time"] = Value::Null);
        }
        object
    };
    plain(before) == plain(after)
}

fn check_type(kind: Kind, body: &Value) -> Result<(), Refusal> {
    if !body.is_object() {
        return Err(Refusal::bad_request("the body is no object"));
    }
    let (wanted, given) = (kind.api_version(), body["apiVersion"].as_str().unwrap_or_default());
    if given != wanted {
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({wanted})",
            cut(given)
        )));
    }
    match body["kind"].as_str().unwrap_or_default() {
        given if given == kind.info().kind => Ok(()),
        given => Err(Refusal::bad_request(format!(
            "the kind in the data ({}) does not match the expected kind ({})",
            cut(given),
            kind.info().kind
        ))),
    }
}

/// Preconditions, and what of metadata has rules of its own.
fn check_metadata(kind: Kind, id: &Id, object: &Value, current: Option<&Current>) -> Result<(), Refusal> {
    let metadata = &object["metadata"];
    let mut causes = Vec::new();
    for (field, is) in [("name", Some(id.name())), ("namespace", id.namespace())] {
        let given = metadata[field].as_str().filter(|given| !given.is_empty());
        if given.is_some() && given != is {
            let message =
                format!("Invalid value: \"{}\": field is immutable", given.map(cut).unwrap_or_default());
            causes.push(Cause::invalid(format!("metadata.{field}"), message));
        }
    }
    for (name, value) in metadata["labels"].as_object().into_iter().flatten() {
        let checked = label::check_key(name).map_err(|error| error.to_string()).and_then(|()| {
            let value = value.as_str().ok_or_else(|| format!("the value of '{}' is no text", cut(name)))?;
            label::check_value(value).map_err(|error| error.to_string())
        });
        causes.extend(checked.err().map(|why| Cause::invalid("metadata.labels", why)));
    }
    for (name, value) in metadata["annotations"].as_object().into_iter().flatten() {
        if !value.is_string() {
            causes.push(Cause::invalid(
                "metadata.annotations",
                format!("the value of '{}' is no text", cut(name)),
            ));
        }
    }
    if !causes.is_empty() {
        return Err(invalid(kind, id.name(), causes));
    }
    let Some(current) = current else { return Ok(()) };
    check_version(kind, id, metadata["resourceVersion"].as_str(), metadata["uid"].as_str(), current)
}

/// What the writer saw must be as new as what was written last; what mappers said since does not count.
fn check_version(
    kind: Kind,
    id: &Id,
    version: Option<&str>,
    uid: Option<&str>,
    current: &Current,
) -> Result<(), Refusal> {
    let info = kind.info();
    let conflict = |why: &str| Err(Refusal::conflict(info.group, info.plural, id.name(), why));
    match version.filter(|version| !version.is_empty()).map(str::parse::<u64>) {
        Some(Err(_)) => {
            let cause = Cause::invalid("metadata.resourceVersion", "Invalid value: is no number");
            return Err(invalid(kind, id.name(), vec![cause]));
        }
        Some(Ok(version)) if version < current.written.0 => {
            return conflict(
                "the object has been modified; please apply your changes to the latest version and try again",
            );
        }
        Some(Ok(version)) if version > current.newest.0 => {
            return conflict(&format!(
                "resource version {version} is not known here, where {} is the newest: read the object again",
                current.newest.0
            ));
        }
        Some(Ok(_)) | None => {}
    }
    match (uid.filter(|uid| !uid.is_empty()), current.object["metadata"]["uid"].as_str()) {
        (Some(given), Some(is)) if given != is => conflict(&format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {is}",
            cut(given)
        )),
        _ => Ok(()),
    }
}

/// The fields that no kind has: warnings, or a refusal where the writer asked for one.
pub fn check_fields(write: &Write, object: &Value) -> Result<Vec<String>, Refusal> {
    if write.options.validation == Validation::Ignore {
        return Ok(Vec::new());
    }
    let unknown: Vec<String> = schema::unknown_fields(write.kind, object)
        .into_iter()
        .filter(|field| !field.starts_with("status"))
        .map(|field| format!("unknown field \"{field}\""))
        .collect();
    if write.options.validation == Validation::Strict && !unknown.is_empty() {
        return Err(Refusal::bad_request(format!("strict decoding error: {}", unknown.join(", "))));
    }
    Ok(unknown)
}

/// What the server alone says of an object.
fn complete(kind: Kind, id: &Id, object: &mut Value, before: Option<&Value>, moment: Moment) {
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.info().kind.into();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    let spec_changed = before.is_none_or(|before| before["spec"] != object["spec"]);
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    for field in [
        "resourceVersion",
        "selfLink",
        "generateName",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "generation",
        "deletionGracePeriodSeconds",
    ] {
        metadata.remove(field);
    }
    for field in ["finalizers", "ownerReferences", "annotations", "labels"] {
        let is_empty = metadata.get(field).is_some_and(|value| match value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        });
        if is_empty {
            metadata.remove(field);
        }
    }
    metadata.insert("name".to_owned(), id.name().into());
    if let Some(namespace) = id.namespace() {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    let Some(before) = before.map(|before| &before["metadata"]) else {
        let (now, revision) = (moment.now.0.to_string(), moment.revision.0.to_string());
        metadata.insert("uid".to_owned(), uid(&[kind.info().plural, id.as_str(), &now, &revision]).into());
        metadata.insert("creationTimestamp".to_owned(), timestamp(moment.now).into());
        metadata.insert("generation".to_owned(), 1.into());
        return;
    };
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if let Some(value) = before.get(field).filter(|value| !value.is_null()) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let generation = before["generation"].as_u64().unwrap_or(1) + u64::from(spec_changed);
    metadata.insert("generation".to_owned(), generation.into());
}

fn delete(kind: Kind, id: &Id, body: &Value, current: &Current, moment: Moment) -> Result<Draft, Refusal> {
    let conditions = &body["preconditions"];
    check_version(kind, id, conditions["resourceVersion"].as_str(), conditions["uid"].as_str(), current)?;
    let metadata = &current.object["metadata"];
    if metadata["finalizers"].as_array().is_none_or(Vec::is_empty) {
        return Ok(Draft::Remove { last: None });
    }
    if metadata.get("deletionTimestamp").is_some_and(|at| !at.is_null()) {
        return Ok(Draft::Unchanged { warnings: Vec::new() });
    }
    let mut object = current.object.clone();
    object["metadata"]["deletionTimestamp"] = timestamp(moment.now).into();
    object["metadata"]["deletionGracePeriodSeconds"] = 0.into();
    Ok(Draft::Store { object, created: false, warnings: Vec::new() })
}

pub(super) fn invalid(kind: Kind, name: &str, causes: Vec<Cause>) -> Refusal {
    Refusal::invalid(kind.info().group, kind.info().kind, name, causes)
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
