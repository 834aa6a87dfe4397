//! What is the same from look to look while a task stays where it is.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use crate::model::{Stack, Task, TaskState, Wait};

/// Stacks are shared between tasks, so each is hashed once.
pub type Hashes = HashMap<*const Stack, u64>;

/// All that a task awaits, its main chain first.
pub fn chains(task: &Task) -> impl Iterator<Item = (Option<&Arc<Stack>>, Option<&Wait>)> {
    let branches = task.branches.iter().filter(|branch| branch.wait.is_some());
    std::iter::once((task.stack.as_ref(), task.wait.as_ref()))
        .chain(branches.map(|branch| (Some(&branch.stack), branch.wait.as_ref())))
}

/// Equal while a task stays where it is, waiting for the same thing.
pub fn signature(
    task: &Task,
    stack: Option<&Arc<Stack>>,
    wait: Option<&Wait>,
    hashes: &mut Hashes,
) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Woken or not, it has not moved on yet.
    (task.unhooked && task.state == TaskState::Running).hash(&mut hasher);
    if let Some(stack) = stack {
        hashes.entry(Arc::as_ptr(stack)).or_insert_with(|| hash_of(stack)).hash(&mut hasher);
    }
    if let Some(wait) = wait {
        (wait.kind, &wait.resource, wait.task, wait.mark.counter()).hash(&mut hasher);
    }
    hasher.finish()
}

fn hash_of(stack: &Stack) -> u64 {
    let mut hasher = DefaultHasher::new();
    for frame in &stack.frames {
        (&frame.function_full, &frame.location).hash(&mut hasher);
    }
    hasher.finish()
}
