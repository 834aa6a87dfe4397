//! What callers send in metadata and messages is in no answer and no log.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use console_api::instrument::InstrumentRequest;
use console_api::instrument::instrument_client::InstrumentClient;
use flate2::read::MultiGzDecoder;
use futures_util::stream;
use taskprof::pb::channelz::channelz_client::ChannelzClient;
use taskprof::pb::channelz::{GetServerSocketsRequest, GetServersRequest, GetSocketRequest};
use taskprof::pb::echo::EchoRequest;
use taskprof::pb::echo::echo_client::EchoClient;
use taskprof::pb::testing::test_service_client::TestServiceClient;
use taskprof::pb::testing::{Payload, ResponseParameters, StreamingOutputCallRequest};
use tokio::sync::mpsc;
use tonic::Request;
use tonic::metadata::{AsciiMetadataKey, BinaryMetadataKey, MetadataMap, MetadataValue};

use super::reference::connect;
use super::server::{Answer, DEADLINE, Server};

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
fn ping() -> StreamingOutputCallRequest {
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
fn events(server: &Server) -> Vec<u8> {
    let mut socket = TcpStream::connect(server.http).expect("connect");
    socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
    let request = format!("GET /debug/events HTTP/1.1\r\nHost: {}\r\n\r\n", server.http);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_callers_send_is_nowhere_to_be_read() {
    const DUPLEX: &str = "/grpc.testing.TestService/FullDuplexCall";
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("stderr");
    let server = Server::logging(&["serve", "--faults"], File::create(&path).expect("a file"));
    let log = format!("/debug/log?method={DUPLEX}&on=true");
    assert_eq!(Answer::of(server.http, "POST", &log).status, 200);

    assert_eq!(names().len(), 50);
    let channel = connect(server.grpc).await;
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
    let stream = &streams["streams"][0]["id"].as_str().expect("an id");
    let tasks = server.json("/debug/tasks");
    let task = tasks["tasks"][0]["id"].as_str().expect("an id");
    for path in [
        "/".to_owned(),
        "/debug/findings".to_owned(),
        "/debug/tasks".to_owned(),
        "/debug/tasks?group=stack".to_owned(),
        format!("/debug/tasks/{task}"),
        "/debug/streams".to_owned(),
        format!("/debug/streams/{stream}"),
        "/debug/connections".to_owned(),
        "/debug/workers".to_owned(),
        "/debug/snapshot".to_owned(),
        "/debug/pprof/".to_owned(),
        "/debug/pprof/goroutine".to_owned(),
        "/debug/pprof/goroutine?debug=1".to_owned(),
        "/debug/pprof/goroutine?debug=2".to_owned(),
        "/debug/pprof/goroutine?seconds=1".to_owned(),
        "/debug/pprof/profile?seconds=1".to_owned(),
        "/debug/pprof/block?debug=1".to_owned(),
        "/debug/pprof/mutex?debug=1".to_owned(),
        "/debug/pprof/heap".to_owned(),
        "/debug/pprof/cmdline".to_owned(),
        "/debug/pprof/symbol?0x0".to_owned(),
        "/metrics".to_owned(),
        "/healthz".to_owned(),
    ] {
        let answer = server.get(&path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_silent(&path, answer.headers.as_bytes());
        assert_silent(&path, &answer.body);
    }
    assert_silent("/debug/events", &events(&server));

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
fn tokio_stream<T>(receive: mpsc::Receiver<T>) -> impl futures_util::Stream<Item = T> {
    stream::unfold(receive, |mut receive| async move {
        receive.recv().await.map(|message| (message, receive))
    })
}
