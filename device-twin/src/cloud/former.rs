//! What manifests of devices that are gone wished, in bounded room.
//!
//! A device that is made again of the same file must not be moved by what the file wished long ago, however long ago that
//! was, so what was taken of a manifest is remembered when its device goes. Rows of their own would pile up for ever.
//! They are folded into a Bloom filter, which forgets nothing: `/c/former/<block>`, written one small block at a time.
//! Where it errs, it takes a new wish for an old one, and that is answered.

use bus::twin::DeviceId;
use metadata::{Key, Keyspace};
use sha2::{Digest, Sha256};

use crate::twin::{PropertyId, key};

/// The last wish that was taken of each property's manifest.
const TAKEN: &str = "/c/manifest-desired/";

/// With [`BLOCK_LEN`] 128 KiB in all; a block is there once something fell into it. With 100,000 wishes of devices that
/// are gone one new wish in a hundred is taken for an old one, with 20,000 one in a million.
const BLOCKS: u16 = 256;

const BLOCK_LEN: usize = 512;

/// Bits of one wish: the best number where a block is half full.
const BITS: usize = 7;

pub(super) fn taken_key(id: &PropertyId) -> Key {
    key(TAKEN, id)
}

/// The device is gone: what was taken of its manifest goes into the filter.
pub(super) fn fold(device: &DeviceId, ks: &mut Keyspace) {
    fold_below(&format!("{TAKEN}{device}/"), |_| true, ks);
}

/// The same of all devices that are not there: left by a cloud before this one, or not readable any more.
pub(super) fn fold_all_but(is_there: impl Fn(&DeviceId) -> bool, ks: &mut Keyspace) {
    fold_below(TAKEN, |id| !is_there(&id.device), ks);
}

fn fold_below(prefix: &str, is_gone: impl Fn(&PropertyId) -> bool, ks: &mut Keyspace) {
    let rows = ks.range(prefix).filter_map(|(key, text)| {
        let id = PropertyId::parse(&key.as_str()[TAKEN.len()..])?;
        is_gone(&id).then(|| (key.clone(), Mark::of(&id, text)))
    });
    let rows: Vec<(Key, Mark)> = rows.collect();
    for (taken, mark) in rows {
        ks.delete(&taken);
        mark.put(ks);
    }
}

/// Whether the manifest of a device of this name wished this for the property before it went.
pub(super) fn wished(id: &PropertyId, text: &str, ks: &Keyspace) -> bool {
    Mark::of(id, text.as_bytes()).is_in(ks)
}

/// The place of one wish in the filter.
struct Mark {
    block: Key,
    bits: [usize; BITS],
}

impl Mark {
    fn of(id: &PropertyId, text: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(id.to_string());
        hash.update([0]);
        hash.update(text);
        let hash = hash.finalize();
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
