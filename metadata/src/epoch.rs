//! Which of two clouds goes on, when one was restored from a backup of the other: the one with the higher epoch.
//!
//! An edge keeps the highest epoch that it followed and says it in each hello. A cloud that hears of a higher one than
//! its own, and an edge that is welcomed with a lower one, end the link.

use bytes::Bytes;

use crate::key::Key;
use crate::keyspace::Keyspace;

/// A cloud that was never restored, and an edge that never followed one.
pub const FIRST: u64 = 1;

const KEY: &str = "/sync/epoch";

/// At a cloud: its own. At an edge: the highest that it followed.
pub fn get(ks: &Keyspace) -> u64 {
    let stored = ks.get(KEY).and_then(|bytes| <[u8; 8]>::try_from(&bytes[..]).ok());
    stored.map_or(FIRST, u64::from_be_bytes)
}

pub fn set(ks: &mut Keyspace, epoch: u64) {
    ks.put(Key::literal(KEY), Bytes::copy_from_slice(&epoch.to_be_bytes()));
}
