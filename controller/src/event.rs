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

/// Events that an edge keeps, some 100 KiB of its memory and flash: those that were said the longest ago go first.
pub const MAX_EVENTS: usize = 200;

/// Events that a cloud keeps: of each of 10,000 edges its links and their ends are two, some 10 MiB in all.
pub const MAX_EVENTS_OF_CLOUD: usize = 20_000;

/// Events about one name, beyond which its oldest go: a text that says another number each time pushes out no others'.
pub const MAX_OF_ONE: usize = 16;

/// Of so many new events one looks whether all are too many: to count them for each takes longer than to keep it. So
/// there are some more than the bound at times, by a factor that nobody chooses, a hash.
const LOOKS_ONE_IN: u8 = 32;

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
        forget_oldest(&of_one, MAX_OF_ONE - 1, ks);
        if u8::from_str_radix(&unique[..2], 16).is_ok_and(|byte| byte % LOOKS_ONE_IN == 0) {
            forget_oldest(prefix(layout), max_events(layout) - 1, ks);
        }
    }
    ks.put(key, Bytes::from(json));
}

fn max_events(layout: Layout) -> usize {
    match layout {
        Layout::Cloud => MAX_EVENTS_OF_CLOUD,
        Layout::Edge => MAX_EVENTS,
    }
}

/// Leaves `most` of the events below a prefix.
fn forget_oldest(prefix: &str, most: usize, ks: &mut Keyspace) {
    let surplus = ks.range(prefix).count().saturating_sub(most);
    if surplus == 0 {
        return;
    }
    // What this cycle wrote has no revision yet, and is the newest.
    let said = |key: &Key| ks.revision_of(key.as_str()).map_or(u64::MAX, |at| at.0);
    let mut keys: Vec<Key> = ks.range(prefix).map(|(key, _)| key.clone()).collect();
    keys.sort_by_cached_key(said);
    keys.iter().take(surplus).for_each(|key| ks.delete(key));
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
mod tests;
