//! What a call leaves behind, or does not. Calls belong to a gRPC server, so the
//! scene is played by `tests/embed`, which has one.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::stage::{Role, role};

/// The task that a call spawns: it waits for what nobody tells it.
pub async fn left_by_call(word: Arc<Notify>) {
    word.notified().await; // MARK: left_by_call
}

/// What is true of it while it lives.
pub fn left() -> Role {
    role("left_by_call").waits("notify").on("word")
}
