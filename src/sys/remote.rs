//! Memory of another process, by `process_vm_readv(2)`.

use std::io;

use libc::{c_int, c_void, iovec};

/// Page size: the granularity at which memory is there or is not.
pub const PAGE: usize = 4096;
/// Pages asked for in one call by [`read_pages`].
pub const MAX_PAGES: usize = 64;

/// Copies whole pages from `from` (the beginning of a page) into `to` (whole
/// pages, at most [`MAX_PAGES`]). Bit `n` of the answer: page `n` was there.
///
/// # Errors
/// Those that do not depend on the address: `EPERM`, `ESRCH`, `ENOSYS`.
pub fn read_pages(pid: c_int, from: u64, to: &mut [u8]) -> io::Result<u64> {
    let pages = (to.len() / PAGE).min(MAX_PAGES);
    let mut there = 0;
    let mut page = 0;
    while page < pages {
        // One range a page: partial transfers are only promised between ranges.
        let mut remote = [iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_PAGES];
        for (nth, range) in remote[..pages - page].iter_mut().enumerate() {
            let at = from.wrapping_add(((page + nth) * PAGE) as u64);
            *range = iovec { iov_base: at as *mut c_void, iov_len: PAGE };
        }
        let rest = &mut to[page * PAGE..pages * PAGE];
        let local = iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() };
        // SAFETY: `local` is an exclusively borrowed slice; the remote ranges
        // are only numbers to the kernel, which checks them.
        let copied = unsafe {
            libc::process_vm_readv(
                pid,
                &raw const local,
                1,
                remote.as_ptr(),
                (pages - page) as _,
                0,
            )
        };
        let copied = match usize::try_from(copied) {
            Ok(copied) => copied / PAGE,
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EFAULT) => 0,
                error => return Err(error),
            },
        };
        for nth in page..page + copied {
            there |= 1 << nth;
        }
        // The page after the last copied one is not there: go on behind it.
        page += copied + 1;
    }
    Ok(there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_around_a_hole_are_read() {
        // SAFETY: a fresh mapping of which one page is then closed.
        let at = unsafe {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let at = libc::mmap(std::ptr::null_mut(), 4 * PAGE, prot, flags, -1, 0);
            assert_ne!(at, libc::MAP_FAILED);
            for page in 0..4 {
                *at.cast::<u8>().add(page * PAGE) = page as u8 + 1;
            }
            assert_eq!(libc::mprotect(at.byte_add(PAGE), PAGE, libc::PROT_NONE), 0);
            at
        };
        let mut to = vec![0; 4 * PAGE];
        let own = std::process::id().cast_signed();
        assert_eq!(read_pages(own, at as u64, &mut to).unwrap(), 0b1101);
        assert_eq!([to[0], to[2 * PAGE], to[3 * PAGE]], [1, 3, 4]);
        assert_eq!(read_pages(own, 0, &mut to).unwrap(), 0);
        assert!(
            read_pages(own, (-4096_i64).cast_unsigned(), &mut to).is_ok_and(|there| there == 0)
        );
        // SAFETY: the mapping made above, unused from here on.
        unsafe { libc::munmap(at, 4 * PAGE) };
    }
}
