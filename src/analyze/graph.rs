//! Who waits for whom, and which tasks nothing can move any more.
//!
//! Tasks wait for resources, resources are held by tasks. A task is *stuck* if
//! whatever it waits for can only come from tasks that are stuck too. That is
//! found from above: all tasks that wait are taken for stuck, then those are
//! let go that something could still move, then those that these could move,
//! until nothing changes. What is not known counts as something that moves, so
//! that a gap in what was read makes us silent, not wrong.

use std::collections::HashMap;

use crate::model::{
    Branch, HeldKind, Location, Snapshot, Stack, Task, TaskId, TaskState, Wait, WaitKind,
};

/// Which part of a resource is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// A mutex or rwlock: any guard keeps others out, as tokio's are fair.
    Lock,
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
            WaitKind::Mutex | WaitKind::RwLockRead | WaitKind::RwLockWrite => Self::Lock,
            WaitKind::Semaphore => Self::Permits,
            WaitKind::MpscRecv | WaitKind::Oneshot => Self::Senders,
            WaitKind::MpscSend => Self::Receiver,
            WaitKind::Join => Self::End,
            _ => return None,
        })
    }

    fn held(kind: HeldKind) -> Option<Self> {
        Some(match kind {
            HeldKind::Mutex | HeldKind::RwLockRead | HeldKind::RwLockWrite => Self::Lock,
            HeldKind::Permit => Self::Permits,
            HeldKind::MpscSender | HeldKind::OneshotSender => Self::Senders,
            HeldKind::MpscReceiver => Self::Receiver,
            HeldKind::WatchSender | HeldKind::BroadcastSender => return None,
        })
    }

    /// All holders must be stuck for the waiters to be; else one is enough.
    fn needs_all(self) -> bool {
        matches!(self, Self::Permits | Self::Senders)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key<'a> {
    Named(Side, &'a str),
    Task(TaskId),
}

/// One thing that a task holds.
#[derive(Clone, Copy, Debug)]
pub struct Hold<'a> {
    /// Index of the task.
    pub task: usize,
    pub local: Option<&'a str>,
    pub function: Option<&'a str>,
    pub location: Option<&'a Location>,
    /// In a future that its task does not poll.
    pub dormant: bool,
    /// Not held yet: a future that is not polled stands first in the queue.
    pub queued: bool,
}

/// One side of a resource.
#[derive(Debug)]
pub struct Node<'a> {
    pub side: Side,
    /// Identity, as the snapshot has it; empty for a task.
    pub name: &'a str,
    pub holds: Vec<Hold<'a>>,
    /// Tasks that wait for it, each with the wait.
    pub waiters: Vec<(usize, &'a Wait)>,
    /// Every holder there is has been seen, by the resource's own count.
    complete: bool,
}

/// Tasks and what lies between them.
pub struct Graph<'a> {
    pub tasks: &'a [Task],
    pub nodes: Vec<Node<'a>>,
    /// Nodes that each task waits for, the main wait first; dormant branches
    /// wait for nothing, as nobody polls them.
    pub waits: Vec<Vec<(usize, &'a Wait)>>,
    /// Tasks that nothing seen can move any more.
    pub stuck: Vec<bool>,
    /// Of each task that waits behind a future of its own which it does not
    /// poll: that future.
    pub own: HashMap<usize, &'a Branch>,
}

impl<'a> Graph<'a> {
    /// Reads waits and holders, and finds out who is stuck.
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let mut building = Building::default();
        let tasks = &snapshot.tasks[..];
        let mut open = vec![true; tasks.len()];
        let mut waits = vec![Vec::new(); tasks.len()];
        let mut own = HashMap::new();
        for (index, task) in tasks.iter().enumerate() {
            building.holders(index, task);
            let Some(main) = task.wait.as_deref() else { continue };
            open[index] = matches!(task.state, TaskState::Running | TaskState::Scheduled);
            let live = task.branches.iter().filter(|branch| !branch.dormant);
            let all = std::iter::once(Some(main)).chain(live.map(|branch| branch.wait.as_deref()));
            for wait in all {
                match wait.and_then(|wait| Some((building.waits_for(wait)?, wait))) {
                    Some((node, wait)) => {
                        building.nodes[node].waiters.push((index, wait));
                        waits[index].push((node, wait));
                    }
                    None => open[index] = true,
                }
            }
            if let Some(branch) = task.branches.iter().find(|branch| blocks_own(main, branch)) {
                own.insert(index, branch);
            }
        }
        let Building { mut nodes, index, .. } = building;
        ends(tasks, &mut nodes, &index);
        nodes.iter_mut().for_each(|node| as_told(tasks, node));
        finish(&mut nodes, &index);
        queued_unpolled(tasks, &mut nodes, &index);
        let mut graph = Self { tasks, nodes, waits, stuck: Vec::new(), own };
        graph.stuck = graph.settle(open);
        graph
    }

    /// Lets go whoever can still be moved; who is left is stuck.
    fn settle(&self, mut free: Vec<bool>) -> Vec<bool> {
        // For each node, holders that are stuck (any will do) or free (none may be).
        let mut left: Vec<usize> = self
            .nodes
            .iter()
            .map(|node| if node.side.needs_all() { 0 } else { node.holds.len() })
            .collect();
        let mut held_by: Vec<Vec<usize>> = vec![Vec::new(); self.tasks.len()];
        let mut released: Vec<usize> = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            for hold in &node.holds {
                held_by[hold.task].push(at);
            }
            if node.holds.is_empty() || (node.side == Side::Senders && !node.complete) {
                released.push(at);
            }
        }
        let mut gone = vec![false; self.nodes.len()];
        let mut let_go: Vec<usize> = (0..free.len()).filter(|&task| free[task]).collect();
        loop {
            while let Some(node) = released.pop() {
                if std::mem::replace(&mut gone[node], true) {
                    continue;
                }
                for &(task, wait) in &self.nodes[node].waiters {
                    let kept = self.own.contains_key(&task) && self.is_main(task, wait);
                    if !kept && !std::mem::replace(&mut free[task], true) {
                        let_go.push(task);
                    }
                }
            }
            let Some(task) = let_go.pop() else { break };
            for &node in &held_by[task] {
                if self.nodes[node].side.needs_all() {
                    released.push(node);
                } else {
                    left[node] -= 1;
                    if left[node] == 0 {
                        released.push(node);
                    }
                }
            }
        }
        free.into_iter().map(|free| !free).collect()
    }

    fn is_main(&self, task: usize, wait: &Wait) -> bool {
        self.tasks[task].wait.as_deref().is_some_and(|main| std::ptr::eq(main, wait))
    }
}

/// The task's main wait stands in a queue behind a future of its own that it
/// does not poll. That one was polled before the present wait began, and
/// tokio's queues are fair: whatever is given goes to it first, and stays.
fn blocks_own(main: &Wait, branch: &Branch) -> bool {
    let Some(wait) = branch.wait.as_deref().filter(|_| branch.dormant) else { return false };
    let both_read = wait.kind == WaitKind::RwLockRead && main.kind == WaitKind::RwLockRead;
    Side::of(main.kind) == Some(Side::Lock)
        && Side::of(wait.kind) == Some(Side::Lock)
        && wait.resource.is_some()
        && wait.resource == main.resource
        && main.deadline_in_ns.is_none()
        && !both_read
}

#[derive(Default)]
struct Building<'a> {
    nodes: Vec<Node<'a>>,
    index: HashMap<Key<'a>, usize>,
}

impl<'a> Building<'a> {
    fn node(&mut self, key: Key<'a>) -> usize {
        *self.index.entry(key).or_insert_with(|| {
            let (side, name) = match key {
                Key::Named(side, name) => (side, name),
                Key::Task(_) => (Side::End, ""),
            };
            let (holds, waiters) = (Vec::new(), Vec::new());
            self.nodes.push(Node { side, name, holds, waiters, complete: false });
            self.nodes.len() - 1
        })
    }

    /// What is waited for; none if something outside could bring it.
    fn waits_for(&mut self, wait: &'a Wait) -> Option<usize> {
        // A timeout around it ends the wait by itself.
        if wait.deadline_in_ns.is_some() {
            return None;
        }
        let side = Side::of(wait.kind)?;
        Some(match (side, wait.task, wait.resource.as_deref()) {
            (Side::End, Some(task), _) => self.node(Key::Task(task)),
            (Side::End, None, _) | (_, _, None) => return None,
            (side, _, Some(name)) => self.node(Key::Named(side, name)),
        })
    }

    fn holders(&mut self, index: usize, task: &'a Task) {
        for held in &task.holds {
            let Some(side) = Side::held(held.kind) else { continue };
            let node = self.node(Key::Named(side, &held.resource));
            self.nodes[node].holds.push(Hold {
                task: index,
                local: held.local.as_deref(),
                function: held.function.as_deref(),
                location: held.location.as_ref(),
                dormant: held.dormant,
                queued: false,
            });
        }
    }
}

/// A task is held up by one that is to end, if that one is listed.
fn ends(tasks: &[Task], nodes: &mut [Node<'_>], index: &HashMap<Key<'_>, usize>) {
    for (key, &node) in index {
        if let Key::Task(id) = key
            && let Ok(task) = tasks.binary_search_by_key(id, |task| task.id)
        {
            let (local, function, location) = (None, None, None);
            let (dormant, queued) = (false, false);
            nodes[node].holds.push(Hold { task, local, function, location, dormant, queued });
        }
    }
}

/// A source that saw no guard may still have said who holds it.
fn as_told<'a>(tasks: &[Task], node: &mut Node<'a>) {
    if !node.holds.is_empty() {
        return;
    }
    // All that wait on one thing were told the same: the first will do.
    let told = node.waiters.iter().find(|(_, wait)| !wait.holders.is_empty());
    for holder in told.into_iter().flat_map(|(_, wait)| &wait.holders) {
        if let Ok(task) = tasks.binary_search_by_key(&holder.task, |task| task.id) {
            node.holds.push(Hold {
                task,
                local: holder.local.as_deref(),
                function: None,
                location: holder.location.as_ref(),
                dormant: false,
                queued: false,
            });
        }
    }
}

/// Have all senders been seen? A oneshot has one; of others the channel knows.
/// A channel that somebody waits to send into has messages: its receiver has
/// been woken.
fn finish(nodes: &mut [Node<'_>], index: &HashMap<Key<'_>, usize>) {
    for at in 0..nodes.len() {
        let node = &nodes[at];
        if node.side != Side::Senders || node.waiters.is_empty() {
            continue;
        }
        let full = index
            .get(&Key::Named(Side::Receiver, node.name))
            .is_some_and(|&receiver| !nodes[receiver].waiters.is_empty());
        let seen = node.holds.len() as u64;
        let complete = node.waiters.iter().all(|(_, wait)| match wait.kind {
            WaitKind::Oneshot => seen == 1,
            _ => seen > 0 && wait.senders == Some(seen) && !full,
        });
        nodes[at].complete = complete;
    }
}

/// A lock that nobody holds and for which a future waits that nobody polls:
/// it has been given to that future.
fn queued_unpolled<'a>(tasks: &'a [Task], nodes: &mut [Node<'a>], index: &HashMap<Key<'a>, usize>) {
    for (at, task) in tasks.iter().enumerate() {
        for branch in task.branches.iter().filter(|branch| branch.dormant) {
            let Some(wait) = branch.wait.as_deref() else { continue };
            // A read guard would let other readers in.
            if !matches!(wait.kind, WaitKind::Mutex | WaitKind::RwLockWrite) {
                continue;
            }
            let Some(name) = wait.resource.as_deref() else { continue };
            let Some(&node) = index.get(&Key::Named(Side::Lock, name)) else { continue };
            if nodes[node].holds.is_empty() {
                let frame = user_or_first(&branch.stack);
                nodes[node].holds.push(Hold {
                    task: at,
                    local: None,
                    function: frame.map(|frame| &*frame.function),
                    location: frame.and_then(|frame| frame.location.as_ref()),
                    dormant: true,
                    queued: true,
                });
            }
        }
    }
}

fn user_or_first(stack: &Stack) -> Option<&crate::model::Frame> {
    stack.user_frame().or_else(|| stack.frames.first())
}
