//! Large arrays of zeroed atomics that cost memory only where touched.

use std::alloc::{Layout, handle_alloc_error};
use std::ops::Deref;
use std::panic;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use memmap2::MmapMut;

/// One cache line of counters.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Line(pub [AtomicU64; 8]);

/// One cache line of counters and a place in the source.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct PlacedLine {
    /// Counters.
    pub words: [AtomicU64; 6],
    /// Small ones: who writes one leaves the other alone.
    pub halves: [AtomicU32; 2],
    /// The place.
    pub place: Place,
}

/// A place in the source, or none, which threads may exchange.
#[derive(Debug, Default)]
pub struct Place(AtomicPtr<panic::Location<'static>>);

impl Place {
    /// The place that was stored last.
    #[inline]
    pub fn load(&self) -> Option<&'static panic::Location<'static>> {
        // SAFETY: null, or a reference that `store` was given, which is good
        // for ever.
        unsafe { self.0.load(Ordering::Relaxed).as_ref() }
    }

    /// Another place.
    #[inline]
    pub fn store(&self, place: Option<&'static panic::Location<'static>>) {
        let place = place.map_or(ptr::null(), ptr::from_ref);
        self.0.store(place.cast_mut(), Ordering::Relaxed);
    }
}

/// Of which all bytes may be zero, and which threads may share.
///
/// # Safety
/// The type consists of atomics for which zero is a value, and nothing else.
pub unsafe trait Zeroed: Sync {}
// SAFETY: atomic integers.
unsafe impl Zeroed for Line {}
// SAFETY: atomic integers, and an atomic pointer that may be null.
unsafe impl Zeroed for PlacedLine {}

/// An array in pages of its own. The allocator would not do: it writes the
/// zeroes itself for what is aligned to more than 16 bytes, and so makes all of
/// it resident. Its clones are the same array: who reads it often holds one, and
/// is a step nearer.
#[derive(Debug)]
pub struct Array<T> {
    first: NonNull<T>,
    len: usize,
    /// Unmapped when the last clone is dropped.
    map: Arc<MmapMut>,
}

impl<T> Clone for Array<T> {
    fn clone(&self) -> Self {
        Self { first: self.first, len: self.len, map: self.map.clone() }
    }
}

// SAFETY: the elements belong to this value and its clones alone, none of which
// gives out more than a shared reference, and are `Sync`.
unsafe impl<T: Zeroed> Send for Array<T> {}
// SAFETY: as above.
unsafe impl<T: Zeroed> Sync for Array<T> {}

impl<T: Zeroed> Array<T> {
    /// `n` elements, all zero. Aborts like any allocation if there is no memory.
    pub fn new(n: usize) -> Self {
        let layout = Layout::array::<T>(n).expect("callers bound what they ask for");
        let Ok(mut map) = MmapMut::map_anon(layout.size().max(1)) else {
            handle_alloc_error(layout)
        };
        // A huge page would be resident as a whole for its first line. Kernels
        // that have none refuse, which is as good.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::NoHugePage);
        let first = NonNull::new(map.as_mut_ptr().cast()).expect("mapped");
        Self { first, len: n, map: Arc::new(map) }
    }

    /// Has the processor fetch an element that is soon written to. Nothing
    /// happens beyond the end, or where there is no such instruction.
    #[inline(always)]
    pub fn soon(&self, number: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(element) = self.get(number) {
            use core::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            // SAFETY: a prefetch reads nothing and cannot fault.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(ptr::from_ref(element).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = number;
    }
}

impl<T: Zeroed> Deref for Array<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: the map begins at a page, so it is aligned, and has room for
        // `len` elements while `self` lives; all zero bytes, which a new map
        // has, are valid `Zeroed`s. Nothing writes to it but through them.
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
            let lines = Array::<Line>::new(n);
            assert_eq!(lines.len(), n);
            assert_eq!(lines.as_ptr() as usize % 64, 0);
            assert!(
                lines.iter().flat_map(|line| &line.0).all(|word| word.load(Ordering::Relaxed) == 0)
            );
        }
    }

    #[test]
    fn clones_are_one_array_which_lasts_as_long_as_one_of_them() {
        let lines = Array::<PlacedLine>::new(3);
        assert!(lines.iter().all(|line| line.place.load().is_none()));
        let other = lines.clone();
        let here = panic::Location::caller();
        lines[2].place.store(Some(here));
        drop(lines);
        assert_eq!(other[2].place.load(), Some(here));
        assert_eq!(size_of::<PlacedLine>(), 64);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_not_touched_is_not_resident() {
        let (pages, all) = (4096, 1 << 20);
        let lines = Array::<Line>::new(all);
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
