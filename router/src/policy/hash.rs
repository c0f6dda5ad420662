//! SipHash-1-3 of a few words under a key: who does not know the key cannot choose flows that fall into one place of a
//! table and push each other out (J.-P. Aumasson and D. J. Bernstein, SipHash, 2012). Written out because the hasher
//! of the standard library takes no key.

/// Differs from process to process.
#[derive(Debug, Clone, Copy)]
pub(super) struct HashKey {
    k0: u64,
    k1: u64,
}

impl HashKey {
    pub(super) fn from_seed(seed: [u64; 2]) -> Self {
        let [k0, k1] = seed;
        Self { k0, k1 }
    }

    pub(super) fn hash<const N: usize>(self, words: [u64; N]) -> u64 {
        let mut state = State {
            v0: self.k0 ^ 0x736f_6d65_7073_6575,
            v1: self.k1 ^ 0x646f_7261_6e64_6f6d,
            v2: self.k0 ^ 0x6c79_6765_6e65_7261,
            v3: self.k1 ^ 0x7465_6462_7974_6573,
        };
        words.into_iter().for_each(|word| state.take(word));
        // The length in bytes, in the highest byte of the last word.
        state.take((8 * N as u64) << 56);
        state.v2 ^= 0xff;
        (0..3).for_each(|_| state.round());
        state.v0 ^ state.v1 ^ state.v2 ^ state.v3
    }
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    fn take(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::hash::{DefaultHasher, Hasher};

    proptest! {
        /// Which is SipHash-1-3 under the key zero.
        #[test]
        fn it_is_the_standard_librarys_under_its_key(words: [u64; 5]) {
            let mut theirs = DefaultHasher::new();
            words.iter().for_each(|word| theirs.write(&word.to_le_bytes()));
            prop_assert_eq!(HashKey::from_seed([0, 0]).hash(words), theirs.finish());
        }

        #[test]
        fn another_key_makes_another_hash(words: [u64; 5], k0 in 1u64.., k1: u64) {
            prop_assert_ne!(HashKey::from_seed([k0, k1]).hash(words), HashKey::from_seed([0, k1]).hash(words));
        }
    }
}
