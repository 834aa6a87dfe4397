//! tokio's tasks, read from an image: who they are, where they wait, for
//! what, and what they hold.
//!
//! ```text
//! handles, threads, heap ─▶ owners ─▶ task headers ─▶ cells ─▶ walk ─▶ render ─▶ TaskRead
//!      (search)            (lists)                   (types)  (plan, leaves, holds, waits)
//! ```
//!
//! What is known of tokio is in [`tokio`], [`leaves`] and [`holds`], by name;
//! offsets come from [`Layouts`]. Every list, depth and size has a bound in
//! [`Limits`], and what a bound kept out is counted in `missing`.
//!
//! A future's memory is what it was when its last poll returned. Of a task
//! that a worker polls right now, only the state is reported.

mod cells;
mod coroutine;
mod fields;
mod frames;
mod hash;
mod holders;
mod holds;
mod interest;
mod keep;
mod leaves;
mod owners;
#[cfg(any(test, fuzzing))]
mod parked;
mod plan;
mod read;
mod render;
mod search;
mod semaphores;
mod several;
mod sockets;
#[cfg(test)]
mod tests;
mod tokio;
mod trace;
mod untyped;
mod waits;
mod walk;
#[cfg(any(test, fuzzing))]
pub mod wild;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use hash::NumberMap;
pub use read::read;
pub use search::Stray;

use crate::model::{Branch, Held, Location, Missing, Stack, TaskId, TaskState, Wait};

/// Where to begin.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// Addresses of `tokio::runtime::Handle` values.
    pub handles: Vec<u64>,
    /// Search the heap for runtimes and `LocalSet`s that nothing else led to.
    pub search: bool,
    /// What an earlier search found, from its [`TasksRead::strays`].
    pub strays: Vec<Stray>,
    /// The monotonic clock (`CLOCK_MONOTONIC`) when the image was taken, in
    /// nanoseconds: deadlines are told relative to it. `None`: they are not told.
    pub monotonic_ns: Option<u64>,
    /// The process whose sockets are looked up under `/proc`; `None` for a
    /// core dump, whose descriptors lead nowhere.
    pub process: Option<u32>,
}

/// How much is read at most. A bound that is reached is counted in
/// [`TasksRead::missing`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// Tasks, of all runtimes.
    pub tasks: usize,
    /// Nesting of values within one task.
    pub depth: u32,
    /// Frames of one task, all branches included.
    pub frames: usize,
    /// Places where one task waits.
    pub branches: usize,
    /// Elements of any list or queue.
    pub list: usize,
    /// Bytes copied from the image, the search not counted.
    pub bytes: u64,
    /// Bytes searched for further runtimes.
    pub search_bytes: u64,
    /// When to stop.
    pub deadline: Option<Instant>,
}

impl TasksRead {
    /// By how much lists and counts of the runtimes are at odds: a spawn or an
    /// end was caught between its two stores, and another image shows both.
    pub fn short(&self) -> u64 {
        self.owners.iter().map(|owner| owner.alive.abs_diff(owner.read)).sum()
    }

    /// Tasks alive by the runtimes' own counts, without those whose future had
    /// ended and that only wait to be taken off the list.
    pub fn alive(&self) -> u64 {
        let counted: u64 = self.owners.iter().map(|owner| owner.alive).sum();
        let read: u64 = self.owners.iter().map(|owner| owner.read).sum();
        let ended = read.saturating_sub(self.tasks.len() as u64);
        counted.saturating_sub(ended)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tasks: 2_000_000,
            // Each await takes one to three.
            depth: 400,
            frames: 10_000,
            branches: 1_000,
            list: 100_000,
            bytes: 64 << 30,
            search_bytes: 16 << 30,
            deadline: None,
        }
    }
}

/// One task, as read.
#[derive(Clone, Debug)]
pub struct TaskRead {
    /// tokio's id.
    pub id: TaskId,
    /// Equal for tasks of one runtime or one `LocalSet`: where its list of tasks is.
    pub owner: u64,
    /// `Running`, `Scheduled` (woken, waits for a worker) or `Idle`.
    pub state: TaskState,
    /// Where it was spawned, if tokio keeps it (`tokio_unstable`).
    pub spawned_at: Option<Arc<Location>>,
    /// Await chain, innermost first. Not for running tasks: what memory holds
    /// of them is what they were before.
    pub stack: Option<Arc<Stack>>,
    /// Wakers and abort handles of it, by its count of references, if it is
    /// idle: others are referred to by whoever runs them.
    pub wakers: Option<u64>,
    /// Whether its join handle is still there.
    pub joinable: Option<bool>,
    /// What it waits for.
    pub wait: Option<Wait>,
    /// What else it awaits at once or keeps without polling it.
    pub branches: Box<[Branch]>,
    /// What it holds.
    pub holds: Box<[Held]>,
}

#[cfg(test)]
impl TaskRead {
    /// One of which only the id is known.
    pub fn unseen(id: TaskId) -> Self {
        Self {
            id,
            owner: 0,
            state: TaskState::Idle,
            spawned_at: None,
            stack: None,
            wait: None,
            wakers: None,
            joinable: None,
            branches: Box::default(),
            holds: Box::default(),
        }
    }
}

/// A runtime or `LocalSet` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Where its list of tasks is.
    pub address: u64,
    /// The list's id, which tokio gives once in a process; 0 if it is not known.
    pub id: u64,
    /// `multi_thread`, `current_thread` or `local_set`.
    pub flavor: &'static str,
    /// Tasks alive by its own count.
    pub alive: u64,
    /// Tasks read, those included that had just finished.
    pub read: u64,
    /// `alive` is its own count, or all of its list; else what a search found.
    pub counted: bool,
}

/// All that was read.
#[derive(Clone, Debug, Default)]
pub struct TasksRead {
    /// By id.
    pub tasks: Vec<TaskRead>,
    /// By address.
    pub owners: Vec<Owner>,
    /// What threads say they poll: kernel thread id and task.
    pub polling: Vec<(i32, TaskId)>,
    /// For each of [`Roots::handles`], the address of the owner it led to.
    pub handles: Vec<Option<u64>>,
    /// Lists of tasks that only a search found, this one or an earlier.
    pub strays: Vec<Stray>,
    /// How long the search took, if there was one.
    pub searched: Option<Duration>,
    /// What could not be read, and why.
    pub missing: Vec<Missing>,
}
