//! ELF and DWARF: addresses to functions and lines.

pub mod elf;
mod homes;
pub mod names;
pub mod symbols;
