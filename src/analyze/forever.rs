//! Tasks that wait for ever: the leak profile.
//!
//! Go finds its leaked goroutines by what the garbage collector cannot reach.
//! Nothing collects garbage here, but wakers are counted and holders seen: a
//! task of which no waker exists, or that is tied into a proven deadlock, or
//! waits behind one of these, does not go on either.

use std::collections::BTreeSet;

use super::graph::Graph;
use super::knots::knots;
use super::unwakeable::Waiting;
use crate::model::{Confidence, Snapshot};

/// The snapshot with only those tasks of it that are proven to wait for ever.
/// Where a timeout or an abort may still end the wait, nothing is proven.
pub fn leaked(snapshot: &Snapshot) -> Snapshot {
    let graph = Graph::of(snapshot);
    let mut leaked: BTreeSet<usize> = graph.dead.iter().copied().collect();
    let behind = Waiting::of(&graph).behind(&graph.dead);
    leaked.extend(behind.into_iter().map(|(tip, _)| graph.tips[tip].task));
    for knot in knots(&graph) {
        if knot.confidence == Confidence::Proven && !knot.timed {
            leaked.extend(knot.tasks.iter().chain(&knot.behind));
        }
    }
    snapshot.with_tasks(leaked.into_iter().map(|at| snapshot.tasks[at].clone()).collect())
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
