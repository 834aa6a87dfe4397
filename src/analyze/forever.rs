//! Tasks that wait for ever: the leak profile.
//!
//! Go finds its leaked goroutines by what the garbage collector cannot reach.
//! Nothing collects garbage here, but wakers are counted and holders seen: a
//! task of which no waker exists, or that is tied into a proven deadlock, or
//! waits behind one of these, does not go on either. Where a timer or another
//! branch may still make somebody give up, nothing is proven.

use std::collections::{BTreeSet, HashMap};

use super::graph::{Graph, Hold, Side, Tip};
use super::knots::knots;
use super::unwakeable::Waiting;
use crate::model::{Confidence, Snapshot};

/// The snapshot with only those tasks of it that are proven to wait for ever.
pub fn leaked(snapshot: &Snapshot) -> Snapshot {
    let graph = Graph::of(snapshot);
    let mut leaked = stuck(&graph);
    let mut behind: HashMap<usize, Vec<usize>> = HashMap::new();
    for &task in &leaked {
        for hold in graph.waits_of(task).iter().flat_map(|tip| holds(&graph, tip)) {
            behind.entry(hold.task).or_default().push(task);
        }
    }
    let mut doubted: Vec<usize> = leaked.iter().copied().collect();
    while let Some(task) = doubted.pop() {
        if leaked.contains(&task) && !stays(&graph, &leaked, task) {
            leaked.remove(&task);
            doubted.extend(behind.get(&task).into_iter().flatten());
        }
    }
    snapshot.with_tasks(leaked.into_iter().map(|at| snapshot.tasks[at].clone()).collect())
}

/// Indexes of the tasks that do not go on, as long as nobody gives up.
fn stuck(graph: &Graph<'_>) -> BTreeSet<usize> {
    let mut stuck: BTreeSet<usize> = graph.dead.iter().copied().collect();
    let behind = Waiting::of(graph).behind(&graph.dead);
    stuck.extend(behind.into_iter().map(|(tip, _)| graph.tips[tip].task));
    for knot in knots(graph).iter().filter(|knot| knot.confidence == Confidence::Proven) {
        stuck.extend(knot.tasks.iter().chain(&knot.behind));
    }
    stuck
}

/// Nothing but the tasks that wait for ever could end any of its waits.
fn stays(graph: &Graph<'_>, leaked: &BTreeSet<usize>, task: usize) -> bool {
    if graph.is_dead(task) {
        return true;
    }
    let untimed = |tip: &Tip<'_>| tip.wait.is_some_and(|wait| wait.deadline_in_ns.is_none());
    let kept = |tip: &Tip<'_>| {
        // A future that its own task does not poll keeps what it waits for.
        tip.own.is_some() || holds(graph, tip).any(|hold| leaked.contains(&hold.task))
    };
    graph.ways_out(task).next().is_none()
        && graph.waits_of(task).iter().all(|tip| untimed(tip) && kept(tip))
}

/// What is proven to keep a wait from ending. The end of a channel may have gone
/// elsewhere, and other permits be where nobody looks.
fn holds<'g, 'a>(graph: &'g Graph<'a>, tip: &Tip<'a>) -> impl Iterator<Item = &'g Hold<'a>> {
    let node = tip.node.map(|node| &graph.nodes[node]);
    let node = node.filter(|node| !node.side.is_channel() && node.side != Side::Permits);
    let holds = node.into_iter().flat_map(|node| &node.holds);
    holds.filter(|hold| !hold.doubtful && graph.stays(hold))
}
