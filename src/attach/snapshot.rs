//! A snapshot from memory alone.

use std::collections::HashMap;
use std::sync::Arc;

use crate::inspect::image::Image;
use crate::inspect::join::{self, FIRST_STRANGER};
use crate::inspect::tasks::TasksRead;
use crate::model::{
    Counters, Coverage, History, Missing, Process, Reason, Runtime, RuntimeId, SCHEMA_VERSION,
    Snapshot, Stack, Task, TaskId, TaskState, Timestamp, Worker, WorkerState,
};

/// Native stacks of threads, and which task each polled.
#[derive(Debug, Default)]
pub struct Threads {
    /// Stacks of the tasks that were being polled.
    pub stacks: HashMap<TaskId, Arc<Stack>>,
    /// The threads that polled.
    pub workers: Vec<Worker>,
}

/// The snapshot of what was read.
pub fn of(process: Process, mut read: TasksRead, threads: Threads) -> Snapshot {
    let alive = read.alive();
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
    let mut workers = threads.workers;
    for worker in &mut workers {
        let of = |task: &&Task| Some(task.id) == worker.task;
        let of = tasks.iter().find(of).map(|task| task.runtime);
        // Of a task that has not been read nobody knows it; most have one runtime.
        let runtime = of.or_else(|| runtimes.first().map(|runtime| runtime.id));
        worker.runtime = runtime.unwrap_or(worker.runtime);
    }
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
        workers,
        blocked: Vec::new(),
        pauses: Vec::new(),
        endpoints: Vec::new(),
        connections: Vec::new(),
        streams: Vec::new(),
        ended_streams: Vec::new(),
        history: History::default(),
        tasks,
    }
}

/// The threads that poll, as workers.
pub fn threads(image: &Image, read: &TasksRead, native: &[(i32, Arc<Stack>)]) -> Threads {
    let mut threads = Threads::default();
    for (index, &(tid, task)) in read.polling.iter().enumerate() {
        let stack = native.iter().find(|(of, _)| *of == tid).map(|(_, stack)| stack.clone());
        if let Some(stack) = &stack {
            threads.stacks.insert(task, stack.clone());
        }
        let name = image.threads.iter().find(|thread| thread.tid == tid);
        threads.workers.push(Worker {
            runtime: RuntimeId(FIRST_STRANGER),
            index: u32::try_from(index).unwrap_or(u32::MAX),
            tid: tid.try_into().ok(),
            thread: name.map(|thread| thread.name.as_str().into()),
            state: WorkerState::Polling,
            state_ns: 0,
            task: Some(task),
            method: None,
            polls: None,
            busy_ns: 0,
            parks: 0,
            local_queue_depth: None,
            blocked: false,
            stack,
        });
    }
    threads
}
