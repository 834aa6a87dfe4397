//! Memory straight from the kernel: zeroed, counted only where touched, and
//! given back whole when dropped, which a heap does not promise.

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// An anonymous private mapping that forked copies do not get.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is owned like a `Box<[u8]>`.
unsafe impl Send for Region {}
// SAFETY: shared references only read.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `len` bytes.
    ///
    /// # Errors
    /// `ENOMEM`; `EINVAL` for a length of 0.
    pub fn new(len: usize) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: advice on our own fresh mapping. Failure costs the forked
        // copy some page table entries, no more.
        unsafe { libc::madvise(start, len, libc::MADV_DONTFORK) };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// Makes all of it resident now, in huge pages where there are any.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn populate(&mut self) -> io::Result<()> {
        let start = self.start.as_ptr().cast();
        // SAFETY: advice on our own mapping, which changes no content.
        let populated = unsafe {
            libc::madvise(start, self.len, libc::MADV_HUGEPAGE);
            libc::madvise(start, self.len, libc::MADV_POPULATE_WRITE)
        };
        match io::Error::last_os_error() {
            // Before Linux 5.14 pages come as they are touched.
            error if populated != 0 && error.raw_os_error() != Some(libc::EINVAL) => Err(error),
            _ => Ok(()),
        }
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped, zeroed or written through `deref_mut`, and ours.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Region {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and exclusively borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: our own mapping; the borrow checker knows of no other user.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_zeroed_writable_and_given_back() {
        let mut region = Region::new(1 << 20).unwrap();
        assert!(region.iter().all(|&byte| byte == 0));
        region[12_345] = 1;
        let at = region.as_ptr() as u64;
        drop(region);
        let mut byte = [0];
        assert_eq!(crate::sys::copy::read_own(&mut byte, at), 0);
    }
}
