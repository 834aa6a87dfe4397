//! Copies of this process's own memory that cannot fault.
//!
//! A stack may end, or a page may go, at any moment. The kernel copies for
//! us and answers with the number of bytes it reached. `process_vm_readv` on
//! oneself is always permitted by ptrace rules (same thread group); where a
//! seccomp filter refuses the syscall altogether, a pipe does the same in
//! chunks: `write` stops at the first unreadable page too.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, c_void, iovec};

const PAGE: usize = 4096;
/// Remote ranges in one call: 128 KiB that begin in the middle of a page.
const RANGES: usize = 33;
/// The longest copy in one call.
pub const MAX_COPY: usize = (RANGES - 1) * PAGE;

/// The pipe for kernels that refuse `process_vm_readv`. `None` while the
/// syscall works, which is nearly everywhere.
static PIPE: OnceLock<Option<[c_int; 2]>> = OnceLock::new();
static PIPE_TAKEN: AtomicBool = AtomicBool::new(false);

/// Finds out which way to copy works here. Call once before any signal
/// handler copies: a handler must not open pipes.
pub fn prepare() {
    PIPE.get_or_init(|| {
        let probe = 0x5eed_u64;
        let mut got = 0_u64;
        let len = size_of::<u64>();
        // SAFETY: both are live local variables of `len` bytes.
        let copied = unsafe { by_syscall((&raw mut got).cast(), (&raw const probe) as usize, len) };
        if copied == len { None } else { open_pipe() }
    });
}

fn open_pipe() -> Option<[c_int; 2]> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors that pipe2 writes.
    let failed = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) };
    (failed == 0).then_some(ends)
}

/// Copies up to `len` bytes at address `from` of this process and returns how
/// many there were before the first unreadable page. At most [`MAX_COPY`].
/// Safe to call in a signal handler; it changes `errno`.
///
/// # Safety
/// `to` must be valid for writes of `len` bytes, and nobody else may look at
/// them meanwhile.
pub unsafe fn copy_own(to: *mut u8, from: usize, len: usize) -> usize {
    let len = len.min(MAX_COPY);
    match PIPE.get() {
        // SAFETY: passed on from the caller.
        Some(None) => unsafe { by_syscall(to, from, len) },
        // SAFETY: passed on from the caller.
        Some(Some(ends)) => unsafe { by_pipe(*ends, to, from, len) },
        None => 0,
    }
}

/// Copies into a slice; see [`copy_own`].
pub fn read_own(to: &mut [u8], from: u64) -> usize {
    prepare();
    let Ok(from) = usize::try_from(from) else { return 0 };
    // SAFETY: the slice is valid for writes and exclusively ours.
    unsafe { copy_own(to.as_mut_ptr(), from, to.len()) }
}

unsafe fn by_syscall(to: *mut u8, from: usize, len: usize) -> usize {
    // Partial transfers are only promised between ranges, so one range a page.
    let mut remote = [iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; RANGES];
    let mut count = 0;
    let mut at = from;
    let Some(end) = from.checked_add(len) else { return 0 };
    while at < end && count < RANGES {
        let next = ((at | (PAGE - 1)).saturating_add(1)).min(end);
        remote[count] = iovec { iov_base: at as *mut c_void, iov_len: next - at };
        count += 1;
        at = next;
    }
    let local = iovec { iov_base: to.cast(), iov_len: at - from };
    // SAFETY: `local` is writable by the caller's word; the remote ranges are
    // only addresses to the kernel, which checks them. getpid is a bare syscall.
    let copied = unsafe {
        libc::process_vm_readv(libc::getpid(), &raw const local, 1, remote.as_ptr(), count as _, 0)
    };
    usize::try_from(copied).unwrap_or(0)
}

unsafe fn by_pipe(
    [read_end, write_end]: [c_int; 2],
    to: *mut u8,
    from: usize,
    len: usize,
) -> usize {
    // Two users of the pipe would mix their bytes. Nobody may wait here: this
    // can be a signal handler. Whoever comes second goes without.
    if PIPE_TAKEN.swap(true, Ordering::Acquire) {
        return 0;
    }
    let mut done = 0;
    while done < len {
        let at = from.wrapping_add(done);
        let chunk = (PAGE - at % PAGE).min(len - done);
        // SAFETY: for write the address is only read by the kernel, which
        // checks it; read writes into the caller's buffer, within `len`.
        let moved = unsafe {
            let written = libc::write(write_end, at as *const c_void, chunk);
            let Ok(written @ 1..) = usize::try_from(written) else { break };
            libc::read(read_end, to.add(done).cast(), written)
        };
        match usize::try_from(moved) {
            Ok(moved @ 1..) => done += moved,
            _ => break,
        }
    }
    PIPE_TAKEN.store(false, Ordering::Release);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three pages of which the last one is not readable.
    struct Fence(*mut u8);

    impl Fence {
        fn new() -> Self {
            // SAFETY: a fresh anonymous mapping; the last page is then closed.
            unsafe {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let prot = libc::PROT_READ | libc::PROT_WRITE;
                let at = libc::mmap(std::ptr::null_mut(), 3 * PAGE, prot, flags, -1, 0);
                assert_ne!(at, libc::MAP_FAILED);
                let at = at.cast::<u8>();
                for index in 0..2 * PAGE {
                    *at.add(index) = (index % 251) as u8;
                }
                assert_eq!(libc::mprotect(at.add(2 * PAGE).cast(), PAGE, libc::PROT_NONE), 0);
                Self(at)
            }
        }
    }

    impl Drop for Fence {
        fn drop(&mut self) {
            // SAFETY: the mapping made in `new`, unused from here on.
            unsafe { libc::munmap(self.0.cast(), 3 * PAGE) };
        }
    }

    #[test]
    fn copying_stops_at_the_first_closed_page_either_way() {
        let fence = Fence::new();
        let from = fence.0 as usize + 100;
        let expect: Vec<u8> = (100..2 * PAGE).map(|index| (index % 251) as u8).collect();
        let ends = open_pipe().unwrap();
        for way in ["syscall", "pipe"] {
            let mut to = vec![0; MAX_COPY];
            // SAFETY: `to` is a live buffer of that length.
            let copied = unsafe {
                match way {
                    "syscall" => by_syscall(to.as_mut_ptr(), from, MAX_COPY),
                    _ => by_pipe(ends, to.as_mut_ptr(), from, MAX_COPY),
                }
            };
            assert_eq!(to[..copied], expect, "by {way}");
        }
    }

    #[test]
    fn an_address_that_is_nowhere_copies_nothing() {
        let mut to = [0; 16];
        assert_eq!(read_own(&mut to, 0), 0);
        assert_eq!(read_own(&mut to, u64::MAX - 8), 0);
    }
}
