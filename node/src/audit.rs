//! The audit log: who changed what, when, from where, and what came of it. One JSON object a line.
//!
//! Every mutation is written, and every one that was refused to somebody who is known, up to [`REFUSED_A_MINUTE`] of each.
//! Refused strangers are counted: whoever floods the node pushes nothing out of the log.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::{Mono, NodeId, UnixMillis};
use controller::role::Role;
use serde::{Deserialize, Serialize};

/// Refused requests of one client that are written one by one: more than a person makes, and at 300 bytes a line too few
/// to turn 16 MiB over within a day.
pub const REFUSED_A_MINUTE: u32 = 20;

/// Clients whose refusals are counted apart; with more, the minute begins anew for all.
const MAX_COUNTED: usize = 256;

/// Bytes of each text in a line: a desired value, a message.
const MAX_TEXT: usize = 240;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Milliseconds since 1970, by this node's clock.
    pub time: UnixMillis,
    pub who: String,
    pub role: String,
    /// An address, or the user of this machine who opened the admin socket.
    pub from: String,
    /// A method and a path.
    pub what: String,
    /// Which object, or what was wished, where that is no secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// HTTP's: below 400 it was done.
    pub status: u16,
    /// Why it was not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// A line about what has no line of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub time: UnixMillis,
    /// Strangers that were turned away.
    pub strangers: u64,
    /// The address of the last one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_from: String,
    /// Refused requests beyond [`REFUSED_A_MINUTE`].
    pub refused: u64,
    /// Mutations that the disk did not take.
    pub lost: u64,
}

impl Count {
    pub fn is_empty(&self) -> bool {
        self.strangers == 0 && self.refused == 0 && self.lost == 0
    }
}

/// Where a line is kept. Each ring has its own room: what an app wishes all day pushes nothing out of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// What administrators did to the cluster, and who came by a link.
    Cluster,
    /// What was wished of devices, and what was refused to those who are no administrators.
    Devices,
}

impl Ring {
    pub const ALL: [Self; 2] = [Self::Cluster, Self::Devices];

    pub fn of(line: &Line) -> Self {
        let Line::Entry(entry) = line else { return Self::Cluster };
        let (method, path) = entry.what.split_once(' ').unwrap_or_default();
        let is_to_others = entry.role != Role::Admin.as_str();
        // Others patch desired values of a device, and nothing else.
        let is_wish = match steered(path) {
            Some(part) => !part.is_empty() || (method == "PATCH" && is_to_others),
            None => ["/kubebus/v1/twins/", "/kubebus/v1/changes"].iter().any(|start| path.starts_with(start)),
        };
        if is_wish || (entry.status >= 400 && is_to_others) { Self::Devices } else { Self::Cluster }
    }
}

/// Of a path of the resource API that names a device: by which part of it, or empty: the whole.
pub fn steered(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/apis/devices.kubeedge.io/")?;
    match rest.split('/').collect::<Vec<_>>().as_slice() {
        [_, "namespaces", _, "devices", _] => Some(""),
        [_, "namespaces", _, "devices", _, part] => Some(part),
        _ => None,
    }
}

/// The newest of both rings, in order of their times.
pub fn merged(rings: Vec<Vec<Line>>, limit: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = rings.into_iter().flatten().collect();
    lines.sort_by_key(Line::time);
    lines.split_off(lines.len().saturating_sub(limit))
}

/// Any line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    Entry(Entry),
    Count(Count),
}

impl Line {
    /// `None`: it was not written whole, or by nobody here.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub fn time(&self) -> UnixMillis {
        match self {
            Self::Entry(Entry { time, .. }) | Self::Count(Count { time, .. }) => *time,
        }
    }
}

/// What is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pub since: UnixMillis,
    /// `user/alice`, or just `alice`. Lines about many are then left out.
    pub who: Option<String>,
    /// The newest so many.
    pub limit: usize,
}

impl Query {
    pub fn wants(&self, line: &Line) -> bool {
        let is_him = |wanted: &String| match line {
            Line::Entry(Entry { who, .. }) => {
                who == wanted || who.split_once('/').is_some_and(|(_, name)| name == wanted)
            }
            Line::Count(_) => false,
        };
        line.time() >= self.since && self.who.as_ref().is_none_or(is_him)
    }
}

/// A text as a line has it: short, and on one line.
pub fn brief(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_TEXT);
    let more = if end < text.len() { ".." } else { "" };
    let plain = text[..end].chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.chain(more.chars()).collect()
}

/// Which refusals have a line of their own.
#[derive(Debug, Default)]
pub struct Refusals {
    counted: BTreeMap<NodeId, (Mono, u32)>,
}

impl Refusals {
    /// Whether this one has.
    pub fn take(&mut self, who: &NodeId, now: Mono) -> bool {
        if self.counted.len() >= MAX_COUNTED && !self.counted.contains_key(who) {
            self.counted.clear();
        }
        let (since, count) = self.counted.entry(who.clone()).or_insert((now, 0));
        if now.since(*since) >= Duration::from_secs(60) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= REFUSED_A_MINUTE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALVE: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/valve";

    fn entry(who: &str, time: u64) -> Line {
        Line::Entry(Entry {
            time: UnixMillis(time),
            who: who.into(),
            role: "operator".into(),
            from: "203.0.113.7:4242".into(),
            what: "PUT /kubebus/v1/twins/water/valve/desired/position".into(),
            detail: "40".into(),
            status: 200,
            why: String::new(),
        })
    }

    #[test]
    fn a_line_reads_back_and_is_found_by_name_and_time() {
        let line = entry("user/alice", 5);
        let text = serde_json::to_vec(&line).unwrap();
        assert_eq!(Line::parse(&text), Some(line.clone()));
        assert_eq!(Line::parse(&text[..text.len() - 3]), None);
        for (since, who, expected) in [
            (0, None, true),
            (5, Some("alice"), true),
            (5, Some("user/alice"), true),
            (6, Some("alice"), false),
            (0, Some("lice"), false),
        ] {
            let query = Query { since: UnixMillis(since), who: who.map(str::to_owned), limit: 1 };
            assert_eq!(query.wants(&line), expected, "{query:?}");
        }
        let count = Count { time: UnixMillis(9), strangers: 3, last_from: "x".into(), refused: 0, lost: 0 };
        let text = serde_json::to_vec(&Line::Count(count.clone())).unwrap();
        assert_eq!(Line::parse(&text), Some(Line::Count(count)));
    }

    #[test]
    fn what_others_wish_and_try_is_kept_apart_from_administration() {
        let line = |what: &str, role: &str, status| {
            let Line::Entry(entry) = entry("user/x", 1) else { unreachable!("an entry") };
            Line::Entry(Entry { what: what.into(), role: role.into(), status, ..entry })
        };
        for (what, role, status, expected) in [
            ("PUT /kubebus/v1/twins/water/valve/desired/position", "app", 200, Ring::Devices),
            ("POST /kubebus/v1/changes", "admin", 200, Ring::Devices),
            ("POST /kubebus/v1/tokens", "app", 403, Ring::Devices),
            ("POST /kubebus/v1/tokens", "admin", 403, Ring::Cluster),
            ("POST /kubebus/v1/tokens", "admin", 200, Ring::Cluster),
            ("POST /page/session", "viewer", 200, Ring::Cluster),
            (&format!("PATCH {VALVE}"), "operator", 200, Ring::Devices),
            (&format!("PATCH {VALVE}"), "admin", 200, Ring::Cluster),
            (&format!("PATCH {VALVE}/desired"), "admin", 200, Ring::Devices),
            (&format!("POST {VALVE}/commands"), "app", 201, Ring::Devices),
            (&format!("DELETE {VALVE}"), "admin", 200, Ring::Cluster),
        ] {
            assert_eq!(Ring::of(&line(what, role, status)), expected, "{what} {role} {status}");
        }
        let found = merged(vec![vec![entry("a", 1), entry("b", 4)], vec![entry("c", 2), entry("d", 3)]], 3);
        assert_eq!(found, [entry("c", 2), entry("d", 3), entry("b", 4)]);
    }

    #[test]
    fn a_client_that_is_refused_all_the_time_fills_twenty_lines_a_minute() {
        let mut refusals = Refusals::default();
        let (eve, bob): (NodeId, NodeId) = ("user/eve".parse().unwrap(), "user/bob".parse().unwrap());
        let written = |refusals: &mut Refusals, now: u64| {
            let now = Mono::ZERO + Duration::from_secs(now);
            (0..100).filter(|_| refusals.take(&eve, now)).count()
        };
        assert_eq!(written(&mut refusals, 0), 20);
        assert!(refusals.take(&bob, Mono::ZERO), "not his fault");
        assert_eq!((written(&mut refusals, 59), written(&mut refusals, 60)), (0, 20));
    }

    #[test]
    fn a_text_in_a_line_is_short_and_has_no_line_of_its_own() {
        assert_eq!(brief("a\nb"), "a b");
        let long = brief(&"é".repeat(500));
        assert_eq!((long.len(), long.ends_with("..")), (MAX_TEXT + 2, true));
    }
}
