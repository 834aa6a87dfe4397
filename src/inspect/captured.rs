//! What reading native stacks gives.

use std::sync::Arc;

use super::unwind::Walk;
use crate::model::{Stack, TaskId};

/// The native stack of a thread.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Its addresses: they have names once debug information has been read.
    pub walk: Walk,
    /// The task that the thread was polling, if the thread itself could say
    /// so. A thread asleep in a system call is not woken to be asked.
    pub polled_task: Option<TaskId>,
}

/// Samples of one thread with one stack and one task.
#[derive(Clone, Debug)]
pub struct CpuStack {
    /// Where the thread was.
    pub stack: Arc<Stack>,
    /// The task it polled.
    pub task: Option<TaskId>,
    /// Kernel thread id.
    pub tid: u32,
    /// The thread's name; empty if it ended before it was asked.
    pub thread: Arc<str>,
    /// How many samples.
    pub count: u64,
}

/// A CPU profile before anybody has looked up what the tasks are.
#[derive(Clone, Debug)]
pub struct CpuSamples {
    /// Most samples first.
    pub samples: Vec<CpuStack>,
    /// CPU time that one sample stands for.
    pub period_ns: u64,
    /// Samples that were due but could not be taken.
    pub lost: u64,
    /// Threads that got no timer (the user's limit of pending signals).
    pub threads_missed: u64,
}
