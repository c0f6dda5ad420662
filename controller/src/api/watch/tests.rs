//! A client that folds what its list and its watches say ends with what the store has, whatever happens in between.

use bytes::Bytes;
use metadata::Keyspace;
use proptest::prelude::*;

use super::super::feed::{Feed, Next};
use super::super::index::Index;
use super::super::list::Lister;
use super::super::read::{Found, plain};
use super::super::{Layout, Scope, object, read::Source};
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
    /// The feed of all watches goes on.
    Feed,
    /// The watch says what the feed has.
    Watch,
    /// The watch asks for itself.
    Ask,
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
        3 => Just(Step::Feed),
        3 => Just(Step::Watch),
        1 => Just(Step::Ask),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

struct World {
    ks: Keyspace,
    index: Index,
    durable: Revision,
    feed: Feed,
    watcher: Watcher,
    of: Listing,
    /// What the client knows, by name.
    known: BTreeMap<String, Value>,
    /// The resourceVersion that it saw last.
    version: Revision,
    changes: u32,
}

const WHOLE: Look = Look { form: Form::Object, veil: None };

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
        let watcher = Watcher::new(Kind::Device, of.clone(), WHOLE);
        let mut world = Self {
            ks,
            index,
            durable: Revision::ZERO,
            feed: Feed::new(Layout::Cloud, Kind::Device, Revision::ZERO),
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
        let mut lister = Lister::new(Kind::Device, self.of.clone(), WHOLE, UnixMillis(0));
        let Found::Page(page) = self.source().read(&lister.wants()) else { panic!("a page") };
        let list: Value = serde_json::from_slice(&lister.handle_page(page).write()).unwrap();
        assert!(lister.is_done());
        let named = |object: &Value| {
            (object["metadata"]["name"].as_str().unwrap().to_owned(), object["spec"].clone())
        };
        (list["items"].as_array().unwrap().iter().map(named).collect(), lister.revision())
    }

    fn list(&mut self) {
        let (known, revision) = self.selected();
        (self.known, self.version) = (known, revision);
        self.begin(revision);
    }

    /// As `watching.rs` does.
    fn begin(&mut self, from: Revision) {
        let of = Listing { version: Some(from), ..self.of.clone() };
        self.watcher = Watcher::new(Kind::Device, of, WHOLE);
        let tells = self.watcher.begins_with_all();
        if tells {
            self.known.clear();
        }
        let Found::Page(page) = self.source().read(&self.watcher.wants_page(None)) else { panic!("a page") };
        let (revision, page) = (page.revision, Segment::of_page(Kind::Device, page));
        if tells {
            let events = self.watcher.handle_first(&page, UnixMillis(0));
            self.fold(&events);
            self.watcher.handle_first_end(revision);
        } else if self.watcher.needs_known() {
            self.watcher.handle_known(&page);
        }
    }

    fn feed(&mut self) {
        match self.source().read(&self.feed.wants()) {
            Found::Changes(changes) => assert!(!self.feed.handle_changes(changes)),
            Found::Expired { .. } => {
                let moved = self.index.moved(self.durable, &self.ks)[Kind::Device.index()];
                self.feed.handle_expired(Revision(moved));
            }
            other @ (Found::Item(_) | Found::Page(_)) => panic!("{other:?}"),
        }
    }

    fn watch(&mut self) {
        loop {
            match self.feed.next(self.watcher.cursor()) {
                Next::Nothing => return,
                Next::Behind => self.ask(),
                Next::Segment(segment) => {
                    let events = self.watcher.handle_changes(&segment, UnixMillis(0));
                    self.fold(&events);
                }
            }
        }
    }

    fn ask(&mut self) {
        let after = self.watcher.cursor();
        match self.source().read(&self.watcher.wants()) {
            Found::Changes(changes) => {
                let changes = Segment::of_changes(Kind::Device, after, changes);
                let events = self.watcher.handle_changes(&changes, UnixMillis(0));
                self.fold(&events);
            }
            Found::Expired { .. } => self.list(),
            other @ (Found::Item(_) | Found::Page(_)) => panic!("{other:?}"),
        }
    }

    fn fold(&mut self, lines: &[u8]) {
        let events = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let events = events.map(|line| serde_json::from_slice::<Value>(line).unwrap());
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
            Step::Feed => {
                self.seal();
                self.feed();
            }
            Step::Watch => {
                self.seal();
                self.watch();
            }
            Step::Ask => {
                self.seal();
                self.ask();
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
                let moved = self.index.moved(self.durable, &self.ks)[Kind::Device.index()];
                self.feed = Feed::new(Layout::Cloud, Kind::Device, Revision(moved));
                self.begin(self.version);
            }
        }
    }
}

#[test]
fn what_is_not_durable_is_told_once_though_it_is_asked_for_twice() {
    let mut world = World::new("");
    let lines = |world: &mut World| {
        let after = world.watcher.cursor();
        let Found::Changes(changes) = world.source().read(&world.watcher.wants()) else { panic!("changes") };
        let changes = Segment::of_changes(Kind::Device, after, changes);
        let lines = String::from_utf8(world.watcher.handle_changes(&changes, UnixMillis(0))).unwrap();
        let short = |line: &str| line.chars().take(17).collect::<String>();
        lines.lines().map(short).collect::<Vec<_>>()
    };
    world.put(1, None);
    world.seal();
    assert_eq!(lines(&mut world), [r#"{"type":"ADDED",""#]);
    assert_eq!(lines(&mut world), [""; 0]);
    world.put(1, Some(1));
    world.seal();
    assert_eq!(lines(&mut world), [r#"{"type":"MODIFIED"#]);
    world.durable = world.ks.revision();
    assert_eq!(lines(&mut world), [""; 0]);
    assert_eq!(world.watcher.cursor(), world.durable);
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
        world.feed();
        world.watch();
        prop_assert_eq!(&world.known, &world.selected().0);
    }
}

#[test]
fn a_watch_of_another_store_is_told_to_list_again() {
    let world = World::new("");
    let read = Read::Changes { kind: Kind::Device, scope: Scope::default(), after: Revision(99) };
    assert_eq!(world.source().read(&read), Found::Expired { compacted: false });
}

#[test]
fn a_version_from_before_a_restore_is_too_old_however_far_the_lost_cloud_had_come() {
    let mut world = World::new("");
    let rows = world.ks.rows().collect();
    let changes = |after| Read::Changes { kind: Kind::Device, scope: Scope::default(), after };
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
    world.ask();
    assert_eq!(world.known, world.selected().0);
    world.put(3, Some(1));
    world.seal();
    world.durable = world.ks.revision();
    let known = world.known.clone();
    world.ask();
    assert_ne!(world.known, known, "the new list's version is one to watch from");
}
