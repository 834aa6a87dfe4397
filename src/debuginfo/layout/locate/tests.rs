//! Each place of the table, with files of this very test program.

use std::fs;

use super::*;

/// Of this build, and where nothing is.
fn identity() -> (PathBuf, Identity, tempfile::TempDir) {
    let program = std::env::current_exe().unwrap();
    let identity = Identity::of(&program).unwrap();
    (program, identity, tempfile::tempdir().unwrap())
}

fn put(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, b"").unwrap();
}

#[test]
fn a_layout_file_in_the_folder_is_found_by_its_key_whatever_its_name() {
    let (program, identity, folder) = identity();
    let mut dwarf = Dwarf::open(&program).unwrap();
    let written = |name: &str, layouts: &mut Dwarf, key: &str| {
        let (bytes, _) = saved::write(layouts, key).unwrap();
        fs::write(folder.path().join(name), bytes).unwrap();
    };
    written("another.taskprof", &mut dwarf, "0123456789abcdef");
    written("server.taskprof", &mut dwarf, &identity.key());
    fs::write(folder.path().join("text.taskprof"), b"no layouts").unwrap();
    fs::write(folder.path().join("short.taskprof"), b"TPLAYOUT").unwrap();
    let options = Options { folder: Some(folder.path().to_owned()), ..Options::default() };
    let found = open(&program, &options).unwrap();
    assert_eq!(found.path, folder.path().join("server.taskprof"));
    assert!(found.saved && found.layouts.detail() == Detail::Full);
    let none = Options { folder: Some(folder.path().join("none")), ..Options::default() };
    assert!(!open(&program, &none).unwrap().saved);
}

#[test]
fn debug_files_are_looked_for_in_each_place_of_the_table() {
    let (_, _, root) = identity();
    let at = |path: &str| root.path().join(path);
    let names = [at("opt/server")];
    let identity = Identity {
        build_id: Some("abcdef".to_owned()),
        debug_link: Some(("server.dbg".into(), 7)),
        ..Identity::default()
    };
    let (system, folder) = (at("system"), at("kept"));
    let stores = Stores { system: &system, folder: Some(&folder) };
    let inside = root.path().strip_prefix("/").unwrap();
    let expected = [
        (system.join(".build-id/ab/cdef.debug"), None),
        (folder.join(".build-id/ab/cdef.debug"), None),
        (at("opt/server.dbg"), Some(7)),
        (at("opt/.debug/server.dbg"), Some(7)),
        (system.join(inside).join("opt/server.dbg"), Some(7)),
        (folder.join("server.dbg"), Some(7)),
        (at("opt/server.debug"), None),
        (folder.join("server.debug"), None),
    ];
    assert_eq!(debug_files(&names, &identity, stores), expected);
}

#[test]
fn what_is_beside_the_program_comes_before_the_folder() {
    let (_, identity, root) = identity();
    let name = root.path().join("server");
    let kept = root.path().join("kept");
    put(&kept.join("x.taskprof"));
    let files = saved_files(&[name], &identity, Some(&kept));
    let own = format!("{}.taskprof", identity.key());
    assert_eq!(files, [root.path().join("server.taskprof"), kept.join(own)]);
}
