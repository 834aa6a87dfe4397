//! The same truth from every way to build: release, split, compressed,
//! stripped with a layout file, thin and fat LTO, an old tokio, and a core dump.

use std::path::Path;

use serde_json::Value;

use super::dump::agree;
use super::server::tool;
use super::targets::{
    Attached, Build, Made, Target, dump, findings, marks, run, taskprof, taskprof_json,
};
use super::truth::{list, must_agree};

/// Both scenes that between them have every wait and every shape.
fn waits_and_shapes(program: &Path) {
    agree(Target::start(program, "waits"));
    agree(Target::start(program, "shapes"));
}

#[test]
fn release_with_split_debug_information() {
    if !Build::Release.wanted() {
        return;
    }
    let program = Build::Release.program();
    assert!(program.with_extension("dwp").exists(), "it is split");
    waits_and_shapes(&program);
}

#[test]
fn link_time_optimisation_with_one_codegen_unit() {
    for build in [Build::Thin, Build::Fat] {
        if build.wanted() {
            let program = build.program();
            waits_and_shapes(&program);
            agree(Target::start(&program, "several-runtimes"));
            agree(Target::start(&program, "local-set"));
            super::dump::has_native_stack(Target::start(&program, "blocked"));
        }
    }
}

/// Copies of a generic function in the symbols of a program.
fn copies(nm: &Path, program: &Path, name: &str) -> usize {
    let symbols = run(nm, &[&"--demangle", &program]);
    let mut at: Vec<&str> = symbols
        .lines()
        .filter(|line| line.contains(name) && line.ends_with("::poll"))
        .filter_map(|line| line.split(' ').next())
        .collect();
    at.sort_unstable();
    at.dedup();
    at.len()
}

/// Where functions of two types were merged, a chain that names one of the types
/// is right, or says that it may be the other as well.
#[test]
fn merged_types_are_told_as_either() {
    merged(&Build::Dev.program(), false);
    for build in [Build::Thin, Build::Fat] {
        if build.wanted() {
            merged(&build.program(), true);
        }
    }
}

fn merged(program: &Path, are_merged: bool) {
    if let Some(nm) = tool(&["nm"]) {
        let copies = copies(nm.as_ref(), program, "merged::Quiet<");
        assert_eq!(copies, if are_merged { 1 } else { 2 }, "the scene is as it should be");
    }
    let mut target = Target::start(program, "merged");
    let snapshot = dump(&target, &[]);
    for (name, of, other) in [("apples", "Apples", "Pears"), ("pears", "Pears", "Apples")] {
        let role = list(&target.truth["tasks"]).iter().find(|role| role["name"] == name);
        let id = &role.expect("in the cast")["id"];
        let task = list(&snapshot["tasks"]).iter().find(|task| &task["id"] == id);
        let stack = &task.expect("in the dump")["stack"];
        let frames = list(&stack["frames"]).iter().map(|frame| &frame["function_full"]);
        let told: Vec<_> = frames.chain(list(&stack["or_one_of"])).collect();
        let says = |what: &str| {
            told.iter().any(|name| name.as_str().is_some_and(|name| name.contains(what)))
        };
        assert!(says("Quiet<") && (says(of) || !says(other)), "it is of {of}: {stack:#}");
    }
    target.must_be_well();
}

#[test]
fn tokio_1_40() {
    if Build::Old.wanted() {
        let program = Build::Old.program();
        agree(Target::start(&program, "waits"));
        super::dump_stuck::told_by(&program, "deadlock");
    }
}

#[test]
fn compressed_debug_sections() {
    let Some(objcopy) = tool(&["objcopy"]) else { return };
    let made = Made::new();
    let packed = made.path("packed");
    for how in ["zlib", "zstd"] {
        let flag = format!("--compress-debug-sections={how}");
        run(&objcopy, &[&flag, &Build::Dev.program(), &packed]);
        agree(Target::start(&packed, "waits"));
    }
}

#[test]
fn stripped_with_its_debug_file() {
    let (Some(objcopy), Some(strip)) = (tool(&["objcopy"]), tool(&["strip"])) else { return };
    let made = Made::new();
    let (bare, debug) = (made.path("bare"), made.path("kept.debug"));
    let program = Build::Dev.program();
    run(&objcopy, &[&"--only-keep-debug", &program, &debug]);
    run(&strip, &[&"-o", &bare, &program]);
    let mut target = Target::start(&bare, "shapes");
    must_agree(&target.truth, &dump(&target, &[&"--debug-file", &debug]));
    target.must_be_well();

    // Beside the program it is found without being named.
    let linked = made.path("linked");
    run(&objcopy, &[&format!("--add-gnu-debuglink={}", debug.display()), &bare, &linked]);
    agree(Target::start(&linked, "shapes"));
}

#[test]
fn stripped_with_its_layout_file() {
    let Some(strip) = tool(&["strip"]) else { return };
    let made = Made::new();
    let (bare, layout) = (made.path("bare"), made.path("kept.layout"));
    let program = if Build::Thin.wanted() { Build::Thin } else { Build::Dev }.program();
    run(env!("CARGO_BIN_EXE_taskprof"), &[&"index", &program, &"-o", &layout]);
    run(&strip, &[&"-o", &bare, &program]);
    for scene in ["waits", "shapes", "deadlock", "futurelock-stream"] {
        let mut target = Target::start(&bare, scene);
        must_agree(&target.truth, &dump(&target, &[&"--layout", &layout]));
        target.must_be_well();
    }
    let size = |path: &Path| path.metadata().expect("a file").len();
    let debug = size(&program) - size(&bare);
    assert!(size(&layout) * 20 < debug, "{} of {debug} bytes", size(&layout));
}

/// As documented: the layouts saved under a name of one's own, in a folder
/// that is given.
#[test]
fn stripped_with_its_layout_file_in_a_folder() {
    let Some(strip) = tool(&["strip"]) else { return };
    let made = Made::new();
    let (bare, folder) = (made.path("bare"), made.path("kept"));
    std::fs::create_dir(&folder).expect("folder");
    let program = Build::Dev.program();
    let layout = folder.join("server.taskprof");
    run(env!("CARGO_BIN_EXE_taskprof"), &[&"index", &program, &"-o", &layout]);
    run(&strip, &[&"-o", &bare, &program]);
    let mut target = Target::start(&bare, "deadlock");
    let empty = made.folder.path();
    must_agree(
        &target.truth,
        &dump(&target, &[&"--debug-folder", &empty, &"--debug-folder", &folder]),
    );
    let pid = target.pid().to_string();
    let without = taskprof(&[&"dump", &"--pid", &pid]);
    assert!(!without.status.success(), "the folder is what helps");
    let missing = taskprof(&[&"dump", &"--pid", &pid, &"--debug-folder", &made.path("none")]);
    let said = String::from_utf8_lossy(&missing.stderr);
    assert!(missing.status.code() == Some(2) && said.contains("none"), "{said}");
    target.must_be_well();
}

/// Every task with its state, and the name of its future; no more is said than
/// is known, and why is said.
fn named_only(mut target: Target) {
    let snapshot = dump(&target, &[]);
    let coverage = &snapshot["coverage"];
    let tasks = list(&snapshot["tasks"]);
    let told = list(&coverage["missing"]).iter().find(|it| it["reason"] == "types_only");
    assert_eq!(told.expect("said")["count"], tasks.len(), "{coverage:#}");
    assert_eq!(target.truth["alive"], tasks.len(), "{coverage:#}");
    assert_eq!(coverage["alive"], tasks.len(), "{coverage:#}");
    for role in list(&target.truth["tasks"]) {
        let task = tasks.iter().find(|task| task["id"] == role["id"]);
        let task = task.unwrap_or_else(|| panic!("listed: {role:#}"));
        if role["state"].is_string() {
            assert_eq!(task["state"], role["state"], "{role:#}");
        }
        // The outermost function is the future that was spawned.
        let Some(mark) = list(&role["path"]).last().and_then(Value::as_str) else { continue };
        let function = match mark.strip_prefix("fn:") {
            Some(function) => function,
            None => &marks()[mark].function,
        };
        let name = &list(&task["stack"]["frames"])[0]["function_full"];
        assert!(name.as_str().is_some_and(|name| name.contains(function)), "{role:#}: {name}");
    }
    for task in tasks {
        assert!(task["wait"].is_null() && list(&task["holds"]).is_empty(), "{task:#}");
        for frame in list(&task["stack"]["frames"]) {
            assert!(frame["location"].is_null(), "{frame:#}");
        }
    }
    let report = findings(&target);
    let deadlocks = list(&report["checked"]).iter().find(|it| it["kind"] == "deadlock");
    assert!(deadlocks.expect("checked")["unavailable"].is_string(), "{:#}", report["checked"]);
    target.must_be_well();
}

/// `debug = 1` on the oldest tokio; with `tokio_unstable` tasks know where they
/// were spawned.
#[test]
fn names_only() {
    if !Build::OldNames.wanted() {
        return;
    }
    named_only(Target::start(&Build::OldNames.program(), "waits"));
}

#[test]
fn line_tables_only() {
    if !Build::Lines.wanted() {
        return;
    }
    for scene in ["waits", "several-runtimes", "local-set"] {
        named_only(Target::start(&Build::Lines.program(), scene));
    }
}

/// Without debug information the linker's symbols do; without these nothing
/// does, and that is said.
#[test]
fn symbols_only() {
    let (Some(objcopy), Some(strip)) = (tool(&["objcopy"]), tool(&["strip"])) else { return };
    let made = Made::new();
    let (symbols, bare) = (made.path("symbols"), made.path("bare"));
    run(&objcopy, &[&"--strip-debug", &Build::Dev.program(), &symbols]);
    for scene in ["waits", "several-runtimes", "local-set"] {
        named_only(Target::start(&symbols, scene));
    }
    run(&strip, &[&"-o", &bare, &symbols]);
    let mut target = Target::start(&bare, "waits");
    let pid = target.pid().to_string();
    let refused = taskprof(&[&"dump", &"--pid", &pid]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("has no debug information"), "{said}");
    target.must_be_well();
}

/// Tasks that end all the time leave their headers behind in freed memory:
/// none of them is taken for a living one.
#[test]
fn names_under_churn_are_of_the_living() {
    let Some(objcopy) = tool(&["objcopy"]) else { return };
    let made = Made::new();
    let symbols = made.path("symbols");
    run(&objcopy, &[&"--strip-debug", &Build::Dev.program(), &symbols]);
    let mut target = Target::start(&symbols, "churn");
    let attached = Attached::to(&target);
    let parked = list(&target.truth["tasks"]).len() as u64;
    // Each of the 500 that end leaves a successor first: for a moment it is two.
    let living = parked + 500..=parked + 2 * 500;
    for round in 0..10 {
        let snapshot = attached.json("/debug/snapshot");
        let found = snapshot["coverage"]["listed"].as_u64().expect("a number");
        assert!(living.contains(&found), "{round}: {found} of {living:?}");
    }
    target.must_be_well();
}

#[test]
fn a_core_dump_tells_the_same() {
    let Some(gcore) = tool(&["gcore"]) else { return };
    let made = Made::new();
    let program = Build::Dev.program();
    for scene in ["waits", "several-runtimes"] {
        let mut target = Target::start(&program, scene);
        let pid = target.pid().to_string();
        run(&gcore, &[&"-o", &made.path(scene), &pid]);
        target.must_be_well();
        let truth = timeless(&target.truth);
        target.end();
        let core = made.path(&format!("{scene}.{pid}"));
        let snapshot =
            taskprof_json(&[&"dump", &"--core", &core, &"--exe", &program, &"--format", &"json"]);
        must_agree(&truth, &snapshot);
    }
}

/// A task that ran when the core was left has the native stack of its worker.
#[test]
fn a_blocked_task_in_a_core_has_its_native_stack() {
    let Some(gcore) = tool(&["gcore"]) else { return };
    let made = Made::new();
    let program = Build::Dev.program();
    let mut target = Target::start(&program, "blocked");
    let pid = target.pid().to_string();
    run(&gcore, &[&"-o", &made.path("blocked"), &pid]);
    target.must_be_well();
    let core = made.path(&format!("blocked.{pid}"));
    let snapshot =
        taskprof_json(&[&"dump", &"--core", &core, &"--exe", &program, &"--format", &"json"]);
    super::dump::must_have_native_stack(&target.truth, &snapshot);
}

/// A core does not tell what time it was, nor where its sockets led.
fn timeless(truth: &Value) -> Value {
    let mut truth = truth.clone();
    for role in truth["tasks"].as_array_mut().into_iter().flatten() {
        let role = role.as_object_mut().expect("a role");
        role.retain(|key, _| !matches!(key.as_str(), "deadline" | "local" | "peer"));
    }
    truth
}
