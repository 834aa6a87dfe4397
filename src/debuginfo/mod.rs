//! ELF and DWARF: addresses to functions and lines.

pub mod elf;
pub mod names;
pub mod symbols;
