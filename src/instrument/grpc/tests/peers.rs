//! Peers that misbehave or go away, and a server that does.

use std::time::Duration;

use futures_util::stream;
use tonic::Request;

use super::lab::{frame, head, msg, start};
use crate::instrument::grpc::{ServeConfig, serve};
use crate::model::{Http2State, Phase};
use crate::registry::clock;

#[tokio::test]
async fn a_reset_ends_the_stream_and_says_so() {
    let server = start(ServeConfig::default()).await;
    let mut raw = server.raw().await;
    let (_answer, mut request) = raw.send_request(head("Never"), false).unwrap();
    request.send_data(frame(3), false).unwrap();
    server.until(|live, _| live.iter().any(|s| s.phase == Phase::Handler)).await;
    request.send_reset(h2::Reason::CANCEL);
    let seen = server.ended().await;
    assert_eq!(seen.state, Http2State::Reset);
    assert!(seen.cancelled_ago_ns.is_some());
    assert!(seen.cancel_reason.unwrap().starts_with("reset by the peer"));
}

/// hyper alone would keep such a call open as long as its request is.
#[tokio::test]
async fn a_client_that_drops_a_call_resets_it() {
    let server = start(ServeConfig::default()).await;
    let client = server.client().await;
    let mut answers = client.call("/t.T/Trickle", Request::new(stream::pending())).await.unwrap();
    assert!(answers.message().await.unwrap().is_some());
    drop(answers);
    let seen = server.ended().await;
    assert_eq!(seen.state, Http2State::Reset);
    let ours = client.registry.streams.snapshot(clock::now()).ended.remove(0);
    assert_eq!(ours.cancel_reason.as_deref(), Some("dropped by the caller"));
    assert_eq!(ours.state, Http2State::Reset);
}

#[tokio::test]
async fn a_lost_connection_leaves_nothing_behind() {
    let server = start(ServeConfig::default()).await;
    let socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (mut send, connection) = h2::client::handshake(socket).await.unwrap();
    let driver = tokio::spawn(connection);
    let calls: Vec<_> = (0..10).map(|_| send.send_request(head("Mute"), false).unwrap()).collect();
    server
        .until(|live, _| live.iter().filter(|s| s.phase == Phase::AwaitProduce).count() == 10)
        .await;
    driver.abort();
    assert!(driver.await.is_err());
    let seen = server.ended().await;
    assert_eq!(seen.state, Http2State::Reset);
    drop(calls);
    while server.registry.connections.len() != 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_seen() {
    let server = start(ServeConfig::default()).await;
    let mut raw = server.raw().await;
    let (answer, _request) = raw.send_request(head("Flood"), true).unwrap();
    let answer = answer.await.unwrap();
    server
        .until(|live, _| {
            live.iter().any(|s| s.phase == Phase::AwaitSend && s.phase_ns > 20_000_000)
        })
        .await;
    let sent = server.registry.streams.snapshot(clock::now()).live[0].sent;
    assert!(sent.bytes >= 65_535 && sent.messages > 60, "{sent:?}");
    drop(answer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_resets_are_refused_and_leave_nothing() {
    flood(false).await;
    flood(true).await;
}

async fn flood(paced: bool) {
    let server = start(ServeConfig::default()).await;
    let (mut resets, mut refused) = (0, 0);
    while resets < 10_000 {
        let mut raw = server.raw().await;
        while resets < 10_000 {
            raw = match raw.ready().await {
                Ok(raw) => raw,
                Err(error) => {
                    assert!(error.is_go_away() || error.is_io(), "{error}");
                    refused += 1;
                    break;
                }
            };
            let Ok((_, mut request)) = raw.send_request(head("Never"), false) else { continue };
            request.send_reset(h2::Reason::CANCEL);
            resets += 1;
            // A sender that writes each reset out: then h2's own guard, which
            // counts what comes in one batch, stays quiet.
            if paced {
                tokio::task::yield_now().await;
            }
        }
    }
    // How often depends on how much the client buffers before it hears of it.
    assert!(refused > 0);
    server.until(|live, _| live.is_empty()).await;
    let seen = server.registry.streams.snapshot(clock::now());
    let slots = server.registry.streams.slots_used();
    assert!(seen.ended.len() <= 1_000 && slots <= 2_000, "{slots}");
    while server.registry.connections.len() != 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_drain_lets_calls_finish_and_ends_the_rest() {
    let config = ServeConfig { drain: Duration::from_millis(200), ..ServeConfig::default() };
    let mut server = start(config).await;
    let client = server.client().await;
    let request = Request::new(stream::iter([msg(1)]));
    let mut finishing = client.call("/t.T/Three", request).await.unwrap();
    let mut endless = client.call("/t.T/Trickle", Request::new(stream::pending())).await.unwrap();
    server.stop.take().unwrap().send(()).unwrap();
    for _ in 0..3 {
        assert_eq!(finishing.message().await.unwrap().map(|m| m.data.len() % 10), Some(0));
    }
    assert!(finishing.message().await.unwrap().is_none());
    let end = loop {
        match endless.message().await {
            Ok(Some(m)) => assert_eq!(m, msg(1)),
            Ok(None) => panic!("ended well"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), tonic::Code::Unavailable, "{end}");
    assert_eq!(end.message(), "the server is shutting down");
    (&mut server.task).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
    assert_eq!(server.registry.connections.len(), 0);
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    use tokio::io::AsyncReadExt;
    let config =
        ServeConfig { handshake_timeout: Duration::from_millis(50), ..ServeConfig::default() };
    let server = start(config).await;
    let mut quiet = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let mut raw = server.raw().await;
    let mut sink = Vec::new();
    // Ends with the server's close, whatever it has sent before.
    _ = tokio::time::timeout(Duration::from_secs(5), quiet.read_to_end(&mut sink)).await.unwrap();
    let answer = raw.send_request(head("Three"), true).unwrap().0.await;
    assert!(answer.is_ok(), "who has spoken stays");
}

#[tokio::test]
async fn a_unix_socket_serves_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("grpc.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let registry = std::sync::Arc::new(crate::registry::Registry::default());
    let config = ServeConfig::default();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async { _ = stopped.await };
    let routes = super::lab::routes();
    let server = tokio::spawn(serve(registry.clone(), routes, listener, config, shutdown));
    let socket = tokio::net::UnixStream::connect(&path).await.unwrap();
    let mut raw = super::lab::raw(socket).await;
    let answer = raw.send_request(head("Three"), true).unwrap().0.await.unwrap();
    assert_eq!(answer.status(), 200);
    drop((answer, raw));
    super::lab::until(&registry, |live, ended| live.is_empty() && !ended.is_empty()).await;
    let seen = registry.streams.snapshot(clock::now()).ended.remove(0);
    assert_eq!(seen.peer.as_deref(), Some(&*format!("unix:pid={}", std::process::id())));
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}
