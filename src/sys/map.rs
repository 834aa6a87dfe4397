//! Files mapped into memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

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
        // SAFETY: the map is only read. If somebody truncates the
        // file meanwhile, touching the lost part raises SIGBUS; the files
        // mapped here are programs, which are replaced and not rewritten (the
        // kernel refuses to write to a running one).
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
