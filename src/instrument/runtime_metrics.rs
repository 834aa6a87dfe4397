//! What runtimes say of themselves, through tokio-metrics and tokio's own counters.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio_metrics::{RuntimeIntervals, RuntimeMonitor};

use crate::model::{Flavor, Runtime, RuntimeId, Worker, WorkerState};
use crate::registry::workers::RuntimeCell;

/// Totals since the runtime's start. tokio-metrics gives differences between two
/// looks; what came before the first is in tokio's own counters.
struct Totals {
    intervals: RuntimeIntervals,
    parks: u64,
    busy_ns: u64,
    #[cfg(tokio_unstable)]
    polls: u64,
    #[cfg(tokio_unstable)]
    steals: u64,
    #[cfg(tokio_unstable)]
    budget_forced_yields: u64,
    #[cfg(tokio_unstable)]
    mean_poll_ns: u64,
}

impl Totals {
    fn new(handle: &Handle) -> Self {
        let metrics = handle.metrics();
        let sum = |of: &dyn Fn(usize) -> u64| (0..metrics.num_workers()).map(of).sum();
        Self {
            parks: sum(&|worker| metrics.worker_park_count(worker)),
            busy_ns: sum(&|worker| metrics.worker_total_busy_duration(worker).as_nanos() as u64),
            #[cfg(tokio_unstable)]
            polls: sum(&|worker| metrics.worker_poll_count(worker)),
            #[cfg(tokio_unstable)]
            steals: sum(&|worker| metrics.worker_steal_count(worker)),
            #[cfg(tokio_unstable)]
            budget_forced_yields: metrics.budget_forced_yield_count(),
            #[cfg(tokio_unstable)]
            mean_poll_ns: 0,
            // Last: nothing is counted twice, and next to nothing is missed.
            intervals: RuntimeMonitor::new(handle).intervals(),
        }
    }

    fn step(&mut self) {
        let Some(metrics) = self.intervals.next() else { return };
        self.parks += metrics.total_park_count;
        self.busy_ns += metrics.total_busy_duration.as_nanos() as u64;
        #[cfg(tokio_unstable)]
        {
            self.polls += metrics.total_polls_count;
            self.steals += metrics.total_steal_count;
            self.budget_forced_yields += metrics.budget_forced_yield_count;
            self.mean_poll_ns = metrics.mean_poll_duration.as_nanos() as u64;
        }
    }
}

/// Reads the figures of runtimes.
#[derive(Default)]
pub struct RuntimeFigures {
    totals: Mutex<HashMap<u8, Totals>>,
}

impl std::fmt::Debug for RuntimeFigures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeFigures").finish_non_exhaustive()
    }
}

impl RuntimeFigures {
    /// The totals of a runtime, brought up to now.
    fn totals<T>(&self, number: u8, handle: &Handle, read: impl FnOnce(&Totals) -> T) -> T {
        let mut all = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let totals = all.entry(number).or_insert_with(|| Totals::new(handle));
        totals.step();
        read(totals)
    }

    /// Forgets runtimes that are not listed any more.
    pub fn keep_only(&self, runtimes: &[std::sync::Arc<RuntimeCell>]) {
        let mut all = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|number, _| runtimes.iter().any(|runtime| runtime.number == *number));
    }

    /// A runtime as it stands; none before it has shown itself.
    pub fn read(&self, runtime: &RuntimeCell) -> Option<Runtime> {
        let handle = runtime.handle()?;
        let metrics = handle.metrics();
        let read = |totals: &Totals| Runtime {
            id: RuntimeId(runtime.number.into()),
            name: runtime.name.clone(),
            flavor: match handle.runtime_flavor() {
                RuntimeFlavor::CurrentThread => Flavor::CurrentThread,
                RuntimeFlavor::MultiThread => Flavor::MultiThread,
                _ => Flavor::Other,
            },
            workers: metrics.num_workers() as u32,
            alive_tasks: metrics.num_alive_tasks() as u64,
            global_queue_depth: metrics.global_queue_depth() as u64,
            busy_ns: totals.busy_ns,
            parks: totals.parks,
            #[cfg(tokio_unstable)]
            spawned_tasks: Some(metrics.spawned_tasks_count()),
            #[cfg(tokio_unstable)]
            blocking_threads: Some(metrics.num_blocking_threads() as u64),
            #[cfg(tokio_unstable)]
            idle_blocking_threads: Some(metrics.num_idle_blocking_threads() as u64),
            #[cfg(tokio_unstable)]
            blocking_queue_depth: Some(metrics.blocking_queue_depth() as u64),
            #[cfg(tokio_unstable)]
            polls: Some(totals.polls),
            #[cfg(tokio_unstable)]
            steals: Some(totals.steals),
            #[cfg(tokio_unstable)]
            budget_forced_yields: Some(totals.budget_forced_yields),
            #[cfg(tokio_unstable)]
            mean_poll_ns: Some(totals.mean_poll_ns),
            #[cfg(not(tokio_unstable))]
            spawned_tasks: None,
            #[cfg(not(tokio_unstable))]
            blocking_threads: None,
            #[cfg(not(tokio_unstable))]
            idle_blocking_threads: None,
            #[cfg(not(tokio_unstable))]
            blocking_queue_depth: None,
            #[cfg(not(tokio_unstable))]
            polls: None,
            #[cfg(not(tokio_unstable))]
            steals: None,
            #[cfg(not(tokio_unstable))]
            budget_forced_yields: None,
            #[cfg(not(tokio_unstable))]
            mean_poll_ns: None,
        };
        Some(self.totals(runtime.number, handle, read))
    }
}

/// The workers of a runtime, without what only others know: the method of the
/// task, whether it counts as blocked, the stack.
pub fn workers(runtime: &RuntimeCell, now: u64) -> Vec<Worker> {
    let Some(handle) = runtime.handle() else { return Vec::new() };
    let metrics = handle.metrics();
    let cells = runtime.workers().enumerate();
    cells
        .map(|(index, cell)| {
            let at = cell.now();
            let state = match at {
                _ if at.poll_began != 0 => WorkerState::Polling,
                _ if at.tid == 0 => WorkerState::Unknown,
                _ if at.parked => WorkerState::Parked,
                _ if runtime.hooked => WorkerState::Searching,
                // Awake; whether in a poll, nobody told.
                _ => WorkerState::Unknown,
            };
            Worker {
                runtime: RuntimeId(runtime.number.into()),
                index: index as u32,
                tid: (at.tid != 0).then_some(at.tid),
                thread: None,
                state,
                state_ns: at.state_ns(now),
                task: (at.poll_began != 0).then_some(crate::model::TaskId(at.task)),
                method: None,
                polls: runtime.hooked.then_some(at.polls),
                busy_ns: metrics.worker_total_busy_duration(index).as_nanos() as u64,
                parks: metrics.worker_park_count(index),
                #[cfg(tokio_unstable)]
                local_queue_depth: Some(metrics.worker_local_queue_depth(index) as u64),
                #[cfg(not(tokio_unstable))]
                local_queue_depth: None,
                blocked: false,
                stack: None,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::workers::Runtimes;

    #[test]
    fn a_late_first_look_counts_from_the_runtimes_start() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let metrics = runtime.metrics();
        let parks = || -> u64 { (0..2).map(|worker| metrics.worker_park_count(worker)).sum() };
        let begun = std::time::Instant::now();
        while parks() < 5 {
            assert!(begun.elapsed().as_secs() < 20, "{} parks", parks());
            runtime.block_on(runtime.spawn(tokio::task::yield_now())).unwrap();
        }
        let (parks, busy) = (parks(), metrics.worker_total_busy_duration(0).as_nanos() as u64);
        let cell = Runtimes::default().register("late", false, Some(runtime.handle().clone()));
        let seen = RuntimeFigures::default().read(&cell).unwrap();
        assert!(seen.parks >= parks, "{} parks of {parks}", seen.parks);
        assert!(seen.busy_ns >= busy, "{} ns of {busy}", seen.busy_ns);
        #[cfg(tokio_unstable)]
        assert!(seen.polls > Some(0), "{:?}", seen.polls);
    }

    #[test]
    fn no_polls_are_counted_where_no_hook_tells_them() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let runtimes = Runtimes::default();
        for hooked in [false, true] {
            let cell = runtimes.register("main", hooked, Some(runtime.handle().clone()));
            assert_eq!(workers(&cell, 0)[0].is_observed(), hooked);
        }
    }
}
