//! How long tasks have waited where no hook saw the wait begin: since the
//! first snapshot in which they waited so. A lower bound, and said to be one.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use crate::model::{Stack, Task, TaskId, TaskState};

/// A task in one state, first seen then.
#[derive(Clone, Copy, Debug)]
struct Seen {
    what: u64,
    since_ns: u64,
    first_ns: u64,
}

/// What earlier snapshots showed. One entry for each task without hooks that
/// the last snapshot listed, so it is bounded by the list.
#[derive(Debug, Default)]
pub struct Since {
    seen: HashMap<TaskId, Seen>,
}

impl Since {
    /// Fills the times in: exact ones of hooked tasks into their waits, lower
    /// bounds for the others. `now_ns` counts from anywhere, but never back.
    pub fn observe(&mut self, now_ns: u64, tasks: &mut [Task]) {
        let mut hashes = HashMap::new();
        let mut next = HashMap::with_capacity(self.seen.len());
        for task in tasks {
            if task.unhooked {
                let what = signature(task, &mut hashes);
                let mut seen = self.seen.get(&task.id).copied().unwrap_or(Seen {
                    what,
                    since_ns: now_ns,
                    first_ns: now_ns,
                });
                if seen.what != what {
                    seen = Seen { what, since_ns: now_ns, ..seen };
                }
                task.state_ns = now_ns.saturating_sub(seen.since_ns);
                task.age_ns = now_ns.saturating_sub(seen.first_ns);
                next.insert(task.id, seen);
            }
            let (state_ns, unhooked) = (task.state_ns, task.unhooked);
            // A wait lasts since the task's last poll.
            let branches = task.branches.iter_mut().filter_map(|branch| branch.wait.as_mut());
            for wait in task.wait.as_mut().into_iter().chain(branches) {
                wait.wait_ns = state_ns;
                wait.lower_bound = unhooked;
            }
        }
        self.seen = next;
    }
}

/// Equal while a task stays where it is, waiting for the same thing.
fn signature(task: &Task, hashes: &mut HashMap<*const Stack, u64>) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Woken or not, it has not moved on yet.
    (task.state == TaskState::Running).hash(&mut hasher);
    if let Some(stack) = &task.stack {
        // Stacks are shared between tasks, so this is once for each.
        hashes.entry(Arc::as_ptr(stack)).or_insert_with(|| hash_of(stack)).hash(&mut hasher);
    }
    if let Some(wait) = &task.wait {
        (wait.kind, &wait.resource).hash(&mut hasher);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Location, Wait, WaitKind, sample};

    fn waiting(id: u64, resource: &str) -> Task {
        let wait = Wait { lower_bound: false, ..Wait::new(WaitKind::Mutex, resource.parse().ok()) };
        let place = Arc::new(Location { file: "src/a.rs".into(), line: 1, column: 1 });
        Task { unhooked: true, wait: Some(wait), ..sample::task(id, &place) }
    }

    #[test]
    fn a_wait_lasts_since_it_was_first_seen() {
        let mut since = Since::default();
        let mut look = |now, resource: &str| {
            let mut tasks = [waiting(1, resource)];
            since.observe(now, &mut tasks);
            let [task] = tasks;
            let wait = task.wait.unwrap();
            assert!(wait.lower_bound);
            (wait.wait_ns, task.state_ns, task.age_ns)
        };
        assert_eq!(look(100, "0xa"), (0, 0, 0));
        assert_eq!(look(350, "0xa"), (250, 250, 250));
        assert_eq!(look(400, "0xb"), (0, 0, 300), "another lock is another wait");
        assert_eq!(look(450, "0xb"), (50, 50, 350));
    }

    #[test]
    fn tasks_that_are_gone_are_forgotten() {
        let mut since = Since::default();
        since.observe(100, &mut [waiting(1, "0xa")]);
        since.observe(200, &mut []);
        let mut tasks = [waiting(1, "0xa")];
        since.observe(300, &mut tasks);
        assert_eq!(tasks[0].age_ns, 0);
        assert_eq!(since.seen.len(), 1);
    }

    #[test]
    fn hooks_know_exactly() {
        let mut tasks = [Task { unhooked: false, state_ns: 77, ..waiting(1, "0xa") }];
        Since::default().observe(9, &mut tasks);
        let wait = tasks[0].wait.as_ref().unwrap();
        assert_eq!((wait.wait_ns, wait.lower_bound), (77, false));
        assert_eq!(tasks[0].state_ns, 77);
    }
}
