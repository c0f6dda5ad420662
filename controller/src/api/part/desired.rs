//! `devices/NAME/desired`: what is desired of a device, by property.
//!
//! ```json
//! { "kind": "DeviceDesired", "metadata": { "name": "valve" }, "spec": { "position": 40 },
//!   "status": { "authority": "cloud", "properties": [{ "name": "position", "version": "2.17", "by": "user/alice" }] } }
//! ```
//! A merge patch wishes what it names, also what is desired already: that is how a wish that expired is wished again. An
//! update and a JSON patch bring what was read before, so of them only that is wished which differs: what nobody meant to
//! touch moves nothing. So `spec` is what was wished and lasts, and never what an interlock, a rule or an operator's hold
//! makes of it for a while: that is `value` in `status`.

use std::collections::BTreeMap;

use bus::twin::Json;
use device_twin::TwinView;
use device_twin::command::CommandId;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::super::call::PatchType;
use super::super::object::timestamp;
use super::super::{Id, Kind, Refusal, merge};
use super::{Part, check_head, head, wrong};

/// Names a wish, so that whoever sends it twice moves nothing twice.
pub const ID: &str = "kubebus.io/id";

/// By property what a device is held to, where that is not what is wished.
pub type Held = BTreeMap<String, bus::Value>;

/// What is desired, of these properties of a device with this uid.
pub fn object(id: &Id, views: &[TwinView], held: &Held, uid: &str) -> Value {
    let mut object = head(Part::Desired, id, id.name());
    object["metadata"]["resourceVersion"] = version(views, held, uid).into();
    let wished = views.iter().filter_map(|view| Some((view.property.clone(), json!(view.desired.as_ref()?))));
    object["spec"] = Value::Object(wished.collect());
    let writable = views.iter().filter(|view| view.writable);
    let properties: Vec<Value> = writable.map(|view| property(view, held.get(&view.property))).collect();
    object["status"] = json!({ "properties": properties });
    if let Some(first) = views.first() {
        object["status"]["authority"] = json!(first.authority.holder());
    }
    object
}

/// Another one whenever a wish comes or goes, or something else is in force: no count, as what a rule holds is in no row.
/// What a mapper answers is not in it.
fn version(views: &[TwinView], held: &Held, uid: &str) -> String {
    let shown = |view: &TwinView| {
        let held = held.get(&view.property);
        json!([view.property, view.version.map(|version| version.to_string()), view.by, view.desired, held])
    };
    let all: Vec<Value> = views.iter().map(shown).collect();
    let hash = Sha256::digest(json!([uid, all]).to_string());
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(first).to_string()
}

fn property(view: &TwinView, held: Option<&bus::Value>) -> Value {
    let mut shown = json!({ "name": view.property, "converged": view.converged });
    let mut say = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            shown[field] = value;
        }
    };
    say("value", held.or(view.desired.as_ref()).map(|value| json!(value)));
    say("unit", view.unit.clone().map(Value::from));
    say("version", view.version.map(|version| version.to_string().into()));
    say("by", view.by.clone().map(Value::from));
    say("since", view.since.map(|at| timestamp(at).into()));
    if let Some(ack) = view.ack.as_ref().filter(|ack| Some(ack.version) == view.version) {
        say("outcome", Some(json!(ack.outcome)));
        say("detail", Some(ack.detail.clone().into()).filter(|detail| detail != ""));
    }
    shown
}

/// What somebody wishes by this part.
#[derive(Debug, Clone, PartialEq)]
pub struct Wished {
    /// A JSON merge patch of the values.
    pub values: Map<String, Value>,
    /// What it names without another value, and which is not wished anew.
    pub unchanged: Vec<String>,
}

impl Wished {
    /// For the twins.
    pub fn json(&self) -> Result<Json, Refusal> {
        let read = serde_json::from_value(Value::Object(self.values.clone()));
        read.map_err(|why| Refusal::bad_request(format!("spec: {why}")))
    }
}

/// Reads a write of what is desired; `before` is [`object`].
pub fn wished(id: &Id, body: &Value, patch: Option<PatchType>, before: &Value) -> Result<Wished, Refusal> {
    let after = match patch {
        None => body.clone(),
        Some(PatchType::Json) => merge::json_patch(before, body).map_err(|why| refused(id, &why))?,
        Some(PatchType::Merge | PatchType::Strategic) => {
            merge::merge_patch(before, body).map_err(|why| refused(id, &why))?
        }
        Some(PatchType::Apply) => return Err(nobodys_field()),
    };
    check_head(Part::Desired, id, &after)?;
    check_version(id, &after, before)?;
    id_of(id, &after)?;
    let given = |object: &Value| -> Result<Map<String, Value>, Refusal> {
        match object.get("spec").filter(|spec| !spec.is_null()) {
            None => Ok(Map::new()),
            Some(Value::Object(values)) => Ok(values.clone()),
            Some(_) => Err(wrong(Part::Desired, id, "spec", "is no object by property: {\"position\": 40}")),
        }
    };
    let (known, named) = (given(before)?, given(&after)?);
    let (values, unchanged) = match patch {
        Some(PatchType::Merge | PatchType::Strategic) => (given(body)?, Vec::new()),
        // A JSON patch shows the whole, so that what is gone was taken out of it.
        Some(PatchType::Json) => differing(&known, &named, true),
        Some(PatchType::Apply) | None => differing(&known, &named, false),
    };
    Ok(Wished { values, unchanged })
}

/// A merge patch that makes the one of the other, as far as it is named; and what is named and the same.
fn differing(
    known: &Map<String, Value>,
    named: &Map<String, Value>,
    is_whole: bool,
) -> (Map<String, Value>, Vec<String>) {
    let (mut values, mut same) = (Map::new(), Vec::new());
    for (name, value) in named {
        match known.get(name) {
            Some(before) if is_same(before, value) => same.push(name.clone()),
            before => {
                values.insert(name.clone(), difference(before, value));
            }
        }
    }
    let gone = known.keys().filter(|name| is_whole && !named.contains_key(*name));
    values.extend(gone.map(|name| (name.clone(), Value::Null)));
    (values, same)
}

/// RFC 7396 the other way round: of a struct, the fields that differ.
fn difference(before: Option<&Value>, after: &Value) -> Value {
    let (Some(Value::Object(before)), Value::Object(after)) = (before, after) else { return after.clone() };
    let changed =
        after.iter().filter(|(name, value)| before.get(*name).is_none_or(|before| !is_same(before, value)));
    let changed = changed.map(|(name, value)| (name.clone(), difference(before.get(name), value)));
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    changed.chain(gone.map(|name| (name.clone(), Value::Null))).collect()
}

/// Clients write 40 where they read 40.0, and mean the same.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || (a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64())
        }
        (Value::Object(a), Value::Object(b)) => {
            let is_there = |(name, value): (&String, &Value)| b.get(name).is_some_and(|b| is_same(value, b));
            a.len() == b.len() && a.iter().all(is_there)
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        _ => one == other,
    }
}

/// Who read before somebody else wished is too late, if he says what he read.
fn check_version(id: &Id, after: &Value, before: &Value) -> Result<(), Refusal> {
    let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    let (Some(given), Some(is)) = (version(after).filter(|given| !given.is_empty()), version(before)) else {
        return Ok(());
    };
    if given.parse::<u64>().is_err() {
        return Err(wrong(Part::Desired, id, "metadata.resourceVersion", "is no number"));
    }
    // Of another store, too: no version is older or newer than another.
    match given == is {
        true => Ok(()),
        false => Err(Refusal::conflict(
            Kind::Device.info().group,
            Kind::Device.info().plural,
            id.name(),
            "something else has been wished since, or is in force now; please look at it and try again",
        )),
    }
}

/// The name that a write gives its wish, and what it says: the same again is the same wish, whatever was read before.
///
/// # Errors
/// The name is none.
pub fn named(id: &Id, body: &Value, patch: Option<PatchType>) -> Result<Option<(CommandId, Value)>, Refusal> {
    let Some(operations) = body.as_array().filter(|_| patch == Some(PatchType::Json)) else {
        return Ok(id_of(id, body)?.map(|name| (name, body["spec"].clone())));
    };
    // Not carried out yet: a test of what was desired before is wrong when it comes again.
    for operation in operations {
        let value = || operation["value"].clone();
        let annotations = match operation["path"].as_str() {
            Some("/metadata/annotations/kubebus.io~1id") => json!({ ID: value() }),
            Some("/metadata/annotations") => value(),
            Some("/metadata") => value()["annotations"].take(),
            Some(_) | None => continue,
        };
        if let Some(name) = id_of(id, &json!({ "metadata": { "annotations": annotations } }))? {
            return Ok(Some((name, body.clone())));
        }
    }
    Ok(None)
}

fn id_of(id: &Id, body: &Value) -> Result<Option<CommandId>, Refusal> {
    let given = body["metadata"]["annotations"].get(ID).filter(|given| !given.is_null());
    let Some(given) = given else { return Ok(None) };
    let field = format!("metadata.annotations[{ID}]");
    let text = given.as_str().ok_or_else(|| wrong(Part::Desired, id, &*field, "is no text"))?;
    CommandId::new(text).map(Some).map_err(|why| wrong(Part::Desired, id, field, why))
}

/// Server-side apply says who owns what.
pub fn nobodys_field() -> Refusal {
    Refusal::new(
        415,
        "UnsupportedMediaType",
        "a wish is nobody's field: send a merge patch (kubectl patch --type=merge --subresource=desired)",
    )
}

fn refused(id: &Id, why: &merge::PatchError) -> Refusal {
    match why {
        merge::PatchError::Operation { .. } => wrong(Part::Desired, id, "", why),
        merge::PatchError::Malformed(_) | merge::PatchError::TooLong | merge::PatchError::NoObject => {
            Refusal::bad_request(why.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before() -> Value {
        json!({ "metadata": { "resourceVersion": "7" }, "spec": { "position": 40, "mode": { "a": 1, "b": 2 } } })
    }

    fn read(patch: Option<PatchType>, body: Value) -> Result<(Value, Vec<String>), u16> {
        let done = wished(&Id::from("plant/valve"), &body, patch, &before());
        done.map(|wished| (Value::Object(wished.values), wished.unchanged)).map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_merge_patch_wishes_what_it_names_and_other_writes_what_differs() {
        let merge = |body| read(Some(PatchType::Merge), body).map(|(values, _)| values);
        assert_eq!(merge(json!({ "spec": { "position": 40 } })), Ok(json!({ "position": 40 })), "again");
        assert_eq!(merge(json!({ "spec": { "mode": { "b": 3 } } })), Ok(json!({ "mode": { "b": 3 } })));
        assert_eq!(merge(json!({ "spec": { "position": null } })), Ok(json!({ "position": null })));
        let put = |body| read(None, body);
        assert_eq!(
            put(json!({ "spec": { "position": 40, "mode": { "a": 1 } } })),
            Ok((json!({ "mode": { "b": null } }), vec!["position".to_owned()]))
        );
        let same = vec!["mode".to_owned(), "position".to_owned()];
        assert_eq!(
            put(json!({ "spec": { "position": 40.0, "mode": { "a": 1.0, "b": 2 } } })),
            Ok((json!({}), same)),
            "written otherwise"
        );
        assert_eq!(put(json!({ "spec": { "position": 41 } })), Ok((json!({ "position": 41 }), vec![])));
        let operations = json!([{ "op": "remove", "path": "/spec/mode" }]);
        let same = vec!["position".to_owned()];
        assert_eq!(read(Some(PatchType::Json), operations), Ok((json!({ "mode": null }), same)));
    }

    #[test]
    fn a_wish_has_the_name_that_it_is_given_before_it_is_carried_out() {
        let device = Id::from("plant/valve");
        let name = |body: Value, patch| {
            let named = named(&device, &body, patch).map_err(|refusal| refusal.code)?;
            Ok::<_, u16>(named.map(|(name, _)| name.to_string()))
        };
        let annotations = json!({ ID: "x" });
        assert_eq!(
            name(json!({ "metadata": { "annotations": annotations } }), None),
            Ok(Some("x".to_owned()))
        );
        for (path, value) in [
            ("/metadata/annotations/kubebus.io~1id", json!("x")),
            ("/metadata/annotations", annotations.clone()),
            ("/metadata", json!({ "annotations": annotations })),
        ] {
            let operations = json!([{ "op": "add", "path": path, "value": value }]);
            assert_eq!(name(operations, Some(PatchType::Json)), Ok(Some("x".to_owned())), "{path}");
        }
        assert_eq!(
            name(json!([{ "op": "add", "path": "/spec/a", "value": 1 }]), Some(PatchType::Json)),
            Ok(None)
        );
        assert_eq!(name(json!({ "metadata": { "annotations": { ID: "a b" } } }), None), Err(422));
    }

    #[test]
    fn who_read_before_the_last_wish_is_too_late_and_what_is_no_wish_is_named() {
        let at = |version: &str| {
            read(None, json!({ "metadata": { "resourceVersion": version }, "spec": { "position": 1 } }))
        };
        assert_eq!(at("6"), Err(409));
        assert_eq!(at("8"), Err(409), "of another store");
        assert_eq!(at("7").map(|(values, _)| values), Ok(json!({ "position": 1 })));
        assert_eq!(at("x"), Err(422));
        assert_eq!(read(None, json!({ "kind": "Site", "spec": {} })), Err(422));
        assert_eq!(read(None, json!({ "spec": [1] })), Err(422));
        assert_eq!(read(None, json!({ "metadata": { "annotations": { ID: "a b" } } })), Err(422));
        assert_eq!(read(Some(PatchType::Apply), json!({})), Err(415));
        assert_eq!(
            read(Some(PatchType::Json), json!([{ "op": "test", "path": "/spec/position", "value": 1 }])),
            Err(422)
        );
    }
}
