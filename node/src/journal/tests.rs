use super::*;
use metadata::{Key, MemoryStore, Store};

const NOW: Now = Now { mono: bus::Mono(0), wall: UnixMillis(1_767_225_600_000) };

type Word = &'static str;

fn drain(journal: &mut Journal<Word>) -> Vec<Ready<Word>> {
    std::iter::from_fn(|| journal.poll()).collect()
}

fn words<const N: usize>(words: [Word; N]) -> [Said<Word>; N] {
    words.map(Said::Word)
}

fn outputs<const N: usize>(words: [Word; N]) -> [Ready<Word>; N] {
    words.map(Ready::Output)
}

fn promise(promise: Word, otherwise: Option<Word>) -> Said<Word> {
    Said::Promise { promise, otherwise }
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn commit_of(journal: &mut Journal<Word>) -> Commit {
    match journal.poll() {
        Some(Ready::Persist(commit)) => commit,
        other => panic!("no commit: {other:?}"),
    }
}

fn put(keyspace: &mut Keyspace, at: &str, value: &'static str) {
    keyspace.put(key(at), value.into());
}

/// A journal whose disk has just refused a first commit.
fn degraded() -> (Journal<Word>, Keyspace, Commit) {
    let (mut keyspace, mut journal) = (Keyspace::new(), Journal::new(Revision(0)));
    put(&mut keyspace, "/t/first", "1");
    journal.close_cycle(&mut keyspace, []);
    let refused = commit_of(&mut journal);
    assert!(journal.handle_degraded("no space".to_owned(), NOW));
    (journal, keyspace, refused)
}

#[test]
fn what_is_said_waits_for_the_write_before_it_and_keeps_its_order() {
    let (mut keyspace, mut journal) = (Keyspace::new(), Journal::new(Revision(0)));
    journal.close_cycle(&mut keyspace, words(["free"]));
    assert_eq!(drain(&mut journal), outputs(["free"]));

    put(&mut keyspace, "/t/a", "1");
    journal.close_cycle(&mut keyspace, words(["held"]));
    journal.close_cycle(&mut keyspace, [promise("later", None)]);
    let commit = commit_of(&mut journal);
    assert_eq!(drain(&mut journal), []);

    journal.handle_persisted(commit.revision);
    assert_eq!(drain(&mut journal), outputs(["held", "later"]));
}

#[test]
fn nothing_waits_for_a_sample() {
    let (mut keyspace, mut journal) = (Keyspace::new(), Journal::new(Revision(0)));
    put(&mut keyspace, "/o/telemetry/1", "1");
    journal.close_cycle(&mut keyspace, [promise("free", None)]);
    commit_of(&mut journal);
    assert_eq!(drain(&mut journal), outputs(["free"]));

    put(&mut keyspace, "/t/a", "1");
    put(&mut keyspace, "/o/telemetry/2", "1");
    journal.close_cycle(&mut keyspace, words(["held"]));
    let urgent = commit_of(&mut journal);
    put(&mut keyspace, "/o/telemetry/3", "1");
    journal.close_cycle(&mut keyspace, words(["later"]));
    commit_of(&mut journal);
    assert_eq!(drain(&mut journal), []);
    journal.handle_persisted(urgent.revision);
    assert_eq!(drain(&mut journal), outputs(["held", "later"]));
}

#[test]
fn a_disk_that_refuses_lets_words_go_and_takes_promises_back() {
    let (mut keyspace, mut journal) = (Keyspace::new(), Journal::new(Revision(0)));
    journal.close_cycle(&mut keyspace, [promise("rests on nothing", Some("no"))]);
    put(&mut keyspace, "/t/a", "1");
    journal.close_cycle(&mut keyspace, [promise("accept", Some("refuse")), Said::Word("publish")]);
    journal.close_cycle(&mut keyspace, [promise("ack", None), Said::Word("dial")]);
    commit_of(&mut journal);
    assert!(journal.handle_degraded("no space".to_owned(), NOW));
    assert_eq!(drain(&mut journal), outputs(["rests on nothing", "refuse", "publish", "dial"]));

    put(&mut keyspace, "/t/a", "2");
    journal.close_cycle(&mut keyspace, [promise("accept", Some("refuse")), Said::Word("publish")]);
    assert_eq!(drain(&mut journal), outputs(["refuse", "publish"]));
}

#[test]
fn a_disk_that_refuses_never_fills_the_journal() {
    let (mut journal, mut keyspace, _) = degraded();
    for _ in 0..2 * MAX_HELD {
        put(&mut keyspace, "/t/a", "1");
        keyspace.delete(&key("/t/a"));
        put(&mut keyspace, "/t/b", "1");
        journal.close_cycle(&mut keyspace, words(["word"]));
    }
    assert!(!journal.is_full());
    assert_eq!(drain(&mut journal).len(), 2 * MAX_HELD);
}

#[test]
fn a_disk_that_takes_writes_again_gets_all_that_waited_as_one_commit() {
    let (mut journal, mut keyspace, refused) = degraded();
    for value in ["1", "2", "3"] {
        put(&mut keyspace, "/t/a", value);
        journal.close_cycle(&mut keyspace, []);
    }
    put(&mut keyspace, "/t/b", "1");
    keyspace.delete(&key("/t/first"));
    journal.close_cycle(&mut keyspace, []);
    assert_eq!(drain(&mut journal), []);

    let mut store = MemoryStore::default();
    store.commit(std::slice::from_ref(&refused)).unwrap();
    journal.handle_persisted(refused.revision);
    assert_eq!(journal.status(), json!({ "state": "ok" }));
    journal.close_cycle(&mut keyspace, [promise("kept again", None)]);
    let whole = commit_of(&mut journal);
    assert_eq!(whole.revision, keyspace.revision());
    assert_eq!(drain(&mut journal), []);
    store.commit(std::slice::from_ref(&whole)).unwrap();
    journal.handle_persisted(whole.revision);
    assert_eq!(drain(&mut journal), outputs(["kept again"]));

    let loaded = Keyspace::load(store.load().unwrap());
    let rows = |keyspace: &Keyspace| {
        keyspace.range("/t/").map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
    };
    assert_eq!((rows(&loaded), loaded.revision()), (rows(&keyspace), keyspace.revision()));
}

#[test]
fn rows_that_come_and_go_while_the_disk_refuses_leave_nothing_behind() {
    let (mut journal, mut keyspace, refused) = degraded();
    for number in 0..1000 {
        put(&mut keyspace, &format!("/o/state/{number}"), "1");
        journal.close_cycle(&mut keyspace, []);
        keyspace.delete(&key(&format!("/o/state/{number}")));
        journal.close_cycle(&mut keyspace, []);
        keyspace.compact(keyspace.revision());
    }
    journal.close_cycle(&mut keyspace, []);
    journal.handle_persisted(refused.revision);
    let whole = commit_of(&mut journal);
    let left = whole.writes.len() + whole.forgotten.len();
    assert!(left < 10, "{left} rows: {whole:?}");
}

#[test]
fn the_status_says_since_when_and_the_latest_reason() {
    let (mut journal, ..) = degraded();
    assert!(
        !journal.handle_degraded("read-only".to_owned(), Now { mono: bus::Mono(9), wall: UnixMillis(9) })
    );
    let expected = json!({ "state": "degraded", "since": "2026-01-01T00:00:00Z", "why": "read-only" });
    assert_eq!(journal.status(), expected);
}

#[test]
fn a_node_that_stops_tries_the_disk_once_more() {
    let (mut journal, mut keyspace, _) = degraded();
    put(&mut keyspace, "/t/a", "1");
    journal.close_cycle(&mut keyspace, []);
    journal.handle_stop();
    assert_eq!(commit_of(&mut journal).revision, keyspace.revision());
}
