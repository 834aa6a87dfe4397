//! What callers send in metadata and messages is in no answer and no log.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;

use console_api::instrument::InstrumentRequest;
use console_api::instrument::instrument_client::InstrumentClient;
use flate2::read::MultiGzDecoder;
use futures_util::stream;
use taskprof::Profiler;
use taskprof::pb::channelz::channelz_client::ChannelzClient;
use taskprof::pb::channelz::{GetServerSocketsRequest, GetServersRequest, GetSocketRequest};
use taskprof::pb::echo::EchoRequest;
use taskprof::pb::echo::echo_client::EchoClient;
use taskprof::pb::testing::test_service_client::TestServiceClient;
use taskprof::pb::testing::{Payload, ResponseParameters, StreamingOutputCallRequest};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tonic::Request;
use tonic::metadata::{AsciiMetadataKey, BinaryMetadataKey, MetadataMap, MetadataValue};

use super::otel;
use super::reference::connect;
use super::server::{Answer, DEADLINE, Server};
use super::targets::taskprof;

/// Headers that carry secrets, and whatever name somebody gave to his own.
fn names() -> Vec<String> {
    let known = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "x-auth-token",
        "x-csrf-token",
        "x-session-id",
        "x-amz-security-token",
        "x-goog-api-key",
        "x-forwarded-for",
        "x-request-id",
        "x-grpc-test-echo-initial",
        "x-grpc-test-echo-trailing-bin",
        "authentication-token-bin",
        "grpc-tags-bin",
    ];
    let own = (known.len()..50).map(|n| match n % 2 {
        0 => format!("x-own-{n}"),
        _ => format!("x-own-{n}-bin"),
    });
    known.into_iter().map(str::to_owned).chain(own).collect()
}

/// The same canary in text, in base64 as `-bin` travels, and as `Debug` writes
/// bytes.
const TRACES: [&str; 3] = ["canary", "Y2FuYXJ5", "99, 97, 110, 97, 114, 121"];

fn add_canaries(metadata: &mut MetadataMap) {
    for (n, name) in names().iter().enumerate() {
        let value = format!("canary-{n}-tell-nobody");
        if name.ends_with("-bin") {
            let key = BinaryMetadataKey::from_bytes(name.as_bytes()).expect("a name");
            metadata.insert_bin(key, MetadataValue::from_bytes(value.as_bytes()));
        } else {
            let key = AsciiMetadataKey::from_bytes(name.as_bytes()).expect("a name");
            metadata.insert(key, value.parse().expect("a value"));
        }
    }
}

fn with_canaries<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    add_canaries(request.metadata_mut());
    request
}

#[track_caller]
fn assert_silent(what: &str, bytes: &[u8]) {
    let mut plain = Vec::new();
    let unpacked = bytes.starts_with(&[0x1f, 0x8b])
        && MultiGzDecoder::new(bytes).read_to_end(&mut plain).is_ok();
    let text = String::from_utf8_lossy(if unpacked { &plain } else { bytes });
    assert!(!text.is_empty(), "{what} says nothing at all");
    for trace in TRACES {
        let at = text.find(trace).map(|at| text[..at].chars().rev().take(200).collect::<String>());
        let before = at.map(|reversed| reversed.chars().rev().collect::<String>());
        assert_eq!(before, None, "{trace:?} in {what}, after this");
    }
}

fn assert_silent_debug(what: &str, value: &impl Debug) {
    assert_silent(what, format!("{value:?}").as_bytes());
}

/// One Recv and one Send.
pub fn ping() -> StreamingOutputCallRequest {
    StreamingOutputCallRequest {
        response_parameters: vec![ResponseParameters { size: 8, ..Default::default() }],
        payload: Some(Payload {
            body: b"canary in a message".to_vec().into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Event streams do not end: until both events were there.
fn events(http: SocketAddr) -> Vec<u8> {
    let mut socket = TcpStream::connect(http).expect("connect");
    socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
    let request = format!("GET /debug/events HTTP/1.1\r\nHost: {http}\r\n\r\n");
    socket.write_all(request.as_bytes()).expect("request");
    let mut seen = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let read = socket.read(&mut piece).expect("an event");
        assert!(read > 0, "the stream of events ended");
        seen.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&seen);
        let whole = |name: &str| {
            text.split(&format!("event: {name}\n")).nth(1).is_some_and(|rest| rest.contains("\n\n"))
        };
        if whole("counters") && whole("findings") {
            return seen;
        }
    }
}

/// Asks for everything that is answered, with a stream that there is.
fn answers_are_silent(http: SocketAddr, stream: &str) {
    for path in [
        "/",
        "/debug/findings",
        "/debug/tasks",
        "/debug/tasks?group=stack",
        "/debug/streams",
        &format!("/debug/streams/{stream}"),
        "/debug/connections",
        "/debug/workers",
        "/debug/snapshot",
        "/debug/pprof/",
        "/debug/pprof/goroutine",
        "/debug/pprof/goroutine?debug=1",
        "/debug/pprof/goroutine?debug=2",
        "/debug/pprof/goroutine?seconds=1",
        "/debug/pprof/profile?seconds=1",
        "/debug/pprof/block?debug=1",
        "/debug/pprof/mutex?debug=1",
        "/debug/pprof/heap",
        "/debug/pprof/cmdline",
        "/debug/pprof/symbol?0x0",
        "/metrics",
        "/healthz",
    ] {
        let answer = Answer::to(http, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_silent(path, answer.headers.as_bytes());
        assert_silent(path, &answer.body);
    }
    assert_silent("/debug/events", &events(http));
}

#[test]
fn what_callers_send_is_nowhere_to_be_read() {
    // The client is watched as well, its tasks included.
    let client = Profiler::builder().await_chains(false).http("127.0.0.1:0").start();
    let client = client.expect("a profiler");
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all();
    let runtime = client.runtime(runtime).build().expect("a runtime");
    runtime.block_on(nowhere_to_be_read(&client));
}

async fn nowhere_to_be_read(client: &Profiler) {
    const DUPLEX: &str = "/grpc.testing.TestService/FullDuplexCall";
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("stderr");
    let (otlp, spans) = otel::collect().await;
    let (tell_zipkin, zipkins) = channel();
    let zipkin = otel::zipkin(tell_zipkin);
    let command = ["serve", "--faults", "--otlp", &otlp, "--zipkin", &zipkin];
    let server = Server::logging(&command, File::create(&path).expect("a file"));
    let log = format!("/debug/log?method={DUPLEX}&on=true");
    assert_eq!(Answer::of(server.http, "POST", &log).status, 200);

    assert_eq!(names().len(), 50);
    let endpoint = client.endpoint(format!("http://{}", server.grpc)).expect("an address");
    let channel = client.connect(endpoint).await.expect("the server listens");
    let mut interop = TestServiceClient::new(channel.clone());
    let mut echo = EchoClient::new(channel.clone());
    // Streams that live on while we look.
    let mut live = Vec::new();
    for _ in 0..5 {
        let (send, receive) = mpsc::channel(4);
        let requests = tokio_stream(receive);
        let answers = interop.full_duplex_call(with_canaries(requests)).await.expect("a stream");
        // They have arrived: the server sends one of them back.
        let echoed = answers.metadata().get("x-grpc-test-echo-initial").expect("the echo");
        assert_eq!(echoed, "canary-12-tell-nobody");
        let mut answers = answers.into_inner();
        for _ in 0..3 {
            send.send(ping()).await.expect("it takes messages");
            answers.message().await.expect("no status").expect("an answer");
        }
        live.push((send, answers));
    }
    // And some that have ended, each in its own way.
    let message = || EchoRequest { message: "canary in a message".into() };
    echo.unary_echo(with_canaries(message())).await.expect("an answer");
    let mut answers =
        echo.server_streaming_echo(with_canaries(message())).await.expect("a stream").into_inner();
    while answers.message().await.expect("no status").is_some() {}
    let (send, mut answers) = live.pop().expect("five");
    drop(send);
    assert!(answers.message().await.expect("no status").is_none());
    let trailers = answers.trailers().await.expect("its end").expect("trailers");
    assert!(trailers.get_bin("x-grpc-test-echo-trailing-bin").is_some(), "in trailers as well");
    drop(live.pop());
    interop.unimplemented_call(with_canaries(Default::default())).await.expect_err("no such call");

    let streams = server.wait_for("/debug/streams", "all of them", |json| {
        let streams = json["streams"].as_array().expect("streams");
        let of = |method: &str, live: bool| {
            streams
                .iter()
                .filter(|it| it["method"] == method && (it["phase"] == "ended") != live)
                .count()
        };
        of(DUPLEX, true) == 3 && of(DUPLEX, false) == 2
    });
    let tasks = server.json("/debug/tasks");
    let task = tasks["tasks"][0]["id"].as_str().expect("an id");
    let own_task = format!("/debug/tasks/{task}");
    assert_silent(&own_task, &server.get(&own_task).body);
    let stream = streams["streams"][0]["id"].as_str().expect("an id");
    answers_are_silent(server.http, stream);
    let http = client.http_addr().expect("its address");
    let streams = Answer::to(http, "/debug/streams").body;
    let streams: serde_json::Value = serde_json::from_slice(&streams).expect("JSON");
    let of_client = |stream: &&serde_json::Value| stream["side"] == "client";
    let streams = streams["streams"].as_array().expect("streams");
    let stream = streams.iter().find(of_client).expect("a call of the client");
    answers_are_silent(http, stream["id"].as_str().expect("an id"));

    for (of, formats) in [
        (["--url", &server.url("")], &["text", "json", "pprof", "findings"][..]),
        (["--pid", &server.pid().to_string()], &["text", "json", "html"]),
    ] {
        for format in formats {
            let what = format!("dump {of:?} --format {format}");
            let dump = taskprof(&[&"dump", &of[0], &of[1], &"--format", format]);
            let said = String::from_utf8_lossy(&dump.stderr);
            assert!(dump.status.success(), "{what}: {said}");
            assert_silent(&what, &dump.stdout);
        }
    }

    // The spans of what has ended.
    for method in ["UnaryEcho", "ServerStreamingEcho", "FullDuplexCall", "UnimplementedCall"] {
        otel::wait(method, &spans, |span| {
            assert_silent_debug("a span", span);
            span.1.name.ends_with(method)
        });
        otel::wait(method, &zipkins, |span| {
            assert_silent("a span for Zipkin", span.to_string().as_bytes());
            let name = span["name"].as_str().expect("a name").to_lowercase();
            name.ends_with(&method.to_lowercase())
        });
    }

    let mut channelz = ChannelzClient::new(channel);
    let servers = channelz.get_servers(GetServersRequest::default()).await.expect("servers");
    assert_silent_debug("channelz servers", &servers);
    let server_id = servers.get_ref().server[0].r#ref.as_ref().expect("a reference").server_id;
    let request = GetServerSocketsRequest { server_id, ..Default::default() };
    let sockets = channelz.get_server_sockets(request).await.expect("sockets");
    for socket in &sockets.get_ref().socket_ref {
        let request = GetSocketRequest { socket_id: socket.socket_id };
        let socket = channelz.get_socket(request).await.expect("a socket");
        assert_silent_debug("channelz socket", &socket);
    }

    let mut console = InstrumentClient::new(connect(server.console).await);
    let updates = console.watch_updates(InstrumentRequest {}).await.expect("updates");
    let mut updates = updates.into_inner();
    for _ in 0..2 {
        let update = updates.message().await.expect("no status").expect("an update");
        assert_silent_debug("the console's wire", &update);
    }

    // A line for each message of the method asked for, and for no other.
    let logged = fs::read(&path).expect("the log");
    assert_silent("stderr", &logged);
    let logged = String::from_utf8_lossy(&logged);
    let lines = |word: &str| logged.lines().filter(|line| line.contains(word)).count();
    assert_eq!((lines("stream recv"), lines("stream send")), (15, 15), "{logged}");
    assert_eq!(lines(DUPLEX), 30, "{logged}");
    drop(live);
}

/// What comes through a channel.
pub fn tokio_stream<T>(receive: mpsc::Receiver<T>) -> impl futures_util::Stream<Item = T> {
    stream::unfold(receive, |mut receive| async move {
        receive.recv().await.map(|message| (message, receive))
    })
}
