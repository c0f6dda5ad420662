use proptest::prelude::*;

use super::*;

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn put(ks: &mut Keyspace, at: &str, value: &str) {
    ks.put(key(at), Bytes::copy_from_slice(value.as_bytes()));
}

fn live(ks: &Keyspace, prefix: &str) -> Vec<(String, String)> {
    ks.range(prefix).map(|(k, v)| (k.to_string(), String::from_utf8(v.to_vec()).unwrap())).collect()
}

fn changed(ks: &Keyspace, scope: &str, after: u64) -> Vec<(String, u64, bool)> {
    let changes = ks.changes_in(scope, &Mark::Revision(Revision(after)));
    changes.map(|(r, k, v)| (k.to_string(), r.0, v.is_some())).collect()
}

#[test]
fn a_cycle_is_one_commit_with_one_revision() {
    let mut ks = Keyspace::new();
    put(&mut ks, "/c/a", "1");
    put(&mut ks, "/c/b", "2");
    ks.delete(&key("/c/none"));
    let writes = [("/c/a", "1"), ("/c/b", "2")]
        .map(|(k, v)| Write { key: key(k), value: Some(Bytes::from(v)) })
        .to_vec();
    assert_eq!(ks.seal(), Some(Commit { revision: Revision(1), writes, forgotten: vec![] }));
    assert_eq!(ks.seal(), None);
    assert_eq!(ks.revision(), Revision(1));
}

#[test]
fn writing_what_is_there_is_no_write() {
    let mut ks = Keyspace::new();
    put(&mut ks, "/c/a", "1");
    ks.seal();
    put(&mut ks, "/c/a", "1");
    assert_eq!(ks.seal(), None);
    put(&mut ks, "/c/a", "2");
    put(&mut ks, "/c/a", "1");
    ks.delete(&key("/c/a"));
    put(&mut ks, "/c/a", "1");
    assert_eq!(ks.seal(), None);
}

#[test]
fn readers_see_the_open_cycle_and_followers_do_not() {
    let mut ks = Keyspace::new();
    put(&mut ks, "/all/a", "1");
    put(&mut ks, "/all/c", "3");
    ks.seal();
    put(&mut ks, "/all/b", "2");
    put(&mut ks, "/all/c", "4");
    ks.delete(&key("/all/a"));
    let text = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    assert_eq!(live(&ks, "/all/"), [text("/all/b", "2"), text("/all/c", "4")]);
    assert_eq!(ks.get("/all/a"), None);
    assert_eq!(ks.sealed_get("/all/a"), Some(&Bytes::from("1")));
    assert_eq!(changed(&ks, "/all/", 0), [("/all/a".to_owned(), 1, true), ("/all/c".to_owned(), 1, true)]);
}

#[test]
fn changes_come_by_scope_in_the_order_of_revisions() {
    let mut ks = Keyspace::new();
    for (k, v) in [("/e/b/x", "1"), ("/e/b/w", "1"), ("/all/x", "1"), ("/e/a/x", "1"), ("/e/b/x", "2")] {
        put(&mut ks, k, v);
        ks.seal();
    }
    ks.delete(&key("/all/x"));
    put(&mut ks, "/c/x", "1");
    ks.seal();
    let row = |k: &str, r, live| (k.to_owned(), r, live);
    assert_eq!(changed(&ks, "/e/b/", 0), [row("/e/b/w", 2, true), row("/e/b/x", 5, true)]);
    assert_eq!(changed(&ks, "/e/b/", 2), [row("/e/b/x", 5, true)]);
    assert_eq!(changed(&ks, "/all/", 0), [row("/all/x", 6, false)]);
    assert_eq!(changed(&ks, "/e/c/", 0), []);
    assert_eq!(ks.scopes_touched_after(Revision(4)).collect::<Vec<_>>(), ["/e/b/", "/all/"]);
}

#[test]
fn what_nobody_follows_leaves_nothing_behind() {
    let mut ks = Keyspace::new();
    let mut store = crate::MemoryStore::default();
    put(&mut ks, "/o/state/1", "1");
    put(&mut ks, "/o/state/2", "1");
    crate::Store::commit(&mut store, &[ks.seal().unwrap()]).unwrap();
    ks.delete(&key("/o/state/1"));
    ks.delete(&key("/o/state/2"));
    let commit = ks.seal().unwrap();
    assert_eq!(commit.forgotten, [key("/o/state/1"), key("/o/state/2")]);
    crate::Store::commit(&mut store, &[commit]).unwrap();
    let rows = crate::Store::load(&mut store).unwrap();
    assert_eq!(rows, [(key(NEWEST), Revision(2), Some(Bytes::new()))]);
    assert_eq!(ks.rows().collect::<Vec<_>>(), rows);
    assert_eq!((ks.scopes.len(), ks.tombstones.len()), (0, 0));
    assert_eq!(Keyspace::load(rows).revision(), Revision(2));
}

#[test]
fn tombstones_that_nobody_waits_for_are_dropped_at_the_first_commit() {
    let mut ks = Keyspace::load([
        (key("/all/gone"), Revision(7), None),
        (key("/o/state/1"), Revision(9), None),
        (key("/t/x"), Revision(8), Some(Bytes::from_static(b"1"))),
    ]);
    assert_eq!(ks.revision(), Revision(9));
    put(&mut ks, "/t/x", "2");
    let commit = ks.seal().unwrap();
    assert_eq!((commit.revision, commit.forgotten), (Revision(10), vec![key("/o/state/1")]));
    assert_eq!(changed(&ks, "/all/", 0), [("/all/gone".to_owned(), 7, false)]);
}

#[test]
fn compaction_forgets_deletions_and_says_so_also_after_a_restart() {
    let mut ks = Keyspace::new();
    put(&mut ks, "/e/a/x", "1");
    let first = ks.seal().unwrap();
    ks.delete(&key("/e/a/x"));
    ks.seal();
    ks.compact(Revision(3));
    let commit = ks.seal().unwrap();
    assert_eq!(commit.forgotten, [key("/e/a/x")]);
    assert_eq!(changed(&ks, "/e/a/", 0), []);
    assert!(!ks.is_complete_after(Revision(1)));
    assert!(ks.is_complete_after(Revision(2)));

    let mut store = crate::MemoryStore::default();
    crate::Store::commit(&mut store, &[first, commit]).unwrap();
    let ks = Keyspace::load(crate::Store::load(&mut store).unwrap());
    assert_eq!((ks.revision(), ks.compacted()), (Revision(3), Revision(3)));
    assert!(!ks.is_complete_after(Revision(1)));
}

#[test]
fn tombstones_are_bounded() {
    let mut ks = Keyspace::new();
    let keys: Vec<Key> = (0..=MAX_TOMBSTONES + 1).map(|n| key(&format!("/all/{n:020}"))).collect();
    for k in &keys {
        ks.put(k.clone(), Bytes::from_static(b"x"));
        ks.seal();
        ks.delete(k);
        ks.seal();
    }
    assert!(ks.tombstones.len() <= MAX_TOMBSTONES / 2 + 3, "{}", ks.tombstones.len());
    assert_eq!(ks.sealed.len(), ks.tombstones.len() + 1); // and the compacted revision itself
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Seal,
    Compact(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..12, 0u8..3).prop_map(|(k, v)| Step::Put(k, v)),
        2 => (0u8..12).prop_map(Step::Delete),
        4 => Just(Step::Seal),
        1 => any::<u8>().prop_map(Step::Compact),
    ]
}

proptest! {
    /// Whoever folds the changes after a revision into the state of that revision has the present state.
    #[test]
    fn changes_lead_from_any_revision_to_the_present(steps in prop::collection::vec(step(), 0..120)) {
        let name = |k: u8| key(&format!("/{}/k{k}", ["e/a", "e/b", "all"][usize::from(k) % 3]));
        let mut ks = Keyspace::new();
        let mut store = crate::MemoryStore::default();
        let mut past: Vec<BTreeMap<Key, Bytes>> = vec![BTreeMap::new()];
        for step in steps {
            match step {
                Step::Put(k, v) => ks.put(name(k), Bytes::copy_from_slice(&[v])),
                Step::Delete(k) => ks.delete(&name(k)),
                Step::Compact(r) => ks.compact(Revision(u64::from(r) % past.len() as u64)),
                Step::Seal => {}
            }
            if matches!(step, Step::Seal) && let Some(commit) = ks.seal() {
                crate::Store::commit(&mut store, &[commit]).unwrap();
                let live = ks.range("/").filter(|(k, _)| k.scope().is_some());
                past.push(live.map(|(k, v)| (k.clone(), v.clone())).collect());
            }
        }
        let reloaded = Keyspace::load(crate::Store::load(&mut store).unwrap());
        ks.open.clear();
        for ks in [&reloaded, &ks] {
            for (revision, state) in past.iter().enumerate() {
                let after = Revision(revision as u64);
                if !ks.is_complete_after(after) {
                    continue;
                }
                let mut folded = state.clone();
                let scopes = ["/e/a/", "/e/b/", "/all/"];
                for (_, k, v) in scopes.into_iter().flat_map(|scope| ks.changes_in(scope, &Mark::Revision(after))) {
                    match v {
                        Some(v) => folded.insert(k.clone(), v.clone()),
                        None => folded.remove(k.as_str()),
                    };
                }
                prop_assert_eq!(Some(&folded), past.last());
            }
        }
    }
}
