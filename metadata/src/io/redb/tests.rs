use super::*;
use crate::store::conformance::{Place, commit, delete, kept_by, key, put, row};

const CACHE: usize = 2 << 20;
const NAME: &str = "kubebus.redb";

/// A file in a directory of its own.
struct TempStore {
    dir: tempfile::TempDir,
    open: Option<RedbStore>,
}

impl TempStore {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), open: None }
    }

    fn length(&self) -> u64 {
        std::fs::metadata(self.dir.path().join(NAME)).unwrap().len()
    }
}

impl Place for TempStore {
    fn reopen(&mut self) -> &mut dyn Store {
        self.open = None;
        self.open.insert(RedbStore::open(self.dir.path().join(NAME), CACHE).unwrap())
    }
}

kept_by!(TempStore::new());

fn filled(file: &Path) {
    let mut store = RedbStore::open(file, CACHE).unwrap();
    for n in 0..300 {
        store.commit(&[put(n + 1, &format!("/c/k{n}"), "some value that fills the page")]).unwrap();
    }
}

#[test]
fn a_file_that_once_held_much_more_is_small_after_the_next_start() {
    let mut folder = TempStore::new();
    let large = |n: u64| (key(&format!("/c/large/{n}")), Some(vec![n as u8; 400_000].into()));
    let store = folder.reopen();
    store.commit(&[put(1, "/c/a", "1"), commit(2, (0..20).map(large))]).unwrap();
    let forgotten = (0..20).map(|n| large(n).0).collect();
    store.commit(&[Commit { forgotten, ..delete(3, "/c/a") }]).unwrap();
    assert!(folder.length() > 8_000_000, "{}", folder.length());
    assert_eq!(folder.reopen().load().unwrap(), [row("/c/a", 3, None)]);
    assert!(folder.length() <= 2 * SMALL, "{}", folder.length());
    folder.reopen().commit(&[put(4, "/c/b", "4")]).unwrap();
    assert_eq!(folder.reopen().load().unwrap(), [row("/c/a", 3, None), row("/c/b", 4, Some("4"))]);
}

#[test]
fn a_store_in_use_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(NAME);
    let _held = RedbStore::open(&file, CACHE).unwrap();
    let error = RedbStore::open(&file, CACHE).unwrap_err();
    assert!(matches!(&error, StoreError::Locked { file: named } if *named == file), "{error:?}");
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let error = RedbStore::open("/no/such/place/kubebus.redb", CACHE).unwrap_err();
    assert!(matches!(&error, StoreError::Io { doing: "open", .. }), "{error:?}");
    assert!(error.to_string().contains("/no/such/place/kubebus.redb"), "{error}");
}

#[test]
fn a_file_that_is_no_store_is_left_alone_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("notes.txt");
    let text = "these are somebody's notes\n".repeat(1000);
    std::fs::write(&file, &text).unwrap();
    let error = RedbStore::open(&file, CACHE).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { file: named, .. } if *named == file), "{error:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn an_empty_file_is_a_store_that_was_lost_and_no_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(NAME);
    std::fs::write(&file, "").unwrap();
    let error = RedbStore::open(&file, CACHE).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { found, .. } if found == "it is empty"), "{error:?}");
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 0);
}

#[test]
fn a_truncated_file_is_an_error_at_any_length() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(NAME);
    filled(&file);
    let whole = std::fs::read(&file).unwrap();
    for tenth in 1..10 {
        std::fs::write(&file, &whole[..whole.len() * tenth / 10]).unwrap();
        let error = RedbStore::open(&file, CACHE).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{tenth}/10: {error:?}");
    }
}

#[test]
fn a_damaged_file_is_an_error_or_whole_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(NAME);
    filled(&file);
    let whole = std::fs::read(&file).unwrap();
    let rows = RedbStore::open(&file, CACHE).unwrap().load().unwrap();
    let mut jitter = bus::backoff::Jitter::new(1);
    let mut refused = 0;
    for _ in 0..60 {
        let mut bytes = whole.clone();
        let at = jitter.next_u64() as usize % bytes.len();
        let end = (at + 64).min(bytes.len());
        bytes[at..end].iter_mut().for_each(|b| *b = jitter.next_u64() as u8);
        std::fs::write(&file, &bytes).unwrap();
        match RedbStore::open(&file, CACHE).and_then(|mut store| store.load()) {
            Ok(read) => assert_eq!(read, rows, "damage at {at} went unseen"),
            Err(StoreError::Corrupt { .. } | StoreError::Format { .. }) => refused += 1,
            Err(other) => panic!("damage at {at}: {other}"),
        }
    }
    assert!(refused > 0);
}

#[test]
fn damage_that_comes_up_while_the_store_is_open_is_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(NAME);
    filled(&file);
    let whole = std::fs::read(&file).unwrap();
    let mut refused = 0;
    for seed in 0..20 {
        std::fs::write(&file, &whole).unwrap();
        let mut store = RedbStore::open(&file, 0).unwrap();
        let mut jitter = bus::backoff::Jitter::new(seed);
        let garbage: Vec<u8> = (4096..whole.len()).map(|_| jitter.next_u64() as u8).collect();
        std::os::unix::fs::FileExt::write_all_at(
            &std::fs::OpenOptions::new().write(true).open(&file).unwrap(),
            &garbage,
            4096,
        )
        .unwrap();
        refused += u32::from(store.commit(&[put(1000, "/c/k7", "new")]).is_err());
        refused += u32::from(store.commit(&[put(1001, "/c/k8", "new")]).is_err());
    }
    assert_eq!(refused, 40);
}

#[test]
fn what_becomes_of_samples_costs_the_tree_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(NAME);
    let mut store = RedbStore::open(&file, CACHE).unwrap();
    store.commit(&[put(1, "/c/a", "1")]).unwrap();
    let tree = std::fs::read(&file).unwrap();
    let sample = "/o/telemetry/00000000000000000001";
    store.commit(&[put(2, sample, "2")]).unwrap();
    assert_eq!(store.load().unwrap(), [row("/c/a", 1, Some("1")), row(sample, 2, Some("2"))]);
    // As a keyspace seals it: a commit that only removes rows says its revision.
    store.commit(&[Commit { forgotten: vec![key(sample)], ..put(3, "/sync/revision", "") }]).unwrap();
    assert_eq!(store.load().unwrap(), [row("/c/a", 1, Some("1"))]);
    assert!(std::fs::read(&file).unwrap() == tree, "the tree was written");
}
