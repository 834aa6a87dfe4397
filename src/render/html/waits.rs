//! What single tasks wait for, what they hold, and what else they await.

use std::fmt::Write as _;

use super::{Escaped, doubts, frame};
use crate::model::{Branch, Held, Location, Task, Wait, human_duration};

/// Of each of these so many are shown of one task, and then how many more
/// there are; the JSON has them all.
const HOLDERS: usize = 8;
const BRANCHES: usize = 16;
const HOLDS: usize = 16;

/// A task's own block, if there is anything to tell of it.
pub(super) fn task(out: &mut String, task: &Task) {
    if task.wait.is_none() && task.branches.is_empty() && task.holds.is_empty() {
        return;
    }
    let _ = write!(out, "<p>task {}", task.id);
    if let Some(it) = &task.wait {
        wait(out, it);
    }
    out.push_str("</p><ul>");
    task.holds.iter().take(HOLDS).for_each(|it| held(out, it));
    more(out, task.holds.len(), HOLDS, "things held");
    task.branches.iter().take(BRANCHES).for_each(|it| branch(out, it));
    more(out, task.branches.len(), BRANCHES, "futures awaited or kept");
    out.push_str("</ul>");
}

fn more(out: &mut String, all: usize, shown: usize, what: &str) {
    if all > shown {
        let _ = write!(out, "<li class=\"faint\">{} more {what}</li>", all - shown);
    }
}

/// Goes on in the line: kind, time, which one, and who has it.
fn wait(out: &mut String, wait: &Wait) {
    let _ = write!(out, " <b>{}</b>", wait.kind.words());
    if wait.wait_ns > 0 {
        let bound = if wait.lower_bound { "at least " } else { "" };
        let _ = write!(out, ", {bound}{}", human_duration(wait.wait_ns));
    }
    if let Some(resource) = wait.resource {
        let _ = write!(out, ", on {resource}");
    }
    if let Some(task) = wait.task {
        let _ = write!(out, ", on task {task}");
    }
    if let Some(stream) = wait.stream {
        let _ = write!(out, ", on gRPC stream {stream}");
    }
    if let Some(fd) = wait.fd {
        let _ = write!(out, ", on fd {fd}");
    }
    if let Some(detail) = &wait.detail {
        let _ = write!(out, ", {}", Escaped(detail));
    }
    if let Some(ns) = wait.deadline_in_ns {
        let span = human_duration(ns.unsigned_abs());
        let _ =
            if ns < 0 { write!(out, ", due {span} ago") } else { write!(out, ", due in {span}") };
    }
    if let Some(queue) = wait.queue {
        let _ = write!(out, ", {queue} in its queue");
    }
    for holder in wait.holders.iter().take(HOLDERS) {
        let _ = write!(out, "<br>held by task {}", holder.task);
        place(out, holder.local.as_deref(), None, holder.location.as_ref());
    }
    if wait.holders.len() > HOLDERS {
        let _ = write!(out, "<br>held by {} more", wait.holders.len() - HOLDERS);
    }
}

/// Ends a line with where a guard lives.
fn place(out: &mut String, local: Option<&str>, function: Option<&str>, at: Option<&Location>) {
    if let Some(local) = local {
        let _ = write!(out, ": <code>{}</code>", Escaped(local));
    }
    if let Some(function) = function {
        let _ = write!(out, " in <code>{}</code>", Escaped(function));
    }
    if let Some(at) = at {
        let _ = write!(out, " <code class=\"faint\">{}</code>", Escaped(at));
    }
}

fn held(out: &mut String, held: &Held) {
    let _ = write!(out, "<li>holds {} {}", held.kind.words(), held.resource);
    if let Some(messages) = held.backlog {
        let _ = write!(out, ", {messages} messages in it");
    }
    if held.perhaps_dropped {
        out.push_str(", perhaps dropped");
    }
    if held.dormant {
        out.push_str(", in a future that is not polled");
    }
    place(out, held.local.as_deref(), held.function.as_deref(), held.location.as_ref());
    out.push_str("</li>");
}

/// A branch of a `select!` or `join!`, or a future that is kept.
fn branch(out: &mut String, branch: &Branch) {
    out.push_str("<li>");
    out.push_str(if branch.dormant { "kept but not polled:" } else { "also awaiting:" });
    if let Some(it) = &branch.wait {
        wait(out, it);
    }
    out.push_str("<ol>");
    branch.stack.frames.iter().for_each(|it| frame(out, it));
    out.push_str("</ol>");
    doubts(out, &branch.stack);
    out.push_str("</li>");
}
