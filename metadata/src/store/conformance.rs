//! What every [`Store`] promises: one function a promise, the same for all stores.
//!
//! [`kept_by`](crate::store::conformance::kept_by) makes a test of each. That a group is whole or not there at all
//! after a crash is tested where the store can be made to crash.

use std::collections::BTreeMap;

use bus::backoff::Jitter;
use bytes::Bytes;

use crate::key::{Commit, Key, Revision, Write};
use crate::keyspace::MAX_VALUE_LEN;
use crate::store::{Row, Store};

/// Where a store keeps its rows: a memory, a file, a prefix in a server. A new place is empty.
pub(crate) trait Place {
    /// Ends the store that is open here, and opens another on the same rows.
    fn reopen(&mut self) -> &mut dyn Store;
}

/// Makes one test of each promise; `$place` is an expression that makes an empty [`Place`].
macro_rules! kept_by {
    ($place:expr) => {
        $crate::store::conformance::kept_by! { $place;
            a_new_store_holds_nothing
            what_was_committed_is_there_before_and_after_reopening
            a_group_is_taken_in_its_order
            a_tombstone_is_kept_and_is_no_empty_value
            what_is_forgotten_is_gone
            a_key_is_forgotten_before_it_is_written
            the_largest_values_come_back_whole
            the_longest_and_the_oddest_keys_come_back
            ten_thousand_rows_of_one_commit_come_back_in_order
            a_commit_of_nothing_changes_nothing
            a_row_has_the_revision_that_last_changed_it
            reopening_many_times_loses_nothing
            samples_come_back_among_the_rest
            any_history_folds_to_its_latest_rows
        }
    };
    ($place:expr; $($promise:ident)+) => {
        $(
            #[test]
            fn $promise() {
                $crate::store::conformance::$promise(&mut $place);
            }
        )+
    };
}
pub(crate) use kept_by;

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

pub(crate) fn commit(revision: u64, writes: impl IntoIterator<Item = (Key, Option<Bytes>)>) -> Commit {
    let writes = writes.into_iter().map(|(key, value)| Write { key, value }).collect();
    Commit { revision: Revision(revision), writes, forgotten: vec![] }
}

/// A commit of one row.
pub(crate) fn put(revision: u64, at: &str, value: &'static str) -> Commit {
    commit(revision, [(key(at), Some(value.into()))])
}

pub(crate) fn delete(revision: u64, at: &str) -> Commit {
    commit(revision, [(key(at), None)])
}

pub(crate) fn row(at: &str, revision: u64, value: Option<&'static str>) -> Row {
    (key(at), Revision(revision), value.map(Bytes::from))
}

fn forgetting(commit: Commit, keys: &[&str]) -> Commit {
    Commit { forgotten: keys.iter().copied().map(key).collect(), ..commit }
}

pub(crate) fn a_new_store_holds_nothing(place: &mut impl Place) {
    assert_eq!(place.reopen().load().unwrap(), []);
    assert_eq!(place.reopen().load().unwrap(), []);
}

pub(crate) fn what_was_committed_is_there_before_and_after_reopening(place: &mut impl Place) {
    let store = place.reopen();
    store.commit(&[put(1, "/c/a", "1"), put(2, "/c/b", "2")]).unwrap();
    let first = [row("/c/a", 1, Some("1")), row("/c/b", 2, Some("2"))];
    assert_eq!(store.load().unwrap(), first);
    assert_eq!(store.load().unwrap(), first, "loading takes nothing away");
    store.commit(&[put(3, "/c/a", "3")]).unwrap();
    let second = [row("/c/a", 3, Some("3")), row("/c/b", 2, Some("2"))];
    assert_eq!(store.load().unwrap(), second);
    assert_eq!(place.reopen().load().unwrap(), second);
}

pub(crate) fn a_group_is_taken_in_its_order(place: &mut impl Place) {
    let group = [
        put(1, "/c/a", "first"),
        put(2, "/c/b", "stays"),
        put(3, "/c/a", "second"),
        delete(4, "/c/c"),
        put(5, "/c/c", "is back"),
        forgetting(put(6, "/c/d", "4"), &["/c/a"]),
        delete(7, "/c/d"),
    ];
    place.reopen().commit(&group).unwrap();
    let rows = [row("/c/b", 2, Some("stays")), row("/c/c", 5, Some("is back")), row("/c/d", 7, None)];
    assert_eq!(place.reopen().load().unwrap(), rows);
}

pub(crate) fn a_tombstone_is_kept_and_is_no_empty_value(place: &mut impl Place) {
    let store = place.reopen();
    store.commit(&[put(1, "/c/a", "1"), put(2, "/c/b", "")]).unwrap();
    store.commit(&[delete(3, "/c/a"), delete(4, "/c/never-there")]).unwrap();
    let dead = [row("/c/a", 3, None), row("/c/b", 2, Some("")), row("/c/never-there", 4, None)];
    assert_eq!(place.reopen().load().unwrap(), dead);
    place.reopen().commit(&[put(5, "/c/a", "again")]).unwrap();
    let again = [row("/c/a", 5, Some("again")), row("/c/b", 2, Some("")), row("/c/never-there", 4, None)];
    assert_eq!(place.reopen().load().unwrap(), again);
}

pub(crate) fn what_is_forgotten_is_gone(place: &mut impl Place) {
    let store = place.reopen();
    store.commit(&[put(1, "/c/a", "1"), put(2, "/c/b", "2")]).unwrap();
    store.commit(&[delete(3, "/c/a")]).unwrap();
    store.commit(&[forgetting(put(4, "/c/c", "4"), &["/c/a", "/c/never-there"])]).unwrap();
    assert_eq!(place.reopen().load().unwrap(), [row("/c/b", 2, Some("2")), row("/c/c", 4, Some("4"))]);
}

pub(crate) fn a_key_is_forgotten_before_it_is_written(place: &mut impl Place) {
    let store = place.reopen();
    store.commit(&[delete(1, "/c/a")]).unwrap();
    store.commit(&[forgetting(put(2, "/c/a", "new"), &["/c/a"])]).unwrap();
    assert_eq!(place.reopen().load().unwrap(), [row("/c/a", 2, Some("new"))]);
}

pub(crate) fn the_largest_values_come_back_whole(place: &mut impl Place) {
    let value = |seed: u64| {
        let mut jitter = Jitter::new(seed);
        let words = (0..MAX_VALUE_LEN / 8).flat_map(|_| jitter.next_u64().to_le_bytes());
        Bytes::from_iter(words)
    };
    let rows: Vec<Row> =
        (1..=5).map(|n| (key(&format!("/c/large/{n}")), Revision(1), Some(value(n)))).collect();
    let writes = rows.iter().map(|(key, _, value)| (key.clone(), value.clone()));
    place.reopen().commit(&[commit(1, writes)]).unwrap();
    assert!(place.reopen().load().unwrap() == rows, "a large value came back as another");
}

pub(crate) fn the_longest_and_the_oddest_keys_come_back(place: &mut impl Place) {
    let printable: String = ('!'..='~').collect();
    let longest = format!("/{}", "~".repeat(Key::MAX_LEN - 1));
    let rows = [
        row("/!", 1, Some("least")),
        row("//", 1, Some("slashes")),
        row(&format!("/c{printable}"), 1, Some("all of ASCII")),
        row("/c/a", 1, Some("below")),
        row("/c/a/b", 1, Some("deeper")),
        row(&longest, 1, Some("longest")),
    ];
    let writes = rows.iter().map(|(key, _, value)| (key.clone(), value.clone()));
    place.reopen().commit(&[commit(1, writes)]).unwrap();
    let mut sorted = rows.to_vec();
    sorted.sort();
    assert_eq!(place.reopen().load().unwrap(), sorted);
}

pub(crate) fn ten_thousand_rows_of_one_commit_come_back_in_order(place: &mut impl Place) {
    // 7919 and 10,000 have no divisor in common: every number comes once, in no order.
    let shuffled = (0..10_000_u32).map(|n| n * 7919 % 10_000);
    let name = |n: u32| key(&format!("/e/pump-house/desired/{n:05}"));
    let value = |n: u32| Some(Bytes::from(n.to_string()));
    place.reopen().commit(&[commit(1, shuffled.map(|n| (name(n), value(n))))]).unwrap();
    let rows: Vec<Row> = (0..10_000).map(|n| (name(n), Revision(1), value(n))).collect();
    assert!(place.reopen().load().unwrap() == rows, "10,000 rows came back as others");
}

pub(crate) fn a_commit_of_nothing_changes_nothing(place: &mut impl Place) {
    place.reopen().commit(&[]).unwrap();
    assert_eq!(place.reopen().load().unwrap(), []);
    let store = place.reopen();
    store.commit(&[put(1, "/c/a", "1")]).unwrap();
    store.commit(&[]).unwrap();
    store.commit(&[commit(2, [])]).unwrap();
    assert_eq!(place.reopen().load().unwrap(), [row("/c/a", 1, Some("1"))]);
}

pub(crate) fn a_row_has_the_revision_that_last_changed_it(place: &mut impl Place) {
    let store = place.reopen();
    store.commit(&[commit(1, [(key("/c/a"), Some("1".into())), (key("/c/b"), Some("1".into()))])]).unwrap();
    store.commit(&[put(300, "/c/a", "300")]).unwrap();
    store.commit(&[put(u64::MAX, "/c/d", "last")]).unwrap();
    let rows =
        [row("/c/a", 300, Some("300")), row("/c/b", 1, Some("1")), row("/c/d", u64::MAX, Some("last"))];
    assert_eq!(place.reopen().load().unwrap(), rows);
}

pub(crate) fn reopening_many_times_loses_nothing(place: &mut impl Place) {
    let mut rows = Vec::new();
    for n in 0..30 {
        let (at, revision) = (format!("/c/{n:02}"), n + 1);
        assert_eq!(place.reopen().load().unwrap(), rows);
        place.reopen().commit(&[put(revision, &at, "kept")]).unwrap();
        rows.push(row(&at, revision, Some("kept")));
    }
    assert_eq!(place.reopen().load().unwrap(), rows);
}

/// They may live elsewhere in a store, and a power cut may cost some; reopening does not.
pub(crate) fn samples_come_back_among_the_rest(place: &mut impl Place) {
    let sample = |n: u64| format!("/o/telemetry/{n:020}");
    let store = place.reopen();
    store.commit(&[put(1, "/o/state/1", "state"), put(2, "/z", "last")]).unwrap();
    store.commit(&[put(3, &sample(7), "7"), put(4, &sample(8), "8"), put(5, &sample(9), "9")]).unwrap();
    store.commit(&[forgetting(put(6, &sample(10), "10"), &[&sample(7)]), put(7, "/a", "first")]).unwrap();
    place.reopen().commit(&[forgetting(put(8, &sample(9), "gap"), &[&sample(8), &sample(9)])]).unwrap();
    let rows = [
        row("/a", 7, Some("first")),
        row("/o/state/1", 1, Some("state")),
        row(&sample(9), 8, Some("gap")),
        row(&sample(10), 6, Some("10")),
        row("/z", 2, Some("last")),
    ];
    assert_eq!(place.reopen().load().unwrap(), rows);
}

pub(crate) fn any_history_folds_to_its_latest_rows(place: &mut impl Place) {
    let mut jitter = Jitter::new(5);
    let (mut latest, mut revision) = (Latest::new(), 0);
    for round in 0..20 {
        let store = place.reopen();
        for _ in 0..4 {
            let group: Vec<Commit> = (0..jitter.next_u64() % 4)
                .map(|_| {
                    revision += 1;
                    any_commit(revision, &mut jitter)
                })
                .collect();
            store.commit(&group).unwrap();
            group.iter().for_each(|commit| fold(&mut latest, commit));
        }
        assert_eq!(place.reopen().load().unwrap(), rows(&latest), "round {round}");
    }
}

/// What a history comes to.
pub(crate) type Latest = BTreeMap<Key, (Revision, Option<Bytes>)>;

pub(crate) fn fold(latest: &mut Latest, commit: &Commit) {
    for key in &commit.forgotten {
        latest.remove(key.as_str());
    }
    for write in &commit.writes {
        latest.insert(write.key.clone(), (commit.revision, write.value.clone()));
    }
}

pub(crate) fn rows(latest: &Latest) -> Vec<Row> {
    latest.iter().map(|(key, (revision, value))| (key.clone(), *revision, value.clone())).collect()
}

/// Puts, deletes and forgets a few of thirty keys; some values fill a page, some several.
pub(crate) fn any_commit(revision: u64, jitter: &mut Jitter) -> Commit {
    let any_key = |jitter: &mut Jitter| key(&format!("/c/{:02}", jitter.next_u64() % 30));
    let forgotten = (0..jitter.next_u64() % 3).map(|_| any_key(jitter)).collect();
    let writes: BTreeMap<Key, Option<Bytes>> =
        (0..jitter.next_u64() % 6).map(|_| (any_key(jitter), any_value(jitter))).collect();
    Commit { forgotten, ..commit(revision, writes) }
}

fn any_value(jitter: &mut Jitter) -> Option<Bytes> {
    let length = match jitter.next_u64() % 8 {
        0 | 1 => return None,
        2 => 0,
        3 => 9_000,
        4 => 4_096,
        _ => jitter.next_u64() % 200,
    };
    Some((0..length).map(|_| jitter.next_u64() as u8).collect())
}
