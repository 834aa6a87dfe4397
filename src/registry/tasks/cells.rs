//! Which cell is a task's: nearly always the one that its id names.
//!
//! ```text
//!   task id ──► home in the 1st window    1,024 cells
//!          └──► home in the 2nd           8,192      where the first is taken
//!          └──► ...                       8 times more, up to half the room
//!          └──► index ──► any cell of the rest        where all are taken
//! ```
//!
//! tokio's ids ascend, so the tasks that live at a time have different homes
//! unless old ones are among them: a birth, a poll and an end then cost one
//! cache line, and no look-up. Tasks that stay fill the windows from the small
//! end, and others go on to the next. What homes cannot give, the index does.
//! So what is resident follows the tasks that live, not those that ever were.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::cell::Cell;
use super::index::Index;
use crate::registry::tally;
use crate::sys::zeroed::{self, Line};

/// Cells of the first window: 64 KiB, which a core's own cache holds.
const FIRST_WINDOW: usize = 1024;
/// Each window has so many times the cells of the one before.
const GROWTH: usize = 8;
/// Cell numbers have 24 bits in an index entry, and 0 means none.
const MOST_CELLS: usize = (1 << 24) - 2;
/// Free lists: a spawning thread uses its own, so that they are not contended.
const FREE_LISTS: usize = 16;

/// All cells: those of the windows, then the rest.
#[derive(Debug)]
pub struct Cells {
    lines: Box<[Line]>,
    /// Of the first window.
    mask: u64,
    further: Vec<Window>,
    /// The rest begins here.
    rest: u32,
    /// Of the rest, those never used start here.
    fresh: AtomicU32,
    /// Heads: `tag << 32 | cell + 1`; the tag defeats ABA.
    free: [Line; FREE_LISTS],
    /// Of tasks in the rest.
    index: Index,
}

#[derive(Debug)]
struct Window {
    /// Number of its first cell.
    begin: u32,
    mask: u64,
    /// It has ever had a task, and is worth being looked at.
    used: AtomicBool,
}

impl Window {
    fn cell_of(&self, home: u64) -> u32 {
        self.begin + (home & self.mask) as u32
    }
}

/// Which of a window's cells, by its low bits. Ids that come in strides (of
/// each request one task may stay) find all cells, and neighbours stay so.
#[inline]
fn home(id: u64) -> u64 {
    id ^ id >> 6 ^ id >> 13
}

impl Cells {
    /// Room for `max` tasks (at most 16 million).
    pub fn new(max: usize) -> Self {
        let max = max.clamp(1, MOST_CELLS);
        let half = (max / 2).max(1);
        let first = FIRST_WINDOW.min(1 << half.ilog2());
        let mut further = Vec::new();
        let (mut begin, mut size) = (first, first * GROWTH);
        while begin + size <= half {
            let (begin32, mask) = (begin as u32, size as u64 - 1);
            further.push(Window { begin: begin32, mask, used: AtomicBool::new(false) });
            begin += size;
            size *= GROWTH;
        }
        Self {
            lines: zeroed::lines(max),
            mask: first as u64 - 1,
            further,
            rest: begin as u32,
            fresh: AtomicU32::new(begin as u32),
            free: Default::default(),
            index: Index::new(max - begin),
        }
    }

    /// The cell of that number.
    #[inline]
    pub fn get(&self, number: u32) -> Option<Cell<'_>> {
        self.lines.get(number as usize).map(Cell)
    }

    #[inline]
    fn at(&self, number: u32) -> Cell<'_> {
        Cell(&self.lines[number as usize])
    }

    /// A task's cell.
    #[inline]
    pub fn find(&self, id: u64) -> Option<(u32, Cell<'_>)> {
        let number = (home(id) & self.mask) as u32;
        let cell = self.at(number);
        if cell.is_of(id) { Some((number, cell)) } else { self.find_further(id) }
    }

    #[cold]
    fn find_further(&self, id: u64) -> Option<(u32, Cell<'_>)> {
        for window in &self.further {
            let number = window.cell_of(home(id));
            if self.at(number).is_of(id) {
                return Some((number, self.at(number)));
            }
        }
        let number = self.index.find(id, |number| self.at(number).is_of(id))?.number;
        Some((number, self.at(number)))
    }

    /// Has a cell filled for a new task, which is found from then on. False if
    /// there is no room.
    #[inline]
    pub fn enter(&self, id: u64, fill: impl FnOnce(Cell<'_>)) -> bool {
        let cell = self.at((home(id) & self.mask) as u32);
        if cell.take() {
            fill(cell);
            return true;
        }
        self.enter_further(id, fill)
    }

    #[cold]
    fn enter_further(&self, id: u64, fill: impl FnOnce(Cell<'_>)) -> bool {
        for window in &self.further {
            let cell = self.at(window.cell_of(home(id)));
            if cell.take() {
                if !window.used.load(Ordering::Relaxed) {
                    window.used.store(true, Ordering::Release);
                }
                fill(cell);
                return true;
            }
        }
        let Some(number) = self.take_from_rest() else { return false };
        // Nobody asks the index for this id before this returns.
        if !self.index.enter(id, number) {
            self.push(number);
            return false;
        }
        fill(self.at(number));
        true
    }

    /// A task has ended: frees its cell. Returns the slot of its stream, which
    /// then falls to the caller; none if there is no such task.
    #[inline]
    pub fn leave(&self, id: u64) -> Option<u32> {
        let number = (home(id) & self.mask) as u32;
        let cell = self.at(number);
        if cell.is_of(id) { cell.end(id) } else { self.leave_further(id) }
    }

    #[cold]
    fn leave_further(&self, id: u64) -> Option<u32> {
        let (number, cell) = self.find_further(id)?;
        if number < self.rest {
            return cell.end(id);
        }
        let found = self.index.find(id, |number| self.at(number).is_of(id))?;
        // Else another thread was first.
        if !found.leave() {
            return None;
        }
        let slot = cell.end(id);
        self.push(number);
        slot
    }

    /// All cells that may hold a task.
    pub fn used(&self) -> impl Iterator<Item = Cell<'_>> {
        let first = &self.lines[..=self.mask as usize];
        let further = self.further.iter().filter(|window| window.used.load(Ordering::Acquire));
        let further = further.flat_map(|window| {
            let begin = window.begin as usize;
            &self.lines[begin..=begin + window.mask as usize]
        });
        let rest = &self.lines[self.rest as usize..self.fresh.load(Ordering::Acquire) as usize];
        first.iter().chain(further).chain(rest).map(Cell)
    }

    fn take_from_rest(&self) -> Option<u32> {
        let own = tally::line() % FREE_LISTS;
        if let Some(number) = self.pop(own) {
            return Some(number);
        }
        let fresh = self.fresh.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |fresh| {
            ((fresh as usize) < self.lines.len()).then_some(fresh + 1)
        });
        fresh.ok().or_else(|| (0..FREE_LISTS).find_map(|list| self.pop(list)))
    }

    fn push(&self, number: u32) {
        let head = &self.free[tally::line() % FREE_LISTS].0[0];
        let mut before = head.load(Ordering::Relaxed);
        loop {
            self.at(number).next().store(before & 0xFFFF_FFFF, Ordering::Relaxed);
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
            let next = self.at(number).next().load(Ordering::Relaxed);
            let after = (before >> 32).wrapping_add(1) << 32 | next & 0xFFFF_FFFF;
            match head.compare_exchange_weak(before, after, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(number),
                Err(now) => before = now,
            }
        }
    }
}
