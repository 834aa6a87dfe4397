//! What names addresses: a program's line tables, its functions and its symbols.
//!
//! addr2line's own loader maps every file that it comes across and unpacks what
//! they claim; this one keeps to what [`DebugFile`] allows.

mod split;
mod symbol_table;

use std::path::Path;

use addr2line::{Context, FrameIter, LookupContinuation as _, LookupResult};
use gimli::{AbbreviationsCacheStrategy, Dwarf, SectionId};

use self::split::Split;
use self::symbol_table::SymbolTable;
use super::file::{Bytes, DebugFile, Reader, malformed};
use super::homes;
use crate::error::Result;
use crate::sys::map::MappedFile;

/// Debug information of one file, with what is split off.
pub struct Loader {
    context: Context<Reader>,
    split: Split,
    symbols: Option<SymbolTable>,
}

impl Loader {
    /// Maps a program or a library in use, and reads where its units are. Also
    /// answers the folders of [`homes`].
    ///
    /// # Errors
    /// `NotFound`, `Permission`, `Io`; `Malformed` for damaged files;
    /// `OutOfMemory` if a section claims too much.
    pub fn open(path: &Path) -> Result<(Self, Vec<String>)> {
        let file = DebugFile::program(path)?;
        let mut dwarf = dwarf(&file)?;
        dwarf.populate_abbreviations_cache(AbbreviationsCacheStrategy::Duplicates);
        // Damaged units show again, and better, when a frame is looked up.
        let homes = homes::of(&dwarf).unwrap_or_default();
        let context = Context::from_dwarf(dwarf).map_err(|error| malformed(path, error))?;
        let symbols = file.map().map(SymbolTable::of).transpose();
        let symbols = symbols.map_err(|error| malformed(path, error))?;
        if let Some(map) = file.map() {
            // The units' roots lie all over it; few are needed again.
            map.release(0..MappedFile::as_ref(map).len());
        }
        Ok((Self { context, split: Split::of(path), symbols }, homes))
    }

    /// The frames at an address as linked, innermost first.
    ///
    /// # Errors
    /// Damaged debug information.
    pub fn find_frames(&self, address: u64) -> gimli::Result<FrameIter<'_, Reader>> {
        let mut found = self.context.find_frames(address);
        loop {
            match found {
                LookupResult::Output(frames) => return frames,
                LookupResult::Load { load, continuation } => {
                    found = continuation.resume(self.split.find(&load));
                }
            }
        }
    }

    /// The symbol around an address as linked, mangled.
    pub fn find_symbol(&self, address: u64) -> Option<&str> {
        self.symbols.as_ref()?.around(address)
    }
}

/// What addresses are looked up in.
const SECTIONS: [SectionId; 10] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

fn dwarf(file: &DebugFile) -> Result<Dwarf<Reader>> {
    let found = file.sections(SECTIONS.map(|id| id.name()))?;
    Ok(of_sections(&SECTIONS, &found))
}

/// Debug information of these sections and no others.
fn of_sections(ids: &[SectionId], found: &[Bytes]) -> Dwarf<Reader> {
    let load = |wanted: SectionId| {
        let mut known = ids.iter().zip(found);
        let bytes = known.find(|(id, _)| **id == wanted).map(|(_, bytes)| bytes.reader());
        Ok::<_, std::convert::Infallible>(bytes.unwrap_or_else(|| Bytes::None.reader()))
    };
    let Ok(dwarf) = Dwarf::load(load);
    dwarf
}

#[cfg(test)]
mod tests;
