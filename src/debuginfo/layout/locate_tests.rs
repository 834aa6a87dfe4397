//! Each place at which layouts may be, with a small program that is tokio by
//! name and shape as far as debug information can tell.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use super::*;
use crate::debuginfo::small_program::PROGRAM;

/// Folders for the programs, the user's files and the system's, all empty.
struct Places {
    root: tempfile::TempDir,
}

impl Places {
    fn new() -> Self {
        let places = Self { root: tempfile::tempdir().unwrap() };
        for folder in ["bin", "given", "system", "made"] {
            fs::create_dir(places.at(folder)).unwrap();
        }
        fs::write(places.at("app.rs"), PROGRAM).unwrap();
        places
    }

    fn at(&self, path: &str) -> PathBuf {
        // Without the links that temporary folders may have.
        self.root.path().canonicalize().unwrap().join(path)
    }

    /// The program at `made/app`, with all its debug information.
    fn build(&self, more: &[&str]) -> PathBuf {
        let program = self.at("made/app");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(rustc);
        command.args(["-g", "--edition=2021", "--crate-name=tokio", "-Clink-arg=-Wl,--build-id"]);
        command.args(more).arg("-o").args([&program, &self.at("app.rs")]);
        must(command.current_dir(self.at("made")));
        program
    }

    /// The same, stripped, at `bin/app`; the first answer is the file that has
    /// what it lost.
    fn strip(&self, linked: bool) -> (PathBuf, PathBuf) {
        let (program, bare) = (self.build(&[]), self.at("bin/app"));
        let debug = self.at("made/lost.debug");
        objcopy(&[OsStr::new("--only-keep-debug"), program.as_ref(), debug.as_ref()]);
        objcopy(&[OsStr::new("--strip-all"), program.as_ref(), bare.as_ref()]);
        if linked {
            let link = format!("--add-gnu-debuglink={}", debug.display());
            objcopy(&[link.as_ref(), bare.as_ref()]);
        }
        (debug, bare)
    }

    fn open(&self, program: &Path) -> Opened {
        let options = Options { folders: vec![self.at("given")], ..Options::default() };
        open_below(program, &options, &self.at("system")).unwrap()
    }

    /// Nothing is found before the file is there, and it is found then.
    fn found_only_with(&self, program: &Path, from: &Path, to: &Path) -> Opened {
        // Of a program that is only split the symbols are there.
        assert!(self.open(program).layouts.detail() < Detail::Full);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
        let found = self.open(program);
        assert_eq!(found.layouts.detail(), Detail::Full, "{}", to.display());
        found
    }
}

fn must(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn objcopy(args: &[&OsStr]) {
    must(Command::new("objcopy").args(args));
}

/// Only where it is installed; the test command insists.
fn can_strip() -> bool {
    let there = Command::new("objcopy").arg("--version").output().is_ok();
    assert!(there || std::env::var_os("TASKPROF_REQUIRE_TOOLS").is_none(), "objcopy is missing");
    there
}

fn build_id(program: &Path) -> String {
    Identity::of(program).unwrap().build_id.unwrap()
}

#[test]
fn a_debug_file_is_found_at_each_of_its_places() {
    if !can_strip() {
        return;
    }
    for (linked, place) in [
        (false, "bin/app.debug"),
        (true, "bin/lost.debug"),
        (true, "bin/.debug/lost.debug"),
        (true, "system/BIN/lost.debug"),
        (false, "system/.build-id/BUILDID.debug"),
        (false, "given/BUILDID.debug"),
        (false, "given/.build-id/BUILDID.debug"),
        (true, "given/lost.debug"),
        (false, "given/app.debug"),
    ] {
        let places = Places::new();
        let (debug, bare) = places.strip(linked);
        let id = build_id(&bare);
        let place = place
            .replace("BUILDID", &format!("{}/{}", &id[..2], &id[2..]))
            .replace("/BIN", &places.at("bin").display().to_string());
        let to = places.at(&place);
        let found = places.found_only_with(&bare, &debug, &to);
        assert!(!found.saved);
        assert_eq!(found.path, to);
    }
}

/// Whoever maps a file is killed when a page that it no longer has is touched.
#[test]
fn layouts_outlive_the_files_that_they_are_from() {
    let cut = |path: &Path| {
        fs::OpenOptions::new().write(true).truncate(true).open(path).unwrap();
    };
    let places = Places::new();
    let program = places.build(&["-Csplit-debuginfo=packed"]);
    let mut split = places.open(&program).layouts;
    cut(&with_suffix(&program, ".dwp"));
    ask(split.as_mut());
    if can_strip() {
        let places = Places::new();
        let (debug, bare) = places.strip(false);
        fs::copy(debug, places.at("bin/app.debug")).unwrap();
        let mut apart = places.open(&bare).layouts;
        cut(&places.at("bin/app.debug"));
        ask(apart.as_mut());
    }
}

fn ask(layouts: &mut dyn Layouts) {
    let polls = layouts.task_polls();
    assert_eq!(polls.len(), 1);
    let task = layouts.task(polls[0])[0];
    let future = layouts.ty(task.future).unwrap();
    assert_eq!((&*future.name, future.size), ("tokio::Future", 4));
}

#[test]
fn a_debug_file_of_another_build_is_passed_over() {
    if !can_strip() {
        return;
    }
    let (places, others) = (Places::new(), Places::new());
    let (_, bare) = places.strip(true);
    fs::write(others.at("app.rs"), PROGRAM.replace("left", "rest")).unwrap();
    let (other, other_bare) = others.strip(true);
    assert_ne!(build_id(&bare), build_id(&other_bare));
    fs::copy(&other, places.at("given/lost.debug")).unwrap();
    fs::copy(&other, places.at("bin/app.debug")).unwrap();
    assert_eq!(places.open(&bare).layouts.detail(), Detail::Nothing);
}

#[test]
fn split_debug_information_may_be_in_the_folder() {
    let places = Places::new();
    let program = places.build(&["-Csplit-debuginfo=packed"]);
    let moved = places.at("bin/app");
    fs::copy(&program, &moved).unwrap();
    let found =
        places.found_only_with(&moved, &with_suffix(&program, ".dwp"), &places.at("given/app.dwp"));
    assert!(found.remark.is_none(), "{:?}", found.remark);
}

#[test]
fn unpacked_debug_information_may_be_in_the_folder() {
    let places = Places::new();
    let program = places.build(&["-Csplit-debuginfo=unpacked"]);
    let moved = places.at("bin/app");
    fs::copy(&program, &moved).unwrap();
    let whole = places.open(&moved);
    assert_eq!((whole.layouts.detail(), whole.path), (Detail::Full, moved.clone()));
    let parts: Vec<_> = fs::read_dir(places.at("made"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "dwo"))
        .collect();
    assert!(!parts.is_empty());
    let move_to = |folder: &str| {
        for part in &parts {
            let name = part.file_name().unwrap();
            let to = places.at(folder).join(name);
            let from = if part.exists() { part.clone() } else { places.at("elsewhere").join(name) };
            fs::rename(from, to).unwrap();
        }
    };
    fs::create_dir(places.at("elsewhere")).unwrap();
    move_to("elsewhere");
    let without = places.open(&moved);
    assert!(without.layouts.detail() < Detail::Full && without.remark.is_some(), "{without:?}");
    move_to("given");
    let found = places.open(&moved);
    assert_eq!(found.layouts.detail(), Detail::Full);
    assert!(found.remark.is_none(), "{:?}", found.remark);
}

/// As `taskprof index` writes it.
#[cfg(feature = "cli")]
fn index(program: &Path, to: &Path) {
    let mut source = source(program, None).unwrap();
    let (bytes, _) = saved::write(&mut source.layouts, &source.key).unwrap();
    fs::write(to, bytes).unwrap();
}

#[cfg(feature = "cli")]
#[test]
fn a_layout_file_is_found_by_its_header_whatever_its_name() {
    if !can_strip() {
        return;
    }
    let places = Places::new();
    let (_, bare) = places.strip(false);
    let layout = places.at("made/server.layout");
    index(&places.at("made/app"), &layout);
    let named = format!("given/{}.taskprof", build_id(&bare));
    for place in ["bin/app.taskprof", &named, "given/server.taskprof"] {
        let found = places.found_only_with(&bare, &layout, &places.at(place));
        assert!(found.saved);
        assert_eq!(found.path, places.at(place));
        fs::remove_file(places.at(place)).unwrap();
    }
    // Not by the name alone, and not past one that is damaged.
    fs::copy(&layout, places.at("given/server.layout")).unwrap();
    assert_eq!(places.open(&bare).layouts.detail(), Detail::Nothing);
    let mut damaged = fs::read(&layout).unwrap();
    damaged.truncate(damaged.len() / 2);
    fs::write(places.at(&named), &damaged).unwrap();
    fs::write(places.at("given/a.taskprof"), &damaged).unwrap();
    fs::write(places.at("given/b.taskprof"), b"no layouts at all").unwrap();
    fs::create_dir(places.at("given/c.taskprof")).unwrap();
    fs::copy(&layout, places.at("given/z.taskprof")).unwrap();
    assert_eq!(places.open(&bare).path, places.at("given/z.taskprof"));
}

#[cfg(feature = "cli")]
#[test]
fn a_layout_file_that_does_not_fit_is_told_of_where_types_are_missing() {
    if !can_strip() {
        return;
    }
    let (places, others) = (Places::new(), Places::new());
    let (_, bare) = places.strip(false);
    fs::write(others.at("app.rs"), PROGRAM.replace("left", "rest")).unwrap();
    let beside = places.at("bin/app.taskprof");
    index(&others.build(&[]), &beside);
    let remark = |program: &Path| places.open(program).remark.unwrap_or_default();
    assert!(remark(&bare).contains("app.taskprof is of another build"), "{}", remark(&bare));

    // A version that comes after this one.
    index(&places.at("made/app"), &beside);
    let mut bytes = fs::read(&beside).unwrap();
    bytes[8] += 1;
    fs::write(&beside, &bytes).unwrap();
    assert!(remark(&bare).contains("make it anew with `taskprof index`"), "{}", remark(&bare));
    // It takes nothing away from a program that has all types itself.
    fs::copy(&beside, places.at("made/app.taskprof")).unwrap();
    assert_eq!(remark(&places.at("made/app")), "");
}

#[cfg(feature = "cli")]
#[test]
fn a_layout_file_of_another_build_is_passed_over() {
    if !can_strip() {
        return;
    }
    let (places, others) = (Places::new(), Places::new());
    let (_, bare) = places.strip(false);
    fs::write(others.at("app.rs"), PROGRAM.replace("left", "rest")).unwrap();
    let other = others.build(&[]);
    index(&other, &places.at("given/server.taskprof"));
    assert_eq!(places.open(&bare).layouts.detail(), Detail::Nothing);
}

#[cfg(feature = "cli")]
#[test]
fn what_was_read_once_is_kept() {
    let places = Places::new();
    let program = places.build(&[]);
    let cache = super::super::Cache::at(places.at("cache"));
    let options = Options { cache: Some(cache.clone()), ..Options::default() };
    let open = || open_below(&program, &options, &places.at("system")).unwrap();
    let mut first = open();
    assert!(!first.saved);
    let file = cache.path_of(&Identity::of(&program).unwrap()).unwrap();
    let mut second = open();
    assert_eq!((second.saved, &second.path), (true, &file));
    assert_eq!(second.layouts.detail(), Detail::Full);
    assert_eq!(first.layouts.task_polls(), second.layouts.task_polls());
    // One that is damaged is made anew.
    fs::write(&file, b"TPLAYOUT").unwrap();
    assert!(!open().saved);
    assert!(open().saved);
    // What lies beside the program comes first, and what is named even more so.
    fs::copy(&file, places.at("made/app.taskprof")).unwrap();
    assert_eq!(open().path, places.at("made/app.taskprof"));
    // Another build is another file.
    fs::remove_file(places.at("made/app.taskprof")).unwrap();
    fs::write(places.at("app.rs"), PROGRAM.replace("left", "rest")).unwrap();
    places.build(&[]);
    assert!(!open().saved);
    assert_eq!(fs::read_dir(places.at("cache")).unwrap().count(), 2);
}

/// Each way in which binutils compresses the sections of a debug file.
#[test]
fn compressed_debug_information_is_read() {
    if !can_strip() {
        return;
    }
    let places = Places::new();
    let program = places.build(&[]);
    let polls = places.open(&program).layouts.task_polls().to_vec();
    assert_eq!(polls.len(), 1);
    for way in ["zlib", "zlib-gnu", "zstd"] {
        let packed = places.at(&format!("bin/{way}"));
        let how = format!("--compress-debug-sections={way}");
        objcopy(&[how.as_ref(), program.as_ref(), packed.as_ref()]);
        let mut found = places.open(&packed);
        assert_eq!(found.layouts.detail(), Detail::Full, "{way}");
        assert_eq!(found.layouts.task_polls().to_vec(), polls, "{way}");
    }
}
