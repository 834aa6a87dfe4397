//! A snapshot from memory alone.

use std::collections::HashMap;
use std::sync::Arc;

use crate::inspect::image::Image;
use crate::inspect::join;
use crate::inspect::tasks::TasksRead;
use crate::model::{
    Counters, Coverage, History, Missing, Process, Reason, Runtime, SCHEMA_VERSION, Snapshot,
    Stack, Task, TaskId, TaskState, Timestamp, Worker,
};

/// Native stacks of threads, and which task each polled.
pub struct Threads {
    /// Stacks of the tasks that were being polled.
    pub stacks: HashMap<TaskId, Arc<Stack>>,
    /// The threads that polled.
    pub workers: Vec<Worker>,
}

/// The snapshot of what was read.
pub fn of(process: Process, mut read: TasksRead, threads: Threads) -> Snapshot {
    let alive: u64 = read.owners.iter().map(|owner| owner.alive).sum();
    let mut missing = std::mem::take(&mut read.missing);
    let joined = join::join(Vec::new(), read, &HashMap::new());
    let runtimes: Vec<Runtime> =
        joined.strangers.iter().map(|(id, owner)| join::runtime(*id, owner)).collect();
    let mut tasks = joined.tasks;
    for task in tasks.iter_mut().filter(|task| task.state == TaskState::Running) {
        task.stack = threads.stacks.get(&task.id).cloned();
    }
    let count = |wanted: fn(&Task) -> bool| tasks.iter().filter(|task| wanted(task)).count() as u64;
    let running = count(|task| task.state == TaskState::Running);
    let no_native = count(|task| task.state == TaskState::Running && task.stack.is_none());
    let with_stack = count(|task| task.stack.is_some());
    let listed = tasks.len() as u64;
    let mut say = |reason, count, detail: &str| {
        missing.push(Missing { reason, count, detail: detail.to_owned() });
    };
    if alive > listed {
        say(Reason::Torn, alive - listed, "began or ended in the instant of the image");
    }
    if no_native > 0 {
        say(
            Reason::NoNativeStack,
            no_native,
            "running, but the stack of its thread could not be read",
        );
    }
    say(
        Reason::NoHook,
        0,
        "the root future of block_on, and closures of spawn_blocking: in no list of tokio's",
    );
    Snapshot {
        schema: SCHEMA_VERSION,
        taken_at: Timestamp::now(),
        process,
        coverage: Coverage {
            alive: alive.max(listed),
            listed,
            with_stack,
            running,
            missing,
            dropped: 0,
        },
        counters: Counters::default(),
        blocked_threshold_ns: 0,
        runtimes,
        workers: threads.workers,
        blocked: Vec::new(),
        pauses: Vec::new(),
        connections: Vec::new(),
        streams: Vec::new(),
        ended_streams: Vec::new(),
        history: History::default(),
        tasks,
    }
}

/// The threads that poll.
pub fn threads(_image: &mut Image, _polling: &[(i32, TaskId)]) -> Threads {
    Threads { stacks: HashMap::new(), workers: Vec::new() }
}
