//! `taskprof diff` of snapshots of real servers.

use std::path::Path;

use serde_json::Value;

use super::server::Server;
use super::targets::{Made, run, taskprof, taskprof_json};

const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Saves a snapshot with so many streams of one method, and a task for each.
/// One that was taken lately is given again, so that it may take a moment.
fn saved(server: &Server, streams: usize, file: &Path) {
    let snapshot = server.wait_for("/debug/snapshot", "streams with their tasks", |json| {
        ["streams", "tasks"].iter().all(|of| {
            let all = json[of].as_array().expect("a list").iter();
            all.filter(|one| one["method"] == WATCH).count() == streams
        })
    });
    std::fs::write(file, snapshot.to_string()).expect("a file");
}

/// The change of a method's groups, all together.
fn change(diff: &Value, of: &str) -> i64 {
    let groups = diff[of]["groups"].as_array().expect("groups").iter();
    let watch = groups.filter(|one| one["group"]["method"] == WATCH);
    watch.map(|one| one["change"].as_i64().expect("a number")).sum()
}

#[test]
fn what_grew_and_what_is_gone_between_two_snapshots() {
    let made = Made::new();
    let [none, some, more] = ["none.json", "some.json", "more.json"].map(|name| made.path(name));
    let server = Server::with_faults(&[]);
    saved(&server, 0, &none);
    let first = server.load("health-watch", &["--streams", "20", "--seconds", "60"]);
    saved(&server, 20, &some);
    let _second = server.load("health-watch", &["--streams", "10", "--seconds", "60"]);
    saved(&server, 30, &more);

    // Each stream is served by a task of its own.
    let grown = taskprof_json(&[&"diff", &"--format", &"json", &some, &more]);
    assert_eq!((change(&grown, "streams"), change(&grown, "tasks")), (10, 10), "{grown:#}");
    assert_eq!(grown["same_process"], true);
    assert_eq!((&grown["streams"]["came"], &grown["streams"]["went"]), (&10.into(), &0.into()));
    assert_eq!(grown["connections"]["after"], 2, "{grown:#}");
    assert!(grown["apart_ns"].as_i64().is_some_and(|ns| ns > 0), "{grown:#}");
    let text = run(env!("CARGO_BIN_EXE_taskprof"), &[&"diff", &none, &some]);
    let line =
        |words: &[&str]| text.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(line(&["+20 new", "server", WATCH]), "{text}");
    assert!(line(&["Streams: 0 to 20 (+20), 20 came, 0 went"]), "{text}");

    // The server itself as the second, after the first client has gone.
    drop(first);
    saved(&server, 10, &made.path("less.json"));
    let url = server.url("");
    let less = taskprof_json(&[&"diff", &"--format", &"json", &more, &url]);
    assert_eq!((change(&less, "streams"), change(&less, "tasks")), (-20, -20), "{less:#}");
    let limited = taskprof_json(&[&"diff", &"--format", &"json", &"--limit", &"1", &none, &more]);
    let tasks = &limited["tasks"];
    assert_eq!(tasks["groups"].as_array().map(Vec::len), Some(1), "{tasks:#}");
    assert!(tasks["changed"].as_u64().is_some_and(|changed| changed > 1), "{tasks:#}");

    // Another process is compared by places, and said to be another.
    let other = Server::with_faults(&[]);
    let text = run(env!("CARGO_BIN_EXE_taskprof"), &[&"diff", &some, &other.url("")]);
    assert!(text.contains("another process") && text.contains("-20 gone"), "{text}");
}

#[test]
fn what_is_no_snapshot_is_one_line_and_exit_code_1() {
    let made = Made::new();
    let (text, cut) = (made.path("goroutine.txt"), made.path("cut.json"));
    let server = Server::with_faults(&[]);
    std::fs::write(&text, server.get("/debug/pprof/goroutine?debug=2").body).expect("a file");
    let whole = server.get("/debug/snapshot").body;
    std::fs::write(&cut, &whole[..whole.len() / 2]).expect("a file");
    let findings = made.path("findings.json");
    std::fs::write(&findings, server.get("/debug/findings").body).expect("a file");
    for (file, says) in [
        (&text, "/debug/snapshot"),
        (&cut, "not complete"),
        (&findings, "/debug/snapshot"),
        (&made.path("none"), "No such file"),
    ] {
        let output = taskprof(&[&"diff", file, &cut]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(says) && said.contains(file.to_str().expect("a path")), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
