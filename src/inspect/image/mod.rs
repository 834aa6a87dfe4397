//! Memory that holds still: of a forked copy of this process, of another
//! process copied while it was frozen, or of a core dump.

mod cache;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

#[cfg(feature = "cli")]
mod auxv;
mod bias;
#[cfg(feature = "cli")]
mod build_id;
#[cfg(feature = "cli")]
mod copied;
#[cfg(feature = "cli")]
pub mod core;
mod learned;
#[cfg(feature = "cli")]
pub mod other;
pub mod own;
#[cfg(feature = "cli")]
mod pieces;
#[cfg(feature = "cli")]
pub mod stacks;

use super::maps::Mapping;
use crate::sys::registers::Registers;

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

    /// The same for a search that goes through all that is there: it does not
    /// mean that anybody needs it.
    ///
    /// # Errors
    /// Part of the range is not there.
    fn search(&mut self, address: u64, to: &mut [u8]) -> Result<(), Fault> {
        self.read(address, to)
    }

    /// Private writable mappings, ascending: where heaps are.
    fn writable(&self) -> &[Range<u64>];

    /// Whether something was asked for that was left out on purpose, because
    /// nobody had needed it before. Another image has it.
    fn lacked(&self) -> bool {
        false
    }
}

/// A thread of the process the image is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageThread {
    /// Kernel id.
    pub tid: i32,
    /// Its name.
    pub name: String,
    /// Thread pointer (`fs` base on x86-64); 0 if unknown.
    pub thread_pointer: u64,
    /// Where it was; `None` if unknown.
    pub registers: Option<Registers>,
}

/// What the reader of tasks is given.
pub struct Image {
    /// The memory.
    pub memory: Box<dyn Memory + Send>,
    /// Where the executable is, minus where it was linked to be.
    pub bias: u64,
    /// Threads, as far as their thread pointers are known.
    pub threads: Vec<ImageThread>,
    /// Its process.
    pub pid: u32,
    /// When it was taken: `CLOCK_MONOTONIC` in nanoseconds, the clock of
    /// tokio's deadlines. 0 for a core dump, which does not tell.
    pub taken_ns: u64,
    /// How long its process stood still for it.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // for other processes
    pub frozen_ns: u64,
    /// Where its code came from.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // for other processes
    pub origin: Origin,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("pid", &self.pid)
            .field("bias", &self.bias)
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

/// The files behind an image.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Where to open the executable.
    pub executable: PathBuf,
    /// Where to open it when its file was replaced.
    pub running: PathBuf,
    /// What the mappings call the executable.
    pub named: Option<PathBuf>,
    /// Where its process's `/` is.
    pub root: PathBuf,
    /// What was mapped.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // for other processes
    pub mappings: Vec<Mapping>,
}

impl Origin {
    /// This process.
    pub fn own(mappings: Vec<Mapping>) -> Self {
        let running = crate::debuginfo::symbols::own_executable();
        Self::living(running, PathBuf::from("/"), mappings)
    }

    /// A living process, by its `/proc/PID/exe` and its root.
    fn living(running: PathBuf, root: PathBuf, mappings: Vec<Mapping>) -> Self {
        let link = std::fs::read_link(&running).ok();
        let named = link.map(|link| match link.to_str().and_then(|it| it.strip_suffix(DELETED)) {
            Some(before) => PathBuf::from(before),
            None => link,
        });
        let mut origin = Self { executable: PathBuf::new(), running, named, root, mappings };
        origin.executable = match &origin.named {
            Some(named) => origin.file(named),
            None => origin.running.clone(),
        };
        origin
    }

    /// Where to open a file that the process calls so.
    pub fn file(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// What the kernel writes after the name of a file that is gone.
const DELETED: &str = " (deleted)";
