//! Which cell is a task's.
//!
//! ```text
//!   task id ──► its place in the nursery of its thread,    256 cells
//!          │    from its second poll on
//!          ├──► its home in one of the windows,         2,048 cells
//!          │    or one of three other cells            16,384
//!          │    there                                 131,072, for 200,000 tasks
//!          └──► index ──► any cell of the rest, where all those are taken
//! ```
//!
//! Most tasks are born, polled and over on one worker. That is why each worker
//! has a nursery, whose cells it alone gives out: it needs no locked instruction,
//! and finds them in the processor's nearest cache. Who waits goes to a window.
//! tokio's ids ascend, so tasks that live at a time have different homes unless
//! old ones are among them: a poll costs one cache line, and no look-up. Where a
//! home is taken, the next cell is far from it: those beside it are the homes of
//! the next tasks. New tasks begin with one window, the smallest at first; where
//! that proves crowded they begin with the next. So what is resident follows the
//! tasks that live, not those that ever were.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::Poll;
use super::cell::Cell;
use super::index::Index;
use crate::registry::tally;
use crate::sys::zeroed::{Array, Line, PlacedLine};

/// Cells of a nursery. Few of the tasks that a worker has spawned last are more
/// than so many ids apart and still not polled.
pub const NURSERY: u32 = 256;
/// As many threads as have a line of their own in the tallies have a nursery.
const NURSERIES: u32 = tally::OWN as u32;
/// The smallest window has so many cells: 128 KiB, which a core's own cache
/// holds. Smaller ones are made only where the room is small.
const SMALLEST: usize = 2048;
/// Each window has so many times the cells of the one before.
const GROWTH: usize = 8;
/// Cells of a window that may be a task's.
const WAYS: u32 = 4;
/// Of a window that repels tasks so many cells are looked at, ...
const SURVEYED: u32 = 128;
/// ... and if so many are taken, new tasks begin with the next window.
const CROWDED: usize = SURVEYED as usize / 2;
/// A birth so many ids later has its cell fetched.
const AHEAD: u64 = 4;
/// Cell numbers have 24 bits in an index entry, and 0 means none.
const MOST_CELLS: usize = (1 << 24) - 2 - (NURSERIES * NURSERY) as usize;
/// Free lists: a spawning thread uses its own, so that they are not contended.
const FREE_LISTS: usize = 16;

/// All cells: those of the nurseries, of the windows, then the rest. Clones are
/// the same.
#[derive(Clone, Debug)]
pub struct Table {
    lines: Array<PlacedLine>,
    /// The window to begin with: `first cell << 32 | mask`.
    begin: Arc<AtomicU64>,
    /// The rest begins here.
    rest: u32,
}

impl Table {
    /// The cell of that number.
    #[inline(always)]
    pub fn get(&self, number: u32) -> Option<Cell<'_>> {
        self.lines.get(number as usize).map(Cell)
    }

    /// The window to begin with, packed. Which one that is may change at any
    /// time: it is where to look first, and no more.
    #[inline(always)]
    fn first(&self) -> u64 {
        self.begin.load(Ordering::Acquire)
    }

    /// A task's home, if it is there.
    #[inline(always)]
    pub fn at_home(&self, id: u64) -> Option<(u32, Cell<'_>)> {
        let number = home_in(self.first(), id);
        let cell = self.get(number)?;
        cell.is_of(id).then_some((number, cell))
    }

    /// It is a nursery's.
    #[inline(always)]
    pub fn is_nursery(number: u32) -> bool {
        number < NURSERIES * NURSERY
    }

    /// It is one of those that the index leads to, or none.
    #[inline(always)]
    pub fn is_rest(&self, number: u32) -> bool {
        number >= self.rest
    }
}

/// Who has which cell.
#[derive(Debug)]
pub struct Cells {
    pub table: Table,
    /// Nurseries that may have tasks: the first so many.
    nurseries: AtomicU32,
    /// From the smallest to the largest.
    windows: Box<[Window]>,
    /// The number of the window to begin with.
    beginning: AtomicUsize,
    /// Tasks that it repelled since it was surveyed.
    repelled: AtomicU64,
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

/// Where in a nursery a task is.
#[inline(always)]
pub fn in_nursery(first: u32, id: u64) -> u32 {
    first + (id % u64::from(NURSERY)) as u32
}

impl Cells {
    /// Room for `max` tasks (at most 16 million), and for those besides that
    /// their worker's nursery holds.
    pub fn new(max: usize) -> Self {
        let max = max.clamp(1, MOST_CELLS);
        // Two thirds for the largest window and an eighth of that, and so on,
        // leave a fourth at least for the rest.
        let mut sizes = vec![1 << (max * 2 / 3).max(1).ilog2()];
        while sizes[0] / GROWTH >= SMALLEST {
            sizes.insert(0, sizes[0] / GROWTH);
        }
        let nurseries = NURSERIES * NURSERY;
        let mut rest = nurseries as usize;
        let windows: Box<[Window]> = sizes
            .into_iter()
            .map(|size| {
                let first = rest as u32;
                rest += size;
                let used = AtomicBool::new(first == nurseries);
                Window { first, mask: size as u32 - 1, used }
            })
            .collect();
        let all = max + nurseries as usize;
        Self {
            table: Table {
                lines: Array::new(all),
                begin: Arc::new(AtomicU64::new(windows[0].packed())),
                rest: rest as u32,
            },
            nurseries: AtomicU32::new(0),
            windows,
            beginning: AtomicUsize::new(0),
            repelled: AtomicU64::new(0),
            fresh: AtomicU32::new(rest as u32),
            free: Default::default(),
            index: Index::new(all - rest),
        }
    }

    /// The first cell of a thread's nursery, from its line in the tallies.
    pub fn nursery(&self, line: u32) -> Option<u32> {
        if line >= NURSERIES {
            return None;
        }
        // Release: who finds tasks there must find it used.
        self.nurseries.fetch_max(line + 1, Ordering::Release);
        Some(line * NURSERY)
    }

    #[inline]
    fn at(&self, number: u32) -> Cell<'_> {
        Cell(&self.table.lines[number as usize])
    }

    fn first(&self) -> u64 {
        self.table.first()
    }

    /// A task's cell, for who only looks: the task may be moved meanwhile.
    pub fn find(&self, id: u64) -> Option<(u32, Cell<'_>)> {
        let at_home = self.table.at_home(id);
        at_home
            .or_else(|| self.find_grown_up(id, |cell| cell.is_of(id)))
            .or_else(|| {
                let young = self.nurseries().map(|first| in_nursery(first, id));
                let mut cells = young.map(|number| (number, self.at(number)));
                cells.find(|(_, cell)| cell.holds(id))
            })
            // It has gone from one to the other in between, or is on its way.
            .or_else(|| self.find_grown_up(id, |cell| cell.holds(id)))
    }

    /// A task's cell, for who polls the task now or tells its end, and nobody
    /// else does. `likely` are nurseries to be asked first.
    #[inline]
    pub fn hold(&self, id: u64, likely: [u32; 2]) -> Option<(u32, Cell<'_>)> {
        self.table.at_home(id).or_else(|| self.hold_beside(id, likely))
    }

    /// Hooks are small for having this out of their way.
    #[inline(never)]
    fn hold_beside(&self, id: u64, likely: [u32; 2]) -> Option<(u32, Cell<'_>)> {
        let mut likely = likely.into_iter().filter(|first| Table::is_nursery(*first));
        self.find_beside(id)
            .or_else(|| likely.find_map(|first| self.hold_in_nursery(first, id)))
            .or_else(|| self.find_grown_up(id, |cell| cell.is_of(id)))
            .or_else(|| self.nurseries().find_map(|first| self.hold_in_nursery(first, id)))
            // It has gone from one to the other in between, or is on its way.
            .or_else(|| self.find_grown_up(id, |cell| cell.arrive(id)))
    }

    fn hold_in_nursery(&self, first: u32, id: u64) -> Option<(u32, Cell<'_>)> {
        let number = in_nursery(first, id);
        let cell = self.at(number);
        // Before the first poll nobody is about to move it.
        (cell.is_of(id) && cell.is_new() || cell.stay(id)).then_some((number, cell))
    }

    /// The first cells of the nurseries that may have tasks.
    fn nurseries(&self) -> impl Iterator<Item = u32> {
        (0..self.nurseries.load(Ordering::Acquire)).map(|n| n * NURSERY)
    }

    fn find_beside(&self, id: u64) -> Option<(u32, Cell<'_>)> {
        let mut cells = choices(self.first(), id).skip(1).map(|number| (number, self.at(number)));
        cells.find(|(_, cell)| cell.is_of(id))
    }

    /// In any window, or in the rest.
    #[cold]
    fn find_grown_up(&self, id: u64, is: impl Fn(Cell<'_>) -> bool) -> Option<(u32, Cell<'_>)> {
        let choices = self.windows.iter().flat_map(|window| window.choices(id));
        let mut cells = choices.map(|number| (number, self.at(number)));
        cells.find(|(_, cell)| is(*cell)).or_else(|| {
            let number = self.index.find(id, |number| is(self.at(number)))?.number;
            Some((number, self.at(number)))
        })
    }

    /// A cell for a new task outside of nurseries, which is found in it once the
    /// caller has filled it. None if there is no room.
    #[inline]
    pub fn enter(&self, id: u64) -> Option<(u32, Cell<'_>)> {
        let first = self.first();
        // Ids ascend: the line of a birth to come is far from the processor,
        // and a locked instruction would wait for it. One in eight is another's.
        let folded = folded(id);
        self.table.lines.soon(in_window(first, id.wrapping_add(AHEAD) ^ folded) as usize);
        let number = in_window(first, id ^ folded);
        let cell = self.at(number);
        if cell.take() { Some((number, cell)) } else { self.enter_beside(first, id) }
    }

    #[inline(never)]
    fn enter_beside(&self, first: u64, id: u64) -> Option<(u32, Cell<'_>)> {
        let mut cells = choices(first, id).skip(1).map(|number| (number, self.at(number)));
        cells.find(|(_, cell)| cell.take()).or_else(|| self.enter_further(id))
    }

    #[cold]
    fn enter_further(&self, id: u64) -> Option<(u32, Cell<'_>)> {
        let beginning = self.beginning.load(Ordering::Relaxed).min(self.windows.len() - 1);
        self.note_repelled(id, beginning);
        let (smaller, others) = self.windows.split_at(beginning);
        for window in others[1..].iter().chain(smaller.iter().rev()) {
            let mut cells = window.choices(id).map(|number| (number, self.at(number)));
            if let Some(found) = cells.find(|(_, cell)| cell.take()) {
                window.note_used();
                return Some(found);
            }
        }
        let number = self.take_from_rest()?;
        // Nobody asks the index for this id before its cell is filled.
        if !self.index.enter(id, number) {
            self.push(number);
            return None;
        }
        Some((number, self.at(number)))
    }

    /// The first poll of a task in a nursery has returned `Pending`: it goes where
    /// there is room for those that wait. False if there is none, or if the next
    /// poll has begun already; see [`Cell::grow_up`].
    pub fn grow_up(&self, poll: &Poll, now: u64) -> bool {
        let young = self.at(poll.cell);
        if !young.is_of(poll.task) {
            return false;
        }
        let Some((to, grown_up)) = self.enter(poll.task) else { return false };
        let moved = young.grow_up(grown_up, poll, now);
        if !moved {
            self.leave_from(to, poll.task);
        }
        moved
    }

    /// The same for a later poll that begins, by who [holds](Self::hold) the
    /// task. Its cell, which is the same if there is no room.
    pub fn settle_down(&self, number: u32, id: u64) -> (u32, Cell<'_>) {
        let young = self.at(number);
        let Some((to, grown_up)) = self.enter(id) else { return (number, young) };
        young.move_to(grown_up, id);
        (to, grown_up)
    }

    /// A task has ended, or has not come after all: frees its cell, which the
    /// caller holds. Returns the slot of its stream, which then falls to the
    /// caller.
    #[inline]
    pub fn leave_from(&self, number: u32, id: u64) -> u32 {
        if self.table.is_rest(number) {
            return self.leave_rest(number, id);
        }
        self.at(number).end()
    }

    #[cold]
    fn leave_rest(&self, number: u32, id: u64) -> u32 {
        if let Some(found) = self.index.find(id, |at| at == number) {
            found.leave();
        }
        let slot = self.at(number).end();
        self.push(number);
        slot
    }

    /// All cells that may hold a task. Those come first from which tasks go to
    /// others.
    pub fn used(&self) -> impl Iterator<Item = Cell<'_>> {
        let nurseries = (self.nurseries.load(Ordering::Acquire) * NURSERY) as usize;
        let windows = self.windows.iter().filter(|window| window.used.load(Ordering::Acquire));
        let windows = windows.flat_map(|window| {
            let first = window.first as usize;
            &self.table.lines[first..=first + window.mask as usize]
        });
        // Asked for when it is their turn: a task goes there meanwhile.
        let rest = std::iter::once_with(|| {
            &self.table.lines[self.table.rest as usize..self.fresh.load(Ordering::Acquire) as usize]
        });
        self.table.lines[..nurseries].iter().chain(windows).chain(rest.flatten()).map(Cell)
    }

    /// Goes on to the next window if this one, of which some cells are looked
    /// at, is crowded. The figures are rough where threads meet, and need not be
    /// better: nothing but the order of looking depends on them.
    fn note_repelled(&self, id: u64, beginning: usize) {
        let window = &self.windows[beginning];
        let repelled = self.repelled.fetch_add(1, Ordering::Relaxed) + 1;
        if repelled <= u64::from(window.mask) / 8 {
            return;
        }
        self.repelled.store(0, Ordering::Relaxed);
        let Some(next) = self.windows.get(beginning + 1) else { return };
        // Here and there, and not always the same.
        let cells = (0..SURVEYED).map(|n| {
            let place = home(id).wrapping_add(u64::from(n * ((window.mask / SURVEYED) | 1)));
            self.at(in_window(window.packed(), place))
        });
        if cells.filter(|cell| !cell.is_free()).count() >= CROWDED {
            next.note_used();
            // Release: who finds tasks there must find it used.
            self.table.begin.store(next.packed(), Ordering::Release);
            self.beginning.store(beginning + 1, Ordering::Relaxed);
        }
    }

    fn take_from_rest(&self) -> Option<u32> {
        let own = tally::line() as usize % FREE_LISTS;
        if let Some(number) = self.pop(own) {
            return Some(number);
        }
        let fresh = self.fresh.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |fresh| {
            ((fresh as usize) < self.table.lines.len()).then_some(fresh + 1)
        });
        fresh.ok().or_else(|| (0..FREE_LISTS).find_map(|list| self.pop(list)))
    }

    fn push(&self, number: u32) {
        let head = &self.free[tally::line() as usize % FREE_LISTS].0[0];
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
    use crate::registry::tasks::Birth;
    use crate::sys::current::NONE;

    fn enter(cells: &Cells, id: u64) {
        let birth = Birth { id, parent: 0, parent_cell: NONE, runtime: 0, place: None, now: 1 };
        cells.enter(id).unwrap_or_else(|| panic!("room for {id}")).1.fill(&birth, 0);
    }

    fn leave(cells: &Cells, id: u64) -> u32 {
        cells.leave_from(cells.hold(id, [NONE; 2]).expect("held").0, id)
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
                assert_eq!(leave(&cells, id), 0);
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
                    leave(&cells, id - 64);
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
            let birth =
                |id| Birth { id, parent: 0, parent_cell: NONE, runtime: 0, place: None, now: 1 };
            let all = 40 * max as u64 + 10_000;
            let held = (1..all)
                .filter_map(|id| cells.enter(id).map(|(_, cell)| cell.fill(&birth(id), 0)))
                .count();
            assert_eq!(held, max);
        }
    }
}
