//! Which build a file is of.

use std::path::{Path, PathBuf};

use object::{Object, ObjectSection, SectionKind};

use super::sections::malformed;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::map::MappedFile;

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
        let map = MappedFile::open(path).map_err(|error| Error::io(doing(), error))?;
        if !map.as_ref().starts_with(b"\x7fELF") {
            let text = format!("{} is not an ELF file", path.display());
            return Err(Error::new(ErrorKind::Malformed, text));
        }
        let file = object::File::parse(map.as_ref()).map_err(|error| malformed(path, error))?;
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
                .and_then(|text| text.data().ok())
                .filter(|text| !text.is_empty())
                .map(sum),
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
    let map = MappedFile::open(path).map_err(|error| Error::io(doing(), error))?;
    let file = object::File::parse(map.as_ref()).map_err(|error| malformed(path, error))?;
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
pub(super) fn checksum(path: &Path) -> std::io::Result<u32> {
    Ok(sum(MappedFile::open(path)?.as_ref()))
}

fn sum(bytes: &[u8]) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    sum.sum()
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
