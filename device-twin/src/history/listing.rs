//! Decisions with what became of them, joined from the lines of the audit.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use bus::twin::{DeviceId, Outcome};
use bus::{UnixMillis, Value};
use serde::Serialize;

use super::audit::{AuditEntry, AuditEvent, Decision, Ended, Via};
use super::csv::rfc3339;

/// Most decisions of one answer; the newest are listed. Earlier ones are asked for with an earlier `until`.
pub const MAX_DECISIONS: usize = 1_000;

/// Decisions of a span of time, by when they were taken; their outcomes may have come later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditQuery {
    /// `None`: of all devices.
    pub device: Option<DeviceId>,
    pub since: UnixMillis,
    /// With this millisecond.
    pub until: UnixMillis,
    /// Never more than [`MAX_DECISIONS`].
    pub limit: usize,
}

/// The newest decisions of a query, in the order in which they were taken.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listing {
    pub decisions: Vec<Listed>,
    /// There are earlier ones that the query asks for.
    pub has_more: bool,
}

/// A decision, with its last outcome.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listed {
    #[serde(flatten)]
    pub entry: AuditEntry,
    /// `None`: it is open, or nothing was to become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// What became of a decision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct End {
    pub at: UnixMillis,
    pub outcome: Outcome,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Joins entries that are offered in the order in which they were written.
///
/// An outcome belongs to the last decision before it with the same device, property and id. A second outcome (a write
/// that failed was tried again) takes the place of the first. One whose decision is not kept any more is left out.
#[derive(Debug)]
pub(crate) struct Join<'q> {
    query: &'q AuditQuery,
    limit: usize,
    /// Those of the query, the newest.
    decisions: VecDeque<Listed>,
    /// How many were left out before the first of `decisions`.
    left_out: usize,
    /// Where the last decision of an id is, counted with what was left out.
    open: BTreeMap<Id, usize>,
}

/// Device, property, id.
type Id = (DeviceId, Option<String>, String);

/// The listing of `entries`, in the order in which they were written.
pub fn listing(entries: impl IntoIterator<Item = AuditEntry>, query: &AuditQuery) -> Listing {
    let mut join = Join::new(query);
    entries.into_iter().for_each(|entry| join.offer(entry));
    join.finish()
}

impl<'q> Join<'q> {
    pub(crate) fn new(query: &'q AuditQuery) -> Self {
        let limit = query.limit.clamp(1, MAX_DECISIONS);
        Self { query, limit, decisions: VecDeque::new(), left_out: 0, open: BTreeMap::new() }
    }

    pub(crate) fn offer(&mut self, entry: AuditEntry) {
        if self.query.device.as_ref().is_some_and(|device| *device != entry.device) {
            return;
        }
        if let AuditEvent::Outcome(ended) = &entry.event {
            let id = (entry.device.clone(), entry.property.clone(), ended.id.clone());
            self.end(&id, entry.at, ended);
        } else {
            self.decide(id_of(&entry), entry);
        }
    }

    fn decide(&mut self, id: Option<Id>, entry: AuditEntry) {
        let is_asked_for = (self.query.since..=self.query.until).contains(&entry.at);
        if let Some(id) = id {
            match is_asked_for {
                true => self.open.insert(id, self.left_out + self.decisions.len()),
                // What comes of it is not of an earlier one with its id.
                false => self.open.remove(&id),
            };
        }
        if is_asked_for {
            self.decisions.push_back(Listed { entry, end: None });
        }
        if self.decisions.len() > self.limit {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        let Some(Listed { entry, .. }) = self.decisions.pop_front() else { return };
        self.left_out += 1;
        let Some(id) = id_of(&entry) else { return };
        if self.open.get(&id).is_some_and(|at| *at < self.left_out) {
            self.open.remove(&id);
        }
    }

    fn end(&mut self, id: &Id, at: UnixMillis, ended: &Ended) {
        let Ended { id: _, outcome, detail } = ended.clone();
        let place = self.open.get(id).and_then(|at| at.checked_sub(self.left_out));
        if let Some(listed) = place.and_then(|place| self.decisions.get_mut(place)) {
            listed.end = Some(End { at, outcome, detail });
        }
    }

    pub(crate) fn finish(self) -> Listing {
        Listing { decisions: self.decisions.into(), has_more: self.left_out > 0 }
    }
}

fn id_of(entry: &AuditEntry) -> Option<Id> {
    let id = entry.event.decision()?.id.clone()?;
    Some((entry.device.clone(), entry.property.clone(), id))
}

impl Listed {
    /// Something is to become of it, and has not.
    pub fn is_open(&self) -> bool {
        let has_id = self.entry.event.decision().is_some_and(|decision| decision.id.is_some());
        has_id && self.end.is_none()
    }
}

/// One line for people:
/// `2025-10-09T08:53:20.000Z water/valve position set 40 by alice via desired (4.17): succeeded after 1s 200ms`.
impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AuditEntry { at, device, property, event } = &self.entry;
        write!(f, "{} {device}", rfc3339(*at))?;
        if let Some(property) = property {
            write!(f, " {property}")?;
        }
        write!(f, " {}", event.name())?;
        if let Some(decision) = event.decision() {
            say(decision, f)?;
        }
        match &self.end {
            Some(end) => end.say(*at, f),
            None if self.is_open() => f.write_str(": open"),
            None => Ok(()),
        }
    }
}

fn say(decision: &Decision, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Decision { value, by, via, id, detail } = decision;
    if let Some(value) = value {
        write!(f, " {}", brief(value))?;
    }
    write!(f, " by {by}")?;
    match via {
        Some(Via::Desired) => f.write_str(" via desired")?,
        Some(Via::Slot(slot)) => write!(f, " via {slot}")?,
        None => {}
    }
    if let Some(id) = id {
        write!(f, " ({id})")?;
    }
    if detail.is_empty() { Ok(()) } else { write!(f, ", {}", one_line(detail)) }
}

fn brief(value: &Value) -> String {
    /// More of a value is in the audit itself.
    const MAX_CHARS: usize = 80;
    let text = one_line(&value.to_string());
    if text.chars().count() <= MAX_CHARS {
        return text;
    }
    text.chars().take(MAX_CHARS).chain("..".chars()).collect()
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

impl End {
    fn say(&self, decided: UnixMillis, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, outcome, detail } = self;
        write!(f, ": {}", word(*outcome))?;
        if *at > decided {
            write!(f, " after {}", humantime::format_duration(at.since(decided)))?;
        }
        if detail.is_empty() { Ok(()) } else { write!(f, ", {}", one_line(detail)) }
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed => "failed",
        Outcome::Rejected => "rejected",
        Outcome::Expired => "expired",
        Outcome::Superseded => "superseded",
        Outcome::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUDIT: &str = r#"
{"at":1760000000000,"device":"water/valve","property":"position","event":"set","value":40,"by":"alice","via":"desired","id":"4.17"}
{"at":1760000000100,"device":"water/valve","property":"position","event":"rule","value":2.5,"by":"water/fill-tank","via":10,"id":"w-1","detail":"case adjust"}
{"at":1760000000150,"device":"water/pump","property":"on","event":"set","value":true,"by":"bob","via":"desired","id":"4.17"}
{"at":1760000000200,"device":"water/valve","property":"position","event":"outcome","id":"4.17","outcome":"superseded","detail":"slot 10 holds it"}
{"at":1760000000300,"device":"water/valve","property":"position","event":"outcome","id":"w-1","outcome":"failed","detail":"line\nbroken"}
{"at":1760000000400,"device":"water/valve","property":"position","event":"outcome","id":"lost","outcome":"succeeded"}
{"at":1760000001300,"device":"water/valve","property":"position","event":"outcome","id":"w-1","outcome":"succeeded"}
{"at":1760000002000,"device":"water/valve","event":"command","value":{"speed":3},"by":"alice","id":"c-9","detail":"flush"}
{"at":1760000002001,"device":"water/valve","property":"position","event":"operator","by":"panel","via":8}
{"at":1760000002002,"device":"water/valve","event":"authority","value":"edge","by":"panel","detail":"epoch 5"}
{"at":1760000002003,"device":"water/valve","property":"position","event":"failsafe","value":0,"by":"fail-safe","id":"w-2"}
{"at":1760000002003,"device":"water/valve","property":"position","event":"outcome","id":"w-2","outcome":"unknown","detail":"the mapper did not answer"}
"#;

    fn entries() -> impl Iterator<Item = AuditEntry> {
        AUDIT.trim().lines().map(|line| serde_json::from_str(line).unwrap())
    }

    fn ask(device: Option<&str>, since: u64, until: u64, limit: usize) -> AuditQuery {
        let device = device.map(|device| device.parse().unwrap());
        AuditQuery { device, since: UnixMillis(since), until: UnixMillis(until), limit }
    }

    fn lines(listing: &Listing) -> String {
        listing.decisions.iter().map(|listed| format!("{listed}\n")).collect()
    }

    #[test]
    fn each_decision_of_a_device_stands_on_one_line_with_its_outcome() {
        let listing = listing(entries(), &ask(Some("water/valve"), 0, u64::MAX, 100));
        let expected = "\
2025-10-09T08:53:20.000Z water/valve position set 40 by alice via desired (4.17): superseded after 200ms, slot 10 holds it
2025-10-09T08:53:20.100Z water/valve position rule 2.5 by water/fill-tank via slot 10 (w-1), case adjust: succeeded after 1s 200ms
2025-10-09T08:53:22.000Z water/valve command {speed: 3} by alice (c-9), flush: open
2025-10-09T08:53:22.001Z water/valve position operator by panel via slot 8
2025-10-09T08:53:22.002Z water/valve authority edge by panel, epoch 5
2025-10-09T08:53:22.003Z water/valve position failsafe 0 by fail-safe (w-2): unknown, the mapper did not answer
";
        assert_eq!(lines(&listing), expected);
        assert!(!listing.has_more);
    }

    #[test]
    fn a_listing_is_json_too() {
        let listing = listing(entries(), &ask(None, 1_760_000_000_150, 1_760_000_002_000, 100));
        let expected = r#"{"decisions":[{"at":1760000000150,"device":"water/pump","property":"on","event":"set","value":true,"by":"bob","via":"desired","id":"4.17"},{"at":1760000002000,"device":"water/valve","event":"command","value":{"speed":3},"by":"alice","id":"c-9","detail":"flush"}],"has_more":false}"#;
        assert_eq!(serde_json::to_string(&listing).unwrap(), expected);
    }

    #[test]
    fn an_outcome_counts_even_if_it_came_after_the_span_that_is_asked_for() {
        let listing =
            listing(entries(), &ask(Some("water/valve"), 1_760_000_000_100, 1_760_000_000_100, 100));
        assert!(lines(&listing).ends_with("case adjust: succeeded after 1s 200ms\n"), "{}", lines(&listing));
        assert_eq!(listing.decisions.len(), 1);
    }

    #[test]
    fn the_newest_are_listed_where_not_all_are() {
        let all = listing(entries(), &ask(None, 0, u64::MAX, 100)).decisions;
        for limit in 1..all.len() {
            let some = listing(entries(), &ask(None, 0, u64::MAX, limit));
            assert_eq!(some, Listing { decisions: all[all.len() - limit..].to_vec(), has_more: true });
        }
    }

    #[test]
    fn an_id_that_comes_again_is_a_decision_of_its_own() {
        let again = AUDIT.trim().lines().take(1).chain(AUDIT.trim().lines());
        let again = again.map(|line| serde_json::from_str(line).unwrap());
        let listing = listing(again, &ask(Some("water/valve"), 0, 1_760_000_000_000, 100));
        assert_eq!(listing.decisions.iter().map(Listed::is_open).collect::<Vec<_>>(), [true, false]);
    }
}
