//! How a snapshot of this process is put together.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::Core;
use super::awaits::{OPENING, OPENING_BUSY, STILL_READING};
use crate::inspect::join;
use crate::instrument::runtime_metrics;
use crate::model::{
    Blocked, Counters, Coverage, History, Missing, Pause, Process, Reason, Runtime, RuntimeId,
    SCHEMA_VERSION, Snapshot, Stack, Task, TaskId, TaskState, Timestamp, Wait, WaitKind, Worker,
    WorkerState,
};
use crate::registry::blocked::{Episode, PauseSpan, running_ns};
use crate::registry::clock;
use crate::registry::workers::RuntimeCell;
use crate::serve::Want;
use crate::sys::thread;

/// Stacks of running tasks taken for one snapshot: one a worker, and a machine
/// with more workers than this is answered with a count of what is missing.
const MAX_STACKS: usize = 256;

/// What was there and is not in the snapshot.
struct Lost {
    /// Tasks that changed while they were read.
    torn: u64,
    /// Running tasks without a stack.
    no_stack: u64,
    /// There are stacks that have no names yet.
    unnamed: bool,
    /// Streams that the table had no room for, since the start.
    untracked: u64,
    /// Of those, live.
    untracked_live: u64,
    /// Live streams whose frames are not seen.
    untapped: u64,
    /// Streams whose method has no name of its own, since the start.
    nameless: u64,
    /// What became of the await chains.
    chains: Chains,
}

/// What became of the await chains.
enum Chains {
    NotAsked,
    Unread(Reason, String),
    /// They were read; what the reader missed, and how many tasks the runtimes
    /// themselves counted in that instant.
    Read {
        missing: Vec<Missing>,
        alive: u64,
    },
}

fn lacks_native(task: &Task) -> bool {
    task.state == TaskState::Running && task.stack.is_none()
}

impl Core {
    pub(super) fn process_now(&self) -> Process {
        Process { uptime_ns: clock::delta_ns(self.started, clock::now()), ..self.process.clone() }
    }

    /// Takes a snapshot: tables are copied one after the other, each in one
    /// short look, nothing is stopped, and ages are relative to one instant.
    pub(super) fn take(&self, want: Want) -> Snapshot {
        let registry = &self.registry;
        let cells = registry.runtimes.list();
        self.figures.keep_only(&cells);
        let alive_before = alive(&cells);

        let taken_at = Timestamp::now();
        let now = clock::now();
        let streams = registry.streams.snapshot(now);
        let (mut tasks, torn) =
            if want.tasks { registry.tasks.snapshot(now) } else { (Vec::new(), 0) };
        let mut runtimes: Vec<Runtime> =
            cells.iter().filter_map(|cell| self.figures.read(cell)).collect();
        let mut workers: Vec<Worker> =
            cells.iter().flat_map(|cell| runtime_metrics::workers(cell, now)).collect();
        let alive_after = alive(&cells);

        let (ongoing, recent, pauses) = registry.blocked.all();
        let unlogged = registry.blocked.unlogged();
        for worker in &mut workers {
            worker.thread = worker.tid.and_then(thread::name).map(Into::into);
            worker.method =
                worker.task.and_then(|id| registry.tasks.get(id, now)).and_then(|task| task.method);
            worker.blocked = ongoing.iter().any(|episode| {
                RuntimeId(episode.runtime.into()) == worker.runtime
                    && episode.worker == worker.index
            });
            // Of those without an episode nothing else is known.
            worker.blocked |= unlogged > 0
                && worker.state == WorkerState::Polling
                && worker.state_ns >= registry.blocked_threshold.as_nanos() as u64;
        }
        let busy = workers.iter().all(|worker| worker.state == WorkerState::Polling);
        let until = Instant::now() + if busy { OPENING_BUSY } else { OPENING };
        let unnamed = want.stacks && self.add_stacks(&cells, &mut workers, &mut tasks, until);
        let totals = registry.tasks.totals();
        let mut chains = Chains::NotAsked;
        if want.tasks && want.stacks {
            (tasks, chains) = self.add_chains(&cells, tasks, &mut runtimes, until);
            let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
            since.observe(clock::delta_ns(self.started, now), &mut tasks);
        }
        let listed = if want.tasks {
            tasks.len() as u64
        } else {
            totals.spawned.saturating_sub(totals.ended + totals.dropped)
        };
        let no_stack = tasks.iter().filter(|task| lacks_native(task)).count() as u64;
        let mut coverage = Coverage {
            alive: match chains {
                Chains::Read { alive, .. } => alive,
                // Tasks come and go between the two counts; what was listed is
                // complete if it lies between them.
                _ => listed.clamp(alive_before.min(alive_after), alive_before.max(alive_after)),
            },
            listed,
            with_stack: tasks.iter().filter(|task| task.stack.is_some()).count() as u64,
            running: tasks.iter().filter(|task| task.state == TaskState::Running).count() as u64,
            missing: Vec::new(),
            dropped: totals.dropped + streams.untracked,
        };
        let untapped = streams.live.iter().filter(|stream| stream.wire.is_none()).count() as u64;
        let (untracked, untracked_live) = (streams.untracked, streams.untracked_live);
        let nameless = streams.unnamed;
        let lost =
            Lost { torn, no_stack, unnamed, untracked, untracked_live, untapped, nameless, chains };
        coverage.missing = self.missing(&cells, &runtimes, &coverage, &lost);
        if !want.tasks {
            coverage.running =
                workers.iter().filter(|worker| worker.state == WorkerState::Polling).count() as u64;
        }

        let (spans_exported, spans_failed, spans_dropped) = registry.streams.spans.totals();
        let (blocked_polls, pauses_total) = registry.blocked.totals();
        let mut snapshot = Snapshot {
            schema: SCHEMA_VERSION,
            taken_at,
            process: self.process_now(),
            counters: Counters {
                tasks_spawned: totals.spawned,
                tasks_ended: totals.ended,
                tasks_dropped: totals.dropped,
                blocking_ended: totals.unknown_ended,
                streams_started: streams.started,
                streams_ended: streams.ended_total,
                streams_dropped: streams.untracked,
                spans_exported,
                spans_failed,
                spans_dropped,
                blocked_polls,
                pauses: pauses_total,
                profiler_panics: self.panics(),
            },
            coverage,
            blocked_threshold_ns: registry.blocked_threshold.as_nanos() as u64,
            runtimes,
            workers,
            blocked: ongoing
                .into_iter()
                .chain(recent)
                .map(|episode| blocked(episode, &pauses, now))
                .collect(),
            pauses: pauses
                .iter()
                .map(|span| Pause {
                    paused_ns: clock::delta_ns(span.from, span.to),
                    ended_ago_ns: clock::delta_ns(span.to, now),
                })
                .collect(),
            endpoints: registry.endpoints.snapshot(now),
            connections: registry.connections.snapshot(now, &streams.live),
            streams: streams.live,
            ended_streams: streams.ended,
            history: History::default(),
            tasks,
        };
        if want.tasks && want.stacks {
            let mut trend = self.trend.lock().unwrap_or_else(PoisonError::into_inner);
            snapshot.history = trend.observe(&snapshot);
        }
        snapshot
    }

    /// Reads what every task awaits and joins it with what the hooks know.
    fn add_chains(
        &self,
        cells: &[Arc<RuntimeCell>],
        tasks: Vec<Task>,
        runtimes: &mut Vec<Runtime>,
        until: Instant,
    ) -> (Vec<Task>, Chains) {
        let (ids, handles): (Vec<_>, Vec<_>) = cells
            .iter()
            .filter_map(|cell| Some((RuntimeId(cell.number.into()), cell.handle()?)))
            .unzip();
        let mut read = match self.awaits.read(&handles, until) {
            Ok(read) => read,
            Err((reason, why)) => return (tasks, Chains::Unread(reason, why)),
        };
        if let (true, Some(missing)) = (read.owners.is_empty(), read.missing.first()) {
            return (tasks, Chains::Unread(missing.reason, missing.detail.clone()));
        }
        join::without_own(&mut read, &tasks);
        let mut alive = read.alive();
        let counted = read.owners.iter().all(|owner| owner.counted);
        let missing = std::mem::take(&mut read.missing);
        let owners = std::mem::take(&mut read.handles);
        let known: HashMap<u64, RuntimeId> =
            owners.into_iter().zip(ids).filter_map(|(owner, id)| Some((owner?, id))).collect();
        let mut joined = join::join(tasks, read, &known);
        for task in joined.tasks.iter_mut().filter(|task| task.unhooked) {
            // Begun after the hooks' list was copied and before the image.
            if let Some(born) = self.registry.tasks.get(task.id, clock::now()) {
                join::introduce(task, born);
            }
        }
        for task in joined.tasks.iter_mut().filter(|task| task.stream.is_some()) {
            // The requests that a stream's task awaits are of its own stream;
            // responses are of calls that it has made itself.
            let branches = task.branches.iter_mut().filter_map(|branch| branch.wait.as_mut());
            for wait in task.wait.iter_mut().chain(branches) {
                if wait.kind == WaitKind::GrpcMessage
                    && wait.detail.as_deref() == Some(Wait::OF_REQUEST)
                {
                    wait.about_mut().stream = task.stream;
                }
            }
        }
        runtimes.extend(joined.strangers.iter().map(|(id, owner)| join::runtime(*id, owner)));
        if !counted {
            // What a search did not find may be alive for all that.
            alive = alive.max(joined.tasks.len() as u64);
        }
        (joined.tasks, Chains::Read { missing, alive })
    }

    /// Takes the native stacks of workers that poll, and gives them to the
    /// tasks polled. Whether some were left out that had no names by then.
    fn add_stacks(
        &self,
        cells: &[Arc<RuntimeCell>],
        workers: &mut [Worker],
        tasks: &mut [Task],
        until: Instant,
    ) -> bool {
        let mut unnamed = false;
        let polling = workers.iter_mut().filter(|worker| worker.state == WorkerState::Polling);
        for (n, worker) in polling.enumerate() {
            let (Some(tid), Some(task)) = (worker.tid, worker.task) else { continue };
            let cell = cells
                .iter()
                .find(|cell| RuntimeId(cell.number.into()) == worker.runtime)
                .and_then(|cell| cell.worker(worker.index as usize));
            if n >= MAX_STACKS {
                break;
            }
            let Ok(captured) = self.stacks.capture(tid) else { continue };
            // A stack belongs to the task only if the worker still polls it.
            let still = cell.is_some_and(|cell| cell.now().task == task.0);
            if !still || captured.polled_task.is_some_and(|polled| polled != task) {
                continue;
            }
            match self.names.of(&captured.walk, until) {
                Ok(Some(stack)) => give(tasks, task, &stack, &mut worker.stack),
                Ok(None) => unnamed = true,
                Err(_) => {}
            }
        }
        unnamed
    }

    fn missing(
        &self,
        cells: &[Arc<RuntimeCell>],
        runtimes: &[Runtime],
        coverage: &Coverage,
        lost: &Lost,
    ) -> Vec<Missing> {
        let &Lost { torn, no_stack, unnamed, untracked, untracked_live, .. } = lost;
        let Lost { untapped, nameless, chains, .. } = lost;
        let mut missing = Vec::new();
        let mut say = |reason, count, detail: &str| {
            missing.push(Missing { reason, count, detail: detail.to_owned() });
        };
        let unlisted = coverage.alive.saturating_sub(coverage.listed + torn);
        let unhooked: u64 = cells
            .iter()
            .filter(|cell| !cell.hooked)
            .filter_map(|cell| cell.handle())
            .map(|handle| handle.metrics().num_alive_tasks() as u64)
            .sum();
        let read = matches!(chains, Chains::Read { .. });
        let mut rest = unlisted;
        if !cfg!(tokio_unstable) {
            let (count, detail) = match chains {
                Chains::NotAsked => (
                    unlisted,
                    "built without --cfg tokio_unstable: tokio has no task hooks, so polls, busy \
                     times and blocked workers are not seen, and tasks only where an answer reads \
                     them from memory",
                ),
                Chains::Unread(..) => (
                    unlisted,
                    "built without --cfg tokio_unstable: tokio has no task hooks, so tasks, polls \
                     and blocked workers are not seen, only the runtime's own counts",
                ),
                Chains::Read { .. } => (
                    0,
                    "built without --cfg tokio_unstable: tokio has no task hooks, so polls, busy \
                     times and blocked workers are not seen; tasks are read from memory",
                ),
            };
            rest -= count;
            say(Reason::NoTokioUnstable, count, detail);
        }
        let dropped = self.registry.tasks.totals().dropped;
        if dropped > 0 {
            // Since the start; most have ended, or were read from memory.
            let count = unlisted.saturating_sub(unhooked).min(dropped);
            rest -= count;
            say(
                Reason::RegistryFull,
                count,
                "spawned while the task table was full; raise max_tasks",
            );
        }
        if read {
            if rest > 0 {
                say(Reason::Torn, rest, "began or ended in the instant of the image");
            }
            say(
                Reason::NoHook,
                0,
                "the root future of block_on: neither hooked nor in any list of tokio's",
            );
        } else if cfg!(tokio_unstable) {
            say(
                Reason::NoHook,
                rest,
                "tasks of runtimes that were built without the hooks; besides, tokio neither \
                 hooks nor counts LocalSet tasks and the root future of block_on",
            );
        }
        let blocking: u64 = runtimes
            .iter()
            .map(|runtime| {
                let busy = |all: u64| all - runtime.idle_blocking_threads.unwrap_or(0).min(all);
                runtime.blocking_threads.map_or(0, busy) + runtime.blocking_queue_depth.unwrap_or(0)
            })
            .sum();
        if blocking > 0 {
            say(
                Reason::BlockingPool,
                blocking,
                "spawn_blocking closures running or queued: threads, not tasks",
            );
        }
        let refused = self.registry.runtimes.refused();
        if refused > 0 {
            say(
                Reason::RegistryFull,
                refused,
                "runtimes beyond the 254 that are told apart; their tasks are listed, their \
                 workers and counts are not",
            );
        }
        for (count, detail) in [
            (*nameless, "gRPC calls under (other): 4,096 names of methods are known already"),
            (
                self.registry.blocked.unlogged(),
                "blocked workers of which nothing else is told: more \
                                                than are kept track of",
            ),
            (
                cells.iter().map(|cell| cell.unobserved()).sum(),
                "workers beyond the 1,024 of a \
                                                                runtime that are watched",
            ),
        ] {
            if count > 0 {
                say(Reason::TableFull, count, detail);
            }
        }
        // A task whose cell was being written is in the image, or has ended.
        let all_read = read && coverage.listed >= coverage.alive;
        if torn > 0 && !all_read {
            say(Reason::Torn, torn, "began or ended while the table was read");
        }
        if no_stack > 0 {
            say(
                Reason::NoNativeStack,
                no_stack,
                if unnamed {
                    STILL_READING
                } else {
                    "running, but the thread's stack could not be taken"
                },
            );
        }
        let idle = coverage.listed.saturating_sub(coverage.with_stack + no_stack);
        match chains {
            Chains::NotAsked => {}
            Chains::Unread(reason, why) => say(*reason, idle, why),
            Chains::Read { missing, .. } => {
                for one in missing {
                    say(one.reason, one.count, &one.detail);
                }
            }
        }
        if *untapped > 0 {
            say(
                Reason::NoTap,
                *untapped,
                "live streams without windows, resets, pings and TCP figures: a plain layer sees \
                 no sockets; Profiler::serve and Profiler::connect do",
            );
        }
        if untracked > 0 {
            say(
                Reason::StreamsFull,
                untracked_live,
                "live streams, begun while the stream table was full; raise max_streams",
            );
        }
        missing
    }
}

fn alive(cells: &[Arc<RuntimeCell>]) -> u64 {
    cells
        .iter()
        .filter_map(|cell| cell.handle())
        .map(|handle| handle.metrics().num_alive_tasks() as u64)
        .sum()
}

/// Tasks are sorted by id.
fn give(tasks: &mut [Task], id: TaskId, stack: &Arc<Stack>, worker: &mut Option<Arc<Stack>>) {
    *worker = Some(stack.clone());
    if let Ok(at) = tasks.binary_search_by_key(&id, |task| task.id)
        && tasks[at].state == TaskState::Running
    {
        tasks[at].stack = Some(stack.clone());
    }
}

fn blocked(episode: Episode, pauses: &[PauseSpan], now: u64) -> Blocked {
    let ongoing = episode.ended == 0;
    let until = if ongoing { now } else { episode.ended };
    let subject = episode.subject;
    let (spawned_at, method, peer, stream) = match subject {
        Some(task) => (task.spawned_at, task.method, task.peer, task.stream),
        None => (None, None, None, None),
    };
    Blocked {
        id: episode.id,
        runtime: RuntimeId(episode.runtime.into()),
        worker: episode.worker,
        tid: episode.tid,
        task: (episode.task != 0).then_some(TaskId(episode.task)),
        spawned_at,
        method,
        peer,
        stream,
        ongoing,
        blocked_ns: running_ns(pauses.iter(), episode.began, until),
        ended_ago_ns: if ongoing { 0 } else { clock::delta_ns(episode.ended, now) },
        queued_local: episode.queued_local,
        queued_global: episode.queued_global,
        stack: episode.stack,
        stack_missing: episode.stack_missing,
    }
}
