//! [`Store`] on a redb file, with samples in a ring beside it.

use std::cell::Cell;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Once;

use bytes::Bytes;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, Table, TableDefinition};

use super::disk::{Disk, Doubt, Folder};
use super::ring::{self, Ring};
use crate::durability::Durability;
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

/// What a file may have besides: an empty one has 1 MiB.
const SMALL: u64 = 2 << 20;

/// The file beside the store that holds samples.
const RING: &str = "telemetry.ring";

/// One file, held by one process, and one beside it for rows that are worth less (`ring`).
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
    ring: Option<Ring>,
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
        let mut store = Self {
            disk,
            name: name.to_owned(),
            file,
            cache_bytes,
            doubt: Doubt::default(),
            database: None,
            ring: None,
        };
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

    fn commit_to_ring(&mut self, commits: &[Commit]) -> Result<(), StoreError> {
        if self.ring.is_none() {
            self.open_ring()?;
        }
        let appended = self.ring.as_mut().map_or(Ok(()), |ring| ring.append(commits));
        appended.map_err(|error| explain(&self.ring_file(), "write", error.into()))
    }

    /// The rows of the ring, if there is one.
    fn read_ring(&mut self) -> Result<Vec<Row>, StoreError> {
        match self.disk.length(RING) {
            Ok(Some(_)) => self.open_ring(),
            Ok(None) => Ok(Vec::new()),
            Err(error) => Err(explain(&self.ring_file(), "open", error.into())),
        }
    }

    /// It is made by the first sample.
    fn open_ring(&mut self) -> Result<Vec<Row>, StoreError> {
        let opened = self.disk.open(RING).and_then(Ring::open);
        let (ring, rows) = opened.map_err(|error| explain(&self.ring_file(), "open", error.into()))?;
        self.ring = Some(ring);
        Ok(rows)
    }

    fn ring_file(&self) -> PathBuf {
        self.file.with_file_name(RING)
    }

    fn commit_to_tree(&mut self, commits: &[Commit]) -> Result<(), StoreError> {
        let file = self.file.clone();
        let database = self.database()?;
        let written = unpanicked(&file, || write(database, |table| put_commits(table, commits)));
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.database = None;
                Err(explain(&file, "write", error))
            }
            Err(panicked) => {
                let database = self.database.take();
                // What panicked once may do so again while it is closed.
                unpanicked(&file, || drop(database)).ok();
                Err(panicked)
            }
        }
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

/// Puts what does not go into the ring.
fn put_commits(table: &mut Entries<'_>, commits: &[Commit]) -> Result<(), redb::StorageError> {
    for Commit { revision, writes, forgotten } in commits {
        for key in forgotten.iter().filter(|key| !ring::holds(key)) {
            table.remove(key.as_str())?;
        }
        for write in writes.iter().filter(|write| !ring::holds(&write.key)) {
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

thread_local! {
    static EXPECTS_PANIC: Cell<bool> = const { Cell::new(false) };
}

/// redb panics on some pages that a bad disk left (`unreachable!` on an unknown page type): that is an error here, and
/// the operator is not shown a backtrace of it.
fn unpanicked<T>(file: &Path, work: impl FnOnce() -> T) -> Result<T, StoreError> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !EXPECTS_PANIC.get() {
                others(panic);
            }
        }));
    });
    EXPECTS_PANIC.set(true);
    // Nothing of ours is shared with `work`: what it leaves half done is dropped with it.
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    EXPECTS_PANIC.set(false);
    done.map_err(|_| StoreError::Corrupt {
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
        let mut rows = unpanicked(&self.file.clone(), || self.read())??;
        self.shrink(&rows);
        rows.extend(self.read_ring()?);
        rows.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
        Ok(rows)
    }

    /// The rows of the ring are written on return, and not synced. A group in which nothing is more urgent goes to the
    /// ring alone.
    fn commit(&mut self, commits: &[Commit]) -> Result<(), StoreError> {
        let urgency = commits.iter().map(Commit::durability).max();
        if urgency.is_some_and(|urgency| urgency > Durability::Lazy) {
            self.commit_to_tree(commits)?;
        }
        if keys(commits).any(ring::holds) {
            self.commit_to_ring(commits)?;
        }
        Ok(())
    }
}

/// Closing writes, and so may meet a page that went bad.
impl Drop for RedbStore {
    fn drop(&mut self) {
        let database = self.database.take();
        unpanicked(&self.file, || drop(database)).ok();
    }
}

fn keys(commits: &[Commit]) -> impl Iterator<Item = &Key> {
    let written = commits.iter().flat_map(|commit| commit.writes.iter().map(|write| &write.key));
    written.chain(commits.iter().flat_map(|commit| &commit.forgotten))
}

#[cfg(test)]
mod tests;
