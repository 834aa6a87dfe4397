//! The end of the server and of a stream, as the handlers see it.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::instrument::scope;

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
    ///
    /// In a handler it may outlive the stream, and stays on its record: it is
    /// for the faults that leave tasks behind.
    #[track_caller]
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let task = self.tasks.track_future(task);
        match scope::current() {
            Some(scope) => scope.detach_spawn(task),
            None => tokio::spawn(task),
        }
    }

    /// What a handler of a stream watches besides its peer. To be called in the
    /// handler, where the stream is the current one.
    pub fn ends(&self) -> Ends {
        Ends { server: self.token.clone(), stream: scope::current().map(|scope| scope.token()) }
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

/// The end of the server, and that of one stream where a profiler watches it.
/// Without one a stream's end drops its handler, and there is nothing to wait for.
#[derive(Clone, Debug)]
pub struct Ends {
    server: CancellationToken,
    stream: Option<CancellationToken>,
}

impl Ends {
    /// Resolves at the first of the two, with the status to end with.
    pub async fn come(&self) -> Status {
        let stream = async {
            match &self.stream {
                Some(token) => token.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.server.cancelled() => Drain::status(),
            () = stream => Status::cancelled("the stream is over"),
        }
    }

    /// What [`come`](Self::come) resolves with, if it would at once.
    pub fn came(&self) -> Option<Status> {
        let over = self.stream.as_ref().is_some_and(CancellationToken::is_cancelled);
        if self.server.is_cancelled() {
            Some(Drain::status())
        } else {
            over.then(|| Status::cancelled("the stream is over"))
        }
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
