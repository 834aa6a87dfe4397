//! Which cell is a task's: nearly always the one that its id names.
//!
//! ```text
//!   task id ──► its home in one of the windows,    2,048 cells
//!          │    or one of three other cells       16,384
//!          │    there                            131,072, for 200,000 tasks
//!          └──► index ──► any cell of the rest, where all those are taken
//! ```
//!
//! tokio's ids ascend, so tasks that live at a time have different homes unless
//! old ones are among them: a birth, a poll and an end then cost one cache line,
//! and no look-up. Where a home is taken, the next cell is far from it: those
//! beside it are the homes of the next tasks. New tasks begin with one window,
//! the smallest at first; where that proves crowded they begin with the next. So
//! what is resident follows the tasks that live, not those that ever were.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::cell::Cell;
use super::index::Index;
use crate::registry::tally;
use crate::sys::zeroed::{self, Line, Lines};

/// The smallest window has so many cells: 128 KiB, which a core's own cache
/// holds. Smaller ones are made only where the room is small.
const SMALLEST: usize = 2048;
/// Each window has so many times the cells of the one before.
const GROWTH: usize = 8;
/// Cells of a window that may be a task's.
const WAYS: u32 = 4;
/// A window is crowded if it repels more than one task in so many: if some half
/// of its cells have old tasks.
const CROWDED: u64 = 12;
/// A birth so many ids later has its cell fetched.
const AHEAD: u64 = 4;
/// Cell numbers have 24 bits in an index entry, and 0 means none.
const MOST_CELLS: usize = (1 << 24) - 2;
/// Free lists: a spawning thread uses its own, so that they are not contended.
const FREE_LISTS: usize = 16;

/// All cells: those of the windows, then the rest.
#[derive(Debug)]
pub struct Cells {
    lines: Lines,
    /// From the smallest to the largest.
    windows: Box<[Window]>,
    /// The window to begin with: `first cell << 32 | mask`, and its number.
    begin: AtomicU64,
    beginning: AtomicUsize,
    /// Tasks that it repelled since an id.
    repelled: AtomicU64,
    since: AtomicU64,
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
    first: u32,
    mask: u32,
    /// It has ever had a task, and is worth being looked at.
    used: AtomicBool,
}

impl Window {
    fn packed(&self) -> u64 {
        u64::from(self.first) << 32 | u64::from(self.mask)
    }

    fn choices(&self, id: u64) -> impl Iterator<Item = u32> {
        choices(self.packed(), id)
    }

    fn note_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Release);
        }
    }
}

/// A task's home in a packed window.
#[inline]
fn home_in(window: u64, id: u64) -> u32 {
    in_window(window, home(id))
}

/// The cell of a packed window at a place, which its low bits are.
#[inline]
fn in_window(window: u64, place: u64) -> u32 {
    (window >> 32) as u32 + (place & window & 0xFFFF_FFFF) as u32
}

/// The cells of a packed window that may be a task's, its home first.
#[inline]
fn choices(window: u64, id: u64) -> impl Iterator<Item = u32> {
    (0..WAYS).map(move |way| in_window(window, place(id, way)))
}

/// Where in a window a task may be, by the low bits. A page of homes has its
/// other places in a page again, which differs from one page of homes to the next
/// at random: tasks that stay come in patterns, and must not meet everywhere.
#[inline]
fn place(id: u64, way: u32) -> u64 {
    // 2^64 over the golden ratio; the high bits of a product depend on all bits.
    let page = (id >> 6).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let other = if way == 0 { 0 } else { page >> (54 - 10 * way) };
    home(id) ^ other
}

/// Which of a window's cells, by its low bits. Ids that come in strides (of
/// each request one task may stay) find all cells, and neighbours stay so.
#[inline]
fn home(id: u64) -> u64 {
    id ^ folded(id)
}

/// Of the next ids, too, in each 32 of them.
#[inline]
fn folded(id: u64) -> u64 {
    id >> 5 ^ id >> 11
}

impl Cells {
    /// Room for `max` tasks (at most 16 million).
    pub fn new(max: usize) -> Self {
        let max = max.clamp(1, MOST_CELLS);
        // Two thirds for the largest window and an eighth of that, and so on,
        // leave a fourth at least for the rest.
        let mut sizes = vec![1 << (max * 2 / 3).max(1).ilog2()];
        while sizes[0] / GROWTH >= SMALLEST {
            sizes.insert(0, sizes[0] / GROWTH);
        }
        let mut rest = 0;
        let windows: Box<[Window]> = sizes
            .into_iter()
            .map(|size| {
                let first = rest as u32;
                rest += size;
                Window { first, mask: size as u32 - 1, used: AtomicBool::new(first == 0) }
            })
            .collect();
        Self {
            lines: zeroed::lines(max),
            begin: AtomicU64::new(windows[0].packed()),
            windows,
            beginning: AtomicUsize::new(0),
            repelled: AtomicU64::new(0),
            since: AtomicU64::new(0),
            rest: rest as u32,
            fresh: AtomicU32::new(rest as u32),
            free: Default::default(),
            index: Index::new(max - rest),
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

    /// The window to begin with, packed. Which one that is may change at any
    /// time: it is where to look first, and no more.
    #[inline]
    fn first(&self) -> u64 {
        self.begin.load(Ordering::Acquire)
    }

    /// A task's cell.
    #[inline]
    pub fn find(&self, id: u64) -> Option<(u32, Cell<'_>)> {
        let first = self.first();
        let number = home_in(first, id);
        let cell = self.at(number);
        if cell.is_of(id) { Some((number, cell)) } else { self.find_beside(first, id) }
    }

    /// Hooks are small for having this out of their way, and what follows.
    #[inline(never)]
    fn find_beside(&self, first: u64, id: u64) -> Option<(u32, Cell<'_>)> {
        let mut cells = choices(first, id).skip(1).map(|number| (number, self.at(number)));
        cells.find(|(_, cell)| cell.is_of(id)).or_else(|| self.find_further(id))
    }

    #[cold]
    fn find_further(&self, id: u64) -> Option<(u32, Cell<'_>)> {
        let choices = self.windows.iter().flat_map(|window| window.choices(id));
        let mut cells = choices.map(|number| (number, self.at(number)));
        cells.find(|(_, cell)| cell.is_of(id)).or_else(|| {
            let number = self.index.find(id, |number| self.at(number).is_of(id))?.number;
            Some((number, self.at(number)))
        })
    }

    /// A cell for a new task, which is found in it once the caller has filled
    /// it. None if there is no room.
    #[inline]
    pub fn enter(&self, id: u64) -> Option<Cell<'_>> {
        let first = self.first();
        // Ids ascend: the line of a birth to come is far from the processor,
        // and a locked instruction would wait for it. One in eight is another's.
        let folded = folded(id);
        self.lines.soon(in_window(first, id.wrapping_add(AHEAD) ^ folded) as usize);
        let cell = self.at(in_window(first, id ^ folded));
        if cell.take() { Some(cell) } else { self.enter_beside(first, id) }
    }

    #[inline(never)]
    fn enter_beside(&self, first: u64, id: u64) -> Option<Cell<'_>> {
        let mut cells = choices(first, id).skip(1).map(|number| self.at(number));
        cells.find(Cell::take).or_else(|| self.enter_further(id))
    }

    #[cold]
    fn enter_further(&self, id: u64) -> Option<Cell<'_>> {
        let beginning = self.beginning.load(Ordering::Relaxed).min(self.windows.len() - 1);
        self.note_repelled(id, beginning);
        let (smaller, others) = self.windows.split_at(beginning);
        for window in others[1..].iter().chain(smaller.iter().rev()) {
            let mut cells = window.choices(id).map(|number| self.at(number));
            if let Some(cell) = cells.find(Cell::take) {
                window.note_used();
                return Some(cell);
            }
        }
        let number = self.take_from_rest()?;
        // Nobody asks the index for this id before its cell is filled.
        if !self.index.enter(id, number) {
            self.push(number);
            return None;
        }
        Some(self.at(number))
    }

    /// A task has ended: frees its cell. Returns the slot of its stream, which
    /// then falls to the caller; none if there is no such task.
    #[inline]
    pub fn leave(&self, id: u64) -> Option<u32> {
        let cell = self.at(home_in(self.first(), id));
        if cell.is_of(id) { Some(cell.end()) } else { self.leave_beside(id) }
    }

    /// The same, where its cell is known.
    #[inline]
    pub fn leave_from(&self, number: u32, id: u64) -> Option<u32> {
        match self.get(number).filter(|cell| number < self.rest && cell.is_of(id)) {
            Some(cell) => Some(cell.end()),
            None => self.leave(id),
        }
    }

    #[inline(never)]
    fn leave_beside(&self, id: u64) -> Option<u32> {
        let (number, cell) = self.find(id)?;
        if number < self.rest {
            return Some(cell.end());
        }
        let found = self.index.find(id, |number| self.at(number).is_of(id))?;
        found.leave();
        let slot = cell.end();
        self.push(number);
        Some(slot)
    }

    /// All cells that may hold a task.
    pub fn used(&self) -> impl Iterator<Item = Cell<'_>> {
        let windows = self.windows.iter().filter(|window| window.used.load(Ordering::Acquire));
        let windows = windows.flat_map(|window| {
            let first = window.first as usize;
            &self.lines[first..=first + window.mask as usize]
        });
        let rest = &self.lines[self.rest as usize..self.fresh.load(Ordering::Acquire) as usize];
        windows.chain(rest).map(Cell)
    }

    /// Goes on to the next window if this one repels too many. The figures are
    /// rough where threads meet, and need not be better: nothing but the order
    /// of looking depends on them.
    fn note_repelled(&self, id: u64, beginning: usize) {
        let window = &self.windows[beginning];
        let repelled = self.repelled.fetch_add(1, Ordering::Relaxed) + 1;
        if repelled <= u64::from(window.mask) / 8 {
            return;
        }
        // Ids count the tasks that were spawned meanwhile.
        let spawned = id.saturating_sub(self.since.swap(id, Ordering::Relaxed));
        self.repelled.store(0, Ordering::Relaxed);
        if let Some(next) = self.windows.get(beginning + 1)
            && repelled.saturating_mul(CROWDED) > spawned
        {
            next.note_used();
            // Release: who finds tasks there must find it used.
            self.begin.store(next.packed(), Ordering::Release);
            self.beginning.store(beginning + 1, Ordering::Relaxed);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::tasks::{Birth, CellNumber};

    fn enter(cells: &Cells, id: u64) {
        let birth =
            Birth { id, parent: 0, parent_cell: CellNumber::NONE, runtime: 0, place: 0, now: 1 };
        cells.enter(id).unwrap_or_else(|| panic!("room for {id}")).fill(&birth, 0);
    }

    /// Of a million tasks every `stride`-th stays, up to `most`.
    fn crowd(stride: u64, most: usize) -> Cells {
        let cells = Cells::new(200_000);
        let mut stay = Vec::new();
        for id in 1..=1_000_000 {
            enter(&cells, id);
            if id % stride == 0 && stay.len() < most {
                stay.push(id);
            } else {
                assert_eq!(cells.leave(id), Some(0));
            }
        }
        assert!(stay.iter().all(|&id| cells.find(id).is_some_and(|(_, cell)| cell.is_of(id))));
        assert_eq!(cells.used().filter_map(|cell| cell.id()).count(), stay.len());
        cells
    }

    #[test]
    fn new_tasks_begin_where_there_is_room() {
        for (most, window) in [(0, 0), (100, 0), (5_000, 1), (60_000, 2)] {
            let cells = crowd(8, most);
            assert_eq!(cells.beginning.load(Ordering::Relaxed), window, "{most} tasks that stay");
        }
    }

    /// However the tasks that stay are spread, another hundred thousand find
    /// their first choices free, nearly all of them.
    #[test]
    fn few_must_look_further() {
        for stride in [1, 2, 3, 7, 16, 20, 64, 100] {
            let cells = crowd(stride, 50_000);
            let further = (1_000_001..=1_100_000).filter(|&id| {
                // As many live at a time.
                if id > 1_000_064 {
                    cells.leave(id - 64);
                }
                enter(&cells, id);
                !choices(cells.first(), id).any(|number| cells.at(number).is_of(id))
            });
            let further = further.count();
            assert!(further < 2_000, "of each {stride}th that stays: {further} of 100,000");
        }
    }

    #[test]
    fn strides_find_all_homes() {
        for stride in [2, 3, 7, 16, 64, 100, 256, 1_000, 1_024] {
            let mask = SMALLEST as u64 - 1;
            let homes: std::collections::HashSet<u64> =
                (0..SMALLEST as u64 / 2).map(|n| home(n * stride) & mask).collect();
            assert!(homes.len() > SMALLEST / 4, "stride {stride}: {} homes", homes.len());
        }
    }

    #[test]
    fn every_cell_is_given_out_whatever_the_bound() {
        for max in [1, 2, 3, 10, 1_000, 20_000] {
            let cells = Cells::new(max);
            let birth = |id| Birth {
                id,
                parent: 0,
                parent_cell: CellNumber::NONE,
                runtime: 0,
                place: 0,
                now: 1,
            };
            let all = 40 * max as u64 + 10_000;
            let held = (1..all)
                .filter_map(|id| cells.enter(id).map(|cell| cell.fill(&birth(id), 0)))
                .count();
            assert_eq!(held, max);
        }
    }
}
