//! The short way of the hooks: a task that is born, polled and over on one worker.
//!
//! The cells of a worker's nursery are given out by its thread alone, without a
//! locked instruction. What is not so simple (a task of a stream, an older one, a
//! cell that is taken) goes the long way, by [`Tasks`](super::Tasks).

use std::panic::Location;

use super::cell::Cell;
use super::cells::in_nursery;
use super::{Birth, ENDED, SPAWNED};
use crate::registry::tally::Tally;
use crate::sys::current::{Current, NO_SLOT};
use crate::sys::zeroed::{Array, PlacedLine};

/// What hooks hold themselves, so that nothing is a pointer away.
#[derive(Clone, Debug)]
pub struct Nurseries {
    pub(super) lines: Array<PlacedLine>,
    /// The first cell that is found by the index.
    pub(super) rest: u32,
    pub(super) tally: Tally,
}

/// A task whose first poll is to begin.
#[derive(Clone, Copy)]
pub struct Newborn<'a> {
    number: u32,
    cell: Cell<'a>,
}

impl Newborn<'_> {
    /// Its first poll begins.
    #[inline(always)]
    pub fn polling(&self, current: &Current, now: u64) {
        self.cell.first_polling(current.worker.get(), now);
        current.cell.set(self.number);
    }
}

impl Nurseries {
    #[inline(always)]
    fn get(&self, number: u32) -> Option<Cell<'_>> {
        self.lines.get(number as usize).map(Cell)
    }

    /// The word of an id in a cell is of this task.
    #[inline]
    pub fn is_of(word: u64, id: u64) -> bool {
        Cell::id_in(word) == id
    }

    /// A task is spawned by the one that this thread polls. False if that goes
    /// the long way, as below.
    #[inline(always)]
    pub fn spawned(
        &self,
        current: &Current,
        id: u64,
        runtime: u8,
        place: &'static Location<'static>,
    ) -> bool {
        let Some(parent) = self.get(current.cell.get()) else { return false };
        let Some(cell) = self.get(in_nursery(current.nursery.get(), id)) else { return false };
        if parent.slot() != NO_SLOT || !cell.is_free() {
            return false;
        }
        let birth = Birth {
            id,
            parent: current.task.get(),
            parent_cell: current.cell.get(),
            runtime,
            place: Some(place),
            now: current.began.get(),
        };
        cell.fill(&birth, NO_SLOT);
        self.tally.count_on(current.line.get(), SPAWNED);
        true
    }

    /// A task in this thread's nursery that was never polled.
    #[inline(always)]
    pub fn newborn(&self, current: &Current, id: u64) -> Option<Newborn<'_>> {
        let number = in_nursery(current.nursery.get(), id);
        let cell = self.get(number)?;
        (cell.is_of(id) && cell.is_new()).then_some(Newborn { number, cell })
    }

    /// The task that this thread polls has ended.
    #[inline(always)]
    pub fn ended(&self, current: &Current) -> bool {
        let number = current.cell.get();
        let Some(cell) = self.get(number).filter(|_| number < self.rest) else { return false };
        if cell.slot() != NO_SLOT {
            return false;
        }
        cell.end();
        self.tally.count_on(current.line.get(), ENDED);
        true
    }
}
