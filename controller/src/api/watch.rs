//! A watch: a cursor into the changes, and what the client of it knows.

use std::collections::BTreeMap;

use bus::UnixMillis;
use metadata::Revision;
use serde_json::{Value, json};

use super::call::{Form, Include, Listing};
use super::list::partial;
use super::read::{Changed, Changes, Page, Read};
use super::{Id, Kind, Refusal, object, table};

/// One client's watch. It holds no event: what it has not asked for yet is folded into what it will be told.
#[derive(Debug)]
pub struct Watcher {
    kind: Kind,
    of: Listing,
    form: Form,
    /// All that happened up to here was told.
    cursor: Revision,
    /// Which objects the client knows, where more than their names decides: one that is not selected any more is gone to
    /// it. `false`: it knows that it is not.
    known: BTreeMap<Id, bool>,
    /// The columns of a table are told once.
    has_columns: bool,
}

impl Watcher {
    pub fn new(kind: Kind, of: Listing, form: Form) -> Self {
        let cursor = of.version.unwrap_or_default();
        Self { kind, of, form, cursor, known: BTreeMap::new(), has_columns: false }
    }

    /// What to ask for when something moved.
    pub fn wants(&self) -> Read {
        Read::Changes { kind: self.kind, namespace: self.of.namespace.clone(), after: self.cursor }
    }

    pub fn cursor(&self) -> Revision {
        self.cursor
    }

    /// Whether the client must be told first what is there: it did not say since when it watches.
    pub fn begins_with_all(&self) -> bool {
        self.cursor == Revision::ZERO
    }

    /// Whether what the client knows must be looked up before changes are told.
    pub fn needs_known(&self) -> bool {
        !self.of.selectors.is_by_name()
    }

    /// What is there at the beginning, told as it is.
    pub fn handle_first(&mut self, page: Page, now: UnixMillis) -> Vec<Value> {
        let mut events = Vec::new();
        for item in page.items {
            if self.of.selectors.may_select(&item.id) {
                let object = object::render(self.kind, &item);
                if self.of.selectors.select(&object) {
                    self.note(&item.id, true);
                    events.push(self.event("ADDED", &object, now));
                }
            }
        }
        self.cursor =
            if self.cursor == Revision::ZERO { page.revision } else { self.cursor.min(page.revision) };
        events
    }

    /// What is there, of which the client was told by its list: objects that were changed since it may know or not.
    pub fn handle_known(&mut self, page: Page) {
        for item in page.items {
            if item.revision <= self.cursor {
                let object = object::render(self.kind, &item);
                let selected = self.of.selectors.select(&object);
                self.note(&item.id, selected);
            }
        }
    }

    fn note(&mut self, id: &Id, selected: bool) {
        if self.needs_known() {
            self.known.insert(id.clone(), selected);
        }
    }

    /// What the client is told of changes. `ADDED` and `MODIFIED` say whether it can know the object; one that was there
    /// before this process began counts as known.
    pub fn handle_changes(
        &mut self,
        Changes { revision, changes, .. }: Changes,
        now: UnixMillis,
    ) -> Vec<Value> {
        let mut events = Vec::new();
        for change in changes {
            match change {
                Changed::Live { item, seen } => {
                    if !self.of.selectors.may_select(&item.id) {
                        continue;
                    }
                    let object = object::render(self.kind, &item);
                    let is_new = seen.created > self.cursor;
                    let selected = self.of.selectors.select(&object);
                    let knows = match self.known.get(&item.id) {
                        Some(known) => *known,
                        None => !is_new,
                    };
                    self.note(&item.id, selected);
                    match (knows, selected) {
                        (false, true) => events.push(self.event("ADDED", &object, now)),
                        (true, true) => events.push(self.event("MODIFIED", &object, now)),
                        (true, false) => events.push(self.event("DELETED", &object, now)),
                        (false, false) => {}
                    }
                }
                Changed::Gone { item } => {
                    let knows = self.known.remove(&item.id).unwrap_or(true);
                    if knows && self.of.selectors.may_select(&item.id) {
                        let object = object::render(self.kind, &item);
                        // What it was is known as it was last: one that was never selected is nobody's.
                        if self.needs_known() || self.of.selectors.select(&object) {
                            events.push(self.event("DELETED", &object, now));
                        }
                    }
                }
            }
        }
        self.cursor = self.cursor.max(revision);
        events
    }

    /// Up to where the client has heard everything; the first one after what was there says so.
    pub fn bookmark(&mut self, ends_initial: bool) -> Value {
        let mut object = json!({
            "apiVersion": self.kind.api_version(), "kind": self.kind.info().kind,
            "metadata": { "resourceVersion": self.cursor.0.to_string() },
        });
        if ends_initial {
            object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        self.event("BOOKMARK", &object, UnixMillis(0))
    }

    fn event(&mut self, what: &str, object: &Value, now: UnixMillis) -> Value {
        let object = match self.form {
            Form::Object => object.clone(),
            Form::Partial => partial(object),
            Form::Table(include) => {
                let include = if what == "BOOKMARK" { Include::Object } else { include };
                if std::mem::replace(&mut self.has_columns, true) {
                    table::row_only(self.kind, object, include, now)
                } else {
                    let metadata = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
                    table::of(self.kind, std::slice::from_ref(object), include, metadata, now)
                }
            }
        };
        json!({ "type": what, "object": object })
    }
}

/// The last word of a watch that cannot go on.
pub fn error(refusal: &Refusal) -> Value {
    json!({ "type": "ERROR", "object": refusal.status() })
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
