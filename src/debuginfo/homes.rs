//! The folders in which the program's own units were compiled.
//!
//! Debug information names a workspace's files by a path relative to the
//! folder that rustc ran in (`DW_AT_comp_dir`), and readers join the two.
//! People know their files by the relative path, which is also what
//! `std::panic::Location` says; so the joined prefix is taken off again.

use std::collections::BTreeSet;

use gimli::{Dwarf, Reader};

use super::names;

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
        let home = format!("{}/", folder.trim_end_matches('/'));
        if home.starts_with('/') && home != "/" && !names::is_foreign(&home) {
            found.insert(home);
        }
    }
    let mut found: Vec<String> = found.into_iter().collect();
    // Of too many those that hold the others.
    found.sort_by_key(String::len);
    found.truncate(MOST);
    found.reverse();
    found
}

/// A path as people know it: `src/main.rs` in the program's own workspace.
/// Crates of others keep the whole: it says whose they are.
pub fn shorten<'a>(homes: &[String], file: &'a str) -> &'a str {
    let mut homes = homes.iter().filter(|_| !names::is_foreign(file));
    homes.find_map(|home| file.strip_prefix(home.as_str())).unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debuginfo::loader::Loader;
    use crate::model::FrameKind;

    #[test]
    fn this_crate_was_compiled_where_its_manifest_is() {
        let (_, homes) = Loader::open(&std::env::current_exe().unwrap()).unwrap();
        assert!(homes.contains(&format!("{}/", env!("CARGO_MANIFEST_DIR"))), "{homes:?}");
        assert!(homes.iter().all(|home| !home.contains("/registry/")), "{homes:?}");
    }

    /// cargo compiles a crate of others in the crate's own folder.
    #[test]
    fn crates_of_others_are_no_homes_wherever_they_are_kept() {
        let workspace = "/src/app";
        for (folder, kind) in [
            ("/src/app/vendor/hyper", FrameKind::Library),
            ("/src/app/vendor/tokio-1.54.1", FrameKind::Runtime),
            ("/vendor/hyper", FrameKind::Library),
            ("/home/me/.cargo/registry/src/index-1/hyper-1.12.0", FrameKind::Library),
            ("/home/me/.cargo/git/checkouts/hyper-0a1b2c/9f8e", FrameKind::Library),
            ("/rustc/59807616e1/library/std", FrameKind::Runtime),
            ("/rust/deps/hashbrown-0.15.5", FrameKind::Runtime),
        ] {
            // More than are believed, and in either order.
            let vendored: Vec<String> =
                (0..MOST).map(|n| format!("/src/app/vendor/a{n}")).collect();
            let mut folders: Vec<&str> = vendored.iter().map(String::as_str).collect();
            folders.extend([folder, workspace]);
            assert_eq!(among(folders.iter().copied()), ["/src/app/"], "{folder}");
            assert_eq!(among(folders.into_iter().rev()), ["/src/app/"], "{folder}");
            let file = format!("{folder}/src/client.rs");
            let shown = shorten(&["/src/app/".to_owned()], &file);
            assert_eq!(shown, file);
            assert_eq!(names::kind(Some(shown), "hyper::client::x", true), kind, "{folder}");
        }
    }

    #[test]
    fn of_too_many_homes_the_outer_ones_are_believed() {
        let folders: Vec<String> = (0..2 * MOST).map(|n| format!("/src/app/crates/c{n}")).collect();
        let folders = folders.iter().map(String::as_str).chain(["/src/app", "/"]);
        let homes = among(folders);
        assert_eq!(homes.len(), MOST);
        assert_eq!(homes.last().unwrap(), "/src/app/");
    }
}
