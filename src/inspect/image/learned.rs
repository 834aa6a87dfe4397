//! Which large regions an image of this process can do without: those that
//! no walk has read from.
//!
//! A region is left out only if an earlier copy had it, so that it is known
//! to be one that `fork` copies: a program may have asked for the contrary.
//! Whoever reads from one that was left out gets a fault, and the
//! next image has it. Searches for what is not known to be there read all
//! that an image has; they do not count. Every few minutes an image is
//! complete again, so that a search sees everything.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::inspect::maps::{Backing, Mapping};

/// Smaller regions are always copied: they cost half a millisecond each. The
/// heaps of malloc's arenas are four times as large when full, and the one in
/// which dumps themselves are made is seldom needed in one: left out, its
/// pages are not copied when the next dump writes to them.
const LARGE: u64 = 16 << 20;
/// Reads longer than this are searches.
const SEARCH: usize = 128 << 10;
/// Images between complete ones are taken within this time.
const REFRESH: Duration = Duration::from_secs(300);

static LEARNED: Mutex<Learned> =
    Mutex::new(Learned { copied: Vec::new(), needed: Vec::new(), complete: None });

#[derive(Debug, Default)]
struct Learned {
    /// Large regions that a copy had.
    copied: Vec<Range<u64>>,
    /// Those of them that were read from.
    needed: Vec<Range<u64>>,
    /// When the last complete image was taken.
    complete: Option<Instant>,
}

impl Learned {
    fn spare(&self, large: &[Range<u64>], now: Instant) -> Vec<Range<u64>> {
        if self.complete.is_none_or(|complete| now.duration_since(complete) > REFRESH) {
            return Vec::new();
        }
        // A mapping grows and shrinks with its neighbours: what counts is the
        // part that was there before.
        let both = large.iter().flat_map(|range| {
            self.copied.iter().map(|known| range.start.max(known.start)..range.end.min(known.end))
        });
        both.filter(|part| part.end.saturating_sub(part.start) >= LARGE)
            .filter(|part| !self.needed.iter().any(|needed| overlap(needed, part)))
            .collect()
    }

    fn copied(
        &mut self,
        large: &[Range<u64>],
        left_out: &[Range<u64>],
        copy: &[Mapping],
        now: Instant,
    ) {
        if left_out.is_empty() {
            self.complete = Some(now);
            self.needed.clear();
            self.copied.clear();
        }
        // Regions of which nothing was left out.
        for range in large {
            let known = self.copied.iter().any(|known| overlap(known, range));
            if !known && copy.iter().any(|mapping| mapping.range == *range) {
                self.copied.push(range.clone());
            }
        }
        let there = |range: &Range<u64>| large.iter().any(|large| overlap(large, range));
        self.copied.retain(there);
        self.needed.retain(there);
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

fn learned() -> MutexGuard<'static, Learned> {
    LEARNED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Large regions of one image.
#[derive(Debug)]
pub struct Regions {
    /// Ascending; and whether this image's reads have touched it.
    large: Vec<(Range<u64>, bool)>,
    /// Left out of the image.
    left_out: Vec<Range<u64>>,
    /// Something was read from what was left out.
    lacked: bool,
}

impl Regions {
    /// Those among the mappings, and which of them to leave out.
    pub fn plan(mappings: &[Mapping]) -> Self {
        let large: Vec<_> = mappings
            .iter()
            .filter(|mapping| mapping.is_heap() && mapping.backing == Backing::Anonymous)
            .map(|mapping| mapping.range.clone())
            .filter(|range| range.end - range.start >= LARGE)
            .collect();
        let left_out = learned().spare(&large, Instant::now());
        let large = large.into_iter().map(|range| (range, false)).collect();
        Self { large, left_out, lacked: false }
    }

    /// What to leave out.
    pub fn left_out(&self) -> &[Range<u64>] {
        &self.left_out
    }

    /// The image was taken: with everything if not `left_out`. `mappings`
    /// tells what is mapped in it.
    pub fn taken(&mut self, left_out: bool, mappings: impl FnOnce() -> Vec<Mapping>) {
        if !left_out {
            self.left_out.clear();
        }
        let large: Vec<_> = self.large.iter().map(|(range, _)| range.clone()).collect();
        let copy = if large.is_empty() { Vec::new() } else { mappings() };
        learned().copied(&large, &self.left_out, &copy, Instant::now());
    }

    /// Whether the image would have been read where it was left out: the next
    /// one has it.
    pub fn lacked(&self) -> bool {
        self.lacked
    }

    /// A read of the image, whether it succeeded or not.
    pub fn read(&mut self, address: u64, len: usize) {
        if len > SEARCH {
            return;
        }
        let end = address.saturating_add(len as u64);
        for (range, touched) in &mut self.large {
            if !*touched && range.start < end && address < range.end {
                *touched = true;
                learned().needed.push(range.clone());
                self.lacked |= self.left_out.iter().any(|left_out| overlap(left_out, range));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_spared_once_copied_and_while_nobody_needs_it() {
        let now = Instant::now();
        let range = 0x10_0000_0000..0x10_4000_0000_u64;
        let large = [range.clone()];
        let line = b"1000000000-1040000000 rw-p 00000000 00:00 0 \n";
        let mappings = crate::inspect::maps::parse(line);
        let mut learned = Learned::default();
        assert!(learned.spare(&large, now).is_empty(), "never seen");
        learned.copied(&large, &[], &[], now);
        assert!(learned.spare(&large, now).is_empty(), "not in the copy: somebody else's wish");
        learned.copied(&large, &[], &mappings, now);
        assert_eq!(learned.spare(&large, now), large);
        let grown = range.start - 4096..range.end + (256 << 20);
        assert_eq!(learned.spare(&[grown], now), large, "the part that is known");
        let shrunk = range.start..range.start + LARGE / 2;
        assert!(learned.spare(&[shrunk], now).is_empty(), "not worth it");
        assert!(learned.spare(&large, now + REFRESH * 2).is_empty(), "complete now and then");
        learned.needed.push(range);
        assert!(learned.spare(&large, now).is_empty(), "read from");
        // Not needed any more, as a complete image shows.
        learned.copied(&large, &[], &mappings, now);
        assert_eq!(learned.spare(&large, now), large);
    }
}
