//! What is in a core dump: segments of memory, and notes on threads, files
//! and the program's start. See core(5), elf(5) and the kernel's
//! `fs/binfmt_elf.c`, which writes them.

use std::ops::Range;
use std::path::PathBuf;

use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

use super::super::ImageThread;
use super::super::pieces::Pieces;
use crate::error::{Error, ErrorKind, Result};
use crate::inspect::maps::{Backing, Mapping, Permissions};
use crate::sys::registers::Registers;

/// A core dump's table of contents. Offsets are into the file.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Where the memory that was dumped is.
    pub pieces: Pieces,
    /// What was mapped, dumped or not, ascending.
    pub mappings: Vec<Mapping>,
    /// Threads; the one that died first.
    pub threads: Vec<ImageThread>,
    /// The process.
    pub pid: u32,
    /// `AT_ENTRY` of its auxiliary vector.
    pub entry: Option<u64>,
}

/// A file that was mapped, from the note that lists them.
struct Listed {
    range: Range<u64>,
    file_offset: u64,
    path: PathBuf,
}

/// Reads a core dump's headers and notes.
///
/// # Errors
/// `Malformed`; `Unsupported` for a core of another machine, or a compressed one.
pub fn parse(bytes: &[u8]) -> Result<Parsed> {
    if let Some(tool) = compressed_by(bytes) {
        let text = format!("the core dump is compressed: unpack it with {tool} first");
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    let endian = LittleEndian;
    let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(malformed)?;
    if header.e_machine.get(endian) != elf::EM_X86_64 || !header.is_little_endian() {
        let text = "the core dump is not of an x86-64 program";
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    if header.e_type.get(endian) != elf::ET_CORE {
        let text = "it is a program or a library, not a core dump";
        return Err(Error::new(ErrorKind::Malformed, text));
    }
    let mut parsed = Parsed::default();
    let mut listed = Vec::new();
    let segments = header.program_headers(endian, bytes).map_err(malformed)?;
    for segment in segments {
        match segment.p_type(endian) {
            elf::PT_NOTE => {
                let notes = segment.notes(endian, bytes).map_err(malformed)?;
                let Some(mut notes) = notes else { continue };
                while let Some(note) = notes.next().map_err(malformed)? {
                    let desc = note.desc();
                    match (note.name(), note.n_type(endian)) {
                        (b"CORE", elf::NT_PRSTATUS) => parsed.threads.extend(thread(desc)),
                        (b"CORE", elf::NT_PRPSINFO) => {
                            parsed.pid = u32_at(desc, PRPSINFO_PID).unwrap_or(0);
                        }
                        (b"CORE", elf::NT_AUXV) => parsed.entry = super::super::auxv::entry(desc),
                        (b"CORE", elf::NT_FILE) => listed = files(desc),
                        _ => {}
                    }
                }
            }
            elf::PT_LOAD => {
                let start = segment.p_vaddr(endian);
                let end = start.checked_add(segment.p_memsz(endian)).ok_or_else(wraps)?;
                let flags = segment.p_flags(endian);
                let has = |flag: elf::ProgramFlags| flags.0 & flag.0 != 0;
                let (at, in_file) = (segment.p_offset(endian), segment.p_filesz(endian));
                // What a full disk cut off is not there.
                let there = (bytes.len() as u64).saturating_sub(at);
                let dumped = in_file.min(segment.p_memsz(endian)).min(there);
                parsed.pieces.push(start..start + dumped, at);
                if start < end {
                    parsed.mappings.push(Mapping {
                        range: start..end,
                        permissions: Permissions {
                            read: has(elf::PF_R),
                            write: has(elf::PF_W),
                            execute: has(elf::PF_X),
                            private: true,
                        },
                        file_offset: 0,
                        backing: Backing::Anonymous,
                    });
                }
            }
            _ => {}
        }
    }
    if parsed.mappings.is_empty() || parsed.threads.is_empty() {
        let text = "the core dump has no memory or no threads: it is incomplete";
        return Err(Error::new(ErrorKind::Malformed, text));
    }
    parsed.pieces.sort();
    parsed.mappings.sort_by_key(|mapping| mapping.range.start);
    back(&mut parsed.mappings, listed);
    Ok(parsed)
}

fn malformed(error: object::Error) -> Error {
    Error::new(ErrorKind::Malformed, "not a readable core dump").with_source(error)
}

fn wraps() -> Error {
    Error::new(ErrorKind::Malformed, "a segment of the core dump wraps around")
}

/// What unpacks a file that begins so.
fn compressed_by(bytes: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], _); 4] = [
        (b"\x28\xb5\x2f\xfd", "zstd -d"),
        (b"\x1f\x8b", "gunzip"),
        (b"\x04\x22\x4d\x18", "lz4 -d"),
        (b"\xfd7zXZ", "xz -d"),
    ];
    kinds.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|&(_, tool)| tool)
}

/// Tells the mappings what files they showed, and adds the files' mappings
/// that were not dumped: gdb leaves those out.
fn back(mappings: &mut Vec<Mapping>, mut listed: Vec<Listed>) {
    listed.sort_by_key(|file| file.range.start);
    for mapping in &mut *mappings {
        let after = listed.partition_point(|file| file.range.start <= mapping.range.start);
        let Some(file) = after.checked_sub(1).map(|index| &listed[index]) else { continue };
        if file.range.contains(&mapping.range.start) {
            mapping.backing = file.backing();
            let skip = mapping.range.start - file.range.start;
            mapping.file_offset = file.file_offset.saturating_add(skip);
        }
    }
    let dumped = mappings.len();
    for file in listed {
        let known = &mappings[..dumped];
        let after = known.partition_point(|mapping| mapping.range.start < file.range.end);
        let before = after.checked_sub(1).map(|index| &known[index]);
        if before.is_none_or(|before| before.range.end <= file.range.start) {
            mappings.push(Mapping {
                // Not known; what is not dumped was not written to, and the
                // file tells which parts of it are code.
                permissions: Permissions { read: true, write: false, execute: true, private: true },
                file_offset: file.file_offset,
                backing: file.backing(),
                range: file.range,
            });
        }
    }
    mappings.sort_by_key(|mapping| mapping.range.start);
}

impl Listed {
    fn backing(&self) -> Backing {
        Backing::File { path: self.path.clone(), deleted: false }
    }
}

/// Offset of `pr_pid` in `struct elf_prpsinfo` on 64-bit machines.
const PRPSINFO_PID: usize = 24;
/// Offset of `pr_pid` in `struct elf_prstatus` on 64-bit machines.
const PRSTATUS_PID: usize = 32;
/// Offset of the registers there.
const PRSTATUS_REGISTERS: usize = 112;
/// Places among the registers: those of `struct user_regs_struct`.
const RBP: usize = 4;
const RIP: usize = 16;
const RSP: usize = 19;
const FS_BASE: usize = 21;

fn thread(prstatus: &[u8]) -> Option<ImageThread> {
    let register = |nth: usize| u64_at(prstatus, PRSTATUS_REGISTERS + nth * 8);
    Some(ImageThread {
        tid: u32_at(prstatus, PRSTATUS_PID)?.cast_signed(),
        name: String::new(),
        thread_pointer: register(FS_BASE)?,
        registers: Some(Registers {
            ip: register(RIP)?,
            sp: register(RSP)?,
            bp: Some(register(RBP)?),
        }),
    })
}

/// The files note: how many, the page size, three words for each, then the
/// names, each ended by a zero. What is damaged is left out.
fn files(desc: &[u8]) -> Vec<Listed> {
    const HEAD: usize = 16;
    const ENTRY: usize = 24;
    let (Some(count), Some(page)) = (u64_at(desc, 0), u64_at(desc, 8)) else {
        return Vec::new();
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let fitting = desc.len().saturating_sub(HEAD) / ENTRY;
    if count > fitting {
        return Vec::new();
    }
    let names = desc[HEAD + count * ENTRY..].split(|&byte| byte == 0);
    (0..count)
        .zip(names)
        .filter_map(|(nth, name)| {
            let word = |of: usize| u64_at(desc, HEAD + nth * ENTRY + of * 8);
            let range = word(0)?..word(1)?;
            let file_offset = word(2)?.checked_mul(page)?;
            let path = PathBuf::from(String::from_utf8_lossy(name).into_owned());
            (!range.is_empty()).then_some(Listed { range, file_offset, path })
        })
        .collect()
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
