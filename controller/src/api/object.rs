//! Objects as JSON: what is stored of them, and what clients see.
//!
//! A manifest lies in two rows. `/c/resource/<kind>/<ns>/<name>` is what edges are told: spec and labels. What only the
//! API needs, `/c/meta/<plural>/<ns>/<name>`, stays at the cloud: a change of an annotation goes to no edge, and what goes
//! there does not grow by who owns which field. A manifest from before the API has no second row: what is missing is made
//! of its name.

use std::time::{Duration, UNIX_EPOCH};

use bus::UnixMillis;
use metadata::{Key, Keyspace, Revision, epoch};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::item::{Content, Item};
use super::kinds;
use super::{Id, Kind, Layout};
use crate::record::own_key;
use crate::resource::ResourceKind;

/// What of ObjectMeta no edge needs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    pub uid: String,
    /// RFC 3339, in seconds.
    pub creation_timestamp: String,
    /// Counts the changes of `spec`.
    pub generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub managed_fields: Vec<Value>,
}

/// The members of ObjectMeta that [`Meta`] has.
pub(super) const META_FIELDS: [&str; 9] = [
    "uid",
    "creationTimestamp",
    "generation",
    "annotations",
    "finalizers",
    "ownerReferences",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
];

/// Where the manifest is, for kinds that are made of one on this node.
pub fn manifest_key(layout: Layout, kind: Kind, id: &Id) -> Option<String> {
    let prefix = match (kind.manifest()?, layout) {
        (ResourceKind::Twin(kind), layout) => kind.prefix(layout.of_twins()),
        (ResourceKind::Access, Layout::Cloud) => crate::access::PREFIX,
        (ResourceKind::Host, Layout::Cloud) => crate::host::MANIFESTS,
        // Edges are told records of these.
        (ResourceKind::Access | ResourceKind::Host, Layout::Edge) => return None,
    };
    Some(format!("{prefix}{id}"))
}

pub(super) fn meta_key(kind: Kind, id: &Id) -> String {
    format!("/c/meta/{}/{id}", kind.info().plural)
}

/// The key under which [`Meta`] is stored.
pub fn meta_row(kind: Kind, id: &Id) -> Key {
    own_key(&meta_key(kind, id))
}

/// What a revision of this store is shown as. A cloud that was restored from a backup gives out revisions again that the lost
/// one gave to other changes: with the epoch above them, every version from before is older than all of this store's.
pub fn version(layout: Layout, revision: Revision, ks: &Keyspace) -> Revision {
    Revision(base(layout, ks).saturating_add(revision.0))
}

/// The revision of this store that a version stands for; none, if it is of an epoch before.
pub(super) fn revision(layout: Layout, version: Revision, ks: &Keyspace) -> Option<Revision> {
    version.0.checked_sub(base(layout, ks)).map(Revision)
}

/// The newest version that this store can have given out. Who names a newer one saw another store.
pub fn newest(layout: Layout, ks: &Keyspace) -> Revision {
    version(layout, ks.revision(), ks)
}

/// Versions of one epoch: at a thousand changes a second enough for 34 years.
const EPOCH_BITS: u32 = 40;

/// Above it epochs are not told apart: nobody restores a cloud so many times.
const MAX_EPOCH: u64 = 1 << 22;

fn base(layout: Layout, ks: &Keyspace) -> u64 {
    match layout {
        // It remembers the epochs that it followed; its own store goes on.
        Layout::Edge => 0,
        Layout::Cloud => (epoch::get(ks).min(MAX_EPOCH) - epoch::FIRST) << EPOCH_BITS,
    }
}

/// The version that decides whether an update comes too late: of the manifest and its metadata, and of nothing that a
/// mapper says, nor of what is told of an edge. At an edge also of its devices' wishes, which it shows as their manifests'.
pub fn written_at(layout: Layout, kind: Kind, id: &Id, ks: &Keyspace) -> Revision {
    let of = |key: &str| ks.revision_of(key).unwrap_or_default();
    let manifest = manifest_key(layout, kind, id).map(|key| of(&key)).unwrap_or_default();
    let written = match (layout, kind) {
        (Layout::Edge, Kind::Device) => {
            let prefixes = WISHED.iter().map(|prefix| format!("{prefix}{id}/"));
            let wishes = prefixes.flat_map(|prefix| ks.range(&prefix)).map(|(key, _)| of(key.as_str()));
            wishes.fold(manifest, Revision::max)
        }
        (Layout::Edge, _) => manifest,
        (Layout::Cloud, Kind::EdgeNode) => {
            of(&format!("{}{id}", crate::nodes::PREFIX)).max(of(&format!("/c/label/edge/{id}")))
        }
        (Layout::Cloud, Kind::User) => of(&format!("{}{id}", crate::user::PREFIX)),
        (Layout::Cloud, Kind::WireGuardPeer) => of(&format!("{}{id}", crate::wireguard::CLIENTS)),
        (Layout::Cloud, Kind::Site) => of(&format!("/c/label/site/{id}")),
        (Layout::Cloud, _) => manifest.max(of(&meta_key(kind, id))),
    };
    version(layout, written, ks)
}

/// What is desired of an edge's devices: by the cloud, and by itself.
const WISHED: [&str; 2] = ["/m/desired/", "/t/own/"];

/// An object of which nothing but the name is known.
pub(super) fn bare(kind: Kind, id: &Id) -> Value {
    let mut object = json!({
        "apiVersion": kind.api_version(), "kind": kind.info().kind, "metadata": { "name": id.name() },
    });
    if let Some(namespace) = id.namespace() {
        object["metadata"]["namespace"] = namespace.into();
    }
    object["metadata"]["uid"] = uid(&[kind.info().plural, id.as_str()]).into();
    object
}

/// What an object is shown as having for uid.
pub fn uid_of(kind: Kind, id: &Id, ks: &Keyspace) -> String {
    let meta = ks.get(&meta_key(kind, id)).and_then(|meta| serde_json::from_slice::<Meta>(meta).ok());
    let given = meta.map(|meta| meta.uid).filter(|uid| !uid.is_empty());
    given.unwrap_or_else(|| uid(&[kind.info().plural, id.as_str()]))
}

/// The manifest and its metadata as one.
pub fn stored(kind: Kind, id: &Id, json: &[u8], meta: Option<&[u8]>) -> Value {
    // What cannot be read is shown as what can be known of it; the catalog says that it is damaged.
    let Ok(Value::Object(mut object)) = serde_json::from_slice(json) else { return bare(kind, id) };
    object.remove("status");
    let mut metadata = match object.remove("metadata") {
        Some(Value::Object(metadata)) => metadata,
        _ => Map::new(),
    };
    let kept = meta.and_then(|meta| serde_json::from_slice::<Map<String, Value>>(meta).ok());
    metadata.extend(kept.unwrap_or_default());
    metadata.insert("name".to_owned(), id.name().into());
    if let Some(namespace) = id.namespace() {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    metadata.entry("uid").or_insert_with(|| uid(&[kind.info().plural, id.as_str()]).into());
    object.insert("apiVersion".to_owned(), kind.api_version().into());
    object.insert("kind".to_owned(), kind.info().kind.into());
    object.insert("metadata".to_owned(), Value::Object(metadata));
    Value::Object(object)
}

/// An item as clients see it.
pub fn render(kind: Kind, item: Item) -> Value {
    let Item { id, revision, content } = item;
    let mut object = match content {
        Content::Made(value) => named(kind, &id, value),
        Content::Last(bytes) => match serde_json::from_slice(&bytes) {
            Ok(value) => named(kind, &id, value),
            Err(_) => bare(kind, &id),
        },
        Content::Manifest { json, meta, twins, placement, layout } => {
            let mut object = stored(kind, &id, &json, meta.as_deref());
            if layout == Layout::Edge {
                for twin in &twins {
                    show_desired(&mut object, &twin.property, twin.desired.as_ref());
                }
            }
            if let Some(status) = kinds::status(kind, &object, &twins, placement.as_deref()) {
                object["status"] = status;
            }
            object
        }
    };
    object["metadata"]["resourceVersion"] = revision.0.to_string().into();
    object
}

/// With what says which object it is.
fn named(kind: Kind, id: &Id, mut object: Value) -> Value {
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.info().kind.into();
    object["metadata"]["name"] = id.name().into();
    if let Some(namespace) = id.namespace() {
        object["metadata"]["namespace"] = namespace.into();
    }
    if object["metadata"].get("uid").is_none() {
        object["metadata"]["uid"] = uid(&[kind.info().plural, id.as_str()]).into();
    }
    object
}

/// What of a manifest selectors ask for, without the rest of it being decoded.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Lean {
    metadata: LeanMetadata,
    spec: LeanSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LeanMetadata {
    labels: Value,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct LeanSpec {
    node_name: Value,
}

/// What selectors ask for of an item, in the places where the whole object has it.
pub(super) fn facts(item: &Item) -> Value {
    let id = &item.id;
    let mut facts = match &item.content {
        Content::Manifest { json, .. } => {
            let Lean { metadata, spec } = serde_json::from_slice(json).unwrap_or_default();
            json!({ "metadata": { "labels": metadata.labels }, "spec": { "nodeName": spec.node_name } })
        }
        Content::Made(value) => facts_of(value),
        Content::Last(bytes) => facts_of(&serde_json::from_slice(bytes).unwrap_or_default()),
    };
    facts["metadata"]["name"] = id.name().into();
    if let Some(namespace) = id.namespace() {
        facts["metadata"]["namespace"] = namespace.into();
    }
    facts
}

fn facts_of(object: &Value) -> Value {
    json!({
        "metadata": { "labels": object["metadata"]["labels"] }, "spec": { "nodeName": object["spec"]["nodeName"] },
        "type": object["type"], "reason": object["reason"], "involvedObject": object["involvedObject"],
    })
}

/// Shows a value as what the manifest of a device desires, or that it desires none.
pub fn show_desired(object: &mut Value, property: &str, desired: Option<&bus::Value>) {
    let properties = object["spec"]["properties"].as_array_mut().into_iter().flatten();
    for fields in properties.filter(|fields| fields["name"] == property).filter_map(Value::as_object_mut) {
        let Some(text) = desired.map(ToString::to_string) else {
            fields.remove("desired");
            continue;
        };
        let is_it = fields.get("desired").is_some_and(|desired| desired["value"] == text.as_str());
        if !is_it {
            fields.insert("desired".to_owned(), json!({ "value": text }));
        }
    }
}

/// Splits an object into what edges are told, and the rest.
///
/// # Errors
/// Says which of its metadata is of another type.
pub fn split(object: &Value) -> Result<(Value, Meta), String> {
    let mut manifest = object.clone();
    if let Some(object) = manifest.as_object_mut() {
        object.remove("status");
    }
    let mut kept = Map::new();
    if let Some(metadata) = manifest["metadata"].as_object_mut() {
        for field in META_FIELDS {
            if let Some(value) = metadata.remove(field) {
                kept.insert(field.to_owned(), value);
            }
        }
        for field in ["resourceVersion", "selfLink", "generateName"] {
            metadata.remove(field);
        }
        if metadata.get("labels").is_some_and(|labels| labels.as_object().is_none_or(Map::is_empty)) {
            metadata.remove("labels");
        }
    }
    let meta = serde_json::from_value(Value::Object(kept)).map_err(|error| error.to_string())?;
    Ok((manifest, meta))
}

/// The last second that RFC 3339 can write. An edge's clock may say anything.
const LAST_SECOND: u64 = 253_402_300_799;

/// RFC 3339 in whole seconds, as Kubernetes writes times.
pub fn timestamp(at: UnixMillis) -> String {
    let since = Duration::from_secs((at.0 / 1000).min(LAST_SECOND));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

/// A UUID made of what tells an object from all others (RFC 9562, version 8).
pub fn uid(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let hash = hash.finalize();
    let hex: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let variant = char::from(b"89ab"[usize::from(hash[8] & 3)]);
    format!("{}-{}-8{}-{variant}{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_can_be_written() {
        assert_eq!(timestamp(UnixMillis(0)), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(UnixMillis(u64::MAX)), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn an_object_is_split_into_what_edges_need_and_the_rest_and_put_together_again() {
        let object = json!({
            "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
            "metadata": {
                "name": "v", "namespace": "plant", "labels": { "a": "b" }, "annotations": { "c": "d" }, "uid": "u",
                "creationTimestamp": "t", "generation": 3, "finalizers": ["x"],
            },
            "spec": { "unknown": 1 }, "status": { "twins": [] },
        });
        let (manifest, meta) = split(&object).unwrap();
        let lean = json!({ "name": "v", "namespace": "plant", "labels": { "a": "b" } });
        assert_eq!(manifest["metadata"], lean);
        let (manifest, meta) = (manifest.to_string(), serde_json::to_vec(&meta).unwrap());
        let again = stored(Kind::Device, &Id::from("plant/v"), manifest.as_bytes(), Some(&meta));
        let mut expected = object;
        expected.as_object_mut().unwrap().remove("status");
        assert_eq!(again, expected);
    }

    #[test]
    fn a_manifest_from_before_the_api_has_a_name_and_a_lasting_uid() {
        let json = br#"{"metadata":{"annotations":{"kept":"x"}},"spec":{}}"#;
        let object = stored(Kind::Device, &Id::from("plant/v"), json, None);
        assert_eq!(object["metadata"]["annotations"]["kept"], "x");
        assert_eq!(object["metadata"]["uid"], uid(&["devices", "plant/v"]));
        assert_eq!(
            stored(Kind::Device, &Id::from("plant/v"), b"no JSON", None),
            bare(Kind::Device, &Id::from("plant/v"))
        );
    }
}
