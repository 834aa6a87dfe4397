//! Runtimes, their workers, and workers that do not come back from a poll.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Location, RuntimeId, Stack, StreamId, TaskId};

/// tokio's scheduler flavor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Flavor {
    /// `Builder::new_current_thread`.
    CurrentThread,
    /// `Builder::new_multi_thread`.
    MultiThread,
    /// One this version does not know.
    Other,
}

/// One tokio runtime: what it says of itself.
///
/// Figures that need `tokio_unstable` are absent without it, never zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Runtime {
    /// Which.
    pub id: RuntimeId,
    /// The name given when it was registered.
    pub name: Arc<str>,
    /// Its scheduler.
    pub flavor: Flavor,
    /// Number of workers; 0 where only memory shows the runtime. Nothing but
    /// its tasks is counted there.
    pub workers: u32,
    /// Tasks alive, by the runtime's own count.
    pub alive_tasks: u64,
    /// Tasks in the global (injection) queue.
    pub global_queue_depth: u64,
    /// Tasks ever spawned.
    pub spawned_tasks: Option<u64>,
    /// Threads of the blocking pool.
    pub blocking_threads: Option<u64>,
    /// Of those, idle.
    pub idle_blocking_threads: Option<u64>,
    /// `spawn_blocking` closures queued.
    pub blocking_queue_depth: Option<u64>,
    /// Polls by all workers, like all totals since the runtime's start.
    pub polls: Option<u64>,
    /// Time all workers were busy.
    pub busy_ns: u64,
    /// Times a worker parked.
    pub parks: u64,
    /// Tasks stolen between workers.
    pub steals: Option<u64>,
    /// Times a task was made to yield by its budget.
    pub budget_forced_yields: Option<u64>,
    /// Mean time of a poll.
    pub mean_poll_ns: Option<u64>,
}

impl Runtime {
    /// The profiler was told of it. Of any other only memory tells, and no more
    /// than its tasks.
    pub fn is_watched(&self) -> bool {
        self.workers > 0
    }
}

/// What a worker thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Inside a poll of a task.
    Polling,
    /// Awake between polls: queues, timers, the driver.
    Searching,
    /// Parked, waiting for work.
    Parked,
    /// Not observed yet.
    Unknown,
}

/// One worker of a runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Worker {
    /// Its runtime.
    pub runtime: RuntimeId,
    /// Index within the runtime.
    pub index: u32,
    /// Kernel thread id, once the thread was seen.
    pub tid: Option<u32>,
    /// The thread's name.
    pub thread: Option<Arc<str>>,
    /// What it is doing.
    pub state: WorkerState,
    /// For how long.
    pub state_ns: u64,
    /// The task it polls.
    pub task: Option<TaskId>,
    /// gRPC method of that task.
    pub method: Option<Arc<str>>,
    /// Polls by this worker, as the hooks count them.
    pub polls: Option<u64>,
    /// Time it was busy, by the runtime's own count.
    pub busy_ns: u64,
    /// Times it parked.
    pub parks: u64,
    /// Tasks in its own run queue.
    pub local_queue_depth: Option<u64>,
    /// Its current poll has lasted longer than the threshold.
    pub blocked: bool,
    /// Its native stack, when polling and captured.
    pub stack: Option<Arc<Stack>>,
}

impl Worker {
    /// Its runtime has the hooks: each of its polls is seen, and how long it lasts.
    pub fn is_observed(&self) -> bool {
        self.polls.is_some()
    }
}

/// A poll that lasted longer than the threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Blocked {
    /// Number of this episode, ascending.
    pub id: u64,
    /// The runtime.
    pub runtime: RuntimeId,
    /// The worker.
    pub worker: u32,
    /// Kernel thread id of the worker.
    pub tid: u32,
    /// The task whose poll does not return.
    pub task: Option<TaskId>,
    /// Where that task was spawned.
    pub spawned_at: Option<Arc<Location>>,
    /// gRPC method of that task.
    pub method: Option<Arc<str>>,
    /// gRPC peer of that task.
    pub peer: Option<Arc<str>>,
    /// gRPC stream of that task.
    pub stream: Option<StreamId>,
    /// It still lasts.
    pub ongoing: bool,
    /// How long the poll has lasted, or lasted. Time during which the whole
    /// process was stopped is not counted.
    pub blocked_ns: u64,
    /// How long ago it ended; 0 while it lasts.
    pub ended_ago_ns: u64,
    /// Tasks that waited in this worker's own queue when last looked at.
    pub queued_local: Option<u64>,
    /// Tasks that waited in the runtime's global queue when last looked at.
    pub queued_global: u64,
    /// Native stack of the thread, captured while the poll lasted.
    pub stack: Option<Arc<Stack>>,
    /// Why there is no stack, if there is none.
    pub stack_missing: Option<Arc<str>>,
}

impl Blocked {
    /// Tasks waiting behind it, as far as the runtime tells.
    pub fn queued(&self) -> u64 {
        self.queued_global + self.queued_local.unwrap_or(0)
    }
}

/// The whole process stood still: SIGSTOP, a debugger, a suspended machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Pause {
    /// For how long no thread of the profiler ran.
    pub paused_ns: u64,
    /// How long ago it ended.
    pub ended_ago_ns: u64,
}
