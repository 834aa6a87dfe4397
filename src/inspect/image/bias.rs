//! Where an executable is, minus where it was linked to be.
//!
//! The kernel tells a program its entry point as loaded (`AT_ENTRY`,
//! getauxval(3)); the file's header has it as linked. Both are there in
//! static programs and under any loader.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// Bias of this process's executable.
///
/// # Errors
/// `/proc/self/exe` cannot be read.
pub fn own() -> Result<u64> {
    from_entry(crate::sys::auxv::own_entry(), Path::new("/proc/self/exe"))
}

/// Bias of an executable whose entry point is at `entry` in memory.
///
/// # Errors
/// The file cannot be read, or is no 64-bit little-endian ELF file.
pub fn from_entry(entry: u64, executable: &Path) -> Result<u64> {
    let doing = || format!("reading {}", executable.display());
    let mut header = [0; 64];
    File::open(executable)
        .and_then(|mut file| file.read_exact(&mut header))
        .map_err(|error| Error::io(doing(), error))?;
    let linked = linked_entry(&header).ok_or_else(|| {
        let text = format!("{} is not a 64-bit program for x86-64", executable.display());
        Error::new(ErrorKind::Malformed, text)
    })?;
    Ok(entry.wrapping_sub(linked))
}

/// `e_entry` of an ELF header, see elf(5).
fn linked_entry(header: &[u8; 64]) -> Option<u64> {
    const ELF64_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01";
    const X86_64: [u8; 2] = [62, 0];
    if !header.starts_with(ELF64_LITTLE_ENDIAN) || header[18..20] != X86_64 {
        return None;
    }
    Some(u64::from_le_bytes(header[24..32].try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_ours_is_at_its_linked_address_plus_the_bias() {
        let here = own as *const () as u64;
        let linked = here.wrapping_sub(super::own().unwrap());
        let elf = crate::debuginfo::elf::Elf::open(Path::new("/proc/self/exe")).unwrap();
        assert_eq!(elf.function_start(linked), Some(linked));
    }

    #[test]
    fn what_is_no_program_says_so() {
        let error = from_entry(0, Path::new("/proc/self/maps")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
        let error = from_entry(0, Path::new("/no/such/file")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
}
