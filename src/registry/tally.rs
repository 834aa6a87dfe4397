//! Totals that many threads add to, without a locked instruction.
//!
//! Each thread has a cache line of its own and adds to it with a plain load
//! and store; who asks for a total sums them up. Lines are few: a thread that
//! finds none free adds to a common one, with a locked instruction. A thread
//! gives its line back when it ends, and what it has counted stays in it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::current::{self, UNKNOWN};
use crate::sys::zeroed::{Array, Line};

/// Threads that have a line of their own at a time; one line more is common.
pub const OWN: usize = 256;
const COMMON: u32 = OWN as u32;

/// Which lines have an owner; the same in every tally of the process.
static TAKEN: [AtomicU64; OWN / 64] = [const { AtomicU64::new(0) }; OWN / 64];

thread_local! {
    static OWNED: Owned = take();
}

/// Up to eight totals. Its clones count the same.
#[derive(Clone, Debug)]
pub struct Tally {
    lines: Array<Line>,
}

impl Default for Tally {
    fn default() -> Self {
        Self { lines: Array::new(OWN + 1) }
    }
}

impl Tally {
    /// Adds one to a total.
    #[inline]
    pub fn count(&self, total: usize) {
        match line() {
            COMMON => _ = self.lines[OWN].0[total].fetch_add(1, Ordering::Relaxed),
            line => self.count_on(line, total),
        }
    }

    /// The same for a thread that knows its [line](own_line).
    #[inline(always)]
    pub fn count_on(&self, line: u32, total: usize) {
        if let Some(line) = self.lines.get(line as usize) {
            // No other thread writes it.
            let word = &line.0[total];
            word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// A total: what has happened before the call, and some of what happens
    /// during it.
    pub fn total(&self, total: usize) -> u64 {
        self.lines.iter().map(|line| line.0[total].load(Ordering::Relaxed)).sum()
    }
}

/// The calling thread's line. Different threads have different ones, but for
/// the last, which is common.
#[inline]
pub fn line() -> u32 {
    match current::get().line.get() {
        UNKNOWN => find_line(),
        line => line,
    }
}

/// The same, if it is the calling thread's alone.
pub fn own_line() -> Option<u32> {
    Some(line()).filter(|&line| line != COMMON)
}

#[cold]
fn find_line() -> u32 {
    // A thread that is ending has given its line back already.
    let line = OWNED.try_with(|owned| owned.0).unwrap_or(COMMON);
    current::get().line.set(line);
    line
}

/// A line, owned until this is dropped at the thread's end.
struct Owned(u32);

fn take() -> Owned {
    let line = TAKEN.iter().enumerate().find_map(|(n, word)| {
        word.fetch_update(Ordering::Acquire, Ordering::Relaxed, |taken| {
            (taken != u64::MAX).then(|| taken | (taken + 1))
        })
        .ok()
        .map(|before| n as u32 * 64 + before.trailing_ones())
    });
    Owned(line.unwrap_or(COMMON))
}

impl Drop for Owned {
    fn drop(&mut self) {
        let current = current::get();
        current.line.set(COMMON);
        // Who knows this thread takes the line for its own, and the nursery.
        current.watch.set(0);
        if self.0 != COMMON {
            // Release: the next owner goes on from this one's counts.
            TAKEN[self.0 as usize / 64].fetch_and(!(1 << (self.0 % 64)), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_count_is_lost_between_threads_that_come_and_go() {
        let tally = Tally::default();
        for _ in 0..4 {
            // More threads than lines, all alive at once.
            let all = std::sync::Barrier::new(OWN + 40);
            std::thread::scope(|scope| {
                for _ in 0..OWN + 40 {
                    scope.spawn(|| {
                        tally.count(0);
                        all.wait();
                        for _ in 0..1_000 {
                            tally.count(1);
                        }
                    });
                }
            });
        }
        assert_eq!(tally.total(0), 4 * (OWN as u64 + 40));
        assert_eq!(tally.total(1), 4_000 * (OWN as u64 + 40));
        assert!(tally.lines[OWN].0[0].load(Ordering::Relaxed) > 0, "the common line served");
    }

    #[test]
    fn a_thread_that_ends_may_still_count() {
        struct Late(std::sync::Arc<Tally>);
        impl Drop for Late {
            fn drop(&mut self) {
                self.0.count(0);
            }
        }
        thread_local!(static LATE: std::cell::RefCell<Option<Late>> = const { std::cell::RefCell::new(None) });
        let tally = std::sync::Arc::new(Tally::default());
        let counted = tally.clone();
        std::thread::spawn(move || {
            // Destroyed last, being the first to be registered.
            LATE.set(Some(Late(counted.clone())));
            counted.count(0);
        })
        .join()
        .expect("thread");
        assert_eq!(tally.total(0), 2);
    }
}
