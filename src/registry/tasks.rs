//! Live tasks: one cache line each, written by the runtime hooks without a lock.
//!
//! Memory is two zeroed arrays of fixed virtual size, the cells and an index
//! for those that their tasks' ids do not lead to. What is resident follows the
//! peak of live tasks: about 64 bytes a task, and up to 32 of index.

mod cell;
mod cells;
mod index;

use std::cell::Cell as LocalCell;
use std::sync::Arc;

use self::cell::{Cell, Copied, Torn};
use self::cells::Cells;
use super::places::Places;
use super::streams::{SlotInfo, Streams};
use super::tally::Tally;
use crate::model::{Location, Task, TaskId};
use crate::sys::{room, thread};

/// Live tasks held unless configured otherwise.
pub const DEFAULT_MAX_TASKS: usize = 200_000;
/// Polled by a thread that is no worker of a runtime.
pub const NO_WORKER: u16 = u16::MAX;

/// A task that goes from stream to stream so often while it is looked at is
/// told without one.
const MOST_TAGGED: usize = 16;

/// "Not on a stream."
const NO_SLOT: u32 = u32::MAX;

// Totals in the tally.
const SPAWNED: usize = 0;
const ENDED: usize = 1;
const DROPPED: usize = 2;
const UNKNOWN_ENDED: usize = 3;
const STILLBORN: usize = 4;

thread_local! {
    /// Slot that tasks spawned right now belong to; see [`spawning_for`].
    static SPAWNING_FOR: LocalCell<u32> = const { LocalCell::new(NO_SLOT) };
}

/// Until the guard is dropped, tasks that this thread spawns belong to the
/// stream of `slot` from their birth, whoever the spawner is.
///
/// A guard, and no function that takes a closure: `#[track_caller]` ends at a
/// closure, and the tasks would all be spawned here.
pub fn spawning_for(slot: u32) -> SpawningFor {
    SpawningFor { before: SPAWNING_FOR.replace(slot) }
}

/// Says that the tasks spawned meanwhile belong to a stream.
#[must_use = "it is over once this is dropped"]
pub struct SpawningFor {
    before: u32,
}

impl Drop for SpawningFor {
    fn drop(&mut self) {
        SPAWNING_FOR.set(self.before);
    }
}

/// What a hook knows of a new task.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// tokio's id.
    pub id: u64,
    /// The spawning task; 0 for none.
    pub parent: u64,
    /// Its cell, if it is being polled.
    pub parent_cell: CellNumber,
    /// The runtime's small number.
    pub runtime: u8,
    /// From [`Places::intern`]; 0 for unknown.
    pub place: u32,
    /// When, in ticks.
    pub now: u64,
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
    cells: Cells,
    streams: Arc<Streams>,
    /// Where tasks were spawned.
    pub places: Places,
    tally: Tally,
}

/// Totals of the task table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskTotals {
    /// Tasks seen spawning.
    pub spawned: u64,
    /// Of those, ended; without what was not held for want of room.
    pub ended: u64,
    /// Not held for want of room.
    pub dropped: u64,
    /// Ends of what was never spawned: `spawn_blocking` closures, and the worker
    /// threads of a runtime, which are such closures to tokio.
    pub unknown_ended: u64,
}

impl Tasks {
    /// Room for `max` live tasks (at most 16 million).
    pub fn new(max: usize, streams: Arc<Streams>) -> Self {
        Self { cells: Cells::new(max), streams, places: Places::default(), tally: Tally::default() }
    }

    /// A task was spawned. Never fails: without room it is counted, not held.
    #[inline]
    pub fn spawned(&self, birth: &Birth) {
        self.tally.count(SPAWNED);
        let slot = self.retained(match SPAWNING_FOR.get() {
            NO_SLOT => self.cells.get(birth.parent_cell.0).map_or(NO_SLOT, |cell| cell.slot()),
            slot => slot,
        });
        match self.cells.enter(birth.id) {
            Some(cell) => cell.fill(birth, slot),
            None => {
                self.release_slot(slot);
                self.tally.count(DROPPED);
            }
        }
    }

    /// A poll begins on `worker`. Returns the cell for [`polled`](Self::polled).
    #[inline]
    pub fn polling(&self, id: u64, worker: u16, now: u64) -> CellNumber {
        let Some((number, cell)) = self.cells.find(id) else { return CellNumber::NONE };
        cell.polling(worker, now);
        CellNumber(number)
    }

    /// The poll that `polling` announced returned `Pending`.
    #[inline]
    pub fn polled(&self, cell: CellNumber, began: u64, now: u64) {
        if let Some(cell) = self.cells.get(cell.0) {
            cell.polled(now.saturating_sub(began), now);
        }
    }

    /// A task has ended; told once for each, with its cell if it is being polled.
    /// The hook of its last poll comes after this and must not touch the cell
    /// again. False if it was not held.
    #[inline]
    pub fn ended(&self, id: u64, cell: CellNumber) -> bool {
        let Some(slot) = self.cells.leave_from(cell.0, id) else { return false };
        self.release_slot(slot);
        self.tally.count(ENDED);
        true
    }

    /// Something has ended that is no task, as far as anybody can tell yet.
    #[cold]
    pub fn unknown_ended(&self) {
        self.tally.count(UNKNOWN_ENDED);
    }

    /// A task was spawned whose end [`unknown_ended`](Self::unknown_ended) was
    /// told of before: its runtime is over, and drops what is spawned on it.
    #[cold]
    pub fn stillborn(&self) {
        self.tally.count(STILLBORN);
    }

    /// Says which stream caused a task; its children inherit it. `slot` is the
    /// stream's slot in [`Streams`]; the task takes a reference to it. Nothing
    /// happens if the task is not held. Call it from within the task.
    pub fn tag(&self, task: TaskId, slot: u32) {
        let Some((_, cell)) = self.cells.find(task.0) else { return };
        let before = cell.set_slot(self.retained(slot));
        self.release_slot(before);
    }

    /// Totals so far.
    pub fn totals(&self) -> TaskTotals {
        // What ended was spawned before: asked for in this order, no task
        // seems to end that was never there.
        let (ended, dropped) = (self.tally.total(ENDED), self.tally.total(DROPPED));
        let stillborn = self.tally.total(STILLBORN);
        TaskTotals {
            spawned: self.tally.total(SPAWNED) + stillborn,
            ended: ended + stillborn,
            dropped,
            // Each of the stillborn is among them, and was so before it was told.
            unknown_ended: self.tally.total(UNKNOWN_ENDED).saturating_sub(stillborn),
        }
    }

    /// Copies the tasks that live from the first look to the last, by id, and
    /// counts those that changed under the reader's hands.
    pub fn snapshot(&self, now: u64) -> (Vec<Task>, u64) {
        let places = self.places.all();
        let totals = self.totals();
        let live = totals.spawned.saturating_sub(totals.ended + totals.dropped);
        // A task is large and its id small: these are put in order first.
        let mut cells = Vec::new();
        // Without room for all of them it grows as it must.
        let _ = room::reserve(&mut cells, live as usize + 64);
        cells.extend(self.cells.used().filter_map(|cell| Some((cell.id()?, cell))));
        cells.sort_unstable_by_key(|(id, _)| *id);
        let mut tasks = Vec::new();
        let _ = room::reserve(&mut tasks, cells.len());
        let mut torn = 0;
        for (id, cell) in cells {
            thread::give_way();
            match Copied::read(cell) {
                Ok(Some(copied)) if copied.id() == id => {
                    tasks.push(self.named(cell, &copied, &places, now));
                }
                // Ended since; the cell may be another's by now.
                Ok(_) => {}
                Err(Torn) => torn += 1,
            }
        }
        self.keep_live(&mut tasks);
        (tasks, torn)
    }

    /// Drops what has ended since it was copied. Where tasks come and go all
    /// the time, a list of all that lived at some moment of its making would be
    /// longer than there ever were tasks.
    fn keep_live(&self, tasks: &mut Vec<Task>) {
        tasks.retain(|task| self.cells.find(task.id.0).is_some());
    }

    /// One live task, without the cost of a whole snapshot.
    pub fn get(&self, id: TaskId, now: u64) -> Option<Task> {
        let (_, cell) = self.cells.find(id.0)?;
        let copied = Copied::read(cell).ok()??;
        (copied.id() == id.0).then(|| self.named(cell, &copied, &self.places.all(), now))
    }

    /// A copied task, with its place and its stream.
    fn named(&self, cell: Cell<'_>, copied: &Copied, places: &[Arc<Location>], now: u64) -> Task {
        let mut task = copied.task(now);
        let place = copied.place().checked_sub(1);
        task.spawned_at = place.and_then(|n| places.get(n)).cloned();
        if let Some(stream) = self.stream_of(cell, copied) {
            task.stream = Some(stream.stream);
            task.method = Some(stream.method);
            task.peer = stream.peer;
        }
        task
    }

    /// The stream of a copied task. A free slot is soon another stream's, so
    /// what it stands for holds only if the task has kept it until after it
    /// was asked for.
    fn stream_of(&self, cell: Cell<'_>, copied: &Copied) -> Option<SlotInfo> {
        let mut slot = copied.slot();
        for _ in 0..MOST_TAGGED {
            let stream = self.streams.info(slot);
            match cell.slot() {
                kept if kept == slot => return stream.filter(|_| cell.id() == Some(copied.id())),
                // Tagged meanwhile.
                other => slot = other,
            }
        }
        None
    }

    /// The slot with a reference taken, or none if it stands for nothing.
    #[inline]
    fn retained(&self, slot: u32) -> u32 {
        if slot != NO_SLOT && self.streams.retain(slot) { slot } else { NO_SLOT }
    }

    #[inline]
    fn release_slot(&self, slot: u32) {
        if slot != NO_SLOT {
            self.streams.release(slot);
        }
    }
}

#[cfg(test)]
mod tests;
