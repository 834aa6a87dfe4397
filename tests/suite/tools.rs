//! What other people's programs read of what we serve.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use taskprof::Profiler;
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use super::reference::{By, start_watched};
use super::server::{Answer, Server, tool};

pub const PPROF: &[&str] = &["pprof", "/usr/lib/go-1.19/pkg/tool/linux_amd64/pprof"];

fn run(program: &Path, args: &[&str]) -> String {
    // pprof keeps what it fetches, by default at home.
    let kept = env!("CARGO_TARGET_TMPDIR");
    let command = Command::new(program).args(args).env("PPROF_TMPDIR", kept).output();
    let output = command.expect("it starts");
    text_of(program, args, &output)
}

fn text_of(program: &Path, args: &[&str], output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {args:?}: {error}\n{out}", program.display());
    out
}

#[test]
fn pprof_reads_the_goroutine_profile_by_url_and_by_file() {
    let Some(pprof) = tool(PPROF) else { return };
    let server = Server::with_faults(&[]);
    let _load = server.load("watch", &["--streams", "20", "--seconds", "60"]);
    server.wait_for("/debug/streams?limit=100", "20 streams", |json| {
        json["streams"].as_array().is_some_and(|streams| streams.len() >= 20)
    });

    let folder = tempfile::tempdir().expect("folder");
    let file = saved_goroutines(&server, folder.path(), "goroutine.pb.gz");
    for source in [&server.url("/debug/pprof/goroutine"), &file] {
        let read = |way: &[&str]| {
            run(&pprof, &[way, &["-sample_index=goroutine", source.as_str()]].concat())
        };
        let top = read(&["-top", "-nodecount=500"]);
        assert!(top.contains("Type: goroutine"), "{top}");
        assert!(top.contains("spawned at"), "{top}");
        assert!(top.contains(" as core::future::future::Future>::poll"), "names survive: {top}");
        let traces = read(&["-traces"]);
        assert!(traces.contains(".rs:"), "places survive: {traces}");
        let tags = read(&["-tags"]);
        for tag in ["state", "grpc.method", "task.spawned_at"] {
            assert!(tags.contains(tag), "{tag} in {tags}");
        }
        assert!(tags.contains("/grpc."), "methods are label values: {tags}");
    }
    run(&pprof, &["-raw", &file]);
}

fn saved_goroutines(server: &Server, folder: &Path, name: &str) -> String {
    let file = folder.join(name);
    std::fs::write(&file, server.get("/debug/pprof/goroutine").body).expect("file");
    file.to_str().expect("path").to_owned()
}

#[test]
fn pprof_tells_what_came_between_two_profiles() {
    let Some(pprof) = tool(PPROF) else { return };
    let server = Server::with_faults(&[]);
    let waiting = |count: u64| {
        server.wait_for(
            "/debug/tasks?group=stack&filter=state:idle",
            &format!("{count} idle streams"),
            |json| {
                let of_watch = |group: &&serde_json::Value| {
                    group["method"].as_str().is_some_and(|method| method.ends_with("/Watch"))
                };
                let groups = json["groups"].as_array().into_iter().flatten().filter(of_watch);
                groups.filter_map(|group| group["count"].as_u64()).sum::<u64>() == count
            },
        );
    };
    let _first = server.load("health-watch", &["--streams", "20", "--seconds", "60"]);
    waiting(20);
    let folder = tempfile::tempdir().expect("folder");
    let before = saved_goroutines(&server, folder.path(), "before.pb.gz");
    let _second = server.load("health-watch", &["--streams", "10", "--seconds", "60"]);
    waiting(30);
    let after = saved_goroutines(&server, folder.path(), "after.pb.gz");
    let way = ["-top", "-nodecount=500", "-sample_index=goroutine", "-diff_base"];
    let top = run(&pprof, &[&way[..], &[&before, &after]].concat());
    // flat, flat%, sum%, cum, cum%, name
    let rows = top.lines().skip_while(|line| !line.contains("flat%")).skip(1);
    let came: Vec<(i64, String)> = rows
        .filter_map(|row| {
            let mut words = row.split_whitespace();
            let flat = words.next()?.parse().ok().filter(|&flat| flat != 0)?;
            Some((flat, words.skip(4).collect::<Vec<_>>().join(" ")))
        })
        .collect();
    let is_stream = |name: &str| name.starts_with("<tokio::sync::notify::Notified as ");
    let (streams, others): (Vec<_>, Vec<_>) = came.iter().partition(|(_, name)| is_stream(name));
    assert!(matches!(streams[..], [(10, _)]), "{top}");
    // The second load's connection, and what may come with it; no tasks that
    // both profiles have.
    assert!(others.iter().all(|(flat, _)| flat.abs() <= 2), "{top}");

    let none = run(&pprof, &[&way[..], &[&after, &after]].concat());
    assert!(none.contains("Showing nodes accounting for 0,"), "{none}");
}

#[test]
fn pprof_reads_a_cpu_profile_and_rust_names_survive() {
    let Some(pprof) = tool(PPROF) else { return };
    let server = Server::with_faults(&["--workers", "2"]);
    // Busy all along: the first look at a worker's stack reads symbols, which
    // takes a build without optimisation longer than a shorter fault lasts.
    let busy = ["--streams", "1", "--seconds", "60", "--hold", "60s"];
    let _load = server.load("busy-loop", &busy);
    server.wait_for("/debug/workers", "a busy worker", |json| {
        json["workers"].as_array().is_some_and(|workers| {
            workers.iter().any(|worker| {
                worker["method"].as_str().is_some_and(|method| method.ends_with("/BusyLoop"))
            })
        })
    });
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("cpu.pb.gz");
    std::fs::write(&file, server.get("/debug/pprof/profile?seconds=2").body).expect("file");
    let file = file.to_str().expect("path");
    let top = run(&pprof, &["-top", "-cum", "-nodecount=500", file]);
    assert!(top.contains("Type: cpu"), "{top}");
    assert!(top.contains("busy_loop"), "the function that burns is named: {top}");
    for source in [file, &server.url("/debug/pprof/profile?seconds=1")] {
        let tags = run(&pprof, &["-tags", source]);
        assert!(tags.contains("BusyLoop"), "samples are labelled with the method: {tags}");
        assert!(tags.contains("task.id"), "and with the task: {tags}");
    }
    // Closures and trait methods keep their whole names.
    assert!(top.contains("::"), "{top}");
    assert!(top.contains("{{closure}}") || top.contains("{closure"), "{top}");
}

#[test]
fn all_other_profiles_are_valid() {
    let Some(pprof) = tool(PPROF) else { return };
    let server = Server::with_faults(&[]);
    for name in ["goroutineleak", "block", "mutex", "allocs", "heap", "threadcreate"] {
        let url = server.url(&format!("/debug/pprof/{name}"));
        run(&pprof, &["-raw", &url]);
    }
}

#[test]
fn promtool_accepts_the_metrics() {
    let Some(promtool) = tool(&["promtool"]) else { return };
    let server = Server::with_faults(&[]);
    let _load = server.load("mix", &["--seconds", "60"]);
    server.wait_for("/debug/streams", "streams", |json| {
        json["streams"].as_array().is_some_and(|streams| !streams.is_empty())
    });
    must_accept(&promtool, &server.get("/metrics"));
}

#[test]
fn promtool_accepts_the_metrics_of_two_runtimes_of_one_name_and_a_local_set() {
    let Some(promtool) = tool(&["promtool"]) else { return };
    let profiler = Profiler::builder().http("127.0.0.1:0").start().expect("a profiler");
    let runtime = || {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).enable_all();
        profiler.runtime(builder).build().expect("a runtime")
    };
    let runtimes = [runtime(), runtime()];
    for runtime in &runtimes {
        // One is listed once it has done something.
        runtime.block_on(runtime.spawn(async {})).expect("it ran");
    }
    let local = LocalSet::new();
    local.spawn_local(std::future::pending::<()>());
    runtimes[0].block_on(local.run_until(tokio::task::yield_now()));
    let metrics = Answer::to(profiler.http_addr().expect("an address"), "/metrics");
    must_accept(&promtool, &metrics);
    let text = metrics.text();
    for id in 0..2 {
        let series =
            format!("taskprof_runtime_workers{{runtime=\"main\",runtime_id=\"{id}\"}} 1\n");
        assert_eq!(text.matches(&series).count(), 1, "{series} in {text}");
    }
}

fn must_accept(promtool: &Path, metrics: &Answer) {
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    child.stdin.take().expect("input").write_all(&metrics.body).expect("metrics");
    let output = child.wait_with_output().expect("promtool ends");
    let said = text_of(promtool, &["check", "metrics"], &output);
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.is_empty() && complaints.is_empty(), "{said}{complaints}\n{}", metrics.text());
    assert!(metrics.text().contains("taskprof_"), "{}", metrics.text());
}

#[test]
fn a_grpc_client_in_python_is_served() {
    let Some(python) = python_with_grpc() else { return };
    let server = Server::with_faults(&[]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("tests/python/client.py");
    let proto = root.join("proto");
    let args =
        [script.to_str().expect("path"), &server.grpc.to_string(), proto.to_str().expect("path")];
    let said = run(&python, &args);
    assert!(said.trim_end().ends_with("17 passed, 0 failed"), "{said}");
}

/// What the client is told by a server that nobody watches, it is told word for
/// word by one that is watched.
#[test]
fn a_grpc_client_in_python_sees_no_difference_when_watched() {
    let Some(python) = python_with_grpc() else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("tests/python/client.py");
    let proto = root.join("proto");
    let (script, proto) = (script.to_str().expect("path"), proto.to_str().expect("path"));
    let runtime = Runtime::new().expect("a runtime");
    let ask = |watched| {
        let server = runtime.block_on(start_watched(false, watched));
        let said = run(&python, &[script, &server.address.to_string(), proto, "--calls"]);
        assert!(said.trim_end().ends_with("17 passed, 0 failed"), "{watched:?}: {said}");
        said
    };
    let unwatched = ask(By::Nobody);
    assert!(unwatched.contains("UNKNOWN 'test status message'"), "{unwatched}");
    assert!(unwatched.contains("x-grpc-test-echo-trailing-bin"), "{unwatched}");
    for watched in [By::Layer, By::Server] {
        assert_eq!(ask(watched), unwatched, "{watched:?}");
    }
}

/// The Python that the test command has given the gRPC packages.
fn python_with_grpc() -> Option<std::path::PathBuf> {
    let folder = super::server::tools_folder().join("python/bin/python");
    tool(&[folder.to_str()?])
}

/// Whoever runs the tests without the tools is told what they did not test.
#[test]
fn what_is_left_out_is_said_and_under_the_test_command_fails() {
    let nowhere = tempfile::tempdir().expect("a folder");
    let run = |required: bool| {
        let mut tests = Command::new(std::env::current_exe().expect("this program"));
        tests
            .args(["--exact", "suite::tools::promtool_accepts_the_metrics"])
            .env("PATH", "")
            .env("TASKPROF_TOOLS", nowhere.path())
            .env_remove("TASKPROF_REQUIRE_TOOLS");
        if required {
            tests.env("TASKPROF_REQUIRE_TOOLS", "1");
        }
        tests.output().expect("the tests start")
    };
    let left_out = run(false);
    let said = String::from_utf8_lossy(&left_out.stdout);
    assert!(left_out.status.success() && said.contains("1 passed"), "{said}");
    let said = String::from_utf8_lossy(&left_out.stderr);
    assert!(said.contains("LEFT OUT: [\"promtool\"] is missing"), "{said}");
    assert!(!run(true).status.success());
}
