//! The folders in which the program's own units were compiled.
//!
//! Debug information names a workspace's files by a path relative to the
//! folder that rustc ran in (`DW_AT_comp_dir`), and readers join the two.
//! People know their files by the relative path, which is also what
//! `std::panic::Location` says; so the joined prefix is taken off again.

use std::collections::BTreeSet;

use gimli::{Dwarf, Reader};

/// Distinct folders believed. A program has one for each workspace in it.
const MOST: usize = 64;
/// Units looked at: a program has one for each codegen unit, some thousands.
const UNITS: usize = 200_000;

/// The folders, longest first, each with a final slash. Empty without debug
/// information.
///
/// # Errors
/// Damaged debug information.
pub fn of<R: Reader>(dwarf: &Dwarf<R>) -> gimli::Result<Vec<String>> {
    let mut folders = BTreeSet::new();
    let mut headers = dwarf.units();
    for _ in 0..UNITS {
        let Some(header) = headers.next()? else { break };
        if let Some(folder) = dwarf.unit(header)?.comp_dir {
            folders.insert(folder.to_slice()?.into_owned());
        }
    }
    Ok(among(folders.iter().filter_map(|folder| std::str::from_utf8(folder).ok())))
}

/// The homes among the folders in which units were compiled.
pub fn among<'a>(folders: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut found = BTreeSet::new();
    for folder in folders {
        if folder.starts_with('/') && !is_foreign(folder) && found.len() < MOST {
            found.insert(format!("{}/", folder.trim_end_matches('/')));
        }
    }
    let mut found: Vec<String> = found.into_iter().collect();
    found.sort_by_key(|folder| std::cmp::Reverse(folder.len()));
    found
}

/// Crates of others keep their whole path: it says whose they are.
fn is_foreign(folder: &str) -> bool {
    ["/rustc/", "/registry/src/", "/git/checkouts/", "/lib/rustlib/"]
        .iter()
        .any(|mark| folder.contains(mark))
        || folder == "/"
}

#[cfg(test)]
mod tests {
    use crate::debuginfo::loader::Loader;

    #[test]
    fn this_crate_was_compiled_where_its_manifest_is() {
        let (_, homes) = Loader::open(&std::env::current_exe().unwrap()).unwrap();
        assert!(homes.contains(&format!("{}/", env!("CARGO_MANIFEST_DIR"))), "{homes:?}");
        assert!(homes.iter().all(|home| !home.contains("/registry/")), "{homes:?}");
    }
}
