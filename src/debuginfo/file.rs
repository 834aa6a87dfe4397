//! A file with debug information, and its sections.
//!
//! The program itself is mapped: it is large, little of it is needed at a time,
//! and nobody can write to it while it runs. What lies beside it (`.debug`,
//! `.dwp`, `.dwo`) is rewritten in place by compilers and by `cp`, and whoever
//! then touches a page of a map that the file no longer has is killed. So of
//! such a file the sections that are wanted are read into memory.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gimli::{EndianReader, LittleEndian};
use object::read::{ReadCache, ReadRef};
use object::{CompressionFormat, Object, ObjectSection};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::map::{MappedFile, Shared};

/// The longest section that is read or unpacked into memory. The largest
/// programs known have some GiB of debug information; a hostile header can
/// claim more.
const MAX_HELD: u64 = 2 << 30;
/// Deflate cannot pack better than 1032 to 1, and zstd on debug information
/// does not in practice; a header that claims more lies.
const MAX_RATIO: u64 = 1100;

/// What gimli reads from, for those who keep it.
pub type Reader = EndianReader<LittleEndian, Shared>;

/// Bytes of one section, or of a part of it.
#[derive(Clone, Debug, Default)]
pub enum Bytes {
    /// Not there.
    #[default]
    None,
    /// In the mapped file.
    Mapped(Arc<MappedFile>, Range<usize>),
    /// In memory.
    Held(Arc<Vec<u8>>),
}

impl Bytes {
    /// The bytes.
    pub fn get(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Mapped(map, range) => {
                let map: &MappedFile = map;
                map.as_ref().get(range.clone()).unwrap_or_default()
            }
            Self::Held(bytes) => bytes,
        }
    }

    /// How many of them are in memory.
    pub fn held(&self) -> usize {
        if let Self::Held(bytes) = self { bytes.len() } else { 0 }
    }

    /// The same for gimli.
    pub fn reader(&self) -> Reader {
        match self {
            Self::None => EndianReader::new(Shared::Held(Arc::default()), LittleEndian),
            Self::Mapped(map, range) => {
                let whole = EndianReader::new(Shared::Mapped(Arc::clone(map)), LittleEndian);
                whole.range(range.clone())
            }
            Self::Held(bytes) => EndianReader::new(Shared::Held(Arc::clone(bytes)), LittleEndian),
        }
    }
}

/// Where a section's bytes are.
#[derive(Clone, Debug, Default)]
pub enum Place {
    /// Nowhere.
    #[default]
    None,
    /// There in the file, and all of them within it.
    InFile(Range<u64>),
    /// They were compressed.
    Unpacked(Arc<Vec<u8>>),
}

/// A file with debug information.
#[derive(Debug)]
pub struct DebugFile {
    path: PathBuf,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Mapped(Arc<MappedFile>),
    File(File),
}

impl DebugFile {
    /// A program, or a library that one uses: mapped.
    ///
    /// # Errors
    /// `NotFound`, `Permission`, `Io`.
    pub fn program(path: &Path) -> Result<Self> {
        let map = MappedFile::open(path).map_err(|error| cannot_read(path, error))?;
        Ok(Self { path: path.to_owned(), content: Content::Mapped(Arc::new(map)) })
    }

    /// Any other file: read when asked.
    ///
    /// # Errors
    /// `NotFound`, `Permission`, `Io`.
    pub fn beside(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| cannot_read(path, error))?;
        Ok(Self { path: path.to_owned(), content: Content::File(file) })
    }

    /// What is mapped, if it is.
    pub fn map(&self) -> Option<&Arc<MappedFile>> {
        match &self.content {
            Content::Mapped(map) => Some(map),
            Content::File(_) => None,
        }
    }

    /// Some sections by their names.
    ///
    /// # Errors
    /// `Io`; `Malformed`; `OutOfMemory` if one claims too much.
    pub fn sections<const N: usize>(&self, names: [&str; N]) -> Result<[Bytes; N]> {
        let mut found = [const { Bytes::None }; N];
        for (found, place) in found.iter_mut().zip(self.places(names)?) {
            *found = self.bytes(place)?;
        }
        Ok(found)
    }

    /// Where some sections are.
    ///
    /// # Errors
    /// As for [`DebugFile::sections`].
    pub fn places<const N: usize>(&self, names: [&str; N]) -> Result<[Place; N]> {
        match &self.content {
            Content::Mapped(map) => {
                let map: &MappedFile = map;
                places(map.as_ref(), names)
            }
            Content::File(file) => places(&ReadCache::new(file), names),
        }
        .map_err(|refusal| refusal.of(&self.path))
    }

    /// All bytes of a place.
    ///
    /// # Errors
    /// `Io`; `OutOfMemory` for more than is read into memory.
    pub fn bytes(&self, place: Place) -> Result<Bytes> {
        match place {
            Place::None => Ok(Bytes::None),
            Place::InFile(range) => self.range(range),
            Place::Unpacked(bytes) => Ok(Bytes::Held(bytes)),
        }
    }

    /// A share of a place; `None` if it is not all there.
    ///
    /// # Errors
    /// As for [`DebugFile::bytes`].
    pub fn share(&self, place: &Place, share: Range<u64>) -> Result<Option<Bytes>> {
        Ok(match place {
            Place::InFile(range) => {
                let start = range.start.checked_add(share.start);
                let end = range.start.checked_add(share.end).filter(|&end| end <= range.end);
                let (Some(start), Some(end)) = (start, end) else { return Ok(None) };
                Some(self.range(start..end)?)
            }
            Place::Unpacked(bytes) => bytes
                .get(share.start as usize..share.end as usize)
                .map(|share| Bytes::Held(Arc::new(share.to_vec()))),
            Place::None => share.is_empty().then_some(Bytes::None),
        })
    }

    fn range(&self, range: Range<u64>) -> Result<Bytes> {
        match &self.content {
            Content::Mapped(map) => {
                Ok(Bytes::Mapped(Arc::clone(map), range.start as usize..range.end as usize))
            }
            Content::File(file) => {
                let len = range.end.saturating_sub(range.start);
                if len > MAX_HELD {
                    return Err(Refusal::TooLong(len).of(&self.path));
                }
                let mut bytes = vec![0; len as usize];
                file.read_exact_at(&mut bytes, range.start)
                    .map_err(|error| cannot_read(&self.path, error))?;
                Ok(Bytes::Held(Arc::new(bytes)))
            }
        }
    }
}

/// Why a section is not read.
enum Refusal {
    Malformed(object::Error),
    NotThere(String),
    TooLong(u64),
    Claims(String, u64),
}

impl From<object::Error> for Refusal {
    fn from(error: object::Error) -> Self {
        Self::Malformed(error)
    }
}

impl Refusal {
    fn of(self, path: &Path) -> Error {
        match self {
            Self::Malformed(error) => malformed(path, error),
            Self::NotThere(name) => malformed(path, format_args!("{name} is not all there")),
            Self::TooLong(len) => {
                let text = format!("a section of {} has {len} bytes", path.display());
                Error::new(ErrorKind::OutOfMemory, text)
            }
            Self::Claims(name, claimed) => {
                let text = format!("{name} of {} claims {claimed} bytes unpacked", path.display());
                Error::new(ErrorKind::OutOfMemory, text)
            }
        }
    }
}

fn places<'data, R: ReadRef<'data>, const N: usize>(
    data: R,
    names: [&str; N],
) -> std::result::Result<[Place; N], Refusal> {
    let len = data.len().unwrap_or(0);
    let object = object::File::parse(data)?;
    let mut found = [const { Place::None }; N];
    for (found, name) in found.iter_mut().zip(names) {
        *found = place(&object, len, name)?;
    }
    Ok(found)
}

fn place<'data, R: ReadRef<'data>>(
    object: &object::File<'data, R>,
    len: u64,
    name: &str,
) -> std::result::Result<Place, Refusal> {
    let Some(section) = object.section_by_name(name) else { return Ok(Place::None) };
    let found = section.compressed_file_range()?;
    let end = found.offset.checked_add(found.compressed_size).filter(|&end| end <= len);
    let Some(end) = end else { return Err(Refusal::NotThere(name.to_owned())) };
    if found.format == CompressionFormat::None {
        return Ok(Place::InFile(found.offset..end));
    }
    let claimed = found.uncompressed_size;
    if claimed > MAX_HELD || claimed / MAX_RATIO > found.compressed_size {
        return Err(Refusal::Claims(name.to_owned(), claimed));
    }
    Ok(Place::Unpacked(Arc::new(section.uncompressed_data()?.into_owned())))
}

/// A file that cannot be read.
fn cannot_read(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("reading {}", path.display()), error)
}

/// A file that is not what it should be.
pub fn malformed(path: &Path, error: impl std::fmt::Display) -> Error {
    let text = format!("reading debug information of {}: {error}", path.display());
    Error::new(ErrorKind::Malformed, text)
}
