//! The DWARF sections of one file that types are read from.

use std::ffi::CStr;

use addr2line::gimli::{
    self, AttributeValue, DebugAbbrev, DebugAddr, DebugInfo, DebugLine, DebugStrOffsets,
    DebugStrOffsetsBase, EndianSlice, LittleEndian,
};

use crate::debuginfo::file::{Bytes, DebugFile};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a section as gimli reads them.
pub(super) type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// What types and names are read from.
#[derive(Clone, Debug, Default)]
pub(super) struct Sections {
    pub(super) abbrev: Bytes,
    pub(super) addr: Bytes,
    pub(super) info: Bytes,
    pub(super) line: Bytes,
    pub(super) line_str: Bytes,
    pub(super) str: Bytes,
    pub(super) str_offsets: Bytes,
}

/// The same as gimli takes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    /// The same bytes as `abbrev`.
    pub(super) abbrevs: Slice<'a>,
    pub(super) abbrev: DebugAbbrev<Slice<'a>>,
    pub(super) addr: DebugAddr<Slice<'a>>,
    pub(super) info: DebugInfo<Slice<'a>>,
    pub(super) line: DebugLine<Slice<'a>>,
    line_str: &'a [u8],
    str: &'a [u8],
    str_offsets: DebugStrOffsets<Slice<'a>>,
}

impl<'a> View<'a> {
    /// A string attribute's bytes and what follows them: their end is looked
    /// for by those who need it.
    pub(super) fn string_from(
        &self,
        value: AttributeValue<Slice<'a>>,
        format: gimli::Format,
        str_offsets: u64,
    ) -> Option<&'a [u8]> {
        match value {
            AttributeValue::String(text) => Some(text.slice()),
            AttributeValue::DebugStrRef(at) => self.str.get(at.0..),
            AttributeValue::DebugLineStrRef(at) => self.line_str.get(at.0..),
            AttributeValue::DebugStrOffsetsIndex(index) => {
                let base = DebugStrOffsetsBase(usize::try_from(str_offsets).ok()?);
                let at = self.str_offsets.get_str_offset(format, base, index).ok()?;
                self.str.get(at.0..)
            }
            _ => None,
        }
    }

    /// A string attribute's bytes.
    pub(super) fn string(
        &self,
        value: AttributeValue<Slice<'a>>,
        format: gimli::Format,
        str_offsets: u64,
    ) -> Option<&'a [u8]> {
        Some(terminated(self.string_from(value, format, str_offsets)?))
    }
}

/// Longest name believed. Types of services in many layers have names of some
/// tens of thousand bytes.
const MAX_NAME: usize = 64 << 10;

/// What is before the first NUL.
pub(super) fn terminated(bytes: &[u8]) -> &[u8] {
    let bytes = &bytes[..bytes.len().min(MAX_NAME)];
    CStr::from_bytes_until_nul(bytes).map_or(bytes, CStr::to_bytes)
}

impl Sections {
    /// Finds the sections in a file; `suffix` is `.dwo` for those of split debug
    /// information.
    ///
    /// # Errors
    /// `Io`; `Malformed`; `OutOfMemory` if a section claims too much.
    pub(super) fn find(file: &DebugFile, suffix: &str) -> Result<Self> {
        let names = ["abbrev", "addr", "info", "line", "line_str", "str", "str_offsets"]
            .map(|name| format!(".debug_{name}{suffix}"));
        let [abbrev, addr, info, line, line_str, str, str_offsets] =
            file.sections(names.each_ref().map(String::as_str))?;
        Ok(Self { abbrev, addr, info, line, line_str, str, str_offsets })
    }

    /// The sections of a split file, with those that stay in the program:
    /// addresses, and the line programs that number the files.
    pub(super) fn beside(self, program: &Self) -> Self {
        Self {
            addr: program.addr.clone(),
            line: program.line.clone(),
            line_str: program.line_str.clone(),
            ..self
        }
    }

    /// Gives the pages of mapped sections back to the kernel.
    pub(super) fn release(&self) {
        for bytes in [&self.abbrev, &self.info, &self.line, &self.str, &self.str_offsets] {
            if let Bytes::Mapped(map, range) = bytes {
                map.release(range.clone());
            }
        }
    }

    /// Memory of sections that are not mapped, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        [&self.abbrev, &self.addr, &self.info, &self.line, &self.line_str, &self.str]
            .into_iter()
            .chain([&self.str_offsets])
            .map(Bytes::held)
            .sum()
    }

    /// Whether there is anything to read.
    pub(super) fn is_empty(&self) -> bool {
        self.info.get().is_empty()
    }

    pub(super) fn view(&self) -> View<'_> {
        let slice = |bytes| EndianSlice::new(Bytes::get(bytes), LittleEndian);
        View {
            abbrevs: slice(&self.abbrev),
            abbrev: DebugAbbrev::from(slice(&self.abbrev)),
            addr: DebugAddr::from(slice(&self.addr)),
            info: DebugInfo::from(slice(&self.info)),
            line: DebugLine::from(slice(&self.line)),
            line_str: self.line_str.get(),
            str: self.str.get(),
            str_offsets: DebugStrOffsets::from(slice(&self.str_offsets)),
        }
    }
}

/// Damaged debug information.
pub(super) fn damaged(error: gimli::Error) -> Error {
    Error::new(ErrorKind::Malformed, "damaged debug information").with_source(error)
}
