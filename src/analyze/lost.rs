//! Tasks that are idle, and of which no waker exists.

use std::collections::HashSet;

use crate::model::{Task, TaskId, TaskState, WaitKind};

/// Nothing can wake it; somebody may still abort it.
pub fn is_lost(task: &Task) -> bool {
    task.state == TaskState::Idle && task.wakers == Some(0)
}

/// Indexes of the tasks that nothing can wake and nobody can abort, ascending.
pub fn dead(tasks: &[Task]) -> Vec<usize> {
    let lost: Vec<usize> = (0..tasks.len()).filter(|&at| is_lost(&tasks[at])).collect();
    if lost.is_empty() {
        return lost;
    }
    // Whoever awaits a join handle and nothing else does not get to abort it.
    let only_joins = |task: &Task| {
        let wait = task.wait.as_ref().filter(|_| task.branches.is_empty());
        let wait = wait.filter(|_| task.state == TaskState::Idle);
        wait.filter(|wait| wait.kind == WaitKind::Join && wait.deadline_in_ns.is_none())?.task
    };
    let joined: HashSet<TaskId> = tasks.iter().filter_map(only_joins).collect();
    let for_ever = |task: &Task| task.joinable == Some(false) || joined.contains(&task.id);
    lost.into_iter().filter(|&at| for_ever(&tasks[at])).collect()
}
