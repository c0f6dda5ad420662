//! `kubebus cloud backup`: all that a cloud is, in one file.
//!
//! ```text
//! running cloud: keyspace, sealed and durable --.
//!                                                +--> Encoder --> draft beside FILE --> read back --> FILE
//! stopped cloud: its store ---------------------'
//! ```
//! The file holds the authority's key: whoever reads it can make nodes of this cluster. It is readable by its owner
//! only; encrypting it is the operator's (`kubebus cloud backup - | age -r ...`).

pub mod format;

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, IsTerminal, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::UnixMillis;
use metadata::io::RedbStore;
use metadata::{Keyspace, Store, StoreError};
use thiserror::Error;

use self::format::{Encoder, Header, ReadError};
use super::admin::{AskError, ask_for_backup, terminate};
use super::identity::{self, IdentityError};
use crate::admin::Snapshot;

/// The authority's key and certificate, below the data directory.
pub(super) const AUTHORITY: &str = "ca/ca.pem";

/// The store, below the data directory.
pub(super) const STORE: &str = "store.redb";
/// Of a cloud whose store is etcd: what edges report.
pub(super) const LOCAL_STORE: &str = "reported.redb";

/// Page cache for reading or writing a store once.
pub(super) const CACHE: usize = 8 << 20;

/// How long a cloud may take to end: goodbyes, and its last commits on a slow disk.
const ENDING: Duration = Duration::from_secs(30);

/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Why there is no backup.
#[derive(Debug, Error)]
pub enum BackupError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{} is no cloud's data directory", .0.display())]
    NoCloud(PathBuf),
    #[error("the store {} is gone: there is nothing to back up; restore the last backup", .0.display())]
    NoStore(PathBuf),
    #[error(
        "this cloud keeps its state in etcd: back it, or a replica of it, up while it runs; or back up etcd ('etcdctl \
         snapshot save')"
    )]
    InEtcd,
    #[error("a backup holds the cluster's keys and is not shown: name a file, or pipe it on")]
    Terminal,
    #[error("cannot write {}", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} does not read back as it was written: is that disk sound?", .path.display())]
    ReadBack {
        path: PathBuf,
        #[source]
        source: ReadError,
    },
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub header: Header,
    pub rows: u64,
    pub bytes: u64,
}

/// What is done before the backup is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    Nothing,
    /// The cloud ends, and does not start again: what the backup holds is all that it ever was.
    Stop,
}

/// Backs up the cloud whose data directory this is, running or stopped. `file` is there whole or not at all, and one
/// that was there is replaced.
pub async fn to_file(data_dir: &Path, file: &Path, first: First) -> Result<Taken, BackupError> {
    let mut draft = Draft::create(file)?;
    let path = draft.path.clone();
    let failed = |source| BackupError::Write { path: path.clone(), source };
    match write(data_dir, first, |piece| draft.file.write_all(piece)).await {
        Err(BackupError::Ask(AskError::Keep(source))) => return Err(failed(source)),
        written => written?,
    }
    draft.finish()
}

/// The same to standard output, for a program that encrypts or carries it away.
pub async fn to_stdout(data_dir: &Path, first: First) -> Result<(), BackupError> {
    let mut stdout = io::stdout();
    if stdout.is_terminal() {
        return Err(BackupError::Terminal);
    }
    write(data_dir, first, |piece| stdout.write_all(piece)).await?;
    stdout.flush().map_err(|source| BackupError::Ask(AskError::Keep(source)))
}

async fn write(
    data_dir: &Path,
    first: First,
    mut keep: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), BackupError> {
    if first == First::Stop {
        stop(data_dir).await?;
        return write_stopped(data_dir, keep).await;
    }
    match ask_for_backup(data_dir, &mut keep).await {
        Err(not_running @ AskError::NotRunning { .. }) => match identity::cloud_of(data_dir)? {
            Some(_) => write_stopped(data_dir, keep).await,
            None => Err(not_running.into()),
        },
        answered => Ok(answered?),
    }
}

/// Ends the cloud, if it runs, in order: what it said is on its disk then. It is marked before, so that nobody who
/// looks after it starts it again.
async fn stop(data_dir: &Path) -> Result<(), BackupError> {
    if identity::cloud_of(data_dir)?.is_none() {
        return Err(BackupError::NoCloud(data_dir.to_owned()));
    }
    check_is_here(data_dir)?;
    identity::mark_moved(data_dir)?;
    match terminate(data_dir).await {
        Ok(()) | Err(AskError::NotRunning { .. }) => Ok(()),
        Err(error) => {
            identity::unmark_moved(data_dir)?;
            Err(error.into())
        }
    }
}

/// Of a cloud whose store is etcd only a part is in its directory.
fn check_is_here(data_dir: &Path) -> Result<(), BackupError> {
    if data_dir.join(LOCAL_STORE).exists() { Err(BackupError::InEtcd) } else { Ok(()) }
}

async fn write_stopped(
    data_dir: &Path,
    mut keep: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), BackupError> {
    let identity = identity::cloud_of(data_dir)?.ok_or_else(|| BackupError::NoCloud(data_dir.to_owned()))?;
    check_is_here(data_dir)?;
    // Opening would make one, and an empty backup in the place of a good one.
    if !data_dir.join(STORE).exists() {
        return Err(BackupError::NoStore(data_dir.join(STORE)));
    }
    let mut store = open_stopped(data_dir).await?;
    let keyspace = Keyspace::load(store.load()?);
    let (revision, epoch) = (keyspace.revision(), metadata::epoch::get(&keyspace));
    let snapshot = Snapshot { identity, revision, epoch, rows: keyspace.rows().collect() };
    let mut pieces = encode(snapshot, data_dir)?;
    pieces.try_for_each(|piece| keep(&piece)).map_err(|source| AskError::Keep(source).into())
}

/// The store of a cloud that has ended, or is about to; while it is open here, no cloud starts.
async fn open_stopped(data_dir: &Path) -> Result<RedbStore, StoreError> {
    for _ in 0..ENDING.as_millis() / LOOK.as_millis() {
        match RedbStore::open(data_dir.join(STORE), CACHE) {
            Err(StoreError::Locked { .. }) => tokio::time::sleep(LOOK).await,
            opened => return opened,
        }
    }
    RedbStore::open(data_dir.join(STORE), CACHE)
}

/// A backup of `snapshot`, with the keys that are in `data_dir`.
pub fn encode(snapshot: Snapshot, data_dir: &Path) -> Result<Encoder, IdentityError> {
    let Snapshot { identity, revision, epoch, rows } = snapshot;
    let header = Header {
        identity,
        revision,
        epoch,
        taken: now(),
        authority: identity::read(&data_dir.join(AUTHORITY))?,
        key: identity::read(&data_dir.join(identity::KEY))?,
    };
    Ok(Encoder::new(&header, rows))
}

pub(super) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A file that takes its name when it is whole, and is removed if it never does.
struct Draft {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl Draft {
    /// Never a file that is there already, nor through a link (`O_EXCL`): where others may make files too, such as in
    /// `/tmp`, the authority's key would land in theirs.
    fn create(target: &Path) -> Result<Self, BackupError> {
        let failed = |path: &Path, source| BackupError::Write { path: path.to_owned(), source };
        let mut suffix = [0; 8];
        getrandom::fill(&mut suffix).map_err(|error| failed(target, error.into()))?;
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{:016x}.new", u64::from_le_bytes(suffix)));
        let path = target.with_file_name(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        match options.open(&path) {
            Ok(file) => Ok(Self { file, path, target: target.to_owned() }),
            Err(source) => Err(failed(&path, source)),
        }
    }

    /// Reads it back from the start, and gives it its name.
    fn finish(mut self) -> Result<Taken, BackupError> {
        let taken = self.check()?;
        let named = std::fs::rename(&self.path, &self.target).and_then(|()| sync_dir(&self.target));
        named.map_err(|source| BackupError::Write { path: self.target.clone(), source })?;
        Ok(taken)
    }

    fn check(&mut self) -> Result<Taken, BackupError> {
        let flushed = self.file.sync_all().and_then(|()| self.file.rewind());
        flushed.map_err(|source| BackupError::Write { path: self.path.clone(), source })?;
        let mut rows = 0;
        let header = format::read(BufReader::new(&self.file), |_| rows += 1)
            .map_err(|source| BackupError::ReadBack { path: self.target.clone(), source })?;
        let bytes = self.file.metadata().map(|metadata| metadata.len()).unwrap_or_default();
        Ok(Taken { header, rows, bytes })
    }
}

/// Once it has its name there is nothing left to remove.
impl Drop for Draft {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The directory in which `path` is, so that a name survives a power cut.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}
