//! What the parts of one call share: its cell, the order to stop, the token.

use std::fmt;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::tracker::Tracker;
use crate::model::{Side, TaskId};
use crate::registry::streams::StreamCell;
use crate::registry::tasks::{SpawningFor, spawning_for};

/// One call, shared by its future, its bodies, its task and its scopes.
pub struct Call {
    tracker: Arc<Tracker>,
    cell: Arc<StreamCell>,
    wakers: Mutex<Wakers>,
    /// Made when first needed: most streams never do.
    orders: OnceLock<Box<Orders>>,
}

/// Whom to tell of a call's end.
#[derive(Default)]
struct Wakers {
    /// Whoever can end the call: the stream's task, else the response's side.
    ender: Option<Waker>,
    /// Whoever polls the request's body: our handler, or the transport.
    reader: Option<Waker>,
}

/// How a call is told to end, and tells others.
#[derive(Default)]
struct Orders {
    /// Set once: end the call with this status.
    stop: OnceLock<Status>,
    token: OnceLock<CancellationToken>,
}

impl Call {
    pub(super) fn new(tracker: Arc<Tracker>, cell: Arc<StreamCell>) -> Self {
        Self { tracker, cell, wakers: Mutex::default(), orders: OnceLock::new() }
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
            let Wakers { ender, reader } = std::mem::take(&mut *self.wakers());
            ender.into_iter().chain(reader).for_each(Waker::wake);
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
        let before = keep(&mut self.wakers().ender, waker);
        drop(before);
    }

    pub(super) fn wake_reader_by(&self, waker: &Waker) {
        let before = keep(&mut self.wakers().reader, waker);
        drop(before);
    }

    fn wakers(&self) -> MutexGuard<'_, Wakers> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The call is over.
    pub(super) fn end(&self) {
        self.tracker.registry.streams.end(&self.cell, Some(&self.tracker.endpoint));
        // Pairs with the fence in `token`: one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.cell.side() == Side::Client {
            let reader = self.wakers().reader.take();
            reader.into_iter().for_each(Waker::wake);
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

    /// Until the guard is dropped, tasks that this thread spawns belong to this
    /// call from their birth.
    pub(crate) fn spawning(&self) -> Option<SpawningFor> {
        self.cell.slot().map(spawning_for)
    }

    /// Says that a task, spawned by others, works for this call now.
    pub(crate) fn tag(&self, task: TaskId) {
        if let Some(slot) = self.cell.slot() {
            self.tracker.registry.tasks.tag(task, slot);
        }
    }

    /// Notes the final status; the first counts.
    pub(super) fn note_status(&self, status: &Status) {
        let message = crate::registry::streams::sanitise(status.message(), 200);
        self.cell.status(status.code() as i32, &message);
    }
}

/// Most polls come from the task that came before. Returns the one that is not
/// wanted any more, to be dropped without the lock: with it a task may go.
fn keep(place: &mut Option<Waker>, waker: &Waker) -> Option<Waker> {
    if place.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
        return None;
    }
    place.replace(waker.clone())
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
        let retained = call.tracker.registry.streams.track(&call.cell);
        Self { call, retained }
    }

    pub(crate) fn call(&self) -> &Arc<Call> {
        &self.call
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.call.tracker.registry.streams.untrack(&self.call.cell, self.retained);
    }
}
