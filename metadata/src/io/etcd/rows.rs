//! What is under the prefix: names of keys, rows, and groups of commits cut to what etcd takes at once.

use std::collections::BTreeMap;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::key::{Commit, Key, Revision};
use crate::store::Row;

/// Operations in one transaction: etcd takes 128 (`--max-txn-ops`), and a few of ours come on top.
pub(super) const MAX_OPS: usize = 100;

/// Keys and values in one transaction. etcd takes requests of 1.5 MiB (`--max-request-bytes`). A row that is larger by
/// itself has a transaction of its own; the largest that `kubebus apply` takes, 1 MiB, fits.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// What a key costs in a request besides its own length and its value's.
const OVERHEAD: usize = 32;

/// Where things lie, below `/kubebus/<cluster>/`.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// Who leads; lives as long as the leader's lease.
    pub(super) leader: String,
    /// [`Head`]: changes with every commit.
    pub(super) head: String,
    /// [`Mark`]: this redo record is committed.
    pub(super) mark: String,
    /// The chunks of redo records lie below this.
    pub(super) chunks: String,
    /// One row each below this.
    pub(super) rows: String,
    /// What replicas share besides rows lies below this.
    pub(super) files: String,
}

impl Keys {
    pub(super) fn below(prefix: &str) -> Self {
        let at = |name: &str| format!("{prefix}{name}");
        Self {
            leader: at("leader"),
            head: at("head"),
            mark: at("redo"),
            chunks: at("redo/"),
            rows: at("row/"),
            files: at("file/"),
        }
    }

    /// A key of ours begins with '/': `/c/node/a` lies at `row/c/node/a`.
    pub(super) fn row(&self, key: &Key) -> String {
        format!("{}{}", self.rows, &key.as_str()[1..])
    }

    pub(super) fn chunk(&self, mark: &Mark, number: u32) -> String {
        format!("{}{:016x}-{}/{number:06}", self.chunks, mark.run, mark.attempt)
    }

    /// The two ranges of keys, each without its end, around the chunks of a run.
    pub(super) fn chunks_of_others(&self, run: u64) -> [(String, String); 2] {
        let own = |after: char| format!("{}{run:016x}{after}", self.chunks);
        let end = format!("{}0", self.chunks.trim_end_matches('/'));
        // '.' follows '-', and '0' follows '/'.
        [(self.chunks.clone(), own('-')), (own('.'), end)]
    }
}

/// Which commit was the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Head {
    /// Whose it was; kept from start to start.
    #[n(0)]
    pub(super) writer: u64,
    /// The process that wrote it.
    #[n(1)]
    pub(super) run: u64,
    /// Which of its commits it was.
    #[n(2)]
    pub(super) attempt: u64,
}

/// A committed redo record.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Mark {
    #[n(0)]
    pub(super) run: u64,
    #[n(1)]
    pub(super) attempt: u64,
    #[n(2)]
    pub(super) chunks: u32,
}

/// One row's change; `None` removes it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Change {
    /// In etcd.
    #[n(0)]
    pub(super) at: String,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) row: Option<Vec<u8>>,
}

impl Change {
    fn len(&self) -> usize {
        OVERHEAD + self.at.len() + self.row.as_ref().map_or(0, Vec::len)
    }
}

/// What a group of commits comes to: etcd refuses a transaction that names a key twice.
pub(super) fn fold(commits: &[Commit], keys: &Keys) -> Vec<Change> {
    let mut latest: BTreeMap<&Key, Option<Vec<u8>>> = BTreeMap::new();
    for commit in commits {
        latest.extend(commit.forgotten.iter().map(|key| (key, None)));
        let row = |value: &Option<Bytes>| Some(encode_row(commit.revision, value.as_deref()));
        latest.extend(commit.writes.iter().map(|write| (&write.key, row(&write.value))));
    }
    latest.into_iter().map(|(key, row)| Change { at: keys.row(key), row }).collect()
}

/// Cuts changes into groups that each fit one transaction.
pub(super) fn cut(changes: &[Change]) -> Vec<&[Change]> {
    let mut groups = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (at, change) in changes.iter().enumerate() {
        if at > from && (at - from == MAX_OPS || bytes + change.len() > MAX_BYTES) {
            groups.push(&changes[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += change.len();
    }
    if from < changes.len() {
        groups.push(&changes[from..]);
    }
    groups
}

/// Revision, then what kind of row it is, then the value.
fn encode_row(Revision(revision): Revision, value: Option<&[u8]>) -> Vec<u8> {
    let mut row = revision.to_be_bytes().to_vec();
    row.push(u8::from(value.is_some()));
    row.extend_from_slice(value.unwrap_or_default());
    row
}

/// `None`: this is no row of ours.
pub(super) fn decode_row(keys: &Keys, at: &[u8], row: &[u8]) -> Option<Row> {
    let name = std::str::from_utf8(at).ok()?.strip_prefix(keys.rows.trim_end_matches('/'))?;
    let (revision, rest) = row.split_first_chunk::<8>()?;
    let value = match rest.split_first()? {
        (0, []) => None,
        (1, value) => Some(Bytes::copy_from_slice(value)),
        _ => return None,
    };
    Some((Key::new(name).ok()?, Revision(u64::from_be_bytes(*revision)), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{commit, delete, key, put, row};
    use proptest::prelude::*;

    fn keys() -> Keys {
        Keys::below("/kubebus/water/")
    }

    #[test]
    fn a_row_reads_back() {
        for wanted in [row("/c/a", 7, Some("v")), row("/c/b", u64::MAX, Some("")), row("/c//", 1, None)] {
            let (key, revision, value) = &wanted;
            let found =
                decode_row(&keys(), keys().row(key).as_bytes(), &encode_row(*revision, value.as_deref()));
            assert_eq!(found, Some(wanted));
        }
    }

    #[test]
    fn of_a_group_the_last_change_of_each_key_counts() {
        let mut forgets = put(4, "/c/d", "4");
        forgets.forgotten = vec![key("/c/b")];
        let group = [put(1, "/c/a", "1"), put(2, "/c/b", "2"), delete(3, "/c/a"), forgets];
        let change = |at: &str, row| Change { at: keys().row(&key(at)), row };
        let wanted = [
            change("/c/a", Some(encode_row(Revision(3), None))),
            change("/c/b", None),
            change("/c/d", Some(encode_row(Revision(4), Some(b"4")))),
        ];
        assert_eq!(fold(&group, &keys()), wanted);
    }

    proptest! {
        #[test]
        fn what_is_cut_fits_and_is_whole(sizes in prop::collection::vec(0_usize..600_000, 0..300)) {
            let value = |size: usize| Some(Bytes::from(vec![b'x'; size]));
            let writes = sizes.iter().enumerate().map(|(n, size)| (key(&format!("/c/{n:04}")), value(*size)));
            let changes = fold(&[commit(1, writes)], &keys());
            let groups = cut(&changes);
            for group in groups.iter() {
                let bytes: usize = group.iter().map(Change::len).sum();
                prop_assert!(group.len() <= MAX_OPS && bytes <= MAX_BYTES);
            }
            prop_assert_eq!(groups.concat(), changes);
        }

        #[test]
        fn any_bytes_are_a_row_or_none(at in prop::collection::vec(any::<u8>(), 0..40),
                                       row in prop::collection::vec(any::<u8>(), 0..40)) {
            decode_row(&keys(), &at, &row);
            let at = [keys().rows.as_bytes(), b"c/x"].concat();
            decode_row(&keys(), &at, &row);
        }
    }
}
