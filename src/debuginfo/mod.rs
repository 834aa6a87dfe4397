//! ELF and DWARF: addresses to functions and lines.
