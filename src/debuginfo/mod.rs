//! ELF and DWARF: addresses to functions and lines, types to layouts.

pub mod elf;
mod homes;
pub mod layout;
pub mod names;
pub mod symbols;
