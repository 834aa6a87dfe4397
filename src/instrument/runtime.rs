//! tokio's hooks: births, polls and ends of tasks; parks of workers.
//!
//! A poll costs two clock reads, two look-ups of a cache line each and some
//! relaxed stores. What surprises in tokio, and is provided for:
//! - the hook after the last poll of a task comes after the one of its end;
//! - `spawn_blocking` closures end without having been born;
//! - what is spawned on a runtime that is over ends before it is born, on the
//!   thread that spawns it;
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
        // Hooks without an application's own are closures of their own: they
        // run at each poll, and a test and a stack frame are felt there.
        macro_rules! install {
            ($on:ident, $user:ident, |$watch:ident, $meta:ident| $ours:expr, $first:ident) => {{
                let $watch = watch.clone();
                match hooks.$user {
                    None => builder.$on(move |$meta| $ours),
                    Some(user) => builder.$on(move |$meta| install!(@$first, user($meta), $ours)),
                };
            }};
            (@ours_first, $user:expr, $ours:expr) => {{
                $ours;
                $user;
            }};
            // The application's own work in its hooks is not part of the poll.
            (@user_first, $user:expr, $ours:expr) => {{
                $user;
                $ours;
            }};
        }
        install!(on_task_spawn, task_spawn, |watch, meta| watch.spawned(meta), ours_first);
        install!(on_before_task_poll, before_poll, |watch, meta| watch.polling(meta), user_first);
        install!(on_after_task_poll, after_poll, |watch, _meta| watch.polled(), ours_first);
        install!(on_task_terminate, task_terminate, |watch, meta| watch.ended(meta), ours_first);
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

    /// Births that share one look at the clock, at most. A look costs as much
    /// as all else that a birth needs.
    const BIRTHS_A_LOOK: u8 = 16;

    /// Runtimes inside polls of other runtimes (`block_in_place`), how deep.
    const MAX_NESTED: usize = 16;

    /// The poll that this thread is in, field by field: a struct written in
    /// parts and read back in one would stall the processor's store buffer.
    struct Current {
        task: Cell<u64>,
        /// 0 outside polls.
        began: Cell<u64>,
        cell: Cell<CellNumber>,
        worker: Cell<u16>,
        /// The task has ended in this poll.
        ended: Cell<bool>,
        /// Polls around this one.
        depth: Cell<usize>,
        /// The worker that this thread was last, and of which runtime.
        home: Cell<u16>,
        home_runtime: Cell<u16>,
        /// The last look at the clock, and births that may still share it.
        looked: Cell<u64>,
        births: Cell<u8>,
        /// The last end of a task that was not held.
        unknown: Cell<u64>,
    }

    impl Current {
        /// Whose child a task is that is spawned now, its cell, and the time.
        #[inline]
        fn parent(&self) -> (u64, CellNumber, u64) {
            if self.began.get() == 0 {
                // Outside of polls tokio alone may know a task.
                let parent = task_id::current().map_or(0, |parent| parent.0);
                (parent, CellNumber::NONE, clock::now())
            } else {
                (self.task.get(), self.cell.get(), self.time_of_birth())
            }
        }

        /// About now: within a poll the time of its begin or of an earlier
        /// birth does, unless the watchdog has told a later time since. So
        /// births are exact to 20 ms, and to the microsecond where polls are
        /// as short as they should be.
        #[inline]
        fn time_of_birth(&self) -> u64 {
            let births = self.births.get();
            if births != 0 && self.looked.get() >= clock::lately() {
                self.births.set(births - 1);
                return self.looked.get();
            }
            let now = clock::now();
            self.looked(now);
            now
        }

        #[inline]
        fn looked(&self, now: u64) {
            self.looked.set(now);
            self.births.set(BIRTHS_A_LOOK - 1);
        }
    }

    thread_local! {
        static CURRENT: Current = const {
            Current {
                task: Cell::new(0),
                began: Cell::new(0),
                cell: Cell::new(CellNumber::NONE),
                worker: Cell::new(NO_WORKER),
                ended: Cell::new(false),
                depth: Cell::new(0),
                home: Cell::new(NO_WORKER),
                home_runtime: Cell::new(u16::MAX),
                looked: Cell::new(0),
                births: Cell::new(0),
                unknown: Cell::new(0),
            }
        };
        /// Outer polls, while one is nested in another.
        static OUTER: RefCell<Vec<Outer>> = const { RefCell::new(Vec::new()) };
    }

    /// A poll that is set aside.
    struct Outer {
        task: u64,
        began: u64,
        cell: CellNumber,
        worker: u16,
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

        #[inline]
        pub fn spawned(&self, meta: &TaskMeta<'_>) {
            CURRENT.with(|current| self.born(current, meta));
        }

        // Not inlined, and so are the others: else the compiler leaves the
        // access to the thread's own memory as a call.
        #[inline(never)]
        fn born(&self, current: &Current, meta: &TaskMeta<'_>) {
            self.runtime.meet();
            let tasks = &self.registry.tasks;
            let id = task_id::number(meta.id()).0;
            if current.unknown.get() == id {
                return tasks.stillborn();
            }
            let (parent, parent_cell, now) = current.parent();
            tasks.spawned(&Birth {
                id,
                parent,
                parent_cell,
                runtime: self.runtime.number,
                place: tasks.places.intern(meta.spawned_at()),
                now,
            });
        }

        #[inline]
        pub fn polling(&self, meta: &TaskMeta<'_>) {
            let task = task_id::number(meta.id()).0;
            CURRENT.with(|current| self.begin(current, task));
        }

        #[inline(never)]
        fn begin(&self, current: &Current, task: u64) {
            if current.began.get() != 0 {
                nest(current);
            }
            let tid = own_tid();
            let worker = self.worker(current, tid);
            let began = clock::now();
            if let Some((_, cell)) = worker {
                cell.poll_begins(task, began);
            }
            let worker = worker.map_or(NO_WORKER, |(index, _)| index);
            current.cell.set(self.registry.tasks.polling(task, worker, began));
            current.task.set(task);
            current.worker.set(worker);
            current.began.set(began);
            current.looked(began);
            polled::set(task);
        }

        /// The worker that this thread is, and its cell. tokio is asked only
        /// when this thread cannot be sure to be the one it was before: in
        /// `block_in_place` another thread takes an index over, and marks it.
        #[inline]
        fn worker(&self, current: &Current, tid: u32) -> Option<(u16, &WorkerCell)> {
            if current.home_runtime.get() == u16::from(self.runtime.number)
                && let Some(cell) = self.runtime.worker(current.home.get().into())
                && cell.is_of(tid)
            {
                return Some((current.home.get(), cell));
            }
            self.find_worker(current, tid)
        }

        #[cold]
        fn find_worker(&self, current: &Current, tid: u32) -> Option<(u16, &WorkerCell)> {
            // The first poll may come before any spawn from inside the runtime
            // and before any park, which make the cells.
            self.runtime.meet();
            let index = u16::try_from(tokio::runtime::worker_index()?).ok()?;
            let cell = self.runtime.worker(index.into())?;
            cell.belongs_to(tid);
            current.home.set(index);
            current.home_runtime.set(self.runtime.number.into());
            Some((index, cell))
        }

        #[inline]
        pub fn polled(&self) {
            CURRENT.with(|current| self.end(current));
        }

        #[inline(never)]
        fn end(&self, current: &Current) {
            let began = current.began.replace(0);
            polled::set(0);
            if began == 0 {
                return;
            }
            let now = self.time_of_end(current, began);
            self.registry.tasks.polled(current.cell.get(), began, now);
            let worker = current.worker.get();
            if let Some(cell) = self.runtime.worker(worker.into()) {
                if now.saturating_sub(began) >= self.threshold {
                    self.was_long(cell, worker, began, now);
                }
                cell.poll_ends(own_tid(), now);
            }
            if current.depth.get() != 0 {
                unnest(current);
            }
        }

        /// Now, or about now where nobody would tell the difference: nothing is
        /// kept of a task that has ended, the worker's time between polls lasts
        /// until its next sign, and a poll since whose begin the watchdog has
        /// not looked is no blocked one.
        #[inline]
        fn time_of_end(&self, current: &Current, began: u64) -> u64 {
            if current.ended.replace(false) && clock::lately() <= began {
                return current.looked.get();
            }
            clock::now()
        }

        #[inline]
        pub fn ended(&self, meta: &TaskMeta<'_>) {
            let task = task_id::number(meta.id()).0;
            CURRENT.with(|current| self.over(current, task));
        }

        #[inline(never)]
        fn over(&self, current: &Current, task: u64) {
            let is_polled = current.began.get() != 0 && current.task.get() == task;
            let mut cell = CellNumber::NONE;
            if is_polled {
                // The hook after this poll comes when the cell may be another's.
                cell = current.cell.replace(CellNumber::NONE);
                current.ended.set(true);
            }
            if !self.registry.tasks.ended(task, cell) {
                current.unknown.set(task);
                // A task for which there was no room has polls; a closure has none.
                if !is_polled {
                    self.registry.tasks.unknown_ended();
                }
            }
        }

        #[cold]
        fn was_long(&self, cell: &WorkerCell, worker: u16, began: u64, now: u64) {
            let here = cell.now();
            if here.poll_began != began || here.tid != own_tid() {
                // The worker went to another thread meanwhile
                // (`block_in_place`): nobody waited behind this poll.
                return;
            }
            // Only what the watchdog has judged is an episode.
            self.registry.blocked.end(self.runtime.number, worker.into(), began, now);
        }
    }

    #[cold]
    fn nest(current: &Current) {
        // Else the inner poll would take it for its own.
        current.ended.set(false);
        OUTER.with_borrow_mut(|outer| {
            if outer.len() < MAX_NESTED {
                outer.push(Outer {
                    task: current.task.get(),
                    began: current.began.get(),
                    cell: current.cell.get(),
                    worker: current.worker.get(),
                });
                current.depth.set(outer.len());
            }
        });
    }

    /// Back in the outer poll.
    #[cold]
    fn unnest(current: &Current) {
        OUTER.with_borrow_mut(|outer| {
            if let Some(poll) = outer.pop() {
                current.task.set(poll.task);
                current.began.set(poll.began);
                current.cell.set(poll.cell);
                current.worker.set(poll.worker);
                polled::set(poll.task);
            }
            current.depth.set(outer.len());
        });
    }
}
