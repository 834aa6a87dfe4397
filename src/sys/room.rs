//! Room for long lists that are dropped whole soon.
//!
//! What a heap has grown to it rarely gives back: small things that live on
//! lie behind large ones that are gone. Allocators ask the system for very
//! large blocks one by one and give each back when it is freed; glibc's limit
//! moves with the program, but never beyond 32 MiB (`mallopt(3)`,
//! `M_MMAP_THRESHOLD`). So a long list asks for more than that. What of it is
//! not used is never touched, and costs addresses only. What will be used is
//! asked for at once: a fault for each new page is most of what it costs to
//! fill such a list.

use std::collections::TryReserveError;
use std::mem::MaybeUninit;
#[cfg(target_os = "linux")]
use std::ops::Range;

/// From here on every allocator maps.
const MAPPED: usize = 33 << 20;
/// Shorter lists are the heap's business.
const LONG: usize = 1 << 20;

const PAGE: usize = 4096;
/// x86-64's and, with pages of 4 KiB, aarch64's.
const HUGE_PAGE: usize = 2 << 20;
/// Bytes made resident in one call: others who change the process's mappings
/// wait for it.
const STEP: usize = HUGE_PAGE;

/// Makes room for so many more elements.
///
/// # Errors
/// There is no such room: far beyond what any machine has.
pub fn reserve<T>(list: &mut Vec<T>, more: usize) -> Result<(), TryReserveError> {
    let wanted = list.len().saturating_add(more);
    let is_long = wanted.saturating_mul(size_of::<T>()) >= LONG;
    let mapped = MAPPED / size_of::<T>().max(1);
    if is_long && wanted < mapped && list.try_reserve_exact(mapped - list.len()).is_ok() {
        populate(&mut list.spare_capacity_mut()[..more]);
        return Ok(());
    }
    // Addresses may be scarce too (`ulimit -v`, strict overcommit).
    list.try_reserve(more)
}

/// Has the system make the whole pages of a range resident. Best effort: what
/// it does not do now happens at the first touch.
fn populate<T>(room: &mut [MaybeUninit<T>]) {
    let bytes = room.as_mut_ptr_range();
    let start = (bytes.start as usize).next_multiple_of(PAGE);
    let end = bytes.end as usize / PAGE * PAGE;
    #[cfg(target_os = "linux")]
    ask_for_huge_pages(start.next_multiple_of(HUGE_PAGE)..end / HUGE_PAGE * HUGE_PAGE);
    #[cfg(target_os = "linux")]
    for part in (start..end).step_by(STEP) {
        let len = STEP.min(end - part);
        // SAFETY: the range is exclusively borrowed and within a living
        // allocation; this makes its pages writable and changes no bytes.
        let done = unsafe { libc::madvise(part as *mut _, len, libc::MADV_POPULATE_WRITE) };
        // Kernels before 5.14 do not know it.
        if done != 0 {
            return;
        }
    }
}

/// Has whole huge pages used within these bounds, so that none of them reaches
/// beyond what is asked for. Best effort (`transparent_hugepage` may be
/// `never`).
#[cfg(target_os = "linux")]
fn ask_for_huge_pages(range: Range<usize>) {
    if !range.is_empty() {
        // SAFETY: the range is part of what the caller borrows exclusively; this
        // says how its pages are to be made and changes no bytes. It ends with
        // the mapping, which is the allocation's own (see above).
        unsafe { libc::madvise(range.start as *mut _, range.len(), libc::MADV_HUGEPAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lists_take_what_they_need() {
        let mut list: Vec<u64> = Vec::new();
        reserve(&mut list, 100).unwrap();
        assert!((100..1000).contains(&list.capacity()));
    }

    #[test]
    fn long_lists_are_blocks_of_their_own() {
        let mut list: Vec<u64> = vec![1];
        reserve(&mut list, 1 << 17).unwrap();
        assert!(list.capacity() * 8 > 32 << 20);
        assert_eq!(list, [1]);
        let room = list.capacity();
        reserve(&mut list, room).unwrap();
        assert!(list.capacity() > room, "and grow beyond");
        assert!(reserve(&mut list, usize::MAX / 2).is_err());
    }

    /// What `/proc/self/smaps` says of the mapping around an address.
    #[cfg(target_os = "linux")]
    fn mapping_of(address: usize) -> Vec<String> {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = smaps.lines().skip_while(|line| {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let bound = |text| usize::from_str_radix(text, 16).ok();
            !range.is_some_and(|(from, to)| {
                bound(from).is_some_and(|from| from <= address)
                    && bound(to).is_some_and(|to| address < to)
            })
        });
        let head = lines.next().unwrap().to_owned();
        let is_inside = |line: &&str| line.split(' ').next().unwrap().ends_with(':');
        std::iter::once(head).chain(lines.take_while(is_inside).map(str::to_owned)).collect()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn huge_pages_are_asked_for_and_only_what_is_wanted_is_made() {
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return;
        }
        let wanted = 9 << 20;
        let mut list: Vec<u8> = Vec::new();
        reserve(&mut list, wanted).unwrap();
        let mapping = mapping_of(list.as_ptr() as usize + wanted / 2);
        let flags = mapping.iter().find(|line| line.starts_with("VmFlags:")).unwrap();
        assert!(flags.split_whitespace().any(|flag| flag == "hg"), "{mapping:#?}");
        // The next mapping begins where no whole huge page was wanted.
        let behind = mapping_of(list.as_ptr() as usize + wanted + HUGE_PAGE);
        let flags = behind.iter().find(|line| line.starts_with("VmFlags:")).unwrap();
        assert!(!flags.split_whitespace().any(|flag| flag == "hg"), "{behind:#?}");
        let resident = behind.iter().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        let kilobytes: usize = resident.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kilobytes << 10 <= HUGE_PAGE, "{behind:#?}");
    }
}
