//! What the owner loop hands out for a get, a list or a watch: items, undecoded.

use device_twin::TwinView;
use metadata::{Keyspace, Revision};

use super::index::{Change, Index, Seen};
use super::item::{Content, Item, Scope};
use super::object;
use super::{Id, Kind};

/// Objects handed out in one turn of the owner loop: 1 to 2 ms of it. Who lists more asks again.
pub const PAGE: usize = 250;

/// How much a page weighs at most, [`Item::weight`], but for its last object (of changes: its last revision): objects of
/// hundreds of properties are told in shorter pages.
pub(super) const PAGE_WEIGHT: usize = 2 << 20;

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
        scope: Scope,
        after: Option<Id>,
        limit: usize,
        /// Whether those behind the page are to be counted.
        counts: bool,
        /// Of the first page, where this one goes on: refused if what went since is forgotten.
        since: Option<Revision>,
    },
    /// What happened after a revision; at most about [`PAGE`] objects.
    Changes {
        kind: Kind,
        scope: Scope,
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
    /// As [`object::newest`] has it.
    pub newest: Revision,
    pub items: Vec<Item>,
    /// Where the next page goes on, if there is more.
    pub next: Option<Id>,
    /// How many objects there are after this page, if that was asked for.
    pub remaining: Option<usize>,
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

impl Changed {
    pub(super) fn item(&self) -> &Item {
        match self {
            Self::Live { item, .. } | Self::Gone { item } => item,
        }
    }
}

/// What happened since a version is not known any more, or never was.
struct Forgotten {
    compacted: bool,
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
            Read::Page { kind, scope, after, limit, counts, since } => {
                match since.map_or(Ok(Revision::ZERO), |since| self.known(*kind, since)) {
                    Ok(_) => Found::Page(self.page(*kind, scope, after.as_ref(), (*limit, *counts))),
                    Err(Forgotten { compacted }) => Found::Expired { compacted },
                }
            }
            Read::Changes { kind, scope, after } => match self.known(*kind, *after) {
                Ok(after) => Found::Changes(self.changes(*kind, scope, after)),
                Err(Forgotten { compacted }) => Found::Expired { compacted },
            },
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
                let mut made = self.index.made(kind, id, self.ks)?;
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

    fn page(&self, kind: Kind, scope: &Scope, after: Option<&Id>, (limit, counts): (usize, bool)) -> Page {
        // All of a namespace lie together, after the bare `<namespace>/`.
        let first = scope.namespace.as_deref().map(|namespace| Id::new(Some(namespace), ""));
        let from = match (after, first.as_ref()) {
            (Some(after), Some(first)) => Some(after.max(first)),
            (after, first) => after.or(first),
        };
        let is_near = |id: &Id| scope.namespace.is_none() || id.namespace() == scope.namespace.as_deref();
        let live = self.index.live(kind, from).take_while(|(id, _)| is_near(id));
        let mut all = live.filter(|(id, _)| scope.has(id));
        let (mut items, mut last, mut weight) = (Vec::new(), None, 0);
        for (id, seen) in all.by_ref().take(limit.clamp(1, PAGE)) {
            let item = self.item(kind, id, seen);
            weight += item.as_ref().map_or(0, Item::weight);
            items.extend(item);
            last = Some(id);
            if weight >= PAGE_WEIGHT {
                break;
            }
        }
        let next = all.next().and(last).cloned();
        let remaining = match &next {
            None => Some(0),
            Some(_) => counts.then(|| 1 + all.count()),
        };
        let newest = object::newest(self.index.layout(), self.ks);
        Page { revision: self.version(self.durable), newest, items, next, remaining }
    }

    fn version(&self, revision: Revision) -> Revision {
        object::version(self.index.layout(), revision, self.ks)
    }

    /// The store's revision that a version stands for, if all that happened to a kind since is known.
    fn known(&self, kind: Kind, version: Revision) -> Result<Revision, Forgotten> {
        let revision = object::revision(self.index.layout(), version, self.ks)
            // Else of a store that was put back since, or of another one.
            .filter(|revision| *revision <= self.ks.revision())
            .ok_or(Forgotten { compacted: false })?;
        match self.index.is_complete_after(kind, revision) {
            true => Ok(revision),
            false => Err(Forgotten { compacted: true }),
        }
    }

    fn changes(&self, kind: Kind, scope: &Scope, after: Revision) -> Changes {
        let (mut changes, mut last, mut more, mut weight) = (Vec::new(), after, false, 0);
        for change in self.index.changes(kind, after) {
            // A revision is told whole.
            if (changes.len() >= PAGE || weight >= PAGE_WEIGHT) && change.revision() > last {
                more = true;
                break;
            }
            last = change.revision();
            if scope.has(change.id()) {
                let changed = self.changed(kind, change);
                weight += changed.as_ref().map_or(0, |changed| changed.item().weight());
                changes.extend(changed);
            }
        }
        let revision = if more { last } else { self.durable.max(after) };
        // What is not durable is told again once it is: to ask for the rest of it before would go round in circles.
        let more = more && last < self.durable;
        Changes { revision: self.version(revision.min(self.durable).max(after)), changes, more }
    }

    fn changed(&self, kind: Kind, change: Change) -> Option<Changed> {
        match change {
            Change::Live { id, seen } => {
                let item = self.item(kind, &id, seen)?;
                let seen = Seen { newest: self.version(seen.newest), created: self.version(seen.created) };
                Some(Changed::Live { item, seen })
            }
            Change::Gone { id, at } => {
                let words = self.index.last_words(kind, &id, self.ks)?.clone();
                Some(Changed::Gone {
                    item: Item { id, revision: self.version(at), content: Content::Last(words) },
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
