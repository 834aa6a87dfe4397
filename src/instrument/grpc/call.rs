//! What the parts of one call share: its cell, the order to stop, the token.

use std::fmt;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::model::{Side, TaskId};
use crate::registry::Registry;
use crate::registry::streams::StreamCell;
use crate::registry::tasks::spawning_for;

/// One call, shared by its future, its bodies, its task and its scopes.
pub struct Call {
    registry: Arc<Registry>,
    cell: Arc<StreamCell>,
    /// Whoever can end the call: the stream's task, else the response's side.
    ender: AtomicWaker,
    /// Whoever polls the request's body: our handler, or the transport.
    reader: AtomicWaker,
    /// Made when first needed: most streams never do.
    orders: OnceLock<Box<Orders>>,
}

/// How a call is told to end, and tells others.
#[derive(Default)]
struct Orders {
    /// Set once: end the call with this status.
    stop: OnceLock<Status>,
    token: OnceLock<CancellationToken>,
}

impl Call {
    pub(super) fn new(registry: Arc<Registry>, cell: Arc<StreamCell>) -> Self {
        Self {
            registry,
            cell,
            ender: AtomicWaker::new(),
            reader: AtomicWaker::new(),
            orders: OnceLock::new(),
        }
    }

    pub(crate) fn cell(&self) -> &Arc<StreamCell> {
        &self.cell
    }

    /// Orders the call to end with a status. The first order counts.
    pub(super) fn stop(&self, status: Status) {
        let message = status.message().to_owned();
        if self.orders().stop.set(status).is_ok() {
            self.cell.cancel(&message);
            self.cancel_token();
            self.ender.wake();
            self.reader.wake();
        }
    }

    /// The order to stop, if there is one.
    #[inline]
    pub(super) fn stopped(&self) -> Option<&Status> {
        self.orders.get()?.stop.get()
    }

    fn orders(&self) -> &Orders {
        self.orders.get_or_init(Box::default)
    }

    fn cancel_token(&self) {
        if let Some(token) = self.orders.get().and_then(|orders| orders.token.get()) {
            token.cancel();
        }
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
        if self.cell.side() == Side::Client {
            self.reader.wake();
        }
        self.cancel_token();
    }

    /// Over before its time; `reason` counts unless one is known already.
    pub(super) fn abort(&self, reason: &str) {
        self.cell.cancel(reason);
        self.end();
    }

    /// Cancelled at the end of the call.
    pub(crate) fn token(&self) -> CancellationToken {
        let token = self.orders().token.get_or_init(CancellationToken::new);
        fence(Ordering::SeqCst);
        if self.cell.is_ended() || self.stopped().is_some() {
            token.cancel();
        }
        token.clone()
    }

    /// Runs `spawn`; the task that it spawns belongs to this call from its birth.
    pub(crate) fn spawning<T>(&self, spawn: impl FnOnce() -> T) -> T {
        match self.cell.slot() {
            Some(slot) => spawning_for(slot, spawn),
            None => spawn(),
        }
    }

    /// Says that a task, spawned by others, works for this call now.
    pub(crate) fn tag(&self, task: TaskId) {
        if let Some(slot) = self.cell.slot() {
            self.registry.tasks.tag(task, slot);
        }
    }

    /// Notes the final status; the first counts.
    pub(super) fn note_status(&self, status: &Status) {
        let message = crate::registry::streams::sanitise(status.message(), 200);
        self.cell.status(status.code() as i32, &message);
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
