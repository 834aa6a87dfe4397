//! Which build a file is of.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use object::read::ReadCache;
use object::{Object, ObjectSection, SectionKind};

use crate::debuginfo::file::malformed;
use crate::error::{Error, ErrorKind, Result};

/// What tells builds apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// The linker's build id, in lower-case hexadecimal.
    pub(super) build_id: Option<String>,
    /// Checksum of the code, for programs linked without a build id.
    pub(super) code: Option<u32>,
    /// Name and checksum of the debug file, as `.gnu_debuglink` says.
    pub(super) debug_link: Option<(PathBuf, u32)>,
    /// Whether it is a package of split debug information.
    pub(super) is_package: bool,
}

impl Identity {
    /// Reads a file.
    ///
    /// # Errors
    /// `NotFound`, `Permission`, `Io`; `Malformed` if it is no 64-bit
    /// little-endian ELF file.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let doing = || format!("reading {}", path.display());
        let opened = File::open(path).map_err(|error| Error::io(doing(), error))?;
        let mut magic = Vec::new();
        (&opened).take(4).read_to_end(&mut magic).map_err(|error| Error::io(doing(), error))?;
        if magic != b"\x7fELF" {
            let text = format!("{} is not an ELF file", path.display());
            return Err(Error::new(ErrorKind::Malformed, text));
        }
        let cache = ReadCache::new(&opened);
        let file = object::File::parse(&cache).map_err(|error| malformed(path, error))?;
        if !matches!(file, object::File::Elf64(_)) || !file.is_little_endian() {
            let text = format!("{} is not a 64-bit little-endian ELF file", path.display());
            return Err(Error::new(ErrorKind::Malformed, text));
        }
        let build_id = file.build_id().map_err(|error| malformed(path, error))?;
        // The checksum reads all code: only where nothing else tells.
        let code = match build_id {
            Some(_) => None,
            None => file
                .section_by_name(".text")
                .filter(|text| text.kind() == SectionKind::Text)
                .and_then(|text| text.file_range())
                .filter(|&(_, len)| len > 0)
                .and_then(|(start, len)| sum(&opened, start, len).ok()),
        };
        let link = file.gnu_debuglink().ok().flatten();
        Ok(Self {
            build_id: build_id.map(hexadecimal),
            code,
            debug_link: link
                .map(|(name, sum)| (String::from_utf8_lossy(name).into_owned().into(), sum)),
            is_package: file.section_by_name(".debug_cu_index").is_some(),
        })
    }

    /// What saved layouts are keyed by: the build id, or the code's checksum.
    pub(super) fn key(&self) -> String {
        match (&self.build_id, self.code) {
            (Some(id), _) => id.clone(),
            (None, Some(code)) => format!("code-{code:08x}"),
            (None, None) => "unknown".to_owned(),
        }
    }
}

/// Size of the debug information in a file, as it lies there.
///
/// # Errors
/// As for [`Identity::of`].
#[cfg(feature = "cli")]
pub(super) fn debug_bytes(path: &Path) -> Result<u64> {
    let doing = || format!("reading {}", path.display());
    let cache = ReadCache::new(File::open(path).map_err(|error| Error::io(doing(), error))?);
    let file = object::File::parse(&cache).map_err(|error| malformed(path, error))?;
    let sections = file.sections().filter(|section| {
        section.name().is_ok_and(|name| name.starts_with(".debug_") || name.starts_with(".zdebug_"))
    });
    let sizes = sections.filter_map(|section| section.compressed_file_range().ok());
    Ok(sizes.fold(0_u64, |sum, range| sum.saturating_add(range.compressed_size)))
}

/// Checksum of a whole file, as `.gnu_debuglink` has it.
///
/// # Errors
/// Those of opening it.
pub(super) fn checksum(path: &Path) -> io::Result<u32> {
    sum(&File::open(path)?, 0, u64::MAX)
}

/// Checksum of a part of a file, or of what there is of it.
fn sum(mut file: &File, start: u64, len: u64) -> io::Result<u32> {
    file.seek(SeekFrom::Start(start))?;
    let mut summed = flate2::CrcReader::new(BufReader::with_capacity(1 << 16, file.take(len)));
    io::copy(&mut summed, &mut io::sink())?;
    Ok(summed.crc().sum())
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
