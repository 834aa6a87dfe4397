//! The DWARF sections of one file: mapped where they are plain, unpacked
//! into memory where they are compressed.

use std::ffi::CStr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use addr2line::gimli::{
    self, AttributeValue, DebugAbbrev, DebugAddr, DebugInfo, DebugLine, DebugStrOffsets,
    DebugStrOffsetsBase, EndianSlice, LittleEndian,
};
use object::{CompressionFormat, Object, ObjectSection};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::map::MappedFile;

/// Bytes of a section as gimli reads them.
pub(super) type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// The longest compressed section that is unpacked. The largest programs
/// known have some GiB of debug information; a hostile header can claim more.
const MAX_UNPACKED: u64 = 2 << 30;
/// Deflate cannot pack better than 1032 to 1, and zstd on debug information
/// does not in practice; a header that claims more lies.
const MAX_RATIO: u64 = 1100;

/// One section.
#[derive(Clone, Debug, Default)]
pub(super) enum Bytes {
    /// Not there.
    #[default]
    None,
    /// In the file.
    Mapped(Arc<MappedFile>, Range<usize>),
    /// Unpacked.
    Unpacked(Arc<[u8]>),
}

impl Bytes {
    pub(super) fn get(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Mapped(map, range) => {
                let map: &MappedFile = map;
                map.as_ref().get(range.clone()).unwrap_or_default()
            }
            Self::Unpacked(bytes) => bytes,
        }
    }
}

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
    /// Finds the sections in a mapped file; `suffix` is `.dwo` for those of
    /// split debug information.
    ///
    /// # Errors
    /// `Malformed`; `OutOfMemory` if a compressed section claims too much.
    pub(super) fn find(map: &Arc<MappedFile>, path: &Path, suffix: &str) -> Result<Self> {
        let bytes: &MappedFile = map;
        let file = object::File::parse(bytes.as_ref()).map_err(|error| malformed(path, error))?;
        let load = |name: &str| load(map, path, &file, &format!("{name}{suffix}"));
        Ok(Self {
            abbrev: load(".debug_abbrev")?,
            addr: load(".debug_addr")?,
            info: load(".debug_info")?,
            line: load(".debug_line")?,
            line_str: load(".debug_line_str")?,
            str: load(".debug_str")?,
            str_offsets: load(".debug_str_offsets")?,
        })
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

    /// Memory of sections that were compressed, in bytes.
    pub(super) fn unpacked_bytes(&self) -> usize {
        [&self.abbrev, &self.addr, &self.info, &self.line, &self.line_str, &self.str]
            .into_iter()
            .chain([&self.str_offsets])
            .map(|bytes| if let Bytes::Unpacked(bytes) = bytes { bytes.len() } else { 0 })
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

/// One section of a mapped file.
///
/// # Errors
/// `Malformed`; `OutOfMemory` if it is compressed and claims too much.
pub(super) fn load_from(map: &Arc<MappedFile>, path: &Path, name: &str) -> Result<Bytes> {
    let bytes: &MappedFile = map;
    let file = object::File::parse(bytes.as_ref()).map_err(|error| malformed(path, error))?;
    load(map, path, &file, name)
}

fn load(map: &Arc<MappedFile>, path: &Path, file: &object::File<'_>, name: &str) -> Result<Bytes> {
    let Some(section) = file.section_by_name(name) else { return Ok(Bytes::None) };
    let found = section.compressed_file_range().map_err(|error| malformed(path, error))?;
    if found.format == CompressionFormat::None {
        let end = found.offset.checked_add(found.uncompressed_size);
        let end = end.filter(|&end| end <= map.as_ref().as_ref().len() as u64);
        let Some(end) = end else {
            return Err(malformed(path, format_args!("{name} is not all there")));
        };
        return Ok(Bytes::Mapped(Arc::clone(map), found.offset as usize..end as usize));
    }
    let claimed = found.uncompressed_size;
    if claimed > MAX_UNPACKED || claimed / MAX_RATIO > found.compressed_size {
        return Err(Error::new(
            ErrorKind::OutOfMemory,
            format!("{name} of {} claims {claimed} bytes unpacked", path.display()),
        ));
    }
    let unpacked = section.uncompressed_data().map_err(|error| malformed(path, error))?;
    Ok(Bytes::Unpacked(unpacked.into()))
}

/// A file that is not what it should be.
pub(super) fn malformed(path: &Path, error: impl std::fmt::Display) -> Error {
    let text = format!("reading debug information of {}: {error}", path.display());
    Error::new(ErrorKind::Malformed, text)
}

/// Damaged debug information.
pub(super) fn damaged(error: gimli::Error) -> Error {
    Error::new(ErrorKind::Malformed, "damaged debug information").with_source(error)
}
