//! How long waits have lasted where no hook saw them begin: since the first of
//! the looks that nothing tells apart. A lower bound, and said to be one.
//!
//! A wait is taken for another as soon as anything shows it: another chain,
//! resource or deadline; a counter that moves on when such waits end (messages
//! sent through a channel, calls of a `Notify`, the driver's tick); or a place
//! in a queue that first come, first served does not explain. Only polls that
//! did not happen prove that it is the same: see [`Since::observe`].

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use crate::model::{Resource, Stack, Task, TaskId, TaskState, Wait};

/// Tasks that go round through one lock are now and then found in the order
/// of the last look, once in as many looks as there are tasks. In so many in a
/// row they are not.
const LOOKS_IN_QUEUE: u32 = 5;

/// One of the things that a task awaits, by its task and what tells it apart.
type Key = (TaskId, u64);

/// One of the things that a task awaits, first seen so then.
#[derive(Clone, Copy, Debug)]
struct Seen {
    since_ns: u64,
    looks: u32,
    /// Of a task whose polls are counted.
    polls: Option<u64>,
    ahead: Option<u32>,
}

/// What earlier snapshots showed. One entry for each chain that the last
/// snapshot listed, of tasks without hooks or with several chains: so it is
/// bounded by the list.
#[derive(Debug, Default)]
pub struct Since {
    /// When tasks without hooks were first seen.
    first: HashMap<TaskId, u64>,
    seen: HashMap<Key, Seen>,
}

/// A place in a queue, now and in the last look.
struct Place {
    resource: Resource,
    ahead: u32,
    key: Key,
    before: Option<u32>,
}

impl Since {
    /// Fills the times in: of hooked tasks since their last poll, which is
    /// exact if they await one thing only; of all others since the first look
    /// that nothing tells apart from this one, which is a lower bound. `now_ns`
    /// counts from anywhere, but never back.
    pub fn observe(&mut self, now_ns: u64, tasks: &mut [Task]) {
        let mut hashes = HashMap::new();
        let mut first = HashMap::with_capacity(self.first.len());
        let mut seen = HashMap::with_capacity(self.seen.len());
        let mut places = Vec::new();
        for task in tasks.iter_mut() {
            if task.unhooked {
                let begun = self.first.get(&task.id).copied().unwrap_or(now_ns);
                first.insert(task.id, begun);
                task.age_ns = now_ns.saturating_sub(begun);
            }
            if !is_followed(task) {
                continue;
            }
            for (stack, wait) in chains(task) {
                let key = (task.id, signature(task, stack, wait, &mut hashes));
                self.follow(now_ns, task, key, wait, &mut seen, &mut places);
            }
        }
        for key in out_of_order(places) {
            if let Some(seen) = seen.get_mut(&key) {
                *seen = Seen { since_ns: now_ns, looks: 1, ..*seen };
            }
        }
        for task in tasks {
            fill(now_ns, task, &seen, &mut hashes);
        }
        (self.first, self.seen) = (first, seen);
    }

    fn follow(
        &self,
        now_ns: u64,
        task: &Task,
        key: Key,
        wait: Option<&Wait>,
        seen: &mut HashMap<Key, Seen>,
        places: &mut Vec<Place>,
    ) {
        let polls = (!task.unhooked).then_some(task.polls);
        let ahead = wait.and_then(|wait| wait.mark.ahead());
        let last = self.seen.get(&key);
        let polled_ns = if task.unhooked { 0 } else { task.state_ns };
        let new = Seen { since_ns: now_ns.saturating_sub(polled_ns), looks: 1, polls, ahead };
        let next = last.map_or(new, |last| Seen {
            since_ns: last.since_ns.min(new.since_ns),
            looks: last.looks.saturating_add(1),
            ..new
        });
        // Not polled since: nothing can have changed.
        let is_proven = last.is_some_and(|last| last.polls.is_some() && last.polls == polls);
        if let (false, Some(ahead), Some(resource)) =
            (is_proven, ahead, wait.and_then(|wait| wait.resource))
        {
            let before = last.and_then(|last| last.ahead);
            places.push(Place { resource, ahead, key, before });
        }
        match seen.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(next);
            }
            // Two that nothing tells apart: the shorter time holds for both.
            Entry::Occupied(mut entry) => {
                let other = entry.get_mut();
                other.since_ns = other.since_ns.max(next.since_ns);
                other.looks = other.looks.min(next.looks);
            }
        }
    }
}

/// Whether looks know more than hooks: of a hooked task with one chain, its
/// last poll tells since when it waits.
fn is_followed(task: &Task) -> bool {
    task.unhooked || !task.branches.is_empty()
}

/// All that a task awaits, its main chain first.
fn chains(task: &Task) -> impl Iterator<Item = (Option<&Arc<Stack>>, Option<&Wait>)> {
    let branches = task.branches.iter().filter(|branch| branch.wait.is_some());
    std::iter::once((task.stack.as_ref(), task.wait.as_ref()))
        .chain(branches.map(|branch| (Some(&branch.stack), branch.wait.as_ref())))
}

fn fill(
    now_ns: u64,
    task: &mut Task,
    seen: &HashMap<Key, Seen>,
    hashes: &mut HashMap<*const Stack, u64>,
) {
    let polled_ns = if task.unhooked { 0 } else { task.state_ns };
    if !is_followed(task) {
        if let Some(wait) = &mut task.wait {
            (wait.wait_ns, wait.lower_bound) = (polled_ns, false);
        }
        return;
    }
    let times: Vec<u64> = chains(task)
        .map(|(stack, wait)| {
            let key = (task.id, signature(task, stack, wait, hashes));
            let Some(seen) = seen.get(&key) else { return polled_ns };
            let queues = wait.is_some_and(|wait| wait.queue.is_some_and(|queue| queue > 1));
            if queues && seen.looks < LOOKS_IN_QUEUE {
                return polled_ns;
            }
            now_ns.saturating_sub(seen.since_ns).max(polled_ns)
        })
        .collect();
    let mut times = times.into_iter();
    let main_ns = times.next().unwrap_or(polled_ns);
    if task.unhooked {
        task.state_ns = main_ns;
    }
    if let Some(wait) = &mut task.wait {
        (wait.wait_ns, wait.lower_bound) = (main_ns, true);
    }
    let waits = task.branches.iter_mut().filter_map(|branch| branch.wait.as_mut());
    for (wait, ns) in waits.zip(times) {
        (wait.wait_ns, wait.lower_bound) = (ns, true);
    }
}

/// Those who cannot have stood in their queue all along: served first come,
/// first served, nobody gets ahead of another, and nobody who left from ahead
/// comes back.
fn out_of_order(mut places: Vec<Place>) -> Vec<Key> {
    places.sort_unstable_by_key(|place| (place.resource, place.ahead));
    let mut wrong = Vec::new();
    for queue in places.chunk_by(|a, b| a.resource == b.resource) {
        // Behind a place: the foremost that anybody now there had.
        let mut foremost = vec![u32::MAX; queue.len() + 1];
        for (index, place) in queue.iter().enumerate().rev() {
            foremost[index] = foremost[index + 1].min(place.before.unwrap_or(u32::MAX));
        }
        let mut hindmost = None;
        let mut is_new = false;
        for (index, place) in queue.iter().enumerate() {
            let stayed = place.before.is_some_and(|before| {
                !is_new
                    && place.ahead <= before
                    && hindmost.is_none_or(|hindmost| hindmost < before)
                    && before < foremost[index + 1]
            });
            if !stayed {
                wrong.push(place.key);
            }
            is_new |= place.before.is_none();
            hindmost = hindmost.max(place.before);
        }
    }
    wrong
}

/// Equal while a task stays where it is, waiting for the same thing.
fn signature(
    task: &Task,
    stack: Option<&Arc<Stack>>,
    wait: Option<&Wait>,
    hashes: &mut HashMap<*const Stack, u64>,
) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Woken or not, it has not moved on yet.
    (task.unhooked && task.state == TaskState::Running).hash(&mut hasher);
    if let Some(stack) = stack {
        // Stacks are shared between tasks, so this is once for each.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Branch, Location, Mark, WaitKind, sample};

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
        assert_eq!((since.first.len(), since.seen.len()), (1, 1));
    }

    #[test]
    fn hooks_know_exactly() {
        let mut tasks = [Task { unhooked: false, state_ns: 77, ..waiting(1, "0xa") }];
        Since::default().observe(9, &mut tasks);
        let wait = tasks[0].wait.as_ref().unwrap();
        assert_eq!((wait.wait_ns, wait.lower_bound), (77, false));
        assert_eq!(tasks[0].state_ns, 77);
    }

    /// Looks at a queue again and again: the order of ids is the queue's.
    fn looks(since: &mut Since, orders: &[&[u64]]) -> Vec<u64> {
        let mut last = Vec::new();
        for (look, order) in (1..).zip(orders) {
            let mut tasks: Vec<Task> = (0..)
                .zip(*order)
                .map(|(ahead, &id)| {
                    let mut task = waiting(id, "0xa");
                    let wait = task.wait.as_mut().unwrap();
                    (wait.mark, wait.queue) = (Mark::of_place(ahead), Some(order.len() as u32));
                    task
                })
                .collect();
            tasks.sort_by_key(|task| task.id);
            since.observe(look * 100, &mut tasks);
            last = tasks.iter().map(|task| task.wait.as_ref().unwrap().wait_ns).collect();
        }
        last
    }

    #[test]
    fn a_queue_that_stands_still_or_moves_up_waits() {
        let still: [&[u64]; 6] = [&[1, 2, 3]; 6];
        assert_eq!(looks(&mut Since::default(), &still), [500; 3]);
        let up: [&[u64]; 5] = [&[9, 1, 2], &[9, 1, 2, 3], &[1, 2, 3], &[1, 2, 3], &[1, 2, 3]];
        assert_eq!(looks(&mut Since::default(), &up), [400, 400, 0], "3 was seen four times only");
        assert_eq!(looks(&mut Since::default(), &still[..4]), [0; 3], "too few looks");
    }

    #[test]
    fn tasks_that_go_round_through_a_lock_never_wait_long() {
        let mut orders: Vec<Vec<u64>> = Vec::new();
        for look in 0..40_usize {
            let mut order: Vec<u64> = (0..9).collect();
            order.rotate_left(look * 4 % 9);
            orders.push(order);
        }
        let orders: Vec<&[u64]> = orders.iter().map(Vec::as_slice).collect();
        assert!(looks(&mut Since::default(), &orders).iter().all(|&ns| ns == 0));
    }

    #[test]
    fn a_counter_that_moved_on_tells_of_another_wait() {
        let mut since = Since::default();
        let mut look = |now, mark| {
            let mut tasks = [waiting(1, "0xa")];
            tasks[0].wait.as_mut().unwrap().mark = Mark::of_counter(mark);
            since.observe(now, &mut tasks);
            tasks[0].wait.as_ref().unwrap().wait_ns
        };
        assert_eq!([look(100, 7), look(200, 7), look(300, 8), look(400, 8)], [0, 100, 0, 100]);
    }

    #[test]
    fn a_branch_outlives_the_polls_of_its_task() {
        let mut since = Since::default();
        let mut look = |now: u64, tick: u64| {
            let mut task = Task { unhooked: false, state_ns: 40, polls: tick, ..waiting(1, "0xa") };
            let mut timer = Wait::new(WaitKind::Sleep, None);
            timer.mark = Mark::of_counter(tick);
            let stack = sample::chain([]);
            task.branches = Box::new([Branch { stack, wait: Some(timer), dormant: false }]);
            let mut tasks = [task];
            since.observe(now, &mut tasks);
            let [task] = tasks;
            assert_eq!(task.state_ns, 40, "the hooks' own");
            let (lock, timer) = (task.wait.unwrap(), task.branches[0].wait.clone().unwrap());
            assert!(lock.lower_bound && timer.lower_bound);
            (lock.wait_ns, timer.wait_ns)
        };
        assert_eq!(look(1_000, 1), (40, 40));
        assert_eq!(look(2_000, 2), (1_040, 40), "the timer is another, the lock is not");
        assert_eq!(look(3_000, 3), (2_040, 40));
    }
}
