//! Debug information as one space of offsets, whichever files it is in.
//!
//! An offset here ("global") is a DIE's offset in its `.debug_info` plus
//! where that section begins in the space.

use std::collections::HashMap;
use std::sync::Arc;

use addr2line::gimli::{
    self, Abbreviations, Attribute, AttributeValue, DebugAbbrevOffset, DebugAddrBase,
    DebugInfoOffset, DebugLineOffset, DebugStrOffsetsBase, EntriesRaw, Operation, UnitHeader,
    UnitOffset,
};

use super::sections::{Sections, Slice, View, damaged};
use crate::error::{Error, ErrorKind, Result};

/// Units believed: a program has one for each codegen unit, some thousands.
const UNITS: usize = 1_000_000;
/// Units whose abbreviations stay parsed: some 30 KiB each.
const OPEN: usize = 64;

/// One `.debug_info` and what belongs to it.
#[derive(Debug)]
pub(super) struct Part {
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

impl Store {
    /// Adds a file's debug information.
    ///
    /// # Errors
    /// `Malformed`; `Unsupported` beyond 4 GiB in all.
    pub(super) fn add(&mut self, sections: Sections) -> Result<()> {
        let base = self.size;
        let size = base + sections.info.get().len() as u64;
        if u32::try_from(size).is_err() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "more than 4 GiB of debug information: index a smaller build",
            ));
        }
        let part = self.parts.len() as u32;
        self.parts.push(Part { sections, base });
        self.size = size;
        let view = self.parts[part as usize].sections.view();
        let mut headers = view.info.units();
        let mut folders: HashMap<&[u8], Option<Arc<str>>> = HashMap::new();
        while let Some(header) = headers.next().map_err(damaged)? {
            if self.units.len() >= UNITS {
                return Err(Error::new(ErrorKind::Malformed, "too many units"));
            }
            let Some(DebugInfoOffset(at)) = header.debug_info_offset() else { continue };
            let start = base + at as u64;
            let end = start + header.length_including_self() as u64;
            let mut unit = Unit {
                part,
                start: start as u32,
                end: end as u32,
                abbrev: header.debug_abbrev_offset().0 as u64,
                str_offsets: 0,
                addr: 0,
                line: None,
                folder: None,
            };
            // The first abbreviation of a unit is its root's: no need for all.
            let root = root_attributes(&view, &header).map_err(damaged)?;
            unit.str_offsets = DebugStrOffsetsBase::<usize>::default_for_encoding_and_file(
                header.encoding(),
                gimli::DwarfFileType::Main,
            )
            .0 as u64;
            let mut folder = None;
            for attribute in root {
                match (attribute.name(), attribute.value()) {
                    (gimli::DW_AT_str_offsets_base, AttributeValue::DebugStrOffsetsBase(base)) => {
                        unit.str_offsets = base.0 as u64;
                    }
                    (
                        gimli::DW_AT_addr_base | gimli::DW_AT_GNU_addr_base,
                        AttributeValue::DebugAddrBase(base),
                    ) => unit.addr = base.0 as u64,
                    (gimli::DW_AT_stmt_list, AttributeValue::DebugLineRef(at)) => {
                        unit.line = Some(at.0 as u64);
                    }
                    (gimli::DW_AT_comp_dir, value) => folder = Some(value),
                    _ => {}
                }
            }
            if let Some(value) = folder {
                let text = string(&view, &header, unit.str_offsets, value);
                if let Some(text) = text {
                    unit.folder = folders
                        .entry(text.slice())
                        .or_insert_with(|| std::str::from_utf8(text.slice()).ok().map(Arc::from))
                        .clone();
                }
            }
            self.units.push(unit);
        }
        Ok(())
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

fn outside() -> Error {
    Error::new(ErrorKind::Malformed, "damaged debug information: a reference leads outside")
}

fn root_attributes<'a>(
    view: &View<'a>,
    header: &UnitHeader<Slice<'a>>,
) -> gimli::Result<Vec<Attribute<Slice<'a>>>> {
    let abbrevs = view.abbrev.abbreviations(header.debug_abbrev_offset())?;
    let mut entries = header.entries_raw(&abbrevs, None)?;
    let mut attributes = Vec::new();
    if let Some(root) = entries.read_abbreviation()? {
        entries.read_attributes(root.attributes(), &mut attributes)?;
    }
    Ok(attributes)
}

fn string<'a>(
    view: &View<'a>,
    header: &UnitHeader<Slice<'a>>,
    str_offsets: u64,
    value: AttributeValue<Slice<'a>>,
) -> Option<Slice<'a>> {
    match value {
        AttributeValue::String(text) => Some(text),
        AttributeValue::DebugStrRef(at) => view.str.get_str(at).ok(),
        AttributeValue::DebugLineStrRef(at) => view.line_str.get_str(at).ok(),
        AttributeValue::DebugStrOffsetsIndex(index) => {
            let base = DebugStrOffsetsBase(str_offsets as usize);
            let at = view.str_offsets.get_str_offset(header.format(), base, index).ok()?;
            view.str.get_str(at).ok()
        }
        _ => None,
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

    /// A unit's offset as a global one.
    pub(super) fn global(&self, at: UnitOffset) -> u32 {
        self.unit.start.wrapping_add(at.0 as u32)
    }

    /// The text of a string attribute.
    pub(super) fn string(&self, value: AttributeValue<Slice<'a>>) -> Option<&'a [u8]> {
        let text = string(&self.view, &self.header, self.unit.str_offsets, value)?;
        Some(text.slice())
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
        Some(path)
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
