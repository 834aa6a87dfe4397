//! Workers that do not come back from a poll, tasks that hardly ever leave
//! one, and times at which nothing ran at all.

use std::collections::BTreeMap;

use super::{LISTED, words};
use crate::model::{
    Blocked, Confidence, Finding, FindingKind, Severity, Snapshot, Task, TaskState, human_duration,
};

/// For how long after its end an episode is still news.
const NEWS_NS: u64 = 60_000_000_000;
/// A task must have lived so long before its habits are judged.
const HABIT_NS: u64 = 10_000_000_000;
/// Percent of its life that a busy task spends in polls.
const BUSY_PERCENT: u64 = 90;

/// Blocked now: one finding each. Blocked lately: one for each place.
pub fn workers(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    findings.extend(snapshot.blocked.iter().filter(|b| b.ongoing).map(|b| now(snapshot, b)));
    let mut lately: BTreeMap<String, Vec<&Blocked>> = BTreeMap::new();
    for blocked in &snapshot.blocked {
        if !blocked.ongoing && blocked.ended_ago_ns < NEWS_NS {
            lately.entry(where_(blocked)).or_default().push(blocked);
        }
    }
    findings.extend(lately.into_iter().map(|(place, episodes)| past(&place, &episodes)));
}

fn where_(blocked: &Blocked) -> String {
    blocked
        .stack
        .as_deref()
        .and_then(words::place)
        .or_else(|| blocked.spawned_at.as_ref().map(|place| format!("a task spawned at {place}")))
        .unwrap_or_else(|| "an unknown place".to_owned())
}

fn place(blocked: &Blocked) -> Option<String> {
    let frame = blocked.stack.as_deref().and_then(|stack| stack.user_frame());
    let location = frame.and_then(|frame| frame.location.as_ref());
    location.or(blocked.spawned_at.as_deref()).map(ToString::to_string)
}

fn now(snapshot: &Snapshot, blocked: &Blocked) -> Finding {
    let runtime = snapshot.runtimes.iter().find(|runtime| runtime.id == blocked.runtime);
    let name = runtime.map_or("?", |runtime| &runtime.name);
    let mut evidence = vec![format!(
        "Worker {} of runtime \"{name}\" (thread {}) has been inside one poll for {}; polls \
         should take less than {}.",
        blocked.worker,
        blocked.tid,
        human_duration(blocked.blocked_ns),
        human_duration(snapshot.blocked_threshold_ns),
    )];
    match (&blocked.stack, &blocked.stack_missing) {
        (Some(stack), _) => {
            if let Some(inner) = stack.frames.first() {
                evidence.push(format!(
                    "Its thread is in {}, called from {}.",
                    inner.function,
                    where_(blocked)
                ));
            }
        }
        (None, Some(why)) => evidence.push(format!("Its stack is not there: {why}.")),
        (None, None) => {}
    }
    if let Some(task) = blocked.task {
        let mut sentence = format!("It polls task {task}");
        if let Some(place) = &blocked.spawned_at {
            sentence += &format!(", spawned at {place}");
        }
        if let Some(method) = &blocked.method {
            sentence += &format!(", for a call of {method}");
        }
        if let Some(peer) = &blocked.peer {
            sentence += &format!(" from {peer}");
        }
        evidence.push(sentence + ".");
    }
    evidence.push(match blocked.queued_local {
        Some(local) => format!(
            "{} behind it in its own queue, {} in the runtime's.",
            words::count(local, "task"),
            blocked.queued_global
        ),
        None => format!("{} in the runtime's queue.", words::count(blocked.queued_global, "task")),
    });
    let waiting = snapshot
        .tasks
        .iter()
        .filter_map(|task| task.wait.as_ref())
        .filter(|wait| wait.holders.iter().any(|holder| Some(holder.task) == blocked.task))
        .count() as u64;
    if waiting > 0 {
        evidence.push(format!(
            "{} for what that task holds.",
            words::count_verb(waiting, "task", "wait")
        ));
    }
    Finding {
        id: format!("blocked_worker:{}", blocked.id),
        kind: FindingKind::BlockedWorker,
        severity: Severity::Critical,
        confidence: Confidence::Proven,
        title: format!(
            "Worker {} blocked {} in one poll: {}",
            blocked.worker,
            human_duration(blocked.blocked_ns),
            where_(blocked)
        ),
        evidence,
        place: place(blocked),
        method: blocked.method.as_deref().map(str::to_owned),
        since_ns: blocked.blocked_ns,
        count: 1,
        tasks: blocked.task.into_iter().collect(),
        streams: blocked.stream.into_iter().collect(),
        connections: Vec::new(),
        worker: Some(blocked.worker),
        edges: Vec::new(),
    }
}

fn past(place_text: &str, episodes: &[&Blocked]) -> Finding {
    // Newest first, as in the snapshot.
    let newest = episodes[0];
    let longest = episodes.iter().map(|b| b.blocked_ns).max().unwrap_or(0);
    let times = match episodes.len() {
        1 => "once".to_owned(),
        n => format!("{n} times"),
    };
    Finding {
        id: format!("blocked_lately:{place_text}"),
        kind: FindingKind::BlockedWorker,
        severity: Severity::Warning,
        confidence: Confidence::Proven,
        title: format!(
            "A worker was blocked {times} in the last minute, up to {}: {place_text}",
            human_duration(longest)
        ),
        evidence: vec![format!(
            "Last {} ago, on worker {}, for {}.",
            human_duration(newest.ended_ago_ns),
            newest.worker,
            human_duration(newest.blocked_ns)
        )],
        place: place(newest),
        method: newest.method.as_deref().map(str::to_owned),
        since_ns: longest,
        count: episodes.len() as u64,
        tasks: episodes.iter().filter_map(|b| b.task).take(LISTED).collect(),
        streams: episodes.iter().filter_map(|b| b.stream).take(LISTED).collect(),
        connections: Vec::new(),
        worker: Some(newest.worker),
        edges: Vec::new(),
    }
}

/// The process stood still lately.
pub fn pauses(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let lately: Vec<_> =
        snapshot.pauses.iter().filter(|pause| pause.ended_ago_ns < NEWS_NS).collect();
    let Some(newest) = lately.first() else { return };
    let longest = lately.iter().map(|pause| pause.paused_ns).max().unwrap_or(0);
    findings.push(Finding {
        id: "process_paused".to_owned(),
        kind: FindingKind::ProcessPaused,
        severity: Severity::Warning,
        confidence: Confidence::Likely,
        title: format!(
            "The whole process stood still for {}, {} ago",
            human_duration(newest.paused_ns),
            human_duration(newest.ended_ago_ns)
        ),
        evidence: vec![
            "The watchdog's own clock jumped, and the process used no processor meanwhile: it was \
             stopped (SIGSTOP, a debugger, a frozen cgroup) or its machine was suspended."
                .to_owned(),
            "This time is not counted as anybody's blocked poll.".to_owned(),
        ],
        place: None,
        method: None,
        since_ns: longest,
        count: lately.len() as u64,
        tasks: Vec::new(),
        streams: Vec::new(),
        connections: Vec::new(),
        worker: None,
        edges: Vec::new(),
    });
}

/// Tasks that take a worker nearly for themselves, poll after poll.
pub fn busy_tasks(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let blocked =
        |task: &Task| snapshot.blocked.iter().any(|b| b.ongoing && b.task == Some(task.id));
    let mut by_place: BTreeMap<String, Vec<&Task>> = BTreeMap::new();
    for task in &snapshot.tasks {
        if task.age_ns >= HABIT_NS
            && task.busy_ns / 100 >= task.age_ns / 10_000 * BUSY_PERCENT
            && task.state != TaskState::Unknown
            // That is told already, and better.
            && !blocked(task)
        {
            let place = task.place().map(ToString::to_string).unwrap_or_default();
            by_place.entry(place).or_default().push(task);
        }
    }
    for (place, mut tasks) in by_place {
        tasks.sort_by_key(|task| std::cmp::Reverse(task.busy_ns));
        let worst = tasks[0];
        findings.push(Finding {
            id: format!("busy_task:{place}"),
            kind: FindingKind::BusyTask,
            severity: Severity::Info,
            confidence: Confidence::Proven,
            title: format!(
                "{} spend{} nearly all the time inside polls: {place}",
                words::count(tasks.len() as u64, "task"),
                if tasks.len() == 1 { "s" } else { "" },
            ),
            evidence: vec![format!(
                "Task {} was busy for {} of the {} it lives, in {}; it may want spawn_blocking or \
                 a thread of its own.",
                worst.id,
                human_duration(worst.busy_ns),
                human_duration(worst.age_ns),
                words::count(worst.polls, "poll"),
            )],
            place: (!place.is_empty()).then_some(place),
            method: worst.method.as_deref().map(str::to_owned),
            since_ns: worst.age_ns,
            count: tasks.len() as u64,
            tasks: tasks.iter().map(|task| task.id).take(LISTED).collect(),
            streams: tasks.iter().filter_map(|task| task.stream).take(LISTED).collect(),
            connections: Vec::new(),
            worker: None,
            edges: Vec::new(),
        });
    }
}
