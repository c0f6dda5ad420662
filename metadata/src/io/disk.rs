//! The files under a store: a folder's, or in tests those of a disk that loses power and fails.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// Where a store's files are.
pub(super) trait Disk: Debug + Send {
    /// The file's length in bytes, if it is there.
    fn length(&self, name: &str) -> io::Result<Option<u64>>;

    /// Opens the file for reading and writing; it is created if it is not there.
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>>;

    /// Gives a file another name, which is durable on return.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
}

/// A directory of the system.
#[derive(Debug)]
pub(super) struct Folder(pub(super) PathBuf);

impl Disk for Folder {
    fn length(&self, name: &str) -> io::Result<Option<u64>> {
        match std::fs::metadata(self.0.join(name)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(self.0.join(name))?;
        let_go(&file)?;
        let backend = FileBackend::new(file).map_err(|error| io::Error::other(redb::Error::from(error)))?;
        Ok(Box::new(backend))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.0.join(from), self.0.join(to))?;
        File::open(&self.0)?.sync_all()
    }
}

/// Makes reads show what is on the disk and not what the system remembers of it, which is more if a process died after
/// a failed sync (see [`Doubt`]). So the check of a store at its start is one of the disk.
fn let_go(file: &File) -> io::Result<()> {
    file.sync_data()?;
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// Whether what a file shows is more than what its disk may hold.
///
/// When a sync fails, the system forgets what it could not write and goes on showing it: a later sync succeeds and a
/// later read looks sound, until the power goes. So after a failed sync all that the file shows is written once more,
/// before anything else is built on it.
#[derive(Debug, Clone, Default)]
pub(super) struct Doubt(Arc<AtomicBool>);

/// What is read and written at once while a file is written once more.
const CHUNK: u64 = 64 << 10;

impl Doubt {
    /// A file that was never in doubt.
    pub(super) fn watch(&self, file: Box<dyn StorageBackend>) -> Watched {
        Watched { file, doubt: self.clone() }
    }

    /// A file that is opened again, free of doubt.
    pub(super) fn settle(&self, file: Box<dyn StorageBackend>) -> io::Result<Watched> {
        if self.0.load(Ordering::Acquire) {
            write_once_more(&*file)?;
            self.0.store(false, Ordering::Release);
        }
        Ok(self.watch(file))
    }
}

/// A power cut in the middle of this leaves each sector as it was before or as it is shown.
fn write_once_more(file: &dyn StorageBackend) -> io::Result<()> {
    const ALL: (Bound<u64>, Bound<u64>) = (Bound::Unbounded, Bound::Unbounded);
    // Somebody else may have opened the file in between, and their writes must not be undone.
    let locked = match file.try_lock_range(ALL.0, ALL.1) {
        Ok(false) => return Err(io::ErrorKind::ResourceBusy.into()),
        Ok(true) => true,
        Err(BackendError::Unsupported) => false,
        Err(error) => return Err(error.into()),
    };
    let written = copy_onto_itself(file);
    if locked {
        file.unlock_range(ALL.0, ALL.1)?;
    }
    written
}

fn copy_onto_itself(file: &dyn StorageBackend) -> io::Result<()> {
    let (mut at, end) = (0, file.len()?);
    let mut chunk = vec![0; CHUNK as usize];
    while at < end {
        let part = &mut chunk[..CHUNK.min(end - at) as usize];
        file.read(at, part)?;
        file.write(at, part)?;
        at += CHUNK;
    }
    file.sync_data()
}

/// A file of which it is noted when a sync fails.
#[derive(Debug)]
pub(super) struct Watched {
    file: Box<dyn StorageBackend>,
    doubt: Doubt,
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().inspect_err(|_| self.doubt.0.store(true, Ordering::Release))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
