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

/// From here on every allocator maps.
const MAPPED: usize = 33 << 20;
/// Shorter lists are the heap's business.
const LONG: usize = 1 << 20;

const PAGE: usize = 4096;
/// Bytes made resident in one call: others who change the process's mappings
/// wait for it.
const STEP: usize = 1 << 20;

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
}
