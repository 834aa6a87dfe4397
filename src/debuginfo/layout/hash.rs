//! Names by hash: the whole name in pieces and in one give the same.

/// FNV-1a of 64 bits: of 100,000 names two are the same by chance once in
/// four billion programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    /// Of a whole name.
    pub(super) fn of(name: &str) -> Self {
        Self::default().with(name.as_bytes())
    }

    /// Goes on with more of the name.
    pub(super) fn with(self, bytes: &[u8]) -> Self {
        let step = |hash: u64, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Self(bytes.iter().fold(self.0, step))
    }

    pub(super) fn value(self) -> u64 {
        self.0
    }
}
