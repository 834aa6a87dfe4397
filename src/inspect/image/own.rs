//! The memory of this process as of one instant, read at leisure while the
//! process goes on: see [`crate::sys::fork`].

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use super::learned::Regions;
use super::{Fault, Image, Memory, Origin, bias};
use crate::error::{Error, ErrorKind, Result};
use crate::inspect::maps;
use crate::sys::clock;
use crate::sys::fork::Copy;
use crate::sys::fork::leave_out::LeaveOut;

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
/// the process is so large that the pause would exceed [`Limits::pause`].
pub fn take(life: Duration) -> Result<Image> {
    take_within(Limits { life, ..Limits::default() })
}

/// [`take`], with a say in all limits.
///
/// # Errors
/// As [`take`].
pub fn take_within(limits: Limits) -> Result<Image> {
    if pause_for(kilobytes("status", "RssAnon:")) > limits.pause {
        // Exact, but the kernel walks all page tables to tell.
        let anonymous = kilobytes("smaps_rollup", "Anonymous:");
        let huge = kilobytes("smaps_rollup", "AnonHugePages:");
        foresee(anonymous.saturating_sub(huge), limits.pause)?;
    }
    let bias = bias::own()?;
    // Before the copy: what is mapped later can only be missing there.
    let mappings = maps::own()?;
    let mut regions = Regions::plan(&mappings);
    let before: HashSet<_> = mappings.iter().map(|mapping| mapping.range.clone()).collect();
    let leave_out = LeaveOut {
        regions: regions.left_out().to_vec(),
        appeared: Box::new(move || {
            let mut now = maps::own().unwrap_or_default();
            now.retain(|mapping| mapping.is_memory() && !before.contains(&mapping.range));
            now.into_iter().map(|mapping| mapping.range).collect()
        }),
    };
    let copy = Copy::new(limits.life, leave_out)?;
    let taken_ns = clock::monotonic_ns();
    regions.taken(copy.left_out(), || maps::of(copy.pid()).unwrap_or_default());
    let writable = without(maps::writable(&mappings), regions.left_out());
    let memory = Own { copy, regions, writable };
    Ok(Image {
        memory: Box::new(memory),
        bias,
        threads: Vec::new(),
        pid: std::process::id(),
        taken_ns,
        frozen_ns: 0,
        origin: Origin::own(mappings),
    })
}

/// A line of a file on this process's memory; 0 if it is not there.
fn kilobytes(file: &str, line: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let value = text.lines().find_map(|it| it.strip_prefix(line)?.trim().strip_suffix(" kB"));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn pause_for(kilobytes: u64) -> Duration {
    PAUSE_A_GIB.mul_f64(gib(kilobytes))
}

fn gib(kilobytes: u64) -> f64 {
    kilobytes as f64 / f64::from(1 << 20)
}

fn foresee(kilobytes: u64, allowed: Duration) -> Result<()> {
    let pause = pause_for(kilobytes);
    if pause <= allowed {
        return Ok(());
    }
    let text = format!(
        "copying the memory of this process ({:.1} GiB) would hold it up for some {} ms, more than the {} ms allowed",
        gib(kilobytes),
        pause.as_millis(),
        allowed.as_millis()
    );
    Err(Error::new(ErrorKind::Unsupported, text))
}

/// Ranges less those that were left out, each of which is part of one.
fn without(ranges: Vec<Range<u64>>, left_out: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut rest = Vec::with_capacity(ranges.len());
    for mut range in ranges {
        for hole in left_out {
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

struct Own {
    copy: Copy,
    regions: Regions,
    writable: Vec<Range<u64>>,
}

impl Memory for Own {
    fn read(&mut self, address: u64, to: &mut [u8]) -> std::result::Result<(), Fault> {
        self.regions.read(address, to.len());
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

    #[test]
    fn a_pause_that_would_be_too_long_is_not_begun() {
        foresee(4 << 20, Duration::from_millis(100)).unwrap();
        let error = foresee(10 << 20, Duration::from_millis(100)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "copying the memory of this process (10.0 GiB) would hold it up for some 250 ms, \
             more than the 100 ms allowed"
        );
        let none = take_within(Limits { pause: Duration::ZERO, ..LONG }).unwrap_err();
        assert_eq!(none.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_large_region_is_left_out_until_it_is_read_from() {
        let _one = one_copy_at_a_time();
        let mut large = vec![0_u8; 300 << 20];
        let (at, place) = (large.as_ptr() as u64, 100 << 20);
        large[place] = 7;
        let place = at + place as u64;
        let mut byte = [0];
        let mut covers = |take_it: bool| {
            let mut image = when_free(|| take_within(LONG));
            let covers = image.memory.writable().iter().any(|range| range.contains(&place));
            if take_it {
                assert_eq!(image.memory.read(place, &mut byte).is_ok(), covers);
            }
            covers
        };
        // Nobody has seen it yet, or another test made images of ours before.
        assert!(covers(false));
        // Left out, unless another thread is in `fork` right now.
        let begin = std::time::Instant::now();
        while covers(false) {
            assert!(begin.elapsed() < LONG.life, "never left out");
        }
        covers(true);
        assert!(covers(true), "read from");
        assert!(covers(true));
    }

    #[test]
    fn what_was_left_out_is_no_place_to_search() {
        let rest = without(vec![0..10, 20..90], &[20..30, 40..50]);
        assert_eq!(rest, [0..10, 30..40, 50..90]);
    }

    #[test]
    fn an_image_of_ourselves_holds_still() {
        let _one = one_copy_at_a_time();
        let mut kept: Vec<u64> = (0..10_000).collect();
        let at = kept.as_ptr() as u64;
        let mut word = [0; 8];
        let mut image = when_free(|| take_within(LONG));
        if image.memory.read(at, &mut word).is_err() {
            // An arena that no image has needed yet; the next one has it.
            assert!(image.memory.lacked());
            drop(image);
            image = when_free(|| take_within(LONG));
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
