//! Spans of a real server, taken by an OTLP service and by a Zipkin's API.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use taskprof::pb::echo::EchoRequest;
use taskprof::pb::echo::echo_client::EchoClient;
use tokio::runtime::Runtime;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::server::{DEADLINE, Server};

pub const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
pub const PARENT: &str = "b7ad6b7169203331";

struct Collector(Sender<(String, Span)>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.expect("a resource").attributes;
            let service = text(&attributes, "service.name").expect("a service");
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                // The test has what it wants, and is over.
                let _ = self.0.send((service.clone(), span));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// An OTLP service of our own, and what it is sent: spans with their service.
pub fn collector(runtime: &Runtime) -> (String, Receiver<(String, Span)>) {
    runtime.block_on(collect())
}

/// The same on the current runtime.
pub async fn collect() -> (String, Receiver<(String, Span)>) {
    let (tell, told) = channel();
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let address = incoming.local_addr().expect("its address");
    let service = TraceServiceServer::new(Collector(tell)).accept_compressed(Gzip);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming));
    (format!("http://{address}"), told)
}

pub fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|one| one.key == key)?.value.as_ref()?.value.as_ref()
}

pub fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match value(attributes, key)? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first that is wanted.
pub fn wait<T>(what: &str, received: &Receiver<T>, wanted: impl Fn(&T) -> bool) -> T {
    let began = Instant::now();
    loop {
        let left = DEADLINE.checked_sub(began.elapsed()).unwrap_or_else(|| panic!("no {what}"));
        let one = received.recv_timeout(left).unwrap_or_else(|_| panic!("no {what}"));
        if wanted(&one) {
            return one;
        }
    }
}

/// Takes what a Zipkin would, one request after the other.
pub fn zipkin(spans: Sender<serde_json::Value>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let spans = spans.clone();
            std::thread::spawn(move || while answer(&mut socket, &spans).is_some() {});
        }
    });
    format!("http://{address}")
}

/// `None` once the other end is gone.
fn answer(socket: &mut (impl Read + Write), spans: &Sender<serde_json::Value>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("a head").to_lowercase();
    assert!(head.starts_with("post /api/v2/spans "), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.expect("a length").parse().expect("a number")];
    socket.read_exact(&mut body).ok()?;
    socket.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").ok()?;
    let list: Vec<serde_json::Value> = serde_json::from_slice(&body).expect("a list of spans");
    for span in list {
        let _ = spans.send(span);
    }
    Some(())
}

/// One call, from the trace that is named.
pub fn echo(runtime: &Runtime, server: &Server, parent: Option<String>) {
    runtime.block_on(async {
        let address = format!("http://{}", server.grpc);
        let mut echo = EchoClient::connect(address).await.expect("a connection");
        let mut request = Request::new(EchoRequest { message: "hi".into() });
        if let Some(parent) = parent {
            let parent = parent.parse().expect("metadata");
            request.metadata_mut().insert("traceparent", parent);
        }
        echo.unary_echo(request).await.expect("an answer");
    });
}

#[test]
fn spans_reach_an_otlp_service_and_a_zipkin() {
    let runtime = Runtime::new().expect("a runtime");
    let (url, otlp) = collector(&runtime);
    let (tell_zipkin, zipkins) = channel();
    let server = Server::with_faults(&["--otlp", &url, "--zipkin", &zipkin(tell_zipkin)]);

    echo(&runtime, &server, Some(format!("00-{TRACE}-{PARENT}-01")));
    let is_echo = |(_, span): &(String, Span)| span.name.ends_with("/UnaryEcho");
    let (service, span) = wait("span of the echo", &otlp, is_echo);
    assert_eq!(service, "taskprof");
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.into(), PARENT.into()));
    assert_eq!((&*span.name, span.kind), ("grpc.examples.echo.Echo/UnaryEcho", 2));
    let said = |key| text(&span.attributes, key);
    assert_eq!(said("rpc.service").as_deref(), Some("grpc.examples.echo.Echo"));
    assert_eq!(said("rpc.method").as_deref(), Some("UnaryEcho"));
    assert_eq!(said("rpc.system").as_deref(), Some("grpc"));
    assert_eq!(said("server.address").as_deref(), Some("127.0.0.1"));
    let port = value(&span.attributes, "server.port");
    assert_eq!(port, Some(&Value::IntValue(server.grpc.port().into())));
    assert_eq!(value(&span.attributes, "rpc.grpc.status_code"), Some(&Value::IntValue(0)));
    let names: Vec<_> = span.events.iter().map(|event| &*event.name).collect();
    assert!(names.contains(&"receive") && names.contains(&"send"), "{names:?}");
    assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    // Frames pass before the service is called, and after it is done.
    let messages = span.events.iter().filter(|one| matches!(&*one.name, "send" | "receive"));
    let inside = messages.into_iter().all(|event| {
        // The ring tells times to some twenty microseconds.
        event.time_unix_nano + 100_000 >= span.start_time_unix_nano
            && event.time_unix_nano <= span.end_time_unix_nano + 100_000
    });
    assert!(inside, "{span:?}");
    let same = wait("span of the echo at Zipkin", &zipkins, |span| span["traceId"] == TRACE);
    assert_eq!((&same["parentId"], &same["kind"]), (&PARENT.into(), &"SERVER".into()), "{same}");
    assert_eq!(same["tags"]["rpc.method"], "UnaryEcho", "{same}");
    assert_eq!(same["tags"]["service.name"], "taskprof", "{same}");

    let load = server.load("unread-stream", &["--streams", "1", "--seconds", "60"]);
    let page = "/debug/streams";
    server.wait_for(page, "stream that is stuck", |json| {
        json["streams"].as_array().is_some_and(|streams| {
            streams.iter().any(|stream| stream["verdict"]["kind"] == "peer_not_reading")
        })
    });
    // A span of what ended since comes after a look at the verdicts.
    echo(&runtime, &server, None);
    wait("second span of an echo", &otlp, is_echo);
    drop(load);
    let (_, span) = wait("span of the stuck stream", &otlp, |(_, span)| {
        span.events.iter().any(|event| event.name == "verdict")
    });
    let at = |name: &str| span.events.iter().find(|event| event.name == name).expect("an event");
    let (stall, verdict) = (at("stall"), at("verdict"));
    assert!(stall.time_unix_nano + 900_000_000 < verdict.time_unix_nano, "{span:?}");
    let said = |key| text(&verdict.attributes, key);
    assert_eq!(said("taskprof.verdict").as_deref(), Some("peer_not_reading"), "{span:?}");
    assert_eq!(said("taskprof.who").as_deref(), Some("peer"));
    assert!(said("taskprof.evidence").is_some_and(|text| text.len() > 20), "{verdict:?}");
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("taskprof_spans_dropped_total 0"), "{metrics}");
}
