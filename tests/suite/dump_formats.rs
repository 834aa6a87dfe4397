//! What is written of another process and of a core, in each format, and what
//! `attach` serves of it.

use std::ffi::OsStr;

use super::server::{Server, tool};
use super::targets::{Attached, Build, Made, Target, run, taskprof_json};
use super::tools::PPROF;
use super::truth::list;

/// Dumps it as a page and as a profile, and reads both.
fn readable(made: &Made, of: &[&dyn AsRef<OsStr>], count: u64) {
    let write = |format: &str, name: &str| {
        let path = made.path(name);
        let mut args: Vec<&dyn AsRef<OsStr>> = vec![&"dump", &"--format", &format, &"-o", &path];
        args.extend_from_slice(of);
        run(env!("CARGO_BIN_EXE_taskprof"), &args);
        path
    };
    let page = std::fs::read_to_string(write("html", "tasks.html")).expect("a page");
    for said in ["<!doctype html>", "[mutex lock]", "held by task ", " in its queue", "src/"] {
        assert!(page.contains(said), "{said} in {page}");
    }
    assert!(page.contains(&format!("{count} tasks listed of {count} alive")), "{page:.2000}");
    assert!(!page.contains("<script") && !page.contains("http:"), "self-contained");

    let Some(pprof) = tool(PPROF) else { return };
    let profile = write("pprof", "goroutine.pb.gz");
    let top = run(&pprof, &[&"-top", &"-nodecount=500", &"-sample_index=goroutine", &profile]);
    assert!(top.contains("Type: goroutine"), "{top}");
    assert!(top.contains(&format!("of {count} total")), "{top}");
    let traces = run(&pprof, &[&"-traces", &"-sample_index=goroutine", &profile]);
    assert!(traces.contains("deadlock"), "functions survive: {traces}");
    let tags = run(&pprof, &[&"-tags", &"-sample_index=goroutine", &profile]);
    for tag in ["state:", "wait:", "mutex", "holder:"] {
        assert!(tags.contains(tag), "{tag} in {tags}");
    }
}

#[test]
fn a_process_and_its_core_as_a_page_and_as_a_profile() {
    let mut target = Target::dev("deadlock");
    let made = Made::new();
    let pid = target.pid().to_string();
    let snapshot = taskprof_json(&[&"dump", &"--pid", &pid, &"--format", &"json"]);
    let count = list(&snapshot["tasks"]).len() as u64;
    readable(&made, &[&"--pid", &pid], count);
    target.must_be_well();
    let Some(gcore) = tool(&["gcore"]) else { return };
    run(&gcore, &[&"-o", &made.path("core"), &pid]);
    target.must_be_well();
    let core = made.path(&format!("core.{pid}"));
    readable(&made, &[&"--core", &core, &"--exe", &Build::Dev.program()], count);
}

#[test]
fn a_server_says_what_is_wrong_before_its_tasks() {
    let server = Server::with_faults(&[]);
    let _load = server.load("lock-cycle", &["--streams", "2", "--seconds", "60"]);
    let findings = server.wait_for("/debug/findings", "deadlock", |json| {
        list(&json["findings"]).iter().any(|finding| finding["kind"] == "deadlock")
    });
    let found = list(&findings["findings"]).iter().find(|finding| finding["kind"] == "deadlock");
    let title = found.expect("the deadlock")["title"].as_str().expect("a title");
    let text = run(env!("CARGO_BIN_EXE_taskprof"), &[&"dump", &"--url", &server.url("")]);
    assert!(text.starts_with(&format!("taskprof (pid {}): ", server.pid())), "{text:.500}");
    let told = text.find(title).unwrap_or_else(|| panic!("no {title:?} in {text:.2000}"));
    let tasks = text.find("\ngoroutine ").expect("tasks");
    assert!(told < tasks, "{text:.2000}");
}

#[test]
fn attach_serves_the_page_the_tasks_the_profiles_and_the_events() {
    let mut target = Target::dev("deadlock");
    let attached = Attached::to(&target);
    let page = attached.get("/");
    assert!(page.status == 200 && page.text().contains("<!doctype html>"), "{}", page.headers);
    let tasks = attached.json("/debug/tasks");
    let count = list(&tasks["tasks"]).len();
    assert!(count > 0 && tasks["coverage"]["listed"] == count, "{:#}", tasks["coverage"]);

    let profile = attached.get("/debug/pprof/goroutine?debug=0");
    assert_eq!((profile.status, &profile.body[..2]), (200, &[0x1f, 0x8b][..]), "gzip");
    let grouped = attached.get("/debug/pprof/goroutine?debug=1").text();
    assert!(grouped.starts_with(&format!("goroutine profile: total {count}")), "{grouped}");
    let all = attached.get("/debug/pprof/goroutine?debug=2").text();
    assert_eq!(all.lines().filter(|line| line.starts_with("goroutine ")).count(), count);
    assert!(all.contains("mutex lock") && all.contains("held by goroutine"), "{all}");

    let refused = attached.get("/debug/pprof/profile?seconds=1");
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert!(refused.text().contains("needs taskprof inside the process"), "{}", refused.text());
    let nowhere = attached.get("/debug/pprof/symbol?0x1");
    assert_eq!((nowhere.status, nowhere.text()), (200, "num_symbols: 1\n".to_owned()));
    if let Some(nm) = tool(&["nm"]) {
        let symbols = run(nm, &[&"--demangle", &Build::Dev.program()]);
        let main = symbols.lines().find(|line| line.ends_with(" targets::main"));
        let address = main.and_then(|line| line.split(' ').next()).expect("its address");
        let symbol = attached.get(&format!("/debug/pprof/symbol?0x{address}")).text();
        assert!(symbol.contains(" targets::main src/main.rs:"), "{symbol}");
    }

    let first = attached.first_event();
    assert!(first.starts_with("HTTP/1.1 200") || first.starts_with("HTTP/1.0 200"), "{first}");
    assert!(first.to_lowercase().contains("text/event-stream"), "{first}");
    // The feed goes on to look, and the process stands still for each look.
    drop(attached);
    target.must_be_well();
}
