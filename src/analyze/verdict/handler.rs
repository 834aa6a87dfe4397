//! Our own side: polls that do not return, and tasks that wait for each other.

use std::collections::{HashMap, HashSet};

use super::super::graph::Graph;
use super::super::waits;
use crate::model::{
    Blocked, Confidence, HeldKind, RuntimeId, Snapshot, Stream, StreamId, Task, TaskId, TaskState,
    Wait, WaitKind,
};

/// A task that joins one that joins one: followed so far.
const HOPS: usize = 4;

/// Polls that do not return, by whom they concern.
pub struct Blocks<'a> {
    ongoing: Vec<&'a Blocked>,
    by_task: HashMap<TaskId, usize>,
    by_stream: HashMap<StreamId, usize>,
    /// Runtimes without a free worker, and the shortest of their polls.
    full: HashMap<RuntimeId, usize>,
}

impl<'a> Blocks<'a> {
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let ongoing: Vec<&Blocked> = snapshot.blocked.iter().filter(|one| one.ongoing).collect();
        let of = |key: fn(&Blocked) -> Option<u64>| {
            ongoing.iter().enumerate().filter_map(move |(at, one)| Some((key(one)?, at)))
        };
        let by_task = of(|one| one.task.map(|task| task.0));
        let by_task = by_task.map(|(task, at)| (TaskId(task), at)).collect();
        let by_stream = of(|one| one.stream.map(|stream| stream.0));
        let by_stream = by_stream.map(|(stream, at)| (StreamId(stream), at)).collect();
        let full = snapshot.runtimes.iter().filter_map(|runtime| {
            let own = ongoing.iter().enumerate().filter(|(_, one)| one.runtime == runtime.id);
            let workers: HashSet<u32> = own.clone().map(|(_, one)| one.worker).collect();
            let shortest = own.min_by_key(|(_, one)| one.blocked_ns)?.0;
            (workers.len() >= runtime.workers as usize).then_some((runtime.id, shortest))
        });
        let full = full.collect();
        Self { by_task, by_stream, full, ongoing }
    }

    pub fn is_empty(&self) -> bool {
        self.ongoing.is_empty()
    }

    pub fn of_task(&self, task: TaskId) -> Option<&'a Blocked> {
        self.by_task.get(&task).map(|&at| self.ongoing[at])
    }

    pub fn of_stream(&self, stream: &Stream) -> Option<&'a Blocked> {
        let by_task = stream.task.and_then(|task| self.of_task(task));
        by_task.or_else(|| self.by_stream.get(&stream.id).map(|&at| self.ongoing[at]))
    }

    /// The stream's runtime has no worker left. Where its runtime is not
    /// known, none of them may have one.
    pub fn all_workers(&self, snapshot: &Snapshot, stream: &Stream) -> Option<&'a Blocked> {
        if self.full.is_empty() {
            return None;
        }
        let task = stream.task.and_then(|task| waits::find(snapshot, task));
        match task {
            Some(task) => self.full.get(&task.runtime).map(|&at| self.ongoing[at]),
            None if self.full.len() == snapshot.runtimes.len() => self
                .full
                .values()
                .map(|&at| self.ongoing[at])
                .min_by_key(|blocked| blocked.blocked_ns),
            None => None,
        }
    }

    pub fn longest(&self) -> Option<&'a Blocked> {
        self.ongoing.iter().copied().max_by_key(|blocked| blocked.blocked_ns)
    }
}

/// A task of a stream that waits for what does not come.
#[derive(Clone, Copy)]
pub struct Knot<'a> {
    /// The task that waits.
    pub task: &'a Task,
    pub wait: &'a Wait,
    pub why: Why,
}

/// Why that is more than a slow answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Others hold a lock or all permits.
    Lock,
    /// Nothing seen can end it.
    Stuck,
    /// It holds the only sender itself.
    OwnSender,
    /// The holder is in a poll that does not return.
    HolderBlocked,
}

/// What the tasks of streams wait for.
pub struct Tasks {
    /// Of each stream, its tasks that wait for a lock or for themselves;
    /// longest first.
    by_stream: HashMap<StreamId, Vec<usize>>,
    /// Indices of tasks whose every wait is one that nothing seen can end.
    stuck: HashSet<usize>,
}

impl Tasks {
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut stuck = HashSet::new();
        if snapshot.tasks.iter().any(|task| task.wait.is_some()) {
            let graph = Graph::of(snapshot);
            let waiting: HashSet<usize> = graph.tips.iter().map(|tip| tip.task).collect();
            stuck.extend(waiting.into_iter().filter(|&at| graph.ways_out(at).next().is_none()));
        }
        let mut by_stream: HashMap<StreamId, Vec<usize>> = HashMap::new();
        for (at, task) in snapshot.tasks.iter().enumerate() {
            if let Some(stream) = task.stream.filter(|_| task.wait.is_some()) {
                by_stream.entry(stream).or_default().push(at);
            }
        }
        for tasks in by_stream.values_mut() {
            tasks.sort_by_key(|&at| std::cmp::Reverse(snapshot.tasks[at].waited_ns()));
        }
        Self { by_stream, stuck }
    }

    /// The first task of a stream that waits in vain, its handler first.
    pub fn knot<'a>(
        &self,
        snapshot: &'a Snapshot,
        stream: &Stream,
        long: impl Fn(u64) -> bool,
    ) -> Option<(Knot<'a>, Confidence)> {
        let own = stream.task.and_then(|id| index(snapshot, id));
        let others = self.by_stream.get(&stream.id).into_iter().flatten().copied();
        own.into_iter().chain(others).find_map(|at| self.waits_in_vain(snapshot, at, &long, HOPS))
    }

    fn waits_in_vain<'a>(
        &self,
        snapshot: &'a Snapshot,
        at: usize,
        long: &impl Fn(u64) -> bool,
        hops: usize,
    ) -> Option<(Knot<'a>, Confidence)> {
        let task = &snapshot.tasks[at];
        let wait = task.wait.as_ref()?;
        let idle_ns = if task.state == TaskState::Idle { task.state_ns } else { 0 };
        if task.state == TaskState::Running || !long(task.waited_ns().max(idle_ns)) {
            return None;
        }
        let knot = |why| Knot { task, wait, why };
        if self.stuck.contains(&at) {
            return Some((knot(Why::Stuck), Confidence::Proven));
        }
        let holder = wait.holders.first().and_then(|holder| waits::blocked(snapshot, holder.task));
        match wait.kind {
            WaitKind::Mutex
            | WaitKind::RwLockRead
            | WaitKind::RwLockWrite
            | WaitKind::Semaphore => Some(match holder {
                Some(_) => (knot(Why::HolderBlocked), Confidence::Proven),
                None => (knot(Why::Lock), Confidence::Likely),
            }),
            WaitKind::MpscRecv | WaitKind::Oneshot if own_sender(task, wait) => {
                Some((knot(Why::OwnSender), Confidence::Likely))
            }
            WaitKind::Join if hops > 0 => {
                let next = index(snapshot, wait.task?)?;
                self.waits_in_vain(snapshot, next, long, hops - 1)
            }
            _ => None,
        }
    }
}

/// The task holds every sender of the channel that it receives from.
fn own_sender(task: &Task, wait: &Wait) -> bool {
    let Some(resource) = &wait.resource else { return false };
    let held = task
        .holds
        .iter()
        .filter(|held| matches!(held.kind, HeldKind::MpscSender | HeldKind::OneshotSender))
        .filter(|held| held.resource == *resource)
        .count() as u64;
    held > 0 && wait.senders.is_none_or(|senders| u64::from(senders) <= held)
}

fn index(snapshot: &Snapshot, id: TaskId) -> Option<usize> {
    snapshot.tasks.binary_search_by_key(&id, |task| task.id).ok()
}
