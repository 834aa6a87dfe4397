//! Runtimes and their workers: those that the profiler was told of. The others
//! have nothing to count, and names that never come again.

use std::fmt::Display;

use super::{Out, seconds};
use crate::model::{Runtime, Snapshot, Worker};

/// Name, kind, help, and the figure if tokio tells it.
type Family = (&'static str, &'static str, &'static str, fn(&Runtime) -> Option<u64>);

/// A family each; absent, not zero, where tokio does not tell.
pub fn runtimes(out: &mut Out, snapshot: &Snapshot) {
    let watched: Vec<&Runtime> =
        snapshot.runtimes.iter().filter(|runtime| runtime.is_watched()).collect();
    let families: [Family; 5] = [
        ("taskprof_runtime_workers", "gauge", "Workers of a runtime.", |it| {
            Some(it.workers.into())
        }),
        (
            "taskprof_runtime_global_queue_depth",
            "gauge",
            "Tasks in the global queue of a runtime.",
            |it| Some(it.global_queue_depth),
        ),
        ("taskprof_runtime_blocking_threads", "gauge", "Threads of the blocking pool.", |it| {
            it.blocking_threads
        }),
        (
            "taskprof_runtime_blocking_queue_depth",
            "gauge",
            "Closures waiting for the pool.",
            |it| it.blocking_queue_depth,
        ),
        ("taskprof_runtime_polls_total", "counter", "Polls by all workers.", |it| it.polls),
    ];
    for (name, kind, help, of) in families {
        if watched.iter().any(|runtime| of(runtime).is_some()) {
            out.family(name, kind, help);
        }
        for runtime in &watched {
            if let Some(value) = of(runtime) {
                // Names are the program's own, and two may be the same.
                out.line(name, &[("runtime", &runtime.name), ("runtime_id", &runtime.id)], value);
            }
        }
    }
    workers(out, snapshot, &watched);
}

fn workers(out: &mut Out, snapshot: &Snapshot, watched: &[&Runtime]) {
    let workers = || {
        snapshot.workers.iter().filter_map(|worker| {
            let runtime = watched.iter().find(|runtime| runtime.id == worker.runtime)?;
            Some((*runtime, worker))
        })
    };
    let line = |out: &mut Out, name, (runtime, worker): (&Runtime, &Worker), value: f64| {
        let labels: [(&str, &dyn Display); 3] =
            [("runtime", &runtime.name), ("runtime_id", &runtime.id), ("worker", &worker.index)];
        out.line(name, &labels, value);
    };
    let name = "taskprof_worker_busy_seconds_total";
    if workers().next().is_some() {
        out.family(name, "counter", "Time a worker was busy.");
    }
    for of in workers() {
        line(out, name, of, seconds(of.1.busy_ns));
    }
    let name = "taskprof_worker_blocked_seconds";
    let observed = || workers().filter(|(_, worker)| worker.is_observed());
    if observed().next().is_some() {
        out.family(
            name,
            "gauge",
            "How long a worker has been inside a poll over the threshold; 0 if it is not.",
        );
    }
    for of in observed() {
        line(out, name, of, seconds(if of.1.blocked { of.1.state_ns } else { 0 }));
    }
}
