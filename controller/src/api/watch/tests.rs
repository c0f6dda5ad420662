//! A client that folds what its list and its watches say ends with what the store has, whatever happens in between.

use bytes::Bytes;
use metadata::Keyspace;
use proptest::prelude::*;

use super::super::index::Index;
use super::super::list::Lister;
use super::super::read::{Found, PAGE, plain};
use super::super::selector::Selectors;
use super::super::{Layout, read::Source};
use super::*;
use crate::record::own_key;

#[derive(Debug, Clone)]
enum Step {
    /// Writes a device with this label, or none.
    Put(u8, Option<u8>),
    Delete(u8),
    /// A mapper reports.
    Report(u8),
    Seal,
    /// All that is sealed is durable.
    Sync,
    /// The watch says what it has to say.
    Watch,
    /// The client's watch ends, and begins anew where it was.
    Reconnect,
    /// The node starts again, and the client's watch with it.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let device = 0..6u8;
    let step = prop_oneof![
        3 => (device.clone(), proptest::option::of(0..2u8)).prop_map(|(n, label)| Step::Put(n, label)),
        2 => device.clone().prop_map(Step::Delete),
        2 => device.prop_map(Step::Report),
        4 => Just(Step::Seal),
        2 => Just(Step::Sync),
        3 => Just(Step::Watch),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

struct World {
    ks: Keyspace,
    index: Index,
    durable: Revision,
    watcher: Watcher,
    of: Listing,
    /// What the client knows, by name.
    known: BTreeMap<String, Value>,
    /// The resourceVersion that it saw last.
    version: Revision,
    changes: u32,
}

fn listing(selector: &str) -> Listing {
    Listing {
        namespace: None,
        selectors: Selectors::parse(selector, "").unwrap(),
        limit: None,
        proceed: None,
        version: None,
    }
}

impl World {
    fn new(selector: &str) -> Self {
        let ks = Keyspace::new();
        let index = Index::load(Layout::Cloud, &ks);
        let of = listing(selector);
        let watcher = Watcher::new(Kind::Device, of.clone(), Form::Object);
        let mut world = Self {
            ks,
            index,
            durable: Revision::ZERO,
            watcher,
            of,
            known: BTreeMap::new(),
            version: Revision::ZERO,
            changes: 0,
        };
        // So that a revision is there to watch from.
        world.put(0, Some(1));
        world.seal();
        world.durable = world.ks.revision();
        world.list();
        world
    }

    fn source(&self) -> Source<'_> {
        plain(&self.index, &self.ks, self.durable)
    }

    fn put(&mut self, n: u8, label: Option<u8>) {
        self.changes += 1;
        let labels = label.map_or(json!({}), |label| json!({ "tier": label.to_string() }));
        let manifest = json!({ "metadata": { "labels": labels }, "spec": { "change": self.changes } });
        self.ks.put(own_key(&format!("/c/resource/device/plant/d{n}")), Bytes::from(manifest.to_string()));
    }

    fn seal(&mut self) {
        self.index.before_seal(&mut self.ks);
        if self.ks.seal().is_some() {
            self.index.after_seal(&self.ks);
        }
    }

    fn selected(&self) -> (BTreeMap<String, Value>, Revision) {
        let mut lister = Lister::new(Kind::Device, self.of.clone(), Form::Object, UnixMillis(0));
        let Found::Page(page) = self.source().read(&lister.wants()) else { panic!("a page") };
        let (objects, more) = lister.handle_page(page);
        assert!(!more);
        let named =
            |object: Value| (object["metadata"]["name"].as_str().unwrap().to_owned(), object["spec"].clone());
        (objects.into_iter().map(named).collect(), lister.revision())
    }

    fn list(&mut self) {
        let (known, revision) = self.selected();
        (self.known, self.version) = (known, revision);
        self.begin(revision);
    }

    /// As `watching.rs` does.
    fn begin(&mut self, from: Revision) {
        let of = Listing { version: Some(from), ..self.of.clone() };
        self.watcher = Watcher::new(Kind::Device, of, Form::Object);
        if self.watcher.begins_with_all() {
            self.known.clear();
        }
        let read = Read::Page { kind: Kind::Device, namespace: None, after: None, limit: PAGE };
        let Found::Page(page) = self.source().read(&read) else { panic!("a page") };
        if self.watcher.begins_with_all() {
            let events = self.watcher.handle_first(page, UnixMillis(0));
            self.fold(events);
        } else if self.watcher.needs_known() {
            self.watcher.handle_known(page);
        }
    }

    fn watch(&mut self) {
        match self.source().read(&self.watcher.wants()) {
            Found::Changes(changes) => {
                let events = self.watcher.handle_changes(changes, UnixMillis(0));
                self.fold(events);
            }
            Found::Expired { .. } => self.list(),
            other @ (Found::Item(_) | Found::Page(_)) => panic!("{other:?}"),
        }
    }

    fn fold(&mut self, events: Vec<Value>) {
        for event in events {
            let name = event["object"]["metadata"]["name"].as_str().unwrap().to_owned();
            let version = event["object"]["metadata"]["resourceVersion"].as_str().unwrap();
            self.version = Revision(version.parse().unwrap());
            match event["type"].as_str().unwrap() {
                "ADDED" | "MODIFIED" => drop(self.known.insert(name, event["object"]["spec"].clone())),
                "DELETED" => drop(self.known.remove(&name)),
                other => panic!("{other}"),
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(n, label) => self.put(n, label),
            Step::Delete(n) => self.ks.delete(&own_key(&format!("/c/resource/device/plant/d{n}"))),
            Step::Report(n) => {
                self.changes += 1;
                let value = Bytes::from(self.changes.to_string());
                self.ks.put(own_key(&format!("/c/reported/plant/d{n}/level")), value);
            }
            Step::Seal => self.seal(),
            Step::Sync => self.durable = self.ks.revision(),
            // What is read is always between two cycles.
            Step::Watch => {
                self.seal();
                self.watch();
            }
            Step::Reconnect => {
                self.seal();
                self.begin(self.version);
            }
            Step::Restart => {
                self.seal();
                self.durable = self.ks.revision();
                self.ks = Keyspace::load(self.ks.rows());
                self.index = Index::load(Layout::Cloud, &self.ks);
                self.begin(self.version);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_client_that_folds_events_ends_with_what_the_store_has(steps in steps(), selector in prop_oneof![Just(""), Just("tier=1"), Just("!tier")]) {
        let mut world = World::new(selector);
        for step in steps {
            world.step(step);
        }
        world.seal();
        world.durable = world.ks.revision();
        world.watch();
        prop_assert_eq!(&world.known, &world.selected().0);
    }
}

#[test]
fn a_watch_of_another_store_is_told_to_list_again() {
    let world = World::new("");
    let read = Read::Changes { kind: Kind::Device, namespace: None, after: Revision(99) };
    assert_eq!(world.source().read(&read), Found::Expired { compacted: false });
}

#[test]
fn a_version_from_before_a_restore_is_too_old_however_far_the_lost_cloud_had_come() {
    let mut world = World::new("");
    let rows = world.ks.rows().collect();
    let changes = |after| Read::Changes { kind: Kind::Device, namespace: None, after };
    for change in 0..5 {
        world.put(change, None);
        world.seal();
    }
    world.durable = world.ks.revision();
    let (lost, _) = (world.ks.revision(), world.list());
    assert_eq!(world.version, lost);
    world.ks = Keyspace::load(metadata::epoch::restored(rows, 2));
    world.index = Index::load(Layout::Cloud, &world.ks);
    for change in 0..10 {
        world.put(change, None);
        world.seal();
    }
    world.durable = world.ks.revision();
    assert!(world.durable > lost);
    assert_eq!(world.source().read(&changes(lost)), Found::Expired { compacted: false });
    let written = object::written_at(Layout::Cloud, Kind::Device, &Id::from("plant/d5"), &world.ks);
    assert!(written > lost, "an update with the old version conflicts");
    world.watch();
    assert_eq!(world.known, world.selected().0);
    world.put(3, Some(1));
    world.seal();
    world.durable = world.ks.revision();
    let known = world.known.clone();
    world.watch();
    assert_ne!(world.known, known, "the new list's version is one to watch from");
}
