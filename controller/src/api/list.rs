//! Lists: pages of items, selected and shown as the client wants them.

use bus::UnixMillis;
use metadata::Revision;
use serde_json::{Value, json};

use super::call::{Continue, Form, Include, Listing};
use super::look::Look;
use super::read::{PAGE, Page, Read};
use super::refusal::Cause;
use super::{Id, Item, Kind, Refusal, Scope, table};

/// A list that is being read and written, page by page: of ten thousand objects no more than two pages are in memory, one
/// that is written and the next one, which the owner loop reads meanwhile.
#[derive(Debug)]
pub struct Lister {
    kind: Kind,
    of: Listing,
    look: Look,
    /// Of the first page.
    revision: Option<Revision>,
    after: Option<Id>,
    selected: usize,
    next: Option<(Continue, Option<usize>)>,
    is_done: bool,
    is_begun: bool,
    /// For ages.
    now: UnixMillis,
}

impl Lister {
    pub fn new(kind: Kind, of: Listing, look: Look, now: UnixMillis) -> Self {
        let proceed = of.proceed.clone();
        Self {
            kind,
            of,
            look,
            revision: proceed.as_ref().map(|proceed| proceed.revision),
            after: proceed.map(|proceed| proceed.after),
            selected: 0,
            next: None,
            is_done: false,
            is_begun: false,
            now,
        }
    }

    /// What to ask for next. A selector may take one of a thousand: then whole pages are looked through for a short list.
    pub fn wants(&self) -> Read {
        let left = self.of.limit.map_or(PAGE, |limit| limit.saturating_sub(self.selected).clamp(1, PAGE));
        Read::Page {
            kind: self.kind,
            scope: self.of.scope(),
            after: self.after.clone(),
            limit: if self.is_by_name() { left } else { PAGE },
            counts: self.of.limit.is_some_and(|limit| limit <= self.selected + PAGE)
                && self.of.selectors.is_all(),
            since: self.of.proceed.as_ref().filter(|_| !self.is_begun).map(|proceed| proceed.revision),
        }
    }

    /// Refuses a list that is to be as new as a version that this store has not had.
    ///
    /// # Errors
    /// `504 Timeout`, as Kubernetes does.
    pub fn check(&self, first: &Page) -> Result<(), Refusal> {
        match self.of.version {
            Some(asked) if asked > first.newest && self.of.proceed.is_none() => Err(Refusal {
                causes: vec![Cause {
                    reason: "ResourceVersionTooLarge",
                    message: "Too large resource version".to_owned(),
                    field: String::new(),
                }],
                ..Refusal::new(
                    504,
                    "Timeout",
                    format!("Too large resource version: {}, current: {}", asked.0, first.newest.0),
                )
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Takes a page in: those of it that are selected, at most as many as are still wanted.
    fn select(&mut self, page: Page) -> Vec<Item> {
        let revision = *self.revision.get_or_insert(page.revision);
        let left = self.of.limit.map_or(usize::MAX, |limit| limit.saturating_sub(self.selected));
        let (mut taken, mut next) = (Vec::new(), page.next);
        let is_last = next.is_none();
        let mut items = page.items.into_iter();
        for item in items.by_ref().filter(|item| self.of.selectors.takes(item)) {
            let id = item.id.clone();
            taken.push(item);
            if taken.len() >= left {
                next = Some(id);
                break;
            }
        }
        // Full with the very last one there is.
        if is_last && items.len() == 0 {
            next = None;
        }
        self.selected += taken.len();
        let is_full = self.of.limit.is_some_and(|limit| self.selected >= limit);
        self.is_done = is_full || next.is_none();
        if let (true, Some(after)) = (is_full, &next) {
            self.next = Some((Continue { revision, after: after.clone() }, page.remaining));
        }
        self.after = next;
        taken
    }

    /// What a page has of what is asked for, for who wants no more than names.
    pub fn handle_names(&mut self, page: Page) -> Vec<Id> {
        self.is_begun = true;
        self.select(page).into_iter().map(|item| item.id).collect()
    }

    /// Takes a page in: what is to be written of it.
    pub fn handle_page(&mut self, page: Page) -> Piece {
        let begin = if std::mem::replace(&mut self.is_begun, true) { String::new() } else { self.begin() };
        let follows = self.selected > 0;
        let items = self.select(page);
        let end = if self.is_done { self.end() } else { String::new() };
        Piece { kind: self.kind, look: self.look, now: self.now, begin, follows, items, end }
    }

    /// Whether taking a page in costs nothing worth mentioning: else objects are decoded for it.
    pub fn is_by_name(&self) -> bool {
        self.of.selectors.is_by_name()
    }

    /// Whether there is no more to ask for.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// The revision to watch from.
    pub fn revision(&self) -> Revision {
        self.revision.unwrap_or_default()
    }

    /// The bytes before the first page's.
    fn begin(&self) -> String {
        let kind = self.kind;
        let (head, entries) = match self.look.form {
            Form::Object => {
                let name = format!("{}List", kind.info().kind);
                (json!({ "apiVersion": kind.api_version(), "kind": name }), "items")
            }
            Form::Table(_) => (
                json!({ "apiVersion": "meta.k8s.io/v1", "kind": "Table", "columnDefinitions": table::columns(kind) }),
                "rows",
            ),
            Form::Partial => {
                (json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList" }), "items")
            }
        };
        let head = head.to_string();
        format!("{},\"{entries}\":[", head.trim_end_matches('}'))
    }

    /// The bytes after the last page's.
    fn end(&self) -> String {
        let mut metadata = json!({ "resourceVersion": self.revision().0.to_string() });
        if let Some((next, remaining)) = &self.next {
            metadata["continue"] = next.text().into();
            // As in Kubernetes: of what is selected by more than a namespace, nobody knows it.
            if let (Some(remaining), true) = (remaining, self.of.selectors.is_all()) {
                metadata["remainingItemCount"] = (*remaining).into();
            }
        }
        format!("],\"metadata\":{metadata}}}\n")
    }
}

/// A part of the answer, not written yet.
#[derive(Debug)]
pub struct Piece {
    kind: Kind,
    look: Look,
    now: UnixMillis,
    begin: String,
    /// Others come before these items.
    follows: bool,
    items: Vec<Item>,
    end: String,
}

impl Piece {
    /// Objects to be rendered.
    pub fn objects(&self) -> usize {
        self.items.len()
    }

    pub fn write(self) -> Vec<u8> {
        let mut bytes = self.begin.into_bytes();
        let mut needs_comma = self.follows;
        for item in self.items {
            if std::mem::replace(&mut needs_comma, true) {
                bytes.push(b',');
            }
            self.look.write(self.kind, item, self.now, &mut bytes);
        }
        bytes.extend_from_slice(self.end.as_bytes());
        bytes
    }
}

impl Listing {
    /// As far as names tell.
    pub(super) fn scope(&self) -> Scope {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Scope {
            namespace: self.namespace.clone().or_else(|| owned(self.selectors.namespace())),
            name: owned(self.selectors.name()),
        }
    }
}

/// One object as the client wants to see it.
pub fn shown(kind: Kind, item: Item, look: Look, now: UnixMillis) -> Value {
    let object = look.object(kind, item);
    match look.form {
        Form::Object => object,
        Form::Table(include) => table::of(kind, object, include, now),
        Form::Partial => partial(object),
    }
}

/// Metadata alone.
pub(super) fn partial(mut object: Value) -> Value {
    json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"].take(),
    })
}

/// What a get answers.
pub fn one(kind: Kind, id: &Id, item: Option<Item>, look: Look, now: UnixMillis) -> Result<Value, Refusal> {
    let info = kind.info();
    let item = item.ok_or_else(|| Refusal::not_found(info.group, info.plural, id.name()))?;
    Ok(shown(kind, item, look, now))
}

/// The part of an object that goes with a table's row.
pub(super) fn beside(object: Value, include: Include) -> Value {
    match include {
        Include::None => Value::Null,
        // Who owns which field is half of it, and no table shows that.
        Include::Metadata => {
            let mut partial = partial(object);
            if let Some(metadata) = partial["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
            partial
        }
        Include::Object => object,
    }
}

#[cfg(test)]
mod tests;
