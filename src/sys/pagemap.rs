//! Which pages of a process hold memory of its own, from `/proc/PID/pagemap`.
//!
//! Address space is not memory: a process may map terabytes and use megabytes
//! of them, and a file's pages can be had from the file. Since Linux 6.7 one
//! `ioctl` returns ranges (`PAGEMAP_SCAN`, ioctl_pagemap_scan(2)); before,
//! there are eight bytes to read for each page (proc_pid_pagemap(5)).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;

use libc::{c_int, c_ulong};

use super::remote::PAGE;

/// `struct page_region` of the kernel's `include/uapi/linux/fs.h`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Found {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg` of the same file.
#[derive(Default)]
#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;
/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: c_ulong = 0xc000_6610 | (size_of::<Scan>() as c_ulong) << 16;

/// Ranges taken from one scan.
const FOUND: usize = 512;
/// Entries read at once where scanning is not offered: 64 KiB of them.
const ENTRIES: usize = 8192;

/// The page map of one process.
#[derive(Debug)]
pub struct Pagemap {
    file: File,
    scans: bool,
}

impl Pagemap {
    /// Opens it.
    ///
    /// # Errors
    /// `EACCES` or `EPERM` without permission to trace the process.
    pub fn open(pid: c_int) -> io::Result<Self> {
        Ok(Self { file: File::open(format!("/proc/{pid}/pagemap"))?, scans: true })
    }

    /// Adds to `found` the pages within `range` that are there, resident or
    /// swapped out, in ascending order. `files`: also those that only show a
    /// file's content.
    ///
    /// # Errors
    /// The process is gone.
    pub fn present(
        &mut self,
        range: Range<u64>,
        files: bool,
        found: &mut Vec<Range<u64>>,
    ) -> io::Result<()> {
        if self.scans {
            match self.scan(range.clone(), files, found) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => {
                    self.scans = false;
                }
                answer => return answer,
            }
        }
        self.entries(range, files, found)
    }

    fn scan(&self, range: Range<u64>, files: bool, found: &mut Vec<Range<u64>>) -> io::Result<()> {
        let unwanted = if files { PAGE_IS_PFNZERO } else { PAGE_IS_PFNZERO | PAGE_IS_FILE };
        let mut at = range.start;
        let mut list = [Found::default(); FOUND];
        while at < range.end {
            let mut scan = Scan {
                size: size_of::<Scan>() as u64,
                start: at,
                end: range.end,
                vec: list.as_mut_ptr() as u64,
                vec_len: FOUND as u64,
                category_inverted: unwanted,
                category_mask: unwanted,
                category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
                return_mask: PAGE_IS_PRESENT,
                ..Scan::default()
            };
            // SAFETY: both structs have the kernel's layout; `vec` points to
            // `vec_len` live elements.
            let count =
                unsafe { libc::ioctl(self.file.as_raw_fd(), PAGEMAP_SCAN as _, &raw mut scan) };
            let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
            for part in list.iter().take(count) {
                push(found, part.start..part.end);
            }
            if scan.walk_end <= at {
                break;
            }
            at = scan.walk_end;
        }
        Ok(())
    }

    fn entries(
        &self,
        range: Range<u64>,
        files: bool,
        found: &mut Vec<Range<u64>>,
    ) -> io::Result<()> {
        const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;
        const FILE_OR_SHARED: u64 = 1 << 61;
        let mut buffer = vec![0; ENTRIES * 8];
        let mut page = range.start / PAGE as u64;
        let end = range.end / PAGE as u64;
        while page < end {
            let want = ((end - page) as usize).min(ENTRIES) * 8;
            let got = self.file.read_at(&mut buffer[..want], page * 8)? / 8;
            if got == 0 {
                break;
            }
            for entry in buffer[..got * 8].as_chunks::<8>().0 {
                let entry = u64::from_ne_bytes(*entry);
                if entry & PRESENT_OR_SWAPPED != 0 && (files || entry & FILE_OR_SHARED == 0) {
                    push(found, page * PAGE as u64..(page + 1) * PAGE as u64);
                }
                page += 1;
            }
        }
        Ok(())
    }
}

/// Adds a range, joined to the last one if they touch.
fn push(found: &mut Vec<Range<u64>>, range: Range<u64>) {
    match found.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => found.push(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::region::Region;

    #[test]
    fn only_pages_written_to_are_present_either_way() {
        let mut region = Region::new(64 * PAGE).unwrap();
        let start = region.as_ptr() as u64;
        let page = |nth: usize| start + (nth * PAGE) as u64;
        for nth in [3, 4, 5, 20, 63] {
            region[nth * PAGE] = 1;
        }
        let whole = start..page(64);
        let expect = [page(3)..page(6), page(20)..page(21), page(63)..page(64)];
        let own = std::process::id().cast_signed();
        let map = Pagemap::open(own).unwrap();
        let mut read = Vec::new();
        map.entries(whole.clone(), false, &mut read).unwrap();
        assert_eq!(read, expect);
        let mut either = Vec::new();
        Pagemap::open(own).unwrap().present(whole, false, &mut either).unwrap();
        assert_eq!(either, expect);
    }

    #[test]
    fn many_ranges_take_several_scans() {
        let pages = 4 * FOUND;
        let mut region = Region::new(pages * PAGE).unwrap();
        for nth in (0..pages).step_by(2) {
            region[nth * PAGE] = 1;
        }
        let start = region.as_ptr() as u64;
        let mut found = Vec::new();
        let mut map = Pagemap::open(std::process::id().cast_signed()).unwrap();
        map.present(start..start + (pages * PAGE) as u64, false, &mut found).unwrap();
        assert_eq!(found.len(), pages / 2);
    }
}
