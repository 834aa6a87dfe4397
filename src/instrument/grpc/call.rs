//! What the parts of one call share: its cell, the order to stop, the token.

use std::fmt;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::model::{StreamStatus, TaskId};
use crate::registry::Registry;
use crate::registry::streams::StreamCell;

/// One call, shared by its future, its bodies, its task and its scopes.
pub struct Call {
    registry: Arc<Registry>,
    cell: Arc<StreamCell>,
    /// Set once: end the call with this status.
    stop: OnceLock<Status>,
    /// Whoever can end the call: the stream's task, else the response's side.
    ender: AtomicWaker,
    /// Whoever waits for a request message.
    reader: AtomicWaker,
    /// Made when first asked for: most streams never need one.
    token: OnceLock<CancellationToken>,
}

impl Call {
    pub(super) fn new(registry: Arc<Registry>, cell: Arc<StreamCell>) -> Self {
        Self {
            registry,
            cell,
            stop: OnceLock::new(),
            ender: AtomicWaker::new(),
            reader: AtomicWaker::new(),
            token: OnceLock::new(),
        }
    }

    pub(crate) fn cell(&self) -> &Arc<StreamCell> {
        &self.cell
    }

    /// Orders the call to end with a status. The first order counts.
    pub(super) fn stop(&self, status: Status) {
        let message = status.message().to_owned();
        if self.stop.set(status).is_ok() {
            self.cell.cancel(&message);
            if let Some(token) = self.token.get() {
                token.cancel();
            }
            self.ender.wake();
            self.reader.wake();
        }
    }

    /// The order to stop, if there is one.
    #[inline]
    pub(super) fn stopped(&self) -> Option<&Status> {
        self.stop.get()
    }

    pub(super) fn wake_ender_by(&self, waker: &Waker) {
        self.ender.register(waker);
    }

    pub(super) fn wake_reader_by(&self, waker: &Waker) {
        self.reader.register(waker);
    }

    /// The call is over.
    pub(super) fn end(&self) {
        self.registry.streams.end(&self.cell);
        // Pairs with the fence in `token`: one of the two sees the other.
        fence(Ordering::SeqCst);
        if let Some(token) = self.token.get() {
            token.cancel();
        }
    }

    /// Over before its time; `reason` counts unless one is known already.
    pub(super) fn abort(&self, reason: &str) {
        self.cell.cancel(reason);
        self.end();
    }

    /// Cancelled at the end of the call.
    pub(crate) fn token(&self) -> CancellationToken {
        let token = self.token.get_or_init(CancellationToken::new);
        fence(Ordering::SeqCst);
        if self.cell.is_ended() || self.stop.get().is_some() {
            token.cancel();
        }
        token.clone()
    }

    /// Names a task that this call caused.
    pub(crate) fn tag(&self, task: TaskId) {
        if let Some(slot) = self.cell.slot() {
            self.registry.tasks.tag(task, slot);
        }
    }

    /// Notes the final status; the first counts.
    pub(super) fn note_status(&self, status: &Status) {
        self.cell.status(StreamStatus::new(
            status.code() as i32,
            &crate::registry::streams::sanitise(status.message(), 200),
        ));
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("cell", &self.cell).finish_non_exhaustive()
    }
}

/// A task that a call caused, counted while this lives, with hooks or without.
pub(crate) struct Tracked {
    call: Arc<Call>,
    retained: bool,
}

impl Tracked {
    pub(crate) fn new(call: Arc<Call>) -> Self {
        let retained = call.registry.streams.track(&call.cell);
        Self { call, retained }
    }

    pub(crate) fn call(&self) -> &Arc<Call> {
        &self.call
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.call.registry.streams.untrack(&self.call.cell, self.retained);
    }
}
