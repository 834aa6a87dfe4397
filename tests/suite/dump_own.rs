//! The same truth from inside: a process that embeds taskprof dumps itself
//! behind every endpoint.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use taskprof::Profiler;
use tokio::runtime::Builder;
use tokio::sync::{Barrier, Mutex};

use super::blocked::blocked_threads;
use super::server::{Answer, Server, tool};
use super::targets::{Made, Target, eventually, run, taskprof_json};
use super::tools::PPROF;
use super::truth::{list, must_agree};

/// `file:line` of the only line of a source file that holds `marker`.
fn place(file: &str, marker: &str) -> (String, u64) {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("source");
    let mut lines = text.lines().zip(1..).filter(|(line, _)| line.contains(marker));
    let line = lines.next().expect("it is there").1;
    assert!(lines.next().is_none(), "{marker} stands once in {file}");
    (file.to_owned(), line)
}

/// Tasks one of whose own frames is at this place.
fn tasks_at<'a>(snapshot: &'a Value, place: &(String, u64)) -> Vec<&'a Value> {
    let here = |frame: &Value| {
        frame["location"]["file"].as_str().is_some_and(|file| file.ends_with(&place.0))
            && frame["location"]["line"] == place.1
    };
    list(&snapshot["tasks"])
        .iter()
        .filter(|task| {
            let branches = list(&task["branches"]).iter().map(|branch| &branch["stack"]);
            branches.chain([&task["stack"]]).any(|stack| list(&stack["frames"]).iter().any(here))
        })
        .collect()
}

fn complete(json: &Value) {
    let coverage = &json["coverage"];
    assert_eq!(coverage["listed"], coverage["alive"], "{coverage:#}");
    let without = coverage["missing"].as_array().expect("a list").iter();
    let chains: Vec<&Value> = without
        // Tasks that run at that moment have native stacks, or none.
        .filter(|missing| missing["reason"] != "no_native_stack")
        .filter(|missing| missing["reason"] != "blocking_pool" && missing["count"] != 0)
        .collect();
    assert!(chains.is_empty(), "{coverage:#}");
}

#[test]
fn handlers_that_wait_for_a_mutex_are_told_who_holds_it() {
    let server = Server::with_faults(&[]);
    let _load = server.load("hold-mutex", &["--streams", "4", "--seconds", "60"]);
    let line = place("src/reference/lab/locks.rs", "guard = mutex.lock() =>");
    let snapshot = server.wait_for("/debug/snapshot", "three that wait", |json| {
        let waiting = list(&json["tasks"]).iter();
        waiting.filter(|task| task["wait"]["kind"] == "mutex").count() == 3
    });
    complete(&snapshot);
    let waiting: Vec<&Value> =
        list(&snapshot["tasks"]).iter().filter(|task| task["wait"]["kind"] == "mutex").collect();
    let resource = &waiting[0]["wait"]["resource"];
    assert!(resource.is_string());
    for task in &waiting {
        let wait = &task["wait"];
        assert_eq!(&wait["resource"], resource, "they wait for one thing");
        assert_eq!(wait["queue"], 3, "{wait:#}");
        assert_eq!(task["method"], "/taskprof.lab.v1.Lab/HoldMutex");
        let holders = list(&wait["holders"]);
        assert_eq!(holders.len(), 1, "{wait:#}");
        assert_eq!(holders[0]["local"], "guard", "{wait:#}");
        let holder = list(&snapshot["tasks"]).iter().find(|it| it["id"] == holders[0]["task"]);
        assert_eq!(holder.expect("listed")["method"], "/taskprof.lab.v1.Lab/HoldMutex");
        // The line of the source is inside `hold_mutex`, at or above the branch.
        let frames = list(&task["stack"]["frames"]);
        let own = frames.iter().find(|frame| {
            frame["function_full"].as_str().is_some_and(|name| name.contains("locks::hold_mutex"))
        });
        assert!(own.is_some(), "{}:{} in {frames:#?}", line.0, line.1);
    }
}

#[test]
fn a_deadlock_of_two_handlers_is_found_with_both_lines() {
    let server = Server::with_faults(&[]);
    let _load = server.load("lock-cycle", &["--seconds", "60"]);
    let report = server.wait_for("/debug/findings", "a deadlock", |json| {
        list(&json["findings"]).iter().any(|finding| finding["kind"] == "deadlock")
    });
    let finding = list(&report["findings"]).iter().find(|it| it["kind"] == "deadlock");
    let finding = finding.expect("just seen");
    let (file, line) = place("src/reference/lab/locks.rs", "second.lock().await");
    assert_eq!(finding["place"], format!("{file}:{line}"), "{finding:#}");
    assert_eq!(list(&finding["edges"]).len(), 2, "{finding:#}");
    for edge in list(&finding["edges"]) {
        assert_eq!(edge["local"], "first_guard", "{edge:#}");
    }
    let text = server.get("/debug/pprof/goroutine?debug=2").text();
    assert!(text.contains("[mutex lock"), "{text}");
    assert!(text.contains(&format!("{file}:{line}")), "{text}");
}

#[test]
fn chains_are_read_while_every_worker_is_blocked() {
    let server = Server::with_faults(&["--workers", "2"]);
    let _silent = server.load("silent-channel", &["--streams", "4", "--seconds", "60"]);
    server.wait_for("/debug/streams", "the silent ones", |json| list(&json["streams"]).len() >= 4);
    // Two would do only by luck: the worker that the first blocks is often the
    // one that would have read the second from its socket, and the other sleeps.
    // Four of three seconds are ready together once the first has ended.
    let four = ["--streams", "4", "--connections", "4", "--seconds", "60"];
    let _blocking = server.load("block-thread", &four);
    server.wait_for("/debug/workers", "both workers blocked", |json| {
        blocked_threads(json, true).len() >= 2
    });
    let snapshot = server.json("/debug/snapshot");
    let (file, line) = place("src/reference/lab/channel.rs", "_ = receiver.recv() =>");
    let silent: Vec<&Value> = list(&snapshot["tasks"])
        .iter()
        .filter(|task| task["method"] == "/taskprof.lab.v1.Lab/WaitOnSilentChannel")
        .collect();
    assert!(silent.len() >= 4, "{file}:{line}: {:#}", snapshot["tasks"]);
    for task in silent {
        let waits = list(&task["branches"]).iter().map(|branch| &branch["wait"]);
        let mut waits = waits.chain([&task["wait"]]);
        assert!(waits.any(|wait| wait["kind"] == "mpsc_recv"), "{task:#}");
    }
}

#[test]
fn dumps_of_itself_under_churn_are_complete() {
    let server = Server::with_faults(&[]);
    let _watch = server.load("watch", &["--streams", "100", "--seconds", "120"]);
    server.wait_for("/debug/streams", "the watchers", |json| {
        json["coverage"]["alive"].as_u64().is_some_and(|alive| alive >= 100)
    });
    let _mix = server.load("mix", &["--seconds", "120"]);
    let _storm = server.load("cancel-storm", &["--seconds", "120"]);
    for _ in 0..100 {
        complete(&server.json("/debug/tasks?group=stack"));
    }
}

/// The heap is not searched for every dump; those between say what that hides.
#[test]
fn a_dump_without_a_search_says_so() {
    let server = Server::with_faults(&[]);
    let hidden = |json: &Value| {
        let missing = list(&json["coverage"]["missing"]).iter();
        let about = |it: &&Value| {
            it["detail"].as_str().is_some_and(|it| it.contains("the heap was last searched"))
        };
        missing.filter(|it| it["reason"] == "no_hook").find(about).cloned()
    };
    // The first has searched, if the debug information was read by then.
    let said =
        server.wait_for("/debug/tasks", "one between two searches", |json| hidden(json).is_some());
    let said = hidden(&said).expect("just seen");
    assert_eq!(said["count"], 0, "nobody knows whether there is any: {said}");
}

/// What the snapshot takes is given back: no child, no descriptor, no stopped
/// thread is left, and nothing was told to the program.
#[test]
fn dumps_leave_nothing_behind() {
    let server = Server::with_faults(&[]);
    server.json("/debug/tasks");
    let of = |what: &str| format!("/proc/{}/{what}", server.pid());
    let descriptors = || fs::read_dir(of("fd")).expect("descriptors").count();
    let before = descriptors();
    for _ in 0..20 {
        complete(&server.json("/debug/tasks"));
    }
    // Another connection may be on its way out.
    eventually("as many descriptors as before", || {
        let now = descriptors();
        (now <= before).then_some(()).ok_or_else(|| format!("{now} of {before}"))
    });
    for thread in fs::read_dir(of("task")).expect("threads") {
        let path = thread.expect("entry").path().join("children");
        let children = fs::read_to_string(path).unwrap_or_default();
        assert_eq!(children.trim(), "", "no child is left");
    }
    let status = fs::read_to_string(of("status")).expect("status");
    for pending in ["SigPnd:", "ShdPnd:"] {
        let mask = status.lines().find_map(|line| line.strip_prefix(pending)).expect("a mask");
        assert_eq!(mask.trim().trim_start_matches('0'), "", "{pending} {mask}");
    }
}

/// tokio tells the hooks where a task was spawned. From outside it is read, with
/// types and without them, and is the same.
#[test]
fn where_tasks_were_spawned_is_read_from_outside_as_the_hooks_have_it() {
    let told_alike = |server: &Server| {
        let _load = server.load("hold-mutex", &["--streams", "4", "--seconds", "60"]);
        let inside = server.wait_for("/debug/snapshot", "the handlers", |json| {
            list(&json["tasks"]).iter().filter(|task| !task["method"].is_null()).count() >= 4
        });
        let pid = server.pid().to_string();
        let outside = taskprof_json(&[&"dump", &"--pid", &pid, &"--format", &"json"]);
        let mut places = BTreeSet::new();
        for task in list(&inside["tasks"]) {
            let Some(file) = task["spawned_at"]["file"].as_str() else { continue };
            let same = list(&outside["tasks"]).iter().find(|it| it["id"] == task["id"]);
            // It may have ended meanwhile.
            let Some(same) = same else { continue };
            assert_eq!(same["spawned_at"], task["spawned_at"], "{task:#}");
            places.insert(format!("{file}:{}", task["spawned_at"]["line"]));
        }
        assert!(places.len() >= 2, "{places:#?}");
        let text = run(env!("CARGO_BIN_EXE_taskprof"), &[&"dump", &"--pid", &pid]);
        let told = |place: &String| text.contains(&format!("created by tokio::spawn\n\t{place}\n"));
        assert!(places.iter().any(told), "{places:#?} in {text}");
    };
    told_alike(&Server::with_faults(&[]));
    let Some(objcopy) = tool(&["objcopy"]) else { return };
    let made = Made::new();
    let symbols = made.path("symbols");
    run(&objcopy, &[&"--strip-debug", &env!("CARGO_BIN_EXE_taskprof"), &symbols]);
    told_alike(&Server::of(&symbols, &["serve", "--faults"], "127.0.0.1:0"));
}

/// The scenes, in a process that embeds taskprof as a user's would.
#[test]
fn scenes_in_a_process_that_embeds_it_agree() {
    use super::embed::{scenes, scenes_without_hooks};
    for program in [scenes(), scenes_without_hooks()] {
        let Some(program) = program else { return };
        for scene in ["waits", "shapes", "deadlock", "futurelock-held"] {
            let mut target = Target::start(&program, scene);
            let snapshot = chains(&target);
            must_agree(&target.truth, &snapshot);
            // Known by its handle, hooks or not: it is not told twice.
            let runtimes = list(&snapshot["runtimes"]);
            assert_eq!(runtimes.len(), 1, "{runtimes:#?}");
            assert_eq!(runtimes[0]["name"], "main");
            let strays = list(&snapshot["tasks"]).iter();
            assert_eq!(strays.filter(|it| it["runtime"] != runtimes[0]["id"]).count(), 0);
            target.must_be_well();
        }
    }
}

pub fn snapshot(target: &Target) -> Value {
    ask(target, "/debug/snapshot")
}

/// Asks a program that embeds taskprof.
fn ask(target: &Target, path: &str) -> Value {
    let address = target.preface[0].rsplit(' ').next().and_then(|it| it.parse().ok());
    let answer = super::server::Answer::to(address.expect("an address"), path);
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// A snapshot with await chains: without optimisation the program reads its
/// debug information for seconds.
pub fn chains(target: &Target) -> Value {
    eventually("await chains", || {
        let snapshot = snapshot(target);
        let missing = list(&snapshot["coverage"]["missing"]).iter();
        let unread = missing.filter(|missing| missing["reason"] == "no_await_chain");
        if unread.count() == 0 { Ok(snapshot) } else { Err("still read".to_owned()) }
    })
}

/// Several runtimes and a `LocalSet`, of which the profiler was told nothing.
#[test]
fn runtimes_and_a_local_set_beside_the_known_one_are_all_told() {
    let Some(program) = super::embed::scenes() else { return };
    let mut target = Target::start(&program, "several");
    let snapshot = chains(&target);
    must_agree(&target.truth, &snapshot);
    // The known one, which has no tasks here, and the four of the scene.
    assert!(list(&snapshot["runtimes"]).len() >= 5, "{:#}", snapshot["runtimes"]);
    target.must_be_well();
}

#[test]
fn every_dump_from_inside_is_complete_under_churn() {
    let Some(program) = super::embed::scenes() else { return };
    let mut target = Target::start(&program, "churn");
    let mut last = chains(&target)["taken_at"].clone();
    super::dump::complete_under_churn(&target.truth, 100, || {
        // One that is kept for the next who asks is no other dump.
        eventually("another dump", || {
            let snapshot = snapshot(&target);
            let again = snapshot["taken_at"] == last;
            last = snapshot["taken_at"].clone();
            if again { Err("the same".to_owned()) } else { Ok(snapshot) }
        })
    });
    target.must_be_well();
}

/// A cancelled call's task, once spawned by tokio alone and once in the scope
/// of the call.
#[test]
fn a_task_that_a_call_leaves_behind_is_told_and_one_of_its_scope_ends() {
    use super::dump_stuck::{expected, found};
    let Some(program) = super::embed::scenes() else { return };
    for scene in ["leaked", "leaked-healthy"] {
        let mut target = Target::start(&program, scene);
        must_agree(&target.truth, &chains(&target));
        // Tidying up for a while is no leak.
        eventually("a call that ended long ago", || {
            let streams = ask(&target, "/debug/streams");
            let mut ended = list(&streams["streams"]).iter().map(|it| &it["ended_ago_ns"]);
            let long_ago = ended.any(|ago| ago.as_u64().is_some_and(|ago| ago > 3_000_000_000));
            if long_ago { Ok(()) } else { Err(format!("{:#}", streams["streams"])) }
        });
        let report = ask(&target, "/debug/findings");
        assert_eq!(found(&report), expected(&target.truth), "{scene}: {:#}", report["findings"]);
        target.must_be_well();
    }
}

/// Calls that are cancelled and leave a task behind, and ones that do not.
#[test]
fn a_task_that_outlives_its_stream_is_told() {
    let of_kind = |report: &Value| {
        let found = list(&report["findings"]).iter().find(|it| it["kind"] == "leaked_task");
        found.cloned()
    };
    let healthy = Server::with_faults(&[]);
    let _cancelled = healthy.load("cancelled-unary", &["--seconds", "60"]);
    let _storm = healthy.load("cancel-storm", &["--seconds", "60"]);
    let server = Server::with_faults(&[]);
    let _load = server.load("leave-task-behind", &["--seconds", "60"]);
    let report = server.wait_for("/debug/findings", "a task left behind", |report| {
        let silent = healthy.json("/debug/findings");
        assert_eq!(of_kind(&silent), None, "{silent:#}");
        of_kind(report).is_some()
    });
    let finding = of_kind(&report).expect("just seen");
    assert_eq!(finding["method"], "/taskprof.lab.v1.Lab/LeaveTaskBehind", "{finding:#}");
    let (file, _) = place("src/reference/lab/cancel.rs", "fn leave_task_behind");
    assert!(finding["place"].as_str().is_some_and(|it| it.starts_with(&file)), "{finding:#}");
    // Those very tasks are alive, and their streams have ended.
    let snapshot = server.json("/debug/snapshot");
    let tasks = list(&finding["tasks"]);
    assert!(!tasks.is_empty());
    for id in tasks {
        let task = list(&snapshot["tasks"]).iter().find(|task| task["id"] == *id);
        let stream = &task.expect("it lives")["stream"];
        let live = list(&snapshot["streams"]).iter().any(|it| it["id"] == *stream);
        assert!(!stream.is_null() && !live, "{task:#?}");
    }
}

/// pprof reads stacks that make sense: the leaf is a wait of tokio, its caller
/// the program's own line.
#[test]
fn pprof_shows_the_await_chains() {
    let Some(pprof) = tool(PPROF) else {
        return;
    };
    let server = Server::with_faults(&[]);
    let _load = server.load("lock-cycle", &["--seconds", "60"]);
    let (_, line) = place("src/reference/lab/locks.rs", "second.lock().await");
    let place = ("src/reference/lab/locks.rs".to_owned(), line);
    server.wait_for("/debug/snapshot", "the cycle", |json| tasks_at(json, &place).len() == 2);
    let url = server.url("/debug/pprof/goroutine");
    let traces = super::targets::run(&pprof, &[&"-traces", &"-lines", &url]);
    assert!(traces.contains(&format!("locks.rs:{line}")), "{traces}");

    // Their handlers give up after a while, so none of them waits for ever.
    let leaks = server.get("/debug/pprof/goroutineleak?debug=1").text();
    assert!(leaks.starts_with("goroutineleak profile: total 0\n"), "{leaks}");
}

/// Takes one lock, waits until the other is taken too, and wants that.
async fn crossed(first: Arc<Mutex<()>>, second: Arc<Mutex<()>>, both: Arc<Barrier>) {
    let _guard = first.lock().await;
    both.wait().await;
    let _never = second.lock().await;
}

async fn of_use() {
    tokio::time::sleep(Duration::from_secs(3600)).await;
}

#[test]
fn tasks_that_wait_for_ever_are_the_leak_profile() {
    let Some(pprof) = tool(PPROF) else {
        return;
    };
    let profiler = Profiler::builder().http("127.0.0.1:0").start().expect("a profiler");
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all();
    let runtime = profiler.runtime(builder).build().expect("a runtime");
    let (one, two) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(())));
    let both = Arc::new(Barrier::new(2));
    for (first, second) in [(&one, &two), (&two, &one)] {
        runtime.spawn(crossed(first.clone(), second.clone(), both.clone()));
    }
    runtime.spawn(of_use());
    let address = profiler.http_addr().expect("an address");
    // Other tests have tasks in this process as well.
    let text = eventually("the two in the leak profile", || {
        let text = Answer::to(address, "/debug/pprof/goroutineleak?debug=1").text();
        if text.contains("crossed") { Ok(text) } else { Err(text) }
    });
    assert!(text.starts_with("goroutineleak profile: total "), "{text}");
    assert!(text.contains("\n2 @"), "two of one stack: {text}");
    assert!(!text.contains("of_use"), "{text}");
    let text = Answer::to(address, "/debug/pprof/goroutineleak?debug=2").text();
    assert!(text.contains("[mutex lock") && text.contains("crossed"), "{text}");
    assert!(!text.contains("of_use"), "{text}");
    let url = format!("http://{address}/debug/pprof/goroutineleak");
    let traces = super::targets::run(&pprof, &[&"-traces", &url]);
    assert!(traces.contains("Type: goroutineleak"), "{traces}");
    assert!(traces.contains("crossed") && !traces.contains("of_use"), "{traces}");
}
