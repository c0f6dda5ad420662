//! `kubebus cloud restore`: a cloud's data directory out of a backup.
//!
//! ```text
//! read the backup to its end --> claim the directory --> keys, store, name --> release it
//!                                 (file `restoring`)
//! ```
//! No node starts in a directory that is claimed, so that a restore which was interrupted leaves nothing that runs; the
//! next try clears it and begins anew. The new cloud has the next epoch: edges that reached it follow the old one no
//! more.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use bus::{Identity, UnixMillis};
use controller::io::ca::{CertificateAuthority, OpenError};
use controller::resource;
use device_twin::model::Kind;
use metadata::io::RedbStore;
use metadata::{Commit, Keyspace, Revision, Row, Store, StoreError, Write, epoch};
use thiserror::Error;

use super::backup::format::{self, Header, ReadError};
use super::backup::{AUTHORITY, CACHE, STORE, now, sync_dir};
use super::damage;
use super::identity::{self, IdentityError, RESTORING};

/// What a fresh file system holds.
const LOST_AND_FOUND: &str = "lost+found";

/// Why there is no restored cloud.
#[derive(Debug, Error)]
pub enum RestoreError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(
        "{} is not empty: name another --data-dir, or move it away first (mv {} {}.old) if no node uses it any more",
        .0.display(), .0.display(), .0.display()
    )]
    NotEmpty(PathBuf),
    #[error("another restore into {} is under way", .0.display())]
    UnderWay(PathBuf),
    #[error("the epoch {given} is not above the backup's, {was}: its edges would not follow")]
    Epoch { given: u64, was: u64 },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the authority in the backup")]
    Authority(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The cloud that was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    pub identity: Identity,
    /// When the backup was taken.
    pub taken: UnixMillis,
    pub revision: Revision,
    pub epoch: u64,
    pub nodes: usize,
    pub devices: usize,
}

/// Reads a backup and makes a cloud of it in `data_dir`, which is empty or not there. `epoch` is the next one if not
/// given.
pub fn restore(input: impl Read, data_dir: &Path, epoch: Option<u64>) -> Result<Restored, RestoreError> {
    let mut rows = Vec::new();
    let header = format::read(input, |row| rows.push(row))?;
    let epoch = epoch.unwrap_or(header.epoch.saturating_add(1));
    if epoch <= header.epoch {
        return Err(RestoreError::Epoch { given: epoch, was: header.epoch });
    }
    let claim = Claim::take(data_dir)?;
    let keyspace = build(data_dir, &header, rows, epoch)?;
    claim.release()?;
    Ok(Restored {
        identity: header.identity,
        taken: header.taken,
        revision: keyspace.revision(),
        epoch,
        nodes: keyspace.range("/c/node/").count(),
        devices: resource::list(Kind::Device, None, &keyspace).count(),
    })
}

fn build(dir: &Path, header: &Header, rows: Vec<Row>, epoch: u64) -> Result<Keyspace, RestoreError> {
    write_keys(dir, header)?;
    let rows = epoch::restored(rows, epoch);
    let commits = commits_of(&rows);
    let keyspace = Keyspace::load(rows);
    let mut store = RedbStore::open(dir.join(STORE), CACHE)?;
    store.commit(&commits)?;
    drop(store);
    let path = dir.join(STORE);
    sync_dir(&path).map_err(|source| RestoreError::File { path, source })?;
    damage::mark(dir)?;
    identity::claim_restored(dir, &header.identity)?;
    Ok(keyspace)
}

/// The authority is opened as the cloud will open it: keys that are no pair show now.
fn write_keys(dir: &Path, header: &Header) -> Result<(), RestoreError> {
    let authority = dir.join(AUTHORITY);
    let ca = authority.parent().unwrap_or(dir).to_owned();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&ca).and_then(|()| sync_dir(&ca));
    made.map_err(|source| RestoreError::File { path: ca.clone(), source })?;
    identity::write(&authority, &header.authority)?;
    identity::save_key(dir, &header.key)?;
    CertificateAuthority::open_or_create(&ca, &header.identity.cluster, now())?;
    Ok(())
}

/// The rows as the commits that made them, as far as they still show.
pub(super) fn commits_of(rows: &[Row]) -> Vec<Commit> {
    let mut writes: BTreeMap<Revision, Vec<Write>> = BTreeMap::new();
    for (key, revision, value) in rows {
        writes.entry(*revision).or_default().push(Write { key: key.clone(), value: value.clone() });
    }
    let commit = |(revision, writes)| Commit { revision, writes, forgotten: Vec::new() };
    writes.into_iter().map(commit).collect()
}

/// A data directory that nobody starts in, by a file of which the restore at work holds the lock.
struct Claim {
    marker: PathBuf,
    /// Open as long as the claim: the lock goes with it.
    _lock: File,
}

impl Claim {
    fn take(dir: &Path) -> Result<Self, RestoreError> {
        identity::create_data_dir(dir)?;
        let marker = dir.join(RESTORING);
        let was_interrupted = marker.exists();
        if !was_interrupted && !is_empty(dir)? {
            return Err(RestoreError::NotEmpty(dir.to_owned()));
        }
        let failed = |source| RestoreError::File { path: marker.clone(), source };
        let lock = File::options().write(true).create_new(!was_interrupted).open(&marker).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RestoreError::UnderWay(dir.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Another restore may have come to its end between the look and the lock.
        if !marker.exists() {
            return Err(RestoreError::NotEmpty(dir.to_owned()));
        }
        sync_dir(&marker).map_err(failed)?;
        if was_interrupted {
            clear(dir)?;
        }
        // Or a node may have started.
        if !is_empty(dir)? {
            let _ = std::fs::remove_file(&marker);
            return Err(RestoreError::NotEmpty(dir.to_owned()));
        }
        Ok(Self { marker, _lock: lock })
    }

    fn release(self) -> Result<(), RestoreError> {
        let released = std::fs::remove_file(&self.marker).and_then(|()| sync_dir(&self.marker));
        released.map_err(|source| RestoreError::File { path: self.marker, source })
    }
}

/// Whether nothing but a claim is there.
fn is_empty(dir: &Path) -> Result<bool, RestoreError> {
    let failed = |source| RestoreError::File { path: dir.to_owned(), source };
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name != RESTORING && name != LOST_AND_FOUND {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes what a restore that was interrupted wrote, and nothing else.
fn clear(dir: &Path) -> Result<(), RestoreError> {
    for name in [AUTHORITY, STORE, damage::MARKER].into_iter().chain(identity::RESTORED) {
        let path = dir.join(name);
        for path in [path.with_extension("new"), path] {
            gone(std::fs::remove_file(&path), path)?;
        }
    }
    let ca = dir.join(AUTHORITY).parent().unwrap_or(dir).to_owned();
    gone(std::fs::remove_dir(&ca), ca)
}

fn gone(removed: io::Result<()>, path: PathBuf) -> Result<(), RestoreError> {
    match removed {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(RestoreError::File { path, source }),
        _ => Ok(()),
    }
}
