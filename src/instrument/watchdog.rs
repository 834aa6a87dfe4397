//! The watchdog: a thread that sees polls that do not return, while they last.
//!
//! It looks at every worker's cell some times per threshold. When a poll has
//! passed the threshold it has the thread's stack captured, and once more from
//! time to time while the poll lasts, because a busy one moves on. It tells a
//! blocked worker from a process that stood still: when its own clock jumped
//! and the process used no processor meanwhile, that time counts for nobody.
//! Nor does time in which the worker's thread was ready to run and got no
//! processor: on an overloaded machine every poll is long, and no line of code
//! is to blame.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Stack, TaskId};
use crate::registry::Registry;
use crate::registry::blocked::{Episode, PauseSpan};
use crate::registry::clock;
use crate::registry::workers::{RuntimeCell, WorkerNow};
use crate::sys::{cpu_clock, thread};

/// A jump of the clock shorter than this is a busy machine, not a stopped process.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
/// A process that used less than this share of the time was stopped.
const STOPPED_CPU_SHARE: u64 = 50;
/// Ages of an episode at which its stack is taken anew.
const RECAPTURE: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];
/// How often runtimes are looked over for ones that are gone.
const ROLL_CALL: Duration = Duration::from_secs(1);
/// Stacks that are to get their names later. They do so within seconds of the
/// start; what is beyond stays without.
const UNNAMED: usize = 256;

/// The native stack of a thread, as it was captured.
pub struct Taken {
    /// The task that the thread polled then, if it could say so.
    pub task: Option<TaskId>,
    /// Its stack, or why it has none.
    pub stack: Named,
}

/// A stack with names.
pub enum Named {
    /// It has them.
    Now(Arc<Stack>),
    /// What they come from is still being read: the text says so, the function
    /// gives the stack once it is there.
    Later(Arc<str>, Later),
}

/// The stack once it has names; `None` while it has none.
pub type Later = Box<dyn Fn() -> Option<Result<Arc<Stack>>> + Send>;

/// Captures the native stack of a thread. Never waits for names.
pub type Capture = Box<dyn Fn(u32) -> Result<Taken> + Send>;

/// The running watchdog. Dropping it ends the thread.
#[derive(Debug)]
pub struct Watchdog {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watchdog {
    /// Starts the thread.
    ///
    /// # Errors
    /// `Io` if the system has no thread to give.
    pub fn start(
        registry: Arc<Registry>,
        capture: Capture,
        panics: Arc<AtomicU64>,
    ) -> Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("taskprof-watch".into())
            .spawn(move || {
                let mut eye = Eye::new(registry, capture);
                loop {
                    let round = std::panic::AssertUnwindSafe(|| eye.look());
                    if let Err(payload) = std::panic::catch_unwind(round) {
                        // Its drop may panic again.
                        std::mem::forget(payload);
                        panics.fetch_add(1, Ordering::Relaxed);
                    }
                    eye.before_sleep();
                    let flag = stopped.0.lock().unwrap_or_else(PoisonError::into_inner);
                    let (flag, _) = stopped
                        .1
                        .wait_timeout_while(flag, eye.sleep(), |stop| !*stop)
                        .unwrap_or_else(PoisonError::into_inner);
                    if *flag {
                        return;
                    }
                }
            })
            .map_err(|error| Error::io("cannot start the watchdog thread", error))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // It catches its own panics.
            let _ = thread.join();
        }
        clock::tell_no_more();
    }
}

struct Eye {
    registry: Arc<Registry>,
    capture: Capture,
    period: Duration,
    threshold_ns: u64,
    /// A poll was long at the last look: look again after one period. Else two
    /// will do, since a poll found that late has its whole age counted.
    alert: bool,
    /// Tick and processor time before the last sleep.
    slept: (u64, u64),
    /// The last long poll of each worker, by runtime and index.
    suspects: HashMap<(u8, usize), Suspect>,
    /// Stacks of episodes that are to get their names, by the episode's number.
    unnamed: HashMap<u64, Later>,
    /// Tick of the last look.
    looked: u64,
    rolled: u64,
}

/// A poll when it was first seen to be long.
#[derive(Clone, Copy)]
struct Suspect {
    /// Tick at which it began.
    began: u64,
    /// Tick of that first look.
    seen: u64,
    /// Its age then, in nanoseconds.
    age: u64,
    /// How long its thread had ever waited for a processor by then.
    waited: u64,
}

impl Eye {
    fn new(registry: Arc<Registry>, capture: Capture) -> Self {
        let threshold = registry.blocked_threshold;
        Self {
            capture,
            period: (threshold / 5).clamp(Duration::from_millis(2), Duration::from_millis(10)),
            threshold_ns: threshold.as_nanos() as u64,
            alert: false,
            slept: (clock::now(), cpu_clock::process_ns()),
            suspects: HashMap::new(),
            unnamed: HashMap::new(),
            looked: clock::now(),
            rolled: clock::now(),
            registry,
        }
    }

    /// Until the next look. Each wakes a processor that the application may
    /// have for itself else.
    fn sleep(&self) -> Duration {
        if self.alert { self.period } else { 2 * self.period }
    }

    fn before_sleep(&mut self) {
        self.slept = (clock::now(), cpu_clock::process_ns());
    }

    fn look(&mut self) {
        let now = clock::now();
        clock::tell(now);
        self.notice_pause(now);
        let runtimes = self.registry.runtimes.list();
        self.end_what_ended(&runtimes, now);
        self.name_what_can_be_named();
        self.alert = false;
        for runtime in &runtimes {
            for (index, cell) in runtime.workers().enumerate() {
                let worker = cell.now();
                if worker.poll_began != 0 && self.is_blocked(runtime.number, index, worker, now) {
                    self.blocked(runtime, index, now);
                }
            }
        }
        self.registry.blocked.looked();
        if clock::delta_ns(self.rolled, now) >= ROLL_CALL.as_nanos() as u64 {
            self.rolled = now;
            self.forget_gone(&runtimes);
        }
        self.looked = now;
    }

    /// The clock jumped while we slept, and nobody else worked either.
    fn notice_pause(&self, now: u64) {
        let (before, cpu_before) = self.slept;
        let gap_ns = clock::delta_ns(before, now);
        // The kernel sums up the time of all threads: only where it matters.
        if gap_ns > (self.sleep() + SHORTEST_PAUSE).as_nanos() as u64
            && cpu_clock::process_ns().saturating_sub(cpu_before) < gap_ns / STOPPED_CPU_SHARE
        {
            self.registry.blocked.paused(PauseSpan { from: before, to: now });
        }
    }

    /// The poll has had the threshold's worth of time. Looks at the thread's
    /// waits for a processor only for polls that are long already; time before
    /// the first such look counts for three periods at most, as old as a poll
    /// can be that was too young at the look before; since a watchdog that
    /// comes later is itself a sign of too few processors.
    fn is_blocked(&mut self, runtime: u8, index: usize, worker: WorkerNow, now: u64) -> bool {
        let period_ns = self.period.as_nanos() as u64;
        let age = self.registry.blocked.running_ns(worker.poll_began, now);
        if age < period_ns {
            return false;
        }
        self.alert = true;
        let waited = thread::waited_for_processor_ns(worker.tid).unwrap_or(0);
        let first = Suspect { began: worker.poll_began, seen: now, age, waited };
        let suspect = self.suspects.entry((runtime, index)).or_insert(first);
        if suspect.began != worker.poll_began {
            *suspect = first;
        }
        let since = self.registry.blocked.running_ns(suspect.seen, now);
        let had = since.saturating_sub(waited.saturating_sub(suspect.waited));
        had + suspect.age.min(3 * period_ns) >= self.threshold_ns
    }

    fn blocked(&mut self, runtime: &RuntimeCell, index: usize, now: u64) {
        let registry = self.registry.clone();
        let log = &registry.blocked;
        let Some(cell) = runtime.worker(index) else { return };
        let worker = cell.now();
        if worker.poll_began == 0 {
            return;
        }
        let (queued_local, queued_global) = queues(runtime, index);
        let known = log
            .ongoing()
            .into_iter()
            .find(|&(_, number, at, began)| {
                (number, at as usize, began) == (runtime.number, index, worker.poll_began)
            })
            .map(|(id, ..)| id);
        if let Some(id) = known {
            let again =
                self.due_again(worker.poll_began, now).then(|| self.stack_of(runtime, index));
            log.update(id, |episode| {
                episode.queued_local = queued_local;
                episode.queued_global = queued_global;
            });
            match again {
                Some(Ok(Named::Now(stack))) => {
                    self.unnamed.remove(&id);
                    log.give_stack(id, Ok(stack));
                }
                Some(Ok(Named::Later(_, later))) => self.name_later(id, later),
                Some(Err(_)) | None => {}
            }
            return;
        }
        let stack = self.stack_of(runtime, index);
        if cell.now().poll_began != worker.poll_began {
            // Over by now: an episode is a poll that was seen while it lasted.
            return;
        }
        let (stack, stack_missing, later) = match stack {
            Ok(Named::Now(stack)) => (Some(stack), None, None),
            Ok(Named::Later(why, later)) => (None, Some(why), Some(later)),
            Err(error) => (None, Some(error.to_string().into()), None),
        };
        let id = log.begin(Episode {
            id: 0,
            runtime: runtime.number,
            worker: index as u32,
            tid: worker.tid,
            task: worker.task,
            subject: registry.tasks.get(TaskId(worker.task), now),
            began: worker.poll_began,
            ended: 0,
            queued_local,
            queued_global,
            stack,
            stack_missing,
        });
        if let (Some(id), Some(later)) = (id, later) {
            self.name_later(id, later);
        }
    }

    fn name_later(&mut self, id: u64, later: Later) {
        if self.unnamed.len() < UNNAMED || self.unnamed.contains_key(&id) {
            self.unnamed.insert(id, later);
        }
    }

    fn name_what_can_be_named(&mut self) {
        let log = &self.registry.blocked;
        self.unnamed.retain(|&id, later| match later() {
            Some(stack) => {
                log.give_stack(id, stack.map_err(|error| error.to_string().into()));
                false
            }
            None => true,
        });
    }

    /// An age of [`RECAPTURE`] was passed since the last look.
    fn due_again(&self, began: u64, now: u64) -> bool {
        let log = &self.registry.blocked;
        let (then, age) = (log.running_ns(began, self.looked), log.running_ns(began, now));
        RECAPTURE.iter().any(|due| (then..age).contains(&(due.as_nanos() as u64)))
    }

    /// The worker's stack, if it was taken within the very poll.
    fn stack_of(&self, runtime: &RuntimeCell, index: usize) -> Result<Named> {
        let gone = || Error::new(ErrorKind::NotFound, "the poll ended meanwhile");
        let cell = runtime.worker(index).ok_or_else(gone)?;
        let before = cell.now();
        let Taken { task, stack } = (self.capture)(before.tid)?;
        let after = cell.now();
        if after.poll_began != before.poll_began || task.is_some_and(|task| task.0 != before.task) {
            return Err(gone());
        }
        Ok(stack)
    }

    /// Episodes whose worker does something else now. The hook that ends a
    /// poll has told most of them; this is for workers handed over.
    fn end_what_ended(&self, runtimes: &[Arc<RuntimeCell>], now: u64) {
        for (_, number, worker, began) in self.registry.blocked.ongoing() {
            let still = runtimes
                .iter()
                .find(|runtime| runtime.number == number)
                .and_then(|runtime| runtime.worker(worker as usize))
                .is_some_and(|cell| cell.now().poll_began == began);
            if !still {
                self.registry.blocked.end(number, worker, began, now);
            }
        }
    }

    /// A multi-thread runtime whose worker threads have all exited was dropped.
    /// A current-thread runtime runs on whatever thread calls `block_on`, and
    /// may lie still in between: it stays listed.
    fn forget_gone(&mut self, runtimes: &[Arc<RuntimeCell>]) {
        let own_threads = |runtime: &&Arc<RuntimeCell>| {
            let flavor = runtime.handle().map(Handle::runtime_flavor);
            flavor == Some(RuntimeFlavor::MultiThread)
        };
        for runtime in runtimes.iter().filter(own_threads) {
            let mut tids = runtime.workers().map(|cell| cell.now().tid).peekable();
            let seen_all = tids.peek().is_some() && tids.all(|tid| tid != 0);
            if seen_all && runtime.workers().all(|cell| thread::name(cell.now().tid).is_none()) {
                self.registry.runtimes.remove(runtime.number);
                self.suspects.retain(|(number, _), _| *number != runtime.number);
            }
        }
    }
}

/// `(own queue of the worker, global queue)`.
fn queues(runtime: &RuntimeCell, worker: usize) -> (Option<u64>, u64) {
    let Some(handle) = runtime.handle() else { return (None, 0) };
    let metrics = handle.metrics();
    #[cfg(tokio_unstable)]
    let local = Some(metrics.worker_local_queue_depth(worker) as u64);
    #[cfg(not(tokio_unstable))]
    let local = {
        let _ = worker;
        None
    };
    (local, metrics.global_queue_depth() as u64)
}

#[cfg(all(test, tokio_unstable))]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;
    use crate::instrument::runtime::{Hooks, install};
    use crate::model::StackSource;

    /// Dropped outside of a panic it panics again.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "a panic's payload was dropped");
        }
    }

    #[test]
    fn a_capture_that_panics_ends_one_look_and_not_the_watch() {
        let registry = Arc::new(Registry::default());
        let panics = Arc::new(AtomicU64::new(0));
        let seen = panics.clone();
        let capture: Capture = Box::new(move |_| {
            if seen.load(Ordering::SeqCst) < 3 {
                std::panic::panic_any(Bomb);
            }
            Err(Error::new(ErrorKind::Unsupported, "no stacks here"))
        });
        let watchdog = Watchdog::start(registry.clone(), capture, panics.clone()).unwrap();
        let blocked = Blocked::start(&registry);
        let episode = until(&registry, |ongoing, _| ongoing.first().cloned());
        drop(blocked);
        assert_eq!(panics.load(Ordering::SeqCst), 3);
        assert_eq!(episode.stack_missing.as_deref(), Some("no stacks here"));
        drop(watchdog);
    }

    /// What was blocked before the program's debug information was read is told
    /// at once, and by name when it is there: also if it is over by then.
    #[test]
    fn a_stack_may_get_its_names_when_the_poll_is_over() {
        let registry = Arc::new(Registry::default());
        let there = Arc::new(AtomicBool::new(false));
        let stack = Arc::new(Stack {
            source: StackSource::Native,
            frames: Vec::new(),
            truncated: None,
            or_one_of: Vec::new(),
        });
        let (named, read) = (stack.clone(), there.clone());
        let capture: Capture = Box::new(move |_| {
            let (named, read) = (named.clone(), read.clone());
            let later = move || read.load(Ordering::SeqCst).then(|| Ok(named.clone()));
            Ok(Taken { task: None, stack: Named::Later("not yet".into(), Box::new(later)) })
        });
        let watchdog = Watchdog::start(registry.clone(), capture, Arc::default()).unwrap();
        let blocked = Blocked::start(&registry);
        let episode = until(&registry, |ongoing, _| ongoing.first().cloned());
        assert_eq!(episode.stack, None);
        assert_eq!(episode.stack_missing.as_deref(), Some("not yet"));
        drop(blocked);
        until(&registry, |_, recent| recent.first().cloned());
        there.store(true, Ordering::SeqCst);
        let episode =
            until(&registry, |_, recent| recent.iter().find(|e| e.stack.is_some()).cloned());
        assert_eq!((episode.stack, episode.stack_missing), (Some(stack), None));
        drop(watchdog);
    }

    /// A runtime whose only worker is blocked until this is dropped.
    struct Blocked {
        _release: mpsc::Sender<()>,
        _runtime: tokio::runtime::Runtime,
    }

    impl Blocked {
        fn start(registry: &Arc<Registry>) -> Self {
            let cell = registry.runtimes.register("main", true, None);
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(1);
            install(registry, &cell, &mut builder, Hooks::new());
            let runtime = builder.build().unwrap();
            let (release, held) = mpsc::channel::<()>();
            runtime.spawn(async move { held.recv() });
            Self { _release: release, _runtime: runtime }
        }
    }

    /// Waits for an episode, among those that last or those that are over.
    fn until(
        registry: &Registry,
        wanted: impl Fn(&[Episode], &[Episode]) -> Option<Episode>,
    ) -> Episode {
        let begun = Instant::now();
        loop {
            let (ongoing, recent, _) = registry.blocked.all();
            if let Some(episode) = wanted(&ongoing, &recent) {
                return episode;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{ongoing:?} {recent:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
