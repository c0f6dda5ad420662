//! What the owner loop hands out for a get, a list or a watch: items, undecoded.

use device_twin::TwinView;
use metadata::{Keyspace, Revision};

use super::index::{Change, Index, Seen};
use super::item::{Content, Item};
use super::object;
use super::{Id, Kind};

/// Objects handed out in one turn of the owner loop: about 3 ms of it. Who lists more asks again.
pub const PAGE: usize = 500;

/// A node's parts that objects are made of.
pub struct Source<'a> {
    pub index: &'a Index,
    pub ks: &'a Keyspace,
    /// What survives a crash.
    pub durable: Revision,
    /// A device's twins.
    pub twins: &'a dyn Fn(&Id) -> Vec<TwinView>,
    /// Where a manifest is in force.
    pub placement: &'a dyn Fn(Kind, &Id) -> Option<String>,
    /// What only the running node knows of an object that is made of records.
    pub alive: &'a dyn Fn(Kind, &Id, &mut serde_json::Value),
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    Get {
        kind: Kind,
        id: Id,
    },
    /// At most [`PAGE`] objects after `after`.
    Page {
        kind: Kind,
        namespace: Option<String>,
        after: Option<Id>,
        limit: usize,
    },
    /// What happened after a revision; at most about [`PAGE`] objects.
    Changes {
        kind: Kind,
        namespace: Option<String>,
        after: Revision,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    Item(Option<Item>),
    Page(Page),
    Changes(Changes),
    /// The revision is too old, or none of this store.
    Expired {
        compacted: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Durable; the items are as new or newer.
    pub revision: Revision,
    pub items: Vec<Item>,
    pub more: bool,
    /// Of all kinds of a selector, how many objects there are after this page.
    pub remaining: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// From here on, next time.
    pub revision: Revision,
    pub changes: Vec<Changed>,
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Changed {
    /// It is there, and as new as `seen` says.
    Live { item: Item, seen: Seen },
    /// It went, and this is what it was.
    Gone { item: Item },
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("durable", &self.durable).finish_non_exhaustive()
    }
}

impl Source<'_> {
    pub fn read(&self, read: &Read) -> Found {
        match read {
            Read::Get { kind, id } => {
                Found::Item(self.index.seen(*kind, id).and_then(|seen| self.item(*kind, id, seen)))
            }
            Read::Page { kind, namespace, after, limit } => {
                Found::Page(self.page(*kind, namespace.as_deref(), after.as_ref(), *limit))
            }
            Read::Changes { kind, namespace, after } => self.changes(*kind, namespace.as_deref(), *after),
        }
    }

    /// `None`: it was just removed, in this very cycle.
    pub fn item(&self, kind: Kind, id: &Id, seen: Seen) -> Option<Item> {
        let content = match object::manifest_key(self.index.layout(), kind, id) {
            Some(key) => Content::Manifest {
                json: self.ks.get(&key)?.clone(),
                meta: self.ks.get(&object::meta_key(kind, id)).cloned(),
                twins: if kind == Kind::Device { (self.twins)(id) } else { Vec::new() },
                placement: (self.placement)(kind, id),
                layout: self.index.layout(),
            },
            None => {
                let mut made = (kind.info().made)(self.index.layout(), id, self.ks)?;
                (self.alive)(kind, id, &mut made);
                Content::Made(made)
            }
        };
        // What is not durable yet is shown, but not as a revision that a crash could give to something else.
        let written = object::written_at(self.index.layout(), kind, id, self.ks);
        Some(Item {
            id: id.clone(),
            revision: self.version(seen.newest.min(self.durable)).max(written),
            content,
        })
    }

    fn page(&self, kind: Kind, namespace: Option<&str>, after: Option<&Id>, limit: usize) -> Page {
        let mut items = Vec::new();
        // All of a namespace lie together, after the bare `<namespace>/`.
        let first = namespace.map(|namespace| Id::new(Some(namespace), ""));
        let from = match (after, first.as_ref()) {
            (Some(after), Some(first)) => Some(after.max(first)),
            (after, first) => after.or(first),
        };
        let mut all = self
            .index
            .live(kind, from)
            .take_while(|(id, _)| namespace.is_none() || id.namespace() == namespace);
        for (id, seen) in all.by_ref().take(limit.min(PAGE)) {
            items.extend(self.item(kind, id, seen));
        }
        let more = all.next().is_some();
        let remaining = if more { 1 + all.count() } else { 0 };
        Page { revision: self.version(self.durable), items, more, remaining }
    }

    fn version(&self, revision: Revision) -> Revision {
        object::version(self.index.layout(), revision, self.ks)
    }

    fn changes(&self, kind: Kind, namespace: Option<&str>, after: Revision) -> Found {
        let Some(after) = object::revision(self.index.layout(), after, self.ks) else {
            return Found::Expired { compacted: false };
        };
        if !self.index.is_complete_after(after) {
            return Found::Expired { compacted: true };
        }
        // Of a store that was put back since, or of another one.
        if after > self.ks.revision() {
            return Found::Expired { compacted: false };
        }
        let (mut changes, mut last, mut more) = (Vec::new(), after, false);
        for change in self.index.changes(kind, after) {
            // A revision is told whole.
            if changes.len() >= PAGE && change.revision() > last {
                more = true;
                break;
            }
            last = change.revision();
            if namespace.is_none() || change.id().namespace() == namespace {
                changes.extend(self.changed(kind, change));
            }
        }
        let revision = if more { last } else { self.durable.max(after) };
        Found::Changes(Changes {
            revision: self.version(revision.min(self.durable).max(after)),
            changes,
            more,
        })
    }

    fn changed(&self, kind: Kind, change: Change) -> Option<Changed> {
        match change {
            Change::Live { id, seen } => {
                let item = self.item(kind, &id, seen)?;
                let seen = Seen { newest: self.version(seen.newest), created: self.version(seen.created) };
                Some(Changed::Live { item, seen })
            }
            Change::Gone { id, at } => {
                let words = self.index.last_words(kind, &id, self.ks)?;
                let value = serde_json::from_slice(words).unwrap_or_else(|_| object::bare(kind, &id));
                Some(Changed::Gone {
                    item: Item { id, revision: self.version(at), content: Content::Made(value) },
                })
            }
        }
    }
}

/// A source without twins, for what is asked of a keyspace alone.
#[cfg(test)]
pub(super) fn plain<'a>(index: &'a Index, ks: &'a Keyspace, durable: Revision) -> Source<'a> {
    Source { index, ks, durable, twins: &|_| Vec::new(), placement: &|_, _| None, alive: &|_, _, _| {} }
}
