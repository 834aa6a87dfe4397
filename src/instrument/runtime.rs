//! tokio's hooks: births, polls and ends of tasks; parks of workers.
//!
//! A poll costs two clock reads, two look-ups of a cache line each and some
//! relaxed stores. What surprises in tokio, and is provided for:
//! - the hook after the last poll of a task comes after the one of its end;
//! - `spawn_blocking` closures end without having been born;
//! - `LocalSet` tasks and the root of a `block_on` have no hooks at all;
//! - in `block_in_place` a worker index moves to another thread mid-poll.

use std::cell::Cell;
use std::sync::Arc;

use tokio::runtime::Builder;
#[cfg(tokio_unstable)]
use tokio::runtime::TaskMeta;

use crate::registry::Registry;
use crate::registry::clock;
use crate::registry::workers::RuntimeCell;
use crate::sys::thread;

#[cfg(tokio_unstable)]
type TaskHook = Box<dyn Fn(&TaskMeta<'_>) + Send + Sync>;
type ThreadHook = Box<dyn Fn() + Send + Sync>;

/// The application's own runtime hooks. tokio keeps one callback of each kind,
/// so those that taskprof uses as well are given to it, and run after its own.
#[derive(Default)]
pub struct Hooks {
    #[cfg(tokio_unstable)]
    task_spawn: Option<TaskHook>,
    #[cfg(tokio_unstable)]
    before_poll: Option<TaskHook>,
    #[cfg(tokio_unstable)]
    after_poll: Option<TaskHook>,
    #[cfg(tokio_unstable)]
    task_terminate: Option<TaskHook>,
    thread_park: Option<ThreadHook>,
    thread_unpark: Option<ThreadHook>,
}

macro_rules! task_hook {
    ($(#[$doc:meta])* $name:ident, $field:ident) => {
        $(#[$doc])*
        #[cfg(tokio_unstable)]
        #[must_use]
        pub fn $name(mut self, hook: impl Fn(&TaskMeta<'_>) + Send + Sync + 'static) -> Self {
            self.$field = Some(Box::new(hook));
            self
        }
    };
}

impl Hooks {
    /// No hooks.
    pub fn new() -> Self {
        Self::default()
    }

    task_hook! {
        /// As [`Builder::on_task_spawn`].
        on_task_spawn, task_spawn
    }
    task_hook! {
        /// As [`Builder::on_before_task_poll`].
        on_before_task_poll, before_poll
    }
    task_hook! {
        /// As [`Builder::on_after_task_poll`].
        on_after_task_poll, after_poll
    }
    task_hook! {
        /// As [`Builder::on_task_terminate`].
        on_task_terminate, task_terminate
    }

    /// As [`Builder::on_thread_park`].
    #[must_use]
    pub fn on_thread_park(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.thread_park = Some(Box::new(hook));
        self
    }

    /// As [`Builder::on_thread_unpark`].
    #[must_use]
    pub fn on_thread_unpark(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.thread_unpark = Some(Box::new(hook));
        self
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

/// Installs the hooks of one runtime.
pub fn install(
    registry: &Arc<Registry>,
    runtime: &Arc<RuntimeCell>,
    builder: &mut Builder,
    hooks: Hooks,
) {
    let park = |parked: bool, user: Option<ThreadHook>| {
        let runtime = runtime.clone();
        move || {
            runtime.meet();
            if let Some(worker) =
                tokio::runtime::worker_index().and_then(|index| runtime.worker(index))
            {
                worker.parks(own_tid(), parked, clock::now());
            }
            if let Some(user) = &user {
                user();
            }
        }
    };
    builder.on_thread_park(park(true, hooks.thread_park));
    builder.on_thread_unpark(park(false, hooks.thread_unpark));

    #[cfg(not(tokio_unstable))]
    let _ = registry;
    #[cfg(tokio_unstable)]
    {
        let watch = Arc::new(polls::Watch::new(registry.clone(), runtime.clone()));
        let on = watch.clone();
        let user = hooks.task_spawn;
        builder.on_task_spawn(move |meta| {
            on.spawned(meta);
            if let Some(user) = &user {
                user(meta);
            }
        });
        let on = watch.clone();
        // The application's own work in its hooks is not part of the poll.
        let user = hooks.before_poll;
        builder.on_before_task_poll(move |meta| {
            if let Some(user) = &user {
                user(meta);
            }
            on.polling(meta);
        });
        let on = watch.clone();
        let user = hooks.after_poll;
        builder.on_after_task_poll(move |meta| {
            on.polled();
            if let Some(user) = &user {
                user(meta);
            }
        });
        let user = hooks.task_terminate;
        builder.on_task_terminate(move |meta| {
            watch.ended(meta);
            if let Some(user) = &user {
                user(meta);
            }
        });
    }
}

/// The calling thread's id, asked of the kernel once a thread.
#[inline]
fn own_tid() -> u32 {
    thread_local! {
        static TID: Cell<u32> = const { Cell::new(0) };
    }
    match TID.get() {
        0 => {
            let tid = thread::current_tid();
            TID.set(tid);
            tid
        }
        tid => tid,
    }
}

#[cfg(tokio_unstable)]
mod polls {
    use std::cell::{Cell, RefCell};
    use std::sync::Arc;

    use tokio::runtime::TaskMeta;

    use super::own_tid;
    use crate::instrument::task_id;
    use crate::registry::Registry;
    use crate::registry::clock;
    use crate::registry::tasks::{Birth, CellNumber, NO_WORKER};
    use crate::registry::workers::{RuntimeCell, WorkerCell};
    use crate::sys::polled;

    /// Runtimes inside polls of other runtimes (`block_in_place`), how deep.
    const MAX_NESTED: usize = 16;

    /// The poll that this thread is in.
    #[derive(Clone, Copy)]
    struct Poll {
        task: u64,
        began: u64,
        cell: Option<CellNumber>,
        worker: u16,
    }

    const NO_POLL: Poll = Poll { task: 0, began: 0, cell: None, worker: NO_WORKER };

    thread_local! {
        static POLL: Cell<Poll> = const { Cell::new(NO_POLL) };
        /// Outer polls, while one is nested in another.
        static OUTER: RefCell<Vec<Poll>> = const { RefCell::new(Vec::new()) };
        /// How many those are: read at every poll, and free of a destructor.
        static DEPTH: Cell<usize> = const { Cell::new(0) };
    }

    /// What the hooks of one runtime share.
    pub struct Watch {
        registry: Arc<Registry>,
        runtime: Arc<RuntimeCell>,
        /// A poll of so many ticks is told to the log of blocked polls.
        threshold: u64,
    }

    impl Watch {
        pub fn new(registry: Arc<Registry>, runtime: Arc<RuntimeCell>) -> Self {
            let threshold = clock::ticks_in(registry.blocked_threshold);
            Self { registry, runtime, threshold }
        }

        pub fn spawned(&self, meta: &TaskMeta<'_>) {
            self.runtime.meet();
            self.registry.tasks.spawned(Birth {
                id: task_id::number(meta.id()).0,
                parent: task_id::current().map_or(0, |parent| parent.0),
                runtime: self.runtime.number,
                place: self.registry.tasks.places.intern(meta.spawned_at()),
            });
        }

        #[inline]
        pub fn polling(&self, meta: &TaskMeta<'_>) {
            if POLL.get().began != 0 {
                nest();
            }
            let task = task_id::number(meta.id()).0;
            let worker = tokio::runtime::worker_index()
                .and_then(|index| u16::try_from(index).ok())
                .unwrap_or(NO_WORKER);
            let began = clock::now();
            if let Some(cell) = self.worker(worker) {
                cell.poll_begins(own_tid(), task, began);
            }
            let cell = self.registry.tasks.polling(task, worker, began);
            POLL.set(Poll { task, began, cell, worker });
            polled::set(task);
        }

        /// The worker's cell. Its first poll may come before any spawn from
        /// inside the runtime and before any park, which make the cells.
        #[inline]
        fn worker(&self, index: u16) -> Option<&WorkerCell> {
            let cell = self.runtime.worker(index.into());
            if cell.is_none() && index != NO_WORKER {
                self.runtime.meet();
                return self.runtime.worker(index.into());
            }
            cell
        }

        #[inline]
        pub fn polled(&self) {
            let poll = POLL.replace(NO_POLL);
            polled::set(0);
            if poll.began == 0 {
                return;
            }
            let now = clock::now();
            if let Some(cell) = poll.cell {
                self.registry.tasks.polled(cell, poll.began, now);
            }
            if let Some(worker) = self.runtime.worker(poll.worker.into()) {
                if now.saturating_sub(poll.began) >= self.threshold {
                    self.was_long(poll, now);
                }
                worker.poll_ends(own_tid(), now);
            }
            if DEPTH.get() != 0 {
                unnest();
            }
        }

        pub fn ended(&self, meta: &TaskMeta<'_>) {
            let task = task_id::number(meta.id()).0;
            let poll = POLL.get();
            if poll.task == task {
                // The hook after this poll comes when the cell may be another's.
                POLL.set(Poll { cell: None, ..poll });
            }
            self.registry.tasks.ended(task);
        }

        #[cold]
        fn was_long(&self, poll: Poll, now: u64) {
            let (registry, runtime) = (&self.registry, self.runtime.number);
            let worker = u32::from(poll.worker);
            let here = self.runtime.worker(poll.worker.into()).map(|cell| cell.now());
            if here.is_none_or(|here| here.poll_began != poll.began || here.tid != own_tid()) {
                // The worker went to another thread meanwhile
                // (`block_in_place`): nobody waited behind this poll.
                return;
            }
            // Only what the watchdog has judged is an episode.
            registry.blocked.end(runtime, worker, poll.began, now);
        }
    }

    #[cold]
    fn nest() {
        OUTER.with_borrow_mut(|outer| {
            if outer.len() < MAX_NESTED {
                outer.push(POLL.get());
                DEPTH.set(outer.len());
            }
        });
    }

    /// Back in the outer poll.
    #[cold]
    fn unnest() {
        let poll = OUTER.try_with(|outer| {
            let mut outer = outer.borrow_mut();
            let poll = outer.pop();
            DEPTH.set(outer.len());
            poll
        });
        if let Ok(Some(poll)) = poll {
            POLL.set(poll);
            polled::set(poll.task);
        }
    }
}
