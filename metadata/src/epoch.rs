//! Which of two clouds goes on, when one was restored from a backup of the other: the one with the higher epoch.
//!
//! An edge keeps the highest epoch that it followed and says it in each hello. A cloud that hears of a higher one than
//! its own, and an edge that is welcomed with a lower one, end the link.

use bytes::Bytes;

use crate::key::{Key, Revision};
use crate::keyspace::Keyspace;
use crate::store::Row;

/// A cloud that was never restored, and an edge that never followed one.
pub const FIRST: u64 = 1;

const KEY: &str = "/sync/epoch";

/// At a cloud: its own. At an edge: the highest that it followed.
pub fn get(ks: &Keyspace) -> u64 {
    let stored = ks.get(KEY).and_then(|bytes| <[u8; 8]>::try_from(&bytes[..]).ok());
    stored.map_or(FIRST, u64::from_be_bytes)
}

pub fn set(ks: &mut Keyspace, epoch: u64) {
    ks.put(Key::literal(KEY), value(epoch));
}

fn value(epoch: u64) -> Bytes {
    Bytes::copy_from_slice(&epoch.to_be_bytes())
}

/// What a backup's rows become when a cloud is restored from them under `epoch`, in the order of revisions. They get no
/// revision of their own: the lost cloud may have made the next one, and edges that stand there would be taken to be
/// in this cloud's history.
pub fn restored(mut rows: Vec<Row>, epoch: u64) -> Vec<Row> {
    rows.retain(|(key, ..)| key.as_str() != KEY);
    rows.sort_by_key(|(_, revision, _)| *revision);
    let last = rows.last().map_or(Revision::ZERO, |(_, revision, _)| *revision);
    rows.push((Key::literal(KEY), last, Some(value(epoch))));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_cloud_has_a_new_epoch_and_no_new_revision() {
        let mut lost = Keyspace::new();
        set(&mut lost, 3);
        lost.seal();
        lost.put(Key::literal("/all/a"), Bytes::from_static(b"1"));
        lost.seal();
        let restored = Keyspace::load(restored(lost.rows().collect(), 4));
        assert_eq!((get(&restored), restored.revision()), (4, lost.revision()));
        assert_eq!(restored.get("/all/a"), lost.get("/all/a"));
    }
}
