//! What the hooks of one runtime do with births, polls and ends of its tasks.

use std::cell::RefCell;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::runtime::{Handle, RuntimeFlavor, TaskMeta};

use crate::instrument::task_id;
use crate::registry::tasks::{Birth, NO_WORKER, Poll, ShortWay};
use crate::registry::workers::{RuntimeCell, WorkerCell, WorkerCells};
use crate::registry::{Registry, clock, tally};
use crate::sys::current::{self, Current, ENDED, NO_SLOT, NONE};

/// Runtimes inside polls of other runtimes (`block_in_place`), how deep.
const MAX_NESTED: usize = 16;

thread_local! {
    /// Outer polls, while one is nested in another.
    static OUTER: RefCell<Vec<Outer>> = const { RefCell::new(Vec::new()) };
}

/// A poll that is set aside.
struct Outer {
    poll: Poll,
    registry: usize,
    watch: u32,
}

/// What the hooks of one runtime need. Each has a clone of its own, so that
/// nothing it needs always is behind a pointer, and all that in two cache lines.
#[derive(Clone)]
#[repr(align(64))]
pub struct Watch {
    /// Tells threads whose they are; no two runtimes have the same, ever.
    number: u32,
    runtime_number: u8,
    short: ShortWay,
    workers: WorkerCells,
    /// A poll of so many ticks is told to the log of blocked polls.
    threshold: u64,
    /// The application has hooks of its own around polls.
    hooked: bool,
    registry: Arc<Registry>,
    runtime: Arc<RuntimeCell>,
}

impl Watch {
    pub fn new(registry: Arc<Registry>, runtime: Arc<RuntimeCell>, hooked: bool) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(1));
        Self {
            // Beyond the four thousand millionth runtime all go the long way.
            number: last.map_or(u32::MAX, |last| last + 1),
            runtime_number: runtime.number,
            short: registry.tasks.short_way(),
            workers: runtime.cells(),
            threshold: clock::ticks_in(registry.blocked_threshold),
            hooked,
            registry,
            runtime,
        }
    }

    /// Tells a registry from others that live.
    fn registry(&self) -> usize {
        Arc::as_ptr(&self.registry).addr()
    }

    // ── births ───────────────────────────────────────────────────────

    #[inline(always)]
    pub fn spawned(&self, meta: &TaskMeta<'_>) {
        let current = current::get();
        let id = task_id::number(meta.id()).0;
        // The time of a birth is that of the poll it happens in, unless the
        // watchdog has told a later one since. So births are exact to 20 ms,
        // and to the microsecond where polls are as short as they should be.
        if current.watch.get() == self.number
            && clock::lately() <= current.began.get()
            && current.spawning_for.get() == NO_SLOT
            && self.short.spawned(current, id, self.runtime_number, meta.spawned_at())
        {
            return;
        }
        self.spawned_otherwise(current, id, meta.spawned_at());
    }

    #[inline(never)]
    fn spawned_otherwise(&self, current: &Current, id: u64, place: &'static Location<'static>) {
        self.runtime.meet();
        let tasks = &self.registry.tasks;
        if current.unknown.get() == id {
            return tasks.stillborn();
        }
        let (parent, parent_cell) = if current.began.get() == 0 {
            // Outside of polls tokio alone may know a task.
            (task_id::current().map_or(0, |parent| parent.0), NONE)
        } else if current.registry.get() == self.registry() {
            (current.task.get(), current.cell.get())
        } else {
            (current.task.get(), NONE)
        };
        let now = match current.began.get() {
            began if clock::lately() <= began => began,
            _ => clock::now(),
        };
        let birth = Birth {
            id,
            parent,
            parent_cell,
            runtime: self.runtime_number,
            place: Some(place),
            now,
        };
        let own = current.watch.get() == self.number;
        tasks.spawned(&birth, if own { current.nursery.get() } else { NONE });
    }

    // ── polls ────────────────────────────────────────────────────────

    #[inline(always)]
    pub fn polling(&self, meta: &TaskMeta<'_>) {
        let current = current::get();
        let task = task_id::number(meta.id()).0;
        if current.began.get() == 0
            && let Some(worker) = self.settled(current)
            && let Some(found) = self.short.find(current, task)
            && let Some(now) = free_since(current, worker, task).or_else(clock::quick)
        {
            found.polling(current, now);
            begins(current, worker, task, now);
        } else {
            self.polling_otherwise(current, task);
        }
    }

    /// The cell of the worker that this thread is, if it is known to be one.
    /// In `block_in_place` another thread takes its index over, and marks it.
    #[inline(always)]
    fn settled(&self, current: &Current) -> Option<WorkerCell<'_>> {
        let worker = self.workers.get(current.worker.get().into());
        worker.filter(|worker| {
            current.watch.get() == self.number && worker.is_of(current.known_tid.get())
        })
    }

    #[inline(never)]
    fn polling_otherwise(&self, current: &Current, task: u64) {
        if current.began.get() != 0 {
            nest(current);
        }
        current.between.set(0);
        let worker = match self.settled(current) {
            Some(worker) => Some(worker),
            None => self.settle(current),
        };
        let now = clock::now();
        self.find(current, task, now);
        match worker {
            Some(worker) => begins(current, worker, task, now),
            None => {
                current.task.set(task);
                current.began.set(now);
            }
        }
    }

    /// A task that is not in this thread's nursery, or not for the first time.
    #[inline(always)]
    fn find(&self, current: &Current, task: u64, now: u64) {
        let tasks = &self.registry.tasks;
        let likely = [current.nursery.get(), current.found_in.get()];
        let cell = tasks.polling(task, current.worker.get(), now, likely);
        current.cell.set(cell);
        let nursery = tasks.nursery_of(cell);
        if nursery != NONE {
            current.found_in.set(nursery);
        }
    }

    /// Asks tokio which worker this thread is. Within other polls and without
    /// what only so many threads have, that is all; else it is remembered.
    #[cold]
    fn settle(&self, current: &Current) -> Option<WorkerCell<'_>> {
        // The first poll may come before any spawn from inside the runtime
        // and before any park.
        self.runtime.meet();
        current.watch.set(0);
        current.registry.set(self.registry());
        current.worker.set(NO_WORKER);
        let index = tokio::runtime::worker_index()?;
        let worker = self.workers.get(index)?;
        worker.belongs_to(current.tid());
        current.worker.set(index as u16);
        if current.depth.get() == 0
            && let Some(line) = tally::own_line()
            && let Some(nursery) = self.registry.tasks.nursery(line)
            && self.number != u32::MAX
        {
            current.nursery.set(nursery);
            current.found_in.set(nursery);
            current.watch.set(self.number);
            // On a runtime of one thread the root is polled between tasks.
            let flavor = self.runtime.handle().map(Handle::runtime_flavor);
            let keeps = flavor == Some(RuntimeFlavor::MultiThread) && !self.hooked;
            current.keeps_between.set(keeps);
        }
        Some(worker)
    }

    #[inline(always)]
    pub fn polled(&self) {
        let current = current::get();
        let began = current.began.get();
        let Some(worker) = self.workers.get(current.worker.get().into()) else {
            return self.polled_otherwise(current);
        };
        // Nothing is kept of a task that has ended, the worker's time between
        // polls lasts until its next sign, and a poll since whose begin the
        // watchdog has not looked is no blocked one: no need for the clock.
        if current.cell.get() == ENDED && clock::lately() <= began {
            ends(current);
            worker.poll_ends(current.known_tid.get(), began);
        } else if current.watch.get() == self.number
            && let Some(waiting) = self.short.waiting(current)
            && let Some(now) = clock::quick()
            && now.saturating_sub(began) < self.threshold
        {
            waiting.polled(current.worker.get(), now.saturating_sub(began), now);
            ends(current);
            current.is_between(now);
            worker.poll_ends(current.known_tid.get(), now);
        } else {
            self.polled_otherwise(current);
        }
    }

    #[inline(never)]
    fn polled_otherwise(&self, current: &Current) {
        let began = current.began.get();
        if began == 0 {
            return;
        }
        let now = clock::now();
        let poll = poll(current);
        ends(current);
        if poll.cell < NONE {
            self.registry.tasks.polled(&poll, now);
        }
        if let Some(cell) = self.workers.get(poll.worker.into()) {
            if now.saturating_sub(began) >= self.threshold {
                self.was_long(cell, &poll, now);
            }
            cell.poll_ends(current.tid(), now);
        }
        if current.depth.get() != 0 {
            unnest(current);
        } else if current.watch.get() == self.number {
            current.is_between(now);
        }
    }

    #[cold]
    fn was_long(&self, cell: WorkerCell<'_>, poll: &Poll, now: u64) {
        let here = cell.now();
        if here.poll_began != poll.began || here.tid != current::get().tid() {
            // The worker went to another thread meanwhile
            // (`block_in_place`): nobody waited behind this poll.
            return;
        }
        // Only what the watchdog has judged is an episode.
        self.registry.blocked.end(self.runtime_number, poll.worker.into(), poll.began, now);
    }

    // ── ends ─────────────────────────────────────────────────────────

    #[inline(always)]
    pub fn ended(&self, meta: &TaskMeta<'_>) {
        let current = current::get();
        let task = task_id::number(meta.id()).0;
        if current.task.get() == task
            && current.watch.get() == self.number
            && self.short.ended(current)
        {
            // The hook after this poll comes when the cell may be another's.
            current.cell.set(ENDED);
        } else {
            self.ended_otherwise(current, task);
        }
    }

    #[inline(never)]
    fn ended_otherwise(&self, current: &Current, task: u64) {
        let is_polled = current.task.get() == task;
        // Not `ENDED`: the hook that follows has more to do than after the short way.
        let cell = if is_polled { current.cell.replace(NONE) } else { NONE };
        if !self.registry.tasks.ended(task, cell, [current.nursery.get(), NONE]) {
            current.unknown.set(task);
            // What is spawned next may be this one: it goes the long way.
            current.watch.set(0);
            // A task for which there was no room has polls; a closure has none.
            if !is_polled {
                self.registry.tasks.unknown_ended();
            }
        }
    }
}

/// When the thread's last poll ended, or it woke up, and the next one begins. A
/// look at the clock costs as much as all else in a hook, and between them is but
/// the scheduler, which works for the next. A task that yields is polled again
/// after a turn of the I/O driver, which is not its own: that takes a look.
#[inline(always)]
fn free_since(current: &Current, worker: WorkerCell<'_>, task: u64) -> Option<u64> {
    let since = current.between.get();
    // Later than what is not known, or passed long ago, and will stay so.
    if since < clock::lately() {
        return None;
    }
    current.between.set(0);
    (!worker.polled_last(task)).then_some(since)
}

#[inline(always)]
fn begins(current: &Current, worker: WorkerCell<'_>, task: u64, now: u64) {
    worker.poll_begins(task, now);
    current.began.set(now);
    current.task.set(task);
}

#[inline(always)]
fn ends(current: &Current) {
    current.task.set(0);
    current.began.set(0);
}

/// The poll that this thread is in.
#[inline]
fn poll(current: &Current) -> Poll {
    Poll {
        task: current.task.get(),
        cell: current.cell.get(),
        worker: current.worker.get(),
        began: current.began.get(),
    }
}

#[cold]
fn nest(current: &Current) {
    OUTER.with_borrow_mut(|outer| {
        if outer.len() < MAX_NESTED {
            outer.push(Outer {
                poll: poll(current),
                registry: current.registry.get(),
                watch: current.watch.get(),
            });
            current.depth.set(outer.len() as u16);
        }
    });
    // The short ways know nothing of outer polls.
    current.watch.set(0);
}

/// Back in the outer poll.
#[cold]
fn unnest(current: &Current) {
    OUTER.with_borrow_mut(|outer| {
        if let Some(Outer { poll, registry, watch }) = outer.pop() {
            current.task.set(poll.task);
            current.began.set(poll.began);
            current.cell.set(poll.cell);
            current.worker.set(poll.worker);
            current.registry.set(registry);
            current.watch.set(watch);
        }
        current.depth.set(outer.len() as u16);
    });
}
