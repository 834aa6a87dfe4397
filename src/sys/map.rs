//! Files mapped into memory.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// A file's bytes, read when touched.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps a file for reading.
    ///
    /// # Errors
    /// Those of `open` and `mmap`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the map is private and only read. If somebody truncates the
        // file meanwhile, touching the lost part raises SIGBUS; the files
        // mapped here are programs, which are replaced and not rewritten (the
        // kernel refuses to write to a running one).
        Ok(Self(unsafe { Mmap::map(&file)? }))
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
