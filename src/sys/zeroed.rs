//! Large arrays of zeroed atomics that cost memory only where touched.

use std::alloc::{Layout, handle_alloc_error};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use memmap2::MmapMut;

/// One cache line of counters.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Line(pub [AtomicU64; 8]);

/// An array of lines, in pages of its own. The allocator would not do: it
/// writes the zeroes itself for what is aligned to more than 16 bytes, and so
/// makes all of it resident.
#[derive(Debug)]
pub struct Lines {
    first: NonNull<Line>,
    len: usize,
    /// Unmapped when dropped.
    _map: MmapMut,
}

// SAFETY: the lines belong to this value alone, and are atomics.
unsafe impl Send for Lines {}
// SAFETY: as above.
unsafe impl Sync for Lines {}

/// `n` lines, all zero. Aborts like any allocation if there is no memory.
pub fn lines(n: usize) -> Lines {
    let layout = Layout::array::<Line>(n).expect("callers bound what they ask for");
    let Ok(mut map) = MmapMut::map_anon(layout.size().max(1)) else { handle_alloc_error(layout) };
    // A huge page would be resident as a whole for its first line. Kernels
    // that have none refuse, which is as good.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::NoHugePage);
    let first = NonNull::new(map.as_mut_ptr().cast()).expect("mapped");
    Lines { first, len: n, _map: map }
}

impl Lines {
    /// Has the processor fetch a line that is soon written to. Nothing happens
    /// beyond the end, or where there is no such instruction.
    #[inline(always)]
    pub fn soon(&self, number: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(line) = self.get(number) {
            use core::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            // SAFETY: a prefetch reads nothing and cannot fault.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(std::ptr::from_ref(line).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = number;
    }
}

impl Deref for Lines {
    type Target = [Line];

    #[inline]
    fn deref(&self) -> &[Line] {
        // SAFETY: the map begins at a page, so it is aligned, and has room for
        // `len` lines while `self` lives; all zero bytes, which a new map has,
        // are valid `AtomicU64`s. Nothing writes to it but through them.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn lines_are_zero_and_aligned() {
        for n in [0, 1, 1000] {
            let lines = lines(n);
            assert_eq!(lines.len(), n);
            assert_eq!(lines.as_ptr() as usize % 64, 0);
            assert!(
                lines.iter().flat_map(|line| &line.0).all(|word| word.load(Ordering::Relaxed) == 0)
            );
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_not_touched_is_not_resident() {
        let (pages, all) = (4096, 1 << 20);
        let lines = lines(all);
        let begin = lines.as_ptr() as usize;
        let resident = || {
            let maps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
            let mut kib = None;
            let mut ours = false;
            for line in maps.lines() {
                let mut words = line.split_whitespace();
                let first = words.next().unwrap_or_default();
                if let Some((from, to)) = first.split_once('-') {
                    let at = |text| usize::from_str_radix(text, 16).unwrap_or_default();
                    ours = (at(from)..at(to)).contains(&begin);
                } else if ours && first == "Rss:" {
                    kib = words.next().and_then(|figure| figure.parse::<usize>().ok());
                }
            }
            kib.expect("mapped") * 1024
        };
        // Neighbouring maps of other tests may be listed as one with it.
        let before = resident();
        assert!(before < all * 64 / 2, "{before} bytes");
        for line in lines.iter().step_by(pages / 64).take(100) {
            line.0[0].store(1, Ordering::Relaxed);
        }
        let grown = resident().saturating_sub(before);
        assert!((90 * pages..200 * pages).contains(&grown), "{grown} bytes");
    }
}
