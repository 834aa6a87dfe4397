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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TaskId, Wait, WaitKind, sample};

    /// Tasks 3 and 4; the change says how each is held up.
    fn leaks(change: impl Fn(&mut crate::model::Task)) -> Vec<u64> {
        let place = sample::place("src/a.rs", 7).into();
        let mut snapshot = sample::empty();
        for id in [3, 4] {
            let mut task = sample::task(id, &place);
            change(&mut task);
            snapshot.tasks.push(task);
        }
        leaked(&snapshot).tasks.iter().map(|task| task.id.0).collect()
    }

    #[test]
    fn what_nothing_can_wake_and_nobody_can_abort_is_leaked() {
        let lost = |joinable| {
            move |task: &mut crate::model::Task| {
                task.joinable = Some(joinable);
                task.wakers = Some(u32::from(task.id.0 == 3).into());
            }
        };
        assert_eq!(leaks(lost(false)), [4]);
        assert!(leaks(lost(true)).is_empty(), "an abort would end it");
        assert!(leaks(|_| {}).is_empty());
    }

    #[test]
    fn whoever_waits_for_the_end_of_such_a_task_is_too() {
        let waits = |task: &mut crate::model::Task| {
            task.joinable = Some(true);
            task.wakers = Some(u32::from(task.id.0 == 4).into());
            if task.id.0 == 4 {
                let mut wait = Wait::new(WaitKind::Join, None);
                wait.about_mut().task = Some(TaskId(3));
                task.wait = Some(wait);
            }
        };
        assert_eq!(leaks(waits), [3, 4]);
    }
}
