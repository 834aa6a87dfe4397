//! Spans of a real server, read by programs that others wrote: an
//! OpenTelemetry collector that hands them on, and Zipkin's own library.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::Value as Json;
use tokio::runtime::Runtime;

use super::otel::{PARENT, TRACE, collector, echo, hex, text, value, wait};
use super::server::{DEADLINE, Server, tool};

/// A program of others, ended when dropped.
struct Other(Child);

impl Other {
    /// What it prints, line by line.
    fn start(mut command: Command) -> (Self, Receiver<String>) {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = child.spawn().expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        (Self(child), lines)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn traced() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

#[test]
fn a_collector_takes_the_spans_and_hands_them_on() {
    let Some(rotel) = tool(&["rotel"]) else { return };
    let runtime = Runtime::new().expect("a runtime");
    let (backend, received) = collector(&runtime);
    let folder = tempfile::tempdir().expect("a folder");
    // It takes no port 0: two that were free a moment ago.
    let free = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addresses = [free(), free()].map(|one| one.local_addr().expect("its address").to_string());
    let mut command = Command::new(rotel);
    command
        .arg("start")
        .args(["--otlp-grpc-endpoint", &addresses[0], "--otlp-http-endpoint", &addresses[1]])
        .args(["--exporter", "otlp", "--otlp-exporter-endpoint", &backend])
        .args(["--debug-log", "traces", "--debug-log-verbosity", "detailed"])
        .arg("--pid-file")
        .arg(folder.path().join("pid"));
    let (_collector, said) = Other::start(command);
    let began = Instant::now();
    while TcpStream::connect(&addresses[0]).is_err() {
        assert!(began.elapsed() < DEADLINE, "the collector does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }

    let server = Server::with_faults(&["--otlp", &format!("http://{}", addresses[0])]);
    let load = server.load("unread-stream", &["--streams", "1", "--seconds", "60"]);
    echo(&runtime, &server, Some(traced()));
    let is_echo = |(_, span): &(String, Span)| span.name.ends_with("/UnaryEcho");
    let (service, span) = wait("span of the echo", &received, is_echo);
    assert_eq!(service, "taskprof");
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.into(), PARENT.into()));
    assert_eq!((&*span.name, span.kind), ("grpc.examples.echo.Echo/UnaryEcho", 2));
    assert_eq!(text(&span.attributes, "rpc.method").as_deref(), Some("UnaryEcho"));
    assert!(value(&span.attributes, "rpc.grpc.status_code").is_some(), "{span:?}");
    let names: Vec<_> = span.events.iter().map(|event| &*event.name).collect();
    assert!(names.contains(&"receive") && names.contains(&"send"), "{names:?}");

    // Its own account of what it took.
    let line = |text: &'static str| move |line: &String| line.trim_start().starts_with(text);
    let id = wait("trace in its log", &said, line("Trace ID"));
    assert!(id.ends_with(TRACE), "{id}");
    let parent = wait("parent in its log", &said, line("Parent ID"));
    assert!(parent.ends_with(PARENT), "{parent}");

    // A stall and its verdict come through as events.
    server.wait_for("/debug/streams", "stream that is stuck", |json| {
        json["streams"].as_array().is_some_and(|streams| {
            streams.iter().any(|stream| stream["verdict"]["kind"] == "peer_not_reading")
        })
    });
    echo(&runtime, &server, None);
    wait("second span of an echo", &received, is_echo);
    drop(load);
    let (_, span) = wait("span of the stuck stream", &received, |(_, span)| {
        span.events.iter().any(|event| event.name == "verdict")
    });
    let verdict = span.events.iter().find(|event| event.name == "verdict").expect("an event");
    let said = text(&verdict.attributes, "taskprof.verdict");
    assert_eq!(said.as_deref(), Some("peer_not_reading"), "{span:?}");
    assert!(span.events.iter().any(|event| event.name == "stall"), "{span:?}");
}

#[test]
fn zipkins_own_library_reads_the_spans() {
    let Some(zipkin) = tool(&["zipkin"]) else { return };
    let (_zipkin, said) = Other::start(Command::new(zipkin));
    let address = wait("address", &said, |line| line.starts_with("listening on "));
    let address = address.trim_start_matches("listening on ").to_owned();

    // What is no span of version 2 is refused, or the test could not fail.
    let mut refused = TcpStream::connect(&address).expect("a connection");
    let body = r#"[{"traceId":"xyz","id":"1","name":"no"}]"#;
    let head = "POST /api/v2/spans HTTP/1.1\r\nHost: z\r\nConnection: close\r\n";
    let length = body.len();
    let request =
        format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    refused.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    refused.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    wait("complaint", &said, |line| line.starts_with("error: "));

    let runtime = Runtime::new().expect("a runtime");
    let server = Server::with_faults(&["--zipkin", &format!("http://{address}")]);
    echo(&runtime, &server, Some(traced()));
    let line = wait("span of the echo", &said, |line| {
        assert!(!line.starts_with("error: "), "{line}");
        line.contains("UnaryEcho")
    });
    let span: Json = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&span["traceId"], &span["parentId"]), (&TRACE.into(), &PARENT.into()), "{span}");
    assert_eq!(span["kind"], "SERVER", "{span}");
    assert_eq!(span["tags"]["rpc.method"], "UnaryEcho", "{span}");
    assert_eq!(span["localEndpoint"]["serviceName"], "taskprof", "{span}");
    let annotations = span["annotations"].as_array().expect("the events");
    assert!(annotations.iter().any(|one| one["value"] == "receive taskprof.bytes=9"), "{span}");
    assert!(span["timestamp"].as_u64() > Some(0) && span["duration"].as_u64() > Some(0), "{span}");
}
