//! A task's cell: one cache line, and how it is written and read.
//!
//! One thread at a time writes it: the spawner, then whoever polls the task,
//! for which tokio gives the order. (Its hook after a poll comes when another
//! worker may poll the task already; what is late there is a figure or two.) A
//! reader takes the words between two equal reads of the id, which no two tasks
//! share; a cell that was given to another task in between is torn.
//!
//! The hook after a task's first poll [moves](Cell::grow_up) it from its nursery,
//! while another worker may begin the next poll. Who wins is decided in the word
//! of the id, which is only once the id alone:
//!
//! ```text
//!   hook after the first poll               hook before the next, elsewhere
//!   takes a cell, copies, marks it MOVING
//!   nursery: id ──► free                    nursery: id ──► id, STAYS
//!   other:   MOVING ──► id                  if it was moved: MOVING ──► id
//! ```
//!
//! What stays is its poller's alone, who moves it then.

use std::panic::Location;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::{Birth, NO_WORKER, Poll};
use crate::model::{RuntimeId, Task, TaskId, TaskState};
use crate::registry::clock;
use crate::sys::zeroed::PlacedLine;

// Words of a cell.
const ID: usize = 0;
/// While the cell is free: the next free cell.
const PARENT: usize = 1;
const BORN: usize = 2;
/// From the first poll on.
const SINCE: usize = 3;
const BUSY: usize = 4;
/// `polls << 21 | runtime << 13 | worker << 2 | state`
const POLLS: usize = 5;

// Half words: of two writers at a time, each has its own.
/// Slot of its stream.
const SLOT: usize = 0;
/// Longest poll, in units of ticks.
const LONGEST: usize = 1;

// The word of the id. tokio counts tasks: 2^62 are more than there will be.
const FREE: u64 = 0;
const ID_MASK: u64 = STAYS - 1;
/// In a nursery: the hook after the first poll does not move it any more.
const STAYS: u64 = 1 << 62;
/// It is being moved here.
const MOVING: u64 = 1 << 63;
/// Taken, but not yet filled in.
const TAKEN: u64 = MOVING;

/// The longest poll is kept in units of 1,024 ticks: a third of a microsecond
/// at 3 GHz, and cut at 24 minutes.
const LONGEST_SHIFT: u32 = 10;

const SCHEDULED: u64 = 0;
const RUNNING: u64 = 1;
const IDLE: u64 = 2;
const STATE: u64 = 0b11;
const WORKER_SHIFT: u32 = 2;
const RUNTIME_SHIFT: u32 = 13;
const ONE_POLL: u64 = 1 << 21;
/// Of the last poll alone.
const LAST: u64 = (1 << RUNTIME_SHIFT) - 1;

/// A cell, by its line.
#[derive(Clone, Copy)]
pub struct Cell<'a>(pub &'a PlacedLine);

impl Cell<'_> {
    #[inline(always)]
    fn word(&self, word: usize) -> &AtomicU64 {
        &self.0.words[word]
    }

    #[inline(always)]
    fn half(&self, half: usize) -> &AtomicU32 {
        &self.0.halves[half]
    }

    /// It is this task's, and not on its way from or to another.
    #[inline(always)]
    pub fn is_of(&self, id: u64) -> bool {
        self.word(ID).load(Ordering::Acquire) == id
    }

    /// It is this task's, or will be if it is moved here.
    pub fn holds(&self, id: u64) -> bool {
        self.word(ID).load(Ordering::Acquire) & ID_MASK == id
    }

    /// The task in it.
    pub fn id(&self) -> Option<u64> {
        Some(self.word(ID).load(Ordering::Acquire) & ID_MASK).filter(|id| *id != FREE)
    }

    /// It is nobody's.
    #[inline(always)]
    pub fn is_free(&self) -> bool {
        self.word(ID).load(Ordering::Acquire) == FREE
    }

    /// Takes the cell for a task to come; false if it is not free.
    #[inline]
    pub fn take(&self) -> bool {
        let id = self.word(ID);
        id.load(Ordering::Relaxed) == FREE
            && id.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// A new task in a cell that the caller alone holds.
    #[inline(always)]
    pub fn fill(&self, birth: &Birth, slot: u32) {
        // A reader that sees any word of the new task must see that the old id
        // is gone; pairs with the fence in `Copied::read`.
        fence(Ordering::Release);
        self.word(PARENT).store(birth.parent, Ordering::Relaxed);
        self.word(BORN).store(birth.now, Ordering::Relaxed);
        self.word(BUSY).store(0, Ordering::Relaxed);
        let polls = u64::from(birth.runtime) << RUNTIME_SHIFT | SCHEDULED;
        self.word(POLLS).store(polls, Ordering::Relaxed);
        self.half(SLOT).store(slot, Ordering::Relaxed);
        self.half(LONGEST).store(0, Ordering::Relaxed);
        self.0.place.store(birth.place);
        self.word(ID).store(birth.id, Ordering::Release);
    }

    /// It was never polled.
    #[inline(always)]
    pub fn is_new(&self) -> bool {
        self.word(POLLS).load(Ordering::Relaxed) < ONE_POLL
    }

    /// A poll begins.
    #[inline(always)]
    pub fn polling(&self, worker: u16, now: u64) {
        let polls = self.word(POLLS).load(Ordering::Relaxed) & !LAST;
        self.word(SINCE).store(now, Ordering::Relaxed);
        let polls = polls.wrapping_add(ONE_POLL) | running_on(worker);
        self.word(POLLS).store(polls, Ordering::Release);
    }

    /// The poll on `worker` returned `Pending`. If another has begun since, it
    /// says what the task does now.
    #[inline]
    pub fn polled(&self, worker: u16, ticks: u64, now: u64) {
        let busy = self.word(BUSY).load(Ordering::Relaxed).wrapping_add(ticks);
        self.word(BUSY).store(busy, Ordering::Relaxed);
        let longest = u32::try_from(ticks >> LONGEST_SHIFT).unwrap_or(u32::MAX);
        if longest > self.half(LONGEST).load(Ordering::Relaxed) {
            self.half(LONGEST).store(longest, Ordering::Relaxed);
        }
        let polls = self.word(POLLS).load(Ordering::Relaxed);
        if polls & LAST == running_on(worker) {
            self.word(SINCE).store(now, Ordering::Relaxed);
            self.word(POLLS).store(polls & !LAST | IDLE, Ordering::Release);
        }
    }

    /// The caller alone holds this task of a nursery, for a poll that is not its
    /// first or for its end: whoever is about to move it since the first poll
    /// will not. False if it was moved.
    pub fn stay(&self, id: u64) -> bool {
        let word = self.word(ID);
        match word.load(Ordering::Acquire) {
            now if now == id => {
                word.compare_exchange(id, id | STAYS, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            }
            now => now == id | STAYS,
        }
    }

    fn copy_to(&self, to: Cell<'_>) {
        // As in `fill`.
        fence(Ordering::Release);
        for word in [PARENT, BORN, SINCE, BUSY, POLLS] {
            to.word(word).store(self.word(word).load(Ordering::Relaxed), Ordering::Relaxed);
        }
        for half in [SLOT, LONGEST] {
            to.half(half).store(self.half(half).load(Ordering::Relaxed), Ordering::Relaxed);
        }
        to.0.place.store(self.0.place.load());
    }

    /// A task of a nursery, whose first poll is over, goes to a cell that the
    /// caller has taken. False if another poll has begun, or the task has ended:
    /// the other cell is still taken then.
    pub fn grow_up(&self, to: Cell<'_>, poll: &Poll, now: u64) -> bool {
        let id = poll.task;
        self.copy_to(to);
        to.polled(poll.worker, now.saturating_sub(poll.began), now);
        to.word(ID).store(MOVING | id, Ordering::Release);
        let moved =
            self.word(ID).compare_exchange(id, FREE, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if moved {
            to.arrive(id);
        } else {
            to.word(ID).store(TAKEN, Ordering::Release);
        }
        moved
    }

    /// The same, by the caller who alone holds the task.
    pub fn move_to(&self, to: Cell<'_>, id: u64) {
        self.copy_to(to);
        to.word(ID).store(id, Ordering::Release);
        self.word(ID).store(FREE, Ordering::Release);
    }

    /// The task that was being moved here is here, as far as the caller is
    /// concerned: its nursery does not have it any more.
    pub fn arrive(&self, id: u64) -> bool {
        let word = self.word(ID);
        match word.load(Ordering::Acquire) {
            now if now == id => true,
            now if now == MOVING | id => {
                let here = word.compare_exchange(now, id, Ordering::AcqRel, Ordering::Acquire);
                here.is_ok() || here == Err(id)
            }
            _ => false,
        }
    }

    /// Frees the cell of a task that ends; the slot of its stream then falls to
    /// the caller. A plain store, since nobody else ends this task, and who is
    /// about to move it sees that it has ended.
    #[inline(always)]
    pub fn end(&self) -> u32 {
        let slot = self.slot();
        self.word(ID).store(FREE, Ordering::Release);
        slot
    }

    /// The slot of its task's stream.
    #[inline(always)]
    pub fn slot(&self) -> u32 {
        self.half(SLOT).load(Ordering::Acquire)
    }

    /// Another slot, from within the task. Returns the one before.
    pub fn set_slot(&self, slot: u32) -> u32 {
        let before = self.slot();
        self.half(SLOT).store(slot, Ordering::Release);
        before
    }

    /// In a free cell: the link to the next one.
    pub fn next(&self) -> &AtomicU64 {
        self.word(PARENT)
    }
}

/// What a poll on a worker says.
#[inline(always)]
fn running_on(worker: u16) -> u64 {
    u64::from(worker & NO_WORKER) << WORKER_SHIFT | RUNNING
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
    slot: u32,
    longest: u32,
    place: Option<&'static Location<'static>>,
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
            polls: cell.word(POLLS).load(Ordering::Acquire),
            since: word(SINCE),
            busy: word(BUSY),
            slot: cell.half(SLOT).load(Ordering::Relaxed),
            longest: cell.half(LONGEST).load(Ordering::Relaxed),
            place: cell.0.place.load(),
        };
        fence(Ordering::Acquire);
        if word(ID) & ID_MASK == id { Ok(Some(copied)) } else { Err(Torn) }
    }

    /// Whose cell it was.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where the task was spawned.
    pub fn place(&self) -> Option<&'static Location<'static>> {
        self.place
    }

    /// The slot of its stream.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The task, but for names.
    pub fn task(&self, now: u64) -> Task {
        let state = self.polls & STATE;
        let running = state == RUNNING;
        // A poll may begin a hair before: where its worker's last one ended.
        let since = if self.polls < ONE_POLL { self.born } else { self.since.max(self.born) };
        let state_ns = clock::delta_ns(since, now);
        let current = if running { state_ns } else { 0 };
        let longest = u64::from(self.longest) << LONGEST_SHIFT;
        let worker = (self.polls >> WORKER_SHIFT) as u16 & NO_WORKER;
        Task {
            id: TaskId(self.id),
            parent: (self.parent != 0).then_some(TaskId(self.parent)),
            runtime: RuntimeId(u64::from((self.polls >> RUNTIME_SHIFT) as u8)),
            spawned_at: None,
            method: None,
            peer: None,
            stream: None,
            state: match state {
                RUNNING => TaskState::Running,
                SCHEDULED => TaskState::Scheduled,
                _ => TaskState::Idle,
            },
            worker: Some(worker).filter(|&worker| running && worker != NO_WORKER).map(u32::from),
            state_ns,
            age_ns: clock::delta_ns(self.born, now),
            polls: self.polls / ONE_POLL,
            busy_ns: clock::ticks_ns(self.busy).saturating_add(current),
            longest_poll_ns: clock::ticks_ns(longest).max(current),
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
