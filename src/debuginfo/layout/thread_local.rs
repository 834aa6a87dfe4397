//! Where a program's thread-local variables are, relative to the thread pointer.

use object::Endianness;
use object::elf::{EM_AARCH64, EM_X86_64, PT_TLS};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

use crate::sys::map::MappedFile;

/// The program's thread-local segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    address: u64,
    size: u64,
    align: u64,
    machine: object::elf::Machine,
}

impl Segment {
    /// Reads it from a program; `None` if it has none.
    ///
    /// # Errors
    /// No 64-bit ELF file.
    pub(super) fn of(map: &MappedFile) -> object::Result<Option<Self>> {
        let bytes = map.as_ref();
        let header = object::elf::FileHeader64::<Endianness>::parse(bytes)?;
        let endian = header.endian()?;
        let machine = header.e_machine(endian);
        for segment in header.program_headers(endian, bytes)? {
            if segment.p_type(endian) == PT_TLS {
                return Ok(Some(Self {
                    address: segment.p_vaddr(endian),
                    size: segment.p_memsz(endian),
                    align: segment.p_align(endian).max(1),
                    machine,
                }));
            }
        }
        Ok(None)
    }

    /// From the thread pointer to a variable at `offset` in the segment, as
    /// the psABI lays it out for the program itself (the first module): below
    /// the pointer on x86-64 (variant II), above a header of two words on
    /// AArch64 (variant I).
    pub(super) fn offset(&self, offset: u64) -> Option<i64> {
        if !self.align.is_power_of_two() || offset >= self.size {
            return None;
        }
        let mask = self.align - 1;
        match self.machine {
            EM_X86_64 => {
                let end = self.address.checked_add(self.size)?;
                let padding = end.wrapping_neg() & mask;
                let below = self.size.checked_add(padding)?;
                i64::try_from(below).ok().map(|below| offset as i64 - below)
            }
            EM_AARCH64 => {
                let header = 16_u64;
                let padding = self.address.wrapping_sub(header) & mask;
                i64::try_from(header.checked_add(padding)?.checked_add(offset)?).ok()
            }
            _ => None,
        }
    }
}
