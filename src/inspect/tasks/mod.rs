//! tokio's tasks, read from an image: who they are, where they wait, for
//! what, and what they hold.

use std::sync::Arc;

use crate::model::{Branch, Held, Location, Missing, Stack, TaskId, TaskState, Wait};

/// Where to begin.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// Addresses of `tokio::runtime::Handle` values.
    pub handles: Vec<u64>,
    /// Search the heap for runtimes and `LocalSet`s that nothing else led to.
    pub search: bool,
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
    /// What it waits for.
    pub wait: Option<Box<Wait>>,
    /// What else it awaits at once or keeps without polling it.
    pub branches: Box<[Branch]>,
    /// What it holds.
    pub holds: Box<[Held]>,
}

/// A runtime or `LocalSet` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Where its list of tasks is.
    pub address: u64,
    /// `multi_thread`, `current_thread` or `local_set`.
    pub flavor: &'static str,
    /// Tasks alive by its own count.
    pub alive: u64,
    /// Tasks read.
    pub read: u64,
}

/// All that was read.
#[derive(Clone, Debug, Default)]
pub struct TasksRead {
    /// By id.
    pub tasks: Vec<TaskRead>,
    /// By address.
    pub owners: Vec<Owner>,
    /// What could not be read, and why.
    pub missing: Vec<Missing>,
}
