//! What stack unwinding and address arithmetic need of an ELF file.
//!
//! Sections are read on their own, not the whole file: an executable with
//! full debug information is a hundred times larger than its unwind tables.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use addr2line::gimli::{self, BaseAddresses, EhFrame, EhFrameHdr, LittleEndian, UnwindSection};
use object::read::{ReadCache, ReadRef};
use object::{Object, ObjectSection, ObjectSegment, SectionKind, SegmentFlags};

use crate::error::{Error, ErrorKind, Result};

/// A section's bytes and where they are linked to be.
#[derive(Clone, Debug)]
pub struct Section {
    /// Linked ("file") addresses.
    pub range: Range<u64>,
    /// Its bytes.
    pub data: Arc<[u8]>,
}

/// A part of the file that is mapped executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeSegment {
    /// Where it begins in the file.
    pub file_offset: u64,
    /// Linked addresses.
    pub range: Range<u64>,
}

/// The parts of an ELF file that lead from addresses to addresses.
#[derive(Clone, Debug)]
pub struct Elf {
    /// Build id in lower-case hexadecimal.
    pub build_id: Option<String>,
    /// Executable segments.
    pub code: Vec<CodeSegment>,
    /// `.text`, as addresses.
    pub text: Option<Range<u64>>,
    /// `.got`, as addresses.
    pub got: Option<Range<u64>>,
    /// `.eh_frame`.
    pub eh_frame: Option<Section>,
    /// `.eh_frame_hdr`.
    pub eh_frame_hdr: Option<Section>,
}

/// The longest unwind section that is believed. Chromium's is 30 MiB; a
/// hostile header can claim anything.
const MAX_SECTION: u64 = 512 << 20;

impl Elf {
    /// Reads a file.
    ///
    /// # Errors
    /// `NotFound`, `Permission`, `Io`; `Malformed` if it is no 64-bit ELF.
    pub fn open(path: &Path) -> Result<Self> {
        let doing = || format!("reading {}", path.display());
        let mut file = File::open(path).map_err(|error| Error::io(doing(), error))?;
        let mut magic = [0; 4];
        file.read_exact(&mut magic).map_err(|error| Error::io(doing(), error))?;
        if magic != *b"\x7fELF" {
            return Err(Error::new(
                ErrorKind::Malformed,
                format!("{} is not an ELF file", path.display()),
            ));
        }
        Self::parse(&ReadCache::new(file)).map_err(|error| {
            Error::new(error.kind(), format!("reading {}", path.display())).with_source(error)
        })
    }

    /// Parses a file that is in memory already.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::parse(bytes)
    }

    fn parse<'data, R: ReadRef<'data>>(data: R) -> Result<Self> {
        let malformed = |error: object::Error| {
            Error::new(ErrorKind::Malformed, "not a readable ELF file").with_source(error)
        };
        let file = object::File::parse(data).map_err(malformed)?;
        if !matches!(file, object::File::Elf64(_)) || !file.is_little_endian() {
            return Err(Error::new(ErrorKind::Malformed, "not a 64-bit little-endian ELF file"));
        }
        let mut code = Vec::new();
        for segment in file.segments() {
            let SegmentFlags::Elf { p_flags, .. } = segment.flags() else { continue };
            if p_flags.0 & object::elf::PF_X.0 == 0 {
                continue;
            }
            let Some(end) = segment.address().checked_add(segment.size()) else {
                return Err(Error::new(ErrorKind::Malformed, "a segment wraps around"));
            };
            let (file_offset, _) = segment.file_range();
            code.push(CodeSegment { file_offset, range: segment.address()..end });
        }
        let range = |name: &str| {
            let section = file.section_by_name(name)?;
            Some(section.address()..section.address().checked_add(section.size())?)
        };
        let section = |name: &str| -> Result<Option<Section>> {
            let (Some(range), Some(found)) = (range(name), file.section_by_name(name)) else {
                return Ok(None);
            };
            if found.kind() == SectionKind::UninitializedData || found.size() > MAX_SECTION {
                return Ok(None);
            }
            let data = found.data().map_err(malformed)?;
            Ok(Some(Section { range, data: data.into() }))
        };
        Ok(Self {
            build_id: file.build_id().map_err(malformed)?.map(hexadecimal),
            text: range(".text"),
            got: range(".got"),
            eh_frame: section(".eh_frame")?,
            eh_frame_hdr: section(".eh_frame_hdr")?,
            code,
        })
    }

    /// Linked address of the first byte of the function around `address`,
    /// from the unwind tables: it needs no symbols.
    pub fn function_start(&self, address: u64) -> Option<u64> {
        let frames = self.eh_frame.as_ref()?;
        let header = self.eh_frame_hdr.as_ref()?;
        let bases = BaseAddresses::default()
            .set_eh_frame(frames.range.start)
            .set_eh_frame_hdr(header.range.start)
            .set_text(self.text.as_ref()?.start)
            .set_got(self.got.as_ref().map_or(0, |got| got.start));
        let parsed = EhFrameHdr::new(&header.data, LittleEndian).parse(&bases, 8).ok()?;
        let frames = EhFrame::new(&frames.data, LittleEndian);
        let entry: gimli::FrameDescriptionEntry<_> = parsed
            .table()?
            .fde_for_address(&frames, &bases, address, EhFrame::cie_from_offset)
            .ok()?;
        Some(entry.initial_address())
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first megabyte of this test's own executable and some cuts of it.
    fn own_head() -> Vec<u8> {
        let mut head = Vec::new();
        let file = File::open("/proc/self/exe").unwrap();
        file.take(1 << 20).read_to_end(&mut head).unwrap();
        head
    }

    #[test]
    fn our_own_executable_has_code_and_unwind_tables() {
        let elf = Elf::open(Path::new("/proc/self/exe")).unwrap();
        assert!(!elf.code.is_empty());
        let text = elf.text.clone().unwrap();
        assert!(elf.code.iter().any(|code| code.range.contains(&text.start)));
        assert!(elf.eh_frame.is_some() && elf.eh_frame_hdr.is_some());
        // Between functions there are up to 15 bytes of padding, of none of them.
        let middle = text.start + (text.end - text.start) / 2;
        let start = (middle..middle + 16).find_map(|address| elf.function_start(address));
        assert!(start.is_some_and(|start| text.contains(&start)));
    }

    #[test]
    fn what_is_no_elf_file_says_so() {
        for path in ["/proc/self/cmdline", "/etc/passwd"] {
            let error = Elf::open(Path::new(path)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
        }
        let error = Elf::open(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_truncated_file_is_an_error() {
        let head = own_head();
        for len in [0, 4, 16, 63, 64, 1000] {
            let error = Elf::from_bytes(&head[..len]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed, "{len}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn damaged_headers_never_panic(hits in proptest::collection::vec((0usize..4096, any::<u8>()), 1..20)) {
            thread_local!(static HEAD: Vec<u8> = own_head());
            HEAD.with(|head| {
                let mut head = head.clone();
                for (at, byte) in hits {
                    head[at] = byte;
                }
                if let Ok(elf) = Elf::from_bytes(&head) {
                    let _ = elf.function_start(0x1000);
                }
            });
        }
    }
}
