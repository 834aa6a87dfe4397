//! ELF and DWARF: addresses to functions and lines, types to layouts.

#[cfg(all(test, target_os = "linux"))]
mod damaged;
pub mod elf;
mod file;
mod homes;
pub mod layout;
mod loader;
pub mod names;
#[cfg(all(test, target_os = "linux"))]
mod small_program;
pub mod symbols;

use std::path::{Path, PathBuf};

/// The package of split debug information beside a program: `app.dwp` for `app`.
fn package_of(program: &Path) -> PathBuf {
    let mut name = program.as_os_str().to_owned();
    name.push(".dwp");
    name.into()
}
