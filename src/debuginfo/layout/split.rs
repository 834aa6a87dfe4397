//! Split debug information: the program has skeletons of its units, the rest
//! is in a package (`.dwp`, rustc's `split-debuginfo=packed`) or in one file
//! for each unit (`.dwo`, `unpacked`).

use std::path::{Path, PathBuf};

use addr2line::gimli::{DebugCuIndex, EndianSlice, IndexSectionId, LittleEndian};

use super::sections::{Sections, damaged};
use super::store::{Share, Skeleton, Store};
use crate::debuginfo::file::DebugFile;
use crate::error::Result;

/// Files of single units that are read: a program has one for each codegen
/// unit, some thousands.
const FILES: usize = 16_384;

/// What came of the skeletons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The package, if there is one.
    pub(super) package: Option<PathBuf>,
    /// Units found.
    pub(super) units: usize,
    /// Units not found anywhere.
    pub(super) missing: usize,
    /// One of the files that are not there.
    pub(super) example: Option<PathBuf>,
}

/// Finds the rest of the units and adds it. `beside` are the program's names
/// beside which a package may lie.
///
/// # Errors
/// `Malformed` for damaged debug information; files that are not there are
/// counted in the answer.
pub(super) fn add(
    store: &mut Store,
    program: &Sections,
    skeletons: &[Skeleton],
    beside: &[PathBuf],
) -> Result<Found> {
    let mut found = Found::default();
    let mut left: Vec<&Skeleton> = skeletons.iter().collect();
    for path in beside {
        if left.is_empty() {
            break;
        }
        let Some(rest) = package(store, program, &left, path)? else { continue };
        if rest.len() < left.len() {
            found.units += left.len() - rest.len();
            found.package = Some(path.clone());
        }
        left = rest;
    }
    let folders: Vec<&Path> = beside.iter().filter_map(|path| path.parent()).collect();
    for (index, skeleton) in left.into_iter().enumerate() {
        if index < FILES && single(store, program, skeleton, &folders)? {
            found.units += 1;
        } else {
            found.missing += 1;
            found.example.get_or_insert_with(|| skeleton.path());
        }
    }
    Ok(found)
}

/// Adds what a package has; answers the skeletons it has nothing for, `None`
/// if it is no package at all.
fn package<'s>(
    store: &mut Store,
    program: &Sections,
    skeletons: &[&'s Skeleton],
    path: &Path,
) -> Result<Option<Vec<&'s Skeleton>>> {
    let Ok(file) = DebugFile::beside(path) else { return Ok(None) };
    let [index] = file.sections([".debug_cu_index"])?;
    if index.get().is_empty() {
        return Ok(None);
    }
    let sections = Sections::find(&file, ".dwo")?.beside(program);
    let index = DebugCuIndex::from(EndianSlice::new(index.get(), LittleEndian));
    let index = index.index().map_err(damaged)?;
    let (mut here, mut left) = (Vec::new(), Vec::new());
    for &skeleton in skeletons {
        let Some(row) = index.find(skeleton.id) else {
            left.push(skeleton);
            continue;
        };
        let (mut info, mut share) = (None, Share::default());
        for section in index.sections(row).map_err(damaged)? {
            let offset = u64::from(section.offset);
            match section.section {
                IndexSectionId::DebugInfo => info = Some(offset),
                IndexSectionId::DebugAbbrev => share.abbrev = offset,
                IndexSectionId::DebugStrOffsets => share.str_offsets = offset,
                _ => {}
            }
        }
        match info {
            Some(at) => here.push((skeleton, at, share)),
            None => left.push(skeleton),
        }
    }
    if !here.is_empty() {
        store.add_split(sections, here)?;
    }
    Ok(Some(left))
}

/// Adds the one unit of a file of its own.
fn single(
    store: &mut Store,
    program: &Sections,
    skeleton: &Skeleton,
    folders: &[&Path],
) -> Result<bool> {
    let written = skeleton.path();
    let name = written.file_name().map(PathBuf::from).unwrap_or_default();
    // Where the compiler put it; beside the program; where cargo keeps what
    // a program in the folder above was linked from.
    let moved =
        folders.iter().flat_map(|folder| [folder.join(&name), folder.join("deps").join(&name)]);
    for path in std::iter::once(written.clone()).chain(moved) {
        let Ok(file) = DebugFile::beside(&path) else { continue };
        // A file of an older build has another id.
        let sections = Sections::find(&file, ".dwo")?.beside(program);
        let units = super::store::ids(&sections)?;
        if let Some(&(_, at)) = units.iter().find(|unit| unit.0 == skeleton.id) {
            store.add_split(sections, [(skeleton, at, Share::default())])?;
            return Ok(true);
        }
    }
    Ok(false)
}
