//! Saved layouts: all that a dump needs of a program's debug information, in
//! a file small enough to be kept with every build.
//!
//! ```text
//! "TPLAYOUT"  version: u32  inflated length: u32  CRC-32 of the inflated: u32
//! key length: u8  key                        (build id, hexadecimal)
//! zlib stream of:
//!   detail: u8
//!   words    count, then each: length, bytes
//!   types    count, then each: length of its record; then the records:
//!              size, name, shape (see `write`)
//!   tasks    count, then each: address, count, then each: future, scheduler, cell + 1
//!   vtables  count, then each: address, type
//!   polled   count, then each: type, function, flags, place if it has one
//!   context  0, or 1, offset and type
//! ```
//!
//! Numbers are LEB128, addresses the difference to the one before; fixed ones
//! in the head are little-endian. Texts are lists of words: names repeat each
//! other's parts over and over.

mod bytes;
mod collect;
#[cfg(any(feature = "cli", test, fuzzing))]
mod pack;
mod read;
mod write;

#[cfg(test)]
mod tests;

use std::io::Read as _;
use std::path::Path;

#[cfg(any(feature = "cli", test, fuzzing))]
pub use self::pack::write;
pub use self::read::Saved;
pub(super) use self::write::compact;

/// What every such file begins with.
const MAGIC: &[u8; 8] = b"TPLAYOUT";
/// Version of the format. Another one is not read: the file is quickly made anew.
const VERSION: u32 = 1;
/// Inflated size believed. The layouts of the largest programs known are some
/// tens of MiB.
const MAX_INFLATED: usize = 256 << 20;

/// Whether a file is one of saved layouts.
pub(super) fn is_saved(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && magic == *MAGIC
}

/// The build that a file of saved layouts says it is for, the rest unread;
/// `None` for anything else.
pub(super) fn key_of(path: &Path) -> Option<String> {
    const FIXED: usize = MAGIC.len() + 12;
    let mut file = std::fs::File::open(path).ok()?;
    let mut head = [0; FIXED + 1];
    file.read_exact(&mut head).ok()?;
    if !head.starts_with(MAGIC) {
        return None;
    }
    let mut key = vec![0; usize::from(head[FIXED])];
    file.read_exact(&mut key).ok()?;
    String::from_utf8(key).ok()
}
