//! What the debug server reads: a [`Source`] of snapshots.
//!
//! The server knows nothing of registries or memory images. The process's own
//! profiler is one source; a saved snapshot or another process can be others.

use std::time::Duration;

use crate::error::Result;
use crate::model::{CpuProfile, Process, Snapshot, StreamId};

/// How much of a snapshot is wanted. Less is cheaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// List the tasks; without it only counts and coverage are filled.
    pub tasks: bool,
    /// Take stacks as well.
    pub stacks: bool,
}

impl Want {
    /// Everything.
    pub const ALL: Self = Self { tasks: true, stacks: true };
    /// The list of tasks without stacks.
    pub const TASKS: Self = Self { tasks: true, stacks: false };
    /// Runtimes, workers, streams, findings; no list of tasks.
    pub const COUNTS: Self = Self { tasks: false, stacks: false };
}

/// Which streams to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// One live stream.
    Stream(StreamId),
    /// All streams of a method, those to come included.
    Method(String),
}

/// Where answers come from. All methods may block: the server calls them from
/// a thread that may, never from the runtime that is being watched.
pub trait Source: Send + Sync + 'static {
    /// The process that is watched.
    fn process(&self) -> Process;

    /// Its arguments, the program's name first; empty where nobody knows.
    fn command_line(&self) -> Vec<String>;

    /// Takes a snapshot now.
    ///
    /// # Errors
    /// Those of looking at another process: it is gone, may not be looked at,
    /// or has more memory than is copied (`OutOfMemory`). It is unharmed. What
    /// is merely not seen is in the snapshot's coverage.
    fn snapshot(&self, want: Want) -> Result<Snapshot>;

    /// Samples the CPU for `duration`, less if `stop` turns true.
    ///
    /// # Errors
    /// `Busy` if a profile is being taken, `Unsupported` where it cannot be done.
    fn cpu_profile(
        &self,
        duration: Duration,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<CpuProfile>;

    /// Names a code address (as linked): `(function, file:line)`.
    fn symbol(&self, address: u64) -> Option<String>;

    /// Logs each Send and Recv of some streams as tracing events, or stops
    /// doing so; returns how many live streams it concerns.
    ///
    /// # Errors
    /// `NotFound` if there is no such live stream.
    fn log_streams(&self, target: &LogTarget, on: bool) -> Result<usize>;
}
