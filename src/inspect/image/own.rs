//! The memory of this process as of one instant, read at leisure while the
//! process goes on: see [`crate::sys::fork`].

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use super::learned::{Regions, without};
use super::{Fault, Image, Memory, Origin, bias};
use crate::error::{Error, ErrorKind, Result};
use crate::inspect::footprints::{self, Footprint};
use crate::inspect::maps;
use crate::sys::clock;
use crate::sys::fork::Copy;
use crate::sys::fork::leave_out::LeaveOut;

/// How much of the process an image has. Small regions it always has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What earlier images were read from, as far as it is known.
    Needed,
    /// Besides a share of the rest, from an address on: what was
    /// [`Own::next`] of the search before, or 0.
    Search { from: u64 },
    /// All that can be copied.
    Everything,
}

/// How long a copy may hold up whoever allocates or first writes to a page
/// meanwhile. The kernel copies page tables at some 25 ms for each GiB of
/// memory in 4 KiB pages; in huge pages it is next to nothing.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The image is gone after so long.
    pub life: Duration,
    /// The longest pause, as far as it can be foreseen.
    pub pause: Duration,
}

impl Default for Limits {
    /// 5 s; 100 ms, which 4 GiB in 4 KiB pages take and neighbours of a
    /// service put up with.
    fn default() -> Self {
        Self { life: Duration::from_secs(5), pause: Duration::from_millis(100) }
    }
}

/// What copying the page tables of a GiB in 4 KiB pages takes.
const PAUSE_A_GIB: Duration = Duration::from_millis(25);

/// Copies this process. The copy holds for `life` at most; reads fail after
/// that. Costs a short pause to whoever allocates or first writes to a page
/// meanwhile, and the memory that is written to while the image lives: drop
/// it soon.
///
/// Threads are not listed: their thread pointers are not known.
///
/// # Errors
/// `Busy` while another image of this process lives; `OutOfMemory`,
/// `Permission` or `Unsupported` where the system refuses; `Unsupported` if
/// what is to be copied is so large that the pause would exceed
/// [`Limits::pause`].
pub fn take(life: Duration, extent: Extent) -> Result<Own> {
    take_within(Limits { life, ..Limits::default() }, extent)
}

/// [`take`], with a say in all limits.
///
/// # Errors
/// As [`take`].
pub fn take_within(limits: Limits, extent: Extent) -> Result<Own> {
    let bias = bias::own()?;
    // Before the copy: what is mapped later can only be missing there.
    let mappings = maps::own()?;
    let mut regions = Regions::plan(&mappings, extent, || footprints::own().unwrap_or_default());
    if pause_for(anonymous()) > limits.pause {
        // Exact, but the kernel walks all page tables to tell.
        let all = footprints::own()?;
        let small = all.iter().map(|it| small_besides(it, regions.left_out())).sum();
        foresee(small, limits.pause)?;
    }
    let before: HashSet<_> = mappings.iter().map(|mapping| mapping.range.clone()).collect();
    let leave_out = LeaveOut {
        regions: regions.left_out().to_vec(),
        appeared: Box::new(move || {
            let mut now = maps::own().unwrap_or_default();
            now.retain(|mapping| mapping.is_memory() && !before.contains(&mapping.range));
            now.into_iter().map(|mapping| mapping.range).collect()
        }),
    };
    let writable = maps::writable(&mappings);
    let there = without(writable.clone(), regions.left_out());
    let copy = Copy::new(limits.life, there, leave_out)?;
    let taken_ns = clock::monotonic_ns();
    regions.taken(copy.left_out(), || maps::of(copy.pid()).unwrap_or_default());
    let left_out = regions.left_out().iter().map(|range| range.end - range.start).sum();
    let next = regions.next();
    let writable = without(writable, regions.left_out());
    let memory = OwnMemory { copy, regions, writable };
    let image = Image {
        memory: Box::new(memory),
        bias,
        threads: Vec::new(),
        pid: std::process::id(),
        taken_ns,
        frozen_ns: 0,
        origin: Origin::own(mappings),
    };
    Ok(Own { image, left_out, next })
}

/// An image of this process, and what is not in it.
pub struct Own {
    /// The image.
    pub image: Image,
    /// Bytes left out of it, for nobody has needed them.
    pub left_out: u64,
    /// Where the next search goes on.
    pub next: u64,
}

/// Bytes of private memory, as of a moment ago; 0 if the kernel does not tell.
fn anonymous() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.unwrap_or(0).saturating_mul(1024)
}

/// What copying a mapping but for what is left out costs, taking its memory
/// for evenly spread.
fn small_besides(mapping: &Footprint, left_out: &[Range<u64>]) -> u64 {
    if !mapping.forked {
        return 0;
    }
    let whole = mapping.range.clone();
    let rest = without(vec![whole.clone()], left_out);
    let rest: u64 = rest.iter().map(|part| part.end - part.start).sum();
    let part = u128::from(mapping.small) * u128::from(rest);
    (part / u128::from(whole.end - whole.start).max(1)) as u64
}

fn pause_for(bytes: u64) -> Duration {
    PAUSE_A_GIB.mul_f64(gib(bytes))
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

fn foresee(bytes: u64, allowed: Duration) -> Result<()> {
    let pause = pause_for(bytes);
    if pause <= allowed {
        return Ok(());
    }
    let text = format!(
        "copying the memory of this process ({:.1} GiB) would hold it up for some {} ms, more than the {} ms allowed",
        gib(bytes),
        pause.as_millis(),
        allowed.as_millis()
    );
    Err(Error::new(ErrorKind::Unsupported, text))
}

struct OwnMemory {
    copy: Copy,
    regions: Regions,
    writable: Vec<Range<u64>>,
}

impl Memory for OwnMemory {
    fn read(&mut self, address: u64, to: &mut [u8]) -> std::result::Result<(), Fault> {
        self.regions.read(address, to.len());
        self.search(address, to)
    }

    fn search(&mut self, address: u64, to: &mut [u8]) -> std::result::Result<(), Fault> {
        self.copy
            .read(address, to)
            .map_err(|there| Fault { address: address.saturating_add(there as u64) })
    }

    fn writable(&self) -> &[Range<u64>] {
        &self.writable
    }

    fn lacked(&self) -> bool {
        self.regions.lacked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{one_copy_at_a_time, when_free};

    const LONG: Limits = Limits { life: Duration::from_secs(20), pause: Duration::from_secs(20) };

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_pause_that_would_be_too_long_is_not_begun() {
        foresee(4 * GIB, Duration::from_millis(100)).unwrap();
        let error = foresee(10 * GIB, Duration::from_millis(100)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "copying the memory of this process (10.0 GiB) would hold it up for some 250 ms, \
             more than the 100 ms allowed"
        );
        let none = take_within(Limits { pause: Duration::ZERO, ..LONG }, Extent::Needed);
        assert_eq!(none.err().unwrap().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn what_is_left_out_holds_nobody_up() {
        let whole = 100 * GIB..140 * GIB;
        let footprint = Footprint { range: whole.clone(), small: 20 * GIB, forked: true };
        let besides = |left_out: &[Range<u64>]| small_besides(&footprint, left_out);
        assert_eq!(besides(&[]), 20 * GIB);
        assert_eq!(besides(&[whole]), 0);
        assert_eq!(besides(&[100 * GIB..110 * GIB, 120 * GIB..130 * GIB]), 10 * GIB);
        let unasked = Footprint { forked: false, ..footprint };
        assert_eq!(small_besides(&unasked, &[]), 0);
    }

    /// A region that nobody else frees or reads, with a 7 in its midst.
    fn large() -> (Vec<u8>, u64) {
        let mut large = vec![0_u8; 300 << 20];
        large[100 << 20] = 7;
        let place = large.as_ptr() as u64 + (100 << 20);
        (large, place)
    }

    fn covers(own: &Own, place: u64) -> bool {
        own.image.memory.writable().iter().any(|range| range.contains(&place))
    }

    #[test]
    fn a_large_region_is_left_out_until_it_is_read_from() {
        let _one = one_copy_at_a_time();
        let (_large, place) = large();
        let mut byte = [0];
        // Nothing is left out while another thread is in `fork`.
        let begin = std::time::Instant::now();
        let mut own = when_free(|| take_within(LONG, Extent::Needed));
        while covers(&own, place) {
            assert!(begin.elapsed() < LONG.life, "never left out");
            drop(own);
            own = when_free(|| take_within(LONG, Extent::Needed));
        }
        assert!(own.left_out >= 300 << 20);
        own.image.memory.search(place, &mut byte).unwrap_err();
        assert!(!own.image.memory.lacked(), "a search does not tell what is needed");
        own.image.memory.read(place, &mut byte).unwrap_err();
        assert!(own.image.memory.lacked());
        drop(own);
        for _ in 0..2 {
            let mut own = when_free(|| take_within(LONG, Extent::Needed));
            own.image.memory.read(place, &mut byte).unwrap();
            assert_eq!((byte, own.image.memory.lacked()), ([7], false));
        }
    }

    #[test]
    fn searches_see_every_part_in_turn() {
        let _one = one_copy_at_a_time();
        let (_large, place) = large();
        let mut from = 0;
        let seen = (0..100).any(|_| {
            let own = when_free(|| take_within(LONG, Extent::Search { from }));
            from = own.next;
            covers(&own, place)
        });
        assert!(seen);
        let everything = when_free(|| take_within(LONG, Extent::Everything));
        assert!(covers(&everything, place) && everything.left_out == 0);
    }

    #[test]
    fn an_image_of_ourselves_holds_still() {
        let _one = one_copy_at_a_time();
        let mut kept: Vec<u64> = (0..10_000).collect();
        let at = kept.as_ptr() as u64;
        let mut word = [0; 8];
        let take = || when_free(|| take_within(LONG, Extent::Needed)).image;
        let mut image = take();
        if image.memory.read(at, &mut word).is_err() {
            // An arena that no image has needed yet; the next one has it.
            assert!(image.memory.lacked());
            drop(image);
            image = take();
        }
        kept.fill(0);
        let memory = &mut image.memory;
        assert!(memory.writable().iter().any(|range| range.contains(&at)));
        for index in [0, 511, 512, 9_999] {
            memory.read(at + index * 8, &mut word).unwrap();
            assert_eq!(u64::from_ne_bytes(word), index);
        }
        // Constants are in the executable's own pages.
        let text = "constant text";
        let mut copied = vec![0; text.len()];
        memory.read(text.as_ptr() as u64, &mut copied).unwrap();
        assert_eq!(copied, text.as_bytes());
        assert_eq!(memory.read(8, &mut word), Err(Fault { address: 8 }));
        assert_eq!(image.pid, std::process::id());
        assert!(image.taken_ns <= clock::monotonic_ns());
    }
}
