//! A stream's scope: what the handler of a stream spawns should not outlive it.
//!
//! gRPC cancels a handler by dropping it, but not the tasks that it spawned:
//! they go on until something tells them. [`Scope::spawn`] ends them with
//! their stream; [`Scope::token`] and [`Scope::cancelled`] tell code that has
//! to clean up first.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use scoped_tls::scoped_thread_local;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::grpc::call::{Call, Tracked};
use crate::model::StreamId;

scoped_thread_local! {
    static CURRENT: Arc<Call>
}

/// The scope of one gRPC stream. Cheap to clone; holding one does not keep
/// the stream alive.
#[derive(Clone)]
pub struct Scope {
    call: Arc<Call>,
}

/// The scope of the stream whose handler, response stream or scoped task runs
/// on this thread. `None` elsewhere: in a task that was spawned with
/// `tokio::spawn`, or where no taskprof layer serves the stream. The same
/// scope is in the request's extensions.
pub fn current() -> Option<Scope> {
    CURRENT.is_set().then(|| Scope { call: CURRENT.with(Arc::clone) })
}

impl Scope {
    pub(crate) fn new(call: Arc<Call>) -> Self {
        Self { call }
    }

    pub(crate) fn call(&self) -> &Arc<Call> {
        &self.call
    }

    /// The stream's id, as the dumps show it.
    pub fn stream(&self) -> StreamId {
        self.call.cell().id()
    }

    /// `/pkg.Service/Method`.
    pub fn method(&self) -> &str {
        &self.call.cell().method().name
    }

    /// The other end's address, where known.
    pub fn peer(&self) -> Option<&str> {
        self.call.cell().peer().map(|peer| &**peer)
    }

    /// Whether the stream is over.
    pub fn is_ended(&self) -> bool {
        self.call.cell().is_ended()
    }

    /// A token that is cancelled when the stream ends, however it ends.
    pub fn token(&self) -> CancellationToken {
        self.call.token()
    }

    /// Waits for the end of the stream: its status was sent, the peer reset
    /// it, its connection was lost or a limit was hit.
    pub async fn cancelled(&self) {
        self.token().cancelled_owned().await;
    }

    /// Spawns a task that is cancelled when the stream ends; its output is
    /// then `None`. The task is shown with the stream's method and peer.
    ///
    /// # Panics
    /// Outside a tokio runtime, as `tokio::spawn` does.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let token = self.token();
        self.start(token.run_until_cancelled_owned(future))
    }

    /// Spawns a task that may outlive the stream on purpose. It keeps the
    /// stream's method and peer, so a dump still tells who left it.
    ///
    /// # Panics
    /// Outside a tokio runtime, as `tokio::spawn` does.
    #[track_caller]
    pub fn detach_spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.start(future)
    }

    #[track_caller]
    fn start<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let tracked = Tracked::new(self.call.clone());
        let _spawning = self.call.spawning();
        tokio::spawn(Scoped { future, tracked })
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("stream", &self.stream())
            .field("method", &self.method())
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// A task of the scope: its code sees the scope as the current one.
    struct Scoped<F> {
        #[pin]
        future: F,
        tracked: Tracked,
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        within(this.tracked.call(), || this.future.poll(cx))
    }
}

/// Runs a piece of a stream's code: the stream is the current one of this
/// thread meanwhile. Borrowed, since it is done for each message.
#[inline]
pub(crate) fn within<R>(call: &Arc<Call>, run: impl FnOnce() -> R) -> R {
    CURRENT.set(call, run)
}
