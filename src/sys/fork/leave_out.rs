//! Large regions that a copy does not need are left out of it: copying page
//! tables is what a copy costs.
//!
//! `MADV_DONTFORK` is a property of the mapping, not of one copy: while it is
//! set, any `fork` of the process leaves the region out. So it is set for the
//! one call and taken back at once, and meanwhile nobody else forks:
//! handlers of `pthread_atfork` hold up other threads in `fork` for those
//! milliseconds, and the other way round nothing is left out while a `fork`
//! is under way. `posix_spawn` and `vfork` share memory and are not
//! concerned. A bare `clone` without libc, as crash handlers make it, is not
//! held up; its child would miss the regions, which are large buffers.
//!
//! A mapping that another thread moves meanwhile (`mremap`) takes the
//! property along: the caller looks for such and tells.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::c_int;

/// How many threads are in `fork`; or, while regions are left out, this bit.
static FORKS: AtomicU32 = AtomicU32::new(0);
const LEAVING_OUT: u32 = 1 << 31;

/// What to leave out of a copy.
pub struct LeaveOut {
    /// Whole mappings, private and anonymous, that `fork` copied before.
    pub regions: Vec<Range<u64>>,
    /// Finds mappings that appeared since: a region may have moved there.
    pub appeared: Box<dyn FnOnce() -> Vec<Range<u64>> + Send>,
}

impl LeaveOut {
    /// Nothing.
    pub fn nothing() -> Self {
        Self { regions: Vec::new(), appeared: Box::new(Vec::new) }
    }

    /// Runs `copy` with the regions left out of it. Whether they were: not
    /// while somebody else forks.
    pub fn during<T>(self, copy: impl FnOnce() -> T) -> (T, bool) {
        if self.regions.is_empty() || !handlers() {
            return (copy(), false);
        }
        let alone = FORKS.compare_exchange(0, LEAVING_OUT, Ordering::Acquire, Ordering::Relaxed);
        if alone.is_err() {
            return (copy(), false);
        }
        let restore = Restore(&self.regions);
        for region in &self.regions {
            advise(region, libc::MADV_DONTFORK);
        }
        let copied = copy();
        drop(restore);
        for range in (self.appeared)() {
            advise(&range, libc::MADV_DOFORK);
        }
        FORKS.store(0, Ordering::Release);
        (copied, true)
    }
}

/// Takes the property back.
struct Restore<'a>(&'a [Range<u64>]);

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        for region in self.0 {
            advise(region, libc::MADV_DOFORK);
        }
    }
}

/// Failure means that part of the range is unmapped by now, and is no loss:
/// the rest of it is advised all the same.
fn advise(range: &Range<u64>, advice: c_int) {
    let len = (range.end - range.start) as usize;
    // SAFETY: both kinds of advice change what forks copy, never content.
    unsafe { libc::madvise(range.start as *mut libc::c_void, len, advice) };
}

/// Installs the handlers, once; whether they are there.
fn handlers() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        // SAFETY: the handlers only touch an atomic.
        unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) == 0 }
    })
}

unsafe extern "C" fn before() {
    while FORKS
        .fetch_update(Ordering::Acquire, Ordering::Relaxed, |forks| {
            (forks & LEAVING_OUT == 0).then_some(forks + 1)
        })
        .is_err()
    {
        std::thread::yield_now();
    }
}

unsafe extern "C" fn in_parent() {
    FORKS.fetch_sub(1, Ordering::Release);
}

unsafe extern "C" fn in_child() {
    // Of the threads in `fork`, only this one exists here.
    FORKS.store(0, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fork::Copy;
    use crate::sys::region::Region;
    use crate::sys::testing::{one_copy_at_a_time, when_free};
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    const LIFE: Duration = Duration::from_secs(20);

    /// A region that `fork` copies, unlike a fresh [`Region`].
    fn forkable() -> (Region, Range<u64>) {
        let mut region = Region::new(1 << 20).unwrap();
        region[5000] = 7;
        let range = region.as_ptr() as u64..region.as_ptr() as u64 + (1 << 20);
        advise(&range, libc::MADV_DOFORK);
        (region, range)
    }

    fn without(range: &Range<u64>) -> LeaveOut {
        LeaveOut { regions: vec![range.clone()], ..LeaveOut::nothing() }
    }

    #[test]
    fn a_region_is_left_out_of_one_copy_only() {
        let _one = one_copy_at_a_time();
        let (region, range) = forkable();
        let mut byte = [0];
        let mut copy = when_free(|| Copy::new(LIFE, Vec::new(), without(&range)));
        if copy.left_out() {
            assert_eq!(copy.read(range.start + 5000, &mut byte), Err(0));
        }
        drop(copy);
        let mut copy = when_free(|| Copy::new(LIFE, Vec::new(), LeaveOut::nothing()));
        copy.read(range.start + 5000, &mut byte).unwrap();
        assert_eq!(byte, [region[5000]]);
    }

    #[test]
    fn a_region_that_moved_meanwhile_is_found() {
        let _one = one_copy_at_a_time();
        let (region, range) = forkable();
        // The region was there, and is here now.
        let gone = 0x1000..0x2000;
        let leave_out = LeaveOut {
            regions: vec![gone],
            appeared: Box::new({
                let range = range.clone();
                move || vec![range]
            }),
        };
        advise(&range, libc::MADV_DONTFORK);
        // Another test may be in `fork`, by starting a process.
        if !leave_out.during(|| ()).1 {
            return;
        }
        let mut copy = when_free(|| Copy::new(LIFE, Vec::new(), LeaveOut::nothing()));
        let mut byte = [0];
        copy.read(range.start + 5000, &mut byte).unwrap();
        assert_eq!(byte, [region[5000]]);
    }

    #[test]
    fn a_fork_by_anybody_else_has_every_region() {
        let _one = one_copy_at_a_time();
        let (region, range) = forkable();
        let at = region.as_ptr() as usize + 5000;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let forks = scope.spawn(|| {
                let mut count = 0;
                while !done.load(Ordering::Relaxed) || count < 20 {
                    // SAFETY: the child reads one byte and ends, without libc.
                    let status = unsafe {
                        let pid = libc::fork();
                        assert!(pid >= 0);
                        if pid == 0 {
                            let there = (at as *const u8).read_volatile();
                            libc::_exit(i32::from(there != 7));
                        }
                        let mut status = 0;
                        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
                        status
                    };
                    assert_eq!(status, 0, "the child missed the region");
                    count += 1;
                }
            });
            let mut times = 0;
            for _ in 0..200 {
                let (_, left_out) = without(&range).during(std::thread::yield_now);
                times += u32::from(left_out);
            }
            done.store(true, Ordering::Relaxed);
            forks.join().unwrap();
            assert!(times > 0);
        });
    }
}
