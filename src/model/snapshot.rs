//! The snapshot: everything known at one instant.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Blocked, Connection, Endpoint, History, Pause, Runtime, Stream, Task, Timestamp, Worker,
};

/// Version of the JSON layout. It changes when a field changes its meaning or
/// goes away, not when one is added.
pub const SCHEMA_VERSION: u32 = 1;

/// The process a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Process {
    /// File name of the executable.
    pub name: Arc<str>,
    /// Process id.
    pub pid: u32,
    /// Drawn at random when the profiler started: a new one is a new process.
    pub boot_id: Arc<str>,
    /// GNU build id of the executable in hexadecimal, if it has one.
    pub build_id: Option<Arc<str>>,
    /// Path of the executable, for tools that look symbols up.
    pub executable: Arc<str>,
    /// Time since the profiler started.
    pub uptime_ns: u64,
}

/// Why something is not in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Built without `--cfg tokio_unstable`: tokio offers no task hooks.
    NoTokioUnstable,
    /// The registry was full when the task was spawned.
    RegistryFull,
    /// Spawned before the hooks, on a `LocalSet`, or the root of a `block_on`:
    /// tokio has no hook for these. The runtime counts only some of them.
    NoHook,
    /// Closures of `spawn_blocking` are threads, not tasks; counted, not listed.
    BlockingPool,
    /// Suspended tasks whose await chain is not read.
    NoAwaitChain,
    /// No debug information, or not of this build: await chains cannot be read.
    NoDebugInfo,
    /// Debug information without types (`debug = 1`): names and states, no
    /// await points.
    TypesOnly,
    /// The system refused the copy of memory that await chains are read from.
    NoMemoryImage,
    /// A bound on time or size ended the reading of memory.
    BoundReached,
    /// A thread's native stack could not be captured.
    NoNativeStack,
    /// A table beside those of tasks and streams had no room: what is shown lacks
    /// a name, a place or a worker.
    TableFull,
    /// The stream was not tracked: too many live streams.
    StreamsFull,
    /// The stream's socket is not tapped, or its frames could not be told apart.
    NoTap,
    /// Changed while it was being read.
    Torn,
}

impl Reason {
    /// As written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoTokioUnstable => "no_tokio_unstable",
            Self::RegistryFull => "registry_full",
            Self::NoHook => "no_hook",
            Self::BlockingPool => "blocking_pool",
            Self::NoAwaitChain => "no_await_chain",
            Self::NoDebugInfo => "no_debug_info",
            Self::TypesOnly => "types_only",
            Self::NoMemoryImage => "no_memory_image",
            Self::BoundReached => "bound_reached",
            Self::NoNativeStack => "no_native_stack",
            Self::TableFull => "table_full",
            Self::StreamsFull => "streams_full",
            Self::NoTap => "no_tap",
            Self::Torn => "torn",
        }
    }
}

/// How many are missing for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Missing {
    /// Why.
    pub reason: Reason,
    /// How many.
    pub count: u64,
    /// In a sentence.
    pub detail: String,
}

/// What a snapshot saw, against what the runtime says is alive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Coverage {
    /// Tasks alive, by the runtimes' own count.
    pub alive: u64,
    /// Tasks listed.
    pub listed: u64,
    /// Of those, with a stack.
    pub with_stack: u64,
    /// Of those, running.
    pub running: u64,
    /// What is missing, and why.
    pub missing: Vec<Missing>,
    /// Tasks and streams that a bound kept out since the start.
    pub dropped: u64,
}

/// Totals since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Counters {
    /// Tasks seen spawning.
    pub tasks_spawned: u64,
    /// Tasks seen ending.
    pub tasks_ended: u64,
    /// Tasks not held for want of room.
    pub tasks_dropped: u64,
    /// `spawn_blocking` closures seen ending. To tokio the worker threads of a
    /// runtime are such closures as well.
    pub blocking_ended: u64,
    /// gRPC streams started.
    pub streams_started: u64,
    /// gRPC streams ended.
    pub streams_ended: u64,
    /// gRPC streams not held for want of room.
    pub streams_dropped: u64,
    /// Spans that a receiver took, each receiver counted.
    #[serde(default)]
    pub spans_exported: u64,
    /// Spans that a receiver refused, or that did not reach it.
    #[serde(default)]
    pub spans_failed: u64,
    /// Streams whose spans were not made for want of room.
    #[serde(default)]
    pub spans_dropped: u64,
    /// Polls that the watchdog has seen last longer than the threshold.
    pub blocked_polls: u64,
    /// Times the process stood still.
    pub pauses: u64,
    /// Panics caught inside the profiler.
    pub profiler_panics: u64,
}

/// Everything known at one instant. Immutable once taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Snapshot {
    /// Layout of this JSON.
    pub schema: u32,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// Of which process.
    pub process: Process,
    /// What it covers.
    pub coverage: Coverage,
    /// Totals.
    pub counters: Counters,
    /// Polls longer than this count as blocked.
    pub blocked_threshold_ns: u64,
    /// Runtimes, by id.
    pub runtimes: Vec<Runtime>,
    /// Workers, by runtime and index.
    pub workers: Vec<Worker>,
    /// Polls over the threshold: those that last, then recent ones, newest first.
    pub blocked: Vec<Blocked>,
    /// Recent times at which the process stood still, newest first.
    pub pauses: Vec<Pause>,
    /// Servers and channels of gRPC, by id.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Connections, by id.
    pub connections: Vec<Connection>,
    /// Live streams, by id.
    pub streams: Vec<Stream>,
    /// Ended streams, newest first, as many as the ring holds.
    pub ended_streams: Vec<Stream>,
    /// What earlier snapshots add.
    #[serde(default)]
    pub history: History,
    /// Live tasks, by id.
    pub tasks: Vec<Task>,
}

impl Snapshot {
    /// Taken from outside the process: nothing there watches polls and pauses,
    /// and nothing counts tasks and streams as they come and go.
    pub fn is_from_outside(&self) -> bool {
        // Inside there is a watchdog, and it has a threshold.
        self.blocked_threshold_ns == 0
    }

    /// The same with other tasks, by id. Its own are not copied: they may be many.
    pub fn with_tasks(&self, tasks: Vec<Task>) -> Self {
        Self {
            schema: self.schema,
            taken_at: self.taken_at,
            process: self.process.clone(),
            coverage: self.coverage.clone(),
            counters: self.counters.clone(),
            blocked_threshold_ns: self.blocked_threshold_ns,
            runtimes: self.runtimes.clone(),
            workers: self.workers.clone(),
            blocked: self.blocked.clone(),
            pauses: self.pauses.clone(),
            endpoints: self.endpoints.clone(),
            connections: self.connections.clone(),
            streams: self.streams.clone(),
            ended_streams: self.ended_streams.clone(),
            history: self.history.clone(),
            tasks,
        }
    }
}
