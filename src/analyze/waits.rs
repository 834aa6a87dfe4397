//! How findings speak of waits and of who holds what.

use super::words;
use crate::model::{
    Blocked, Frame, Location, Snapshot, Stack, Task, TaskId, TaskState, Wait, WaitKind,
    human_duration,
};

/// The frame to show of a suspended task: its own code, or what there is.
pub fn frame(stack: Option<&Stack>) -> Option<&Frame> {
    let stack = stack?;
    stack
        .user_frame()
        .or_else(|| stack.frames.iter().find(|frame| frame.location.is_some()))
        .or_else(|| stack.frames.first())
}

/// Where a task waits, in its own code if possible.
pub fn at(task: &Task) -> Option<&Location> {
    frame(task.stack.as_deref()).and_then(|frame| frame.location.as_ref())
}

/// `for 41s`, or `for at least 41s`, or nothing if nothing is known.
pub fn lasted(ns: u64, lower_bound: bool) -> String {
    match (ns, lower_bound) {
        (0, true) => String::new(),
        (ns, true) => format!(" for at least {}", human_duration(ns)),
        (ns, false) => format!(" for {}", human_duration(ns)),
    }
}

/// The same of a wait that a finding rests on: of a lower bound it says that
/// looks alone tell it.
pub fn seen(wait: &Wait) -> String {
    match (wait.wait_ns, wait.lower_bound) {
        (ns, true) if ns > 0 => format!(", at every look for {}", human_duration(ns)),
        (ns, lower_bound) => lasted(ns, lower_bound),
    }
}

/// What a time that looks alone tell rests on.
pub const SEEN: &str = "How long is told by looks, not by hooks: each time the same wait was seen, \
                        by its chain, its place in the queue and the counters of what it waits for.";

/// `a mutex lock`, with its identity.
pub fn what(wait: &Wait) -> String {
    let mut text = words::article(wait.kind.words());
    if let Some(resource) = &wait.resource {
        text += &format!(" ({resource})");
    }
    if let Some(task) = wait.task.filter(|_| wait.kind == WaitKind::Join) {
        text = format!("task {task} to end");
    }
    text
}

/// ` in ledger::post at src/ledger.rs:204`, as far as known.
pub fn place(function: Option<&str>, location: Option<&Location>) -> String {
    let mut text = String::new();
    if let Some(function) = function {
        text += &format!(" in {function}");
    }
    if let Some(location) = location {
        text += &format!(" at {location}");
    }
    text
}

/// `task 17 waits for a mutex lock (0x7f10) in ledger::post at src/ledger.rs:204 for 41s`
pub fn sentence(task: &Task, wait: &Wait) -> String {
    clause(task.id, task.stack.as_deref(), wait)
}

/// The same of one of the things that a task awaits.
pub fn clause(id: TaskId, stack: Option<&Stack>, wait: &Wait) -> String {
    let frame = frame(stack);
    format!(
        "task {id} waits for {}{}{}",
        what(wait),
        place(frame.map(|frame| &*frame.function), frame.and_then(|frame| frame.location.as_ref())),
        lasted(wait.wait_ns, wait.lower_bound)
    )
}

/// What a task does now, as a clause: what it waits for, or that it runs.
pub fn doing(snapshot: &Snapshot, id: TaskId) -> Option<String> {
    let task = find(snapshot, id)?;
    if let Some(blocked) = blocked(snapshot, id) {
        return Some(format!(
            "task {id} has kept worker {} inside one poll for {}",
            blocked.worker,
            human_duration(blocked.blocked_ns)
        ));
    }
    match (&task.wait, task.state) {
        (Some(wait), _) if wait.kind != WaitKind::Unknown => {
            let mut text = sentence(task, wait);
            if let Some(holder) = wait.holders.first() {
                text += &format!("; task {} holds it", holder.task);
                text += &guard(holder.local.as_deref(), None, holder.location.as_ref());
            }
            Some(text)
        }
        (_, TaskState::Running) => Some(format!("task {id} is running")),
        (_, TaskState::Idle) => {
            let frame = frame(task.stack.as_deref())?;
            let at = place(Some(&frame.function), frame.location.as_ref());
            Some(format!("task {id} is suspended{at}"))
        }
        _ => None,
    }
}

/// `: guard in ledger::post at src/ledger.rs:204`, as far as known.
pub fn guard(local: Option<&str>, function: Option<&str>, at: Option<&Location>) -> String {
    let place = place(function, at);
    match (local, place.is_empty()) {
        (Some(local), _) => format!(" (local `{local}`{place})"),
        (None, true) => String::new(),
        (None, false) => format!(" ({})", place.trim_start()),
    }
}

/// The poll of this task that does not return.
pub fn blocked(snapshot: &Snapshot, id: TaskId) -> Option<&Blocked> {
    snapshot.blocked.iter().find(|blocked| blocked.ongoing && blocked.task == Some(id))
}

/// Tasks are listed by id.
pub fn find(snapshot: &Snapshot, id: TaskId) -> Option<&Task> {
    let at = snapshot.tasks.binary_search_by_key(&id, |task| task.id).ok()?;
    Some(&snapshot.tasks[at])
}
