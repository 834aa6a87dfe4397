//! What is known of a stream.

use std::sync::{Arc, Mutex};

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tonic::Request;

use super::lab::{HOLD, frame, head, msg, start};
use crate::instrument::grpc::{GrpcLayer, MetadataKeys, ServeConfig};
use crate::model::{Http2State, Phase, Side, TaskId};
use crate::registry::{Registry, clock};

#[tokio::test]
async fn all_four_kinds_are_counted_on_both_sides() {
    let server = start(ServeConfig::default()).await;
    let client = server.client().await;
    for (method, sent, received) in
        [("/t.T/Echo", 1, 1), ("/t.T/Collect", 5, 1), ("/t.T/Three", 1, 3), ("/t.T/Echo", 4, 4)]
    {
        let request = Request::new(stream::iter(vec![msg(100); sent]));
        let mut answers = client.call(method, request).await.unwrap();
        let mut got = 0;
        while answers.message().await.unwrap().is_some() {
            got += 1;
        }
        drop(answers);
        assert_eq!(got, received, "{method}");
        let seen = server.ended().await;
        assert_eq!(&*seen.method, method);
        assert_eq!((seen.received.messages, seen.sent.messages), (sent as u64, received));
        assert_eq!(seen.received.bytes, sent as u64 * 107);
        assert_eq!((seen.state, seen.phase), (Http2State::Closed, Phase::Ended), "{seen:#?}");
        assert_eq!(seen.status.unwrap().code, 0);
        assert!(seen.cancelled_ago_ns.is_none() && seen.task.is_some());
        let ours = client.registry.streams.snapshot(clock::now()).ended.remove(0);
        assert_eq!((ours.side, ours.state), (Side::Client, Http2State::Closed), "{ours:#?}");
        assert_eq!((ours.sent.messages, ours.received.messages), (sent as u64, received));
        assert_eq!(ours.status.unwrap().code, 0);
    }
    let connection = &server.registry.connections.snapshot(clock::now(), &[])[0];
    assert_eq!((connection.streams, connection.streams_total), (0, 4));
    let counters = connection.counters.unwrap();
    assert!(counters.read_bytes > 10 * 107 && counters.written_bytes > 0);
    assert!(connection.peer.as_ref().unwrap().starts_with("127.0.0.1:"));
}

#[tokio::test]
async fn half_closed_streams_say_which_half() {
    let server = start(ServeConfig::default()).await;
    let client = server.client().await;
    let (messages, outgoing) = mpsc::channel(4);
    let outgoing = stream::unfold(outgoing, |mut rx| async { Some((rx.recv().await?, rx)) });
    let mut answers = client.call("/t.T/Echo", Request::new(outgoing)).await.unwrap();
    messages.send(msg(5)).await.unwrap();
    assert!(answers.message().await.unwrap().is_some());
    server
        .until(|live, _| {
            live.iter().any(|s| s.state == Http2State::Open && s.phase == Phase::AwaitRecv)
        })
        .await;
    // The client awaits nothing now: the transport waits for its next message.
    assert_eq!(client.registry.streams.snapshot(clock::now()).live.len(), 1);
    drop((messages, answers));
    server.ended().await;

    // A client that has said all it has to say.
    let mut raw = server.raw().await;
    let (_answer, _) = raw.send_request(head("Collect"), true).unwrap();
    server
        .until(|_, ended| {
            ended.iter().any(|s| &*s.method == "/t.T/Collect" && s.state == Http2State::Closed)
        })
        .await;
    let (_answer, _) = raw.send_request(head("Never"), true).unwrap();
    server
        .until(|live, _| {
            live.iter()
                .any(|s| s.state == Http2State::HalfClosedRemote && s.phase == Phase::Handler)
        })
        .await;
}

#[tokio::test]
async fn failures_keep_their_status_and_panics_their_name() {
    let server = start(ServeConfig::default()).await;
    let client = server.client().await;
    let call = |method| client.call(method, Request::new(stream::iter([msg(1)])));
    assert_eq!(call("/t.T/Fail").await.unwrap_err().code(), tonic::Code::NotFound);
    let seen = server.ended().await.status.unwrap();
    assert_eq!((seen.code, &*seen.name, &*seen.message), (5, "NOT_FOUND", "no such thing"));
    assert!(call("/t.T/Panic").await.is_err());
    let seen = server.ended().await;
    assert_eq!(seen.cancel_reason.as_deref(), Some("the handler panicked"));
    assert_eq!(seen.state, Http2State::Reset);
    assert!(call("/t.T/Three").await.is_ok(), "the server lives");
}

#[tokio::test]
async fn metadata_is_kept_only_if_listed() {
    let metadata = MetadataKeys::new(["x-request-id"]).unwrap();
    let server = start(ServeConfig { metadata, ..ServeConfig::default() }).await;
    let mut raw = server.raw().await;
    let mut request = head("Three");
    let headers = request.headers_mut();
    headers.insert("x-request-id", "kept".parse().unwrap());
    headers.insert("authorization", "Bearer canary".parse().unwrap());
    headers.insert("cookie", "canary=1".parse().unwrap());
    for i in 0..48 {
        let name = if i % 2 == 0 { format!("x-canary-{i}-bin") } else { format!("x-canary-{i}") };
        let name: http::HeaderName = name.parse().unwrap();
        headers.insert(name, format!("canary{i}").parse().unwrap());
    }
    raw.send_request(request, true).unwrap().0.await.unwrap();
    let seen = server.ended().await;
    assert_eq!(seen.metadata.len(), 1);
    assert_eq!(&*seen.metadata["x-request-id"], "kept");
    let all = server.registry.streams.snapshot(clock::now());
    assert!(!serde_json::to_string(&all.ended).unwrap().contains("canary"));
    // What a debugger would print holds none either.
    assert!(!format!("{:?}", server.registry).contains("canary"));
}

#[tokio::test]
async fn the_scope_ends_its_tasks_and_shows_those_that_stay() {
    let server = start(ServeConfig::default()).await;
    let hold = HOLD.lock().await;
    let mut raw = server.raw().await;
    let (answer, mut request) = raw.send_request(head("Spawn"), false).unwrap();
    // The handler's task, its child and the detached one.
    server.until(|live, _| live.iter().any(|s| s.live_tasks == 3)).await;
    request.send_reset(h2::Reason::CANCEL);
    drop(answer);
    server.until(|live, ended| live.is_empty() && ended[0].live_tasks == 1).await;
    let seen = server.registry.streams.snapshot(clock::now());
    assert_eq!(seen.ended[0].state, Http2State::Reset);
    let mut slots = (0..8).filter_map(|slot| server.registry.streams.info(slot));
    assert!(slots.any(|slot| slot.stream == seen.ended[0].id));
    drop(hold);
    server.until(|_, ended| ended[0].live_tasks == 0).await;
    assert_eq!(crate::instrument::scope::current().map(|scope| scope.stream()), None);
}

#[tokio::test]
async fn the_layer_works_inside_tonics_own_server() {
    let registry = Arc::new(Registry::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = stream::unfold(listener, |listener| async {
        Some((listener.accept().await.map(|(socket, _)| socket), listener))
    });
    let server = tonic::transport::Server::builder()
        .layer(GrpcLayer::new(registry.clone()))
        .add_routes(super::lab::routes())
        .serve_with_incoming(Box::pin(incoming));
    let task = tokio::spawn(server);
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut raw = super::lab::raw(socket).await;
    let (answer, mut request) = raw.send_request(head("Echo"), false).unwrap();
    request.send_data(frame(9), false).unwrap();
    let mut body = answer.await.unwrap().into_body();
    body.data().await.unwrap().unwrap();
    let seen = registry.streams.snapshot(clock::now()).live.remove(0);
    assert_eq!((seen.received.messages, seen.sent.messages), (1, 1));
    assert!(seen.peer.unwrap().starts_with("127.0.0.1:"));
    assert!(seen.task.is_some_and(|TaskId(id)| id != 0));
    assert_eq!(registry.connections.snapshot(clock::now(), &[])[0].streams, 1);
    request.send_reset(h2::Reason::CANCEL);
    super::lab::until(&registry, |live, ended| {
        live.is_empty() && ended[0].state == Http2State::Reset
    })
    .await;
    assert_eq!(registry.connections.len(), 0);
    task.abort();
}

/// Collects the events of one target on this thread.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Events {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "taskprof::stream"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{}={value:?} ", field.name());
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn sends_and_recvs_are_logged_while_asked_for() {
    let events = Events::default();
    let _guard = tracing::subscriber::set_default(events.clone());
    let server = start(ServeConfig::default()).await;
    let client = server.client().await;
    let (messages, outgoing) = mpsc::channel(4);
    let outgoing = stream::unfold(outgoing, |mut rx| async { Some((rx.recv().await?, rx)) });
    let mut answers = client.call("/t.T/Echo", Request::new(outgoing)).await.unwrap();
    messages.send(msg(5)).await.unwrap();
    answers.next().await.unwrap().unwrap();
    assert_eq!(events.0.lock().unwrap().len(), 0, "off by default");
    assert_eq!(server.registry.streams.log_method("/t.T/Echo", true).unwrap(), 1);
    messages.send(msg(50)).await.unwrap();
    answers.next().await.unwrap().unwrap();
    server.registry.streams.log_method("/t.T/Echo", false).unwrap();
    messages.send(msg(5)).await.unwrap();
    answers.next().await.unwrap().unwrap();
    let lines = events.0.lock().unwrap().clone();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, direction) in lines.iter().zip(["recv", "send"]) {
        for part in ["stream=1", "/t.T/Echo", direction, "number=2", "bytes=52"] {
            assert!(line.contains(part), "{line} lacks {part}");
        }
        // A second field of that name would be printed as if it were the text.
        assert_eq!(line.matches("message=").count(), 1, "{line}");
    }
}
