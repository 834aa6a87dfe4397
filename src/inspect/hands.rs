//! In whose hands the things are that tasks queue for, from look to look.
//!
//! Tasks that go round through one lock stand in its queue at every look, and
//! if they go round in step with the looks, always in the same order. Who has
//! the lock tells them apart from tasks that wait: it is another one at most
//! looks, or the same at another time of its own.

use std::collections::HashMap;

use super::signature::{Hashes, chains, signature};
use crate::model::{Resource, Task, TaskId, Wait, WaitKind};

/// One holder at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holding {
    task: TaskId,
    /// Equal while the task stays where it is.
    state: u64,
    /// Whether it would be another, had the task gone on.
    tells: bool,
}

/// What the looks so far told of one thing that tasks queue for.
#[derive(Debug, Default)]
struct Hand {
    holders: Vec<Holding>,
    /// From so many looks to the next, somebody had it and did not go on.
    still: u32,
    /// From so many, all that had it were others.
    moved: u32,
    /// It moves, as of this look.
    is_another: bool,
}

/// One entry for each thing that had a queue at the last look.
#[derive(Debug, Default)]
pub struct Hands {
    of: HashMap<Resource, Hand>,
}

impl Hands {
    /// Takes note of who holds what others queue for. `tasks` are in the order
    /// of their ids.
    pub fn observe(&mut self, tasks: &[Task], hashes: &mut Hashes) {
        let mut of: HashMap<Resource, Hand> = HashMap::new();
        let mut known: HashMap<TaskId, Option<Holding>> = HashMap::new();
        for wait in tasks.iter().flat_map(chains).filter_map(|(_, wait)| wait) {
            let Some(resource) = wait.resource.filter(|_| wait.mark.ahead().is_some()) else {
                continue;
            };
            let before = self.of.get(&resource);
            of.entry(resource).or_insert_with(|| {
                let holders = wait.holders.iter().filter_map(|holder| {
                    *known.entry(holder.task).or_insert_with(|| holding(tasks, holder.task, hashes))
                });
                next(before, holders.collect(), wait)
            });
        }
        self.of = of;
    }

    /// Whether the looks tell that this goes from hand to hand, so that no wait
    /// for it is known to be that of the last look.
    pub fn is_another(&self, resource: Resource) -> bool {
        self.of.get(&resource).is_some_and(|hand| hand.is_another)
    }

    /// Whether from so many looks to the next somebody had it and did not go
    /// on.
    pub fn stayed(&self, resource: Resource, steps: u32) -> bool {
        self.of.get(&resource).is_some_and(|hand| hand.still >= steps)
    }
}

fn next(before: Option<&Hand>, holders: Vec<Holding>, wait: &Wait) -> Hand {
    let Some(before) = before else { return Hand { holders, ..Hand::default() } };
    let same = |now: &Holding| before.holders.iter().any(|then| then.task == now.task);
    let is_moved = !holders.is_empty() && !before.holders.is_empty() && !holders.iter().any(same);
    // Of a semaphore, others may give permits back meanwhile.
    let is_still =
        matches!(wait.kind, WaitKind::Mutex | WaitKind::RwLockRead | WaitKind::RwLockWrite)
            && holders.iter().any(|now| now.tells && before.holders.contains(now));
    let still = before.still.saturating_add(is_still.into());
    let moved = before.moved.saturating_add(is_moved.into());
    if moved > still {
        return Hand { holders, is_another: true, ..Hand::default() };
    }
    Hand { holders, still, moved, is_another: false }
}

/// What a task that holds something does.
fn holding(tasks: &[Task], id: TaskId, hashes: &mut Hashes) -> Option<Holding> {
    let at = tasks.binary_search_by_key(&id, |task| task.id).ok()?;
    let task = &tasks[at];
    let mut state = if task.unhooked { 0 } else { task.polls };
    for (stack, wait) in chains(task) {
        state = state.rotate_left(5) ^ signature(task, stack, wait, hashes);
    }
    let passes = |wait: &Wait| wait.mark.counter() != 0 || wait.kind == WaitKind::Join;
    let tells = !task.unhooked || task.wait.as_ref().is_some_and(passes);
    Some(Holding { task: id, state, tells })
}
