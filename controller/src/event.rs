//! Events: what happened to an object, for people. `/c/event/<ns>/<name>` at a cloud, `/local/event/..` at an edge.
//!
//! `kubectl describe` shows those of an object, `kubectl get events` all. The same again counts up. What belongs to no
//! namespace is kept in `default`, as Kubernetes does. An edge's are its own: they go nowhere.

use std::collections::BTreeMap;

use bus::{Name, UnixMillis};
use bytes::Bytes;
use metadata::{Key, Keyspace};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::object::{timestamp, uid, uid_of};
use crate::api::{Id, Kind, Layout};
use crate::record::own_key;

/// Events that a cloud keeps, some 500 KiB: the one that was said the longest ago goes first.
pub const MAX_EVENTS: usize = 1000;

/// Events that an edge keeps, some 100 KiB of its memory and flash.
pub const MAX_AT_EDGE: usize = 200;

/// Events of one object, and of those of its name: none pushes out those of all others. The one that was said the longest
/// ago goes first.
pub const MAX_OF_ONE: usize = 24;

/// The reasons of what is said of an edge's link.
pub const CONNECTED: &str = "Connected";
pub const DISCONNECTED: &str = "Disconnected";

/// Of a message; the rest is cut off.
const MAX_MESSAGE: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Severity {
    Normal,
    Warning,
}

/// Something to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub kind: Kind,
    pub about: Id,
    pub severity: Severity,
    /// One word for machines, in CamelCase: `Connected`.
    pub reason: &'static str,
    /// What it is about, beside the object: what is said of the same again is the same event, with another message.
    /// `None`: the message tells.
    pub subject: Option<String>,
    pub message: String,
    pub at: UnixMillis,
    /// How often, since it was recorded last.
    pub count: u64,
}

/// An event as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    api_version: String,
    kind: String,
    about: String,
    severity: Severity,
    reason: String,
    message: String,
    first: UnixMillis,
    last: UnixMillis,
    count: u64,
}

pub fn prefix(layout: Layout) -> &'static str {
    match layout {
        Layout::Cloud => "/c/event/",
        Layout::Edge => "/local/event/",
    }
}

/// Keeps an event; the same again is counted.
pub fn record(layout: Layout, event: Event, ks: &mut Keyspace) {
    let Event { kind, about, severity, reason, subject, message, at, count } = event;
    let message: String = message.chars().take(MAX_MESSAGE).collect();
    let unique = uid(&[kind.info().plural, about.as_str(), reason, subject.as_ref().unwrap_or(&message)]);
    let of_one = format!("{}{}/{}.", prefix(layout), about.namespace().unwrap_or("default"), about.name());
    let key = own_key(&format!("{of_one}{}", &unique[..8]));
    let before: Option<Kept> = ks.get(key.as_str()).and_then(|bytes| serde_json::from_slice(bytes).ok());
    let kept = Kept {
        api_version: kind.api_version(),
        kind: kind.info().kind.to_owned(),
        about: about.to_string(),
        severity,
        reason: reason.to_owned(),
        message,
        first: before.as_ref().map_or(at, |before| before.first),
        last: at,
        count: before.map_or(0, |before| before.count).saturating_add(count),
    };
    let Ok(json) = serde_json::to_vec(&kept) else { return };
    if ks.get(key.as_str()).is_none() {
        let max = match layout {
            Layout::Cloud => MAX_EVENTS,
            Layout::Edge => MAX_AT_EDGE,
        };
        make_room(&of_one, MAX_OF_ONE, ks);
        make_room(prefix(layout), max, ks);
    }
    ks.put(key, Bytes::from(json));
}

fn make_room(prefix: &str, max: usize, ks: &mut Keyspace) {
    if ks.range(prefix).count() < max {
        return;
    }
    // What this cycle wrote has no revision yet, and is the newest.
    let said = |key: &Key| ks.revision_of(key.as_str()).map_or(u64::MAX, |at| at.0);
    let oldest = ks.range(prefix).map(|(key, _)| key).min_by_key(|key| said(key)).cloned();
    if let Some(oldest) = oldest {
        ks.delete(&oldest);
    }
}

/// One that is kept, by `<namespace>/<name>`.
pub fn get(layout: Layout, id: &str, ks: &Keyspace) -> Option<Kept> {
    serde_json::from_slice(ks.get(&format!("{}{id}", prefix(layout)))?).ok()
}

/// All that are kept, the newest last.
pub fn list(layout: Layout, ks: &Keyspace) -> Vec<Kept> {
    let read = ks.range(prefix(layout)).filter_map(|(_, bytes)| serde_json::from_slice::<Kept>(bytes).ok());
    let mut all: Vec<Kept> = read.collect();
    all.sort_by_key(|event| event.last);
    all
}

/// The edges of which the last word is that their link stands.
pub fn connected(layout: Layout, ks: &Keyspace) -> Vec<Name> {
    let mut last = BTreeMap::new();
    for event in list(layout, ks) {
        if event.kind == Kind::EdgeNode.info().kind && [CONNECTED, DISCONNECTED].contains(&&*event.reason) {
            last.insert(event.about, event.reason == CONNECTED);
        }
    }
    last.into_iter().filter(|(_, stands)| *stands).filter_map(|(about, _)| Name::new(&about).ok()).collect()
}

impl Kept {
    /// As core/v1 has it.
    pub fn object(&self, ks: &Keyspace) -> Value {
        let about = Id::from(&*self.about);
        let kind = Kind::ALL.into_iter().find(|kind| kind.info().kind == self.kind);
        let mut involved = json!({ "apiVersion": self.api_version, "kind": self.kind, "name": about.name() });
        if let Some(kind) = kind {
            involved["uid"] = uid_of(kind, &about, ks).into();
        }
        if let Some(namespace) = about.namespace() {
            involved["namespace"] = namespace.into();
        }
        json!({
            "metadata": { "creationTimestamp": timestamp(self.first) },
            "involvedObject": involved, "type": self.severity, "reason": self.reason, "message": self.message,
            "firstTimestamp": timestamp(self.first), "lastTimestamp": timestamp(self.last), "count": self.count,
            "source": { "component": "kubebus" }, "reportingComponent": "kubebus", "reportingInstance": "",
            "eventTime": null,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(about: &str, subject: &str, message: &str) -> Event {
        Event {
            kind: Kind::Device,
            about: Id::from(about),
            severity: Severity::Warning,
            reason: "Expired",
            subject: Some(subject.to_owned()),
            message: message.to_owned(),
            at: UnixMillis(5),
            count: 2,
        }
    }

    #[test]
    fn the_same_subject_again_is_counted_and_an_object_pushes_out_its_own_alone() {
        let mut ks = Keyspace::new();
        record(Layout::Edge, event("plant/valve", "position", "3h old"), &mut ks);
        record(Layout::Edge, event("plant/valve", "position", "4h old"), &mut ks);
        let kept = list(Layout::Edge, &ks);
        assert_eq!((kept.len(), kept[0].count, kept[0].message.as_str()), (1, 4, "4h old"));
        ks.seal();
        for at in 0..2 * MAX_OF_ONE {
            record(Layout::Edge, event("plant/pump", &format!("p{at}"), "late"), &mut ks);
            ks.seal();
        }
        let of = |name: &str| list(Layout::Edge, &ks).iter().filter(|kept| kept.about == name).count();
        assert_eq!((of("plant/pump"), of("plant/valve")), (MAX_OF_ONE, 1));
        for at in 0..2 * MAX_AT_EDGE {
            record(Layout::Edge, event(&format!("plant/d{at}"), "", "late"), &mut ks);
            ks.seal();
        }
        assert_eq!(list(Layout::Edge, &ks).len(), MAX_AT_EDGE);
    }

    #[test]
    fn an_event_names_the_uid_by_which_kubectl_finds_it() {
        let mut ks = Keyspace::new();
        record(Layout::Cloud, event("plant/valve", "", "late"), &mut ks);
        let involved = |ks: &Keyspace| list(Layout::Cloud, ks)[0].object(ks)["involvedObject"].clone();
        assert_eq!(involved(&ks)["uid"], uid(&["devices", "plant/valve"]));
        ks.put(own_key("/c/meta/devices/plant/valve"), Bytes::from_static(br#"{"uid":"u"}"#));
        assert_eq!(involved(&ks)["uid"], "u");
    }
}
