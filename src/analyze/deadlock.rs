//! Knots as findings: deadlocks, futurelocks, and waits that nothing can end.

use std::collections::BTreeMap;

use super::graph::{Graph, Side};
use super::knots::{Knot, Link, knots, may_leave};
use super::{LISTED, waits, words};
use crate::model::{
    Confidence, Edge, Finding, FindingKind, HeldKind, Location, Severity, Task, TaskId, Wait,
    WaitKind, human_duration,
};

/// Edges listed of one finding: more than a person follows.
const EDGES: usize = 32;
/// Circles that rest on a guess are told only once they have lasted.
const SUSPECTED_NS: u64 = 10_000_000_000;

/// Timeouts may end a circle before anybody notices.
const TIMED_NS: u64 = 1_000_000_000;

/// One finding for all knots that are tied at the same places.
pub fn found(graph: &Graph<'_>, findings: &mut Vec<Finding>) {
    let mut alike: BTreeMap<String, Vec<Knot<'_>>> = BTreeMap::new();
    for knot in knots(graph) {
        let least = match knot.confidence {
            Confidence::Suspected => SUSPECTED_NS,
            _ if knot.timed => TIMED_NS,
            _ => 0,
        };
        if since(&knot).0 < least {
            continue;
        }
        alike.entry(id(graph, &knot)).or_default().push(knot);
    }
    for (id, mut knots) in alike {
        knots.sort_by_key(|knot| std::cmp::Reverse((knot.behind.len(), since(knot).0)));
        findings.push(finding(graph, id, &knots));
    }
}

/// Where a link waits.
fn at<'a>(graph: &Graph<'a>, link: &Link<'_>) -> Option<&'a Location> {
    waits::frame(graph.tips[link.tip].stack).and_then(|frame| frame.location.as_ref())
}

fn kind(knot: &Knot<'_>) -> FindingKind {
    let links = &knot.links;
    let channel = |link: &Link<'_>| matches!(link.side, Side::Senders | Side::Receiver | Side::End);
    if links.iter().any(|link| link.hold.dormant) {
        FindingKind::Futurelock
    } else if links.len() == 1 && channel(&links[0]) {
        FindingKind::Unwakeable
    } else {
        FindingKind::Deadlock
    }
}

/// A circle exists since the last of its waits began.
fn since(knot: &Knot<'_>) -> (u64, bool) {
    let last = knot.links.iter().map(|link| link.wait).min_by_key(|wait| wait.wait_ns);
    last.map_or((0, true), |wait| (wait.wait_ns, wait.lower_bound))
}

/// The same for circles through the same places, whichever tasks are in them.
fn id(graph: &Graph<'_>, knot: &Knot<'_>) -> String {
    let mut places: Vec<String> = knot
        .links
        .iter()
        .map(|link| {
            let at = at(graph, link);
            at.map_or_else(|| graph.tasks[link.from].id.to_string(), ToString::to_string)
        })
        .collect();
    places.sort_unstable();
    format!("{}:{}", kind(knot).as_str(), places.join(","))
}

fn finding(graph: &Graph<'_>, id: String, knots: &[Knot<'_>]) -> Finding {
    let worst = &knots[0];
    let kind = kind(worst);
    let task = |index: usize| &graph.tasks[index];
    let first = &worst.links[0];
    let confidence = knots.iter().map(|knot| knot.confidence).max().unwrap_or(worst.confidence);
    let certain = confidence == Confidence::Proven && !worst.timed;
    let mut evidence: Vec<String> =
        worst.links.iter().take(EDGES).map(|link| link_sentence(graph, link)).collect();
    if worst.links.len() > EDGES {
        evidence.push(format!("And so on, through {} tasks.", worst.links.len()));
    }
    if let Some(more) = worst.tasks.len().checked_sub(worst.links.len()).filter(|&more| more > 0) {
        evidence.push(format!(
            "{} more are tied into the same knot.",
            words::count(more as u64, "task")
        ));
    }
    if let Some(&first) = worst.behind.first() {
        let behind = worst.behind.len() as u64;
        let which = if behind == 1 { "that" } else { "the oldest" };
        evidence.push(format!(
            "{} behind it; {which} is task {}{}.",
            words::count_verb(behind, "more task", "wait"),
            task(first).id,
            waits::place(None, waits::at(task(first)))
        ));
    }
    if knots.len() > 1 {
        evidence.push(format!(
            "{} are alike; this is one of them.",
            words::count(knots.len() as u64, "knot")
        ));
    }
    evidence.extend(worst.way_out.map(|task| way_out(graph, worst, task)));
    evidence.push(advice(kind, worst).to_owned());
    match confidence {
        Confidence::Suspected => evidence.push(
            "It is suspected only: a permit, a guard or a stack on the way could not be seen whole."
                .to_owned(),
        ),
        Confidence::Likely if worst.links.iter().any(|link| may_leave(graph, link)) => {
            evidence.push(
                "It is not proven: readers let each other in, so should the writer that is served \
                 before them stop waiting, they go on."
                    .to_owned(),
            );
        }
        Confidence::Likely => evidence.push(
            "It is not proven: that the end of a channel still is where it was seen, only the \
             locals of its task tell."
                .to_owned(),
        ),
        Confidence::Proven => {}
    }
    let all = || knots.iter().flat_map(|knot| &knot.tasks);
    let behind = || knots.iter().flat_map(|knot| &knot.behind);
    let count = (all().count() + behind().count()) as u64;
    let (since_ns, lower_bound) = knots.iter().map(since).max().unwrap_or_default();
    let mut circle: Vec<usize> = worst.links.iter().map(|link| link.from).collect();
    circle.dedup();
    let rest = all().chain(behind()).copied().filter(|index| !circle.contains(index));
    let concerned: Vec<&Task> = circle.iter().copied().chain(rest).take(LISTED).map(task).collect();
    Finding {
        id,
        kind,
        severity: if certain { Severity::Critical } else { Severity::Warning },
        confidence,
        title: title(graph, kind, worst, knots.len())
            + &waits::lasted(since_ns, lower_bound)
            + &match knots.iter().map(|knot| knot.behind.len()).sum() {
                0 => String::new(),
                1 => "; 1 more waits behind".to_owned(),
                n => format!("; {n} more wait behind"),
            },
        evidence,
        place: at(graph, first).map(ToString::to_string),
        method: concerned.iter().find_map(|task| task.method.as_deref()).map(str::to_owned),
        since_ns,
        count,
        tasks: concerned.iter().map(|task| task.id).collect(),
        streams: concerned.iter().filter_map(|task| task.stream).collect(),
        connections: Vec::new(),
        worker: None,
        edges: worst.links.iter().take(EDGES).map(|link| edge(graph, link)).collect(),
    }
}

fn title(graph: &Graph<'_>, kind: FindingKind, knot: &Knot<'_>, alike: usize) -> String {
    let ids: Vec<TaskId> = knot.links.iter().map(|link| graph.tasks[link.from].id).collect();
    let first = &knot.links[0];
    let what = words::article(first.wait.kind.words());
    let text = match (kind, &ids[..]) {
        (FindingKind::Futurelock, [one]) => {
            let future = first.hold.function.map(|name| format!(" ({name})")).unwrap_or_default();
            format!(
                "Task {one} waits for {what} behind its own future that it no longer polls{future}"
            )
        }
        (FindingKind::Futurelock, [one, ..]) => format!(
            "{} tasks, from task {one} on, wait in a circle through a future that is no longer polled",
            ids.len()
        ),
        (FindingKind::Unwakeable, _) if first.wait.kind == WaitKind::Join => {
            format!("Task {} waits for its own end", ids[0])
        }
        (FindingKind::Unwakeable, _) => format!(
            "Nothing can wake task {}: it waits for {what}, and only it could answer",
            ids[0]
        ),
        (_, [one]) if first.side == Side::Cell => {
            format!("Task {one} waits for {what} that it is at itself")
        }
        (_, [one]) => format!("Task {one} waits for {what} on what it holds itself"),
        (_, [a, b]) if a == b => format!("Two branches of task {a} wait for each other"),
        (_, [a, b]) => format!("Tasks {a} and {b} wait for each other"),
        (_, [a, .., z]) => {
            format!("{} tasks wait in a circle, from task {a} to task {z} and back", ids.len())
        }
        (_, []) => String::new(),
    };
    if alike > 1 { format!("{alike} times alike: {text}") } else { text }
}

/// One edge, with everything it rests on.
fn link_sentence(graph: &Graph<'_>, link: &Link<'_>) -> String {
    let holder = &graph.tasks[link.hold.task];
    let itself = link.hold.task == link.from;
    let who = if itself { "the same task".to_owned() } else { format!("task {}", holder.id) };
    let guard = waits::guard(link.hold.local, link.hold.function, link.hold.location);
    let tip = &graph.tips[link.tip];
    let text = waits::clause(graph.tasks[link.from].id, tip.stack, link.wait);
    let text = match (link.own, link.side) {
        (Some(_), _) => format!(
            "{text}; before that {who} queued for it in a future{guard} that it keeps and does not \
             poll: that one is served first and never gives it on"
        ),
        (None, Side::Read) if link.hold.queued => format!(
            "{text}; before that {who} queued to write{guard}, and the queue is served in order{}",
            dormant(link)
        ),
        (None, Side::Read) if link.hold.kind == Some(HeldKind::RwLockRead) => format!(
            "{text}; {who} reads{guard}, which keeps no reader out: a writer between them does, \
             whom no dump sees"
        ),
        (None, _) if link.hold.queued => format!(
            "{text}; nobody is seen to hold it, but {who} queued for it in a future{guard} that it \
             keeps and does not poll"
        ),
        (None, Side::Lock | Side::Read | Side::Cell) if link.hold.doubtful => format!(
            "{text}; {who} held it{guard} and may have dropped it: then somebody holds it whom no \
             dump sees, such as a thread"
        ),
        (None, Side::Lock | Side::Read) => {
            format!("{text}; {who} holds it{guard}{}", dormant(link))
        }
        (None, Side::Cell) => format!("{text}; {who} initialises it{guard}{}", dormant(link)),
        (None, Side::Permits) => {
            format!(
                "{text}; all permits seen are held by such tasks, one by {who}{guard}{}",
                dormant(link)
            )
        }
        (None, Side::Senders) => format!("{text}; {who} has the sender{guard}{}", dormant(link)),
        (None, Side::Receiver) => {
            format!("{text}; {who} has the receiver{guard} and does not receive{}", dormant(link))
        }
        (None, Side::End) => format!("{text}; that is {who}"),
    };
    words::sentence(&text)
}

fn dormant(link: &Link<'_>) -> &'static str {
    if link.hold.dormant { " in a future that it keeps and does not poll" } else { "" }
}

/// What would break the circle, by breaking off what a task is at.
fn way_out(graph: &Graph<'_>, knot: &Knot<'_>, task: usize) -> String {
    let id = graph.tasks[task].id;
    let due = |wait: &Wait| match wait.deadline_in_ns {
        Some(ns) if ns > 0 => format!(", due in {}", human_duration(ns.unsigned_abs())),
        _ => String::new(),
    };
    let link = knot.links.iter().find(|link| link.from == task);
    if let Some(link) = link.filter(|link| link.wait.deadline_in_ns.is_some()) {
        return format!("Only a timeout around the wait of task {id} ends it{}.", due(link.wait));
    }
    let other = graph.ways_out(task).find_map(|tip| tip.wait);
    let what = other.map_or_else(
        || "something else".to_owned(),
        |wait| format!("{}{}", words::article(wait.kind.words()), due(wait)),
    );
    format!(
        "Task {id} also awaits {what}: should that come first, the task may drop this wait and \
         what it holds there. Nothing else ends it."
    )
}

fn advice(kind: FindingKind, knot: &Knot<'_>) -> &'static str {
    match kind {
        FindingKind::Futurelock => {
            "Drop that future before awaiting anything else, or keep it polled: in a task of its \
             own, or with join! instead of select! on a &mut."
        }
        FindingKind::Unwakeable => {
            "Drop the other end, or hand it to someone, before awaiting this one."
        }
        _ if knot.links.iter().any(|link| link.side == Side::Cell) => {
            "What initialises a cell must not wait for it, nor for anything that does."
        }
        _ if knot.links.len() == 1 => "Drop the guard before locking again.",
        _ if knot.links.iter().all(|link| matches!(link.side, Side::Lock | Side::Read)) => {
            "None of them can go on. Take these locks in one order everywhere, or drop the first \
             guard before awaiting the second."
        }
        _ => "None of them can go on until one of these waits is given up.",
    }
}

fn edge(graph: &Graph<'_>, link: &Link<'_>) -> Edge {
    let task = &graph.tasks[link.from];
    Edge {
        waits: task.id,
        kind: link.wait.kind,
        resource: link.wait.resource,
        at: at(graph, link).cloned(),
        holder: graph.tasks[link.hold.task].id,
        local: link.hold.local.map(Into::into),
        held_at: link.hold.location.cloned(),
        dormant: link.hold.dormant,
    }
}
