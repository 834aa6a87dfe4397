//! Files mapped into memory.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use gimli::{CloneStableDeref, StableDeref};
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

/// A file's bytes, read when touched.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps a file for reading: a program or a library that is in use. Files
    /// that somebody may write to meanwhile are to be read instead.
    ///
    /// # Errors
    /// Those of `open` and `mmap`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the map is only read. If somebody truncates the
        // file meanwhile, touching the lost part raises SIGBUS. The kernel
        // refuses to write to a running program, and a library that is
        // rewritten takes the program down with it as it is. Beside those only
        // the command line maps files: programs that do not run, and cores.
        Ok(Self(unsafe { Mmap::map(&file)? }))
    }

    /// Takes the pages within a range out of this process's memory; touched
    /// again they are read from the file again. Best effort.
    #[cfg(unix)]
    pub fn release(&self, range: Range<usize>) {
        let Some(len) = range.end.min(self.0.len()).checked_sub(range.start) else { return };
        // SAFETY: the map is shared with the file and never written to, so
        // dropping its pages loses nothing; readers meanwhile only wait for
        // the page to be read again.
        let _ =
            unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, len) };
    }

    /// The same where there is no such call: nothing.
    #[cfg(not(unix))]
    pub fn release(&self, _range: Range<usize>) {}
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Bytes that many readers hold on to, wherever they are.
#[derive(Clone, Debug)]
pub enum Shared {
    /// Of a mapped file.
    Mapped(Arc<MappedFile>),
    /// In memory.
    Held(Arc<Vec<u8>>),
}

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => &map.0,
            Self::Held(bytes) => bytes,
        }
    }
}

// SAFETY: both kinds are behind an `Arc` that is never written through, so the
// bytes stay where they are while the value is moved.
unsafe impl StableDeref for Shared {}
// SAFETY: a clone shares the `Arc`, so it leads to the same bytes and keeps
// them.
unsafe impl CloneStableDeref for Shared {}
