//! What each endpoint answers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::fixture::*;
use crate::model::{Runtime, RuntimeId, Worker, sample};
use crate::render::pprof::decode;
use crate::serve::ServeConfig;

fn schema_holds(definition: &str, answer: &serde_json::Value) {
    let mut schema = crate::render::json::schema();
    schema["$ref"] = format!("#/$defs/{definition}").into();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<_> = validator.iter_errors(answer).map(|error| format!("{error}")).collect();
    assert!(errors.is_empty(), "{definition}: {errors:#?}");
}

#[test]
fn every_json_answer_keeps_to_the_schema() {
    let target =
        serve(Saved::new(sample::busy_server()), ServeConfig { control: true, ..config() });
    for (path, definition, list) in [
        ("/debug/tasks", "TasksAnswer", "tasks"),
        ("/debug/tasks?group=stack", "TaskGroupsAnswer", "groups"),
        ("/debug/tasks/10", "TaskAnswer", "children"),
        ("/debug/streams", "StreamsAnswer", "streams"),
        ("/debug/streams/1", "StreamAnswer", "tasks"),
        ("/debug/connections", "ConnectionsAnswer", "connections"),
        ("/debug/workers", "WorkersAnswer", "workers"),
        ("/debug/findings", "FindingsAnswer", "findings"),
        ("/debug/snapshot", "Snapshot", "tasks"),
        ("/healthz", "HealthAnswer", "runtimes"),
    ] {
        let answer = target.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let json = answer.json();
        schema_holds(definition, &json);
        assert!(!json[list].as_array().unwrap().is_empty(), "{path}");
        for field in ["schema", "taken_at", "process", "coverage"] {
            assert!(!json[field].is_null(), "{path} has no {field}");
        }
    }
    let log = target.request("POST", "/debug/log?stream=1&on=true", "Content-Length: 0\r\n");
    schema_holds("LogAnswer", &log.json());
    for (path, status) in [
        ("/debug/tasks?limit=0", 400),
        ("/debug/tasks?limt=5", 400),
        ("/debug/tasks?group=none&group=stack", 400),
        ("/debug/tasks?sort=count", 400),
        ("/debug/tasks?filter=age:%3E10", 400),
        ("/debug/tasks?cursor=zz", 400),
        ("/debug/tasks/x", 400),
        ("/debug/tasks/999", 404),
        ("/debug/streams/999", 404),
        ("/debug/streams?filter=colour:red", 400),
        ("/debug/findings?x=1", 400),
        ("/debug/connections?x=1", 400),
        ("/debug/workers?x=1", 400),
        ("/debug/snapshot?x=1", 400),
        ("/debug/streams/1?x=1", 400),
        ("/debug/tasks/10?x=1", 400),
        ("/debug/events?x=1", 400),
        ("/metrics?x=1", 400),
        ("/healthz?x=1", 400),
    ] {
        let answer = target.get(path);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        schema_holds("ProblemAnswer", &answer.json());
        assert_eq!(answer.json()["expected"].is_string(), status == 400, "{path}");
    }
}

#[test]
fn pages_of_tasks_cover_all_of_them() {
    let target = serve(Saved::new(sample::crowd(1_000)), config());
    let mut seen = Vec::new();
    let mut path = "/debug/tasks?limit=300&sort=wait".to_owned();
    loop {
        let page = target.get(&path).json();
        seen.extend(
            page["tasks"]
                .as_array()
                .unwrap()
                .iter()
                .map(|task| task["id"].as_str().unwrap().to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/debug/tasks?limit=300&sort=wait&cursor={cursor}"),
            None => break,
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 1_000);
}

#[test]
fn the_command_line_is_that_of_the_process_watched() {
    let answer = busy().get("/debug/pprof/cmdline");
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.text(), "billing\0--region\0north sea");
}

#[test]
fn the_goroutine_profile_in_three_forms() {
    let target = busy();
    let profile = target.get("/debug/pprof/goroutine");
    assert_eq!(profile.header("content-type"), Some("application/octet-stream"));
    assert_eq!(profile.header("content-disposition"), Some("attachment; filename=\"goroutine\""));
    assert_eq!(decode(&profile.body).sample.iter().map(|sample| sample.value[1]).sum::<i64>(), 6);
    let text = target.get("/debug/pprof/goroutine?debug=1");
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(text.text().starts_with("goroutine profile: total 6\n"));
    assert!(
        target.get("/debug/pprof/goroutine?debug=2").text().starts_with("goroutine 10 [idle, 41s]")
    );
    let delta = target.get("/debug/pprof/goroutine?seconds=1");
    assert_eq!(
        delta.header("content-disposition"),
        Some("attachment; filename=\"goroutine-delta\"")
    );
    assert!(decode(&delta.body).sample.is_empty(), "nothing changed");
}

#[test]
fn statuses_and_texts_are_those_of_go() {
    let target = busy();
    for (path, status, text) in [
        ("goroutine?seconds=61", 400, "invalid value for \"seconds\" - at most 60 are allowed\n"),
        ("goroutine?seconds=1&debug=1", 400, "seconds and debug params are incompatible\n"),
        ("profile?seconds=61", 400, "invalid value for \"seconds\" - at most 60 are allowed\n"),
        ("nonsense", 404, "Unknown profile\n"),
        ("my/custom", 404, "Unknown profile\n"),
    ] {
        let answer = target.get(&format!("/debug/pprof/{path}"));
        assert_eq!((answer.status, answer.text()), (status, text), "{path}");
        assert_eq!(answer.header("x-go-pprof"), Some("1"), "{path}");
    }
    for name in ["goroutine", "goroutineleak", "block", "mutex", "heap", "profile"] {
        for seconds in ["0", "-1", "nan", "1e300", "abc", "0x5", "1.5", "99999999999999999999"] {
            let answer = target.get(&format!("/debug/pprof/{name}?seconds={seconds}"));
            let text = "invalid value for \"seconds\" - must be a positive integer\n";
            assert_eq!((answer.status, answer.text()), (400, text), "{name} {seconds}");
            assert_eq!(answer.header("x-go-pprof"), Some("1"), "{name} {seconds}");
        }
        let answer = target.get(&format!("/debug/pprof/{name}?seconds=61"));
        let text = "invalid value for \"seconds\" - at most 60 are allowed\n";
        assert_eq!((answer.status, answer.text()), (400, text), "{name}");
    }
    assert_eq!(target.source.taken.load(Ordering::SeqCst), 0, "nothing was taken for those");
    let moved = target.get("/debug/pprof");
    assert_eq!((moved.status, moved.header("location")), (307, Some("/debug/pprof/")));
    for name in ["allocs", "block", "goroutineleak", "heap", "mutex", "threadcreate"] {
        let answer = target.get(&format!("/debug/pprof/{name}"));
        assert_eq!(answer.status, 200);
        assert!(!decode(&answer.body).sample_type.is_empty(), "{name}");
    }
    assert_eq!(target.request("HEAD", "/debug/pprof/goroutine", "").status, 200);
    assert_eq!(
        target.request("POST", "/debug/pprof/goroutine", "Content-Length: 0\r\n").status,
        200
    );
    let named = "num_symbols: 1\n0x4a3200 billing::charge_card src/billing.rs:88\n";
    assert_eq!(target.get("/debug/pprof/symbol?0x4a3200").text(), named);
    let posted = target.raw(
        "POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 12\r\n\r\n0x1+0x4a3200",
    );
    assert_eq!(posted.text(), named);
}

/// Go reads `debug` with Atoi and takes what is no number for 0: a profile.
#[test]
fn a_debug_that_is_no_number_is_a_profile() {
    let target = busy();
    for debug in ["abc", "", "1.5", "0x2"] {
        let answer = target.get(&format!("/debug/pprof/goroutine?debug={debug}"));
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"), "{debug:?}");
        assert!(!decode(&answer.body).sample.is_empty(), "{debug:?}");
    }
}

#[test]
fn the_index_leads_everywhere_and_says_what_is_there() {
    let target = busy();
    let index = target.get("/debug/pprof/");
    assert_eq!(index.header("content-type"), Some("text/html; charset=utf-8"));
    let page = index.text();
    assert!(page.contains("<a href=\"goroutine?debug=2\">full goroutine stack dump</a>"));
    // What would have to be counted for it has no number, not a wrong one.
    for (count, name) in
        [("6", "goroutine"), ("", "goroutineleak"), ("", "block"), ("", "mutex"), ("0", "heap")]
    {
        let row = format!("<td>{count}</td><td><a href='{name}?debug=1'>");
        assert!(page.contains(&row), "{row} in {page}");
    }
    let links: Vec<_> = page
        .split("href='")
        .skip(1)
        .map(|rest| rest.split('\'').next().unwrap())
        .chain(["goroutine?debug=2"])
        .collect();
    assert_eq!(links.len(), 11, "{links:?}");
    for link in links {
        let name = link.split('?').next().unwrap();
        let described = page.split(&format!("<li>{name}: ")).nth(1).expect(name);
        assert!(described.split("</li>").next().unwrap().len() > 20, "{name}");
        // The CPU profile would take 30 s.
        let link = if name == "profile" { "profile?seconds=1" } else { link };
        assert_eq!(target.get(&format!("/debug/pprof/{link}")).status, 200, "{link}");
    }
}

#[test]
fn one_cpu_profile_at_a_time() {
    let target = busy();
    let mut first = target.connect();
    first.write_all(b"GET /debug/pprof/profile?seconds=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    // The first is in the source once the second is refused.
    let refused = std::iter::repeat_with(|| target.get("/debug/pprof/profile?seconds=1"))
        .find(|answer| answer.status != 200);
    assert_eq!(
        refused.map(|answer| (answer.status, answer.text().to_owned())),
        Some((500, "Could not enable CPU profiling: cpu profiling already in use\n".to_owned(),))
    );
    let first = answer(first);
    assert_eq!(first.status, 200);
    assert_eq!(decode(&first.body).period, 10_000_000);
}

#[test]
fn events_come_at_once_and_end_with_the_server() {
    let target = busy();
    let mut stream = target.connect();
    stream.write_all(b"GET /debug/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    for (event, definition) in [("counters", "CountersEvent"), ("findings", "FindingsAnswer")] {
        assert!(lines.by_ref().any(|line| line == format!("event: {event}")));
        let data = lines.next().unwrap();
        schema_holds(
            definition,
            &serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap(),
        );
    }
    let begun = std::time::Instant::now();
    target.server.shutdown().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(lines.last().is_some(), "the stream ends instead of hanging");
}

#[test]
fn counters_go_on_while_chains_are_being_read() {
    let mut config = config();
    config.limits.event_interval = Duration::from_millis(10);
    let target = serve(Saved::new(sample::busy_server()), config);
    let held = target.source.stacks.lock().unwrap();
    let mut stream = target.connect();
    stream.write_all(b"GET /debug/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut events = BufReader::new(stream)
        .lines()
        .map_while(Result::ok)
        .filter(|line| line.starts_with("event: "));
    for _ in 0..3 {
        assert_eq!(events.next().as_deref(), Some("event: counters"));
    }
    drop(held);
    assert!(events.any(|event| event == "event: findings"));
}

#[test]
fn health_says_which_runtimes_live_and_of_which_nobody_knows() {
    let runtime = |id: u64, name: &str, workers: u32| Runtime {
        id: RuntimeId(id),
        name: name.into(),
        workers,
        ..sample::runtime()
    };
    let worker = |id: u64, index, blocked, polls| Worker {
        runtime: RuntimeId(id),
        blocked,
        polls,
        ..sample::worker(index)
    };
    let mut snapshot = sample::empty();
    snapshot.runtimes = vec![
        runtime(0, "half stuck", 2),
        runtime(1, "stuck", 2),
        runtime(2, "without hooks", 1),
        runtime(1_000, "a LocalSet in memory", 0),
    ];
    snapshot.workers = vec![
        worker(0, 0, true, Some(9)),
        worker(0, 1, false, Some(9)),
        worker(1, 0, true, Some(9)),
        worker(1, 1, true, Some(9)),
        worker(2, 0, false, None),
    ];
    let target = serve(Saved::new(snapshot), config());
    let health = target.get("/healthz").json();
    schema_holds("HealthAnswer", &health);
    let live: Vec<_> =
        health["runtimes"].as_array().unwrap().iter().map(|it| &it["live"]).collect();
    assert_eq!(live, [&json!(true), &json!(false), &Value::Null, &Value::Null], "{health:#}");
}

#[test]
fn metrics_come_in_the_format_that_is_asked_for() {
    let target = busy();
    let get = |accept: &str| target.request("GET", "/metrics", accept);
    let plain = get("");
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(!plain.text().contains("# EOF"));
    let open = get("Accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n");
    assert_eq!(
        open.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(open.text().ends_with("\n# EOF\n"));
    assert_eq!(open.header("vary"), Some("Accept"));
}
