//! [`SplitStore`], on an etcd that is shared with the tests of [`EtcdStore`].

use super::*;
use crate::io::{LocalPart, SplitStore};
use crate::store::MemoryStore;

/// A machine's disk, which can refuse.
#[derive(Debug, Clone, Default)]
struct Disk {
    held: Arc<Mutex<MemoryStore>>,
    is_full: Arc<std::sync::atomic::AtomicBool>,
}

impl Store for Disk {
    fn load(&mut self) -> Result<Vec<Row>, StoreError> {
        self.held.lock().unwrap().load()
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<(), StoreError> {
        match self.is_full.load(Ordering::Relaxed) {
            true => Err(StoreError::Foreign { place: "a disk".into(), found: "no room".into() }),
            false => self.held.lock().unwrap().commit(commits),
        }
    }
}

/// A replica on the machine with this disk.
fn replica(etcd: &EtcdCluster, prefix: &str, disk: &Disk) -> SplitStore<Disk> {
    let local = LocalPart::open(disk.clone(), fresh()).unwrap();
    let mut shared = EtcdStore::new(&EtcdConfig { writer: local.writer(), ..config(etcd, prefix) }).unwrap();
    assert_eq!(shared.stand().unwrap(), Turn::Ours);
    SplitStore::new(shared, local).unwrap()
}

struct Machine(Shelf, Disk, Option<SplitStore<Disk>>);

impl Place for Machine {
    fn reopen(&mut self) -> &mut dyn Store {
        self.2 = None;
        self.2.insert(replica(&self.0.etcd, &self.0.prefix, &self.1))
    }
}

kept_by!(Machine(Shelf::new(), Disk::default(), None));

/// A report, its place in the inbox, and how a wish ended.
fn mixed(revision: u64) -> Commit {
    let value = || Some(Bytes::from(revision.to_string()));
    let at = ["/c/reported/ns/d/p", "/c/result/ns/d/p", "/c/state/ns/d", "/sync/in/a"];
    commit(revision, at.map(|at| (key(at), value())))
}

fn keys(store: &mut impl Store) -> Vec<String> {
    store.load().unwrap().iter().map(|(key, ..)| key.to_string()).collect()
}

#[test]
fn reports_stay_on_the_machine_until_another_one_leads() {
    let (etcd, one, other) = (shared_etcd(), Disk::default(), Disk::default());
    let all = ["/c/reported/ns/d/p", "/c/result/ns/d/p", "/c/state/ns/d", "/sync/in/a"];
    let mut store = replica(&etcd, "split", &one);
    store.commit(&[mixed(1)]).unwrap();
    assert_eq!(keys(&mut store), all);
    drop(store);
    assert_eq!(keys(&mut replica(&etcd, "split", &one)), all, "it starts again");
    assert_eq!(keys(&mut open(&etcd, "split")), ["/c/result/ns/d/p"], "in etcd");
    // To lead and write nothing changes nothing.
    assert_eq!(keys(&mut replica(&etcd, "split", &other)), ["/c/result/ns/d/p"]);
    assert_eq!(keys(&mut replica(&etcd, "split", &one)), all);
    replica(&etcd, "split", &other).commit(&[put(2, "/c/resource/x", "2")]).unwrap();
    assert_eq!(keys(&mut replica(&etcd, "split", &one)), ["/c/resource/x", "/c/result/ns/d/p"]);
}

#[test]
fn what_the_machines_disk_refuses_is_not_acknowledged_and_comes_again() {
    let (etcd, disk) = (shared_etcd(), Disk::default());
    let mut store = replica(&etcd, "refusing", &disk);
    disk.is_full.store(true, Ordering::Relaxed);
    store.commit(&[put(1, "/c/resource/x", "1")]).unwrap();
    store.commit(&[mixed(2)]).unwrap_err();
    disk.is_full.store(false, Ordering::Relaxed);
    store.commit(&[mixed(2), put(3, "/sync/in/a", "3")]).unwrap();
    drop(store);
    let rows = replica(&etcd, "refusing", &disk).load().unwrap();
    let revisions: Vec<u64> = rows.iter().map(|(_, revision, _)| revision.0).collect();
    assert_eq!(revisions, [2, 1, 2, 2, 3]);
}

/// All of a paused cloud stands still, the keeper of its lease too; then the stream of reports goes on.
#[test]
fn who_stood_still_acknowledges_no_report_after_another_one_leads() {
    let (etcd, disk) = (shared_etcd(), Disk::default());
    let mut old = replica(&etcd, "still", &disk);
    old.commit(&[put(1, "/c/resource/x", "1")]).unwrap();
    old.commit(&[put(2, "/c/reported/ns/d/p", "2")]).unwrap();
    let before = disk.held.lock().unwrap().load().unwrap();
    old.shared().core.lead.as_ref().unwrap().keeper_dies();
    let (start, mut new) = (Instant::now(), EtcdStore::new(&config(&etcd, "still")).unwrap());
    while new.stand().unwrap() != Turn::Ours {
        assert!(start.elapsed() < Duration::from_secs(60), "the lease does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    let why = old.commit(&[put(3, "/c/reported/ns/d/p", "3")]).unwrap_err();
    assert!(matches!(why, StoreError::Fenced { .. }), "{why:?}");
    assert!(disk.held.lock().unwrap().load().unwrap() == before, "it kept the report");
}

#[test]
fn without_a_quorum_reports_are_acknowledged_as_long_as_the_lease_is_sure() {
    let (mut etcd, disk) = (EtcdCluster::start(), Disk::default());
    let mut store = replica(&etcd, "unsure", &disk);
    store.load().unwrap();
    etcd.kill(0);
    etcd.kill(1);
    store.commit(&[put(1, "/sync/in/a", "1")]).unwrap();
    let start = Instant::now();
    let why = loop {
        assert!(start.elapsed() < Duration::from_secs(30), "it goes on although it can know nothing");
        if let Err(why) = store.commit(&[put(2, "/sync/in/a", "2")]) {
            break why;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(matches!(why, StoreError::Unreachable { .. }), "{why:?}");
    etcd.run(0);
    let start = Instant::now();
    while let Err(why) = store.commit(&[put(2, "/sync/in/a", "2")]) {
        assert!(matches!(why, StoreError::Unreachable { .. }), "{why:?}");
        assert!(start.elapsed() < Duration::from_secs(60), "{why:?}");
    }
}
