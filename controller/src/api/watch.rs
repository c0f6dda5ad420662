//! A watch: a cursor into the changes, and what the client of it knows.

use std::collections::BTreeMap;

use bus::UnixMillis;
use metadata::Revision;
use serde_json::{Value, json};

use super::call::{Form, Include, Listing};
use super::feed::{Entry, Segment};
use super::list::partial;
use super::look::{Look, write};
use super::read::{Changed, Read};
use super::selector::Selectors;
use super::{Id, Kind, Refusal, table};

/// One client's watch. It holds no event: what it has not asked for yet is folded into what it will be told. What it says
/// is lines of JSON, one an event.
#[derive(Debug)]
pub struct Watcher {
    kind: Kind,
    of: Listing,
    look: Look,
    /// All that happened up to here was told.
    cursor: Revision,
    /// Which objects the client knows, where more than their names decides: one that is not selected any more is gone to
    /// it. `false`: it knows that it is not.
    known: BTreeMap<Id, bool>,
    /// What was told though it is newer than the cursor, because it was not durable: it is not told twice.
    ahead: BTreeMap<Id, Ahead>,
    /// The columns of a table are told once.
    has_columns: bool,
}

/// How far an object was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ahead {
    newest: Revision,
    is_there: bool,
}

impl Watcher {
    pub fn new(kind: Kind, of: Listing, look: Look) -> Self {
        let cursor = of.version.unwrap_or_default();
        Self { kind, of, look, cursor, known: BTreeMap::new(), ahead: BTreeMap::new(), has_columns: false }
    }

    /// What to ask for when something moved.
    pub fn wants(&self) -> Read {
        Read::Changes { kind: self.kind, scope: self.of.scope(), after: self.cursor }
    }

    /// What to ask for of what is there, after so much of it.
    pub fn wants_page(&self, after: Option<Id>) -> Read {
        Read::Page {
            kind: self.kind,
            scope: self.of.scope(),
            after,
            limit: super::read::PAGE,
            counts: false,
            since: None,
        }
    }

    pub fn cursor(&self) -> Revision {
        self.cursor
    }

    pub fn look(&self) -> &Look {
        &self.look
    }

    pub fn selectors(&self) -> &Selectors {
        &self.of.selectors
    }

    /// Whether the client must be told first what is there: it did not say since when it watches.
    pub fn begins_with_all(&self) -> bool {
        self.cursor == Revision::ZERO
    }

    /// Whether what the client knows must be looked up before changes are told.
    pub fn needs_known(&self) -> bool {
        !self.of.selectors.is_by_name()
    }

    /// A page of what is there at the beginning, told as it is.
    pub fn handle_first(&mut self, page: &Segment, now: UnixMillis) -> Vec<u8> {
        let mut lines = Vec::new();
        for entry in &page.entries {
            if entry.is_taken_by(&self.of.selectors) {
                self.note(entry.id(), true);
                self.say("ADDED", (page, entry), now, &mut lines);
            }
        }
        lines
    }

    /// All of what is there was told: the client knows what was durable with its first page.
    pub fn handle_first_end(&mut self, revision: Revision) {
        self.cursor = if self.cursor == Revision::ZERO { revision } else { self.cursor.min(revision) };
    }

    /// What is there, of which the client was told by its list: objects that were changed since it may know or not.
    pub fn handle_known(&mut self, page: &Segment) {
        let cursor = self.cursor;
        for entry in page.entries.iter().filter(|entry| entry.item().revision <= cursor) {
            self.note(entry.id(), entry.is_taken_by(&self.of.selectors));
        }
    }

    fn note(&mut self, id: &Id, selected: bool) {
        if self.needs_known() {
            self.known.insert(id.clone(), selected);
        }
    }

    /// What the client is told of changes. `ADDED` and `MODIFIED` say whether it can know the object; one that was there
    /// before this process began counts as known.
    pub fn handle_changes(&mut self, changes: &Segment, now: UnixMillis) -> Vec<u8> {
        let mut lines = Vec::new();
        let scope = self.of.scope();
        for entry in changes.entries.iter().filter(|entry| scope.has(entry.id())) {
            let told = self.ahead.get(entry.id()).copied();
            if entry.newest() <= self.cursor || told.is_some_and(|told| told.newest >= entry.newest()) {
                continue;
            }
            let what = match &entry.changed {
                Changed::Live { seen, .. } => self.handle_live(entry, seen.created, told),
                Changed::Gone { .. } => self.handle_gone(entry),
            };
            if let Some(what) = what {
                self.say(what, (changes, entry), now, &mut lines);
            }
            if entry.newest() > changes.revision {
                let is_there = matches!(entry.changed, Changed::Live { .. });
                self.ahead.insert(entry.id().clone(), Ahead { newest: entry.newest(), is_there });
            }
        }
        self.cursor = self.cursor.max(changes.revision);
        self.ahead.retain(|_, told| told.newest > self.cursor);
        lines
    }

    fn handle_live(&mut self, entry: &Entry, created: Revision, told: Option<Ahead>) -> Option<&'static str> {
        let selected = entry.is_taken_by(&self.of.selectors);
        let knows = match (self.known.get(entry.id()), told) {
            (Some(known), _) => *known,
            (None, Some(told)) => told.is_there,
            (None, None) => created <= self.cursor,
        };
        self.note(entry.id(), selected);
        match (knows, selected) {
            (false, true) => Some("ADDED"),
            (true, true) => Some("MODIFIED"),
            (true, false) => Some("DELETED"),
            (false, false) => None,
        }
    }

    fn handle_gone(&mut self, entry: &Entry) -> Option<&'static str> {
        let knows = self.known.remove(entry.id()).unwrap_or(true);
        // What it was is known as it was last: one that was never selected is nobody's.
        let is_meant = self.needs_known() || entry.is_taken_by(&self.of.selectors);
        (knows && self.of.selectors.may_select(entry.id()) && is_meant).then_some("DELETED")
    }

    /// Up to where the client has heard everything; the first one after what was there says so.
    pub fn bookmark(&mut self, ends_initial: bool) -> Vec<u8> {
        let mut object = json!({
            "apiVersion": self.kind.api_version(), "kind": self.kind.info().kind,
            "metadata": { "resourceVersion": self.cursor.0.to_string() },
        });
        if ends_initial {
            object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let mut bytes = Vec::new();
        match self.look.form {
            Form::Object => write(&object, &mut bytes),
            Form::Partial => write(&partial(object), &mut bytes),
            Form::Table(_) => {
                write(&table::row(self.kind, object, Include::Object, UnixMillis(0)), &mut bytes);
            }
        }
        let mut line = Vec::new();
        self.say_bytes("BOOKMARK", self.cursor, &bytes, &mut line);
        line
    }

    fn say(
        &mut self,
        what: &str,
        (segment, entry): (&Segment, &Entry),
        now: UnixMillis,
        lines: &mut Vec<u8>,
    ) {
        let bytes = segment.bytes(entry, &self.look, now);
        self.say_bytes(what, entry.item().revision, &bytes, lines);
    }

    fn say_bytes(&mut self, what: &str, version: Revision, object: &[u8], lines: &mut Vec<u8>) {
        lines.extend_from_slice(format!("{{\"type\":\"{what}\",\"object\":").as_bytes());
        match self.look.form {
            Form::Object | Form::Partial => lines.extend_from_slice(object),
            Form::Table(_) => {
                let with_columns = !std::mem::replace(&mut self.has_columns, true);
                table::write_row(self.kind, with_columns, version, object, lines);
            }
        }
        lines.extend_from_slice(b"}\n");
    }
}

/// The last word of a watch that cannot go on, as a line.
pub fn error(refusal: &Refusal) -> Vec<u8> {
    let line: Value = json!({ "type": "ERROR", "object": refusal.status() });
    format!("{line}\n").into_bytes()
}

/// Why a watch or a list that goes on is told to begin anew.
pub fn too_old(asked: Revision, compacted: bool) -> Refusal {
    let revision = asked.0;
    Refusal::expired(if compacted {
        format!("too old resource version: {revision}: deletions since are forgotten; list again")
    } else {
        format!(
            "resource version {revision} is not known here: the store is another one, or was put back; list again"
        )
    })
}

#[cfg(test)]
mod tests;
