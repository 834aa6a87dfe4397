//! Many threads, whenever their timers expire: a bounded pool of buffers
//! that handlers fill and one reader empties.
//!
//! ```text
//!   FREE ──handler──▶ WRITING ──handler──▶ READY ──reader──▶ FREE
//! ```
//!
//! A handler that finds no free buffer, or a signal of an earlier profile,
//! only counts. Handlers never wait for the reader nor for each other.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use libc::{c_int, ucontext_t};

use super::{Buffer, Sample};
use crate::error::{Error, ErrorKind, Result};

/// Samples that may wait for the reader. It looks every few milliseconds and
/// each running thread makes one in ten.
const BUFFERS: usize = 64;
/// Stack bytes in each: together 4 MiB of address space, resident only as far
/// as it was ever filled.
const STACK: usize = 64 * 1024;

struct Cell {
    phase: AtomicU8,
    buffer: Buffer<STACK>,
}

const FREE: u8 = 0;
const WRITING: u8 = 1;
const READY: u8 = 2;

static CELLS: [Cell; BUFFERS] =
    [const { Cell { phase: AtomicU8::new(FREE), buffer: Buffer::new() } }; BUFFERS];
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// The profile being taken; 0 for none. Signals carry theirs.
static PROFILE: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The right to sample with timers. Only one at a time; ends when dropped.
#[derive(Debug)]
pub struct Recording {
    profile: u64,
}

impl Recording {
    /// Begins to accept samples.
    ///
    /// # Errors
    /// `Busy` while another recording lives, `Unsupported` without a free signal.
    pub fn begin() -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        super::install()?;
        if TAKEN.swap(true, Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Busy, "cpu profiling already in use"));
        }
        let profile = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
        // What handlers of an earlier recording finished after its end.
        for cell in &CELLS {
            let _ = cell.phase.compare_exchange(READY, FREE, Ordering::AcqRel, Ordering::Relaxed);
        }
        LOST.store(0, Ordering::Relaxed);
        PROFILE.store(profile, Ordering::Release);
        Ok(Self { profile })
    }

    /// What timers of this recording must put into their signals.
    pub fn mark(&self) -> u64 {
        self.profile
    }

    /// Hands over every sample that is ready.
    pub fn drain(&self, mut each: impl FnMut(Sample)) {
        for cell in &CELLS {
            if cell.phase.load(Ordering::Acquire) == READY {
                // SAFETY: READY: the handler has let go, and there is only
                // one recording to read.
                let sample = unsafe { cell.buffer.take() };
                cell.phase.store(FREE, Ordering::Release);
                each(sample);
            }
        }
    }

    /// Timer expirations that found no free buffer so far.
    pub fn lost(&self) -> u64 {
        LOST.load(Ordering::Relaxed)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        PROFILE.store(0, Ordering::Release);
        TAKEN.store(false, Ordering::Release);
    }
}

/// Called in the handler.
pub(super) fn on_signal(mark: u64, overrun: c_int, context: &ucontext_t) {
    if mark == 0 || PROFILE.load(Ordering::Acquire) != mark {
        return;
    }
    // While the signal was pending the timer went on and expired `overrun`
    // times more: the same CPU time, seen once.
    let weight = 1 + u64::try_from(overrun).unwrap_or(0);
    let start = NEXT.fetch_add(1, Ordering::Relaxed);
    for offset in 0..BUFFERS {
        let cell = &CELLS[start.wrapping_add(offset) % BUFFERS];
        let mine = cell.phase.compare_exchange(FREE, WRITING, Ordering::AcqRel, Ordering::Relaxed);
        if mine.is_ok() {
            // SAFETY: WRITING was set by us: the buffer is ours.
            unsafe { cell.buffer.fill(context, weight) };
            cell.phase.store(READY, Ordering::Release);
            return;
        }
    }
    LOST.fetch_add(weight, Ordering::Relaxed);
}
