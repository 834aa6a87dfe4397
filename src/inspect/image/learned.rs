//! Which large regions an image of this process can do without: those that
//! no walk has read from.
//!
//! A region is left out only if it is known to be one that `fork` copies: a
//! program may have asked for the contrary. An earlier copy had it, or the
//! kernel tells. Whoever reads from one that was left out gets a fault, and
//! the next image has it. Searches for what is not known to be there read all
//! that an image has; they do not count. For their sake the image of a search
//! has a part of what others leave out: with each search it is the next part,
//! until all had their turn.
//!
//! So an image costs what the walk needs and little more, whatever else the
//! process has in memory, and be it the first.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::own::Extent;
use crate::inspect::footprints::Footprint;
use crate::inspect::maps::{Backing, Mapping};

/// Smaller regions are always copied: they cost half a millisecond each. The
/// heaps of malloc's arenas are four times as large when full, and the one in
/// which dumps themselves are made is seldom needed in one: left out, its
/// pages are not copied when the next dump writes to them.
const LARGE: u64 = 16 << 20;
/// The most that an image has of regions of which nothing is known, and of
/// those that only a search wants: some 3 ms.
const SHARE: u64 = 128 << 20;
/// A region that so many images had for nothing is not needed any more.
const FOR_NOTHING: u32 = 30;

static LEARNED: Mutex<Learned> = Mutex::new(Learned { regions: Vec::new() });

#[derive(Debug, Default)]
struct Learned {
    /// Large regions that `fork` copies. They do not overlap.
    regions: Vec<Region>,
}

#[derive(Debug)]
struct Region {
    range: Range<u64>,
    /// Whether walks read from it.
    need: Need,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// No image had it yet, or lacked it.
    Unknown,
    /// None has read from it so far.
    None,
    /// One did, and so many images since did not.
    Since(u32),
}

impl Learned {
    fn knows(&self, range: &Range<u64>) -> bool {
        self.regions.iter().any(|region| overlap(&region.range, range))
    }

    /// Takes the kernel's word for what `fork` copies.
    fn told(&mut self, large: &[Range<u64>], footprints: &[Footprint]) {
        for footprint in footprints.iter().filter(|footprint| footprint.forked) {
            if large.contains(&footprint.range) {
                self.add(&footprint.range, Need::Unknown);
            }
        }
    }

    fn add(&mut self, range: &Range<u64>, need: Need) {
        if !self.knows(range) {
            self.regions.push(Region { range: range.clone(), need });
        }
    }

    /// What to leave out.
    fn spare(&self, large: &[Range<u64>]) -> Vec<Range<u64>> {
        let mut unknown = Vec::new();
        let mut spare = Vec::new();
        for region in &self.regions {
            // A mapping grows and shrinks with its neighbours: what counts is
            // the part that was there before.
            let parts = large.iter().map(|range| common(range, &region.range));
            let parts = parts.filter(|part| length(part) >= LARGE);
            match region.need {
                Need::Unknown => unknown.extend(parts),
                Need::None => spare.extend(parts),
                Need::Since(_) => {}
            }
        }
        unknown.sort_by_key(length);
        let mut share = SHARE;
        for part in unknown {
            match share.checked_sub(length(&part)) {
                Some(rest) => share = rest,
                None => spare.push(part),
            }
        }
        spare.sort_by_key(|part| part.start);
        spare
    }

    /// An image was taken; `mappings` tells what is mapped in it.
    fn taken(&mut self, large: &[Range<u64>], mappings: &[Mapping]) {
        for range in large {
            if mappings.iter().any(|mapping| mapping.range == *range) {
                self.add(range, Need::None);
            }
        }
        self.regions.retain(|region| large.iter().any(|range| overlap(&region.range, range)));
        for region in &mut self.regions {
            region.need = match region.need {
                Need::Since(images) if images < FOR_NOTHING => Need::Since(images + 1),
                _ => Need::None,
            };
        }
    }

    /// Something within the range was read, or would have been.
    fn read(&mut self, range: &Range<u64>) {
        for region in self.regions.iter_mut().filter(|region| overlap(&region.range, range)) {
            region.need = Need::Since(0);
        }
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

fn common(one: &Range<u64>, other: &Range<u64>) -> Range<u64> {
    one.start.max(other.start)..one.end.min(other.end)
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// A share of the ranges (ascending), from that address on and then from the
/// first again; and the address from which the next share is taken.
fn share(ranges: &[Range<u64>], from: u64) -> (Vec<Range<u64>>, u64) {
    let mut share = Vec::new();
    let mut rest = SHARE;
    for turn in [from..u64::MAX, 0..from] {
        for part in ranges.iter().map(|range| common(range, &turn)).filter(|part| length(part) > 0)
        {
            let part = part.start..part.start + length(&part).min(rest);
            rest -= length(&part);
            let end = part.end;
            share.push(part);
            if rest == 0 {
                return (share, end);
            }
        }
    }
    (share, 0)
}

/// Ranges less the holes (ascending), each of which is part of one.
pub fn without(ranges: Vec<Range<u64>>, holes: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut rest = Vec::with_capacity(ranges.len());
    for mut range in ranges {
        for hole in holes {
            if range.contains(&hole.start) {
                rest.push(range.start..hole.start);
                range.start = hole.end.min(range.end);
            }
        }
        rest.push(range);
    }
    rest.retain(|range| !range.is_empty());
    rest
}

fn learned() -> MutexGuard<'static, Learned> {
    LEARNED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Large regions of one image.
#[derive(Debug)]
pub struct Regions {
    /// Ascending; and whether this image's reads have touched it.
    large: Vec<(Range<u64>, bool)>,
    /// Left out of the image; ascending.
    left_out: Vec<Range<u64>>,
    /// Something was read from what was left out.
    lacked: bool,
    /// Where the next search goes on.
    next: u64,
}

impl Regions {
    /// Those among the mappings, and which of them to leave out. The
    /// footprints are asked for where much is unknown.
    pub fn plan(
        mappings: &[Mapping],
        extent: Extent,
        footprints: impl FnOnce() -> Vec<Footprint>,
    ) -> Self {
        let large: Vec<_> = mappings
            .iter()
            .filter(|mapping| mapping.is_heap() && mapping.backing == Backing::Anonymous)
            .map(|mapping| mapping.range.clone())
            .filter(|range| length(range) >= LARGE)
            .collect();
        let mut learned = learned();
        let strange = large.iter().filter(|range| !learned.knows(range));
        if strange.map(length).sum::<u64>() > SHARE {
            learned.told(&large, &footprints());
        }
        let (left_out, next) = match extent {
            Extent::Everything => (Vec::new(), 0),
            Extent::Needed => (learned.spare(&large), 0),
            Extent::Search { from } => {
                let spare = learned.spare(&large);
                let (mut share, next) = share(&spare, from);
                share.sort_by_key(|part| part.start);
                (without(spare, &share), next)
            }
        };
        let large = large.into_iter().map(|range| (range, false)).collect();
        Self { large, left_out, lacked: false, next }
    }

    /// What to leave out.
    pub fn left_out(&self) -> &[Range<u64>] {
        &self.left_out
    }

    /// Where the next search goes on: see [`Extent::Search`].
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The image was taken: with everything if not `left_out`. `mappings`
    /// tells what is mapped in it.
    pub fn taken(&mut self, left_out: bool, mappings: impl FnOnce() -> Vec<Mapping>) {
        if !left_out {
            self.left_out.clear();
        }
        let large: Vec<_> = self.large.iter().map(|(range, _)| range.clone()).collect();
        let copy = if large.is_empty() { Vec::new() } else { mappings() };
        learned().taken(&large, &copy);
    }

    /// Whether the image would have been read where it was left out: the next
    /// one has it.
    pub fn lacked(&self) -> bool {
        self.lacked
    }

    /// A read of the image, whether it succeeded or not. A search's reads are
    /// none.
    pub fn read(&mut self, address: u64, len: usize) {
        let end = address.saturating_add(len as u64);
        let read = address..end;
        for (range, touched) in &mut self.large {
            if overlap(range, &read) {
                if !*touched {
                    *touched = true;
                    learned().read(range);
                }
                self.lacked |= self.left_out.iter().any(|left_out| overlap(left_out, &read));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const START: u64 = 0x10_0000_0000;

    fn at(start: u64, len: u64) -> Range<u64> {
        start..start + len
    }

    fn large(len: u64) -> Range<u64> {
        at(START, len)
    }

    fn mapped(range: &Range<u64>) -> Vec<Mapping> {
        let line = format!("{:x}-{:x} rw-p 00000000 00:00 0 \n", range.start, range.end);
        crate::inspect::maps::parse(line.as_bytes())
    }

    #[test]
    fn a_region_is_spared_once_copied_and_while_nobody_needs_it() {
        let range = large(GIB);
        let large = [range.clone()];
        let mut learned = Learned::default();
        assert!(learned.spare(&large).is_empty(), "never seen");
        learned.taken(&large, &[]);
        assert!(learned.spare(&large).is_empty(), "not in the copy: somebody else's wish");
        learned.taken(&large, &mapped(&range));
        assert_eq!(learned.spare(&large), large);
        let grown = range.start - 4096..range.end + (256 << 20);
        assert_eq!(learned.spare(&[grown]), large, "the part that is known");
        let shrunk = range.start..range.start + LARGE / 2;
        assert!(learned.spare(&[shrunk]).is_empty(), "not worth it");
        learned.read(&(range.start + 5..range.start + 6));
        for _ in 0..=FOR_NOTHING {
            assert!(learned.spare(&large).is_empty(), "read from");
            learned.taken(&large, &mapped(&range));
        }
        assert_eq!(learned.spare(&large), large, "not read from for long");
        learned.taken(&[], &[]);
        assert!(!learned.knows(&range), "it is gone");
    }

    #[test]
    fn the_first_image_has_a_share_of_what_only_the_kernel_knows() {
        let mut learned = Learned::default();
        let ranges = [large(GIB), 2 * START..2 * START + SHARE, 3 * START..3 * START + GIB];
        let [one, small, other] = &ranges;
        let footprint =
            |range: &Range<u64>, forked| Footprint { range: range.clone(), small: 0, forked };
        learned.told(
            &ranges,
            &[footprint(one, true), footprint(small, true), footprint(other, false)],
        );
        let spare = learned.spare(&ranges);
        assert_eq!(spare, std::slice::from_ref(one), "a share, and the program's wish");
        learned.read(one);
        assert!(learned.spare(&ranges).is_empty(), "the next image has it");
    }

    #[test]
    fn each_part_has_its_turn() {
        let ranges = [large(3 * SHARE / 2), 2 * START..2 * START + SHARE];
        let [one, other] = &ranges;
        let (parts, next) = share(&ranges, 0);
        assert_eq!(parts, [at(one.start, SHARE)]);
        let (parts, next) = share(&ranges, next);
        let half = SHARE / 2;
        assert_eq!(parts, [one.start + SHARE..one.end, other.start..other.start + half]);
        let (parts, next) = share(&ranges, next);
        assert_eq!(parts, [other.start + half..other.end, one.start..one.start + half]);
        let (parts, _) = share(&ranges, next);
        assert_eq!(parts, [at(one.start + half, SHARE)], "and so on");
        let all = vec![large(SHARE / 4)];
        assert_eq!(share(&all, 0), (all, 0), "all of it is less than a share");
    }

    #[test]
    fn what_was_left_out_is_no_place_to_search() {
        let rest = without(vec![0..10, 20..90], &[20..30, 40..50]);
        assert_eq!(rest, [0..10, 30..40, 50..90]);
    }
}
