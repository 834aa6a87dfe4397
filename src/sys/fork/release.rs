//! The end of a copy, a piece at a time.
//!
//! A process that exits gives its memory back in one go, some 3 ms for 100 MiB
//! in 4 KiB pages, and the scheduler lets it have its slice: whoever wakes
//! meanwhile on that processor waits, and that may be a worker of the server.
//! So a copy is told to end through a word that it shares with the server. It
//! gives its large regions back first, lets others run in between, and exits.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::raw;
use super::super::remote::PAGE;

/// Regions remembered, largest first. Of the rest, the exit takes care.
const REGIONS: usize = 512;
/// What is smaller is left to the exit.
const SMALL: u64 = 1 << 20;
/// Given back at once: what one page of a page table maps.
const PIECE: usize = 2 << 20;
/// So long the copy works before it lets others run, in nanoseconds.
const TURN_NS: i64 = 500_000;
/// Around the copy's own stack nothing is given back.
const STACK: usize = super::STACK;

/// The large regions of a copy: an array, to lie on the stack of the thread
/// that makes the copy, since a heap is among what is given back.
pub struct Regions {
    list: [(usize, usize); REGIONS],
    len: usize,
}

impl Regions {
    /// The largest of these.
    pub fn of(mut ranges: Vec<Range<u64>>) -> Self {
        ranges.retain(|range| range.end.saturating_sub(range.start) >= SMALL);
        ranges.sort_unstable_by_key(|range| std::cmp::Reverse(range.end - range.start));
        let mut regions = Self { list: [(0, 0); REGIONS], len: ranges.len().min(REGIONS) };
        for (place, range) in regions.list.iter_mut().zip(ranges) {
            *place = (range.start as usize, range.end as usize);
        }
        regions
    }

    /// Gives them back but for what is around `stack`, an address on the stack
    /// of the caller. They read as zeroes from then on.
    ///
    /// # Safety
    /// Nobody may need them any more.
    pub unsafe fn release(&self, stack: usize) {
        let mut began = now_ns();
        for &(start, end) in self.list.iter().take(self.len) {
            let mut at = start;
            while at < end {
                let next = (at | (PIECE - 1)).wrapping_add(1).min(end);
                if next <= stack.wrapping_sub(STACK) || at >= stack.wrapping_add(STACK) {
                    let length = next.wrapping_sub(at);
                    let advice = libc::MADV_DONTNEED as usize;
                    // SAFETY: not needed, by the caller's word. What cannot be
                    // given back stays until the exit.
                    unsafe { raw::call(libc::SYS_madvise, [at, length, advice, 0, 0, 0]) };
                }
                at = next;
                let now = now_ns();
                if now.wrapping_sub(began) >= TURN_NS {
                    // SAFETY: touches no memory.
                    unsafe { raw::call(libc::SYS_sched_yield, [0; 6]) };
                    began = now_ns();
                }
            }
        }
    }
}

fn now_ns() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let clock = libc::CLOCK_MONOTONIC as usize;
    // SAFETY: the pointer is to a live timespec.
    unsafe { raw::call(libc::SYS_clock_gettime, [clock, (&raw mut now) as usize, 0, 0, 0, 0]) };
    now.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec)
}

/// The word by which a copy is told to end; both sides see it.
#[derive(Debug)]
pub struct Word(NonNull<AtomicU32>);

// SAFETY: an atomic in a mapping of its own, which goes with this value.
unsafe impl Send for Word {}
// SAFETY: as above.
unsafe impl Sync for Word {}

impl Word {
    /// Maps it. To be done before the copy is made.
    pub fn new() -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, prot, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast()).map(Self).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn get(&self) -> &AtomicU32 {
        // SAFETY: mapped as long as `self` lives, zeroed, aligned to a page.
        unsafe { self.0.as_ref() }
    }

    /// What the copy waits for.
    pub fn address(&self) -> usize {
        self.0.as_ptr() as usize
    }

    /// Tells the copy to end.
    pub fn tell(&self) {
        self.get().store(1, Ordering::Release);
        // SAFETY: a futex wake on a mapped word.
        unsafe { libc::syscall(libc::SYS_futex, self.address(), libc::FUTEX_WAKE, 1) };
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing refers to any more; the
        // copy's is another.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE) };
    }
}

/// In the copy: sleeps until it is told to end, and is true then; or until
/// the deadline. Being stopped and continued ends a sleep early.
///
/// # Safety
/// `word` is the address of a [`Word`], mapped here.
pub unsafe fn told(word: usize, until: &libc::timespec) -> bool {
    let wait = libc::FUTEX_WAIT_BITSET as usize;
    let any = libc::FUTEX_BITSET_MATCH_ANY as u32 as usize;
    let until = (&raw const *until) as usize;
    loop {
        // SAFETY: by the caller's word; the deadline is absolute, by the
        // monotonic clock, see futex(2).
        let slept = unsafe { raw::call(libc::SYS_futex, [word, wait, 0, until, 0, any]) };
        // SAFETY: as above.
        if unsafe { (*(word as *const AtomicU32)).load(Ordering::Acquire) } != 0 {
            return true;
        }
        if slept != 0 && slept != -(libc::EINTR as isize) && slept != -(libc::EAGAIN as isize) {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::region::Region;

    #[test]
    fn regions_are_given_back_but_for_the_stack() {
        let mut memory = Region::new(9 << 20).unwrap();
        memory.fill(7);
        let start = memory.as_ptr() as u64;
        let range = start..start + memory.len() as u64;
        let stack = start as usize + (5 << 20);
        let small = 0..SMALL - 1;
        let regions = Regions::of(vec![small, range]);
        assert_eq!(regions.len, 1, "small ones are not worth a call");
        // SAFETY: nobody needs the region but this test, which expects it.
        unsafe { regions.release(stack) };
        let there = |at: usize| memory[at] == 7;
        assert!(!there(0) && !there((9 << 20) - 1), "both ends are given back");
        assert!(there((5 << 20) - STACK) && there((5 << 20) + STACK - 1), "the stack stays");
        let kept = memory.chunks(PAGE).filter(|page| page[0] == 7).count() * PAGE;
        assert!(kept <= 2 * PIECE, "{kept} bytes stay");
    }

    #[test]
    fn the_largest_regions_are_remembered() {
        let many = (1..=2 * REGIONS as u64).map(|n| (n << 40)..(n << 40) + SMALL + n);
        let regions = Regions::of(many.collect());
        assert_eq!(regions.len, REGIONS);
        let last = regions.list[REGIONS - 1];
        assert_eq!((last.1 - last.0) as u64, SMALL + REGIONS as u64 + 1);
    }
}
