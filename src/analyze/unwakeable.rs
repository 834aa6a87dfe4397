//! Tasks of which no waker exists.
//!
//! tokio counts the references to each task: one of the list of all tasks, one
//! of its join handle, one for every waker and abort handle. A task that sleeps
//! without any of the last two was polled, said `Pending`, and left nobody a
//! means to wake it. That is no guess, and it never heals. Whoever waits for
//! what such a task holds waits for ever, and is told with it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::graph::{Graph, Hold, Node, Side};
use super::{LISTED, lost, waits, words};
use crate::model::{
    Confidence, Edge, Finding, FindingKind, Severity, Snapshot, Task, TaskId, WaitKind,
};

/// Edges listed of one finding: more than a person follows.
const EDGES: usize = 32;

/// One finding for all that sleep at one place.
pub fn found(snapshot: &Snapshot, graph: &Graph<'_>, findings: &mut Vec<Finding>) {
    let mut alike: BTreeMap<(bool, String), Vec<usize>> = BTreeMap::new();
    let joined = joined(snapshot);
    for (at, task) in snapshot.tasks.iter().enumerate().filter(|(_, task)| lost::is_lost(task)) {
        let place = task.place().map(ToString::to_string);
        let kept = task.joinable == Some(true) && !joined.contains(&task.id);
        alike.entry((kept, place.unwrap_or_default())).or_default().push(at);
    }
    let mut waiting = Waiting::of(graph);
    findings.extend(alike.into_iter().map(|((kept, place), lost)| {
        let tasks: Vec<&Task> = lost.iter().map(|&at| &snapshot.tasks[at]).collect();
        let waited = tasks.iter().any(|task| joined.contains(&task.id));
        let behind = waiting.behind(&lost);
        let mut finding = finding(kept, waited, place, &tasks);
        tell(graph, &behind, &mut finding);
        finding
    }));
}

/// A stuck wait, and the hold that keeps it so.
pub type Link<'g, 'a> = (usize, &'g Hold<'a>);

/// Who waits for what the tasks hold that nothing can wake, each told once.
pub struct Waiting<'g, 'a> {
    graph: &'g Graph<'a>,
    /// Nodes by the tasks that hold them for good.
    held_by: HashMap<usize, Vec<(usize, &'g Hold<'a>)>>,
    asked: HashSet<usize>,
    seen: HashSet<usize>,
}

impl<'g, 'a> Waiting<'g, 'a> {
    /// Of this graph.
    pub fn of(graph: &'g Graph<'a>) -> Self {
        let mut held_by: HashMap<usize, Vec<(usize, &Hold<'_>)>> = HashMap::new();
        // Other permits may be held where nobody looks.
        let certain = |node: &Node<'_>| node.side != Side::Permits && !graph.dead.is_empty();
        let nodes = graph.nodes.iter().enumerate().filter(|(_, node)| certain(node));
        for (at, node) in nodes {
            let stays = |hold: &&Hold<'_>| !hold.doubtful && graph.stays(hold);
            for hold in node.holds.iter().filter(stays) {
                held_by.entry(hold.task).or_default().push((at, hold));
            }
        }
        let seen = graph.dead.iter().copied().collect();
        Self { graph, held_by, asked: HashSet::new(), seen }
    }

    /// The nearest first.
    pub fn behind(&mut self, lost: &[usize]) -> Vec<Link<'g, 'a>> {
        let graph = self.graph;
        let mut found = Vec::new();
        let mut next: VecDeque<usize> =
            lost.iter().copied().filter(|&task| graph.is_dead(task)).collect();
        while let Some(task) = next.pop_front() {
            for &(node, hold) in self.held_by.get(&task).into_iter().flatten() {
                if !self.asked.insert(node) {
                    continue;
                }
                for &tip in graph.nodes[node].waiters.iter().filter(|&&tip| graph.stuck[tip]) {
                    if self.seen.insert(graph.tips[tip].task) {
                        found.push((tip, hold));
                        next.push_back(graph.tips[tip].task);
                    }
                }
            }
        }
        found
    }
}

/// Adds those who wait for what the tasks of a finding hold.
fn tell(graph: &Graph<'_>, behind: &[Link<'_, '_>], finding: &mut Finding) {
    let Some(&(first, hold)) = behind.first() else { return };
    let task = |tip: usize| &graph.tasks[graph.tips[tip].task];
    let side = |tip: usize| graph.tips[tip].node.map(|node| graph.nodes[node].side);
    let (tip, holder) = (&graph.tips[first], graph.tasks[hold.task].id);
    let has = match side(first) {
        Some(Side::Senders) => "has the sender",
        Some(Side::Receiver) => "has the receiver",
        Some(Side::End) => "is that task",
        Some(Side::Read) if hold.queued => "queued before it to write",
        Some(Side::Cell) => "initialises it",
        Some(Side::Lock | Side::Read | Side::Permits) | None => "holds it",
    };
    if let Some(wait) = tip.wait {
        let clause = waits::clause(task(first).id, tip.stack, wait);
        let guard = waits::guard(hold.local, hold.function, hold.location);
        finding.evidence.push(words::sentence(&format!("{clause}; task {holder} {has}{guard}")));
    }
    let certain = behind.iter().all(|&(tip, _)| side(tip).is_some_and(|side| !side.is_channel()));
    if !certain {
        finding.evidence.push(
            "That the end of a channel still is where it was seen, only the locals of its task \
             tell."
                .to_owned(),
        );
    }
    let count = behind.len() as u64;
    finding.title += &match count {
        1 => "; 1 more waits behind".to_owned(),
        n => format!("; {n} more wait behind"),
    };
    finding.count += count;
    let room = LISTED.saturating_sub(finding.tasks.len());
    finding.tasks.extend(behind.iter().map(|&(tip, _)| task(tip).id).take(room));
    let streams = behind.iter().filter_map(|&(tip, _)| task(tip).stream);
    finding.streams.extend(streams.take(LISTED.saturating_sub(finding.streams.len())));
    finding.edges = behind
        .iter()
        .filter_map(|&(tip, hold)| {
            let wait = graph.tips[tip].wait?;
            Some(Edge {
                waits: task(tip).id,
                kind: wait.kind,
                resource: wait.resource,
                at: waits::frame(graph.tips[tip].stack).and_then(|frame| frame.location.clone()),
                holder: graph.tasks[hold.task].id,
                local: hold.local.map(Into::into),
                held_at: hold.location.cloned(),
                dormant: hold.dormant,
            })
        })
        .take(EDGES)
        .collect();
}

/// Tasks whose end another task waits for: it will never come.
fn joined(snapshot: &Snapshot) -> HashSet<TaskId> {
    let waits = |task: &'_ Task| -> Vec<TaskId> {
        let branches = task.branches.iter().filter_map(|branch| branch.wait.as_ref());
        let waits = task.wait.iter().chain(branches);
        waits.filter(|wait| wait.kind == WaitKind::Join).filter_map(|wait| wait.task).collect()
    };
    snapshot.tasks.iter().flat_map(waits).collect()
}

/// `kept`: somebody still has their join handles and nobody waits for them, so
/// they may be meant to stay until they are aborted. `joined`: somebody waits.
fn finding(kept: bool, joined: bool, place: String, tasks: &[&Task]) -> Finding {
    let worst = tasks.iter().max_by_key(|task| task.state_ns).copied().unwrap_or(tasks[0]);
    let frame = waits::frame(worst.stack.as_deref());
    let location = frame.and_then(|frame| frame.location.as_ref());
    let at = waits::place(frame.map(|frame| &*frame.function), location);
    let more = match tasks.len() as u64 - 1 {
        0 => String::new(),
        n => format!(", and {}", words::count(n, "other")),
    };
    Finding {
        id: format!("unwakeable:{place}{}", if kept { ":kept" } else { "" }),
        kind: FindingKind::Unwakeable,
        severity: if kept { Severity::Info } else { Severity::Warning },
        confidence: Confidence::Proven,
        title: match kept {
            true => format!("Only an abort can end task {}{at}{more}", worst.id),
            false => format!("Nothing can wake task {}{at}{more}", worst.id),
        },
        evidence: vec![
            format!(
                "Task {} is idle and no waker of it exists: by its own count of references only \
                 the runtime's list of tasks{} know{} it.",
                worst.id,
                if kept || joined { " and its join handle" } else { "" },
                if kept || joined { "" } else { "s" },
            ),
            "A future returned `Pending` without keeping a waker, or whoever kept it has dropped \
             it; `std::future::pending` does the same on purpose."
                .to_owned(),
            match kept {
                true => {
                    "Its join handle is still there: it may be meant to stay until it is aborted."
                }
                false => "Its join handle is gone: only the end of the runtime will end it.",
            }
            .to_owned(),
        ],
        place: (!place.is_empty()).then_some(place),
        method: worst.method.as_deref().map(str::to_owned),
        since_ns: worst.state_ns,
        count: tasks.len() as u64,
        tasks: tasks.iter().map(|task| task.id).take(LISTED).collect(),
        streams: tasks.iter().filter_map(|task| task.stream).take(LISTED).collect(),
        connections: Vec::new(),
        worker: None,
        edges: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TaskState, Wait, sample};

    fn found_in(change: impl Fn(&mut Task)) -> Vec<Finding> {
        let place = sample::place("src/a.rs", 7).into();
        let mut snapshot = sample::empty();
        for id in [3, 4] {
            let mut task = sample::task(id, &place);
            task.wakers = Some(0);
            change(&mut task);
            snapshot.tasks.push(task);
        }
        let mut findings = Vec::new();
        found(&snapshot, &Graph::of(&snapshot), &mut findings);
        findings
    }

    #[test]
    fn idle_tasks_without_a_waker_are_one_proven_finding() {
        let findings = found_in(|_| {});
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert_eq!(findings[0].confidence, Confidence::Proven);
        assert_eq!((findings[0].count, findings[0].tasks.len()), (2, 2));
        assert_eq!(findings[0].place.as_deref(), Some("src/a.rs:7"));
    }

    #[test]
    fn whose_join_handle_is_kept_may_be_meant_to_stay() {
        let findings = found_in(|task| task.joinable = Some(task.id.0 == 3));
        let told: Vec<_> = findings.iter().map(|it| (it.severity, it.tasks[0].0)).collect();
        assert_eq!(told, [(Severity::Warning, 4), (Severity::Info, 3)]);
        assert_ne!(findings[0].id, findings[1].id);
    }

    #[test]
    fn whoever_waits_for_its_end_waits_for_ever() {
        let findings = found_in(|task| {
            task.joinable = Some(true);
            let mut wait = Wait::new(WaitKind::Join, None);
            wait.about_mut().task = Some(TaskId(3));
            task.wait = (task.id.0 == 4).then_some(wait);
        });
        let told: Vec<_> = findings.iter().map(|it| (it.severity, it.tasks[0].0)).collect();
        assert_eq!(told, [(Severity::Warning, 3), (Severity::Info, 4)]);
    }

    #[test]
    fn whoever_has_a_waker_or_is_awake_or_unread_is_left_alone() {
        assert!(found_in(|task| task.wakers = Some(1)).is_empty());
        assert!(found_in(|task| task.wakers = None).is_empty());
        assert!(found_in(|task| task.state = TaskState::Scheduled).is_empty());
        assert!(found_in(|task| task.state = TaskState::Running).is_empty());
    }
}
