//! Lists: pages of items, selected and shown as the client wants them.

use bus::UnixMillis;
use metadata::Revision;
use serde_json::{Value, json};

use super::call::{Continue, Form, Include, Listing};
use super::read::{PAGE, Page, Read};
use super::{Id, Item, Kind, Refusal, object, table};

/// A list that is being read and written, page by page: of ten thousand objects no more than a page is in memory.
#[derive(Debug)]
pub struct Lister {
    kind: Kind,
    of: Listing,
    form: Form,
    /// Of the first page.
    revision: Option<Revision>,
    after: Option<Id>,
    selected: usize,
    next: Option<(Continue, usize)>,
    is_begun: bool,
    /// For ages.
    now: UnixMillis,
}

impl Lister {
    pub fn new(kind: Kind, of: Listing, form: Form, now: UnixMillis) -> Self {
        let proceed = of.proceed.clone();
        Self {
            kind,
            of,
            form,
            revision: proceed.as_ref().map(|proceed| proceed.revision),
            after: proceed.map(|proceed| proceed.after),
            selected: 0,
            next: None,
            is_begun: false,
            now,
        }
    }

    /// What to ask for next.
    pub fn wants(&self) -> Read {
        let left = self.of.limit.map_or(PAGE, |limit| limit.saturating_sub(self.selected));
        Read::Page {
            kind: self.kind,
            namespace: self.of.namespace.clone(),
            after: self.after.clone(),
            limit: left.clamp(1, PAGE),
        }
    }

    /// Takes a page in: what of it is selected, and whether there is more to ask for.
    pub fn handle_page(&mut self, page: Page) -> (Vec<Value>, bool) {
        let revision = *self.revision.get_or_insert(page.revision);
        let mut objects = Vec::new();
        for item in page.items {
            self.after = Some(item.id.clone());
            if self.of.selectors.may_select(&item.id) {
                let object = object::render(self.kind, &item);
                if self.of.selectors.select(&object) {
                    objects.push(object);
                }
            }
        }
        self.selected += objects.len();
        let is_full = self.of.limit.is_some_and(|limit| self.selected >= limit);
        if let (true, true, Some(after)) = (page.more, is_full, &self.after) {
            self.next = Some((Continue { revision, after: after.clone() }, page.remaining));
        }
        (objects, page.more && !is_full)
    }

    /// The revision to watch from.
    pub fn revision(&self) -> Revision {
        self.revision.unwrap_or_default()
    }

    /// The next bytes of the answer: those of one page's objects.
    pub fn piece(&mut self, objects: &[Value]) -> String {
        let mut text = String::new();
        for object in objects {
            text.push_str(if std::mem::replace(&mut self.is_begun, true) { "," } else { "" });
            text.push_str(&self.entry(object).to_string());
        }
        text
    }

    fn entry(&self, object: &Value) -> Value {
        match self.form {
            Form::Object => object.clone(),
            Form::Table(include) => table::row(self.kind, object, include, self.now),
            Form::Partial => partial(object),
        }
    }

    /// The bytes before the first page's.
    pub fn begin(&self) -> String {
        let kind = self.kind;
        let (head, entries) = match self.form {
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
    pub fn end(&self) -> String {
        let mut metadata = json!({ "resourceVersion": self.revision().0.to_string() });
        if let Some((next, remaining)) = &self.next {
            metadata["continue"] = next.text().into();
            if self.of.selectors == super::selector::Selectors::default() {
                metadata["remainingItemCount"] = (*remaining).into();
            }
        }
        format!("],\"metadata\":{metadata}}}\n")
    }
}

/// One object as the client wants to see it.
pub fn shown(kind: Kind, object: Value, form: Form, now: UnixMillis) -> Value {
    match form {
        Form::Object => object,
        Form::Table(include) => {
            let metadata = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
            table::of(kind, std::slice::from_ref(&object), include, metadata, now)
        }
        Form::Partial => partial(&object),
    }
}

/// Metadata alone.
pub(super) fn partial(object: &Value) -> Value {
    json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"],
    })
}

/// What a get answers.
pub fn one(kind: Kind, id: &Id, item: Option<Item>, form: Form, now: UnixMillis) -> Result<Value, Refusal> {
    let info = kind.info();
    let item = item.ok_or_else(|| Refusal::not_found(info.group, info.plural, id.name()))?;
    Ok(shown(kind, object::render(kind, &item), form, now))
}

/// The part of an object that goes with a table's row.
pub(super) fn beside(object: &Value, include: Include) -> Value {
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
        Include::Object => object.clone(),
    }
}
