//! The snapshots that all clients share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tonic::Status;

use super::{ConsoleStats, SnapshotFn};
use crate::error::Error;
use crate::model::Snapshot;

/// Clients that come and go cannot have snapshots taken more often than this.
const SHORTEST_GAP: Duration = Duration::from_millis(200);

/// A snapshot and its number, ascending from 1.
pub(super) struct Frame {
    pub number: u64,
    pub snapshot: Snapshot,
}

/// Takes snapshots while somebody watches, one at a time, and keeps the newest.
pub(super) struct Feed {
    newest: watch::Sender<Option<Arc<Frame>>>,
    watchers: watch::Sender<usize>,
    paused: watch::Sender<bool>,
    closing: watch::Sender<bool>,
    places: [Arc<Semaphore>; 3],
    taken: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    skipped: AtomicU64,
    capacity: usize,
}

/// The streams a client can hold open. Each kind has its own places, so that a
/// client whose list was admitted gets its state as well.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Updates,
    Details,
    State,
}

impl Feed {
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            newest: watch::Sender::new(None),
            watchers: watch::Sender::new(0),
            paused: watch::Sender::new(false),
            closing: watch::Sender::new(false),
            places: std::array::from_fn(|_| Arc::new(Semaphore::new(capacity))),
            taken: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            capacity,
        })
    }

    /// Takes snapshots until the future is dropped.
    pub async fn run(&self, snapshots: SnapshotFn, interval: Duration) {
        let mut watchers = self.watchers.subscribe();
        let mut paused = self.paused.subscribe();
        // The senders are ours and alive, so waiting cannot fail.
        loop {
            let _ = watchers.wait_for(|count| *count > 0).await;
            self.take(&snapshots).await;
            // Counted from the end: a snapshot that takes long is not followed
            // by the next at once.
            let taken = Instant::now();
            let next = async {
                tokio::time::sleep_until(taken + interval).await;
                let _ = paused.wait_for(|paused| !paused).await;
            };
            let left = tokio::select! {
                () = next => false,
                _ = watchers.wait_for(|count| *count == 0) => true,
            };
            if left {
                self.newest.send_replace(None);
                tokio::time::sleep_until(taken + SHORTEST_GAP.min(interval)).await;
            }
        }
    }

    async fn take(&self, snapshots: &SnapshotFn) {
        let snapshots = Arc::clone(snapshots);
        let taken = tokio::task::spawn_blocking(move || {
            let mut snapshot = snapshots()?;
            // Paging relies on it; it is so already, and then costs one pass.
            snapshot.tasks.sort_by_key(|task| task.id);
            snapshot.tasks.dedup_by_key(|task| task.id);
            Ok::<_, Error>(snapshot)
        });
        match taken.await {
            Ok(Ok(snapshot)) => {
                let number = self.taken.fetch_add(1, Relaxed) + 1;
                self.newest.send_replace(Some(Arc::new(Frame { number, snapshot })));
            }
            // The clients keep what they have; the next round tries again.
            Ok(Err(error)) => {
                self.failed.fetch_add(1, Relaxed);
                tracing::warn!(%error, "no snapshot for tokio-console");
            }
            Err(panic) => {
                self.failed.fetch_add(1, Relaxed);
                tracing::error!(%panic, "taking a snapshot for tokio-console panicked");
            }
        }
    }

    /// A place for one more stream of a kind.
    pub fn admit(self: &Arc<Self>, kind: Kind) -> Result<Watcher, Status> {
        let places = Arc::clone(&self.places[kind as usize]);
        let Ok(place) = places.try_acquire_owned() else {
            self.refused.fetch_add(1, Relaxed);
            let capacity = self.capacity;
            return Err(Status::resource_exhausted(format!(
                "{capacity} clients are attached already: close one of them"
            )));
        };
        let counts = !matches!(kind, Kind::State);
        if counts {
            self.watchers.send_modify(|count| *count += 1);
        }
        Ok(Watcher {
            newest: self.newest.subscribe(),
            paused: self.paused.subscribe(),
            closing: self.closing.subscribe(),
            counts,
            feed: Arc::clone(self),
            _place: place,
        })
    }

    /// Stops or resumes taking snapshots, for all clients.
    pub fn pause(&self, paused: bool) {
        self.paused.send_if_modified(|now| std::mem::replace(now, paused) != paused);
    }

    /// Ends every stream.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Completes once [`close`](Self::close) was called.
    pub async fn closed(&self) {
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    pub fn stats(&self) -> ConsoleStats {
        let free = self.places[Kind::Updates as usize].available_permits();
        ConsoleStats {
            clients: (self.capacity - free.min(self.capacity)) as u64,
            refused: self.refused.load(Relaxed),
            snapshots: self.taken.load(Relaxed),
            failures: self.failed.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
        }
    }
}

/// One stream's hold on the feed.
pub(super) struct Watcher {
    newest: watch::Receiver<Option<Arc<Frame>>>,
    paused: watch::Receiver<bool>,
    closing: watch::Receiver<bool>,
    counts: bool,
    feed: Arc<Feed>,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    /// The newest snapshot once there is one after `number`; `None` when the
    /// server closes.
    pub async fn after(&mut self, number: u64) -> Option<Arc<Frame>> {
        let newer =
            self.newest.wait_for(|frame| frame.as_ref().is_some_and(|frame| frame.number > number));
        tokio::select! {
            biased;
            _ = self.closing.wait_for(|closing| *closing) => None,
            frame = newer => frame.ok()?.clone(),
        }
    }

    /// Whether updates are paused: the first time at once, then at each change.
    pub async fn pause_change(&mut self, first: bool) -> Option<bool> {
        if !first {
            tokio::select! {
                biased;
                _ = self.closing.wait_for(|closing| *closing) => return None,
                changed = self.paused.changed() => changed.ok()?,
            }
        }
        Some(*self.paused.borrow_and_update())
    }

    /// Counts snapshots that this client was too slow for.
    pub fn skipped(&self, count: u64) {
        self.feed.skipped.fetch_add(count, Relaxed);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if !self.counts {
            return;
        }
        let mut left = 0;
        self.feed.watchers.send_modify(|count| {
            *count -= 1;
            left = *count;
        });
        if left == 0 {
            // Whoever attaches next shall not find a list that stands still.
            self.feed.pause(false);
        }
    }
}
