//! The short ways of the hooks: what happens at nearly each of their calls.
//!
//! A task that is born, polled and over on one worker, and one that waits in the
//! cell that is its home. What is not so simple (a task of a stream that begins
//! or ends, a cell that is taken, a worker that takes a task over) goes the long
//! way, by [`Tasks`](super::Tasks).

use std::panic::Location;

use super::cell::Cell;
use super::cells::{Table, in_nursery};
use super::{Birth, ENDED, SPAWNED};
use crate::registry::tally::Tally;
use crate::sys::current::{Current, NO_SLOT};

/// What hooks hold themselves, so that nothing is a pointer away.
#[derive(Clone, Debug)]
pub struct ShortWay {
    pub(super) table: Table,
    pub(super) tally: Tally,
}

/// A task that is to be polled.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    number: u32,
    cell: Cell<'a>,
}

impl Found<'_> {
    /// The poll begins.
    #[inline(always)]
    pub fn polling(&self, current: &Current, now: u64) {
        self.cell.polling(current.worker.get(), now);
        current.cell.set(self.number);
    }
}

impl ShortWay {
    /// A task is spawned by the one that this thread polls, into its nursery,
    /// whose cells it alone gives out: without a locked instruction. False if
    /// that goes the long way, as below.
    #[inline(always)]
    pub fn spawned(
        &self,
        current: &Current,
        id: u64,
        runtime: u8,
        place: &'static Location<'static>,
    ) -> bool {
        let Some(parent) = self.table.get(current.cell.get()) else { return false };
        let Some(cell) = self.table.get(in_nursery(current.nursery.get(), id)) else {
            return false;
        };
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

    /// A task in this thread's nursery that was never polled, or one at home. It
    /// looks first where the last one was: each place is a line to be fetched.
    #[inline(always)]
    pub fn find(&self, current: &Current, id: u64) -> Option<Found<'_>> {
        let home_first = current.found_at_home.get();
        if home_first && let Some((number, cell)) = self.table.at_home(id) {
            return Some(Found { number, cell });
        }
        let number = in_nursery(current.nursery.get(), id);
        let cell = self.table.get(number)?;
        if cell.is_of(id) && cell.is_new() {
            if home_first {
                current.found_at_home.set(false);
            }
            return Some(Found { number, cell });
        }
        if home_first {
            return None;
        }
        let (number, cell) = self.table.at_home(id)?;
        current.found_at_home.set(true);
        Some(Found { number, cell })
    }

    /// The task that this thread polls, if it need not be moved when it waits.
    #[inline(always)]
    pub fn waiting(&self, current: &Current) -> Option<Cell<'_>> {
        let number = current.cell.get();
        if Table::is_nursery(number) {
            return None;
        }
        // It may have ended on another worker, as late as this hook is.
        self.table.get(number).filter(|cell| cell.is_of(current.task.get()))
    }

    /// The task that this thread polls has ended.
    #[inline(always)]
    pub fn ended(&self, current: &Current) -> bool {
        let number = current.cell.get();
        if self.table.is_rest(number) {
            return false;
        }
        let Some(cell) = self.table.get(number).filter(|cell| cell.slot() == NO_SLOT) else {
            return false;
        };
        cell.end();
        self.tally.count_on(current.line.get(), ENDED);
        true
    }
}
