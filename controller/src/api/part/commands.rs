//! `devices/NAME/commands`: what was ordered of a device, and how it ended; one more is posted.
//!
//! ```json
//! { "kind": "DeviceCommand", "metadata": { "name": "flush-7" },
//!   "spec": { "command": "flush", "args": { "speed": 3 }, "ttl": "30s" },
//!   "status": { "state": "ended", "outcome": "succeeded", "by": "user/alice" } }
//! ```
//! Its name is its id, which is carried out once; without one the node gives it. Without `ttl` it is refused.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use bus::UnixMillis;
use device_twin::command::{CommandId, CommandView, Order};
use device_twin::condition::Condition;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::object::{timestamp, uid};
use super::super::{Id, Kind, Refusal};
use super::{Part, check_head, head, wrong};

/// All that are remembered of a device, oldest first.
pub fn list(id: &Id, views: &[CommandView]) -> Value {
    let items: Vec<Value> = views.iter().map(|view| object(id, view)).collect();
    json!({
        "apiVersion": Kind::Device.api_version(), "kind": format!("{}List", Part::Commands.kind()),
        "metadata": { "name": id.name(), "namespace": id.namespace() }, "items": items,
    })
}

/// One of them.
pub fn object(id: &Id, view: &CommandView) -> Value {
    let CommandView { device: _, command, state, outcome, detail } = view;
    let name = command.id.to_string();
    let mut object = head(Part::Commands, id, &name);
    object["metadata"]["creationTimestamp"] = timestamp(command.issued).into();
    object["metadata"]["uid"] = uid(&["devices/commands", id.as_str(), &name]).into();
    let span = |ms: u64| humantime::format_duration(Duration::from_millis(ms)).to_string();
    object["spec"] = json!({ "command": command.name, "args": command.args, "ttl": span(command.ttl_ms) });
    if let Some(hold) = command.hold_ms {
        object["spec"]["hold"] = span(hold).into();
    }
    if !command.when.is_empty() {
        object["spec"]["when"] = json!(command.when);
    }
    let expires = UnixMillis(command.issued.0.saturating_add(command.ttl_ms));
    object["status"] = json!({ "state": state, "by": command.by, "expires": timestamp(expires) });
    if let Some(outcome) = outcome {
        object["status"]["outcome"] = json!(outcome);
    }
    if !detail.is_empty() {
        object["status"]["detail"] = detail.clone().into();
    }
    object
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    command: String,
    #[serde(default)]
    args: BTreeMap<String, bus::Value>,
    ttl: Option<String>,
    sent: Option<String>,
    hold: Option<String>,
    #[serde(default)]
    when: Vec<Condition>,
}

/// Reads what is posted: the command's name, and the order.
pub fn order(id: &Id, body: &Value) -> Result<(String, Order), Refusal> {
    check_head(Part::Commands, id, body)?;
    let wrong = |field: &str, why: String| wrong(Part::Commands, id, field, why);
    let given = body["metadata"]["name"].as_str().filter(|name| !name.is_empty());
    let named =
        given.map(CommandId::new).transpose().map_err(|why| wrong("metadata.name", why.to_string()))?;
    let spec: Spec =
        serde_json::from_value(body["spec"].clone()).map_err(|why| wrong("spec", why.to_string()))?;
    let millis = |field: &str, text: Option<String>| -> Result<Option<u64>, Refusal> {
        let read = text.map(|text| humantime::parse_duration(&text)).transpose();
        let read = read.map_err(|why| wrong(field, format!("{why}; write it as 30s or 5m")))?;
        Ok(read.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    };
    let sent = spec.sent.map(|text| humantime::parse_rfc3339(&text)).transpose();
    let sent = sent.map_err(|why| wrong("spec.sent", format!("{why}; write it as 2026-11-30T12:00:00Z")))?;
    let sent = sent.map(|at| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis());
    let ttl_ms = millis("spec.ttl", spec.ttl)?;
    if ttl_ms.is_none() {
        let why = "is required: a command without an expiry might act at any later time; write ttl: 30s";
        return Err(wrong("spec.ttl", why.to_owned()));
    }
    let order = Order {
        id: named,
        args: spec.args,
        ttl_ms,
        sent: sent.map(|ms| UnixMillis(u64::try_from(ms).unwrap_or(u64::MAX))),
        hold_ms: millis("spec.hold", spec.hold)?,
        when: spec.when,
        reply: None,
    };
    Ok((spec.command, order))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<(String, Order), String> {
        order(&Id::from("plant/valve"), &body).map_err(|refusal| {
            refusal.causes.first().map_or(refusal.message.clone(), |cause| cause.field.clone())
        })
    }

    #[test]
    fn an_order_is_read_and_what_is_wrong_with_it_is_named() {
        let good = json!({
            "metadata": { "name": "x-1" },
            "spec": { "command": "set", "args": { "position": 40 }, "ttl": "30s", "hold": "1m", "sent": "1970-01-01T00:00:05Z" },
        });
        let (name, order) = read(good.clone()).unwrap();
        assert_eq!((name.as_str(), order.ttl_ms, order.hold_ms), ("set", Some(30_000), Some(60_000)));
        assert_eq!((order.id, order.sent), (Some(CommandId::new("x-1").unwrap()), Some(UnixMillis(5000))));
        for (pointer, value, expected) in [
            ("/metadata/name", json!("a b"), "metadata.name"),
            ("/spec/ttl", json!("soon"), "spec.ttl"),
            ("/spec/ttl", Value::Null, "spec.ttl"),
            ("/spec/sent", json!("now"), "spec.sent"),
            ("/spec/command", json!(3), "spec"),
            ("/spec", json!({ "command": "set", "ttl": "1s", "typo": 1 }), "spec"),
        ] {
            let mut wrong = good.clone();
            *wrong.pointer_mut(pointer).unwrap() = value;
            assert_eq!(read(wrong).unwrap_err(), expected, "{pointer}");
        }
    }
}
