//! [`Store`] on a redb file.

use std::cell::Cell;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, Table, TableDefinition};

use super::disk::{Disk, Doubt, Folder};
use crate::key::{Commit, Key, Revision};
use crate::store::{Row, Store, StoreError};

/// Key to (revision, value); no value is a tombstone.
const ENTRIES: TableDefinition<'_, &str, (u64, Option<&[u8]>)> = TableDefinition::new("entries");

type Entries<'a> = Table<'a, &'static str, (u64, Option<&'static [u8]>)>;

/// A row in a page, besides key and value.
const ROW_BYTES: usize = 24;

/// A file of more than so many times its rows is copied into a small one at the start. Pages are at least half full, so
/// this is twice of what the rows need.
const SPARSE: u64 = 4;

/// What a file may have besides; below this it is not worth a copy.
const SMALL: u64 = 1 << 20;

/// One file, held by one process.
#[derive(Debug)]
pub struct RedbStore {
    disk: Box<dyn Disk>,
    /// Its name on the disk.
    name: String,
    /// Its name to people.
    file: PathBuf,
    cache_bytes: usize,
    doubt: Doubt,
    /// `None` after a failed write: redb takes no further one on a handle that met an I/O error, so the next commit opens
    /// the file anew.
    database: Option<Database>,
}

impl RedbStore {
    /// Opens `file`, which is created if it is not there. `cache_bytes` bounds redb's page cache: 2 to 4 MiB serve an
    /// edge, as all values are in memory anyway. Reads the whole file once to check it.
    pub fn open(file: impl AsRef<Path>, cache_bytes: usize) -> Result<Self, StoreError> {
        let file = file.as_ref();
        let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let folder = Folder(file.parent().map(Path::to_owned).unwrap_or_default());
        Self::open_on(Box::new(folder), name, file.to_owned(), cache_bytes)
    }

    pub(super) fn open_on(
        disk: Box<dyn Disk>,
        name: &str,
        file: PathBuf,
        cache_bytes: usize,
    ) -> Result<Self, StoreError> {
        let mut store =
            Self { disk, name: name.to_owned(), file, cache_bytes, doubt: Doubt::default(), database: None };
        store.database()?;
        Ok(store)
    }

    fn database(&mut self) -> Result<&Database, StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.open_checked()?,
        };
        Ok(self.database.insert(database))
    }

    fn open_checked(&self) -> Result<Database, StoreError> {
        let opened = unpanicked(&self.file, || {
            if self.disk.length(&self.name)?.is_none() {
                drop(self.replace_by_copy(&[])?);
            }
            self.open_and_verify()
        })?;
        match opened.map_err(|error| explain(&self.file, "open", error))? {
            (database, true) => Ok(database),
            (_, false) => Err(self.corrupt("its checksums do not match, and a repair would lose commits")),
        }
    }

    /// The whole file is read and its checksums are compared: by redb's repair after a crash, else by its check.
    fn open_and_verify(&self) -> Result<(Database, bool), redb::Error> {
        if self.disk.length(&self.name)? == Some(0) {
            return Err(redb::Error::Corrupted("it is empty".to_owned()));
        }
        let was_repaired = Rc::new(Cell::new(false));
        let repairing = Rc::clone(&was_repaired);
        let mut builder = self.builder();
        builder.set_repair_callback(move |_| repairing.set(true));
        let mut database = builder.create_with_backend(self.doubt.settle(self.disk.open(&self.name)?)?)?;
        let is_sound = was_repaired.get() || database.check_integrity()?;
        Ok((database, is_sound))
    }

    fn builder(&self) -> Builder {
        let mut builder = Database::builder();
        builder.set_cache_size(self.cache_bytes);
        builder
    }

    /// Makes a file of `rows` alone, which gets the store's name when it is whole: a power cut leaves what was there
    /// before, or the new file.
    fn replace_by_copy(&self, rows: &[Row]) -> Result<Database, redb::Error> {
        let unborn = format!("{}.new", self.name);
        let file = self.disk.open(&unborn)?;
        file.set_len(0)?;
        let database = self.builder().create_with_backend(self.doubt.watch(file))?;
        write(&database, |table| put_rows(table, rows))?;
        self.disk.rename(&unborn, &self.name)?;
        Ok(database)
    }

    /// Copies a file that once held much more than now into a small one.
    fn shrink(&mut self, rows: &[Row]) {
        let bytes: usize = rows
            .iter()
            .map(|(key, _, value)| ROW_BYTES + key.as_str().len() + value.as_ref().map_or(0, Bytes::len))
            .sum();
        let length = self.disk.length(&self.name).ok().flatten();
        if length.is_none_or(|length| length <= SPARSE * bytes as u64 + SMALL) {
            return;
        }
        // Where it fails, the old file goes on to serve. Which of the two has the name is seen when it is opened.
        self.database = self.replace_by_copy(rows).ok();
    }

    fn corrupt(&self, found: &str) -> StoreError {
        StoreError::Corrupt { file: self.file.clone(), found: found.to_owned(), source: None }
    }

    fn read(&mut self) -> Result<Vec<Row>, StoreError> {
        let file = self.file.clone();
        let read = |error: redb::Error| explain(&file, "read", error);
        let transaction = self.database()?.begin_read().map_err(|e| read(e.into()))?;
        let table = match transaction.open_table(ENTRIES) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(read(error.into())),
        };
        let mut rows = Vec::new();
        for row in table.iter().map_err(|e| read(e.into()))? {
            let (key, value) = row.map_err(|e| read(e.into()))?;
            let (revision, value) = value.value();
            let key = Key::new(key.value()).map_err(|error| StoreError::Corrupt {
                file: file.clone(),
                found: "it holds a name that is no key".into(),
                source: Some(error.into()),
            })?;
            rows.push((key, Revision(revision), value.map(Bytes::copy_from_slice)));
        }
        Ok(rows)
    }
}

fn write(
    database: &Database,
    fill: impl FnOnce(&mut Entries<'_>) -> Result<(), redb::StorageError>,
) -> Result<(), redb::Error> {
    // Durability is immediate by default: `commit` returns after the fsync.
    let transaction = database.begin_write()?;
    fill(&mut transaction.open_table(ENTRIES)?)?;
    Ok(transaction.commit()?)
}

fn put_commits(table: &mut Entries<'_>, commits: &[Commit]) -> Result<(), redb::StorageError> {
    for Commit { revision, writes, forgotten } in commits {
        for key in forgotten {
            table.remove(key.as_str())?;
        }
        for write in writes {
            table.insert(write.key.as_str(), (revision.0, write.value.as_deref()))?;
        }
    }
    Ok(())
}

fn put_rows(table: &mut Entries<'_>, rows: &[Row]) -> Result<(), redb::StorageError> {
    for (key, revision, value) in rows {
        table.insert(key.as_str(), (revision.0, value.as_deref()))?;
    }
    Ok(())
}

/// redb panics on some pages that a bad disk left (`unreachable!` on an unknown page type): that is an error here.
fn unpanicked<T>(file: &Path, work: impl FnOnce() -> T) -> Result<T, StoreError> {
    // Nothing of ours is shared with `work`: what it leaves half done is dropped with it.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|_| StoreError::Corrupt {
        file: file.to_owned(),
        found: "a page makes no sense".into(),
        source: None,
    })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "redb's errors are open-ended; to an operator the rest is one"
)]
fn explain(file: &Path, doing: &'static str, error: redb::Error) -> StoreError {
    let file = file.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen => StoreError::Locked { file },
        redb::Error::UpgradeRequired(_) => StoreError::Format { file },
        redb::Error::Corrupted(found) => StoreError::Corrupt { file, found, source: None },
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            StoreError::Corrupt { file, found: "it is no store".into(), source: Some(error.into()) }
        }
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => StoreError::Corrupt {
            file,
            found: "a page lies beyond its end".into(),
            source: Some(error.into()),
        },
        other => StoreError::Io { file, doing, source: other.into() },
    }
}

impl Store for RedbStore {
    fn load(&mut self) -> Result<Vec<Row>, StoreError> {
        let rows = unpanicked(&self.file.clone(), || self.read())??;
        self.shrink(&rows);
        Ok(rows)
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<(), StoreError> {
        let written = write(self.database()?, |table| put_commits(table, commits));
        written.map_err(|error| {
            self.database = None;
            explain(&self.file, "write", error)
        })
    }
}

#[cfg(test)]
mod tests {
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
}
