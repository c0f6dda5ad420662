//! What objects look like: OpenAPI v3 schemas, from which `kubectl explain`, the check for unknown fields, and the keys of
//! lists follow.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::Kind;

/// The schema of each kind, by [`Kind::index`].
static SCHEMAS: LazyLock<Vec<Value>> =
    LazyLock::new(|| Kind::ALL.into_iter().map(|kind| whole(kind, (kind.info().schema)())).collect());

/// Of an object of the kind, its metadata included.
pub fn of(kind: Kind) -> &'static Value {
    &SCHEMAS[kind.index()]
}

/// `parts` has the description, `spec` and `status`, or whatever else the kind has.
fn whole(kind: Kind, parts: Value) -> Value {
    let info = kind.info();
    let mut schema = parts;
    let own = |text: &str| string(text);
    schema["properties"]["apiVersion"] = own("The group and version of the kind.");
    schema["properties"]["kind"] = own("The kind of the object.");
    schema["properties"]["metadata"] = metadata();
    schema["x-kubernetes-group-version-kind"] =
        json!([{ "group": info.group, "version": info.version, "kind": info.kind }]);
    schema
}

fn metadata() -> Value {
    object(
        "Standard object's metadata.",
        &[
            ("name", string("What the object is called, unique in its namespace and kind.")),
            ("generateName", string("The beginning of a name that the server is to make unique.")),
            ("namespace", string("The namespace; `default` where none is given.")),
            ("labels", map("What selectors select by.", string("A value."))),
            (
                "annotations",
                map("Anything that tools keep with the object. Stays at the cloud.", string("A value.")),
            ),
            ("finalizers", list("Who must agree before the object goes.", string("Of whom."))),
            ("ownerReferences", list("Objects that this one belongs to.", free("A reference."))),
            ("managedFields", list("Who owns which fields.", free("One manager's."))),
            ("uid", string("Differs from any object that had this name before.")),
            ("resourceVersion", string("The store's revision that last changed it.")),
            ("generation", integer("Counts changes of the spec.")),
            ("creationTimestamp", string("When it was made.")),
            ("deletionTimestamp", string("When it was asked to go.")),
            ("deletionGracePeriodSeconds", integer("Not used.")),
            ("selfLink", string("Not used.")),
        ],
    )
}

pub(super) fn object(description: &str, fields: &[(&str, Value)]) -> Value {
    let properties: Map<String, Value> =
        fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "description": description, "properties": properties })
}

/// The same, where these fields must be given.
pub(super) fn with(mut schema: Value, required: &[&str]) -> Value {
    schema["required"] = required.into();
    schema
}

pub(super) fn string(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

pub(super) fn choice(description: &str, of: &[&str]) -> Value {
    json!({ "type": "string", "description": description, "enum": of })
}

pub(super) fn integer(description: &str) -> Value {
    json!({ "type": "integer", "format": "int64", "description": description })
}

pub(super) fn number(description: &str) -> Value {
    json!({ "type": "number", "description": description })
}

pub(super) fn boolean(description: &str) -> Value {
    json!({ "type": "boolean", "description": description })
}

/// A list that is replaced as a whole.
pub(super) fn list(description: &str, items: Value) -> Value {
    json!({ "type": "array", "description": description, "items": items, "x-kubernetes-list-type": "atomic" })
}

/// A list whose items are told apart, and merged, by one of their fields.
pub(super) fn keyed(description: &str, key: &str, items: Value) -> Value {
    json!({
        "type": "array", "description": description, "items": items,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key],
        "x-kubernetes-patch-merge-key": key, "x-kubernetes-patch-strategy": "merge",
    })
}

pub(super) fn map(description: &str, values: Value) -> Value {
    json!({ "type": "object", "description": description, "additionalProperties": values })
}

/// Whatever stands there.
pub(super) fn free(description: &str) -> Value {
    json!({ "description": description, "x-kubernetes-preserve-unknown-fields": true })
}

/// The schema one level down.
pub(super) fn field<'a>(schema: Option<&'a Value>, name: &str) -> Option<&'a Value> {
    let schema = schema?;
    schema
        .get("properties")
        .and_then(|fields| fields.get(name))
        .or_else(|| schema.get("additionalProperties"))
}

/// Of the items of a list.
pub(super) fn items(schema: Option<&Value>) -> Option<&Value> {
    schema?.get("items")
}

/// The field by which items of the list are told apart; `None`: it is replaced as a whole.
pub(super) fn key_of_list(schema: Option<&Value>) -> Option<&str> {
    schema?.get("x-kubernetes-list-map-keys")?.get(0)?.as_str()
}

/// The fields of an object that its kind does not have: `spec.propertys`, `spec.properties[0].nme`.
pub fn unknown_fields(kind: Kind, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    look(of(kind), object, "", &mut found);
    found
}

/// Bounds the answer, not the check: nobody reads more.
const MAX_UNKNOWN: usize = 20;

fn look(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let is_free =
        schema.get("type").is_none() || schema.get("x-kubernetes-preserve-unknown-fields").is_some();
    if is_free || found.len() >= MAX_UNKNOWN {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match field(Some(schema), name) {
                    Some(below) => look(below, value, &path, found),
                    None => found.push(path),
                }
            }
        }
        Value::Array(values) => {
            let Some(below) = items(Some(schema)) else { return };
            values
                .iter()
                .enumerate()
                .for_each(|(at, value)| look(below, value, &format!("{path}[{at}]"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
