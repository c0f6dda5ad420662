//! `devices/NAME/authority`: who says what is desired of a device, the cloud or its edge.
//!
//! ```json
//! { "kind": "DeviceAuthority", "metadata": { "name": "valve" }, "spec": { "holder": "edge", "reason": "works" },
//!   "status": { "epoch": 3, "by": "user/alice", "at": "2026-11-30T12:00:00Z", "until": "2026-11-30T13:00:00Z" } }
//! ```
//! Each side takes it for itself: `holder: edge` is written at the edge, and `holder: cloud` there hands it back.

use std::time::Duration;

use device_twin::Authority;
use device_twin::authority::Holder;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::call::PatchType;
use super::super::object::timestamp;
use super::super::{Id, Refusal, merge};
use super::{Part, check_head, head, wrong};

/// As it is.
pub fn object(id: &Id, authority: &Authority) -> Value {
    let mut object = head(Part::Authority, id, id.name());
    object["spec"] = json!({ "holder": authority.holder() });
    object["status"] = json!({ "epoch": authority.epoch });
    if authority.epoch > 0 {
        object["spec"]["reason"] = authority.reason.clone().into();
        object["status"]["by"] = authority.by.clone().into();
        object["status"]["at"] = timestamp(authority.at).into();
    }
    if let Some(until) = authority.until {
        object["status"]["until"] = timestamp(until).into();
    }
    object
}

/// What is to become of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    pub to: Holder,
    pub reason: String,
    /// After which an edge hands it back.
    pub lasting: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    holder: String,
    #[serde(default)]
    reason: String,
    lasting: Option<String>,
}

/// Reads a write of it; `before` is [`object`]. `None`: that is how it is.
pub fn moved(
    id: &Id,
    body: &Value,
    patch: Option<PatchType>,
    before: &Value,
) -> Result<Option<Move>, Refusal> {
    let after = match patch {
        None => body.clone(),
        Some(PatchType::Json) => {
            merge::json_patch(before, body).map_err(|why| Refusal::bad_request(why.to_string()))?
        }
        Some(PatchType::Merge | PatchType::Strategic | PatchType::Apply) => {
            merge::merge_patch(before, body).map_err(|why| Refusal::bad_request(why.to_string()))?
        }
    };
    check_head(Part::Authority, id, &after)?;
    let wrong = |field: &str, why: String| wrong(Part::Authority, id, field, why);
    let spec: Spec =
        serde_json::from_value(after["spec"].clone()).map_err(|why| wrong("spec", why.to_string()))?;
    let to = match spec.holder.as_str() {
        "cloud" => Holder::Cloud,
        "edge" => Holder::Edge,
        other => return Err(wrong("spec.holder", format!("\"{other}\" is neither cloud nor edge"))),
    };
    if after["spec"] == before["spec"] {
        return Ok(None);
    }
    let lasting = spec.lasting.map(|text| humantime::parse_duration(&text)).transpose();
    let lasting = lasting.map_err(|why| wrong("spec.lasting", format!("{why}; write it as 30m or 2h")))?;
    Ok(Some(Move { to, reason: spec.reason, lasting }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_read_and_what_is_so_already_moves_nothing() {
        let id = Id::from("plant/valve");
        let before = object(&id, &Authority::default());
        let read =
            |body: Value| moved(&id, &body, None, &before).map_err(|refusal| refusal.causes[0].field.clone());
        assert_eq!(read(before.clone()), Ok(None));
        let hours = Some(Duration::from_secs(7200));
        let taken = Move { to: Holder::Edge, reason: "works".to_owned(), lasting: hours };
        let order = json!({ "spec": { "holder": "edge", "reason": "works", "lasting": "2h" } });
        assert_eq!(read(order), Ok(Some(taken)));
        for (spec, field) in [
            (json!({ "holder": "me" }), "spec.holder"),
            (json!({ "holder": "edge", "lasting": "long" }), "spec.lasting"),
            (json!({ "holder": "edge", "typo": 1 }), "spec"),
            (Value::Null, "spec"),
        ] {
            assert_eq!(read(json!({ "spec": spec })), Err(field.to_owned()));
        }
    }
}
