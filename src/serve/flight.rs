//! One snapshot in flight, others join it.
//!
//! A snapshot of 100,000 tasks costs the watched process some memory traffic
//! and us some memory. So requests that come together share one, which goes on
//! for a moment while others still read it; one that was dear is kept for a
//! moment (so that taking snapshots is a bounded share of the time, whatever the
//! clients do); and only two large ones exist at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use super::source::{Source, Want};
use super::stats::Stats;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Snapshot;

/// A snapshot is kept for this many times what it took: at most a sixth of the
/// time goes into taking them, or two sevenths where each is taken once more.
const KEEP_FACTOR: u32 = 5;
/// Nothing older than this is handed out.
const KEEP_MAX: Duration = Duration::from_secs(1);
/// How often is looked whether a snapshot, kept long enough, is still read.
const READ_LOOK: Duration = Duration::from_millis(20);
/// Snapshots with tasks, or sent with very many streams, that may exist at once:
/// one being sent, one being taken.
const LARGE: usize = 2;

/// A snapshot while someone reads it.
pub struct Held {
    snapshot: Snapshot,
    number: u64,
    /// Ages in the snapshot count to here, or a little later.
    begun: Instant,
    ripens_in: OnceLock<Option<Duration>>,
    room: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Whether one taken now would say more, since what this one shows has
    /// lasted long enough meanwhile. `ripens_in` works out, once, when that is.
    pub fn is_ripe(&self, ripens_in: impl FnOnce(&Snapshot) -> Option<Duration>) -> bool {
        let ripens_in = self.ripens_in.get_or_init(|| ripens_in(&self.snapshot));
        ripens_in.is_some_and(|ripens_in| self.begun.elapsed() >= ripens_in)
    }
}

impl std::ops::Deref for Held {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

type Outcome = std::result::Result<Arc<Held>, Arc<Error>>;

struct Slot {
    number: u64,
    want: Want,
    /// Taken instead of one that was not old yet: it is not replaced in turn.
    again: bool,
    outcome: Shared<BoxFuture<'static, Outcome>>,
}

#[derive(Default)]
struct Slots {
    next: u64,
    live: Vec<Slot>,
}

/// Takes snapshots for everyone who asks.
pub struct Flight {
    source: Arc<dyn Source>,
    slots: Mutex<Slots>,
    room: Arc<Semaphore>,
    wait: Duration,
    stats: Arc<Stats>,
}

impl Flight {
    pub fn new(source: Arc<dyn Source>, wait: Duration, stats: Arc<Stats>) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(LARGE));
        Arc::new(Self { source, slots: Mutex::default(), room, wait, stats })
    }

    /// A snapshot with at least what is wanted, not older than a moment.
    ///
    /// # Errors
    /// Those of the source; `Busy` if two others are still being sent;
    /// `Internal` if the source panicked.
    pub async fn snapshot(self: &Arc<Self>, want: Want) -> Outcome {
        self.join(want, None).await
    }

    /// One that was taken after this one. Once: what is taken in its place is
    /// kept as long as any other, so that the time this takes stays bounded.
    ///
    /// # Errors
    /// Those of [`snapshot`](Self::snapshot).
    pub async fn after(self: &Arc<Self>, held: &Held, want: Want) -> Outcome {
        self.join(want, Some(held.number)).await
    }

    fn join(
        self: &Arc<Self>,
        want: Want,
        after: Option<u64>,
    ) -> Shared<BoxFuture<'static, Outcome>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // Who wants no stacks does not wait for a dump with them that is under way.
        let cheap = !want.stacks;
        let again = after.is_some();
        let serves = |slot: &&Slot| {
            covers(slot.want, want)
                && (slot.want == want || !cheap || slot.outcome.peek().is_some())
                && (slot.again || after.is_none_or(|number| slot.number > number))
        };
        // The newest is the last; one that is there comes before one that is
        // still being taken.
        let mut serving = slots.live.iter().rev().filter(serves);
        let there = serving.clone().find(|slot| slot.outcome.peek().is_some());
        if let Some(slot) = there.or_else(|| serving.next()) {
            return slot.outcome.clone();
        }
        let number = slots.next;
        slots.next += 1;
        // A task of its own: it goes on when the client that began it goes away.
        let taking = tokio::spawn(Arc::clone(self).take(number, want));
        let outcome = async move {
            taking.await.unwrap_or_else(|error| {
                Err(Arc::new(
                    Error::new(ErrorKind::Internal, "the snapshot was lost").with_source(error),
                ))
            })
        };
        let outcome = outcome.boxed().shared();
        slots.live.push(Slot { number, want, again, outcome: outcome.clone() });
        outcome
    }

    async fn take(self: Arc<Self>, number: u64, want: Want) -> Outcome {
        let forget = Forget { flight: Arc::downgrade(&self), number };
        let room = if want.tasks { Some(self.make_room().await?) } else { None };
        let (source, stats) = (Arc::clone(&self.source), Arc::clone(&self.stats));
        let begun = Instant::now();
        let snapshot = call(&stats, move || source.snapshot(want)).await.map_err(Arc::new)?;
        let keep = (begun.elapsed() * KEEP_FACTOR).min(KEEP_MAX);
        let held = Arc::new(Held { snapshot, number, begun, ripens_in: OnceLock::new(), room });
        tokio::spawn(forget.once_unread(keep));
        Ok(held)
    }

    /// Whether anyone but its slot has it, or is about to take it from there.
    fn is_read(&self, number: u64) -> bool {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // Who waits for it takes it before he ceases to wait.
        slots.live.iter().find(|slot| slot.number == number).is_some_and(|slot| {
            slot.outcome.strong_count() > Some(1)
                || matches!(slot.outcome.peek(), Some(Ok(held)) if Arc::strong_count(held) > 1)
        })
    }

    /// For as long as a snapshot is sent that was taken without asking for room,
    /// since it has no tasks, and proved large.
    ///
    /// # Errors
    /// `Busy` as for [`snapshot`](Self::snapshot).
    pub async fn room_for(
        &self,
        held: &Held,
    ) -> std::result::Result<Option<OwnedSemaphorePermit>, Arc<Error>> {
        if held.room.is_some() { Ok(None) } else { self.make_room().await.map(Some) }
    }

    async fn make_room(&self) -> std::result::Result<OwnedSemaphorePermit, Arc<Error>> {
        match timeout(self.wait, Arc::clone(&self.room).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Arc::new(Error::new(
                ErrorKind::Busy,
                "other dumps are still being sent; try again in a moment",
            ))),
        }
    }
}

/// A larger snapshot serves a smaller wish.
fn covers(have: Want, want: Want) -> bool {
    (have.tasks || !want.tasks) && (have.stacks || !want.stacks)
}

/// Takes its slot out when dropped, so that the next request starts anew.
struct Forget {
    flight: Weak<Flight>,
    number: u64,
}

impl Forget {
    /// Two hundred clients at once take longer to serve than a cheap snapshot is
    /// kept: those who come late in such a crowd join what the others read.
    async fn once_unread(self, keep: Duration) {
        let taken = Instant::now();
        sleep_until(taken + keep).await;
        let is_read = || self.flight.upgrade().is_some_and(|flight| flight.is_read(self.number));
        while taken.elapsed() < KEEP_MAX && is_read() {
            sleep_until((Instant::now() + READ_LOOK).min(taken + KEEP_MAX)).await;
        }
    }
}

impl Drop for Forget {
    fn drop(&mut self) {
        if let Some(flight) = self.flight.upgrade() {
            let mut slots = flight.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.live.retain(|slot| slot.number != self.number);
        }
    }
}

/// Runs something that may block, or panic, on the pool.
///
/// # Errors
/// Its own; `Internal` if it panicked.
pub async fn call<T: Send + 'static>(
    stats: &Arc<Stats>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let panicked = || {
        Error::new(
            ErrorKind::Internal,
            "a panic inside the profiler was caught; the server goes on",
        )
    };
    let counted = Arc::clone(stats);
    let done = tokio::task::spawn_blocking(move || {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
            counted.panics.add(1);
            // The payload's own drop may panic too; a leak of a message is cheaper.
            std::mem::forget(payload);
            Err(panicked())
        })
    });
    done.await.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Internal, "the profiler's thread pool stopped")
            .with_source(error))
    })
}
