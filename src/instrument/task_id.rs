//! The number inside a `tokio::task::Id`.

use std::hash::{Hash, Hasher};

use crate::model::TaskId;

/// tokio shows the number only through `Display` and `Hash`; hashing into a
/// hasher that keeps what it is given costs nothing.
#[inline]
pub fn task_id(id: tokio::task::Id) -> TaskId {
    struct Keep(u64);
    impl Hasher for Keep {
        fn write_u64(&mut self, value: u64) {
            self.0 = value;
        }
        fn write(&mut self, bytes: &[u8]) {
            for (n, byte) in bytes.iter().take(8).enumerate() {
                self.0 |= u64::from(*byte) << (8 * n);
            }
        }
        fn finish(&self) -> u64 {
            self.0
        }
    }
    let mut keep = Keep(0);
    id.hash(&mut keep);
    TaskId(keep.finish())
}

/// The task that runs on this thread now.
#[inline]
pub fn current_task() -> Option<TaskId> {
    tokio::task::try_id().map(task_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_the_number_that_tokio_prints() {
        for _ in 0..100 {
            let handle = tokio::spawn(async { tokio::task::id() });
            let id = handle.await.expect("task");
            assert_eq!(task_id(id).to_string(), id.to_string());
        }
        assert_eq!(tokio::spawn(async { current_task().is_some() }).await.ok(), Some(true));
    }
}
