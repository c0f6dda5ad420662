//! What manifests of devices that are gone wished, in bounded room.
//!
//! A device that is made again of the same file, or of an older one, must not be moved by what the file wished long ago,
//! however long ago that was, so all that was taken of a manifest is remembered when its device goes. Rows of their own
//! would pile up for ever. They are folded into a Bloom filter, which forgets nothing: `/c/former/<block>`, written one
//! small block at a time. Where it errs, it takes a new wish for an old one, and that is answered.
//!
//! While a device is there, its changes of mind lie beside what it wishes now, as hashes: the filter fills with devices
//! that go and not with those that live. Of a property that wished more than [`MAX_BEFORE`] texts anything counts as
//! wished before.

use bus::twin::DeviceId;
use metadata::{Key, Keyspace};
use sha2::{Digest, Sha256};

use crate::twin::{PropertyId, key};

/// The last wish that was taken of each property's manifest.
const TAKEN: &str = "/c/manifest-desired/";

/// Hashes of those before it, one behind the other.
const BEFORE: &str = "/c/manifest-before/";

/// Texts that are told apart of one property's past. One more, and the hash of [`Past::Any`] follows them.
pub(super) const MAX_BEFORE: usize = 8;

/// With [`BLOCK_LEN`] 128 KiB in all; a block is there once something fell into it. With 100,000 wishes of devices that
/// are gone one new wish in a hundred is taken for an old one, with 20,000 one in a million.
const BLOCKS: u16 = 256;

const BLOCK_LEN: usize = 512;

/// Bits of one wish: the best number where a block is half full.
const BITS: usize = 7;

pub(super) fn taken_key(id: &PropertyId) -> Key {
    key(TAKEN, id)
}

/// The manifest of a device that is there wishes another text now than this one.
pub(super) fn replaced(id: &PropertyId, text: &[u8], ks: &mut Keyspace) {
    let row = key(BEFORE, id);
    let mut hashes = ks.get(row.as_str()).map_or_else(Vec::new, |hashes| hashes.to_vec());
    let is_known = |hash: &Hash| hashes.chunks_exact(HASH_LEN).any(|known| known == hash);
    let is_full = hashes.len() >= MAX_BEFORE * HASH_LEN;
    let (one, any) = (Past::Text(text).hash(id), Past::Any.hash(id));
    let hash = if is_full && !is_known(&one) { any } else { one };
    if !is_known(&hash) {
        hashes.extend(hash);
        ks.put(row, hashes.into());
    }
}

/// The device is gone: what was taken of its manifest goes into the filter.
pub(super) fn fold(device: &DeviceId, ks: &mut Keyspace) {
    fold_below(&format!("{device}/"), |_| true, ks);
}

/// The same of all devices that are not there: left by a cloud before this one, or not readable any more.
pub(super) fn fold_all_but(is_there: impl Fn(&DeviceId) -> bool, ks: &mut Keyspace) {
    fold_below("", |id| !is_there(&id.device), ks);
}

fn fold_below(devices: &str, is_gone: impl Fn(&PropertyId) -> bool, ks: &mut Keyspace) {
    let one = |id: &PropertyId, text: &[u8]| vec![Mark::of(&Past::Text(text).hash(id))];
    let several = |_: &PropertyId, hashes: &[u8]| hashes.as_chunks().0.iter().map(Mark::of).collect();
    fold_rows(TAKEN, devices, &is_gone, one, ks);
    fold_rows(BEFORE, devices, &is_gone, several, ks);
}

fn fold_rows(
    kind: &str,
    devices: &str,
    is_gone: impl Fn(&PropertyId) -> bool,
    marks: impl Fn(&PropertyId, &[u8]) -> Vec<Mark>,
    ks: &mut Keyspace,
) {
    let prefix = format!("{kind}{devices}");
    let rows = ks.range(&prefix).filter_map(|(key, value)| {
        let id = PropertyId::parse(&key.as_str()[kind.len()..])?;
        is_gone(&id).then(|| (key.clone(), marks(&id, value)))
    });
    let rows: Vec<(Key, Vec<Mark>)> = rows.collect();
    for (row, marks) in rows {
        ks.delete(&row);
        marks.iter().for_each(|mark| mark.put(ks));
    }
}

/// Whether the manifest of a device of this name wished this for the property before it went, or may have.
pub(super) fn wished(id: &PropertyId, text: &str, ks: &Keyspace) -> bool {
    let past = [Past::Text(text.as_bytes()), Past::Any];
    past.iter().any(|past| Mark::of(&past.hash(id)).is_in(ks))
}

/// What a property's manifest wished once.
enum Past<'a> {
    Text(&'a [u8]),
    /// Too many texts to tell them apart.
    Any,
}

/// The first bytes of a SHA-256: as many as a [`Mark`] takes.
type Hash = [u8; HASH_LEN];

const HASH_LEN: usize = 2 * (1 + BITS);

impl Past<'_> {
    fn hash(&self, id: &PropertyId) -> Hash {
        let mut hash = Sha256::new();
        hash.update(id.to_string());
        match self {
            Self::Text(text) => {
                hash.update([0]);
                hash.update(text);
            }
            Self::Any => hash.update([1]),
        }
        let hash = hash.finalize();
        std::array::from_fn(|at| hash[at])
    }
}

/// The place of one wish in the filter.
struct Mark {
    block: Key,
    bits: [usize; BITS],
}

impl Mark {
    fn of(hash: &Hash) -> Self {
        let number = |at: usize| u16::from_be_bytes([hash[2 * at], hash[2 * at + 1]]);
        let bits = std::array::from_fn(|at| usize::from(number(at + 1)) % (BLOCK_LEN * 8));
        Self { block: key("/c/former/", format_args!("{:02x}", number(0) % BLOCKS)), bits }
    }

    fn put(&self, ks: &mut Keyspace) {
        let mut block = ks.get(self.block.as_str()).map_or_else(Vec::new, |block| block.to_vec());
        block.resize(BLOCK_LEN, 0);
        self.bits.iter().for_each(|bit| block[bit / 8] |= 1 << (bit % 8));
        ks.put(self.block.clone(), block.into());
    }

    fn is_in(&self, ks: &Keyspace) -> bool {
        let Some(block) = ks.get(self.block.as_str()) else { return false };
        self.bits.iter().all(|bit| block.get(bit / 8).is_some_and(|byte| byte & (1 << (bit % 8)) != 0))
    }
}
