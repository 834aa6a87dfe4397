//! Hashing of stream ids: fast, and with a secret, since the peer chooses them.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes [`IdHasher`]s with one secret.
#[derive(Clone, Debug)]
pub(super) struct IdHash(u64);

impl Default for IdHash {
    fn default() -> Self {
        // Odd, so that the product is different for different ids.
        Self(RandomState::new().hash_one(0_u8) | 1)
    }
}

impl BuildHasher for IdHash {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher { secret: self.0, hash: 0 }
    }
}

/// Multiplies and folds.
pub(super) struct IdHasher {
    secret: u64,
    hash: u64,
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        let product = u128::from(self.hash ^ u64::from(id) ^ self.secret)
            * u128::from(self.secret ^ 0x9e37_79b9_7f4a_7c14);
        self.hash = (product as u64) ^ ((product >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}
