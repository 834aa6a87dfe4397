//! Debug information as one space of offsets, whichever files it is in.
//!
//! An offset here ("global") is a DIE's offset in its `.debug_info` plus
//! where that section begins in the space.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use addr2line::gimli::{
    self, Abbreviations, AttributeValue, DebugAbbrevOffset, DebugAddrBase, DebugInfoOffset,
    DebugLineOffset, DebugStrOffsetsBase, DwarfFileType, EntriesRaw, Operation, UnitHeader,
    UnitOffset, UnitType,
};

use super::root;
use super::sections::{Sections, Slice, View, damaged};
use crate::error::{Error, ErrorKind, Result};

/// Units believed: a program has one for each codegen unit, some thousands.
const UNITS: usize = 1_000_000;
/// Longest path of a file believed; the kernel's own limit.
const MAX_PATH: usize = 4096;
/// Units whose abbreviations stay parsed: some 30 KiB each.
const OPEN: usize = 64;

/// One `.debug_info` and what belongs to it.
#[derive(Debug)]
pub(super) struct Part {
    number: u32,
    sections: Sections,
    /// Where it begins in the global space.
    base: u64,
}

/// What is remembered of a unit, to open it again.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    part: u32,
    /// Global offset of its header.
    pub(super) start: u32,
    /// Global offset behind it.
    pub(super) end: u32,
    abbrev: u64,
    str_offsets: u64,
    addr: u64,
    /// Its line program, which names the files.
    line: Option<u64>,
    /// Where it was compiled.
    pub(super) folder: Option<Arc<str>>,
}

/// All debug information of a program.
#[derive(Debug, Default)]
pub(super) struct Store {
    parts: Vec<Part>,
    pub(super) units: Vec<Unit>,
    size: u64,
    /// Nobody wants it read any more.
    pub(super) stop: Arc<AtomicBool>,
}

/// Parsed abbreviations of the units used last.
#[derive(Debug, Default)]
pub(super) struct Abbrevs {
    parsed: HashMap<(u32, u64), Arc<Abbreviations>>,
}

/// A unit ready to be read.
pub(super) struct Open<'a> {
    pub(super) unit: &'a Unit,
    pub(super) view: View<'a>,
    header: UnitHeader<Slice<'a>>,
    base: u64,
    pub(super) abbrevs: Arc<Abbreviations>,
}

/// A unit whose rest is in another file.
#[derive(Clone, Debug)]
pub(super) struct Skeleton {
    /// The other file, relative to `folder`.
    pub(super) file: PathBuf,
    /// Identifies the unit there.
    pub(super) id: u64,
    unit: Unit,
}

impl Skeleton {
    /// Path of the other file as the compiler knew it.
    pub(super) fn path(&self) -> PathBuf {
        let folder = self.unit.folder.as_deref().unwrap_or("");
        Path::new(folder).join(&self.file)
    }
}

/// Where a unit's share of a package's sections begins.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    pub(super) abbrev: u64,
    pub(super) str_offsets: u64,
}

impl Store {
    /// Adds a program's debug information. The answer are the units of which
    /// it has the skeleton only.
    ///
    /// # Errors
    /// `Malformed`; `Unsupported` beyond 4 GiB in all.
    pub(super) fn add(&mut self, sections: Sections) -> Result<Vec<Skeleton>> {
        let part = self.part(sections)?;
        let view = part.sections.view();
        let mut headers = view.info.units();
        let mut skeletons = Vec::new();
        let mut units = Vec::new();
        let mut folders = Folders::default();
        while let Some(header) = headers.next().map_err(damaged)? {
            let made = part.unit(&view, &header, Share::default(), &mut folders);
            let Some((unit, split)) = made.map_err(damaged)? else { continue };
            match split {
                Some((file, id)) => skeletons.push(Skeleton { file, id, unit }),
                None => units.push(unit),
            }
            if units.len() + skeletons.len() > UNITS {
                return Err(Error::new(ErrorKind::Malformed, "too many units"));
            }
        }
        self.units.extend(units);
        self.keep(part);
        Ok(skeletons)
    }

    /// Adds the rest of some skeletons from one file: for each where its unit
    /// begins in the file's `.debug_info.dwo` and its shares begin.
    ///
    /// # Errors
    /// As for `add`.
    pub(super) fn add_split<'s>(
        &mut self,
        sections: Sections,
        found: impl IntoIterator<Item = (&'s Skeleton, u64, Share)>,
    ) -> Result<()> {
        let part = self.part(sections)?;
        let view = part.sections.view();
        let mut units = Vec::new();
        let mut folders = Folders::default();
        for (skeleton, at, share) in found {
            let header = view.info.header_from_offset(DebugInfoOffset(at as usize));
            let made = part.unit(&view, &header.map_err(damaged)?, share, &mut folders);
            let Some((mut unit, _)) = made.map_err(damaged)? else { continue };
            unit.addr = skeleton.unit.addr;
            unit.line = skeleton.unit.line;
            unit.folder = skeleton.unit.folder.clone();
            units.push(unit);
        }
        units.sort_by_key(|unit| unit.start);
        // Two skeletons of one unit would read it twice.
        units.dedup_by_key(|unit| unit.start);
        self.units.extend(units);
        self.keep(part);
        Ok(())
    }

    fn part(&self, sections: Sections) -> Result<Part> {
        let size = self.size + sections.info.get().len() as u64;
        if u32::try_from(size).is_err() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "more than 4 GiB of debug information: index a smaller build",
            ));
        }
        Ok(Part { number: self.parts.len() as u32, sections, base: self.size })
    }

    fn keep(&mut self, part: Part) {
        self.size += part.sections.info.get().len() as u64;
        self.parts.push(part);
    }

    /// Gives mapped pages back: they are read again from the file when needed.
    pub(super) fn release(&self) {
        for part in &self.parts {
            part.sections.release();
        }
    }

    /// Memory of sections that are not mapped, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.sections.held_bytes()).sum()
    }

    /// The unit around a global offset.
    pub(super) fn unit_of(&self, at: u32) -> Option<usize> {
        let after = self.units.partition_point(|unit| unit.start <= at);
        let index = after.checked_sub(1)?;
        (at < self.units[index].end).then_some(index)
    }

    /// Opens a unit.
    ///
    /// # Errors
    /// `Malformed`.
    pub(super) fn open(&self, index: usize, cache: &mut Abbrevs) -> Result<Open<'_>> {
        let unit = self.units.get(index).ok_or_else(outside)?;
        let part = &self.parts[unit.part as usize];
        let view = part.sections.view();
        let at = DebugInfoOffset((u64::from(unit.start) - part.base) as usize);
        let header = view.info.header_from_offset(at).map_err(damaged)?;
        let key = (unit.part, unit.abbrev);
        let abbrevs = match cache.parsed.get(&key) {
            Some(known) => Arc::clone(known),
            None => {
                let at = DebugAbbrevOffset(unit.abbrev as usize);
                let parsed = Arc::new(view.abbrev.abbreviations(at).map_err(damaged)?);
                if cache.parsed.len() >= OPEN {
                    cache.parsed.clear();
                }
                cache.parsed.insert(key, Arc::clone(&parsed));
                parsed
            }
        };
        Ok(Open { unit, view, header, base: part.base, abbrevs })
    }

    /// Opens the unit around a global offset.
    ///
    /// # Errors
    /// `Malformed`.
    pub(super) fn open_at(&self, at: u32, cache: &mut Abbrevs) -> Result<(usize, Open<'_>)> {
        let index = self.unit_of(at).ok_or_else(outside)?;
        Ok((index, self.open(index, cache)?))
    }
}

/// The units of a split file: what identifies them, and where they begin.
///
/// # Errors
/// `Malformed`.
pub(super) fn ids(sections: &Sections) -> Result<Vec<(u64, u64)>> {
    let view = sections.view();
    let mut headers = view.info.units();
    let mut ids = Vec::new();
    while let Some(header) = headers.next().map_err(damaged)? {
        let Some(DebugInfoOffset(at)) = header.debug_info_offset() else { continue };
        let id = match header.type_() {
            UnitType::SplitCompilation(id) => Some(id.0),
            _ => {
                let abbrev = header.debug_abbrev_offset().0 as u64;
                root::read(&view, &header, abbrev, 0).map_err(damaged)?.id
            }
        };
        ids.extend(id.map(|id| (id, at as u64)));
        if ids.len() > UNITS {
            break;
        }
    }
    Ok(ids)
}

fn outside() -> Error {
    Error::new(ErrorKind::Malformed, "damaged debug information: a reference leads outside")
}

/// Folders told once.
type Folders = HashMap<Vec<u8>, Option<Arc<str>>>;
/// A unit and, if it is a skeleton, the file with the rest of it and its id.
type Made = Option<(Unit, Option<(PathBuf, u64)>)>;

impl Part {
    /// Notes a unit. `None` for one that has no place in `.debug_info`.
    fn unit(
        &self,
        view: &View<'_>,
        header: &UnitHeader<Slice<'_>>,
        share: Share,
        folders: &mut Folders,
    ) -> gimli::Result<Made> {
        let Some(DebugInfoOffset(at)) = header.debug_info_offset() else { return Ok(None) };
        let start = self.base + at as u64;
        let abbrev = share.abbrev + header.debug_abbrev_offset().0 as u64;
        // In a split file nothing says where a unit's offsets begin: behind
        // the header, which version 4 does not have.
        let split = matches!(header.type_(), UnitType::SplitCompilation(_));
        let file_type = if split { DwarfFileType::Dwo } else { DwarfFileType::Main };
        let own = DebugStrOffsetsBase::<usize>::default_for_encoding_and_file(
            header.encoding(),
            file_type,
        );
        let str_offsets = share.str_offsets + own.0 as u64;
        let root = root::read(view, header, abbrev, str_offsets)?;
        let folder = root.folder.and_then(|folder| match folders.get(folder) {
            Some(known) => known.clone(),
            None => {
                let text = std::str::from_utf8(folder).ok().map(Arc::from);
                folders.insert(folder.to_vec(), text.clone());
                text
            }
        });
        let unit = Unit {
            part: self.number,
            start: start as u32,
            end: (start + header.length_including_self() as u64) as u32,
            abbrev,
            str_offsets: root.str_offsets.map_or(str_offsets, |base| share.str_offsets + base),
            addr: root.addr.unwrap_or(0),
            line: root.line,
            folder,
        };
        let split =
            root.split.map(|(file, id)| (PathBuf::from(std::ffi::OsStr::from_bytes(file)), id));
        Ok(Some((unit, split)))
    }
}

impl<'a> Open<'a> {
    /// All DIEs, or those from a global offset on.
    ///
    /// # Errors
    /// An offset outside the unit.
    pub(super) fn entries(&self, from: Option<u32>) -> gimli::Result<EntriesRaw<'_, Slice<'a>>> {
        let from = from.map(|at| UnitOffset((at.wrapping_sub(self.unit.start)) as usize));
        self.header.entries_raw(&self.abbrevs, from)
    }

    /// The unit's own bytes, header and all, and its abbreviations with what
    /// follows them.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> (Vec<u8>, &'a [u8]) {
        let start = (u64::from(self.unit.start) - self.base) as usize;
        let end = (u64::from(self.unit.end) - self.base) as usize;
        let section = gimli::Section::reader(&self.view.info).slice();
        let abbrev = &self.view.abbrevs.slice()[self.unit.abbrev as usize..];
        (section[start..end].to_vec(), abbrev)
    }

    /// Whether a global offset is in this unit.
    pub(super) fn contains(&self, at: u32) -> bool {
        (self.unit.start..self.unit.end).contains(&at)
    }

    /// A unit's offset as a global one.
    pub(super) fn global(&self, at: UnitOffset) -> u32 {
        self.unit.start.wrapping_add(at.0 as u32)
    }

    /// The text of a string attribute.
    pub(super) fn string(&self, value: AttributeValue<Slice<'a>>) -> Option<&'a [u8]> {
        self.view.string(value, self.header.format(), self.unit.str_offsets)
    }

    /// The same with whatever follows it.
    pub(super) fn string_from(&self, value: AttributeValue<Slice<'a>>) -> Option<&'a [u8]> {
        self.view.string_from(value, self.header.format(), self.unit.str_offsets)
    }

    /// Global offset of what an attribute refers to.
    pub(super) fn reference(&self, value: AttributeValue<Slice<'a>>) -> Option<u32> {
        match value {
            AttributeValue::UnitRef(at) => self.unit.start.checked_add(u32::try_from(at.0).ok()?),
            AttributeValue::DebugInfoRef(at) => u32::try_from(self.base + at.0 as u64).ok(),
            _ => None,
        }
    }

    /// An address attribute's value.
    pub(super) fn address(&self, value: AttributeValue<Slice<'a>>) -> Option<u64> {
        match value {
            AttributeValue::Addr(address) => Some(address),
            AttributeValue::DebugAddrIndex(index) => self.indexed(index),
            _ => None,
        }
    }

    fn indexed(&self, index: gimli::DebugAddrIndex) -> Option<u64> {
        let base = DebugAddrBase(self.unit.addr as usize);
        self.view.addr.get_address(self.header.address_size(), base, index).ok()
    }

    /// Where a variable is, if its location is one fixed place.
    pub(super) fn location(&self, value: AttributeValue<Slice<'a>>) -> Option<Location> {
        let AttributeValue::Exprloc(expression) = value else { return None };
        let mut operations = expression.operations(self.header.encoding());
        let first = match operations.next().ok()?? {
            Operation::Address { address } => address,
            Operation::AddressIndex { index } | Operation::ConstantIndex { index } => {
                self.indexed(index)?
            }
            Operation::UnsignedConstant { value } => value,
            _ => return None,
        };
        match operations.next().ok()? {
            None => Some(Location::Address(first)),
            Some(Operation::TLS) => Some(Location::ThreadLocal(first)),
            Some(_) => None,
        }
    }

    /// The unit's line program, whose header names the files.
    fn lines(&self) -> Option<gimli::IncompleteLineProgram<Slice<'a>>> {
        let at = DebugLineOffset(self.unit.line? as usize);
        self.view.line.program(at, self.header.address_size(), None, None).ok()
    }

    /// Size of an address, in bytes.
    pub(super) fn address_size(&self) -> u8 {
        self.header.address_size()
    }

    /// Path of a file that declarations refer to by number.
    pub(super) fn file(&self, number: u64) -> Option<String> {
        let program = self.lines()?;
        let header = program.header();
        let file = header.file(number)?;
        let text = |value| Some(String::from_utf8_lossy(self.string(value)?).into_owned());
        let mut path = text(file.path_name())?;
        if !path.starts_with('/')
            && let Some(folder) = file.directory(header).and_then(text)
        {
            path = format!("{folder}/{path}");
        }
        if !path.starts_with('/')
            && let Some(folder) = &self.unit.folder
        {
            path = format!("{folder}/{path}");
        }
        (path.len() <= MAX_PATH).then_some(path)
    }

    /// Whether an address marks code that the linker has dropped.
    pub(super) fn is_dropped(&self, address: u64) -> bool {
        address == 0 || self.header.is_tombstone_address(address)
    }
}

/// Where a variable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// At an address as linked.
    Address(u64),
    /// At an offset in the thread-local segment of the program.
    ThreadLocal(u64),
}
