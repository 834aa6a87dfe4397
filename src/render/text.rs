//! Go's text formats: `debug=1` (grouped, with labels) and `debug=2` (one
//! block per task), so that people and tools that read goroutine dumps read
//! these. Times are exact, Go's are minutes.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write as _;

use super::alike::{self, Key, Sum};
use super::pprof;
use super::{Chunks, Shot};
use crate::model::{
    Frame, Location, Snapshot, Stack, Task, TaskId, TaskState, WaitKind, human_duration,
};

/// Frames shown at each end of a deep stack, as in Go.
const ENDS: usize = 50;

/// `debug=1`
pub fn debug1(snapshot: &Snapshot) -> Vec<u8> {
    let groups = alike::sorted(alike::sums(snapshot));
    let mut out = String::with_capacity(512 * (groups.len() + 1));
    let _ = writeln!(out, "goroutine profile: total {}", snapshot.tasks.len());
    for (key, sum) in &groups {
        group(&mut out, key, *sum);
    }
    out.into_bytes()
}

fn group(out: &mut String, key: &Key<'_>, sum: Sum) {
    let frames = key.stack.map_or(&[][..], |stack| &stack.frames);
    let _ = write!(out, "{} @", sum.count);
    for frame in frames {
        let _ = write!(out, " {:#x}", frame.address);
    }
    // The place of the spawn has no address of its own.
    out.push_str(" 0x0\n# labels: {");
    for (index, (name, value)) in key.labels().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        let _ = write!(out, "{comma}{}:{}", quoted(name), quoted(&value));
    }
    out.push_str("}\n");
    for frame in frames {
        let _ = write!(out, "#\t{:#x}\t{}+0x0", frame.address, one_line(name(frame)));
        place(out, "\t", frame.location.as_ref());
        out.push('\n');
    }
    let origin =
        key.spawned_at.map_or_else(|| "task of unknown origin".to_owned(), pprof::spawned_at);
    let _ = write!(out, "#\t0x0\t{}", one_line(&origin));
    place(out, "\t", key.spawned_at);
    out.push_str("\n\n");
}

fn name(frame: &Frame) -> &str {
    if frame.function_full.is_empty() { &frame.function } else { &frame.function_full }
}

fn place(out: &mut String, before: &str, place: Option<&Location>) {
    if let Some(place) = place {
        let _ = write!(out, "{before}{}:{}", one_line(&place.file), place.line);
    }
}

/// JSON strings are close enough to Go's `%q`.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// A name with a line break in it must not look like another frame.
fn one_line(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains(char::is_control) {
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>().into()
    } else {
        text.into()
    }
}

/// `debug=2`: every task, in the order of their ids; never cut.
pub struct Debug2 {
    shot: Shot,
    next: usize,
    blocked: HashSet<TaskId>,
    scratch: String,
}

impl Debug2 {
    /// The dump of this snapshot.
    pub fn new(shot: Shot) -> Self {
        let blocked = shot
            .blocked
            .iter()
            .filter(|blocked| blocked.ongoing)
            .filter_map(|blocked| blocked.task)
            .collect();
        Self { shot, next: 0, blocked, scratch: String::new() }
    }

    fn block(&mut self, task: &Task) {
        let out = &mut self.scratch;
        let _ = write!(out, "goroutine {} [{}", task.id, state(task));
        if task.state_ns > 0 && task.state != TaskState::Unknown {
            let _ = write!(out, ", {}", human_duration(task.state_ns));
        }
        if self.blocked.contains(&task.id) {
            out.push_str(", blocks its worker");
        }
        out.push(']');
        labels(out, task);
        out.push_str(":\n");
        match &task.stack {
            Some(stack) => frames(out, stack),
            None => no_stack(out, task),
        }
        if let Some(spawned_at) = task.spawned_at.as_deref() {
            out.push_str("created by tokio::spawn");
            if let Some(parent) = task.parent {
                let _ = write!(out, " in goroutine {parent}");
            }
            out.push('\n');
            place(out, "\t", Some(spawned_at));
            out.push('\n');
        }
    }
}

impl Chunks for Debug2 {
    fn next(&mut self, out: &mut Vec<u8>) -> bool {
        let shot = Shot::clone(&self.shot);
        let Some(task) = shot.tasks.get(self.next) else { return false };
        if self.next > 0 {
            out.push(b'\n');
        }
        self.next += 1;
        self.scratch.clear();
        self.block(task);
        let _ = out.write_all(self.scratch.as_bytes());
        self.next < shot.tasks.len()
    }
}

/// What it waits in, where known, as Go says `chan receive`.
fn state(task: &Task) -> &'static str {
    let Some(wait) = &task.wait else { return task.state.as_str() };
    match wait.kind {
        WaitKind::Unknown => task.state.as_str(),
        kind => kind.words(),
    }
}

fn labels(out: &mut String, task: &Task) {
    let labels = [("grpc.method", task.method.as_deref()), ("grpc.peer", task.peer.as_deref())];
    let mut before = " {";
    for (name, value) in labels {
        if let Some(value) = value {
            let _ = write!(out, "{before}{name}: ");
            if value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)) {
                out.push_str(value);
            } else {
                out.push_str(&quoted(value));
            }
            before = ", ";
        }
    }
    if before == ", " {
        out.push('}');
    }
}

fn frames(out: &mut String, stack: &Stack) {
    let len = stack.frames.len();
    for (index, frame) in stack.frames.iter().enumerate() {
        if len > 2 * ENDS && (ENDS..len - ENDS).contains(&index) {
            if index == ENDS {
                let _ = writeln!(out, "...{} frames elided...", len - 2 * ENDS);
            }
            continue;
        }
        let _ = writeln!(out, "{}(...)", one_line(name(frame)));
        match &frame.location {
            Some(_) => place(out, "\t", frame.location.as_ref()),
            None => out.push_str("\t?:0"),
        }
        if !frame.inlined && frame.address != 0 {
            let _ = write!(out, " {:#x}", frame.address);
        }
        out.push('\n');
    }
    if let Some(why) = &stack.truncated {
        let _ = writeln!(out, "...outer frames missing: {}...", one_line(why));
    }
}

/// As Go: `goroutine running on other thread; stack unavailable`.
fn no_stack(out: &mut String, task: &Task) {
    let _ = match (task.state, task.worker) {
        (TaskState::Running, Some(worker)) => {
            writeln!(out, "\ttask running on worker {worker}; stack unavailable")
        }
        (TaskState::Running, None) => writeln!(out, "\ttask running; stack unavailable"),
        (TaskState::Scheduled, _) => writeln!(out, "\ttask not polled yet; it has no stack"),
        _ => writeln!(out, "\ttask suspended; await chain unavailable"),
    };
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::sample;

    fn debug2(snapshot: Snapshot) -> String {
        let mut dump = Debug2::new(Arc::new(Box::new(snapshot)));
        let mut out = Vec::new();
        while dump.next(&mut out) {}
        String::from_utf8(out).unwrap()
    }

    fn golden(name: &str, actual: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("TASKPROF_REGENERATE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, actual).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            actual,
            expected,
            "{} differs; TASKPROF_REGENERATE=1 writes it anew",
            path.display()
        );
    }

    #[test]
    fn debug_1_is_as_checked_in() {
        golden(
            "goroutine.debug=1.txt",
            &String::from_utf8(debug1(&sample::busy_server())).unwrap(),
        );
    }

    #[test]
    fn debug_2_is_as_checked_in() {
        golden("goroutine.debug=2.txt", &debug2(sample::busy_server()));
    }

    #[test]
    fn every_task_is_in_the_dump() {
        let text = debug2(sample::crowd(5_000));
        let headers = text.lines().filter(|line| line.starts_with("goroutine ")).count();
        assert_eq!(headers, 5_000);
        assert_eq!(text.matches("\n\n").count(), 4_999);
        assert!(text.ends_with('\n') && !text.ends_with("\n\n"));
    }

    #[test]
    fn deep_stacks_are_elided_in_the_middle() {
        let mut snapshot = sample::empty();
        snapshot.tasks.push(sample::deep_task(201));
        let text = debug2(snapshot);
        assert!(text.contains(
            "deep::f49(...)\n\tsrc/deep.rs:50 0x1031\n...101 frames elided...\ndeep::f151(...)"
        ));
        assert_eq!(text.matches("(...)").count(), 100);
        let mut snapshot = sample::empty();
        snapshot.tasks.push(sample::deep_task(100));
        assert!(!debug2(snapshot).contains("elided"));
    }

    #[test]
    fn hostile_names_stay_on_their_line() {
        let mut snapshot = sample::busy_server();
        snapshot.tasks[0].method = Some("/a\n\ngoroutine 99 [running]:\n\"}".into());
        for text in [debug2(snapshot.clone()), String::from_utf8(debug1(&snapshot)).unwrap()] {
            assert!(!text.lines().any(|line| line.starts_with("goroutine 99")), "{text}");
        }
    }
}
