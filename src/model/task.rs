//! One async task.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Branch, Held, Location, RuntimeId, Stack, StreamId, TaskId, Wait, WaitKind};

/// What a task is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Spawned and waiting for its first poll. Later waits in a run queue are
    /// not told apart from `idle`: tokio has no hook for a wake.
    Scheduled,
    /// A worker is polling it now.
    Running,
    /// Its last poll returned `Pending`; it waits to be woken.
    Idle,
    /// Alive, but its polls are not observed (no `tokio_unstable`).
    Unknown,
}

impl TaskState {
    /// The word used in JSON, labels and text dumps.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Idle => "idle",
            Self::Unknown => "unknown",
        }
    }
}

/// One live task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Task {
    /// tokio's id.
    pub id: TaskId,
    /// The task that spawned it, if it was spawned from one.
    pub parent: Option<TaskId>,
    /// The runtime it lives on.
    pub runtime: RuntimeId,
    /// Where it was spawned, if tokio tells (`tokio_unstable`).
    pub spawned_at: Option<Arc<Location>>,
    /// gRPC method (`/pkg.Service/Method`) of the stream that caused it.
    pub method: Option<Arc<str>>,
    /// Peer address of the stream that caused it.
    pub peer: Option<Arc<str>>,
    /// The gRPC stream that caused it, alive or ended.
    pub stream: Option<StreamId>,
    /// What it is doing.
    pub state: TaskState,
    /// Worker index, while running.
    pub worker: Option<u32>,
    /// Time in the current state.
    pub state_ns: u64,
    /// Time since it was spawned.
    pub age_ns: u64,
    /// Polls so far, the current one included.
    pub polls: u64,
    /// Time spent inside polls, the current one included. A poll on a runtime of
    /// several threads begins where its worker's last one ended, or the worker
    /// woke up: the scheduler's work in between, and a turn of the I/O driver
    /// now and then, are part of it.
    pub busy_ns: u64,
    /// The longest poll, to the microsecond, the current one included.
    pub longest_poll_ns: u64,
    /// No hook sees it (another process, a `LocalSet`, no `tokio_unstable`):
    /// `state_ns` and `age_ns` are lower bounds, polls and busy time unknown.
    #[serde(default)]
    pub unhooked: bool,
    /// Its stack, if one could be had.
    pub stack: Option<Arc<Stack>>,
    /// What it waits for, if known. Boxed: most of 100,000 tasks have none.
    pub wait: Option<Wait>,
    /// Wakers of it that exist, abort handles included, by tokio's count of
    /// references: an idle task without any cannot be woken. `None` unless its
    /// memory was read and it was idle.
    #[serde(default)]
    pub wakers: Option<u64>,
    /// Whether its join handle is still there, through which it can be awaited
    /// and aborted. None if its memory was not read.
    #[serde(default)]
    pub joinable: Option<bool>,
    /// What else it awaits at once, or keeps without polling it.
    #[serde(default)]
    pub branches: Box<[Branch]>,
    /// What it holds that others may wait for.
    #[serde(default)]
    pub holds: Box<[Held]>,
}

impl Task {
    /// How long it has waited for what it waits for; where that is not known,
    /// how long it has been in its state.
    pub fn waited_ns(&self) -> u64 {
        match self.wait.as_ref() {
            Some(wait) if wait.wait_ns > 0 || !wait.lower_bound => wait.wait_ns,
            _ => self.state_ns,
        }
    }

    /// What it waits for, if that is known.
    pub fn waits_for(&self) -> Option<WaitKind> {
        self.wait.as_ref().map(|wait| wait.kind).filter(|kind| *kind != WaitKind::Unknown)
    }

    /// Where a person looks first: the innermost frame of the program's own
    /// code, or else the place that spawned it.
    pub fn place(&self) -> Option<&Location> {
        self.stack
            .as_deref()
            .and_then(Stack::user_frame)
            .and_then(|frame| frame.location.as_ref())
            .or(self.spawned_at.as_deref())
    }
}
