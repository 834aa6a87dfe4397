//! Locks that many wait for while one holds them.

use super::graph::{Graph, Node, Side};
use super::{LISTED, waits, words};
use crate::model::{
    Confidence, Edge, Finding, FindingKind, Resource, Severity, Snapshot, Wait, human_duration,
};

/// So many waiters are no accident of the moment.
const WAITERS: usize = 8;
/// Each of them for so long: a lock is meant to be held for less.
const LONG_NS: u64 = 1_000_000_000;

/// One finding for each lock.
pub fn found(snapshot: &Snapshot, graph: &Graph<'_>, findings: &mut Vec<Finding>) {
    for node in graph.nodes.iter().filter(|node| node.side == Side::Lock) {
        let Some(lock) = node.resource else { continue };
        // Tasks in or behind a knot are told there.
        let mut waiters: Vec<(usize, &Wait)> = graph
            .waiters(node)
            .filter(|&tip| !graph.stuck[tip])
            .filter_map(|tip| Some((graph.tips[tip].task, graph.tips[tip].wait?)))
            .filter(|(_, wait)| wait.wait_ns >= LONG_NS)
            .collect();
        if waiters.len() < WAITERS {
            continue;
        }
        waiters.sort_by_key(|(task, wait)| (std::cmp::Reverse(wait.wait_ns), *task));
        findings.push(finding(snapshot, graph, lock, node, &waiters));
    }
}

fn finding(
    snapshot: &Snapshot,
    graph: &Graph<'_>,
    lock: Resource,
    node: &Node<'_>,
    waiters: &[(usize, &Wait)],
) -> Finding {
    let (worst, wait) = waiters[0];
    let worst = &graph.tasks[worst];
    let since_ns = wait.wait_ns;
    let count = waiters.len() as u64;
    let what = waits::what(wait);
    let holder = node.holds.first().map(|hold| (hold, &graph.tasks[hold.task]));
    let blocked = holder.and_then(|(_, task)| waits::blocked(snapshot, task.id));
    let mut evidence = vec![words::sentence(&waits::sentence(worst, wait))];
    evidence.push(format!(
        "{} have waited for it longer than {}.",
        words::count(count, "task"),
        human_duration(LONG_NS)
    ));
    match holder {
        Some((hold, task)) => {
            evidence.push(format!(
                "Task {} {} it{}{}.",
                task.id,
                if hold.doubtful { "held, and perhaps still holds," } else { "holds" },
                waits::guard(hold.local, hold.function, hold.location),
                match node.holds.len() {
                    1 => String::new(),
                    n => format!(", and {} more", n - 1),
                }
            ));
            evidence.extend(waits::doing(snapshot, task.id).map(|doing| format!("Now {doing}.")));
        }
        None => evidence.push(
            "Nobody is seen to hold it: its guard lives in a running task, in a thread, or where \
             no local leads to."
                .to_owned(),
        ),
    }
    // Between two looks a wait may have ended and another begun unseen.
    let by_looks = waiters.iter().any(|(_, wait)| wait.lower_bound);
    evidence.extend(by_looks.then(|| waits::SEEN.to_owned()));
    evidence.push(
        "Hold it for less: drop the guard before awaiting, or give the data to one task that \
         others send to."
            .to_owned(),
    );
    let by = holder.map(|(_, task)| format!(" held by task {}", task.id)).unwrap_or_default();
    let listed = waiters.iter().map(|&(task, _)| &graph.tasks[task]);
    Finding {
        id: format!("lock_convoy:{lock}"),
        kind: FindingKind::LockConvoy,
        severity: if blocked.is_some() { Severity::Critical } else { Severity::Warning },
        confidence: match holder {
            Some((hold, _)) if !hold.doubtful && !by_looks => Confidence::Proven,
            _ => Confidence::Likely,
        },
        title: format!(
            "{} wait for {what}{by}, the first{}",
            words::count(count, "task"),
            waits::seen(wait)
        ),
        evidence,
        place: waits::at(worst).map(ToString::to_string),
        method: worst.method.as_deref().map(str::to_owned),
        since_ns,
        count,
        tasks: holder
            .map(|(_, task)| task.id)
            .into_iter()
            .chain(listed.clone().map(|task| task.id))
            .take(LISTED)
            .collect(),
        streams: listed.filter_map(|task| task.stream).take(LISTED).collect(),
        connections: Vec::new(),
        worker: blocked.map(|blocked| blocked.worker),
        edges: holder
            .map(|(hold, task)| Edge {
                waits: worst.id,
                kind: wait.kind,
                resource: wait.resource,
                at: waits::at(worst).cloned(),
                holder: task.id,
                local: hold.local.map(Into::into),
                held_at: hold.location.cloned(),
                dormant: hold.dormant,
            })
            .into_iter()
            .collect(),
    }
}
