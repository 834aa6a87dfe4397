//! The build id of a file as its pages in memory tell it.

use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, NoteIterator, ProgramHeader as _};

use super::Memory;

/// The most that is read of headers: those of real files fit into a page.
const HEADERS: usize = 4096;
/// The most that is read of one segment of notes.
const NOTES: u64 = 4096;

/// Build id, in hexadecimal, of the file whose first byte is mapped at `start`.
pub fn at(memory: &mut dyn Memory, start: u64) -> Option<String> {
    let mut head = vec![0; HEADERS];
    memory.read(start, &mut head).ok()?;
    let endian = LittleEndian;
    let header = FileHeader64::<LittleEndian>::parse(&*head).ok()?;
    let segments = header.program_headers(endian, &*head).ok()?;
    // Where the file's first byte was linked to be.
    let linked = segments
        .iter()
        .filter(|segment| segment.p_type(endian) == elf::PT_LOAD)
        .find(|segment| segment.p_offset(endian) == 0)?
        .p_vaddr(endian);
    segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_NOTE).find_map(|segment| {
        let address = segment.p_vaddr(endian).wrapping_sub(linked).wrapping_add(start);
        let mut notes = vec![0; segment.p_memsz(endian).min(NOTES) as usize];
        memory.read(address, &mut notes).ok()?;
        let mut notes = NoteIterator::<FileHeader64<LittleEndian>>::new(
            endian,
            segment.p_align(endian),
            &notes,
        )
        .ok()?;
        while let Ok(Some(note)) = notes.next() {
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
                return Some(crate::debuginfo::elf::hexadecimal(note.desc()));
            }
        }
        None
    })
}
