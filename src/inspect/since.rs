//! How long waits have lasted where no hook saw them begin: since the first of
//! the looks that nothing tells apart. A lower bound, and said to be one.
//!
//! A wait is taken for another as soon as anything shows it: another chain,
//! resource or deadline; a counter that moves on when such waits end (messages
//! sent through a channel, calls of a `Notify`, the driver's tick); a place in
//! a queue that first come, first served does not explain; or a lock that is in
//! another hand at most looks. Only polls that did not happen prove that it is
//! the same: see [`Since::observe`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::hands::Hands;
use super::signature::{Hashes, chains, signature};
use crate::model::{Resource, Task, TaskId, Wait};
use crate::sys::thread;

/// In so many looks in a row a queue has to stand in order. Tasks that go round
/// through one lock are now and then found so, once in as many looks as there
/// are tasks; and much more often if they go round in step with the looks.
const LOOKS_IN_QUEUE: u32 = 12;
/// So many are enough if from each to the next, changes of hands aside, the
/// same task is seen to have it and not to have gone on.
const LOOKS_IN_HAND: u32 = 5;

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
    /// Whose hands what is queued for is in.
    hands: Hands,
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
        let mut hashes = Hashes::new();
        let mut first = HashMap::with_capacity(self.first.len());
        let mut seen = HashMap::with_capacity(self.seen.len());
        let mut places = Vec::new();
        for task in tasks.iter_mut() {
            thread::give_way();
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
        self.hands.observe(tasks, &mut hashes);
        let moved = places.iter().filter(|place| self.hands.is_another(place.resource));
        let moved: Vec<Key> = moved.map(|place| place.key).collect();
        for key in out_of_order(places).into_iter().chain(moved) {
            if let Some(seen) = seen.get_mut(&key) {
                *seen = Seen { since_ns: now_ns, looks: 1, ..*seen };
            }
        }
        for task in tasks {
            fill(now_ns, task, &seen, &self.hands, &mut hashes);
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

fn fill(
    now_ns: u64,
    task: &mut Task,
    seen: &HashMap<Key, Seen>,
    hands: &Hands,
    hashes: &mut Hashes,
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
            let queues = wait.filter(|wait| wait.queue.is_some_and(|queue| queue > 1));
            if queues.is_some_and(|wait| seen.looks < looks_wanted(hands, wait)) {
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

/// Before they are believed of a queue.
fn looks_wanted(hands: &Hands, wait: &Wait) -> u32 {
    let in_hand = |resource| hands.stayed(resource, LOOKS_IN_HAND - 1);
    if wait.resource.is_some_and(in_hand) { LOOKS_IN_HAND } else { LOOKS_IN_QUEUE }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Branch, Holder, Location, Mark, WaitKind, sample};

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

    /// A queue, in the order of its ids, and who holds the lock until when.
    struct Look(Vec<u64>, Option<(u64, u64)>);

    /// Looks at a queue again and again. How long each in it waits, as told at
    /// the last look.
    fn looks(since: &mut Since, looks: &[Look]) -> Vec<u64> {
        let mut last = Vec::new();
        for (at, Look(order, holder)) in (1..).zip(looks) {
            let in_queue = |(ahead, &id)| {
                let mut task = waiting(id, "0xa");
                let wait = task.wait.as_mut().unwrap();
                (wait.mark, wait.queue) = (Mark::of_place(ahead), Some(order.len() as u32));
                let holder =
                    holder.map(|(id, _)| Holder { task: TaskId(id), local: None, location: None });
                wait.about_mut().holders.extend(holder);
                task
            };
            let mut tasks: Vec<Task> = (0..).zip(order).map(in_queue).collect();
            if let Some((id, until)) = *holder {
                let mut task = waiting(id, "0xb");
                let wait = Wait::new(WaitKind::Sleep, None);
                task.wait = Some(Wait { mark: Mark::of_counter(until), ..wait });
                tasks.push(task);
            }
            tasks.sort_by_key(|task| task.id);
            since.observe(at * 100, &mut tasks);
            tasks.retain(|task| order.contains(&task.id.0));
            last = tasks.iter().map(|task| task.wait.as_ref().unwrap().wait_ns).collect();
        }
        last
    }

    fn again<'a>(orders: impl IntoIterator<Item = &'a [u64]>, holder: (u64, u64)) -> Vec<Look> {
        orders.into_iter().map(|order| Look(order.to_vec(), Some(holder))).collect()
    }

    #[test]
    fn a_queue_that_stands_still_or_moves_up_waits() {
        let in_hand = |looks| again([&[1_u64, 2, 3][..]].repeat(looks), (9, 77));
        assert_eq!(looks(&mut Since::default(), &in_hand(6)), [500; 3]);
        assert_eq!(looks(&mut Since::default(), &in_hand(4)), [0; 3], "too few looks");
        // Who stands first in the queue gives up, and somebody comes.
        let orders: [&[u64]; 5] = [&[8, 1, 2], &[8, 1, 2, 3], &[1, 2, 3], &[1, 2, 3], &[1, 2, 3]];
        let up = again(orders, (9, 77));
        assert_eq!(looks(&mut Since::default(), &up), [400, 400, 0], "3 was seen four times only");
    }

    #[test]
    fn a_queue_for_what_nobody_is_seen_to_hold_wants_more_looks() {
        let unseen = |looks| (0..looks).map(|_| Look(vec![1, 2, 3], None)).collect::<Vec<_>>();
        assert_eq!(looks(&mut Since::default(), &unseen(11)), [0; 3]);
        assert_eq!(looks(&mut Since::default(), &unseen(12)), [1_100; 3]);
    }

    #[test]
    fn a_lock_that_seldom_changes_hands_is_waited_for() {
        let mut slow = again([&[1_u64, 2, 3, 4][..]; 4], (9, 77));
        slow.extend(again([&[2_u64, 3, 4][..]; 4], (1, 177)));
        assert_eq!(looks(&mut Since::default(), &slow), [700; 3]);
    }

    #[test]
    fn tasks_that_go_round_in_step_with_the_looks_never_wait_long() {
        // As many turns as there are tasks between two looks.
        let in_step = (0..40).map(|look| Look((1..9).collect(), Some((9, look + 1))));
        let in_step: Vec<Look> = in_step.collect();
        for count in 1..12 {
            assert_eq!(looks(&mut Since::default(), &in_step[..count]), [0; 8]);
        }
        // One turn more.
        let one_more = (0..40_u64).map(|look| {
            let mut order: Vec<u64> = (0..9).collect();
            order.rotate_left(look as usize % 9);
            let holder = order.remove(0);
            Look(order, Some((holder, look + 1)))
        });
        let one_more: Vec<Look> = one_more.collect();
        for count in 1..=40 {
            assert_eq!(looks(&mut Since::default(), &one_more[..count]), [0; 8], "{count}");
        }
    }

    #[test]
    fn two_that_pass_a_lock_to_each_other_never_wait_long() {
        let to_and_fro = |look: u64| Look(vec![look % 2], Some(((look + 1) % 2, look + 1)));
        let to_and_fro: Vec<Look> = (0..20).map(to_and_fro).collect();
        assert_eq!(looks(&mut Since::default(), &to_and_fro), [0]);
        let held = again([&[1_u64][..]; 2], (9, 77));
        assert_eq!(looks(&mut Since::default(), &held), [100], "alone in the queue");
    }

    #[test]
    fn tasks_that_go_round_through_a_lock_never_wait_long() {
        let at = |look: usize| {
            let mut order: Vec<u64> = (0..9).collect();
            order.rotate_left(look * 4 % 9);
            Look(order, None)
        };
        let orders: Vec<Look> = (0..40).map(at).collect();
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
