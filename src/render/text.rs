//! Go's text formats: `debug=1` (grouped, with labels) and `debug=2` (one
//! block per task), so that people and tools that read goroutine dumps read
//! these. Times are exact, Go's are minutes.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::Write as _;

use super::alike::{self, Key, Sum};
use super::pprof::{self, Contention};
use super::{Chunks, Shot, not_seen};
use crate::model::{
    Branch, Frame, Held, Location, Snapshot, Stack, StreamId, Task, TaskId, TaskState, VerdictKind,
    Wait, WaitKind, human_duration,
};

/// Frames shown at each end of a deep stack, as in Go.
const ENDS: usize = 50;
/// Holders named of one resource; a semaphore may have thousands.
const HOLDERS: usize = 8;

/// `debug=1`
pub fn debug1(which: pprof::Tasks, snapshot: &Snapshot) -> Vec<u8> {
    let groups = alike::sorted(alike::sums(snapshot));
    let mut out = String::with_capacity(512 * (groups.len() + 1));
    let _ = writeln!(out, "{} profile: total {}", which.profile(), snapshot.tasks.len());
    comments(&mut out, snapshot);
    for (key, sum) in &groups {
        group(&mut out, key, *sum);
    }
    out.into_bytes()
}

/// `block?debug=1` and `mutex?debug=1`, as Go has them; cycles are nanoseconds.
pub fn contention1(which: Contention, snapshot: &Snapshot) -> Vec<u8> {
    let mut out = String::from(match which {
        Contention::Block => "--- contention:\ncycles/second=1000000000\n",
        Contention::Mutex => "--- mutex:\ncycles/second=1000000000\nsampling period=1\n",
    });
    comments(&mut out, snapshot);
    for (key, sum) in &pprof::contentions(which, snapshot) {
        let _ = write!(out, "{} ", sum.wait_ns);
        group(&mut out, key, *sum);
    }
    out.into_bytes()
}

/// What is not seen. Go's readers skip such lines, but not before the first.
fn comments(out: &mut String, snapshot: &Snapshot) {
    for missing in not_seen(snapshot) {
        let _ = writeln!(out, "# not seen: {}", one_line(&missing));
    }
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
    let origin = match key.spawned_at {
        Some(place) => pprof::spawned_at(place),
        None if key.wait.is_some() && key.stack.is_none() => pprof::UNSEEN.to_owned(),
        None => "task of unknown origin".to_owned(),
    };
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

/// `debug=2`: every task, in the order of their ids; never cut. Last come lines
/// on what is not seen: so every block begins with the header of a task.
pub struct Debug2 {
    shot: Shot,
    next: usize,
    /// Whether to say what is not seen.
    coverage: bool,
    blocked: HashSet<TaskId>,
    stuck: HashMap<StreamId, VerdictKind>,
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
        Self {
            shot,
            next: 0,
            coverage: true,
            blocked,
            stuck: HashMap::new(),
            scratch: String::new(),
        }
    }

    /// Names in the header of a task what holds its stream up, of those that
    /// are in this table.
    pub fn stuck(self, stuck: HashMap<StreamId, VerdictKind>) -> Self {
        Self { stuck, ..self }
    }

    /// Leaves out what is not seen, for who says it elsewhere.
    #[cfg(feature = "cli")]
    pub fn without_coverage(self) -> Self {
        Self { coverage: false, ..self }
    }

    fn block(&mut self, task: &Task) {
        let out = &mut self.scratch;
        let _ = write!(out, "goroutine {} [{}", task.id, state(task));
        lasted(out, task);
        if self.blocked.contains(&task.id) {
            out.push_str(", blocks its worker");
        }
        out.push(']');
        let verdict = task.stream.and_then(|stream| self.stuck.get(&stream));
        labels(out, task, verdict.copied());
        out.push_str(":\n");
        if let Some(wait) = task.wait.as_ref() {
            waits_for(out, wait);
        }
        match &task.stack {
            Some(stack) => frames(out, stack),
            None => no_stack(out, task),
        }
        for branch in &task.branches {
            other(out, branch);
        }
        for held in &task.holds {
            holds(out, held);
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
        self.scratch.clear();
        if let Some(task) = shot.tasks.get(self.next) {
            if self.next > 0 {
                out.push(b'\n');
            }
            self.block(task);
        }
        self.next += 1;
        let more = self.next < shot.tasks.len();
        if !more && self.coverage {
            for missing in not_seen(&shot) {
                let _ = writeln!(self.scratch, "...not seen: {}...", one_line(&missing));
            }
        }
        let _ = out.write_all(self.scratch.as_bytes());
        more
    }
}

/// What it waits in, where known, as Go says `chan receive`.
fn state(task: &Task) -> &'static str {
    task.waits_for().map_or(task.state.as_str(), WaitKind::words)
}

fn lasted(out: &mut String, task: &Task) {
    let waits = task.waits_for().is_some();
    let at_least = task.wait.as_ref().is_some_and(|wait| wait.lower_bound && wait.wait_ns > 0);
    let ns = task.waited_ns();
    if ns > 0 && (waits || task.state != TaskState::Unknown) {
        let bound = if waits && at_least { "at least " } else { "" };
        let _ = write!(out, ", {bound}{}", human_duration(ns));
    }
}

/// Which one, and who has it.
fn waits_for(out: &mut String, wait: &Wait) {
    let mut said = Vec::new();
    said.extend(wait.resource.map(|resource| format!("on {resource}")));
    said.extend(wait.task.map(|task| format!("on goroutine {task}")));
    said.extend(wait.stream.map(|stream| format!("on gRPC stream {stream}")));
    said.extend(wait.fd.map(|fd| format!("on fd {fd}")));
    said.extend(wait.detail.as_deref().map(|detail| one_line(detail).into_owned()));
    said.extend(wait.deadline_in_ns.map(deadline));
    said.extend(wait.queue.map(|queue| format!("{queue} in its queue")));
    if !said.is_empty() {
        let _ = writeln!(out, "\t{}", said.join(", "));
    }
    for holder in wait.holders.iter().take(HOLDERS) {
        let _ = write!(out, "\theld by goroutine {}", holder.task);
        local(out, holder.local.as_deref(), None, holder.location.as_ref());
    }
    if wait.holders.len() > HOLDERS {
        let _ = writeln!(out, "\theld by {} more", wait.holders.len() - HOLDERS);
    }
}

fn deadline(ns: i64) -> String {
    let span = human_duration(ns.unsigned_abs());
    if ns < 0 { format!("due {span} ago") } else { format!("due in {span}") }
}

/// Ends the line with where a guard lives.
fn local(out: &mut String, name: Option<&str>, function: Option<&str>, at: Option<&Location>) {
    if let Some(name) = name {
        let _ = write!(out, ": {}", one_line(name));
    }
    if let Some(function) = function {
        let _ = write!(out, " in {}", one_line(function));
    }
    place(out, " at ", at);
    out.push('\n');
}

/// A branch of a `select!` or `join!`, or a future that is kept.
fn other(out: &mut String, branch: &Branch) {
    out.push_str(if branch.dormant { "kept but not polled" } else { "also awaiting" });
    if let Some(wait) = branch.wait.as_ref() {
        let _ = write!(out, " [{}]", wait.kind.words());
    }
    out.push_str(":\n");
    if let Some(wait) = branch.wait.as_ref() {
        waits_for(out, wait);
    }
    frames(out, &branch.stack);
}

fn holds(out: &mut String, held: &Held) {
    let _ = write!(out, "holds {} {}", held.kind.words(), held.resource);
    if let Some(messages) = held.backlog {
        let _ = write!(out, ", {messages} messages in it");
    }
    if held.perhaps_dropped {
        out.push_str(", perhaps dropped");
    }
    if held.dormant {
        out.push_str(" in a future that is not polled");
    }
    local(out, held.local.as_deref(), held.function.as_deref(), held.location.as_ref());
}

fn labels(out: &mut String, task: &Task, verdict: Option<VerdictKind>) {
    let stream = task.stream.filter(|_| verdict.is_some()).map(|stream| stream.to_string());
    let labels = [
        ("grpc.method", task.method.as_deref()),
        ("grpc.peer", task.peer.as_deref()),
        ("grpc.stream", stream.as_deref()),
        ("grpc.verdict", verdict.map(VerdictKind::as_str)),
    ];
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
    if !stack.or_one_of.is_empty() {
        let _ = writeln!(out, "...or one of: {}...", one_line(&stack.or_one_of.join(", ")));
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
            &String::from_utf8(debug1(pprof::Tasks::Live, &sample::busy_server())).unwrap(),
        );
    }

    #[test]
    fn debug_2_is_as_checked_in() {
        golden("goroutine.debug=2.txt", &debug2(sample::busy_server()));
    }

    #[test]
    fn the_verdict_on_a_stream_stands_in_the_headers_of_its_tasks() {
        let stuck = HashMap::from([(StreamId(1), VerdictKind::PeerNotReading)]);
        let mut dump = Debug2::new(Arc::new(Box::new(sample::busy_server()))).stuck(stuck);
        let mut out = Vec::new();
        while dump.next(&mut out) {}
        let text = String::from_utf8(out).unwrap();
        let told = "grpc.stream: 1, grpc.verdict: peer_not_reading}:";
        assert_eq!(text.lines().filter(|line| line.ends_with(told)).count(), 4);
        assert_eq!(text.matches("grpc.verdict").count(), 4, "nothing on stream 2");
    }

    #[test]
    fn waits_and_holders_are_as_checked_in() {
        let mut snapshot = sample::stuck_server();
        let mut merged = (**snapshot.tasks[2].stack.as_ref().unwrap()).clone();
        merged.or_one_of = vec!["audit::write_all".into()];
        snapshot.tasks[2].stack = Some(merged.into());
        snapshot.tasks[4].wait.as_mut().unwrap().lower_bound = true;
        golden("stuck.debug=2.txt", &debug2(snapshot.clone()));
        golden(
            "stuck.debug=1.txt",
            &String::from_utf8(debug1(pprof::Tasks::Live, &snapshot)).unwrap(),
        );
        let mutex = contention1(Contention::Mutex, &snapshot);
        golden("stuck.mutex.debug=1.txt", &String::from_utf8(mutex).unwrap());
    }

    #[test]
    fn what_is_not_seen_is_said_where_no_reader_trips_over_it() {
        let snapshot = sample::busy_server();
        let grouped = String::from_utf8(debug1(pprof::Tasks::Live, &snapshot)).unwrap();
        let said = "not seen: 5 suspended tasks: their await chains are not read (5)";
        assert_eq!(grouped.lines().nth(1), Some(&*format!("# {said}")));
        for which in [Contention::Block, Contention::Mutex] {
            let text = String::from_utf8(contention1(which, &snapshot)).unwrap();
            assert!(text.lines().any(|line| line == format!("# {said}")), "{text}");
        }
        let full = debug2(snapshot.clone());
        assert_eq!(full.lines().last(), Some(&*format!("...{said}...")));
        assert!(full.split("\n\n").all(|block| block.starts_with("goroutine ")), "{full}");
        let nobody = Snapshot { tasks: Vec::new(), ..snapshot };
        assert_eq!(debug2(nobody), format!("...{said}...\n"));
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
        for text in [
            debug2(snapshot.clone()),
            String::from_utf8(debug1(pprof::Tasks::Live, &snapshot)).unwrap(),
        ] {
            assert!(!text.lines().any(|line| line.starts_with("goroutine 99")), "{text}");
        }
    }
}
