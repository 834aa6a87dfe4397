//! Runtimes and their workers: what each polls now and since when.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::runtime::Handle;

use super::clock;

/// Runtimes told apart; a task cell has eight bits for its runtime.
pub const MAX_RUNTIMES: usize = 254;
/// Workers observed in one runtime.
pub const MAX_WORKERS: usize = 1_024;

/// What one worker does now. A cell belongs to the worker index, not to the
/// thread: in `block_in_place` another thread takes the index over, and the
/// cell then shows what that thread does.
#[derive(Debug, Default)]
#[repr(align(128))] // two lines: neighbours are prefetched in pairs
pub struct WorkerCell {
    /// Thread that acts as this worker; 0 before the first sign of it.
    tid: AtomicU32,
    parked: AtomicBool,
    /// Tick at which the current poll began; 0 between polls.
    poll_began: AtomicU64,
    /// While there is a poll: of which task.
    task: AtomicU64,
    /// While there is no poll: tick of its end, or of the last change between
    /// parked and not.
    since: AtomicU64,
    polls: AtomicU64,
}

/// A worker's cell, read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerNow {
    /// Thread that acts as this worker; 0 before the first sign of it.
    pub tid: u32,
    /// It is parked.
    pub parked: bool,
    /// Tick at which the current poll began; 0 between polls.
    pub poll_began: u64,
    /// The task polled; 0 between polls.
    pub task: u64,
    /// Tick of the last change.
    pub since: u64,
    /// Polls so far; unset where no hook counts them.
    pub polls: u64,
}

impl WorkerCell {
    /// A poll begins on the thread that this cell [is of](Self::is_of).
    #[inline]
    pub fn poll_begins(&self, task: u64, now: u64) {
        // A reader that sees this task must see that the last poll is over; pairs
        // with the fence in `now`.
        fence(Ordering::Release);
        self.task.store(task, Ordering::Relaxed);
        let polls = self.polls.load(Ordering::Relaxed);
        self.polls.store(polls + 1, Ordering::Relaxed);
        self.poll_began.store(now, Ordering::Release);
    }

    /// The calling thread acts as this worker from now on.
    pub fn belongs_to(&self, tid: u32) {
        self.parked.store(false, Ordering::Relaxed);
        self.tid.store(tid, Ordering::Relaxed);
    }

    /// The thread acts as this worker, as far as threads have told.
    #[inline]
    pub fn is_of(&self, tid: u32) -> bool {
        self.tid.load(Ordering::Relaxed) == tid
    }

    /// The poll of the calling thread ended. Ignored if another thread has
    /// taken this worker over meanwhile.
    #[inline]
    pub fn poll_ends(&self, tid: u32, now: u64) {
        if self.tid.load(Ordering::Relaxed) == tid {
            self.since.store(now, Ordering::Relaxed);
            self.poll_began.store(0, Ordering::Release);
        }
    }

    /// The calling thread parks as this worker, or wakes up again.
    pub fn parks(&self, tid: u32, parked: bool, now: u64) {
        self.tid.store(tid, Ordering::Relaxed);
        self.parked.store(parked, Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
        self.poll_began.store(0, Ordering::Release);
    }

    /// The cell now. Task and begin are of one poll, or both 0.
    pub fn now(&self) -> WorkerNow {
        loop {
            let poll_began = self.poll_began.load(Ordering::Acquire);
            let now = WorkerNow {
                tid: self.tid.load(Ordering::Relaxed),
                parked: self.parked.load(Ordering::Relaxed),
                poll_began,
                task: if poll_began == 0 { 0 } else { self.task.load(Ordering::Relaxed) },
                since: if poll_began == 0 {
                    self.since.load(Ordering::Relaxed)
                } else {
                    poll_began
                },
                polls: self.polls.load(Ordering::Relaxed),
            };
            fence(Ordering::Acquire);
            if self.poll_began.load(Ordering::Relaxed) == poll_began {
                return now;
            }
        }
    }
}

/// One runtime, as its hooks see it.
#[derive(Debug)]
pub struct RuntimeCell {
    /// Small number, also in the task cells.
    pub number: u8,
    /// Given at registration.
    pub name: Arc<str>,
    /// Its task hooks run.
    pub hooked: bool,
    handle: OnceLock<Handle>,
    workers: OnceLock<Box<[WorkerCell]>>,
}

impl RuntimeCell {
    /// The runtime's handle, once the runtime has shown itself.
    pub fn handle(&self) -> Option<&Handle> {
        self.handle.get()
    }

    /// Called from hooks, inside the runtime: learns the handle at the first call.
    #[inline]
    pub fn meet(&self) {
        if self.handle.get().is_none()
            && let Ok(handle) = Handle::try_current()
        {
            self.set_handle(handle);
        }
    }

    fn set_handle(&self, handle: Handle) {
        let workers = handle.metrics().num_workers().min(MAX_WORKERS);
        self.workers.get_or_init(|| (0..workers).map(|_| WorkerCell::default()).collect());
        let _ = self.handle.set(handle);
    }

    /// The cell of a worker; none before `meet`, or beyond the bound.
    #[inline]
    pub fn worker(&self, index: usize) -> Option<&WorkerCell> {
        self.workers.get()?.get(index)
    }

    /// Workers beyond the bound.
    pub fn unobserved(&self) -> u64 {
        let all = self.handle().map_or(0, |handle| handle.metrics().num_workers());
        all.saturating_sub(MAX_WORKERS) as u64
    }

    /// All worker cells.
    pub fn workers(&self) -> &[WorkerCell] {
        self.workers.get().map_or(&[], |workers| workers)
    }
}

/// The runtimes of the process.
#[derive(Debug, Default)]
pub struct Runtimes {
    list: Mutex<Vec<Arc<RuntimeCell>>>,
    next: AtomicU32,
    refused: AtomicU64,
}

impl Runtimes {
    /// A new runtime; its handle comes later, from [`RuntimeCell::meet`], or is
    /// given. Beyond the bound it is observed but not listed, and counted.
    pub fn register(&self, name: &str, hooked: bool, handle: Option<Handle>) -> Arc<RuntimeCell> {
        let mut list = self.lock();
        let mut number = self.next.fetch_add(1, Ordering::Relaxed);
        let full = list.len() >= MAX_RUNTIMES;
        if full {
            self.refused.fetch_add(1, Ordering::Relaxed);
            number = u32::from(u8::MAX);
        } else if number >= u32::from(u8::MAX) {
            // Numbers have run out; take one that a gone runtime has left.
            let free = (0..u8::MAX).find(|n| list.iter().all(|cell| cell.number != *n));
            number = u32::from(free.unwrap_or(u8::MAX));
        }
        let cell = Arc::new(RuntimeCell {
            number: number as u8,
            name: name.into(),
            hooked,
            handle: OnceLock::new(),
            workers: OnceLock::new(),
        });
        if let Some(handle) = handle {
            cell.set_handle(handle);
        }
        if !full {
            list.push(cell.clone());
        }
        cell
    }

    /// Those that are listed.
    pub fn list(&self) -> Vec<Arc<RuntimeCell>> {
        self.lock().clone()
    }

    /// Takes a runtime out whose threads are gone.
    pub fn remove(&self, number: u8) {
        self.lock().retain(|cell| cell.number != number);
    }

    /// Runtimes beyond the bound.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<RuntimeCell>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WorkerNow {
    /// Nanoseconds in the current state at tick `now`.
    pub fn state_ns(&self, now: u64) -> u64 {
        if self.since == 0 { 0 } else { clock::delta_ns(self.since, now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_shows_while_it_lasts() {
        let cell = WorkerCell::default();
        cell.parks(11, true, 5);
        assert!(cell.now().parked);
        cell.belongs_to(11);
        cell.poll_begins(42, 10);
        let now = cell.now();
        assert_eq!((now.tid, now.parked, now.poll_began, now.task), (11, false, 10, 42));
        cell.poll_ends(11, 20);
        let now = cell.now();
        assert_eq!((now.poll_began, now.task, now.since, now.polls), (0, 0, 20, 1));
    }

    #[test]
    fn a_poll_that_gave_its_worker_away_ends_unseen() {
        let cell = WorkerCell::default();
        cell.belongs_to(11);
        cell.poll_begins(42, 10);
        // `block_in_place`: thread 12 becomes this worker and parks.
        cell.parks(12, true, 15);
        cell.poll_ends(11, 20);
        let now = cell.now();
        assert_eq!((now.tid, now.parked, now.since), (12, true, 15));
    }

    #[test]
    fn runtimes_are_bounded_and_numbers_come_back() {
        let runtimes = Runtimes::default();
        for n in 0..MAX_RUNTIMES {
            runtimes.register(&format!("r{n}"), true, None);
        }
        assert_eq!(runtimes.refused(), 0);
        assert_eq!(runtimes.register("one more", true, None).number, u8::MAX);
        assert_eq!((runtimes.refused(), runtimes.list().len()), (1, MAX_RUNTIMES));
        runtimes.remove(7);
        let numbers: std::collections::HashSet<u8> = (0..1)
            .map(|_| runtimes.register("again", true, None).number)
            .chain(runtimes.list().iter().map(|cell| cell.number))
            .collect();
        assert_eq!(numbers.len(), MAX_RUNTIMES, "no number twice");
    }
}
