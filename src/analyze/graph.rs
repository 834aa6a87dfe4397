//! Who waits for whom, and which tasks nothing can move any more.
//!
//! Tasks wait for resources, resources are held by tasks. A wait is *stuck* if
//! what it is for can only come from waits that are stuck too. That is found
//! from above: all waits are taken for stuck, then those are let go that
//! something could still move, then those that these could move, until nothing
//! changes. What is not known counts as something that moves, so that a gap in
//! what was read makes us silent, not wrong.

mod rwlocks;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::ops::Range;

use super::{lost, waits};
use crate::model::{
    Branch, HeldKind, Location, Resource, Snapshot, Stack, Task, TaskId, TaskState, Wait, WaitKind,
};

/// Which part of a resource is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// A mutex, or a rwlock to write: any guard keeps others out.
    Lock,
    /// A rwlock to read: a write guard keeps readers out, or the writer that is
    /// served before them.
    Read,
    /// A once cell, which one task initialises.
    Cell,
    /// A semaphore: any permit given back may do.
    Permits,
    /// A channel's sending ends: any of them may send.
    Senders,
    /// A channel's one receiving end, which makes room.
    Receiver,
    /// A task that is to end.
    End,
}

impl Side {
    fn of(kind: WaitKind) -> Option<Self> {
        Some(match kind {
            WaitKind::Mutex | WaitKind::RwLockWrite => Self::Lock,
            WaitKind::RwLockRead => Self::Read,
            WaitKind::OnceCell => Self::Cell,
            WaitKind::Semaphore => Self::Permits,
            WaitKind::MpscRecv | WaitKind::Oneshot | WaitKind::Watch | WaitKind::Broadcast => {
                Self::Senders
            }
            WaitKind::MpscSend => Self::Receiver,
            WaitKind::Join => Self::End,
            _ => return None,
        })
    }

    fn held(kind: HeldKind) -> Self {
        match kind {
            HeldKind::Mutex | HeldKind::RwLockRead | HeldKind::RwLockWrite => Self::Lock,
            HeldKind::Permit => Self::Permits,
            HeldKind::MpscSender
            | HeldKind::OneshotSender
            | HeldKind::WatchSender
            | HeldKind::BroadcastSender => Self::Senders,
            HeldKind::MpscReceiver => Self::Receiver,
        }
    }

    /// All holders must be stuck for the waiters to be; else one is enough.
    /// Of those who keep readers out only one is listed, or some that it may be.
    fn needs_all(self) -> bool {
        matches!(self, Self::Permits | Self::Senders | Self::Read)
    }

    /// Only the locals of a task tell that it still has this.
    pub fn is_channel(self) -> bool {
        matches!(self, Self::Senders | Self::Receiver)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Named(Side, Resource),
    Task(TaskId),
}

/// One thing that a task holds.
#[derive(Clone, Copy, Debug)]
pub struct Hold<'a> {
    /// Index of the task.
    pub task: usize,
    /// None of what is no guard or end of a channel, or is known by hearsay.
    pub kind: Option<HeldKind>,
    /// The wait whose future has it; none if all the task's waits lie inside.
    pub within: Option<usize>,
    pub local: Option<&'a str>,
    pub function: Option<&'a str>,
    pub location: Option<&'a Location>,
    /// In a future that its task does not poll.
    pub dormant: bool,
    /// It may have been dropped by hand: only its bytes are seen. Of a place in
    /// a queue: it may not be the first.
    pub doubtful: bool,
    /// Not held yet: its future stands first in the queue.
    pub queued: bool,
    /// Of an unbounded channel's receiver: messages in the channel.
    pub backlog: u32,
}

/// One side of a resource.
#[derive(Debug)]
pub struct Node<'a> {
    pub side: Side,
    /// Its identity; none for a task.
    pub resource: Option<Resource>,
    pub holds: Vec<Hold<'a>>,
    /// Indices of the waits for it.
    pub waiters: Vec<usize>,
    /// Of a rwlock's guards: index of the node of those who want to read.
    readers: Option<usize>,
    /// Every holder there is has been seen, by the resource's own count.
    complete: bool,
}

/// One thing that a task awaits: its main chain, or a branch that it polls.
#[derive(Clone, Copy, Debug)]
pub struct Tip<'a> {
    /// Index of the task.
    pub task: usize,
    /// Number among the things it awaits, as in `Held::within`.
    pub number: u32,
    pub wait: Option<&'a Wait>,
    pub stack: Option<&'a Stack>,
    /// What must move first; none if something outside could wake it.
    pub node: Option<usize>,
    /// It waits behind a future of its own task that is not polled.
    pub own: Option<&'a Branch>,
}

/// Tasks and what lies between them.
///
/// What a task awaits at once (`select!`, `join!`) is told apart: each is a
/// wait of its own, stuck or not. A guard inside one of these futures is not
/// given up before that one ends or is dropped; a guard around them can be as
/// soon as any of them goes on.
pub struct Graph<'a> {
    pub tasks: &'a [Task],
    pub nodes: Vec<Node<'a>>,
    /// Waits, those of one task in a row.
    pub tips: Vec<Tip<'a>>,
    /// Waits that nothing seen can end, unless they are given up.
    pub stuck: Vec<bool>,
    /// Tasks that nothing can wake, ascending: what they hold they keep.
    pub dead: Vec<usize>,
    /// The waits of each task.
    ranges: Vec<Range<usize>>,
}

impl<'a> Graph<'a> {
    /// Reads waits and holders, and finds out who is stuck.
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let mut building = Building::default();
        let tasks = &snapshot.tasks[..];
        let dead = lost::dead(tasks);
        let mut tips: Vec<Tip<'a>> = Vec::new();
        let mut ranges = Vec::with_capacity(tasks.len());
        for (index, task) in tasks.iter().enumerate() {
            let first = tips.len();
            building.tips(index, task, &mut tips);
            ranges.push(first..tips.len());
            building.holders(index, task, &tips[first..], first);
        }
        let Building { mut nodes, index } = building;
        ends(tasks, &mut nodes, &index);
        cells(&mut nodes, &index);
        nodes.iter_mut().for_each(|node| as_told(tasks, &tips, node));
        finish(&mut nodes, &tips, &index);
        queued_unpolled(tasks, &mut nodes, &index);
        rwlocks::keep_readers_out(tasks, &tips, &mut nodes, &index);
        let mut graph = Self { tasks, nodes, tips, stuck: Vec::new(), dead, ranges };
        graph.stuck = graph.settle();
        graph
    }

    /// All that wait for a lock, readers included.
    pub fn waiters<'g>(&'g self, node: &'g Node<'a>) -> impl Iterator<Item = usize> + 'g {
        let readers = node.readers.iter().flat_map(|&readers| &self.nodes[readers].waiters);
        node.waiters.iter().chain(readers).copied()
    }

    /// The waits that must all be stuck for a hold to stay.
    pub fn keepers(&self, hold: &Hold<'_>) -> Range<usize> {
        match hold.within {
            Some(tip) => tip..tip + 1,
            None => self.ranges[hold.task].clone(),
        }
    }

    /// Nothing can wake this task.
    pub fn is_dead(&self, task: usize) -> bool {
        self.dead.binary_search(&task).is_ok()
    }

    /// Held by a task that will never drop it. Permits may be held elsewhere as
    /// well, and a guard that may have been dropped already is no guard.
    fn is_kept(&self, node: &Node<'_>, hold: &Hold<'_>) -> bool {
        self.is_dead(hold.task) && node.side != Side::Permits && !hold.doubtful
    }

    /// Nothing seen can make its task give this up, unless it gives up waiting.
    pub fn stays(&self, hold: &Hold<'_>) -> bool {
        let mut keepers = self.keepers(hold);
        self.is_dead(hold.task) || (!keepers.is_empty() && keepers.all(|tip| self.stuck[tip]))
    }

    /// All that a task awaits.
    pub fn waits_of(&self, task: usize) -> &[Tip<'a>] {
        &self.tips[self.ranges[task].clone()]
    }

    /// What else a task awaits beside the waits that are stuck.
    pub fn ways_out(&self, task: usize) -> impl Iterator<Item = &Tip<'a>> {
        self.ranges[task].clone().filter(|&tip| !self.stuck[tip]).map(|tip| &self.tips[tip])
    }

    /// Lets go what can still be moved; what is left is stuck.
    fn settle(&self) -> Vec<bool> {
        let mut stuck: Vec<bool> = self
            .tips
            .iter()
            .map(|tip| tip.node.is_some() || tip.own.is_some() || self.is_dead(tip.task))
            .collect();
        // Of each node, its holds that stay. Of each wait, the holds that stay
        // only as long as it is stuck.
        let mut staying: Vec<usize> = self.nodes.iter().map(|node| node.holds.len()).collect();
        let mut kept_by: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.tips.len()];
        let mut given: Vec<Vec<bool>> = Vec::with_capacity(self.nodes.len());
        let mut moves: Vec<usize> = Vec::new();
        let mut released: Vec<usize> = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            given.push(vec![false; node.holds.len()]);
            for (number, hold) in node.holds.iter().enumerate() {
                let keepers = self.keepers(hold);
                let goes = keepers.is_empty() || self.is_dead(hold.task);
                if goes && !self.is_kept(node, hold) {
                    given[at][number] = true;
                    staying[at] -= 1;
                }
                keepers.for_each(|tip| kept_by[tip].push((at, number)));
            }
            if (node.side == Side::Senders && !node.complete) || self.gives(at, staying[at]) {
                released.push(at);
            }
        }
        moves.extend((0..self.tips.len()).filter(|&tip| !stuck[tip]));
        let mut gone = vec![false; self.nodes.len()];
        loop {
            while let Some(node) = released.pop() {
                if std::mem::replace(&mut gone[node], true) {
                    continue;
                }
                for &tip in &self.nodes[node].waiters {
                    let for_ever =
                        self.tips[tip].own.is_some() || self.is_dead(self.tips[tip].task);
                    if !for_ever && std::mem::replace(&mut stuck[tip], false) {
                        moves.push(tip);
                    }
                }
            }
            let Some(tip) = moves.pop() else { break };
            for &(node, number) in &kept_by[tip] {
                if !std::mem::replace(&mut given[node][number], true) {
                    staying[node] -= 1;
                    if self.gives(node, staying[node]) {
                        released.push(node);
                    }
                }
            }
        }
        stuck
    }

    /// Whether waiters get what they want, with so many of the holds staying.
    fn gives(&self, node: usize, staying: usize) -> bool {
        let node = &self.nodes[node];
        staying == 0 || (node.side.needs_all() && staying < node.holds.len())
    }
}

/// The task's main wait stands in a queue behind a future of its own that it
/// does not poll. That one was polled before the present wait began, and
/// tokio's queues are fair: whatever is given goes to it first, and stays.
fn blocks_own(main: &Wait, branch: &Branch) -> bool {
    let Some(wait) = branch.wait.as_ref().filter(|_| branch.dormant) else { return false };
    let both_read = wait.kind == WaitKind::RwLockRead && main.kind == WaitKind::RwLockRead;
    let is_lock = |wait: &Wait| matches!(Side::of(wait.kind), Some(Side::Lock | Side::Read));
    is_lock(main)
        && is_lock(wait)
        && wait.resource.is_some()
        && wait.resource == main.resource
        && !both_read
}

#[derive(Default)]
struct Building<'a> {
    nodes: Vec<Node<'a>>,
    index: HashMap<Key, usize>,
}

impl<'a> Building<'a> {
    fn node(&mut self, key: Key) -> usize {
        *self.index.entry(key).or_insert_with(|| {
            let (side, resource) = match key {
                Key::Named(side, resource) => (side, Some(resource)),
                Key::Task(_) => (Side::End, None),
            };
            let (holds, waiters) = (Vec::new(), Vec::new());
            let (readers, complete) = (None, false);
            self.nodes.push(Node { side, resource, holds, waiters, readers, complete });
            self.nodes.len() - 1
        })
    }

    /// What a task awaits, if it is suspended and that is known.
    fn tips(&mut self, index: usize, task: &'a Task, tips: &mut Vec<Tip<'a>>) {
        let Some(main) = task.wait.as_ref() else { return };
        // It runs, or has been woken and is about to.
        let moves = matches!(task.state, TaskState::Running | TaskState::Scheduled);
        let live = (1..).zip(&task.branches).filter(|(_, branch)| !branch.dormant);
        let branches =
            live.map(|(number, branch)| (number, branch.wait.as_ref(), Some(&*branch.stack)));
        let all = std::iter::once((0, Some(main), task.stack.as_deref())).chain(branches);
        for (number, wait, stack) in all {
            let granted = wait.is_some_and(|wait| granted(task, wait));
            let node = wait.filter(|_| !moves && !granted).and_then(|wait| self.waits_for(wait));
            if let Some(node) = node {
                self.nodes[node].waiters.push(tips.len());
            }
            let own = task.branches.iter().find(|branch| blocks_own(main, branch));
            let own = own.filter(|_| number == 0 && !moves);
            tips.push(Tip { task: index, number, wait, stack, node, own });
        }
    }

    /// What is waited for; none if something outside could bring it.
    fn waits_for(&mut self, wait: &'a Wait) -> Option<usize> {
        let side = Side::of(wait.kind)?;
        Some(match (side, wait.task, wait.resource) {
            (Side::End, Some(task), _) => self.node(Key::Task(task)),
            (Side::End, None, _) | (_, _, None) => return None,
            (Side::Read, _, Some(resource)) => {
                let readers = self.node(Key::Named(Side::Read, resource));
                let lock = self.node(Key::Named(Side::Lock, resource));
                self.nodes[lock].readers = Some(readers);
                readers
            }
            (side, _, Some(resource)) => self.node(Key::Named(side, resource)),
        })
    }

    fn holders(&mut self, index: usize, task: &'a Task, tips: &[Tip<'a>], first: usize) {
        for held in &task.holds {
            let node = self.node(Key::Named(Side::held(held.kind), held.resource));
            let within = tips.iter().position(|tip| Some(tip.number) == held.within);
            self.nodes[node].holds.push(Hold {
                task: index,
                kind: Some(held.kind),
                within: within.map(|at| first + at),
                local: held.local.as_deref(),
                function: held.function.as_deref(),
                location: held.location.as_ref(),
                dormant: held.dormant,
                doubtful: held.perhaps_dropped,
                queued: false,
                backlog: held.backlog.map_or(0, NonZeroU32::get),
            });
        }
    }
}

/// The lock has been handed over and is about to be taken: the task holds it
/// and stands in its queue no more.
fn granted(task: &Task, wait: &Wait) -> bool {
    // Whoever has a sender has not received.
    let by_guard =
        matches!(Side::of(wait.kind), Some(Side::Lock | Side::Read | Side::Cell | Side::Permits));
    by_guard
        && wait.queue.is_none()
        && wait.resource.is_some()
        && task.holds.iter().any(|held| !held.dormant && Some(held.resource) == wait.resource)
}

/// Whoever initialises a once cell has the one permit of its semaphore.
fn cells(nodes: &mut [Node<'_>], index: &HashMap<Key, usize>) {
    for (key, &cell) in index {
        if let Key::Named(Side::Cell, resource) = *key
            && let Some(&permits) = index.get(&Key::Named(Side::Permits, resource))
        {
            nodes[cell].holds = std::mem::take(&mut nodes[permits].holds);
        }
    }
}

/// A task is held up by one that is to end, if that one is listed.
fn ends(tasks: &[Task], nodes: &mut [Node<'_>], index: &HashMap<Key, usize>) {
    for (key, &node) in index {
        if let Key::Task(id) = key
            && let Ok(task) = tasks.binary_search_by_key(id, |task| task.id)
        {
            nodes[node].holds.push(Hold::of(task));
        }
    }
}

impl<'a> Hold<'a> {
    fn of(task: usize) -> Self {
        let (kind, within, local, function, location) = (None, None, None, None, None);
        let (dormant, doubtful, queued, backlog) = (false, false, false, 0);
        Self { task, kind, within, local, function, location, dormant, doubtful, queued, backlog }
    }

    /// The place in a queue of a future that waits there.
    pub fn in_queue(task: usize, stack: Option<&'a Stack>) -> Self {
        let frame = waits::frame(stack);
        Self {
            function: frame.map(|frame| &*frame.function),
            location: frame.and_then(|frame| frame.location.as_ref()),
            queued: true,
            ..Self::of(task)
        }
    }
}

/// A source that saw no guard may still have said who holds it.
fn as_told<'a>(tasks: &[Task], tips: &[Tip<'a>], node: &mut Node<'a>) {
    if !node.holds.is_empty() {
        return;
    }
    // All that wait on one thing were told the same: the first will do.
    let mut told = node.waiters.iter().filter_map(|&tip| tips[tip].wait);
    let told = told.find(|wait| !wait.holders.is_empty());
    for holder in told.into_iter().flat_map(|wait| &wait.holders) {
        if let Ok(task) = tasks.binary_search_by_key(&holder.task, |task| task.id) {
            node.holds.push(Hold {
                local: holder.local.as_deref(),
                location: holder.location.as_ref(),
                ..Hold::of(task)
            });
        }
    }
}

/// Have all senders been seen? A oneshot has one; of others the channel knows.
/// A channel that somebody waits to send into has messages: its receiver has
/// been woken.
fn finish(nodes: &mut [Node<'_>], tips: &[Tip<'_>], index: &HashMap<Key, usize>) {
    for at in 0..nodes.len() {
        let node = &nodes[at];
        if node.side != Side::Senders || node.waiters.is_empty() {
            continue;
        }
        let full = node
            .resource
            .and_then(|channel| index.get(&Key::Named(Side::Receiver, channel)))
            .is_some_and(|&receiver| !nodes[receiver].waiters.is_empty());
        // Of one that may have been dropped another may be counted.
        let seen = node.holds.iter().filter(|hold| !hold.doubtful).count() as u64;
        let mut waits = node.waiters.iter().filter_map(|&tip| tips[tip].wait);
        let complete = waits.all(|wait| match wait.kind {
            WaitKind::Oneshot => seen == 1,
            _ => seen > 0 && wait.senders.map(u64::from) == Some(seen) && !full,
        });
        nodes[at].complete = complete;
    }
}

/// A lock that nobody holds and for which a future waits that nobody polls:
/// it has been given to that future.
fn queued_unpolled<'a>(tasks: &'a [Task], nodes: &mut [Node<'a>], index: &HashMap<Key, usize>) {
    for (at, task) in tasks.iter().enumerate() {
        for branch in task.branches.iter().filter(|branch| branch.dormant) {
            let Some(wait) = branch.wait.as_ref() else { continue };
            // A read guard would let other readers in.
            if !matches!(wait.kind, WaitKind::Mutex | WaitKind::RwLockWrite) {
                continue;
            }
            let Some(resource) = wait.resource else { continue };
            let Some(&node) = index.get(&Key::Named(Side::Lock, resource)) else { continue };
            if nodes[node].holds.is_empty() {
                let place = Hold::in_queue(at, Some(&*branch.stack));
                nodes[node].holds.push(Hold { dormant: true, ..place });
            }
        }
    }
}
