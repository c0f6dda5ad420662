//! A store that is damaged: what the operator is told, and an edge's start with a new one.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use metadata::StoreError;
use thiserror::Error;

/// The node's store in its data directory.
pub(super) const STORE: &str = "store.redb";

/// As many damaged stores are kept as this; a disk that damages one more is not trusted with another.
const MAX_KEPT: usize = 8;

/// Why a node does not start on the store that it has.
#[derive(Debug, Error)]
pub(super) enum DamageError {
    #[error(
        "this edge has lost what waited to go up, except for samples, and what rules had latched; twins and metadata \
         come from the cloud again. Start it with 'kubebus edge --renew-store' once: it makes a new store and keeps the \
         damaged one beside it"
    )]
    OfEdge(#[source] StoreError),
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

    pub(super) fn of_edge(error: StoreError) -> Self {
        if is_damage(&error) { Self::OfEdge(error) } else { Self::Other(error) }
    }
}

/// Whether the store is there, ours to use, and not to be used any more.
pub(super) fn is_damage(error: &StoreError) -> bool {
    matches!(error, StoreError::Corrupt { .. })
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
