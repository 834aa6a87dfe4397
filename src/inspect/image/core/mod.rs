//! A core dump as an image: the file of what a process left behind, and its
//! executable for what the kernel does not dump, because it is in there.

mod parse;

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::pieces::{Pieces, Place};
use super::{Fault, Image, Memory, Origin, bias, build_id};
use crate::debuginfo::elf::Elf;
use crate::error::{Error, ErrorKind, Result};
use crate::inspect::maps::{self, Backing};
use crate::sys::map::MappedFile;
use parse::Parsed;

/// Opens a core dump of an executable.
///
/// # Errors
/// `NotFound`, `Permission` for the files; `Malformed` for what is no core
/// dump; `InvalidInput` if it is of another executable; `Unsupported` for
/// other machines.
pub fn open(core: &Path, executable: &Path) -> Result<Image> {
    let dump = map(core)?;
    let parsed = parse::parse(dump.as_ref()).map_err(|error| about(core, error))?;
    let entry = parsed.entry.ok_or_else(|| {
        let error = Error::new(ErrorKind::Malformed, "it does not say where the program was");
        about(core, error)
    })?;
    let bias = bias::from_entry(entry, executable)?;
    let named = named(&parsed, entry);
    let mut memory = Dumped::new(dump, parsed.pieces);
    memory.writable = maps::writable(&parsed.mappings);
    let main = named.as_ref().and_then(|named| {
        let mut of_main = parsed.mappings.iter().filter(|mapping| shows(mapping, named));
        of_main.next().map(|first| first.range.start)
    });
    let program = map(executable)?;
    let of_file = Elf::open(executable)?.build_id;
    let of_core = main.and_then(|start| build_id::at(&mut memory, start));
    let fits = match (&of_file, &of_core) {
        // Also of a copy that still has the debug information.
        (Some(of_file), Some(of_core)) => of_file == of_core,
        _ => main.is_none_or(|start| same_headers(&mut memory, start, program.as_ref())),
    };
    if !fits {
        let id = |id: Option<String>| id.map_or_else(String::new, |id| format!(" (build id {id})"));
        let text = format!(
            "{}{} is not the program that {} is of{}",
            executable.display(),
            id(of_file),
            core.display(),
            id(of_core),
        );
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    if let Some(named) = &named {
        let len = program.as_ref().len() as u64;
        let mut constants = Pieces::default();
        for mapping in parsed.mappings.iter().filter(|mapping| shows(mapping, named)) {
            let in_file = len.saturating_sub(mapping.file_offset);
            let shown = (mapping.range.end - mapping.range.start).min(in_file);
            let start = mapping.range.start;
            constants.push(start..start + shown, mapping.file_offset);
        }
        constants.sort();
        memory.program = Some((program, constants));
    }
    Ok(Image {
        memory: Box::new(memory),
        bias,
        threads: parsed.threads,
        pid: parsed.pid,
        taken_ns: 0,
        frozen_ns: 0,
        origin: Origin {
            executable: executable.to_owned(),
            running: executable.to_owned(),
            named,
            root: PathBuf::from("/"),
            mappings: parsed.mappings,
        },
    })
}

/// Reads any bytes as a core dump would be read.
#[cfg(any(test, fuzzing))]
pub fn try_bytes(bytes: &[u8]) {
    let Ok(parsed) = parse::parse(bytes) else { return };
    let mappings: Vec<_> = parsed.mappings.iter().take(64).cloned().collect();
    let mut memory = Dumped::new(bytes, parsed.pieces);
    memory.writable = maps::writable(&parsed.mappings);
    for mapping in mappings {
        let _ = memory.read(mapping.range.start, &mut [0; 64]);
        let _ = memory.read(mapping.range.end.wrapping_sub(8), &mut [0; 64]);
        let _ = build_id::at(&mut memory, mapping.range.start);
    }
}

/// Whether a file begins with what is in memory at `start`, or that was not
/// dumped. The first page has the addresses and sizes of all segments.
fn same_headers(memory: &mut dyn Memory, start: u64, file: &[u8]) -> bool {
    const PAGE: usize = 4096;
    let mut page = vec![0; PAGE.min(file.len())];
    memory.read(start, &mut page).is_err() || file.starts_with(&page)
}

fn map(path: &Path) -> Result<MappedFile> {
    MappedFile::open(path).map_err(|error| Error::io(format!("reading {}", path.display()), error))
}

fn about(path: &Path, error: Error) -> Error {
    Error::new(error.kind(), format!("reading {}", path.display())).with_source(error)
}

/// What the core dump calls its executable: the file behind the entry point.
fn named(parsed: &Parsed, entry: u64) -> Option<PathBuf> {
    let around = parsed.mappings.iter().find(|mapping| mapping.range.contains(&entry))?;
    match &around.backing {
        Backing::File { path, .. } => Some(path.clone()),
        _ => None,
    }
}

fn shows(mapping: &maps::Mapping, named: &Path) -> bool {
    matches!(&mapping.backing, Backing::File { path, .. } if path == named)
}

/// Dumped memory, and behind it the executable's constants.
struct Dumped<B> {
    dump: B,
    pieces: Pieces,
    program: Option<(MappedFile, Pieces)>,
    writable: Vec<Range<u64>>,
}

impl<B: AsRef<[u8]>> Dumped<B> {
    fn new(dump: B, pieces: Pieces) -> Self {
        Self { dump, pieces, program: None, writable: Vec::new() }
    }

    /// Copies the beginning of what is asked for; how much it was.
    fn some(&mut self, address: u64, to: &mut [u8]) -> Option<usize> {
        let (bytes, at, len) = match self.pieces.find(address) {
            Place::Held { at, len } => (self.dump.as_ref(), at, len),
            Place::Hole { len: gap } => {
                let (program, constants) = self.program.as_mut()?;
                match constants.find(address) {
                    Place::Held { at, len } => ((*program).as_ref(), at, len.min(gap)),
                    Place::Hole { .. } => return None,
                }
            }
        };
        let from = bytes.get(usize::try_from(at).ok()?..)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(to.len()).min(from.len());
        to[..len].copy_from_slice(&from[..len]);
        (len > 0).then_some(len)
    }
}

impl<B: AsRef<[u8]>> Memory for Dumped<B> {
    fn read(&mut self, address: u64, to: &mut [u8]) -> std::result::Result<(), Fault> {
        let mut done = 0;
        while done < to.len() {
            let at = address.checked_add(done as u64).ok_or(Fault { address })?;
            done += self.some(at, &mut to[done..]).ok_or(Fault { address: at })?;
        }
        Ok(())
    }

    fn writable(&self) -> &[Range<u64>] {
        &self.writable
    }
}

#[cfg(test)]
mod tests;
