//! Tasks that wait for a gRPC message: whose it is, seen from inside and from
//! outside.

use serde_json::Value;

use super::server::Server;
use super::targets::run;
use super::truth::list;

/// Waits for gRPC messages among tasks, each with its task.
fn messages(tasks: &Value) -> Vec<(&Value, &Value)> {
    let all = list(tasks).iter().map(|task| (task, &task["wait"]));
    all.filter(|(_, wait)| wait["kind"] == "grpc_message").collect()
}

#[test]
fn a_handler_waits_for_a_request_of_its_own_stream() {
    let server = Server::with_faults(&[]);
    let _load = server.load("silent-upload", &["--streams", "2", "--seconds", "60"]);
    let tasks = server.wait_for("/debug/tasks?group=none&limit=1000", "two waits", |json| {
        messages(&json["tasks"]).len() == 2
    });
    let mut resources = Vec::new();
    for (task, wait) in messages(&tasks["tasks"]) {
        assert_eq!(wait["detail"], "of a request", "{task:#}");
        assert!(wait["stream"].is_string() && wait["stream"] == task["stream"], "{task:#}");
        resources.push(wait["resource"].as_str().expect("an identity"));
    }
    assert_ne!(resources[0], resources[1], "a stream each");
}

#[test]
fn a_client_waits_for_a_response_and_on_no_stream_of_a_server() {
    let server = Server::with_faults(&[]);
    // A message a second, read at once: all else is waiting.
    let load = server.load("slow-trickle", &["--streams", "2", "--seconds", "60"]);
    server.wait_for("/debug/streams", "its streams, begun", |json| {
        let streams = list(&json["streams"]);
        let begun = |stream: &&Value| stream["sent"]["messages"].as_u64() > Some(0);
        streams.len() == 2 && streams.iter().filter(begun).count() == 2
    });
    let pid = load.pid().to_string();
    let taskprof = env!("CARGO_BIN_EXE_taskprof");
    let json = run(taskprof, &[&"dump", &"--pid", &pid, &"--format", &"json"]);
    let snapshot: Value = serde_json::from_str(&json).expect("JSON");
    let waits = messages(&snapshot["tasks"]);
    assert!(!waits.is_empty(), "{:#}", snapshot["tasks"]);
    for (task, wait) in waits {
        assert_eq!(wait["detail"], "of a response", "{task:#}");
        assert!(wait["stream"].is_null() && wait["resource"].is_string(), "{task:#}");
    }
}
