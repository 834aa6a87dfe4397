//! Live tasks: one cache line each, written by the runtime hooks without a lock.
//!
//! ```text
//!   task id ──► index: buckets of 8 entries, each (40 bits of id, cell number)
//!                         │            4 candidate buckets an id
//!                         ▼
//!               cells: 64 bytes a task, from free lists, else fresh
//! ```
//!
//! - A cell is written by one thread at a time: the spawner, then whoever polls
//!   the task, for which tokio gives the order.
//! - A reader takes a cell between two equal reads of its id; a cell that was
//!   reused in between is skipped and counted as torn.
//! - Memory is two zeroed arrays of fixed virtual size. Ended tasks' cells are
//!   reused first, so what is resident follows the peak of live tasks: about 64
//!   bytes a task, and 16 to 32 of index.

mod index;

use std::cell::Cell as LocalCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use self::index::{Found, Index};
use super::clock;
use super::places::Places;
use super::streams::{SlotInfo, Streams};
use crate::model::{RuntimeId, Task, TaskId, TaskState};
use crate::sys::zeroed::{self, Line};

/// Live tasks held unless configured otherwise.
pub const DEFAULT_MAX_TASKS: usize = 200_000;
/// Cell numbers have 24 bits in an index entry, and 0 means none.
const MOST_TASKS: usize = (1 << 24) - 2;
/// Free lists: a spawning thread uses its own, so that they are not contended.
const FREE_LISTS: usize = 16;

// Words of a cell.
const ID: usize = 0;
/// While the cell is free: the next free cell.
const PARENT: usize = 1;
const BORN: usize = 2;
const SINCE: usize = 3;
const BUSY: usize = 4;
const POLLS: usize = 5;
/// `place << 32 | stream slot`
const ORIGIN: usize = 6;
/// `longest poll in units of ticks << 32 | worker << 16 | runtime << 8 | state`
const STATE: usize = 7;

/// The longest poll is kept in units of 1,024 ticks: a third of a microsecond
/// at 3 GHz, and cut at 24 minutes.
const LONGEST_SHIFT: u32 = 10;

const SCHEDULED: u64 = 0;
const RUNNING: u64 = 1;
const IDLE: u64 = 2;

/// "Not on a stream."
const NO_SLOT: u32 = u32::MAX;

thread_local! {
    /// Which free list this thread uses.
    static LIST: LocalCell<usize> = const { LocalCell::new(usize::MAX) };
    /// Slot that tasks spawned right now belong to; see [`spawning_for`].
    static SPAWNING_FOR: LocalCell<u32> = const { LocalCell::new(NO_SLOT) };
}

/// Runs `spawn`; tasks that it spawns belong to the stream of `slot` from
/// their birth, whoever the spawner is.
pub fn spawning_for<T>(slot: u32, spawn: impl FnOnce() -> T) -> T {
    struct Restore(u32);
    impl Drop for Restore {
        fn drop(&mut self) {
            SPAWNING_FOR.set(self.0);
        }
    }
    let _restore = Restore(SPAWNING_FOR.replace(slot));
    spawn()
}

/// What a hook knows of a new task.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// tokio's id.
    pub id: u64,
    /// The spawning task; 0 for none.
    pub parent: u64,
    /// The runtime's small number.
    pub runtime: u8,
    /// From [`Places::intern`]; 0 for unknown.
    pub place: u32,
}

/// The number of a cell; names it to the hook that ends the poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellNumber(u32);

impl CellNumber {
    /// The task is not held, or is no more.
    pub const NONE: Self = Self(u32::MAX);
}

/// All live tasks that the hooks have seen.
#[derive(Debug)]
pub struct Tasks {
    cells: Box<[Line]>,
    index: Index,
    /// Cells never used start here.
    fresh: AtomicU32,
    /// Heads: `tag << 32 | cell + 1`; the tag defeats ABA.
    free: [Line; FREE_LISTS],
    streams: Arc<Streams>,
    /// Where tasks were spawned.
    pub places: Places,
    spawned: AtomicU64,
    ended: AtomicU64,
    dropped: AtomicU64,
    unknown_ended: AtomicU64,
}

/// Totals of the task table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskTotals {
    /// Tasks seen spawning.
    pub spawned: u64,
    /// Of those that were held, ended.
    pub ended: u64,
    /// Not held for want of room.
    pub dropped: u64,
    /// Ends of what was not held: `spawn_blocking` closures and dropped tasks.
    pub unknown_ended: u64,
}

impl Tasks {
    /// Room for `max` live tasks (at most 16 million).
    pub fn new(max: usize, streams: Arc<Streams>) -> Self {
        let max = max.clamp(1, MOST_TASKS);
        Self {
            cells: zeroed::lines(max),
            index: Index::new(max),
            fresh: AtomicU32::new(0),
            free: Default::default(),
            streams,
            places: Places::default(),
            spawned: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            unknown_ended: AtomicU64::new(0),
        }
    }

    /// A task was spawned. Never fails: without room it is counted, not held.
    pub fn spawned(&self, birth: Birth) {
        self.spawned.fetch_add(1, Ordering::Relaxed);
        let Some(number) = self.take_cell() else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let slot = self.retained(match SPAWNING_FOR.get() {
            NO_SLOT if birth.parent != 0 => self.slot_of(birth.parent),
            slot => slot,
        });
        let now = clock::now();
        let cell = &self.cells[number as usize].0;
        // A reader that sees any word of the new task must see that the old id
        // is gone; pairs with the fence in `Copied::read`.
        fence(Ordering::Release);
        cell[PARENT].store(birth.parent, Ordering::Relaxed);
        cell[BORN].store(now, Ordering::Relaxed);
        cell[SINCE].store(now, Ordering::Relaxed);
        cell[BUSY].store(0, Ordering::Relaxed);
        cell[POLLS].store(0, Ordering::Relaxed);
        cell[ORIGIN].store(u64::from(birth.place) << 32 | u64::from(slot), Ordering::Relaxed);
        cell[STATE].store(u64::from(birth.runtime) << 8 | SCHEDULED, Ordering::Relaxed);
        cell[ID].store(birth.id, Ordering::Release);
        if !self.index.enter(birth.id, number) {
            self.free_cell(number);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A poll begins on `worker`. Returns the cell for [`polled`](Self::polled).
    #[inline]
    pub fn polling(&self, id: u64, worker: u16, now: u64) -> CellNumber {
        let Some(number) = self.lookup(id) else { return CellNumber::NONE };
        let cell = &self.cells[number as usize].0;
        cell[SINCE].store(now, Ordering::Relaxed);
        add(&cell[POLLS], 1);
        let state = cell[STATE].load(Ordering::Relaxed);
        let state = state & !0xFFFF_00FF | u64::from(worker) << 16 | RUNNING;
        cell[STATE].store(state, Ordering::Release);
        CellNumber(number)
    }

    /// The poll that `polling` announced returned `Pending`.
    #[inline]
    pub fn polled(&self, cell: CellNumber, began: u64, now: u64) {
        let Some(Line(cell)) = self.cells.get(cell.0 as usize) else { return };
        let ticks = now.saturating_sub(began);
        add(&cell[BUSY], ticks);
        cell[SINCE].store(now, Ordering::Relaxed);
        let state = cell[STATE].load(Ordering::Relaxed);
        let longest = (state >> 32).max((ticks >> LONGEST_SHIFT).min(u64::from(u32::MAX)));
        cell[STATE].store(longest << 32 | state & 0xFF00 | IDLE, Ordering::Release);
    }

    /// A task has ended. The hook of its last poll comes after this and must
    /// not touch the cell again.
    pub fn ended(&self, id: u64) {
        match self.leave(id) {
            Some(number) => {
                self.free_cell(number);
                self.ended.fetch_add(1, Ordering::Relaxed);
            }
            None => {
                self.unknown_ended.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Says which stream caused a task; its children inherit it. `slot` is the
    /// stream's slot in [`Streams`]; the task takes a reference to it. Nothing
    /// happens if the task is not held. Call it from within the task.
    pub fn tag(&self, task: TaskId, slot: u32) {
        let Some(number) = self.lookup(task.0) else { return };
        let slot = self.retained(slot);
        let origin = &self.cells[number as usize].0[ORIGIN];
        // From within the task, so nobody else writes the word now.
        let before = origin.load(Ordering::Relaxed);
        origin.store(before & !0xFFFF_FFFF | u64::from(slot), Ordering::Release);
        self.release_slot(before as u32);
    }

    /// Forgets the tasks of a runtime that is gone.
    pub fn forget_runtime(&self, runtime: u8) {
        for number in 0..self.used() {
            let cell = &self.cells[number].0;
            let id = cell[ID].load(Ordering::Acquire);
            if id != 0 && (cell[STATE].load(Ordering::Relaxed) >> 8) as u8 == runtime {
                self.ended(id);
            }
        }
    }

    /// Totals so far.
    pub fn totals(&self) -> TaskTotals {
        TaskTotals {
            spawned: self.spawned.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            unknown_ended: self.unknown_ended.load(Ordering::Relaxed),
        }
    }

    /// Copies all live tasks, by id, and counts those that changed under the
    /// reader's hands. `slots` tells which streams they belong to.
    pub fn snapshot(&self, now: u64, slots: &[Option<SlotInfo>]) -> (Vec<Task>, u64) {
        let places = self.places.all();
        let totals = self.totals();
        let live = totals.spawned.saturating_sub(totals.ended + totals.dropped);
        let mut tasks = Vec::with_capacity(live as usize + 64);
        let mut torn = 0;
        for line in &self.cells[..self.used()] {
            match Copied::read(line) {
                Ok(None) => {}
                Ok(Some(copied)) => {
                    let place = (copied.origin >> 32) as usize;
                    let slot = copied.origin as u32 as usize;
                    let stream = slots.get(slot).and_then(Option::as_ref);
                    let mut task = copied.task(now);
                    task.spawned_at = place.checked_sub(1).and_then(|n| places.get(n)).cloned();
                    task.stream = stream.map(|stream| stream.stream);
                    task.method = stream.map(|stream| stream.method.clone());
                    task.peer = stream.and_then(|stream| stream.peer.clone());
                    tasks.push(task);
                }
                Err(Torn) => torn += 1,
            }
        }
        tasks.sort_unstable_by_key(|task| task.id);
        (tasks, torn)
    }

    /// One live task, without the cost of a whole snapshot.
    pub fn get(&self, id: TaskId, now: u64) -> Option<Task> {
        let number = self.lookup(id.0)?;
        let copied = Copied::read(&self.cells[number as usize]).ok()??;
        let mut task = copied.task(now);
        let place = ((copied.origin >> 32) as usize).checked_sub(1);
        task.spawned_at = place.and_then(|n| self.places.all().get(n).cloned());
        if let Some(stream) = self.streams.info(copied.origin as u32) {
            task.stream = Some(stream.stream);
            task.method = Some(stream.method);
            task.peer = stream.peer;
        }
        (task.id == id).then_some(task)
    }

    /// Cells ever used.
    fn used(&self) -> usize {
        (self.fresh.load(Ordering::Acquire) as usize).min(self.cells.len())
    }

    fn slot_of(&self, id: u64) -> u32 {
        self.lookup(id).map_or(NO_SLOT, |number| {
            self.cells[number as usize].0[ORIGIN].load(Ordering::Relaxed) as u32
        })
    }

    /// The slot with a reference taken, or none if it stands for nothing.
    fn retained(&self, slot: u32) -> u32 {
        if slot != NO_SLOT && self.streams.retain(slot) { slot } else { NO_SLOT }
    }

    fn release_slot(&self, slot: u32) {
        if slot != NO_SLOT {
            self.streams.release(slot);
        }
    }

    #[inline]
    fn lookup(&self, id: u64) -> Option<u32> {
        self.find(id).map(|found| found.number)
    }

    #[inline]
    fn find(&self, id: u64) -> Option<Found<'_>> {
        self.index
            .find(id, |number| self.cells[number as usize].0[ID].load(Ordering::Acquire) == id)
    }

    fn leave(&self, id: u64) -> Option<u32> {
        let found = self.find(id)?;
        // Else another thread was first.
        found.leave().then_some(found.number)
    }

    fn take_cell(&self) -> Option<u32> {
        let own = own_list();
        if let Some(number) = self.pop(own) {
            return Some(number);
        }
        let fresh = self.fresh.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |fresh| {
            ((fresh as usize) < self.cells.len()).then_some(fresh + 1)
        });
        fresh.ok().or_else(|| (0..FREE_LISTS).find_map(|list| self.pop(list)))
    }

    fn free_cell(&self, number: u32) {
        let cell = &self.cells[number as usize].0;
        cell[ID].store(0, Ordering::Release);
        self.release_slot(cell[ORIGIN].load(Ordering::Acquire) as u32);
        let head = &self.free[own_list()].0[0];
        let mut before = head.load(Ordering::Relaxed);
        loop {
            cell[PARENT].store(before & 0xFFFF_FFFF, Ordering::Relaxed);
            let after = (before >> 32).wrapping_add(1) << 32 | u64::from(number + 1);
            match head.compare_exchange_weak(before, after, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => before = now,
            }
        }
    }

    fn pop(&self, list: usize) -> Option<u32> {
        let head = &self.free[list].0[0];
        let mut before = head.load(Ordering::Acquire);
        loop {
            let number = (before as u32).checked_sub(1)?;
            let next = self.cells[number as usize].0[PARENT].load(Ordering::Relaxed);
            let after = (before >> 32).wrapping_add(1) << 32 | next & 0xFFFF_FFFF;
            match head.compare_exchange_weak(before, after, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(number),
                Err(now) => before = now,
            }
        }
    }
}

/// Adds to a word that only this thread writes now: cheaper than `fetch_add`.
#[inline]
fn add(word: &AtomicU64, n: u64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

fn own_list() -> usize {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let list = LIST.get();
    if list != usize::MAX {
        return list;
    }
    let list = NEXT.fetch_add(1, Ordering::Relaxed) as usize % FREE_LISTS;
    LIST.set(list);
    list
}

/// The cell was given to another task while it was read.
struct Torn;

/// One consistent copy of a cell.
struct Copied {
    id: u64,
    parent: u64,
    born: u64,
    since: u64,
    busy: u64,
    polls: u64,
    origin: u64,
    state: u64,
}

impl Copied {
    fn read(line: &Line) -> Result<Option<Self>, Torn> {
        let word = |n: usize| line.0[n].load(Ordering::Relaxed);
        let id = line.0[ID].load(Ordering::Acquire);
        if id == 0 {
            return Ok(None);
        }
        let copied = Self {
            id,
            parent: word(PARENT),
            born: word(BORN),
            // The state first: a poll stores `since` before it.
            state: line.0[STATE].load(Ordering::Acquire),
            since: word(SINCE),
            busy: word(BUSY),
            polls: word(POLLS),
            origin: word(ORIGIN),
        };
        fence(Ordering::Acquire);
        if word(ID) == id { Ok(Some(copied)) } else { Err(Torn) }
    }

    fn task(&self, now: u64) -> Task {
        let running = self.state & 0xFF == RUNNING;
        let state_ns = clock::delta_ns(self.since, now);
        let current = if running { state_ns } else { 0 };
        Task {
            id: TaskId(self.id),
            parent: (self.parent != 0).then_some(TaskId(self.parent)),
            runtime: RuntimeId(u64::from((self.state >> 8) as u8)),
            spawned_at: None,
            method: None,
            peer: None,
            stream: None,
            state: match self.state & 0xFF {
                RUNNING => TaskState::Running,
                SCHEDULED => TaskState::Scheduled,
                _ => TaskState::Idle,
            },
            worker: running
                .then_some((self.state >> 16) as u16)
                .filter(|&worker| worker != NO_WORKER)
                .map(u32::from),
            state_ns,
            age_ns: clock::delta_ns(self.born, now),
            polls: self.polls,
            busy_ns: clock::ticks_ns(self.busy).saturating_add(current),
            longest_poll_ns: clock::ticks_ns((self.state >> 32) << LONGEST_SHIFT).max(current),
            stack: None,
            wait: None,
            unhooked: false,
            wakers: None,
            branches: Box::default(),
            holds: Box::default(),
        }
    }
}

/// Polled by a thread that is no worker of a runtime.
pub const NO_WORKER: u16 = u16::MAX;

#[cfg(test)]
mod tests;
