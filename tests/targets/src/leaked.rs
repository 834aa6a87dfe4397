//! What a call leaves behind, or does not. Calls belong to a gRPC server, so the
//! scene is played by `tests/embed`, which has one.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::stage::{Role, role};

/// The task that a call spawns: it waits for what nobody tells it.
pub async fn left_behind(word: Arc<Notify>) {
    word.notified().await; // MARK: left_behind
}

/// What is true of it while it lives.
pub fn left() -> Role {
    role("left_behind").waits("notified").on("word")
}
