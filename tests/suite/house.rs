//! The house rules that a compiler does not check: imports run downward only,
//! and `unsafe` lives in one room.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the ground up; a room may import those on lower floors only.
const FLOORS: &[(&str, u32)] = &[
    ("pb", 10),
    ("error", 10),
    ("model", 12),
    ("sys", 18),
    ("registry", 20),
    ("analyze", 20),
    ("debuginfo", 20),
    ("instrument", 30),
    ("inspect", 30),
    ("channelz", 30),
    ("console", 30),
    ("otel", 30),
    ("render", 30),
    ("serve", 40),
    ("profiler", 45),
    ("attach", 45),
    ("reference", 50),
    ("lib", 55),
    ("cli", 60),
    ("main", 60),
];

/// Rooms that must stay strangers though the floors would let them meet.
const STRANGERS: &[(&str, &str)] = &[
    ("render", "registry"),
    ("serve", "registry"),
    ("channelz", "registry"),
    ("channelz", "inspect"),
    ("console", "registry"),
    ("otel", "registry"),
    ("otel", "inspect"),
    ("analyze", "registry"),
    ("render", "inspect"),
    ("serve", "inspect"),
    ("console", "inspect"),
    ("render", "analyze"),
    ("inspect", "registry"),
];

fn floor(room: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("source folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// Code of a file without its line comments, so that docs may link anywhere,
/// and without its unit tests, which may put rooms together.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("source file");
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The rooms named as `crate::room` in some code, `crate::{a, b::c}` included.
fn imports(code: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            rooms.push(name(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (at, c) in group.char_indices() {
            if depth == 0 && start && (c.is_alphanumeric() || c == '_') {
                rooms.push(name(&group[at..]));
                start = false;
            }
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                _ => {}
            }
        }
    }
    rooms
}

/// The rooms that a room's top file reaches through `super`, which is the
/// crate's root there and the room itself further down.
fn above(path: &Path, src: &Path, code: &str) -> Vec<String> {
    let inside = path.strip_prefix(src).expect("inside src");
    let depth = inside.components().count();
    if !(depth == 1 || depth == 2 && inside.ends_with("mod.rs")) {
        return Vec::new();
    }
    // `pub(super)` has no `::`, and modules written out in such a file are few
    // enough to do without `super::`.
    imports(&code.replace("super::", "crate::"))
}

fn room_of(path: &Path, src: &Path) -> String {
    let inside = path.strip_prefix(src).expect("inside src");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn imports_run_downward_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 50, "only {} source files found", files.len());
    let mut wrong = Vec::new();
    for file in &files {
        let room = room_of(file, &src);
        let Some(own) = floor(&room) else {
            wrong.push(format!("{}: the room {room} has no floor", file.display()));
            continue;
        };
        let code = code(file);
        let mut targets = imports(&code);
        targets.extend(above(file, &src, &code));
        for target in targets {
            if target == room {
                continue;
            }
            // What is not a room is re-exported from the crate's root.
            let other = floor(&target).unwrap_or(55);
            let strangers = STRANGERS.contains(&(room.as_str(), target.as_str()));
            if other >= own || strangers {
                wrong.push(format!("{}: {room} imports {target}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the house:\n{}", wrong.join("\n"));
}

/// Whether a line makes something unsafe: a block, an implementation, a
/// function, a trait, foreign items, an attribute. The lint's name does not.
fn is_unsafe(bare: &str) -> bool {
    bare.match_indices("unsafe").any(|(at, word)| {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        let rest = &bare[at + word.len()..];
        let quoted = bare[..at].matches('"').count() % 2 == 1;
        !quoted && !bare[..at].ends_with(part) && !rest.starts_with(part)
    })
}

#[test]
fn unsafe_lives_in_one_room() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let inside = room_of(&file, &src) == "sys";
        let text = fs::read_to_string(&file).expect("source file");
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            let bare = line.split("//").next().unwrap_or_default();
            if !is_unsafe(bare) {
                continue;
            }
            // A declaration asks something of its callers; what is done with it says why.
            let done = bare.contains("unsafe {") || bare.contains("unsafe impl");
            let near = &lines[n.saturating_sub(12)..=n];
            let told = !done || near.iter().any(|line| line.contains("SAFETY:"));
            if !inside || !told {
                wrong.push(format!("{}:{}: {}", file.display(), n + 1, line.trim()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "unsafe outside src/sys, or without a SAFETY: line:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn nothing_unsafe_escapes() {
    for line in ["unsafe {", "pub unsafe fn f()", "unsafe extern \"C\" {", "#[unsafe(no_mangle)]"] {
        assert!(is_unsafe(line), "{line}");
    }
    for line in ["#![allow(unsafe_code)]", "is_unsafe()", "Unsafe", "[\"unsafe fn(\"]"] {
        assert!(!is_unsafe(line), "{line}");
    }
}

#[test]
fn a_top_file_reaches_rooms_through_super() {
    let src = Path::new("src");
    let code = "use super::registry::clock;";
    for top in ["src/render.rs", "src/render/mod.rs"] {
        assert_eq!(above(Path::new(top), src, code), ["registry"], "{top}");
    }
    assert!(above(Path::new("src/render/html/mod.rs"), src, code).is_empty());
}

#[test]
fn the_reader_of_imports_sees_them_all() {
    let code = "use crate::model::{Task, stack};\nuse crate::{error::Error, sys::{a, b}, serve};\n\
                let x = crate::registry::clock::now(); mycrate::nothing(); $crate::macro_path!()";
    assert_eq!(imports(code), ["model", "error", "sys", "serve", "registry"]);
}
