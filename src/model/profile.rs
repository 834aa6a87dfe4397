//! A CPU profile of the process.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Location, Stack, TaskId, Timestamp};

/// Samples with one stack and one set of labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuSample {
    /// Where the thread was.
    pub stack: Arc<Stack>,
    /// The task it polled.
    pub task: Option<TaskId>,
    /// Where that task was spawned.
    pub spawned_at: Option<Arc<Location>>,
    /// gRPC method of that task.
    pub method: Option<Arc<str>>,
    /// The thread's name.
    pub thread: Arc<str>,
    /// How many samples.
    pub count: u64,
}

/// A CPU profile: where threads spent processor time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuProfile {
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration_ns: u64,
    /// Processor time that one sample stands for.
    pub period_ns: u64,
    /// The samples.
    pub samples: Vec<CpuSample>,
    /// Samples that were due but could not be taken.
    pub lost: u64,
    /// Threads that could not be sampled at all.
    pub threads_missed: u64,
    /// Samples of tasks beyond the bound, which have their number alone.
    #[serde(default)]
    pub untold: u64,
}
