//! File addresses to frames: function names, lines, inlined calls.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::loader::Loader;
use super::{homes, names};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Frame, FrameKind, Location};

/// Distinct addresses remembered for one file. A frame takes some 300 bytes,
/// so a full cache is a few MiB; then it starts afresh.
const CACHED: usize = 16_384;

/// File, line and column.
type Place = (String, u32, u32);

/// Debug information of one file.
pub struct Symbols {
    loader: Loader,
    own: bool,
    /// Folders whose files are named relative to them.
    homes: Vec<String>,
    /// The file's name, to place functions that have none.
    file: String,
    cache: HashMap<u64, Arc<[Frame]>>,
    strings: HashMap<String, Arc<str>>,
}

impl std::fmt::Debug for Symbols {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Symbols").field("cached", &self.cache.len()).finish_non_exhaustive()
    }
}

impl Symbols {
    /// Maps a file and reads its table of contents; the costly part. `own`:
    /// it is the program itself, not a shared library.
    ///
    /// # Errors
    /// `NotFound` or `Permission` for the file, `Malformed` for its content.
    pub fn open(path: &Path, own: bool) -> Result<Self> {
        let (loader, homes) = guarded(path, || Loader::open(path))??;
        let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { loader, own, homes, file, cache: HashMap::new(), strings: HashMap::new() })
    }

    /// The frames at an address as linked, innermost first: the function the
    /// address is in, last, and before it those the compiler put into it. Never empty;
    /// where nothing is known the function is named by its address.
    pub fn frames(&mut self, address: u64) -> Arc<[Frame]> {
        if let Some(frames) = self.cache.get(&address) {
            return Arc::clone(frames);
        }
        if self.cache.len() >= CACHED {
            self.cache.clear();
            self.strings.clear();
        }
        let frames: Arc<[Frame]> = self.resolve(address).into();
        self.cache.insert(address, Arc::clone(&frames));
        frames
    }

    fn resolve(&mut self, address: u64) -> Vec<Frame> {
        let mut found: Vec<(Option<String>, Option<Place>)> = Vec::new();
        if let Ok(mut frames) = self.loader.find_frames(address) {
            // Errors inside end the list: what came before is still right.
            while let Ok(Some(frame)) = frames.next() {
                let name = frame.function.as_ref().and_then(|name| name.demangle().ok());
                let place = frame.location.and_then(|place| {
                    Some((place.file?.to_owned(), place.line?, place.column.unwrap_or(0)))
                });
                found.push((name.map(|name| name.into_owned()), place));
            }
        }
        if found.is_empty() {
            found.push((None, None));
        }
        let outermost = found.len() - 1;
        let mut result = Vec::with_capacity(found.len());
        for (index, (name, place)) in found.into_iter().enumerate() {
            let inlined = index != outermost;
            let symbol = || {
                let symbol = (!inlined).then(|| self.loader.find_symbol(address)).flatten()?;
                Some(addr2line::demangle_auto(symbol.into(), None).into_owned())
            };
            let name = name.or_else(symbol);
            let file = place.as_ref().map(|(file, ..)| file.as_str());
            let kind = match &name {
                Some(name) => names::kind(file, name, self.own),
                None => FrameKind::Runtime,
            };
            let full = name.unwrap_or_else(|| unnamed(address, &self.file));
            let location = place.map(|(file, line, column)| Location {
                file: self.intern(homes::shorten(&self.homes, &file).to_owned()),
                line,
                column,
            });
            result.push(Frame {
                function: self.intern(names::short(&full)),
                function_full: self.intern(full),
                location,
                kind,
                inlined,
                address,
            });
        }
        result
    }

    fn intern(&mut self, text: String) -> Arc<str> {
        if let Some(known) = self.strings.get(&text) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = text.as_str().into();
        self.strings.insert(text, Arc::clone(&shared));
        shared
    }
}

fn unnamed(address: u64, place: &str) -> String {
    format!("{address:#x} in {place}")
}

/// A frame of which only the address is known.
pub fn unknown(address: u64, place: &str) -> Frame {
    let name: Arc<str> = unnamed(address, place).into();
    Frame {
        function: Arc::clone(&name),
        function_full: name,
        location: None,
        kind: FrameKind::Runtime,
        inlined: false,
        address,
    }
}

/// Runs foreign parsers over foreign bytes: a panic in there is their bug and
/// becomes our error.
pub fn guarded<T>(what: &Path, run: impl FnOnce() -> T) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).map_err(|payload| {
        // Its drop may panic again.
        std::mem::forget(payload);
        let text = format!("the reader of debug information panicked over {}", what.display());
        Error::new(ErrorKind::Internal, text)
    })
}

/// Path of the running executable: the file itself, even if it was replaced.
pub fn own_executable() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn an_address_outside_everything_is_still_a_frame() {
        let mut symbols = Symbols::open(&own_executable(), true).unwrap();
        let frames = symbols.frames(1 << 40);
        assert_eq!(frames.len(), 1);
        assert_eq!(&*frames[0].function, "0x10000000000 in exe");
        assert_eq!(frames[0].kind, FrameKind::Runtime);
    }

    #[test]
    fn a_panic_of_a_parser_is_an_error() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                assert!(std::thread::panicking(), "a panic's payload was dropped");
            }
        }
        let error = guarded(Path::new("x"), || std::panic::panic_any(Bomb)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.to_string().contains("panicked over x"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        std::io::Write::write_all(&mut file, &bytes[..100_000]).unwrap();
        let error = Symbols::open(file.path(), false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let error = guarded(Path::new("x.so"), || panic!("foreign")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}
