mod split;
mod tls;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;
use std::time::Instant;

use bus::backoff::Jitter;

use super::cluster::EtcdCluster;
use super::*;
use crate::store::conformance::{Latest, Place, commit, fold, kept_by, key, put, row, rows};

/// Unlike every other in this process.
fn fresh() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

fn config(etcd: &EtcdCluster, prefix: &str) -> EtcdConfig {
    EtcdConfig {
        endpoints: etcd.endpoints(),
        tls: None,
        prefix: format!("/kubebus/{prefix}/"),
        me: "a test".into(),
        writer: 1,
        run: fresh(),
    }
}

fn open(etcd: &EtcdCluster, prefix: &str) -> EtcdStore {
    let mut store = EtcdStore::new(&config(etcd, prefix)).unwrap();
    assert_eq!(store.stand().unwrap(), Turn::Ours);
    store
}

/// One etcd for all tests that do it no harm, as long as any of them runs.
fn shared_etcd() -> Arc<EtcdCluster> {
    static SHARED: Mutex<Weak<EtcdCluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let etcd = shared.upgrade().unwrap_or_else(|| Arc::new(EtcdCluster::start()));
    *shared = Arc::downgrade(&etcd);
    etcd
}

/// A prefix of its own.
struct Shelf {
    etcd: Arc<EtcdCluster>,
    prefix: String,
    open: Option<EtcdStore>,
}

impl Shelf {
    fn new() -> Self {
        Self { etcd: shared_etcd(), prefix: format!("shelf-{}", fresh()), open: None }
    }
}

impl Place for Shelf {
    fn reopen(&mut self) -> &mut dyn Store {
        self.open = None;
        self.open.insert(open(&self.etcd, &self.prefix))
    }
}

kept_by!(Shelf::new());

/// A commit of `count` rows that no other commit has.
fn rows_of(revision: u64, count: u64) -> Commit {
    let rows =
        (0..count).map(|n| (key(&format!("/c/{revision:05}/{n:04}")), Some(format!("{revision}").into())));
    commit(revision, rows)
}

/// Small ones, and some that take a redo record.
fn any_size(revision: u64) -> Commit {
    rows_of(revision, if revision.is_multiple_of(7) { 250 } else { 3 })
}

/// Until the store has it, as the store thread does.
fn insist(store: &mut EtcdStore, commit: &Commit) {
    let start = Instant::now();
    while let Err(why) = store.commit(std::slice::from_ref(commit)) {
        assert!(matches!(why, StoreError::Unreachable { .. }), "{why:?}");
        assert!(start.elapsed() < Duration::from_secs(60), "{why:?}");
    }
}

/// The rows as etcd has them.
fn raw(store: &mut EtcdStore) -> Vec<KeyValue> {
    let at = store.core.keys.rows.clone();
    let found = store.play(async |core| {
        let all = || Some(GetOptions::new().with_prefix());
        let at = at.as_str();
        core.members.ask("read", |mut member| async move { member.kv.get(at, all()).await }).await
    });
    found.unwrap().kvs().to_vec()
}

#[test]
fn the_death_of_etcds_leader_in_mid_write_loses_nothing_and_does_nothing_twice() {
    let mut etcd = EtcdCluster::start();
    let mut store = open(&etcd, "stream");
    let done = Arc::new(AtomicU64::new(0));
    let enough = Arc::new(AtomicU64::new(u64::MAX));
    let (told, stop) = (Arc::clone(&done), Arc::clone(&enough));
    let writer = std::thread::spawn(move || {
        for revision in 1..=stop.load(Ordering::Relaxed) {
            insist(&mut store, &any_size(revision));
            told.store(revision, Ordering::Relaxed);
            if stop.load(Ordering::Relaxed) == 0 {
                break;
            }
        }
        store
    });
    let more = |by: u64| {
        let (from, start) = (done.load(Ordering::Relaxed), Instant::now());
        while done.load(Ordering::Relaxed) < from + by {
            assert!(start.elapsed() < Duration::from_secs(60), "nothing is written any more");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    for _ in 0..3 {
        more(40);
        let leader = etcd.leader();
        etcd.kill(leader);
        more(40);
        etcd.run(leader);
    }
    enough.store(0, Ordering::Relaxed);
    let mut store = writer.join().unwrap();
    let last = done.load(Ordering::Relaxed);
    let mut latest = Latest::new();
    (1..=last).for_each(|revision| fold(&mut latest, &any_size(revision)));
    assert!(store.load().unwrap() == rows(&latest), "other rows than those of the {last} commits");
    check_history(&raw(&mut store));
}

/// Small commits were written once. A redo record may be carried out more than once, with the same rows, but never after
/// a later commit.
fn check_history(rows: &[KeyValue]) {
    let mut last = 0;
    for commit in rows.chunk_by(|one, other| number_of(one) == number_of(other)) {
        let written = || commit.iter().map(KeyValue::mod_revision);
        assert!(written().min() > Some(last), "{} was written before the one before", number_of(&commit[0]));
        last = written().max().unwrap();
        let is_small = commit.len() <= rows::MAX_OPS;
        assert!(!is_small || commit.iter().all(|row| row.version() == 1), "{} twice", number_of(&commit[0]));
    }
}

/// The part of the key that tells which commit it is of.
fn number_of(row: &KeyValue) -> &str {
    row.key_str().unwrap().rsplit('/').nth(1).unwrap()
}

#[test]
fn a_commit_is_one_transaction_of_etcd() {
    let etcd = shared_etcd();
    let mut store = open(&etcd, "one");
    store.commit(&[rows_of(1, 98), rows_of(2, 2)]).unwrap();
    let revisions: Vec<i64> = raw(&mut store).iter().map(KeyValue::mod_revision).collect();
    assert_eq!(revisions, vec![revisions[0]; 100]);
}

#[test]
fn without_a_quorum_nothing_is_acknowledged_and_afterwards_it_goes_on() {
    let mut etcd = EtcdCluster::start();
    let mut store = open(&etcd, "quorum");
    store.commit(&[put(1, "/c/a", "1")]).unwrap();
    etcd.kill(0);
    store.commit(&[put(2, "/c/a", "2")]).unwrap();
    etcd.kill(1);
    let why = store.commit(&[put(3, "/c/a", "3")]).unwrap_err();
    assert!(matches!(why, StoreError::Unreachable { doing: "write to", .. }), "{why:?}");
    etcd.endpoints().iter().for_each(|one| assert!(why.to_string().contains(one), "{why}"));
    etcd.run(0);
    insist(&mut store, &put(3, "/c/a", "3"));
    store.check().unwrap();
    assert_eq!(store.load().unwrap(), [row("/c/a", 3, Some("3"))]);
}

#[test]
fn members_that_are_gone_at_the_start_are_passed_over() {
    let mut etcd = EtcdCluster::start();
    etcd.kill(0);
    etcd.leader();
    let mut store = open(&etcd, "passed-over");
    store.commit(&[put(1, "/c/a", "1")]).unwrap();
    assert_eq!(store.load().unwrap(), [row("/c/a", 1, Some("1"))]);
}

#[test]
fn where_nobody_answers_all_endpoints_are_named() {
    let nobody = EtcdConfig {
        endpoints: vec!["http://127.0.0.1:9".into(), "http://127.0.0.2:9".into()],
        ..config(&shared_etcd(), "nobody")
    };
    let why = EtcdStore::new(&nobody).unwrap().stand().unwrap_err();
    let said = "cannot read etcd at http://127.0.0.1:9, http://127.0.0.2:9: check that most of its members run and \
                that this machine reaches them";
    assert_eq!(why.to_string(), said);
}

#[test]
fn what_is_too_large_is_refused_with_advice() {
    let etcd = shared_etcd();
    let mut store = open(&etcd, "large");
    for size in [1_700_000, 3_000_000] {
        let why = store.commit(&[commit(1, [(key("/c/a"), Some(vec![0; size].into()))])]).unwrap_err();
        assert!(matches!(&why, StoreError::Refused { advice, .. } if advice.contains("1.4 MiB")), "{why:?}");
    }
    store.commit(&[commit(1, [(key("/c/a"), Some(vec![0; 1_400_000].into()))])]).unwrap();
}

/// As if this process had slept for longer than its lease.
fn lose(etcd: &EtcdCluster, store: &EtcdStore) {
    let lease = format!("{:x}", store.core.lead.as_ref().unwrap().lease);
    etcd.ctl(0, &["lease", "revoke", &lease]);
}

#[test]
fn a_standby_waits_and_takes_over_at_once_when_the_leader_goes() {
    let etcd = shared_etcd();
    let mut first = open(&etcd, "standby");
    assert_eq!(first.last_writer(), None);
    first.commit(&[put(1, "/c/a", "1")]).unwrap();
    let mut second = EtcdStore::new(&EtcdConfig { writer: 2, ..config(&etcd, "standby") }).unwrap();
    let term = first.term().unwrap();
    assert_eq!(second.stand().unwrap(), Turn::Held { by: "a test".into(), term });
    assert!(matches!(second.load(), Err(StoreError::Fenced { .. })));
    drop(first);
    assert_eq!(second.stand().unwrap(), Turn::Ours);
    assert_eq!(second.last_writer(), Some(1));
    assert_eq!(second.load().unwrap(), [row("/c/a", 1, Some("1"))]);
}

#[test]
fn a_standby_takes_over_when_the_leaders_lease_ends() {
    let etcd = shared_etcd();
    let first = open(&etcd, "lease");
    let mut second = EtcdStore::new(&config(&etcd, "lease")).unwrap();
    first.core.lead.as_ref().unwrap().keeper_dies();
    let start = Instant::now();
    while second.stand().unwrap() != Turn::Ours {
        assert!(start.elapsed() < Duration::from_secs(20), "the lease does not end");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(start.elapsed() > Duration::from_secs(5), "the lease ended early");
}

#[test]
fn a_silent_leader_is_deposed_and_nobody_else_with_it() {
    let etcd = shared_etcd();
    let mut first = open(&etcd, "deposed");
    first.commit(&[put(1, "/c/a", "1")]).unwrap();
    let term = first.term().unwrap();
    let mut second = EtcdStore::new(&config(&etcd, "deposed")).unwrap();
    second.depose(term - 1).unwrap();
    assert_eq!(second.stand().unwrap(), Turn::Held { by: "a test".into(), term });
    second.depose(term).unwrap();
    assert_eq!(second.stand().unwrap(), Turn::Ours);
    assert!(second.term().unwrap() > term);
    let late = first.commit(&[put(2, "/c/a", "late")]).unwrap_err();
    assert!(matches!(late, StoreError::Fenced { .. }), "{late:?}");
    assert_eq!(second.load().unwrap(), [row("/c/a", 1, Some("1"))]);
}

#[test]
fn who_lost_the_turn_writes_nothing_and_says_who_has_it() {
    let etcd = shared_etcd();
    let mut old = open(&etcd, "fenced");
    old.commit(&[put(1, "/c/a", "old")]).unwrap();
    lose(&etcd, &old);
    let mut new =
        EtcdStore::new(&EtcdConfig { me: "the new one".into(), ..config(&etcd, "fenced") }).unwrap();
    assert_eq!(new.stand().unwrap(), Turn::Ours);
    for late in [put(2, "/c/a", "late"), rows_of(3, 250)] {
        let why = old.commit(&[late]).unwrap_err();
        assert!(matches!(&why, StoreError::Fenced { by, .. } if by == "the new one"), "{why:?}");
    }
    new.commit(&[put(2, "/c/b", "new")]).unwrap();
    drop(new);
    let why = old.commit(&[put(2, "/c/a", "late")]).unwrap_err();
    assert!(matches!(&why, StoreError::Fenced { by, .. } if by == "one that is gone again"), "{why:?}");
    drop(old);
    let mut next = open(&etcd, "fenced");
    assert_eq!(next.load().unwrap(), [row("/c/a", 1, Some("old")), row("/c/b", 2, Some("new"))]);
}

#[test]
fn what_arrives_after_a_later_commit_changes_nothing() {
    let etcd = shared_etcd();
    let mut store = open(&etcd, "late");
    store.commit(&[put(1, "/c/a", "1")]).unwrap();
    let late = TxnOp::put(store.core.keys.row(&key("/c/a")), "late", None);
    let late = store.core.next(vec![late]).unwrap();
    store.commit(&[put(2, "/c/a", "2")]).unwrap();
    assert!(!store.play(async |core| core.members.txn("write to", late).await).unwrap().succeeded());
    assert_eq!(store.load().unwrap(), [row("/c/a", 2, Some("2"))]);
}

#[test]
fn who_has_nothing_to_write_finds_out_too() {
    let etcd = shared_etcd();
    let mut old = open(&etcd, "idle");
    lose(&etcd, &old);
    let _new = open(&etcd, "idle");
    let start = Instant::now();
    while old.check().is_ok() {
        assert!(start.elapsed() < Duration::from_secs(20), "not noticed");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(matches!(old.check(), Err(StoreError::Fenced { .. })));
}

#[test]
fn a_lease_that_ended_unused_is_taken_again() {
    let etcd = shared_etcd();
    let mut store = open(&etcd, "again");
    lose(&etcd, &store);
    store.commit(&[put(1, "/c/a", "1")]).unwrap();
    lose(&etcd, &store);
    store.commit(&[rows_of(2, 250)]).unwrap();
    lose(&etcd, &store);
    store.commit(&[put(3, "/c/a", "3")]).unwrap();
    assert_eq!(store.load().unwrap().len(), 251);
}

/// What of a large commit was done when the cloud died.
const CUTS: [(&str, bool); 4] = [
    ("some chunks", false),
    ("all chunks", false),
    ("committed", true),
    ("committed and half carried out", true),
];

#[test]
fn a_large_commit_is_whole_or_not_there_wherever_the_cloud_dies() {
    let etcd = shared_etcd();
    for (cut, there) in CUTS {
        let mut store = open(&etcd, cut);
        store.commit(&[rows_of(1, 250)]).unwrap();
        let changes = rows::fold(&[rows_of(2, 350)], &store.core.keys);
        let done = store.play(async |core| die_at(core, &changes, cut).await);
        done.unwrap();
        drop(store);
        let mut latest = Latest::new();
        fold(&mut latest, &rows_of(1, 250));
        if there {
            fold(&mut latest, &rows_of(2, 350));
        }
        let mut store = open(&etcd, cut);
        assert!(store.load().unwrap() == rows(&latest), "{cut}");
        let left = etcd.ctl(0, &["get", "--prefix", "--keys-only", &store.core.keys.mark]);
        assert_eq!(left, "", "{cut}");
    }
}

async fn die_at(core: &mut Core, changes: &[Change], cut: &str) -> Result<(), StoreError> {
    let groups = rows::cut(changes);
    assert_eq!(groups.len(), 4);
    if cut.ends_with("chunks") {
        let some = if cut == "all chunks" { &groups[..] } else { &groups[..2] };
        return core.write_chunks(some).await.map(|_| ());
    }
    core.write_redo(&groups).await?;
    if cut.ends_with("half carried out") {
        let found = core.get(&core.keys.mark.clone()).await?.unwrap();
        let mark = minicbor::decode(found.value()).unwrap();
        core.carry_out(&mark, found.mod_revision(), 0).await?;
        core.carry_out(&mark, found.mod_revision(), 1).await?;
    }
    Ok(())
}

/// A resent clean-up arrives between the chunks of a large commit and its redo record.
#[test]
fn a_late_clean_up_leaves_the_chunks_of_this_run_and_takes_those_of_others() {
    let etcd = shared_etcd();
    for left in [rows_of(1, 250), rows_of(2, 350)] {
        let mut store = open(&etcd, "clean-up");
        let changes = rows::fold(&[left], &store.core.keys);
        store.play(async |core| core.write_chunks(&rows::cut(&changes)).await).unwrap();
    }
    let mut store = open(&etcd, "clean-up");
    let (run, at) = (format!("/{:016x}-", store.core.head.run), store.core.keys.chunks.clone());
    let large = rows_of(3, 350);
    let changes = rows::fold(std::slice::from_ref(&large), &store.core.keys);
    let mark = store.play(async |core| {
        let mark = core.write_chunks(&rows::cut(&changes)).await?;
        core.forget_former_chunks().await?;
        Ok(mark)
    });
    let left = etcd.ctl(0, &["get", "--prefix", "--keys-only", &at]);
    let left: Vec<&str> = left.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(left.len(), 4);
    assert!(left.iter().all(|chunk| chunk.contains(&run)), "{left:?}");
    assert_eq!(mark.unwrap().chunks, 4);
    let mut latest = Latest::new();
    fold(&mut latest, &large);
    store.commit(&[large]).unwrap();
    assert!(store.load().unwrap() == rows(&latest));
}

/// What came of `work`, if that took no more than so many polls.
async fn cut_off<T>(mut polls: u64, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(move |context| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

/// Its words may be on their way still, and be heard or not.
#[test]
fn a_cloud_that_dies_at_any_time_leaves_whole_commits() {
    let etcd = shared_etcd();
    let mut jitter = Jitter::new(3);
    let (mut store, mut latest, mut unsure) = (open(&etcd, "any"), Latest::new(), 0);
    for revision in 1..=120 {
        let next = rows_of(revision, if jitter.next_u64().is_multiple_of(2) { 250 } else { 3 });
        let changes = rows::fold(std::slice::from_ref(&next), &store.core.keys);
        let polls = jitter.next_u64() % if next.writes.len() > rows::MAX_OPS { 40 } else { 5 };
        let done = store.play(async |core| Ok(cut_off(polls, core.commit(&changes)).await));
        if jitter.next_u64().is_multiple_of(2) {
            drop(store);
            store = open(&etcd, "any");
        } else if done.as_ref().is_ok_and(Option::is_none) {
            // It lives, and tries again.
            store.commit(std::slice::from_ref(&next)).unwrap();
        }
        let before = rows(&latest);
        fold(&mut latest, &next);
        let found = store.load().unwrap();
        if found == before {
            assert!(done.unwrap().is_none(), "{revision} was acknowledged, and is lost");
            next.writes.iter().for_each(|write| drop(latest.remove(&write.key)));
            unsure += 1;
        } else {
            assert!(found == rows(&latest), "{revision} is there in part");
        }
    }
    assert!((1..100).contains(&unsure), "{unsure} of 120 were cut before they were committed");
}

#[test]
fn replicas_share_files() {
    let etcd = shared_etcd();
    let mut store = open(&etcd, "files");
    assert_eq!(store.shared().unwrap(), []);
    let files = [("ca.pem".to_owned(), Bytes::from("a")), ("node.key".to_owned(), Bytes::from("b"))];
    store.share(&files).unwrap();
    drop(store);
    assert_eq!(open(&etcd, "files").shared().unwrap(), files);
}
