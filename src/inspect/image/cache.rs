//! Small reads made cheap: chunks of an image, kept for a while.
//!
//! A walk reads words all over the heap, and each read of an image may be a
//! system call. Chunks of [`CHUNK`] bytes are kept in a table of [`SETS`] pairs:
//! two comparisons find a word, and the table can never grow. A pair keeps the
//! chunk that was used last, so that what a walk comes back to all the time
//! (vtables, a channel that all wait for) stays while the tasks pass by.

use std::io;

use memmap2::MmapMut;

use super::{Fault, Memory};

/// Large enough that neighbours on the heap come along, small enough that a
/// stray pointer costs little.
const CHUNK: usize = 16 * 1024;
/// What a chunk falls back to where part of it is not there.
const PAGE: usize = 4096;
/// 4 MiB in all: tasks are followed as they were spawned, so neighbours on the
/// heap come near each other, and few chunks are needed at a time.
const SETS: usize = 128;
const SLOTS: usize = 2 * SETS;
const NO_CHUNK: u64 = u64::MAX;

/// Memory behind a bounded cache.
pub struct Cached<'a> {
    memory: &'a mut dyn Memory,
    /// The two of a pair beside each other.
    slots: Box<[Slot]>,
    /// Of each pair, the slot used last.
    recent: Box<[usize]>,
    /// A chunk for each slot. Mapped, so that all of it goes back to the
    /// system afterwards, which a heap does not promise.
    data: MmapMut,
    fetched: u64,
    bytes: u64,
}

struct Slot {
    chunk: u64,
    /// One bit for each page that is there.
    pages: u8,
}

const ALL_PAGES: u8 = (1 << (CHUNK / PAGE)) - 1;

impl<'a> Cached<'a> {
    /// Reads from `memory`, at most `bytes` in all; what lies beyond is a fault.
    ///
    /// # Errors
    /// The system has no memory for the cache.
    pub fn new(memory: &'a mut dyn Memory, bytes: u64) -> io::Result<Self> {
        let slots = (0..SLOTS).map(|_| Slot { chunk: NO_CHUNK, pages: 0 });
        let data = MmapMut::map_anon(SLOTS * CHUNK)?;
        let recent = (0..SETS).map(|set| 2 * set).collect();
        Ok(Self { memory, slots: slots.collect(), recent, data, fetched: 0, bytes })
    }

    /// The bound on bytes ended a read.
    pub fn exhausted(&self) -> bool {
        self.fetched >= self.bytes
    }

    /// What is behind the cache, for reads too large for it.
    pub fn memory(&mut self) -> &mut dyn Memory {
        self.memory
    }

    /// Copies `to.len()` bytes; all or nothing.
    ///
    /// # Errors
    /// Part of the range is not there, or the bound on bytes is reached.
    pub fn read(&mut self, address: u64, to: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < to.len() {
            let at = address.checked_add(done as u64).ok_or(Fault { address })?;
            let chunk = at / CHUNK as u64;
            let start = (at % CHUNK as u64) as usize;
            let len = (CHUNK - start).min(to.len() - done);
            let (pages, data) = self.chunk(chunk);
            for page in start / PAGE..=(start + len - 1) / PAGE {
                if pages & (1 << page) == 0 {
                    let fault = chunk * CHUNK as u64 + (page * PAGE) as u64;
                    return Err(Fault { address: fault.max(at) });
                }
            }
            to[done..done + len].copy_from_slice(&data[start..start + len]);
            done += len;
        }
        Ok(())
    }

    /// A little-endian number of 1 to 8 bytes.
    ///
    /// # Errors
    /// As [`Cached::read`].
    pub fn number(&mut self, address: u64, size: u8) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        let size = usize::from(size).min(bytes.len());
        // Nearly all there is to read: a number within a page of the chunk that
        // its pair has used last.
        let (chunk, start) = (address / CHUNK as u64, (address % CHUNK as u64) as usize);
        let index = self.recent[(chunk % SETS as u64) as usize];
        let slot = &self.slots[index];
        if slot.chunk == chunk
            && start % PAGE + size <= PAGE
            && slot.pages & (1 << (start / PAGE)) != 0
        {
            let at = index * CHUNK + start;
            bytes[..size].copy_from_slice(&self.data[at..at + size]);
            return Ok(u64::from_le_bytes(bytes));
        }
        self.read(address, &mut bytes[..size])?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A word or an address.
    ///
    /// # Errors
    /// As [`Cached::read`].
    pub fn word(&mut self, address: u64) -> Result<u64, Fault> {
        self.number(address, 8)
    }

    /// Which pages of a chunk are there, and what is in them.
    fn chunk(&mut self, chunk: u64) -> (u8, &[u8]) {
        let recent = &mut self.recent[(chunk % SETS as u64) as usize];
        if self.slots[*recent].chunk != chunk {
            *recent ^= 1;
        }
        let index = *recent;
        let slot = &mut self.slots[index];
        let data = &mut self.data[index * CHUNK..][..CHUNK];
        if slot.chunk != chunk {
            slot.chunk = chunk;
            slot.pages = 0;
            if self.fetched < self.bytes {
                self.fetched += CHUNK as u64;
                let at = chunk * CHUNK as u64;
                if self.memory.read(at, data).is_ok() {
                    slot.pages = ALL_PAGES;
                } else {
                    for (page, data) in data.chunks_exact_mut(PAGE).enumerate() {
                        let at = at + (page * PAGE) as u64;
                        if self.memory.read(at, data).is_ok() {
                            slot.pages |= 1 << page;
                        }
                    }
                }
            }
        }
        (slot.pages, data)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;

    /// Every byte tells its address; reads are counted.
    struct Counting {
        there: Range<u64>,
        reads: usize,
    }

    impl Memory for Counting {
        fn read(&mut self, address: u64, to: &mut [u8]) -> Result<(), Fault> {
            self.reads += 1;
            for (offset, byte) in to.iter_mut().enumerate() {
                let at = address.wrapping_add(offset as u64);
                if !self.there.contains(&at) {
                    return Err(Fault { address: at });
                }
                *byte = byte_at(at);
            }
            Ok(())
        }

        fn writable(&self) -> &[Range<u64>] {
            &[]
        }
    }

    fn byte_at(address: u64) -> u8 {
        (address ^ (address >> 8) ^ (address >> 16)) as u8
    }

    #[test]
    fn neighbours_come_from_one_read() {
        let mut memory = Counting { there: 0..1 << 20, reads: 0 };
        let mut cached = Cached::new(&mut memory, u64::MAX).unwrap();
        for address in (0..CHUNK as u64 - 8).step_by(8) {
            cached.word(address).unwrap();
        }
        drop(cached);
        assert_eq!(memory.reads, 1);
    }

    #[test]
    fn what_is_come_back_to_stays_while_others_pass_by() {
        let passing = 10 * SLOTS as u64;
        let mut memory = Counting { there: 0..u64::MAX, reads: 0 };
        let mut cached = Cached::new(&mut memory, u64::MAX).unwrap();
        for nth in 0..passing {
            cached.word(0).unwrap();
            cached.word((1 + nth) * CHUNK as u64).unwrap();
        }
        drop(cached);
        assert_eq!(memory.reads as u64, 1 + passing);
    }

    #[test]
    fn pages_beside_a_hole_can_be_read() {
        let page = PAGE as u64;
        // All within one chunk.
        let mut memory = Counting { there: page..3 * page, reads: 0 };
        let mut cached = Cached::new(&mut memory, u64::MAX).unwrap();
        assert_eq!(cached.number(page, 1), Ok(u64::from(byte_at(page))));
        assert!(cached.word(page - 4).is_err());
        assert_eq!(cached.word(3 * page - 4), Err(Fault { address: 3 * page }));
        let reads = {
            drop(cached);
            memory.reads
        };
        assert_eq!(reads, 1 + CHUNK / PAGE, "the hole is asked for once");
    }

    #[test]
    fn the_bound_on_bytes_holds() {
        let mut memory = Counting { there: 0..u64::MAX, reads: 0 };
        let mut cached = Cached::new(&mut memory, 3 * CHUNK as u64).unwrap();
        let read = (0..100).filter(|at| cached.word(at * CHUNK as u64).is_ok()).count();
        assert_eq!(read, 3);
        assert!(cached.exhausted());
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_is_there(
            reads in prop::collection::vec((0u64..1 << 26, 0usize..200_000), 1..20),
        ) {
            let mut memory = Counting { there: 5_000..1 << 25, reads: 0 };
            let mut cached = Cached::new(&mut memory, u64::MAX).unwrap();
            for (address, len) in reads {
                let mut to = vec![0; len];
                // Pages are all or nothing; so is the test's range, nearly.
                let pages = address / 4096 * 4096..(address + len as u64).next_multiple_of(4096);
                let whole = len == 0 || (pages.start >= 8192 && pages.end <= 1 << 25);
                let got = cached.read(address, &mut to);
                prop_assert_eq!(got.is_ok(), whole, "{} {}", address, len);
                if got.is_ok() {
                    let right = (address..).zip(&to).all(|(at, &byte)| byte == byte_at(at));
                    prop_assert!(right);
                }
            }
        }

        #[test]
        fn wild_addresses_are_faults(address in u64::MAX - 100_000.., len in 0usize..100_000) {
            let mut memory = Counting { there: 0..1, reads: 0 };
            let mut cached = Cached::new(&mut memory, u64::MAX).unwrap();
            prop_assert!(len == 0 || cached.read(address, &mut vec![0; len]).is_err());
        }
    }
}
