//! Live tasks: lock-free cells that the runtime hooks write.

use crate::model::TaskId;

/// All live tasks that the hooks have seen.
#[derive(Debug, Default)]
pub struct Tasks {}

impl Tasks {
    /// Says which stream caused a task; its children inherit it. `slot` is the
    /// stream's slot in [`Streams`](super::streams::Streams); the task takes a
    /// reference to it. Nothing happens if the task is not held.
    pub fn tag(&self, _task: TaskId, _slot: u32) {}
}
