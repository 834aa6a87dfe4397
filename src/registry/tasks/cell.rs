//! A task's cell: one cache line, and how it is written and read.
//!
//! One thread at a time writes it: the spawner, then whoever polls the task,
//! for which tokio gives the order. A reader takes the words between two equal
//! reads of the id, which no two tasks share; a cell that was given to another
//! task in between is torn.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::{Birth, NO_WORKER};
use crate::model::{RuntimeId, Task, TaskId, TaskState};
use crate::registry::clock;
use crate::sys::zeroed::Line;

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

// Ids of no task.
const FREE: u64 = 0;
/// Taken, but not yet filled in.
const TAKEN: u64 = u64::MAX;

/// The longest poll is kept in units of 1,024 ticks: a third of a microsecond
/// at 3 GHz, and cut at 24 minutes.
const LONGEST_SHIFT: u32 = 10;

const SCHEDULED: u64 = 0;
const RUNNING: u64 = 1;
const IDLE: u64 = 2;

/// A cell, by its line.
#[derive(Clone, Copy)]
pub struct Cell<'a>(pub &'a Line);

impl Cell<'_> {
    #[inline]
    fn word(&self, word: usize) -> &AtomicU64 {
        &self.0.0[word]
    }

    /// It is this task's.
    #[inline]
    pub fn is_of(&self, id: u64) -> bool {
        self.word(ID).load(Ordering::Acquire) == id
    }

    /// The task in it.
    pub fn id(&self) -> Option<u64> {
        Some(self.word(ID).load(Ordering::Acquire)).filter(|id| ![FREE, TAKEN].contains(id))
    }

    /// Takes the cell for a task to come; false if it is not free.
    #[inline]
    pub fn take(&self) -> bool {
        let id = self.word(ID);
        id.load(Ordering::Relaxed) == FREE
            && id.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// A new task in a cell that the caller alone holds.
    #[inline]
    pub fn fill(&self, birth: &Birth, slot: u32) {
        // A reader that sees any word of the new task must see that the old id
        // is gone; pairs with the fence in `Copied::read`.
        fence(Ordering::Release);
        self.word(PARENT).store(birth.parent, Ordering::Relaxed);
        self.word(BORN).store(birth.now, Ordering::Relaxed);
        self.word(SINCE).store(birth.now, Ordering::Relaxed);
        self.word(BUSY).store(0, Ordering::Relaxed);
        self.word(POLLS).store(0, Ordering::Relaxed);
        let origin = u64::from(birth.place) << 32 | u64::from(slot);
        self.word(ORIGIN).store(origin, Ordering::Relaxed);
        let state = u64::from(birth.runtime) << 8 | SCHEDULED;
        self.word(STATE).store(state, Ordering::Relaxed);
        self.word(ID).store(birth.id, Ordering::Release);
    }

    /// A poll begins.
    #[inline]
    pub fn polling(&self, worker: u16, now: u64) {
        self.word(SINCE).store(now, Ordering::Relaxed);
        add(self.word(POLLS), 1);
        let state = self.word(STATE).load(Ordering::Relaxed);
        let state = state & !0xFFFF_00FF | u64::from(worker) << 16 | RUNNING;
        self.word(STATE).store(state, Ordering::Release);
    }

    /// The poll returned `Pending`.
    #[inline]
    pub fn polled(&self, ticks: u64, now: u64) {
        add(self.word(BUSY), ticks);
        self.word(SINCE).store(now, Ordering::Relaxed);
        let state = self.word(STATE).load(Ordering::Relaxed);
        let longest = (state >> 32).max((ticks >> LONGEST_SHIFT).min(u64::from(u32::MAX)));
        self.word(STATE).store(longest << 32 | state & 0xFF00 | IDLE, Ordering::Release);
    }

    /// Frees the cell of a task that ends; the slot of its stream then falls to
    /// the caller. A plain store, since nobody else ends this task.
    #[inline]
    pub fn end(&self) -> u32 {
        let slot = self.slot();
        self.word(ID).store(FREE, Ordering::Release);
        slot
    }

    /// The slot of its task's stream.
    #[inline]
    pub fn slot(&self) -> u32 {
        self.word(ORIGIN).load(Ordering::Acquire) as u32
    }

    /// Another slot, from within the task: nobody else writes the word then.
    /// Returns the one before.
    pub fn set_slot(&self, slot: u32) -> u32 {
        let origin = self.word(ORIGIN);
        let before = origin.load(Ordering::Relaxed);
        origin.store(before & !0xFFFF_FFFF | u64::from(slot), Ordering::Release);
        before as u32
    }

    /// In a free cell: the link to the next one.
    pub fn next(&self) -> &AtomicU64 {
        self.word(PARENT)
    }
}

/// Adds to a word that only this thread writes now: cheaper than `fetch_add`.
#[inline]
fn add(word: &AtomicU64, n: u64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// The cell was given to another task while it was read.
pub struct Torn;

/// One consistent copy of a cell.
pub struct Copied {
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
    /// Copies a cell; none if it is free.
    pub fn read(cell: Cell<'_>) -> Result<Option<Self>, Torn> {
        let word = |n: usize| cell.word(n).load(Ordering::Relaxed);
        let Some(id) = cell.id() else { return Ok(None) };
        let copied = Self {
            id,
            parent: word(PARENT),
            born: word(BORN),
            // The state first: a poll stores `since` before it.
            state: cell.word(STATE).load(Ordering::Acquire),
            since: word(SINCE),
            busy: word(BUSY),
            polls: word(POLLS),
            origin: word(ORIGIN),
        };
        fence(Ordering::Acquire);
        if word(ID) == id { Ok(Some(copied)) } else { Err(Torn) }
    }

    /// Whose cell it was.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The number of the place where it was spawned, from 1; 0 for unknown.
    pub fn place(&self) -> usize {
        (self.origin >> 32) as usize
    }

    /// The slot of its stream.
    pub fn slot(&self) -> u32 {
        self.origin as u32
    }

    /// The task, but for names.
    pub fn task(&self, now: u64) -> Task {
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
            unhooked: false,
            wakers: None,
            joinable: None,
            wait: None,
            branches: Box::default(),
            holds: Box::default(),
        }
    }
}
