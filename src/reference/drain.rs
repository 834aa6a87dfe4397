//! The end of the server, as its handlers see it.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tonic::Status;

/// Tells handlers that the server ends, and knows the tasks they spawned.
///
/// Every handler that could last watches it, and every task goes through
/// [`spawn`](Self::spawn): nothing outlives the server unnoticed.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// The server ends now.
    pub fn begin(&self) {
        self.token.cancel();
        self.tasks.close();
    }

    /// The server is ending.
    pub fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Resolves when the server ends.
    pub fn begun(&self) -> WaitForCancellationFutureOwned {
        self.token.clone().cancelled_owned()
    }

    /// Resolves when the server ends and all spawned tasks have.
    pub async fn finished(&self) {
        self.tasks.wait().await;
    }

    /// Spawns a task that [`finished`](Self::finished) waits for. The task
    /// itself must end soon after [`begun`](Self::begun).
    #[track_caller]
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Tasks that [`spawn`](Self::spawn) started and that still run.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// The status that ends a stream when the server does. Clients may retry it.
    pub fn status() -> Status {
        Status::unavailable("the server is shutting down")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn finished_waits_for_the_spawned() {
        let drain = Drain::default();
        let begun = drain.begun();
        drain.spawn(begun);
        let finished = drain.finished();
        tokio::pin!(finished);
        assert!(futures_util::poll!(&mut finished).is_pending());
        assert!(!drain.has_begun());
        drain.begin();
        finished.await;
        assert!(drain.has_begun());
    }
}
