//! Small reads out of large copies: a bounded cache of pages.
//!
//! A walk reads some ten bytes at a time; a system call for each would cost a
//! hundred times the copying. Blocks of pages are fetched when first touched,
//! and kept as long as no other block wants their place.

use std::io;

use super::Fault;
use crate::error::{Error, Result};
use crate::sys::region::Region;
use crate::sys::remote::PAGE;

/// Fetched at once: tasks of one list are near each other.
const BLOCK: usize = 16 * 1024;
/// Blocks kept. Together 24 MiB, touched as used: a third of the memory of
/// 100,000 tasks, and well within what a dump may take.
const BLOCKS: usize = 1536;
/// Block number of a place that holds none: no user address is there.
const NONE: u64 = u64::MAX;

/// Where pages come from.
pub trait Pages {
    /// Copies whole pages; bit `n` of the answer: page `n` was there.
    fn read_pages(&mut self, from: u64, to: &mut [u8]) -> io::Result<u64>;
}

/// Pages of a copy, some of them here.
pub struct Cache<P> {
    source: P,
    bytes: Region,
    /// What is at each place: number of the block, and which pages were there.
    held: Box<[(u64, u64)]>,
}

impl<P: Pages> Cache<P> {
    /// An empty cache.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn new(source: P) -> Result<Self> {
        let bytes = Region::new(BLOCK * BLOCKS)
            .map_err(|error| Error::io("making room for pages of a memory image", error))?;
        Ok(Self { source, bytes, held: vec![(NONE, 0); BLOCKS].into() })
    }

    /// Copies bytes; all or nothing.
    ///
    /// # Errors
    /// Part of the range is not there, or the source is gone.
    pub fn read(&mut self, address: u64, to: &mut [u8]) -> std::result::Result<(), Fault> {
        let end = address.checked_add(to.len() as u64).ok_or(Fault { address })?;
        let mut at = address;
        while at < end {
            let page = self.page(at)?;
            let skip = at as usize % PAGE;
            let len = (PAGE - skip).min((end - at) as usize);
            let done = (at - address) as usize;
            to[done..done + len].copy_from_slice(&page[skip..skip + len]);
            at += len as u64;
        }
        Ok(())
    }

    /// The page around an address.
    fn page(&mut self, address: u64) -> std::result::Result<&[u8], Fault> {
        let block = address / BLOCK as u64;
        let place = (block % BLOCKS as u64) as usize;
        let bytes = &mut self.bytes[place * BLOCK..(place + 1) * BLOCK];
        let held = &mut self.held[place];
        if held.0 != block {
            // A failed fetch leaves nothing behind.
            *held = (NONE, 0);
            let there = self.source.read_pages(block * BLOCK as u64, bytes);
            *held = (block, there.map_err(|_| Fault { address })?);
        }
        let nth = address as usize % BLOCK / PAGE;
        if held.1 >> nth & 1 == 0 {
            return Err(Fault { address });
        }
        Ok(&bytes[nth * PAGE..(nth + 1) * PAGE])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Memory whose bytes follow from their addresses; every seventh page is
    /// missing.
    #[derive(Default)]
    struct Made {
        calls: usize,
        gone: bool,
    }

    fn missing(address: u64) -> bool {
        address / PAGE as u64 % 7 == 3
    }

    fn byte_at(address: u64) -> u8 {
        (address ^ address >> 8 ^ address >> 16 ^ address >> 24) as u8
    }

    impl Pages for Made {
        fn read_pages(&mut self, from: u64, to: &mut [u8]) -> io::Result<u64> {
            self.calls += 1;
            if self.gone {
                return Err(io::ErrorKind::NotFound.into());
            }
            let mut there = 0;
            for (nth, page) in to.chunks_mut(PAGE).enumerate() {
                let start = from + (nth * PAGE) as u64;
                if !missing(start) {
                    there |= 1 << nth;
                    for (at, byte) in (start..).zip(page) {
                        *byte = byte_at(at);
                    }
                }
            }
            Ok(there)
        }
    }

    #[test]
    fn neighbours_cost_one_fetch() {
        let mut cache = Cache::new(Made::default()).unwrap();
        for at in (0..BLOCK as u64).step_by(64).filter(|&at| !missing(at)) {
            cache.read(at, &mut [0; 8]).unwrap();
        }
        assert_eq!(cache.source.calls, 1);
    }

    #[test]
    fn what_was_held_can_be_read_after_the_source_is_gone_and_no_more() {
        let mut cache = Cache::new(Made::default()).unwrap();
        cache.read(0, &mut [0; 8]).unwrap();
        cache.source.gone = true;
        cache.read(8, &mut [0; 8]).unwrap();
        let far = (BLOCK * BLOCKS) as u64;
        assert_eq!(cache.read(far, &mut [0; 8]), Err(Fault { address: far }));
        // The place is empty now rather than wrong.
        assert_eq!(cache.read(8, &mut [0; 8]), Err(Fault { address: 8 }));
    }

    proptest! {
        #[test]
        fn reads_are_right_or_faults(
            reads in proptest::collection::vec((0_u64..1 << 26, 0_usize..20_000), 1..30),
        ) {
            let mut cache = Cache::new(Made::default()).unwrap();
            for (address, len) in reads {
                let mut to = vec![0; len];
                let end = address + len as u64;
                let hole = (address..end).find(|&at| missing(at));
                match cache.read(address, &mut to) {
                    Ok(()) => {
                        prop_assert_eq!(hole, None);
                        prop_assert!((address..).zip(&to).all(|(at, &byte)| byte == byte_at(at)));
                    }
                    Err(fault) => prop_assert_eq!(Some(fault.address), hole),
                }
            }
        }

        #[test]
        fn any_address_is_harmless(address: u64, len in 0_usize..10_000) {
            let mut cache = Cache::new(Made { calls: 0, gone: true }).unwrap();
            let _ = cache.read(address, &mut vec![0; len]);
        }
    }
}
