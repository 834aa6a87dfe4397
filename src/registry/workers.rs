//! Runtimes and their workers: what each polls now and since when.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::runtime::Handle;

use super::clock;
use crate::sys::zeroed::{Array, Line};

/// Runtimes told apart; a task cell has eight bits for its runtime.
pub const MAX_RUNTIMES: usize = 254;
/// Workers observed in one runtime.
pub const MAX_WORKERS: usize = 1_024;

// Words of a worker's line.
/// Thread that acts as this worker; 0 before the first sign of it.
const TID: usize = 0;
/// 1 while it is parked.
const PARKED: usize = 1;
/// Tick at which the current poll began; 0 between polls.
const POLL_BEGAN: usize = 2;
/// Of which task that is, or was.
const TASK: usize = 3;
/// While there is no poll: tick of its end, or of the last change between
/// parked and not.
const SINCE: usize = 4;
const POLLS: usize = 5;

/// Lines from one worker to the next: neighbours are prefetched in pairs.
const STRIDE: usize = 2;

/// What one worker does now. A cell belongs to the worker index, not to the
/// thread: in `block_in_place` another thread takes the index over, and the
/// cell then shows what that thread does.
#[derive(Clone, Copy, Debug)]
pub struct WorkerCell<'a>(&'a Line);

/// The workers of a runtime. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct WorkerCells {
    lines: Array<Line>,
}

impl Default for WorkerCells {
    fn default() -> Self {
        Self { lines: Array::new(STRIDE * MAX_WORKERS) }
    }
}

impl WorkerCells {
    /// The cell of a worker, whether there is one of that index or not; none
    /// beyond the bound.
    #[inline(always)]
    pub fn get(&self, index: usize) -> Option<WorkerCell<'_>> {
        self.lines.get(STRIDE * index).map(WorkerCell)
    }
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

impl WorkerCell<'_> {
    #[inline(always)]
    fn word(&self, word: usize) -> &AtomicU64 {
        &self.0.0[word]
    }

    #[inline(always)]
    fn set(&self, word: usize, value: u64) {
        self.word(word).store(value, Ordering::Relaxed);
    }

    /// A poll begins on the thread that this cell [is of](Self::is_of).
    #[inline(always)]
    pub fn poll_begins(&self, task: u64, now: u64) {
        // A reader that sees this task must see that the last poll is over; pairs
        // with the fence in `now`.
        fence(Ordering::Release);
        self.set(TASK, task);
        self.set(POLLS, self.word(POLLS).load(Ordering::Relaxed) + 1);
        self.word(POLL_BEGAN).store(now, Ordering::Release);
    }

    /// The last poll was of this task.
    #[inline(always)]
    pub fn polled_last(&self, task: u64) -> bool {
        self.word(TASK).load(Ordering::Relaxed) == task
    }

    /// The calling thread acts as this worker from now on.
    pub fn belongs_to(&self, tid: u32) {
        self.set(PARKED, 0);
        self.set(TID, tid.into());
    }

    /// The thread acts as this worker, as far as threads have told.
    #[inline(always)]
    pub fn is_of(&self, tid: u32) -> bool {
        self.word(TID).load(Ordering::Relaxed) == u64::from(tid)
    }

    /// The poll of the calling thread ended. Ignored if another thread has
    /// taken this worker over meanwhile.
    #[inline(always)]
    pub fn poll_ends(&self, tid: u32, now: u64) {
        if self.is_of(tid) {
            self.set(SINCE, now);
            self.word(POLL_BEGAN).store(0, Ordering::Release);
        }
    }

    /// The calling thread parks as this worker, or wakes up again.
    pub fn parks(&self, tid: u32, parked: bool, now: u64) {
        self.set(TID, tid.into());
        self.set(PARKED, parked.into());
        self.set(SINCE, now);
        self.word(POLL_BEGAN).store(0, Ordering::Release);
    }

    /// The cell now. Task and begin are of one poll, or both 0.
    pub fn now(&self) -> WorkerNow {
        loop {
            let word = |n: usize| self.word(n).load(Ordering::Relaxed);
            let poll_began = self.word(POLL_BEGAN).load(Ordering::Acquire);
            let now = WorkerNow {
                tid: word(TID) as u32,
                parked: word(PARKED) != 0,
                poll_began,
                task: if poll_began == 0 { 0 } else { word(TASK) },
                since: if poll_began == 0 { word(SINCE) } else { poll_began },
                polls: word(POLLS),
            };
            fence(Ordering::Acquire);
            if word(POLL_BEGAN) == poll_began {
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
    cells: WorkerCells,
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
        let _ = self.handle.set(handle);
    }

    /// Workers that there are: none before `meet`, and no more than the bound.
    fn observed(&self) -> usize {
        self.handle().map_or(0, |handle| handle.metrics().num_workers()).min(MAX_WORKERS)
    }

    /// The cell of a worker; none before `meet`, or beyond the bound.
    pub fn worker(&self, index: usize) -> Option<WorkerCell<'_>> {
        self.cells.get(index).filter(|_| index < self.observed())
    }

    /// For hooks, which know that there is a worker.
    pub fn cells(&self) -> WorkerCells {
        self.cells.clone()
    }

    /// Workers beyond the bound.
    pub fn unobserved(&self) -> u64 {
        let all = self.handle().map_or(0, |handle| handle.metrics().num_workers());
        all.saturating_sub(MAX_WORKERS) as u64
    }

    /// All worker cells.
    pub fn workers(&self) -> impl Iterator<Item = WorkerCell<'_>> {
        (0..self.observed()).filter_map(|index| self.cells.get(index))
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
            cells: WorkerCells::default(),
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
        let cells = WorkerCells::default();
        let cell = cells.get(3).unwrap();
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
        let cells = WorkerCells::default();
        let cell = cells.get(3).unwrap();
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
