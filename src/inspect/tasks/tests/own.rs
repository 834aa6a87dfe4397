//! Tasks of this very process, read.

use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

pub use crate::inspect::tasks::parked::{image, layouts};
use crate::inspect::tasks::{Limits, Roots, TaskRead, TasksRead, read};
use crate::model::{TaskId, TaskState};

pub fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub fn id<T>(handle: &JoinHandle<T>) -> TaskId {
    TaskId(handle.id().to_string().parse().unwrap())
}

pub fn task(read: &TasksRead, id: TaskId) -> &TaskRead {
    read.tasks.iter().find(|task| task.id == id).expect("the task")
}

/// Reads what `handle` leads to until all of it is at rest.
pub fn at_rest(handles: &[&Handle], search: bool) -> TasksRead {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let roots = Roots {
            handles: handles.iter().map(|handle| std::ptr::from_ref(*handle) as u64).collect(),
            search,
            strays: Vec::new(),
            process: Some(std::process::id()),
            monotonic_ns: Some(crate::sys::clock::monotonic_ns()),
        };
        let read = read(&mut image(), &mut *layouts(), &roots, &Limits::default()).unwrap();
        let alive = handles.iter().map(|handle| handle.metrics().num_alive_tasks()).sum::<usize>();
        let rest = read.tasks.iter().filter(|task| task.state == TaskState::Idle).count();
        if (rest == read.tasks.len() && rest >= alive) || Instant::now() > deadline {
            return read;
        }
        std::thread::yield_now();
    }
}

/// The line of a source that ends in the comment `//@marker`.
pub fn line_of(source: &str, marker: &str) -> u32 {
    let comment = format!("//@{marker}");
    let mut lines = source.lines().zip(1..).filter(|(line, _)| line.ends_with(&comment));
    let (_, line) = lines.next().unwrap_or_else(|| panic!("no {marker}"));
    assert!(lines.next().is_none(), "{marker} twice");
    line
}

/// The line below the comment `//@marker`, which stands alone.
pub fn line_below(source: &str, marker: &str) -> u32 {
    line_of(source, marker) + 1
}

/// `function:line` of the program's own frames, innermost first.
pub fn user_frames(task: &TaskRead) -> Vec<String> {
    let stack = task.stack.as_ref().expect("a stack");
    stack
        .frames
        .iter()
        .filter(|frame| frame.kind == crate::model::FrameKind::User)
        .map(|frame| {
            let line = frame.location.as_ref().map_or(0, |location| location.line);
            format!("{}:{line}", frame.function)
        })
        .collect()
}

/// For a failing test: everything.
pub fn show(task: &TaskRead) -> String {
    use std::fmt::Write as _;
    let mut text = format!("task {} {:?}\n", task.id, task.state);
    let frames = |text: &mut String, stack: &crate::model::Stack| {
        for frame in &stack.frames {
            let _ = writeln!(
                text,
                "    {:?} {} | {} at {:?}",
                frame.kind,
                frame.function,
                frame.function_full,
                frame.location.as_ref().map(ToString::to_string)
            );
        }
        if let Some(cut) = &stack.truncated {
            let _ = writeln!(text, "    cut: {cut}");
        }
    };
    if let Some(stack) = &task.stack {
        frames(&mut text, stack);
    }
    let _ = writeln!(text, "  wait {:?}", task.wait);
    for branch in &task.branches {
        let _ = writeln!(text, "  branch dormant={} wait {:?}", branch.dormant, branch.wait);
        frames(&mut text, &branch.stack);
    }
    for held in &task.holds {
        let _ = writeln!(text, "  holds {held:?}");
    }
    text
}
