//! A stripped program dumps itself: with what its symbols tell, with a layout
//! file beside it, with a debug file in a folder that it names.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::dump_own::{chains, snapshot};
use super::server::tool;
use super::targets::{Made, Target, eventually, run};
use super::truth::{list, must_agree};

/// The scenes with taskprof in them, whole and stripped.
struct Programs {
    made: Made,
    whole: PathBuf,
    bare: PathBuf,
    objcopy: PathBuf,
}

impl Programs {
    /// `strip`: what of it, as `objcopy` says it.
    fn new(strip: &str) -> Option<Self> {
        let objcopy = tool(&["objcopy"])?;
        let whole = super::embed::scenes()?;
        let made = Made::new();
        let bare = made.path("bare");
        run(&objcopy, &[&strip, &whole, &bare]);
        Some(Self { made, whole, bare, objcopy })
    }

    fn index(&self, to: &Path) {
        run(env!("CARGO_BIN_EXE_taskprof"), &[&"index", &self.whole, &"-o", &to]);
    }
}

fn missing<'a>(snapshot: &'a Value, reason: &str) -> Option<&'a Value> {
    list(&snapshot["coverage"]["missing"]).iter().find(|it| it["reason"] == reason)
}

#[test]
fn symbols_alone_name_the_tasks() {
    let Some(programs) = Programs::new("--strip-debug") else { return };
    let mut target = Target::start(&programs.bare, "waits");
    let snapshot = chains(&target);
    let tasks = list(&snapshot["tasks"]);
    let coverage = &snapshot["coverage"];
    assert_eq!(target.truth["alive"], tasks.len(), "{coverage:#}");
    let told = missing(&snapshot, "types_only").expect("said");
    assert_eq!(told["count"], tasks.len(), "{coverage:#}");
    for task in tasks {
        assert!(task["wait"].is_null(), "no more is said than is known: {task:#}");
    }
    target.must_be_well();
}

#[test]
fn a_layout_file_beside_it_tells_all() {
    let Some(programs) = Programs::new("--strip-all") else { return };
    let layout = programs.made.path("bare.taskprof");

    let mut target = Target::start(&programs.bare, "waits");
    let why_not = |target: &Target| {
        eventually("why it was not read", || {
            let snapshot = snapshot(target);
            let said = missing(&snapshot, "no_debug_info").map(|told| told["detail"].clone());
            said.ok_or_else(|| format!("{:#}", snapshot["coverage"]))
        })
    };
    let without = why_not(&target);
    assert!(without.as_str().is_some_and(|it| it.contains("taskprof index")), "{without}");
    target.must_be_well();
    drop(target);

    // One of another program does not help, and that is said.
    let own = env!("CARGO_BIN_EXE_taskprof");
    run(own, &[&"index", &own, &"-o", &layout]);
    let mut target = Target::start(&programs.bare, "waits");
    let stale = why_not(&target);
    assert!(stale.as_str().is_some_and(|it| it.contains("is of another build")), "{stale}");
    target.must_be_well();
    drop(target);

    programs.index(&layout);
    for scene in ["waits", "shapes", "deadlock"] {
        let mut target = Target::start(&programs.bare, scene);
        let snapshot = chains(&target);
        must_agree(&target.truth, &snapshot);
        assert_eq!(missing(&snapshot, "no_debug_info"), None);
        target.must_be_well();
    }
}

#[test]
fn a_debug_file_that_is_written_anew_takes_nobody_along() {
    let Some(programs) = Programs::new("--strip-all") else { return };
    let folder = programs.made.path("kept");
    fs::create_dir(&folder).expect("folder");
    let debug = folder.join("bare.debug");
    run(&programs.objcopy, &[&"--only-keep-debug", &programs.whole, &debug]);
    let mut target = Target::start_with(&programs.bare, &[&"waits", &folder]);
    let first = chains(&target);
    must_agree(&target.truth, &first);
    // In place, as `cp` or a compiler begins to write.
    File::options().write(true).truncate(true).open(&debug).expect("it is truncated");
    let again = eventually("another dump", || {
        let snapshot = snapshot(&target);
        let another = snapshot["taken_at"] != first["taken_at"];
        if another { Ok(snapshot) } else { Err("the same".to_owned()) }
    });
    must_agree(&target.truth, &again);
    target.must_be_well();
}
