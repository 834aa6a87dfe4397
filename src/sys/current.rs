//! What this thread does now: the poll that it is in, and where hooks write.
//!
//! It is one const-initialised thread-local without a destructor: no lazy
//! registration, no allocation, a plain load or store relative to the thread
//! pointer. So hooks are small, and a signal handler may read which task is
//! being polled. (In a library loaded with `dlopen` the compiler may go through
//! the dynamic linker for a thread's first access; a hook has always made that
//! access before there is anything to read, and a thread that never polls reads
//! the initial 0.)

use std::cell::Cell;

/// No cell, no nursery. Beyond the end of all arrays, and so is what follows it.
pub const NONE: u32 = u32::MAX / 2;
/// The task polled has ended the short way, and its cell may be another's.
pub const ENDED: u32 = NONE + 1;
/// No line of a tally is known yet.
pub const UNKNOWN: u32 = u32::MAX;
/// "Not on a stream."
pub const NO_SLOT: u32 = u32::MAX;

/// This thread, field by field: a struct written in parts and read back in one
/// would stall the processor's store buffer. What each poll needs is one cache
/// line, the first.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Current {
    /// The task polled; 0 outside polls.
    pub task: Cell<u64>,
    /// When the poll began, in ticks; 0 outside polls.
    pub began: Cell<u64>,
    /// When the last poll ended, or the thread woke up, in ticks, if nothing but
    /// tokio's own work has passed since; else 0.
    pub between: Cell<u64>,
    /// The polled task's cell.
    pub cell: Cell<u32>,
    /// Whose hooks know this thread: it is a worker of that runtime, and may use
    /// its nursery and its line. 0 for none.
    pub watch: Cell<u32>,
    /// The first cell of this thread's nursery.
    pub nursery: Cell<u32>,
    /// The nursery where a task was found last by asking.
    pub found_in: Cell<u32>,
    /// The thread's line in every tally; its own while `watch` is set.
    pub line: Cell<u32>,
    /// The slot of the stream that tasks spawned right now belong to.
    pub spawning_for: Cell<u32>,
    /// What [`tid`](Self::tid) knows; 0 before it is asked.
    pub known_tid: Cell<u32>,
    /// The worker that this thread is, or was last.
    pub worker: Cell<u16>,
    /// Polls around this one.
    pub depth: Cell<u16>,
    /// The task polled last was found at home, not in the nursery.
    pub found_at_home: Cell<bool>,
    /// `between` is kept: the application itself never runs between two polls.
    pub keeps_between: Cell<bool>,
    /// The last look at the clock that somebody took in a poll, in ticks.
    pub looked: Cell<u64>,
    /// The last end of a task that was not held.
    pub unknown: Cell<u64>,
    /// Which registry has the polled task's cell, by its address.
    pub registry: Cell<usize>,
}

const _: () = assert!(std::mem::offset_of!(Current, looked) == 64);

thread_local! {
    static CURRENT: Current = const {
        Current {
            task: Cell::new(0),
            began: Cell::new(0),
            between: Cell::new(0),
            cell: Cell::new(NONE),
            watch: Cell::new(0),
            nursery: Cell::new(NONE),
            found_in: Cell::new(0),
            line: Cell::new(UNKNOWN),
            spawning_for: Cell::new(NO_SLOT),
            known_tid: Cell::new(0),
            worker: Cell::new(0),
            depth: Cell::new(0),
            found_at_home: Cell::new(false),
            keeps_between: Cell::new(false),
            looked: Cell::new(0),
            unknown: Cell::new(0),
            registry: Cell::new(0),
        }
    };
}

/// The calling thread's. Do not keep it: it is this thread's alone.
///
/// A reference, and no closure's argument: the closure would be called through
/// a pointer wherever the compiler has not seen through all of it.
#[inline(always)]
pub fn get() -> &'static Current {
    // SAFETY: the value has no destructor, so that it lasts as long as its
    // thread, and `Cell` keeps the reference from reaching another one.
    CURRENT.with(|current| unsafe { &*std::ptr::from_ref(current) })
}

impl Current {
    /// Nothing but tokio's own work passes from now on to the next poll.
    #[inline(always)]
    pub fn is_between(&self, now: u64) {
        self.between.set(if self.keeps_between.get() { now } else { 0 });
    }

    /// The thread's id, asked of the kernel once.
    #[inline(always)]
    pub fn tid(&self) -> u32 {
        match self.known_tid.get() {
            0 => self.ask_tid(),
            tid => tid,
        }
    }

    #[cold]
    fn ask_tid(&self) -> u32 {
        let tid = super::thread::current_tid();
        self.known_tid.set(tid);
        tid
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_thread_has_its_own() {
        let current = super::get();
        current.task.set(7);
        assert_eq!(std::thread::spawn(|| super::get().task.get()).join().unwrap(), 0);
        assert_eq!(super::get().task.get(), 7);
        current.task.set(0);
    }

    #[test]
    fn its_thread_is_asked_once() {
        let current = super::get();
        assert_eq!(current.tid(), crate::sys::thread::current_tid());
        assert_eq!(current.tid(), current.known_tid.get());
    }
}
