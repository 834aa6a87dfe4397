//! The program as people and scripts use it: output, errors, exit codes, signals.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::targets::NO_CACHE;

/// Only a failing test waits this long.
const DEADLINE: Duration = Duration::from_secs(30);

fn taskprof(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskprof"));
    command.args(args).stdin(Stdio::null()).env_remove("RUST_LOG");
    command.env(NO_CACHE.0, NO_CACHE.1);
    command
}

fn run(args: &[&str]) -> Output {
    taskprof(args).output().expect("taskprof starts")
}

/// It fails with that code and one line on stderr, which is returned.
fn fails(args: &[&str], code: i32) -> String {
    let output = run(args);
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
    assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
    assert!(error.starts_with("taskprof: "), "{args:?}: {error}");
    error
}

fn succeeds(args: &[&str]) -> String {
    let output = run(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A server on free ports, killed when the test ends without having stopped it.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    grpc: String,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let mut child = taskprof(args)
            .args(["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--console", "off"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("taskprof starts");
        let mut out = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        out.read_line(&mut line).expect("its first line");
        let grpc = line.trim().strip_prefix("grpc    listening on ").expect("the gRPC address");
        Self { grpc: grpc.to_owned(), child, out }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(status.expect("kill").success());
    }

    /// Its exit code, the rest of its stdout, and its stderr.
    fn ended(mut self) -> (Option<i32>, String, String) {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                break status;
            }
            assert!(began.elapsed() < DEADLINE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        let (mut out, mut error) = (String::new(), String::new());
        self.out.read_to_string(&mut out).expect("UTF-8");
        let mut stderr = self.child.stderr.take().expect("its errors");
        stderr.read_to_string(&mut error).expect("UTF-8");
        (status.code(), out, error)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn help_is_help_and_names_what_is_there() {
    let help = succeeds(&["--help"]);
    let list = help.split("Commands:").nth(1).expect("a list of commands");
    let listed = list.lines().skip(1).take_while(|line| line.starts_with("  "));
    // What lies deeper goes on with the line above.
    let named =
        listed.filter_map(|line| line[2..].split(' ').next()).filter(|name| !name.is_empty());
    let commands: Vec<&str> = named.filter(|name| *name != "help").collect();
    assert!(commands.len() >= 7 && commands.contains(&"demo"), "{help}");
    for command in commands {
        assert!(help.contains(&format!("  {command} ")), "{help}");
        let help = succeeds(&[command, "--help"]);
        assert!(help.contains("Examples:"), "{help}");
        assert!(!help.contains('\x1b'), "no colours in a pipe: {help}");
    }
    assert!(succeeds(&["serve", "--help"]).contains("54 KB"), "the cost of --console full");
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    for (args, says) in [
        (&[][..], "--help"),
        (&["serve", "--grcp", "x"], "--grpc"),
        (&["serve", "--grpc", "nowhere"], "IP:PORT"),
        (&["serve", "--console", "loud"], "`off` or `full`"),
        (&["serve", "--blocked-threshold", "5"], "with its unit"),
        (&["serve", "--workers", "0"], "--workers"),
        (&["demo", "--seconds", "0"], "--seconds"),
        (&["load", "--scenario", "pingpong"], "did you mean ping-pong"),
        (&["load", "--scenario", "zzzzzzzzzzzzzzzzzz"], "--scenario list"),
        (&["dump", "--url", "https://127.0.0.1:1"], "http only"),
        (&["dump"], "--url"),
        (&["dmup"], "dump"),
    ] {
        let error = fails(args, 2);
        assert!(error.contains(says), "{args:?}: {error}");
    }
}

#[test]
fn what_others_could_reach_is_refused_with_advice_that_helps() {
    let free = ["serve", "--grpc", "127.0.0.1:0"];
    let with = |more: &[&'static str]| [&free[..], more].concat();
    let error = fails(&with(&["--http", "0.0.0.0:0", "--console", "off"]), 2);
    assert!(error.contains("other machines") && error.contains("--token-file"), "{error}");
    let error = fails(&with(&["--http", "127.0.0.1:0", "--console", "0.0.0.0:0"]), 2);
    assert!(error.contains("loopback") && !error.contains("--token-file"), "{error}");
    let error = fails(&["load", "--scenario", "unary", "--http", "0.0.0.0:0"], 2);
    assert!(error.contains("--unix") && !error.contains("token-file"), "{error}");
    let error = fails(&with(&["--http", "127.0.0.1:0", "--token-file", "/nonexistent"]), 1);
    assert!(error.contains("/nonexistent"), "{error}");
}

#[cfg(not(feature = "console-full"))]
#[test]
fn the_full_console_says_how_to_build_it() {
    let error = fails(&["serve", "--console", "full"], 2);
    assert!(error.contains("--features console-full"), "{error}");
}

#[test]
fn a_port_in_use_is_one_line_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    for command in ["serve", "demo"] {
        for option in ["--grpc", "--http", "--console"] {
            let mut args = vec![command];
            for other in ["--grpc", "--http", "--console"] {
                args.extend([other, if other == option { &*address } else { "127.0.0.1:0" }]);
            }
            let error = fails(&args, 1);
            assert!(error.contains(&address) && error.contains(option), "{args:?}: {error}");
        }
    }
}

#[test]
fn a_unix_socket_in_use_is_one_line_and_exit_code_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("debug.sock");
    let _taken = UnixListener::bind(&path).expect("a socket");
    let path = path.to_str().expect("a path");
    let free = ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--console", "127.0.0.1:0"];
    for args in [&[&["serve", "--unix", path], &free[..]].concat()[..], &["load", "--unix", path]] {
        let error = fails(args, 1);
        assert!(error.contains(path) && error.contains("--unix PATH"), "{args:?}: {error}");
        assert!(!error.contains("--console") && !error.contains("--http"), "{args:?}: {error}");
    }
}

#[test]
fn nobody_there_is_one_line_and_exit_code_1() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("its address").to_string();
    drop(free);
    let error = fails(&["load", "--grpc", &address, "--seconds", "1"], 1);
    assert!(error.contains("cannot connect") && error.contains(&address), "{error}");
    let error = fails(&["dump", "--url", &address], 1);
    assert!(error.contains("cannot fetch") && error.contains(&address), "{error}");
    let error = fails(&["dump", "--url", &address, "--token-file", "/nonexistent"], 1);
    assert!(error.contains("/nonexistent"), "{error}");
}

#[test]
fn scenarios_are_listed_and_a_closed_pipe_is_no_panic() {
    let list = succeeds(&["load", "--scenario", "list"]);
    assert!(list.lines().count() >= 15, "{list}");
    assert!(list.contains("ping-pong"), "{list}");

    let mut child = taskprof(&["load", "--scenario", "list"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("taskprof starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn load_runs_every_healthy_scenario_and_sums_up() {
    let server = Running::start(&["serve"]);
    for scenario in ["mix", "unary", "ping-pong", "server-stream", "client-stream", "watch"] {
        let out = succeeds(&[
            "load",
            "--scenario",
            scenario,
            "--grpc",
            &server.grpc,
            "--seconds",
            "1",
            "--connections",
            "2",
        ]);
        assert!(out.contains(" 0 failed"), "{out}");
        assert!(out.contains("messages  "), "{out}");
        assert!(!out.contains(" 0 complete"), "{out}");
    }
    server.signal("INT");
    let (code, _, error) = server.ended();
    assert_eq!((code, &*error), (Some(0), ""));
}

#[test]
fn load_runs_every_stuck_client() {
    let server = Running::start(&["serve"]);
    for scenario in ["unread-stream", "silent-upload", "cancel-storm", "instant-resets"] {
        let args = ["load", "--scenario", scenario, "--grpc", &server.grpc, "--seconds", "1"];
        let out = succeeds(&args);
        assert!(out.contains(" 0 failed") && !out.contains(" 0 abandoned"), "{out}");
    }
    let args = ["load", "--scenario", "instant-resets", "--grpc", &server.grpc, "--seconds", "1"];
    // What it receives are GOAWAYs: the server defends itself.
    assert!(!succeeds(&args).contains(" 0 received"));
}

#[test]
fn load_of_faults_needs_a_server_with_faults() {
    let server = Running::start(&["serve"]);
    let args = ["load", "--scenario", "block-thread", "--grpc", &server.grpc, "--seconds", "1"];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("--faults") && error.lines().count() == 1, "{error}");
}

#[test]
fn signals_end_it_cleanly_even_in_the_middle_of_trouble() {
    for signal in ["INT", "TERM"] {
        let server = Running::start(&["serve", "--faults", "--workers", "2"]);
        let args = ["load", "--scenario", "block-thread", "--streams", "4", "--grpc", &server.grpc];
        let mut load = taskprof(&args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("load starts");
        std::thread::sleep(Duration::from_millis(500)); // all workers are blocked by now
        let began = Instant::now();
        server.signal(signal);
        let (code, _, error) = server.ended();
        assert_eq!((code, &*error), (Some(0), ""), "{signal}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        load.kill().expect("kill");
        load.wait().expect("wait");
    }
}

#[test]
fn the_demo_says_what_to_do_and_ends_by_itself() {
    let demo = Running::start(&["demo", "--seconds", "3"]);
    let (code, out, error) = demo.ended();
    assert_eq!((code, &*error), (Some(0), ""), "{out}");
    assert!(out.contains("taskprof load --scenario list"), "{out}");
    assert!(out.contains("Ctrl-C ends it."), "{out}");
    for line in ["dashboard", "curl -s http://127.0.0.1:", "go tool pprof -top http://127.0.0.1:"] {
        assert!(out.contains(line), "no {line}: {out}");
    }
}

#[test]
fn ctrl_c_ends_the_demo() {
    let mut demo = Running::start(&["demo"]);
    // Once it says how to end it, it is all there.
    let mut said = String::new();
    while !said.contains("Ctrl-C ends it.") {
        assert_ne!(demo.out.read_line(&mut said).expect("its output"), 0, "{said}");
    }
    let began = Instant::now();
    demo.signal("INT");
    let (code, out, error) = demo.ended();
    assert_eq!((code, &*error), (Some(0), ""), "{out}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
