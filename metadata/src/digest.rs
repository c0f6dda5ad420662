//! Whether two copies are equal, and where they are not, told in a few bytes.
//!
//! Each entry has a hash of its name and value. The hashes of all entries are summed, which no order changes, in 256
//! buckets by the name. The sum of the buckets finds a difference; the buckets themselves find where it is.
//!
//! Nothing is kept for it: a digest is computed when it is asked for, a hash an entry.

use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

/// The buckets of a copy: about 80 names each, where an edge with 1,000 devices knows 20,000.
const BUCKETS: usize = 256;

/// Which bucket a name is in: the highest byte of its FNV-1a hash of 32 bits.
fn bucket_of(name: &str) -> usize {
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash >> 24) as usize
}

/// The sums of a copy's buckets.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Digest(#[n(0)] Box<[u64; BUCKETS]>);

impl Digest {
    pub(crate) fn of<'a>(entries: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut sums = Box::new([0_u64; BUCKETS]);
        for (name, value) in entries {
            let sum = &mut sums[bucket_of(name)];
            *sum = sum.wrapping_add(hash(name, value));
        }
        Self(sums)
    }

    /// Of the whole copy.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().copied().fold(0, u64::wrapping_add)
    }

    /// The buckets in which two copies differ.
    pub(crate) fn differing(&self, other: &Self) -> Buckets {
        let mut buckets = Buckets::NONE;
        for bucket in (0..BUCKETS).filter(|at| self.0[*at] != other.0[*at]) {
            buckets.0[bucket / 64] |= 1 << (bucket % 64);
        }
        buckets
    }
}

/// The first 64 bits of SHA-256 over the name's length (32 bits, big endian), the name, and the value.
fn hash(name: &str, value: &[u8]) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update((name.len() as u32).to_be_bytes());
    hasher.update(name);
    hasher.update(value);
    let [a, b, c, d, e, f, g, h, ..] = hasher.finalize().0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Some of the buckets, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Buckets(#[n(0)] [u64; BUCKETS / 64]);

impl Buckets {
    pub(crate) const NONE: Self = Self([0; BUCKETS / 64]);
    pub(crate) const ALL: Self = Self([u64::MAX; BUCKETS / 64]);

    pub(crate) fn has(&self, name: &str) -> bool {
        let bucket = bucket_of(name);
        self.0[bucket / 64] & (1 << (bucket % 64)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn digest(entries: &BTreeMap<String, Vec<u8>>) -> Digest {
        Digest::of(entries.iter().map(|(name, value)| (name.as_str(), &value[..])))
    }

    /// Both sides compute it: a change here is a change of the protocol.
    #[test]
    fn the_sums_are_pinned() {
        let digest = Digest::of([("lease", &b"\x01"[..]), ("route/a", b"")].into_iter());
        assert_eq!([bucket_of("lease"), bucket_of("route/a")], [88, 47]);
        assert_eq!(format!("{:016x}", digest.total()), "56f7cfee8167bb79");
    }

    proptest! {
        #[test]
        fn a_difference_is_found_in_its_bucket_and_nowhere_else(
            entries in prop::collection::btree_map("[a-z/]{1,12}", prop::collection::vec(any::<u8>(), 0..20), 1..60),
            at in any::<prop::sample::Index>(),
            value in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        ) {
            let name = entries.keys().nth(at.index(entries.len())).unwrap().clone();
            let mut other = entries.clone();
            match &value {
                Some(value) => drop(other.insert(name.clone(), value.clone())),
                None => drop(other.remove(&name)),
            }
            let (one, two) = (digest(&entries), digest(&other));
            let buckets = one.differing(&two);
            prop_assert_eq!(one.total() == two.total(), entries == other);
            for any in entries.keys() {
                let is_in = bucket_of(any) == bucket_of(&name) && entries != other;
                prop_assert_eq!(buckets.has(any), is_in, "{}", any);
            }
        }
    }
}
