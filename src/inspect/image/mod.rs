//! Memory that holds still: of a forked copy of this process, of another
//! process copied while it was frozen, or of a core dump.

mod cache;

use std::fmt;
use std::ops::Range;

pub use cache::Cached;

/// An address that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The first address that could not be read.
    pub address: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no memory at {:#x}", self.address)
    }
}

/// Reads bytes at an address. What is read twice is the same twice.
pub trait Memory {
    /// Copies `to.len()` bytes; all or nothing.
    ///
    /// # Errors
    /// Part of the range is not there.
    fn read(&mut self, address: u64, to: &mut [u8]) -> Result<(), Fault>;

    /// Private writable mappings, ascending: where heaps are.
    fn writable(&self) -> &[Range<u64>];
}

/// A thread of the process the image is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageThread {
    /// Kernel id.
    pub tid: i32,
    /// Its name.
    pub name: String,
    /// Thread pointer (`fs` base on x86-64).
    pub thread_pointer: u64,
}

/// What the reader of tasks is given.
pub struct Image {
    /// The memory.
    pub memory: Box<dyn Memory + Send>,
    /// Where the executable is, minus where it was linked to be.
    pub bias: u64,
    /// Threads, as far as their thread pointers are known.
    pub threads: Vec<ImageThread>,
}
