//! Frames of a small program whose debug information is split, while somebody
//! writes to the files beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::error::ErrorKind;

const PROGRAM: &str = "
#[inline(always)]
fn inner(count: u64) -> u64 { std::hint::black_box(count) + 1 }
#[inline(never)]
fn outer(count: u64) -> u64 { inner(count) + 2 }
mod other {
    #[inline(always)]
    fn deep(count: u64) -> u64 { std::hint::black_box(count) + 3 }
    #[inline(never)]
    pub fn high(count: u64) -> u64 { deep(count) + 4 }
}
fn main() {
    let count = std::env::args().count() as u64;
    std::hint::black_box(outer(count) + other::high(count));
}
";

fn build(folder: &Path, split: &str, text: &str) -> PathBuf {
    build_with(folder, &[&format!("-Csplit-debuginfo={split}")], text)
}

fn build_with(folder: &Path, args: &[&str], text: &str) -> PathBuf {
    fs::write(folder.join("app.rs"), text).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["-g", "--edition=2021", "-Csymbol-mangling-version=v0"])
        // Each module in a unit of its own.
        .args(["-Copt-level=1", "-Ccodegen-units=16"])
        .args(args)
        .args(["-o", "app", "app.rs"])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder.join("app")
}

/// The names of a function and of what the compiler put into it, at the first
/// address where there is such a thing.
fn inlined(loader: &Loader, program: &Path, function: &str) -> Vec<String> {
    let bytes = fs::read(program).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbol = object::Object::symbols(&file)
        .find(|symbol| {
            let name = object::ObjectSymbol::name(symbol).unwrap_or_default();
            addr2line::demangle_auto(name.into(), None).ends_with(function)
        })
        .unwrap();
    let start = object::ObjectSymbol::address(&symbol);
    let size = object::ObjectSymbol::size(&symbol);
    let names = |address| {
        let mut frames = loader.find_frames(address).ok()?;
        let mut names = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            names.push(frame.function?.demangle().ok()?.into_owned());
        }
        Some(names)
    };
    let mut found = (start..start + size).filter_map(names).filter(|names| names.len() > 1);
    let mut names = found.next().unwrap_or_default();
    names.split_off(names.len().saturating_sub(2))
}

fn split_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let split = |path: &PathBuf| path.extension().is_some_and(|end| end == "dwp" || end == "dwo");
    entries.filter(split).collect()
}

#[test]
fn frames_come_out_of_split_files_and_outlive_them() {
    for split in ["packed", "unpacked"] {
        let folder = tempfile::tempdir().unwrap();
        let program = build(folder.path(), split, PROGRAM);
        let (loader, _) = Loader::open(&program).unwrap();
        let found = inlined(&loader, &program, "app::outer");
        assert_eq!(found, ["app::inner", "app::outer"], "{split}");
        let files = split_files(folder.path());
        assert!(!files.is_empty(), "{split}");
        for file in files {
            // In place, as a compiler or `cp` would begin to write it anew.
            fs::OpenOptions::new().write(true).truncate(true).open(file).unwrap();
        }
        // What was read is there, and what was not is missing, no more.
        let found = inlined(&loader, &program, "app::outer");
        assert_eq!(found, ["app::inner", "app::outer"], "{split}");
        inlined(&loader, &program, "other::high");
        assert!(loader.find_symbol(1).is_none());
    }
}

#[test]
fn a_package_of_another_build_is_not_believed() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let program = build(folder.path(), "packed", PROGRAM);
    build(other.path(), "packed", &PROGRAM.replace("outer", "upper"));
    fs::copy(other.path().join("app.dwp"), folder.path().join("app.dwp")).unwrap();
    let (loader, _) = Loader::open(&program).unwrap();
    assert!(inlined(&loader, &program, "app::outer").is_empty());
}

#[test]
fn a_section_that_claims_too_much_is_not_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let packed = "-Clink-arg=-Wl,--compress-debug-sections=zlib";
    let program = build_with(folder.path(), &[packed], PROGRAM);
    Loader::open(&program).unwrap();
    let mut bytes = fs::read(&program).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let section = object::Object::section_by_name(&file, ".debug_info").unwrap();
    let (start, _) = object::ObjectSection::file_range(&section).unwrap();
    // `ch_size`, behind the kind of compression.
    let at = start as usize + 8;
    bytes[at..at + 8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    fs::write(&program, bytes).unwrap();
    let error = Loader::open(&program).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
}
