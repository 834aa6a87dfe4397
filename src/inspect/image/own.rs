//! The memory of this process as of one instant, read at leisure while the
//! process goes on: see [`crate::sys::fork`].

use std::io;
use std::ops::Range;
use std::time::Duration;

use super::pages::{Cache, Pages};
use super::{Fault, Image, Memory, Origin, bias};
use crate::error::Result;
use crate::inspect::maps;
use crate::sys::clock;
use crate::sys::fork::Copy;

/// Copies this process. The copy holds for `life` at most; reads fail after
/// that. Costs a pause of some milliseconds to whoever allocates or first
/// writes to a page meanwhile, and the memory that is written to while the
/// image lives: drop it soon.
///
/// Threads are not listed: their thread pointers are not known.
///
/// # Errors
/// `Busy` while another image of this process lives; `OutOfMemory`,
/// `Permission` or `Unsupported` where the system refuses.
pub fn take(life: Duration) -> Result<Image> {
    let bias = bias::own()?;
    // Before the copy: what is mapped later can only be missing there.
    let mappings = maps::own()?;
    let writable = maps::writable(&mappings);
    let copy = Copy::new(life)?;
    let taken_ns = clock::monotonic_ns();
    let memory = Own { pages: Cache::new(copy)?, writable };
    Ok(Image {
        memory: Box::new(memory),
        bias,
        threads: Vec::new(),
        pid: std::process::id(),
        taken_ns,
        frozen_ns: 0,
        origin: Origin::own(mappings),
    })
}

struct Own {
    pages: Cache<Copy>,
    writable: Vec<Range<u64>>,
}

impl Pages for Copy {
    fn read_pages(&mut self, from: u64, to: &mut [u8]) -> io::Result<u64> {
        Copy::read_pages(self, from, to)
    }
}

impl Memory for Own {
    fn read(&mut self, address: u64, to: &mut [u8]) -> std::result::Result<(), Fault> {
        self.pages.read(address, to)
    }

    fn writable(&self) -> &[Range<u64>] {
        &self.writable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::one_copy_at_a_time;

    #[test]
    fn an_image_of_ourselves_holds_still() {
        let _one = one_copy_at_a_time();
        let mut kept: Vec<u64> = (0..10_000).collect();
        let mut image = take(Duration::from_secs(20)).unwrap();
        kept.fill(0);
        let at = kept.as_ptr() as u64;
        let memory = &mut image.memory;
        assert!(memory.writable().iter().any(|range| range.contains(&at)));
        let mut word = [0; 8];
        for index in [0, 511, 512, 9_999] {
            memory.read(at + index * 8, &mut word).unwrap();
            assert_eq!(u64::from_ne_bytes(word), index);
        }
        // Constants are in the executable's own pages.
        let text = "constant text";
        let mut copied = vec![0; text.len()];
        memory.read(text.as_ptr() as u64, &mut copied).unwrap();
        assert_eq!(copied, text.as_bytes());
        assert_eq!(memory.read(8, &mut word), Err(Fault { address: 8 }));
        assert_eq!(image.pid, std::process::id());
        assert!(image.taken_ns <= clock::monotonic_ns());
    }
}
