//! Totals that many threads add to, without a locked instruction.
//!
//! Each thread has a cache line of its own and adds to it with a plain load
//! and store; who asks for a total sums them up. Lines are few: a thread that
//! finds none free adds to a common one, with a locked instruction. A thread
//! gives its line back when it ends, and what it has counted stays in it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::zeroed::{self, Lines};

/// Threads that have a line of their own at a time; one line more is common.
const OWN: usize = 256;
const COMMON: usize = OWN;
const UNKNOWN: usize = usize::MAX;

/// Which lines have an owner; the same in every tally of the process.
static TAKEN: [AtomicU64; OWN / 64] = [const { AtomicU64::new(0) }; OWN / 64];

thread_local! {
    static LINE: Cell<usize> = const { Cell::new(UNKNOWN) };
    static OWNED: Owned = take();
}

/// Up to eight totals.
#[derive(Debug)]
pub struct Tally {
    lines: Lines,
}

impl Default for Tally {
    fn default() -> Self {
        Self { lines: zeroed::lines(OWN + 1) }
    }
}

impl Tally {
    /// Adds one to a total.
    #[inline]
    pub fn count(&self, total: usize) {
        let line = line();
        let word = &self.lines[line].0[total];
        if line == COMMON {
            word.fetch_add(1, Ordering::Relaxed);
        } else {
            // No other thread writes it.
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
pub fn line() -> usize {
    match LINE.get() {
        UNKNOWN => find_line(),
        line => line,
    }
}

#[cold]
fn find_line() -> usize {
    // A thread that is ending has given its line back already.
    let line = OWNED.try_with(|owned| owned.0).unwrap_or(COMMON);
    LINE.set(line);
    line
}

/// A line, owned until this is dropped at the thread's end.
struct Owned(usize);

fn take() -> Owned {
    let line = TAKEN.iter().enumerate().find_map(|(n, word)| {
        word.fetch_update(Ordering::Acquire, Ordering::Relaxed, |taken| {
            (taken != u64::MAX).then(|| taken | (taken + 1))
        })
        .ok()
        .map(|before| n * 64 + before.trailing_ones() as usize)
    });
    Owned(line.unwrap_or(COMMON))
}

impl Drop for Owned {
    fn drop(&mut self) {
        LINE.set(COMMON);
        if self.0 != COMMON {
            // Release: the next owner goes on from this one's counts.
            TAKEN[self.0 / 64].fetch_and(!(1 << (self.0 % 64)), Ordering::Release);
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
        assert!(tally.lines[COMMON].0[0].load(Ordering::Relaxed) > 0, "the common line served");
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
