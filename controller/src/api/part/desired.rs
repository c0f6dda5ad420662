//! `devices/NAME/desired`: what is desired of a device, by property.
//!
//! ```json
//! { "kind": "DeviceDesired", "metadata": { "name": "valve" }, "spec": { "position": 40 },
//!   "status": { "authority": "cloud", "properties": [{ "name": "position", "version": "2.17", "by": "user/alice" }] } }
//! ```
//! A merge patch wishes what it names, also what is desired already: that is how a wish that expired is wished again. An
//! update and a JSON patch bring what was read before, so of them only that is wished which differs: what nobody meant to
//! touch moves nothing.

use bus::twin::Json;
use device_twin::TwinView;
use device_twin::command::CommandId;
use metadata::{Keyspace, Revision};
use serde_json::{Map, Value, json};

use super::super::call::PatchType;
use super::super::object::{timestamp, wished_at};
use super::super::{Id, Kind, Layout, Refusal, merge};
use super::{Part, check_head, head, wrong};

/// Names a wish, so that whoever sends it twice moves nothing twice.
pub const ID: &str = "kubebus.io/id";

/// What is desired, of these properties of a device.
pub fn object(id: &Id, views: &[TwinView], layout: Layout, ks: &Keyspace) -> Value {
    let mut object = head(Part::Desired, id, id.name());
    object["metadata"]["resourceVersion"] = wished_at(layout, id, ks).0.to_string().into();
    let wished = views.iter().filter_map(|view| Some((view.property.clone(), json!(view.desired.as_ref()?))));
    object["spec"] = Value::Object(wished.collect());
    let properties: Vec<Value> = views.iter().filter(|view| view.writable).map(property).collect();
    object["status"] = json!({ "properties": properties });
    if let Some(first) = views.first() {
        object["status"]["authority"] = json!(first.authority.holder());
    }
    object
}

fn property(view: &TwinView) -> Value {
    let mut shown = json!({ "name": view.property, "converged": view.converged });
    let mut say = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            shown[field] = value;
        }
    };
    say("value", view.desired.as_ref().map(|value| json!(value)));
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
    pub id: Option<CommandId>,
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
        Some(PatchType::Apply) => {
            return Err(Refusal::new(
                415,
                "UnsupportedMediaType",
                "a wish is nobody's field: send a merge patch (kubectl patch --type=merge --subresource=desired)",
            ));
        }
    };
    check_head(Part::Desired, id, &after)?;
    check_version(id, &after, before)?;
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
    Ok(Wished { values, unchanged, id: id_of(id, &after)? })
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
            Some(before) if before == value => same.push(name.clone()),
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
    let changed = after.iter().filter(|(name, value)| before.get(*name) != Some(value));
    let changed = changed.map(|(name, value)| (name.clone(), difference(before.get(name), value)));
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    changed.chain(gone.map(|name| (name.clone(), Value::Null))).collect()
}

/// Who read before somebody else wished is too late, if he says what he read.
fn check_version(id: &Id, after: &Value, before: &Value) -> Result<(), Refusal> {
    let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    let (Some(given), Some(is)) = (version(after).filter(|given| !given.is_empty()), version(before)) else {
        return Ok(());
    };
    let read = |text: &str| text.parse::<u64>().map(Revision);
    match (read(&given), read(&is)) {
        (Err(_), _) => Err(wrong(Part::Desired, id, "metadata.resourceVersion", "is no number")),
        (Ok(given), Ok(is)) if given < is => Err(Refusal::conflict(
            Kind::Device.info().group,
            Kind::Device.info().plural,
            id.name(),
            "something else has been wished since; please look at it and try again",
        )),
        _ => Ok(()),
    }
}

fn id_of(id: &Id, body: &Value) -> Result<Option<CommandId>, Refusal> {
    let given = body["metadata"]["annotations"].get(ID).filter(|given| !given.is_null());
    let Some(given) = given else { return Ok(None) };
    let field = format!("metadata.annotations[{ID}]");
    let text = given.as_str().ok_or_else(|| wrong(Part::Desired, id, &*field, "is no text"))?;
    CommandId::new(text).map(Some).map_err(|why| wrong(Part::Desired, id, field, why))
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
        assert_eq!(put(json!({ "spec": { "position": 41 } })), Ok((json!({ "position": 41 }), vec![])));
        let operations = json!([{ "op": "remove", "path": "/spec/mode" }]);
        let same = vec!["position".to_owned()];
        assert_eq!(read(Some(PatchType::Json), operations), Ok((json!({ "mode": null }), same)));
    }

    #[test]
    fn who_read_before_the_last_wish_is_too_late_and_what_is_no_wish_is_named() {
        let at = |version: &str| {
            read(None, json!({ "metadata": { "resourceVersion": version }, "spec": { "position": 1 } }))
        };
        assert_eq!(at("6"), Err(409));
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
