//! What a dump finds wrong, and does not find wrong with a healthy twin.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::targets::{Attached, Build, Target, dump, eventually, findings, marks};
use super::truth::{list, must_agree};

/// Findings that rest on await chains.
const KINDS: &[&str] = &[
    "deadlock",
    "futurelock",
    "lock_convoy",
    "stuck_channel",
    "unwakeable",
    "leaked_task",
    "growing_group",
];

/// Kind and concerned tasks of each finding, sorted.
pub fn found(report: &Value) -> Vec<(String, Vec<String>)> {
    let all = list(&report["findings"]).iter();
    let ours = all.filter(|finding| KINDS.iter().any(|kind| finding["kind"] == *kind));
    let mut found: Vec<_> = ours
        .map(|finding| {
            let ids = list(&finding["tasks"]).iter().filter_map(Value::as_str);
            let mut ids: Vec<String> = ids.map(str::to_owned).collect();
            ids.sort_unstable();
            (finding["kind"].as_str().unwrap_or_default().to_owned(), ids)
        })
        .collect();
    found.sort_unstable();
    found
}

/// The same as the program says it must be.
pub fn expected(truth: &Value) -> Vec<(String, Vec<String>)> {
    let id = |name: &Value| {
        let role = list(&truth["tasks"]).iter().find(|role| role["name"] == *name);
        role.and_then(|role| role["id"].as_str()).expect("a role").to_owned()
    };
    let mut expected: Vec<_> = list(&truth["findings"])
        .iter()
        .map(|finding| {
            let mut ids: Vec<String> = list(&finding["tasks"]).iter().map(id).collect();
            ids.sort_unstable();
            (finding["kind"].as_str().expect("a kind").to_owned(), ids)
        })
        .collect();
    expected.sort_unstable();
    expected
}

/// The scene and its healthy twin: chains, holders and findings of both.
fn with_twin(scene: &str) {
    told(scene);
    told(&format!("{scene}-healthy"));
}

fn told(scene: &str) {
    told_by(&Build::Dev.program(), scene);
}

/// Chains, holders and findings of a scene.
pub fn told_by(program: &Path, scene: &str) {
    let mut target = Target::start(program, scene);
    if list(&target.truth["tasks"]).iter().all(|role| !role["state"].is_null()) {
        must_agree(&target.truth, &dump(&target, &[]));
    }
    let report = findings(&target);
    assert_eq!(found(&report), expected(&target.truth), "{scene}: {:#}", report["findings"]);
    for finding in list(&report["findings"]) {
        assert!(!list(&finding["evidence"]).is_empty(), "{scene}: {finding:#}");
    }
    target.must_be_well();
}

#[test]
fn a_deadlock_of_two() {
    with_twin("deadlock");
}

#[test]
fn a_deadlock_of_three() {
    with_twin("deadlock-three");
}

#[test]
fn a_task_that_locks_twice() {
    with_twin("deadlock-self");
}

#[test]
fn a_deadlock_through_two_kinds_of_lock() {
    with_twin("deadlock-mixed");
}

#[test]
fn a_deadlock_of_readers_with_a_writer_between_them() {
    with_twin("deadlock-readers");
}

/// Should that writer leave, the readers go on: it is told, and not as proven.
#[test]
fn readers_behind_a_writer_that_may_leave_prove_nothing() {
    let mut target = Target::dev("deadlock-readers-timed");
    must_agree(&target.truth, &dump(&target, &[]));
    let attached = Attached::to(&target);
    let finding = eventually("a deadlock", || {
        let report = attached.json("/debug/findings");
        let deadlock = list(&report["findings"]).iter().find(|it| it["kind"] == "deadlock");
        deadlock.cloned().ok_or_else(|| report["checked"].to_string())
    });
    assert_eq!(finding["confidence"], "likely", "{finding:#}");
    assert_eq!(finding["severity"], "warning", "{finding:#}");
    target.must_be_well();
}

#[test]
fn cells_that_are_initialised_from_each_other() {
    with_twin("deadlock-cells");
    told("deadlock-cell-self");
}

#[test]
fn a_guard_that_was_dropped_makes_no_deadlock() {
    told("stale-healthy");
}

/// The same where the lock is with a thread: no other holder is seen, so the
/// guard is told, and said to be in doubt. A circle through it is not proven.
#[test]
fn a_guard_that_was_dropped_proves_nothing() {
    let mut target = Target::dev("stale-unseen");
    let report = findings(&target);
    assert_eq!(found(&report), expected(&target.truth), "{:#}", report["findings"]);
    let snapshot = dump(&target, &[]);
    let held: Vec<(&Value, &Value)> = list(&snapshot["tasks"])
        .iter()
        .flat_map(|task| list(&task["holds"]))
        .map(|held| (&held["local"], &held["perhaps_dropped"]))
        .collect();
    assert!(held.contains(&(&"outer".into(), &false.into())), "{held:?}");
    assert!(held.contains(&(&"guard".into(), &true.into())), "{held:?}");
    target.must_be_well();
}

#[test]
fn a_futurelock_in_the_queue() {
    with_twin("futurelock");
}

#[test]
fn a_futurelock_that_holds() {
    with_twin("futurelock-held");
}

/// Through a permit, so it is told once it has lasted.
#[test]
fn a_futurelock_in_a_stream() {
    with_twin_over_time("futurelock-stream", Duration::from_secs(3), 10);
}

#[test]
fn a_channel_whose_ends_wait_for_each_other() {
    with_twin("channel");
}

#[test]
fn a_receiver_with_the_only_sender_in_its_own_hands() {
    with_twin("channel-own");
}

#[test]
fn a_task_that_nothing_can_wake() {
    with_twin("unwakeable");
}

/// Of every kind of channel: who waits for it is told with it.
#[test]
fn a_task_that_nothing_can_wake_with_the_senders_of_others() {
    with_twin("ends-lost");
}

/// One clone or weak sender that no local shows may still send.
#[test]
fn receivers_whose_senders_are_not_all_seen_are_left_alone() {
    told("ends-shared");
}

#[test]
fn a_deadlock_through_a_watch_and_a_broadcast() {
    with_twin("ends-circle");
}

#[test]
fn a_channel_without_a_bound_that_nobody_empties() {
    with_twin_over_time("piled-up", Duration::from_secs(3), 10);
}

/// Whose join handle is kept may be meant to stay: no warning.
#[test]
fn a_task_that_only_an_abort_can_end_is_no_trouble() {
    let mut target = Target::dev("unwakeable-kept");
    let report = findings(&target);
    assert_eq!(found(&report), expected(&target.truth), "{:#}", report["findings"]);
    let of_kind = |kind: &str| list(&report["findings"]).iter().find(|it| it["kind"] == *kind);
    let finding = of_kind("unwakeable").expect("told");
    assert_eq!(finding["severity"], "info", "{finding:#}");
    target.must_be_well();
}

/// What takes time to show: looked at again and again while attached, the
/// scene is found, and its twin, looked at for as long, is not.
fn with_twin_over_time(scene: &str, every: Duration, looks: u32) {
    let mut target = Target::dev(scene);
    let mut twin = Target::dev(&format!("{scene}-healthy"));
    let (attached, twin_attached) = (Attached::to(&target), Attached::to(&twin));
    let expected = expected(&target.truth);
    let mut kinds = Vec::new();
    for look in 0..looks {
        let report = twin_attached.json("/debug/findings");
        assert_eq!(found(&report), [], "{scene}, look {look}: {:#}", report["findings"]);
        let report = attached.json("/debug/findings");
        let found = found(&report);
        kinds = found.iter().map(|(kind, _)| kind.clone()).collect();
        if found == expected {
            break;
        }
        assert!(found.is_empty(), "{scene}, look {look}: {:#}", report["findings"]);
        std::thread::sleep(every);
    }
    let wanted: Vec<String> = expected.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, wanted, "{scene}");
    target.must_be_well();
    twin.must_be_well();
}

#[test]
fn a_lock_convoy() {
    with_twin_over_time("convoy", Duration::from_millis(400), 30);
}

/// Tasks that go round through one lock, each of which has it for seconds: who
/// holds it and who is last in the queue changes between looks, and yet most
/// are seen to have stood in it all along.
#[test]
fn a_lock_convoy_that_moves_slowly() {
    let mut target = Target::dev("rotation-slow");
    let attached = Attached::to(&target);
    let id = |role: &Value| role["id"].clone();
    let crowd: Vec<Value> = list(&target.truth["tasks"]).iter().map(id).collect();
    let finding = eventually("a convoy", || {
        let report = attached.json("/debug/findings");
        let ours = found(&report);
        assert!(ours.iter().all(|(kind, _)| kind == "lock_convoy"), "{:#}", report["findings"]);
        let convoy = list(&report["findings"]).iter().find(|it| it["kind"] == "lock_convoy");
        convoy.cloned().ok_or_else(|| report["checked"].to_string())
    });
    // What looks alone bear out is not proven.
    assert_eq!(finding["confidence"], "likely", "{finding:#}");
    let named = list(&finding["tasks"]);
    assert!(named.len() > 8 && named.iter().all(|id| crowd.contains(id)), "{finding:#}");
    let since_ns = finding["since_ns"].as_u64().expect("a time");
    assert!(since_ns >= 1_000_000_000, "{finding:#}");
    let [edge] = list(&finding["edges"]) else { panic!("who holds it: {finding:#}") };
    assert_eq!((&edge["holder"], edge["local"].as_str()), (&named[0], Some("guard")));
    let mark = &marks()["takes_turns"];
    assert_eq!(edge["held_at"]["line"], mark.line, "{edge:#}");
    target.must_be_well();
}

/// Tasks that go round through one lock, and a busy channel: each waits at
/// nearly every look, and never for long.
#[test]
fn brisk_traffic_is_no_trouble() {
    let mut target = Target::dev("brisk");
    let report = findings(&target);
    for kind in ["blocked_worker", "process_paused", "busy_task", "lock_convoy"] {
        let check = list(&report["checked"]).iter().find(|check| check["kind"] == kind);
        // One look from outside cannot tell.
        assert!(check.expect("listed")["unavailable"].is_string(), "{:#}", report["checked"]);
    }
    let attached = Attached::to(&target);
    for look in 0..15 {
        let report = attached.json("/debug/findings");
        assert_eq!(found(&report), [], "look {look}: {:#}", report["findings"]);
        std::thread::sleep(Duration::from_millis(300));
    }
    target.must_be_well();
}

#[test]
fn a_deadlock_through_permits() {
    with_twin_over_time("deadlock-permits", Duration::from_secs(3), 10);
}

#[test]
fn a_full_channel_whose_receiver_waits_for_something_else() {
    with_twin_over_time("channel-idle", Duration::from_secs(3), 10);
}

/// Told with as many tasks as there are, of those that there are, at the line
/// where they wait; tasks that come and go in as large numbers are not.
#[test]
fn a_group_that_only_grows() {
    let mut target = Target::dev("growing");
    let mut twin = Target::dev("growing-healthy");
    let (attached, twin_attached) = (Attached::to(&target), Attached::to(&twin));
    let wanted = expected(&target.truth);
    let mut told = None;
    for look in 0..10 {
        let report = twin_attached.json("/debug/findings");
        assert_eq!(found(&report), [], "look {look}: {:#}", report["findings"]);
        let report = attached.json("/debug/findings");
        let growing = list(&report["findings"]).iter().find(|it| it["kind"] == "growing_group");
        if let Some(finding) = growing {
            let kinds = found(&report).into_iter().map(|(kind, _)| kind);
            assert!(kinds.eq(wanted.iter().map(|(kind, _)| kind.clone())), "{report:#}");
            told = Some(finding.clone());
            break;
        }
        assert!(found(&report).is_empty(), "look {look}: {:#}", report["findings"]);
        target.ask("more");
        twin.ask("more");
        std::thread::sleep(Duration::from_millis(10_100));
    }
    let finding = told.expect("it is told");
    let grown = target.grown();
    assert_eq!(finding["count"], grown.len(), "{finding:#}");
    let named = list(&finding["tasks"]);
    assert!(!named.is_empty(), "{finding:#}");
    for id in named.iter().map(|id| id.as_str().unwrap_or_default()) {
        assert!(grown.iter().any(|other| other == id), "{id} in {finding:#}");
    }
    let mark = &marks()["left_behind"];
    let place = finding["place"].as_str().unwrap_or_default();
    assert!(place.ends_with(&format!("{}:{}", mark.file, mark.line)), "{finding:#}");
    target.must_be_well();
    twin.must_be_well();
}

/// A circle is proven, names each edge with both places, and comes first in
/// the text that people read.
#[test]
fn a_deadlock_is_proven_edge_by_edge() {
    let target = Target::dev("deadlock");
    let report = findings(&target);
    let finding = list(&report["findings"]).iter().find(|it| it["kind"] == "deadlock");
    let finding = finding.expect("found");
    assert_eq!(finding["confidence"], "proven", "{finding:#}");
    let edges = list(&finding["edges"]);
    assert_eq!(edges.len(), 2, "{finding:#}");
    for edge in edges {
        assert_eq!(edge["local"], "outer", "{edge:#}");
        assert!(edge["at"]["line"].is_u64() && edge["held_at"]["line"].is_u64(), "{edge:#}");
        assert_ne!(edge["waits"], edge["holder"], "{edge:#}");
    }
    let pid = target.pid().to_string();
    let text = super::targets::run(
        env!("CARGO_BIN_EXE_taskprof"),
        &[&"dump", &"--pid", &pid, &"--format", &"text"],
    );
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} in {text}"));
    let title = finding["title"].as_str().expect("a title").split(" for ").next();
    assert!(at(title.expect("words")) < at("[mutex lock"), "{text}");
}
