//! Large arrays of zeroed atomics that cost memory only where touched.

use std::sync::atomic::AtomicU64;

/// One cache line of counters.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Line(pub [AtomicU64; 8]);

/// `n` lines, all zero. The allocator hands out fresh pages for an array of
/// this size without writing to them, so memory grows with use, not with `n`.
pub fn lines(n: usize) -> Box<[Line]> {
    let lines = Box::<[Line]>::new_zeroed_slice(n);
    // SAFETY: `Line` is an array of `AtomicU64`, for which all zero bytes are
    // the valid value 0.
    unsafe { lines.assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn lines_are_zero_and_aligned() {
        let lines = lines(1000);
        assert_eq!(lines.len(), 1000);
        assert_eq!(lines.as_ptr() as usize % 64, 0);
        assert!(
            lines.iter().flat_map(|line| &line.0).all(|word| word.load(Ordering::Relaxed) == 0)
        );
    }
}
