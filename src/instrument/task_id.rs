//! tokio's task ids as numbers.

use std::hash::{Hash, Hasher};

use crate::model::TaskId;

/// Keeps the one integer that a `task::Id` writes when hashed. tokio offers
/// no other way to the number but to print it, which costs an allocation.
#[derive(Default)]
struct Capture(u64);

impl Hasher for Capture {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // `NonZeroU64` goes through `write_u64`; this serves any other layout
        // of the same eight bytes.
        let mut word = [0; 8];
        let len = bytes.len().min(8);
        word[..len].copy_from_slice(&bytes[..len]);
        self.0 = u64::from_ne_bytes(word);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// The number that the id prints.
#[inline]
pub fn number(id: tokio::task::Id) -> TaskId {
    let mut capture = Capture::default();
    id.hash(&mut capture);
    TaskId(capture.0)
}

/// The task that is being polled on this thread, if any.
#[inline]
pub fn current() -> Option<TaskId> {
    tokio::task::try_id().map(number)
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn the_number_is_the_one_that_tokio_prints() {
        let (inside, id) =
            tokio::spawn(async { (super::current(), tokio::task::id()) }).await.unwrap();
        assert_eq!(inside.unwrap().to_string(), id.to_string());
        assert_eq!(std::thread::spawn(super::current).join().unwrap(), None);
    }
}
