//! The folders in which the program's own units were compiled.
//!
//! Debug information names a workspace's files by a path relative to the
//! folder that rustc ran in (`DW_AT_comp_dir`), and readers join the two.
//! People know their files by the relative path, which is also what
//! `std::panic::Location` says; so the joined prefix is taken off again.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use addr2line::gimli::{self, Dwarf, EndianSlice, LittleEndian, SectionId};
use object::{Object, ObjectSection};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::map::MappedFile;

/// Distinct folders believed. A program has one for each workspace in it.
const MOST: usize = 64;
/// Units looked at: a program has one for each codegen unit, some thousands.
const UNITS: usize = 200_000;

/// The folders, longest first, each with a final slash. Empty without debug
/// information.
///
/// # Errors
/// `NotFound`, `Io`; `Malformed` for damaged debug information.
pub fn of(path: &Path) -> Result<Vec<String>> {
    let doing = || format!("reading {}", path.display());
    let malformed = |error: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Malformed, format!("{}: {error}", doing()))
    };
    let bytes = MappedFile::open(path).map_err(|error| Error::io(doing(), error))?;
    let file = object::File::parse(bytes.as_ref()).map_err(|error| malformed(&error))?;
    // Only what the root of a unit refers to; and mapped, not read: the units'
    // roots lie far apart in sections of many megabytes.
    let load = |id: SectionId| -> std::result::Result<Cow<'_, [u8]>, object::Error> {
        let wanted = matches!(
            id,
            SectionId::DebugInfo
                | SectionId::DebugAbbrev
                | SectionId::DebugAddr
                | SectionId::DebugStr
                | SectionId::DebugLine
                | SectionId::DebugLineStr
                | SectionId::DebugStrOffsets
        );
        match file.section_by_name(id.name()).filter(|_| wanted) {
            Some(section) => section.uncompressed_data(),
            None => Ok(Cow::Borrowed(&[])),
        }
    };
    let sections = gimli::DwarfSections::load(load).map_err(|error| malformed(&error))?;
    let dwarf = sections.borrow(|section| EndianSlice::new(section, LittleEndian));
    homes(&dwarf).map_err(|error| malformed(&error))
}

fn homes(dwarf: &Dwarf<EndianSlice<'_, LittleEndian>>) -> gimli::Result<Vec<String>> {
    let mut folders = BTreeSet::new();
    let mut headers = dwarf.units();
    for _ in 0..UNITS {
        let Some(header) = headers.next()? else { break };
        if let Some(folder) = dwarf.unit(header)?.comp_dir {
            folders.insert(folder.slice());
        }
    }
    Ok(among(folders.into_iter().filter_map(|folder| std::str::from_utf8(folder).ok())))
}

/// The homes among the folders in which units were compiled.
pub fn among<'a>(folders: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut found = BTreeSet::new();
    for folder in folders {
        if folder.starts_with('/') && !is_foreign(folder) && found.len() < MOST {
            found.insert(format!("{}/", folder.trim_end_matches('/')));
        }
    }
    let mut found: Vec<String> = found.into_iter().collect();
    found.sort_by_key(|folder| std::cmp::Reverse(folder.len()));
    found
}

/// Crates of others keep their whole path: it says whose they are.
fn is_foreign(folder: &str) -> bool {
    ["/rustc/", "/registry/src/", "/git/checkouts/", "/lib/rustlib/"]
        .iter()
        .any(|mark| folder.contains(mark))
        || folder == "/"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_crate_was_compiled_where_its_manifest_is() {
        let homes = of(&std::env::current_exe().unwrap()).unwrap();
        assert!(homes.contains(&format!("{}/", env!("CARGO_MANIFEST_DIR"))), "{homes:?}");
        assert!(homes.iter().all(|home| !home.contains("/registry/")), "{homes:?}");
    }

    #[test]
    fn what_is_no_program_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("text");
        std::fs::write(&file, "no ELF").unwrap();
        assert_eq!(of(&file).unwrap_err().kind(), ErrorKind::Malformed);
        assert_eq!(of(&folder.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
