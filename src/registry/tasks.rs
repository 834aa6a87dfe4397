//! Live tasks: one cache line each, written by the runtime hooks without a lock.
//!
//! Memory is two zeroed arrays of fixed virtual size, the cells and an index
//! for those that their tasks' ids do not lead to. What is resident follows the
//! peak of live tasks: about 64 bytes a task, and up to 32 of index.

mod cell;
mod cells;
mod index;
mod short;

use std::panic;
use std::sync::Arc;

use self::cell::{Cell, Copied, Torn};
use self::cells::{Cells, Table};
pub use self::short::ShortWay;
use super::places::{Names, Places};
use super::streams::{SlotInfo, Streams};
use super::tally::Tally;
use crate::model::{Task, TaskId};
use crate::sys::current::{self, NO_SLOT, NONE};
use crate::sys::{room, thread};

/// Live tasks held unless configured otherwise.
pub const DEFAULT_MAX_TASKS: usize = 200_000;
/// Polled by a thread that is no worker of a runtime.
pub const NO_WORKER: u16 = (1 << 11) - 1;

/// A task that goes from stream to stream so often while it is looked at is
/// told without one.
const MOST_TAGGED: usize = 16;

/// A task is looked for again so often if it is not where it was found.
const LOOKS: usize = 4;

// Totals in the tally.
const SPAWNED: usize = 0;
const ENDED: usize = 1;
const DROPPED: usize = 2;
const UNKNOWN_ENDED: usize = 3;
const STILLBORN: usize = 4;

/// Until the guard is dropped, tasks that this thread spawns belong to the
/// stream of `slot` from their birth, whoever the spawner is.
///
/// A guard, and no function that takes a closure: `#[track_caller]` ends at a
/// closure, and the tasks would all be spawned here.
pub fn spawning_for(slot: u32) -> SpawningFor {
    SpawningFor { before: current::get().spawning_for.replace(slot) }
}

/// Says that the tasks spawned meanwhile belong to a stream.
#[must_use = "it is over once this is dropped"]
pub struct SpawningFor {
    before: u32,
}

impl Drop for SpawningFor {
    fn drop(&mut self) {
        current::get().spawning_for.set(self.before);
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
    pub parent_cell: u32,
    /// The runtime's small number.
    pub runtime: u8,
    /// Where it was spawned.
    pub place: Option<&'static panic::Location<'static>>,
    /// When, in ticks.
    pub now: u64,
}

/// What a hook knows of a poll.
#[derive(Clone, Copy, Debug)]
pub struct Poll {
    /// tokio's id.
    pub task: u64,
    /// The task's cell; [`NONE`] if it is not held.
    pub cell: u32,
    /// On which worker.
    pub worker: u16,
    /// Since when, in ticks.
    pub began: u64,
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

    /// What the hooks need for the short way.
    pub fn short_way(&self) -> ShortWay {
        ShortWay { table: self.cells.table.clone(), tally: self.tally.clone() }
    }

    /// The first cell of a thread's nursery, from its line in the tallies.
    pub fn nursery(&self, line: u32) -> Option<u32> {
        self.cells.nursery(line)
    }

    /// A task was spawned, by a thread with that nursery ([`NONE`] for none).
    /// Never fails: without room it is counted, not held.
    pub fn spawned(&self, birth: &Birth, nursery: u32) {
        self.tally.count(SPAWNED);
        let slot = self.retained(match current::get().spawning_for.get() {
            NO_SLOT => self.cells.table.get(birth.parent_cell).map_or(NO_SLOT, |cell| cell.slot()),
            slot => slot,
        });
        let young = self.cells.table.get(cells::in_nursery(nursery, birth.id));
        let cell = young.filter(|cell| cell.is_free());
        match cell.or_else(|| Some(self.cells.enter(birth.id)?.1)) {
            Some(cell) => cell.fill(birth, slot),
            None => {
                self.release_slot(slot);
                self.tally.count(DROPPED);
            }
        }
    }

    /// A poll begins on `worker`. `likely` are nurseries that may have the task.
    /// Returns its cell; [`NONE`] if it is not held.
    #[inline]
    pub fn polling(&self, id: u64, worker: u16, now: u64, likely: [u32; 2]) -> u32 {
        let Some((mut number, mut cell)) = self.cells.hold(id, likely) else { return NONE };
        if Table::is_nursery(number) && !cell.is_new() {
            (number, cell) = self.cells.settle_down(number, id);
        }
        cell.polling(worker, now);
        number
    }

    /// A poll returned `Pending`.
    pub fn polled(&self, poll: &Poll, now: u64) {
        let Some(mut cell) = self.cells.table.get(poll.cell) else { return };
        if Table::is_nursery(poll.cell) {
            if self.cells.grow_up(poll, now) {
                return;
            }
            // The next poll, which has begun, may have moved it.
            if !cell.holds(poll.task)
                && let Some((_, moved)) = self.cells.find(poll.task)
            {
                cell = moved;
            }
        }
        // It may have ended on another worker, as late as this hook is.
        if cell.holds(poll.task) {
            cell.polled(poll.worker, now.saturating_sub(poll.began), now);
        }
    }

    /// The nursery that a cell is in, to be asked for the next task; [`NONE`] if
    /// it is in none.
    #[inline]
    pub fn nursery_of(&self, cell: u32) -> u32 {
        if Table::is_nursery(cell) { cell - cell % cells::NURSERY } else { NONE }
    }

    /// A task has ended; told once for each, with its cell if it is being polled.
    /// The hook of its last poll comes after this and must not touch the cell
    /// again. False if it was not held.
    pub fn ended(&self, id: u64, cell: u32, likely: [u32; 2]) -> bool {
        let number = match self.cells.table.get(cell) {
            Some(polled) if polled.holds(id) => cell,
            _ => match self.cells.hold(id, likely) {
                Some((number, _)) => number,
                None => return false,
            },
        };
        self.release_slot(self.cells.leave_from(number, id));
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
        let totals = self.totals();
        let live = totals.spawned.saturating_sub(totals.ended + totals.dropped);
        // A task is large and its id small: these are put in order first.
        let mut cells = Vec::new();
        // Without room for all of them it grows as it must.
        let _ = room::reserve(&mut cells, live as usize + 64);
        cells.extend(self.cells.used().filter_map(|cell| Some((cell.id()?, cell))));
        cells.sort_unstable_by_key(|(id, _)| *id);
        // Some were moved meanwhile, and met twice.
        cells.dedup_by_key(|(id, _)| *id);
        let mut tasks = Vec::new();
        let _ = room::reserve(&mut tasks, cells.len());
        let mut torn = 0;
        let mut places = self.places.names();
        for (id, cell) in cells {
            thread::give_way();
            match self.told(id, cell, &mut places, now) {
                Ok(task) => tasks.extend(task),
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
        self.told(id.0, cell, &mut self.places.names(), now).ok()?
    }

    /// A task, with its place and its stream, from the cell where it was found
    /// or the one where it has gone. None if it has ended.
    fn told<'a>(
        &'a self,
        id: u64,
        mut cell: Cell<'a>,
        places: &mut Names<'_>,
        now: u64,
    ) -> Result<Option<Task>, Torn> {
        for _ in 0..LOOKS {
            if let Ok(Some(copied)) = Copied::read(cell)
                && copied.id() == id
                && let Ok(stream) = self.stream_of(cell, &copied)
            {
                let mut task = copied.task(now);
                task.spawned_at = copied.place().map(|place| places.name(place));
                if let Some(stream) = stream {
                    task.stream = Some(stream.stream);
                    task.method = Some(stream.method);
                    task.peer = stream.peer;
                }
                return Ok(Some(task));
            }
            // Ended, and the cell may be another's by now, or moved.
            let Some((_, found)) = self.cells.find(id) else { return Ok(None) };
            cell = found;
        }
        Err(Torn)
    }

    /// The stream of a copied task. A free slot is soon another stream's, so
    /// what it stands for holds only if the task has kept it until after it
    /// was asked for. Torn if the cell is not the task's any more.
    fn stream_of(&self, cell: Cell<'_>, copied: &Copied) -> Result<Option<SlotInfo>, Torn> {
        let mut slot = copied.slot();
        for _ in 0..MOST_TAGGED {
            let stream = self.streams.info(slot);
            match cell.slot() {
                kept if kept == slot => {
                    return if cell.id() == Some(copied.id()) { Ok(stream) } else { Err(Torn) };
                }
                // Tagged meanwhile.
                other => slot = other,
            }
        }
        Ok(None)
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
