//! What keeps the readers of a rwlock out.
//!
//! Guards of other readers do not. tokio serves a rwlock's queue in order, so
//! readers wait behind a writer in it, and that one for the guards that are out.
//! It may stop waiting at any time: then they go on.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::{Hold, Key, Node, Side, Tip, as_told};
use crate::model::{HeldKind, Resource, Stack, Task, Wait, WaitKind};

/// A future that waits to write.
struct Writer<'a> {
    task: usize,
    /// Its wait, if its task polls it.
    tip: Option<usize>,
    wait: &'a Wait,
    stack: Option<&'a Stack>,
}

/// Lists with the waits for reading who keeps them waiting: who writes, or the
/// writer who is served first, or the readers before it if that one is unseen.
pub(super) fn keep_readers_out<'a>(
    tasks: &'a [Task],
    tips: &[Tip<'a>],
    nodes: &mut [Node<'a>],
    index: &HashMap<Key, usize>,
) {
    let mut writers = None;
    for (key, &readers) in index {
        let Key::Named(Side::Read, resource) = *key else { continue };
        let Some(lock) = index.get(&Key::Named(Side::Lock, resource)) else { continue };
        let guards = &nodes[*lock].holds;
        let writes = |hold: &&Hold<'_>| hold.kind == Some(HeldKind::RwLockWrite);
        let mut keepers: Vec<Hold<'a>> = guards.iter().filter(writes).copied().collect();
        if keepers.is_empty() {
            let writers = writers.get_or_insert_with(|| writers_of(tasks, tips));
            keepers.extend(writers.get(&resource).and_then(|queue| first(queue)));
        }
        if keepers.is_empty() {
            keepers.extend(guards.iter().filter(|hold| !hold.queued));
        }
        nodes[readers].holds = keepers;
        as_told(tasks, tips, &mut nodes[readers]);
    }
}

/// All that wait to write, by the lock.
fn writers_of<'a>(tasks: &'a [Task], tips: &[Tip<'a>]) -> HashMap<Resource, Vec<Writer<'a>>> {
    let polled = tips.iter().enumerate().filter_map(|(at, tip)| {
        Some(Writer { task: tip.task, tip: Some(at), wait: tip.wait?, stack: tip.stack })
    });
    let kept = tasks.iter().enumerate().flat_map(|(task, read)| {
        read.branches.iter().filter(|branch| branch.dormant).filter_map(move |branch| {
            let (wait, stack) = (branch.wait.as_ref()?, Some(&*branch.stack));
            Some(Writer { task, tip: None, wait, stack })
        })
    });
    let mut writers: HashMap<_, Vec<_>> = HashMap::new();
    for writer in polled.chain(kept).filter(|it| it.wait.kind == WaitKind::RwLockWrite) {
        if let Some(resource) = writer.wait.resource {
            writers.entry(resource).or_default().push(writer);
        }
    }
    writers
}

/// The place of the writer at the head of the queue. Where places are not
/// known, it is who has waited longest.
fn first<'a>(queue: &[Writer<'a>]) -> Option<Hold<'a>> {
    let place = |writer: &&Writer<'_>| {
        (writer.wait.mark.ahead().unwrap_or(u32::MAX), Reverse(writer.wait.wait_ns))
    };
    let writer = queue.iter().min_by_key(place)?;
    let ahead = writer.wait.mark.ahead();
    // The head is with somebody who is not seen.
    if ahead.is_some_and(|ahead| ahead > 0) {
        return None;
    }
    Some(Hold {
        within: writer.tip,
        dormant: writer.tip.is_none(),
        doubtful: ahead.is_none(),
        ..Hold::in_queue(writer.task, writer.stack)
    })
}
