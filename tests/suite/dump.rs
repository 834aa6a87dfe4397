//! Dumps of programs that know the truth about themselves: each wait, each
//! shape of future, each kind of runtime.

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::Value;

use super::server::Server;
use super::targets::{Attached, Target, dump, eventually, taskprof_json};
use super::truth::{differences, list, must_agree};

/// Dumps a scene that holds still, and holds the dump to its truth.
pub fn agree(mut target: Target) {
    let truth = target.truth.clone();
    must_agree(&truth, &dump(&target, &[]));
    target.must_be_well();
}

#[test]
fn every_wait_is_told_with_its_resource_and_holders() {
    agree(Target::dev("waits"));
}

#[test]
fn every_shape_of_future_is_followed_to_its_leaf() {
    agree(Target::dev("shapes"));
}

#[test]
fn a_current_thread_runtime_is_found() {
    agree(Target::dev("current-thread"));
}

#[test]
fn a_local_set_is_found() {
    agree(Target::dev("local-set"));
}

#[test]
fn all_runtimes_of_a_process_are_found() {
    agree(Target::dev("several-runtimes"));
}

/// A request that takes long goes through hyper's HTTP/1, a router of axum's and
/// layers of tower's to its handler, a call through tonic to another.
#[test]
fn the_frames_of_servers_are_libraries_around_the_users() {
    let server = Server::with_faults(&[]);
    let _calls = server.load("silent-channel", &["--streams", "2", "--seconds", "60"]);
    let mut asking = TcpStream::connect(server.http).expect("connected");
    asking
        .write_all(b"GET /debug/pprof/goroutine?seconds=30 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("asked");
    let pid = server.pid().to_string();
    eventually("frames of all these crates", || {
        let dump = taskprof_json(&[&"dump", &"--pid", &pid, &"--format", &"json"]);
        let tasks = list(&dump["tasks"]).iter();
        let stacks = tasks.flat_map(|task| {
            let branches = list(&task["branches"]).iter().map(|branch| &branch["stack"]);
            std::iter::once(&task["stack"]).chain(branches)
        });
        let suspended = stacks.filter(|stack| stack["source"] == "await");
        let frames: Vec<&Value> = suspended.flat_map(|stack| list(&stack["frames"])).collect();
        let missing = |of: &[&str], kind: &str| {
            let found = |of: &str| {
                let is_of = |frame: &&&Value| {
                    frame["location"]["file"].as_str().is_some_and(|file| file.contains(of))
                };
                let mut frames = frames.iter().filter(is_of).peekable();
                let any = frames.peek().is_some();
                assert!(frames.all(|frame| frame["kind"] == kind), "frames in {of} are {kind}");
                any
            };
            of.iter().filter(|of| !found(of)).map(|of| (*of).to_owned()).collect::<Vec<_>>()
        };
        let mut lacks = missing(&["/hyper-1", "/axum-0", "/tower-0", "/tonic-0"], "library");
        lacks.extend(missing(&["/tokio-1", "/library/core/"], "runtime"));
        lacks.extend(missing(&["src/serve/api/pprof.rs", "src/reference/lab/"], "user"));
        if lacks.is_empty() { Ok(()) } else { Err(format!("none of {lacks:?}")) }
    });
}

#[test]
fn a_runtime_without_tasks_is_said_to_have_none() {
    agree(Target::dev("nothing"));
}

#[test]
fn a_task_that_yields_waits_for_its_turn() {
    let target = Target::dev("yield");
    // Which of the four runs at that moment is anybody's guess, but not all do.
    let waiting = |snapshot: &Value| {
        let yielders = target.truth["tasks"].as_array().expect("tasks").iter();
        let yielders = yielders.filter(|role| role["wait"] == "yield");
        let tasks = yielders.filter_map(|role| {
            list(&snapshot["tasks"]).iter().find(|task| task["id"] == role["id"])
        });
        let rest: Vec<&Value> = tasks.filter(|task| task["state"] != "running").collect();
        (rest.len(), rest.iter().filter(|task| task["wait"]["kind"] == "yield").count())
    };
    eventually("a task between two polls", || {
        let snapshot = dump(&target, &[]);
        let (rest, yielding) = waiting(&snapshot);
        let told = rest > 0 && rest == yielding;
        told.then_some(()).ok_or_else(|| format!("{yielding} of {rest}: {:#}", snapshot["tasks"]))
    });
}

/// A worker in a call through C: no await chain can be had, its native stack
/// can, down to the innermost callback.
#[test]
fn a_blocked_task_has_the_native_stack_of_its_worker() {
    has_native_stack(Target::dev("blocked"));
}

/// Has a program with a blocked worker dumped.
pub fn has_native_stack(mut target: Target) {
    let truth = target.truth.clone();
    let snapshot = dump(&target, &[]);
    let wrong = differences(&truth, &snapshot);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    must_have_native_stack(&truth, &snapshot);
    target.must_be_well();
}

/// The blocked task's own functions, through those of C.
pub fn must_have_native_stack(truth: &Value, snapshot: &Value) {
    let role = list(&truth["tasks"]).iter().find(|role| role["name"] == "blocked").expect("it");
    let task = list(&snapshot["tasks"]).iter().find(|task| task["id"] == role["id"]);
    let stack = &task.expect("listed")["stack"];
    assert_eq!(stack["source"], "native", "{stack:#}");
    let own: Vec<&str> = list(&stack["frames"])
        .iter()
        .filter(|frame| frame["kind"] == "user")
        .filter_map(|frame| frame["function_full"].as_str())
        .collect();
    // From the callback out to the task, through qsort.
    let mut rest = own.iter();
    for function in ["compare", "through_c", "blocking_task"] {
        assert!(rest.any(|name| name.contains(function)), "{function} in {own:#?}");
    }
}

/// As many dumps as it takes for luck to run out, each complete.
const DUMPS: usize = 100;

#[test]
fn dumps_under_churn_are_complete() {
    let mut target = Target::dev("churn");
    // Attached, so that debug information is read once.
    let attached = Attached::to(&target);
    complete_under_churn(&target.truth, DUMPS, || attached.json("/debug/snapshot"));
    target.must_be_well();
}

/// Each of so many dumps has all tasks by the runtime's own count, each once,
/// and those that stay all the time.
pub fn complete_under_churn(truth: &Value, dumps: usize, mut dump: impl FnMut() -> Value) {
    let parked: Vec<String> = list(&truth["tasks"])
        .iter()
        .filter_map(|role| role["id"].as_str().map(str::to_owned))
        .collect();
    assert!(parked.len() >= 1_000, "thousands stay");
    let mut listed = Vec::new();
    for round in 0..dumps {
        let snapshot = dump();
        let coverage = &snapshot["coverage"];
        assert_eq!(coverage["listed"], coverage["alive"], "dump {round}: {coverage:#}");
        let missing = list(&coverage["missing"]).iter().find(|missing| missing["count"] != 0);
        // Tasks that run at that moment have native stacks, or none.
        let missing = missing.filter(|missing| missing["reason"] != "no_native_stack");
        assert!(missing.is_none(), "dump {round}: {coverage:#}");
        let tasks = list(&snapshot["tasks"]);
        let mut ids: Vec<&str> = tasks.iter().filter_map(|task| task["id"].as_str()).collect();
        assert_eq!(coverage["listed"], ids.len(), "dump {round}");
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(coverage["listed"], ids.len(), "dump {round}: each once");
        let here = |id: &&String| ids.binary_search(&id.as_str()).is_ok();
        assert_eq!(parked.iter().filter(here).count(), parked.len(), "dump {round}");
        listed.push(ids.len() - parked.len());
    }
    // It did churn.
    listed.sort_unstable();
    listed.dedup();
    assert!(listed.len() > 1 || listed[0] > 0, "{listed:?}");
}
