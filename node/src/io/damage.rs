//! A store that is damaged or gone: what the operator is told, and an edge's start with a new one.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use metadata::StoreError;
use thiserror::Error;

use super::identity::{self, IdentityError};

/// The node's store in its data directory.
pub(super) const STORE: &str = "store.redb";

/// There from the first time that the store was open: a directory with this file and without a store has lost it (its
/// volume is not mounted, somebody moved it), and is no new node's.
pub(super) const MARKER: &str = "store-was-made";

/// For the reader of a directory listing.
const MARKER_SAYS: &str =
    "store.redb was made here; while this file is there, kubebus makes no new one in its place unasked\n";

/// What an edge without its store has lost, and what not.
const LOSS: &str = "what waited to go up, except for samples, and what rules had latched";

/// As many damaged stores are kept as this; a disk that damages one more is not trusted with another.
const MAX_KEPT: usize = 8;

/// Why a node does not start on the store that it has.
#[derive(Debug, Error)]
pub(super) enum DamageError {
    #[error(
        "this edge has lost {LOSS}; twins and metadata come from the cloud again. Start it with 'kubebus edge \
         --renew-store' once: it makes a new store and keeps the damaged one beside it"
    )]
    OfEdge(#[source] StoreError),
    #[error(
        "the store {store} is gone: mount its volume, or put the file back. If it is lost, so is {LOSS}; twins and \
         metadata come from the cloud again: start with 'kubebus edge --renew-store' once, which makes a new store"
    )]
    EdgesGone { store: PathBuf },
    #[error(
        "the store {store} is gone: mount its volume, or put the file back. If it is lost, move {data_dir} away and \
         restore the last backup in its place: kubebus cloud restore FILE --data-dir {data_dir}"
    )]
    CloudsGone { store: PathBuf, data_dir: PathBuf },
    #[error(
        "this cloud has lost what was written since its last backup. Move {data_dir} away and put the backup in its \
         place: kubebus cloud restore FILE --data-dir {data_dir}"
    )]
    OfCloud {
        data_dir: PathBuf,
        #[source]
        source: StoreError,
    },
    #[error(
        "{MAX_KEPT} damaged stores are kept in {data_dir} already: replace the disk, or delete them to make another store"
    )]
    TooMany { data_dir: PathBuf },
    #[error("cannot keep the damaged store as {kept}")]
    Keep {
        kept: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Other(StoreError),
}

impl DamageError {
    pub(super) fn of_cloud(data_dir: &Path, error: StoreError) -> Self {
        match is_damage(&error) {
            true => Self::OfCloud { data_dir: data_dir.to_owned(), source: error },
            false => Self::Other(error),
        }
    }

    /// Of an edge without a store that it had.
    pub(super) fn of_edge_without(data_dir: &Path) -> Self {
        Self::EdgesGone { store: data_dir.join(STORE) }
    }

    pub(super) fn of_edge(error: StoreError) -> Self {
        if is_damage(&error) { Self::OfEdge(error) } else { Self::Other(error) }
    }
}

/// Whether the store is there, ours to use, and not to be used any more.
pub(super) fn is_damage(error: &StoreError) -> bool {
    matches!(error, StoreError::Corrupt { .. })
}

/// Says of the directory that its store was there. The store's name is on the disk before this file's is.
pub(super) fn mark(data_dir: &Path) -> Result<(), IdentityError> {
    let marker = data_dir.join(MARKER);
    if marker.exists() { Ok(()) } else { identity::write(&marker, MARKER_SAYS.as_bytes()) }
}

/// Whether the store was there and is no more.
pub(super) fn is_gone(data_dir: &Path) -> bool {
    data_dir.join(MARKER).exists() && !data_dir.join(STORE).exists()
}

/// Refuses a cloud whose store is gone: an empty one under its name would turn its edges away.
pub(super) fn check_cloud_has_its_store(data_dir: &Path) -> Result<(), DamageError> {
    match is_gone(data_dir) {
        true => Err(DamageError::CloudsGone { store: data_dir.join(STORE), data_dir: data_dir.to_owned() }),
        false => Ok(()),
    }
}

/// Moves the store of an edge to a name that says so, and returns that. Nothing is deleted: `telemetry.ring` stays
/// where it is and serves the next store.
pub(super) fn set_aside(data_dir: &Path) -> Result<PathBuf, DamageError> {
    let free = (1..=MAX_KEPT).map(|n| kept(data_dir, n)).find(|kept| !kept.exists());
    let kept = free.ok_or_else(|| DamageError::TooMany { data_dir: data_dir.to_owned() })?;
    let moved = std::fs::rename(data_dir.join(STORE), &kept).and_then(|()| File::open(data_dir)?.sync_all());
    match moved {
        Ok(()) => Ok(kept),
        Err(source) => Err(DamageError::Keep { kept, source }),
    }
}

/// The damaged stores that were set aside and are still there.
pub(super) fn set_aside_before(data_dir: &Path) -> Vec<String> {
    let all = (1..=MAX_KEPT).map(|n| kept(data_dir, n)).filter(|kept| kept.exists());
    all.map(|kept| kept.display().to_string()).collect()
}

fn kept(data_dir: &Path, n: usize) -> PathBuf {
    data_dir.join(format!("{STORE}.damaged-{n}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_stores_are_kept_up_to_a_bound_and_no_two_under_one_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join(STORE);
        for n in 1..=MAX_KEPT {
            std::fs::write(&store, n.to_string()).unwrap();
            let kept = set_aside(dir.path()).unwrap();
            assert_eq!(std::fs::read_to_string(&kept).unwrap(), n.to_string());
            assert_eq!(set_aside_before(dir.path()).len(), n);
        }
        std::fs::write(&store, "one more").unwrap();
        assert!(matches!(set_aside(dir.path()), Err(DamageError::TooMany { .. })));
        assert_eq!(std::fs::read_to_string(&store).unwrap(), "one more");
    }
}
