//! Memory of another process.

use std::fs::File;
use std::io;
#[cfg(feature = "cli")]
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use libc::c_int;
#[cfg(feature = "cli")]
use libc::{c_void, iovec};

/// Page size: the granularity at which memory is there or is not.
pub const PAGE: usize = 4096;

/// The memory of a child, read through `/proc/PID/mem`.
///
/// `process_vm_readv` pins the pages that it reads, and Linux gives a process
/// a copy of its own of every shared page that is pinned (`gup_must_unshare`
/// in its `mm/gup.c`, since 5.19): reading a copy-on-write copy of ourselves
/// that way copied all that was read, twice over. This file pins nothing.
#[derive(Debug)]
pub struct Mem(File);

impl Mem {
    /// Opens it.
    ///
    /// # Errors
    /// Those of the file system; `PermissionDenied` where tracing that process
    /// is forbidden.
    pub fn open(pid: c_int) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/mem")).map(Self)
    }

    /// Copies bytes; the error is how many there were before the first page
    /// that is not mapped, or none if the process is gone. A page that is
    /// mapped and closed to its process counts as mapped.
    ///
    /// # Errors
    /// As said.
    pub fn read(&self, from: u64, to: &mut [u8]) -> Result<(), usize> {
        let mut done = 0;
        while done < to.len() {
            let at = from.checked_add(done as u64).ok_or(done)?;
            match self.0.read_at(&mut to[done..], at) {
                Ok(0) => return Err(done),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(done),
            }
        }
        Ok(())
    }
}

/// Ranges asked for in one call by [`read_ranges`]; the kernel takes 1024.
#[cfg(feature = "cli")]
const MAX_RANGES: usize = 512;
/// Bytes asked for in one call, so that the caller gets a word in between.
#[cfg(feature = "cli")]
const MAX_BATCH: usize = 32 << 20;

/// Copies ranges of whole pages one after the other into `to` until all are
/// copied or `to` is full or `go_on` says no. Calls `copied` with what was
/// there, in order: its range, and where in `to` it is. Whether all were
/// copied; pages that could not be read count as copied but are not told.
///
/// # Errors
/// Those that do not depend on the address: `EPERM`, `ESRCH`, `ENOSYS`.
#[cfg(feature = "cli")]
pub fn read_ranges(
    pid: c_int,
    ranges: &[Range<u64>],
    to: &mut [u8],
    mut go_on: impl FnMut() -> bool,
    mut copied: impl FnMut(Range<u64>, usize),
) -> io::Result<bool> {
    let mut at = 0;
    let mut next = 0;
    // What is left of the range that `next` is at.
    let mut rest = ranges.first().cloned().unwrap_or_default();
    while next < ranges.len() {
        if !go_on() {
            return Ok(false);
        }
        let mut remote = [iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_RANGES];
        let room = (to.len() - at).min(MAX_BATCH) / PAGE * PAGE;
        let (mut count, mut want) = (0, 0);
        let first = rest.clone();
        for range in std::iter::once(&first).chain(&ranges[next + 1..]).take(MAX_RANGES) {
            let len = ((range.end - range.start) as usize).min(room - want);
            if len == 0 {
                break;
            }
            remote[count] = iovec { iov_base: range.start as *mut c_void, iov_len: len };
            count += 1;
            want += len;
        }
        if want == 0 {
            return Ok(false);
        }
        let part = &mut to[at..at + want];
        let local = iovec { iov_base: part.as_mut_ptr().cast(), iov_len: want };
        // SAFETY: `local` is an exclusively borrowed slice; the remote ranges
        // are only numbers to the kernel, which checks them.
        let got = unsafe {
            libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), count as _, 0)
        };
        let mut got = match usize::try_from(got) {
            Ok(got) => got / PAGE * PAGE,
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EFAULT) => 0,
                error => return Err(error),
            },
        };
        let stopped_early = got < want;
        while got > 0 {
            let len = ((rest.end - rest.start) as usize).min(got);
            copied(rest.start..rest.start + len as u64, at);
            at += len;
            got -= len;
            rest.start += len as u64;
            if rest.is_empty() {
                next += 1;
                rest = ranges.get(next).cloned().unwrap_or_default();
            }
        }
        if stopped_early && next < ranges.len() {
            // The page at `rest.start` cannot be read.
            rest.start += PAGE as u64;
            if rest.start >= rest.end {
                next += 1;
                rest = ranges.get(next).cloned().unwrap_or_default();
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four pages with their numbers, from 1, in them; the second is closed.
    fn fence() -> *mut c_void {
        // SAFETY: a fresh mapping of which one page is then closed. It is
        // never unmapped: nothing else may turn up there during a test.
        unsafe {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let at = libc::mmap(std::ptr::null_mut(), 4 * PAGE, prot, flags, -1, 0);
            assert_ne!(at, libc::MAP_FAILED);
            for page in 0..4 {
                *at.cast::<u8>().add(page * PAGE) = page as u8 + 1;
            }
            assert_eq!(libc::mprotect(at.byte_add(PAGE), PAGE, libc::PROT_NONE), 0);
            at
        }
    }

    #[test]
    fn ranges_are_copied_without_the_pages_that_are_closed() {
        let start = fence() as u64;
        let page = |nth: u64| start + nth * PAGE as u64;
        let own = std::process::id().cast_signed();
        let copy = |ranges: &[Range<u64>], room: usize| {
            let mut to = vec![0; room * PAGE];
            let mut told = Vec::new();
            let all =
                read_ranges(own, ranges, &mut to, || true, |range, at| told.push((range, at)));
            let all = all.unwrap();
            let firsts: Vec<u8> = told.iter().map(|&(_, at)| to[at]).collect();
            (all, told.into_iter().map(|(range, _)| range).collect::<Vec<_>>(), firsts)
        };
        let whole = page(0)..page(4);
        let pieces = vec![page(0)..page(1), page(2)..page(4)];
        assert_eq!(copy(&[whole], 4), (true, pieces, vec![1, 3]));
        let apart = [page(3)..page(4), page(1)..page(2), page(0)..page(1)];
        let there = vec![page(3)..page(4), page(0)..page(1)];
        assert_eq!(copy(&apart, 4), (true, there, vec![4, 1]));
        let (upper, first, closed) = (page(2)..page(4), page(2)..page(3), page(1)..page(2));
        assert_eq!(copy(&[upper], 1), (false, vec![first], vec![3]));
        assert_eq!(copy(&[closed], 4), (true, vec![], vec![]));
        assert_eq!(copy(&[], 1), (true, vec![], vec![]));
    }

    #[test]
    fn a_copy_is_whole_or_says_where_it_ended() {
        let start = fence() as u64;
        // SAFETY: a page of the fence, which nobody else uses. Others may map
        // something there before it is read: not within the rest of this test,
        // since the kernel maps top down and fills larger gaps first.
        unsafe { libc::munmap((start + 3 * PAGE as u64) as *mut c_void, PAGE) };
        let own = Mem::open(std::process::id().cast_signed()).unwrap();
        let mut to = [0; 8];
        assert_eq!(own.read(start + 2 * PAGE as u64, &mut to), Ok(()));
        assert_eq!(to[0], 3);
        assert_eq!(own.read(start + 3 * PAGE as u64 - 3, &mut to), Err(3));
        assert_eq!(own.read(0, &mut to), Err(0));
        assert_eq!(own.read(u64::MAX - 3, &mut to), Err(0));
        assert_eq!(own.read(0, &mut []), Ok(()));
        assert!(Mem::open(c_int::MAX).is_err());
    }
}
