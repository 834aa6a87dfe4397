//! `taskprof lab`: what each side says of every way to be stuck is true.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::server::indexed;

/// Only a failing test waits this long.
const DEADLINE: Duration = Duration::from_secs(30);

/// Cases left to the whole board: they take ten seconds each.
const SLOW: &[&str] = &["never-answer", "starved-upload", "exhaust-memory"];

fn lab(args: &[&str]) -> Command {
    let mut command = Command::new(indexed());
    command.arg("lab").args(args).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

fn run(args: &[&str]) -> Output {
    lab(args).output().expect("taskprof starts")
}

fn names() -> Vec<String> {
    let list = run(&["--case", "list"]);
    assert_eq!(list.status.code(), Some(0));
    let list = String::from_utf8(list.stdout).expect("UTF-8");
    let first = |line: &str| line.split_whitespace().next().expect("a name").to_owned();
    list.lines().filter(|line| !line.starts_with(' ')).map(first).collect()
}

#[test]
fn every_case_is_told_right_from_both_sides() {
    let names = names();
    assert!(names.len() >= 30, "{names:?}");
    let cheap = names.iter().filter(|name| !SLOW.contains(&name.as_str()));
    let mut args = vec!["--format", "json", "--jobs", "2", "--patience", "4"];
    args.extend(cheap.clone().flat_map(|name| ["--case", name]));
    let output = run(&args);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let cases = json["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), cheap.count());
    let wrong: Vec<&Value> = cases.iter().filter(|case| case["right"] != true).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for case in cases.iter().filter(|case| case.get("skipped").is_none()) {
        let said = [&case["server"]["said"], &case["client"]["said"]];
        assert!(said.iter().all(|said| said.is_string()), "{case:#}");
    }
}

#[test]
fn healthy_traffic_raises_no_alarm() {
    // A minute is for those who have it: `taskprof lab --healthy`.
    let output = run(&["--healthy", "20", "--format", "json"]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["alarms"], Value::Array(Vec::new()), "{json:#}");
    assert!(json["verdicts"].as_u64().expect("a count") > 1_000, "{json:#}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn what_makes_no_sense_is_refused() {
    for args in [&["--case", "unread"][..], &["--healthy", "0"], &["--format", "xml"]] {
        let output = run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

/// The processes that a process has started.
fn children(of: &Child) -> Vec<String> {
    let list = fs::read_to_string(format!("/proc/{0}/task/{0}/children", of.id()));
    list.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

fn soon(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < DEADLINE, "{what} never comes");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    // A frozen server ends as well; KILL leaves no time to tidy up.
    for signal in ["INT", "KILL"] {
        let mut lab = lab(&["--case", "frozen-server"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("taskprof starts");
        let mut started = Vec::new();
        let frozen = |pid: &String| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.contains(") T ")
        };
        soon("a frozen server", || {
            started = children(&lab);
            started.iter().any(frozen)
        });
        let folder = std::env::temp_dir().join(format!("taskprof-lab-{}", lab.id()));
        assert!(started.len() == 2 && folder.exists(), "{started:?}");
        let pid = lab.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        assert!(sent.expect("kill").success());
        let status = lab.wait().expect("it ends");
        let gone = |pid: &String| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        soon("the end of what it started", || started.iter().all(gone));
        if signal == "INT" {
            assert_eq!(status.code(), Some(1));
            assert!(!Path::new(&folder).exists());
        } else {
            fs::remove_dir_all(&folder).expect("its folder");
        }
    }
}
