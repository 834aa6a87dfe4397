//! Deadlines, timeouts and token buckets.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use tokio::time::Instant;
use tonic::{Code, Request};

use super::lab::{frame, head, msg, raw, routes, start, start_with};
use crate::instrument::grpc::exec::ConnectInfo;
use crate::instrument::grpc::serve::Server;
use crate::instrument::grpc::{Exceeded, Limits, RateLimit, RatePer, RateUnit, ServeConfig};
use crate::model::{Http2State, Phase, Side, Transport};
use crate::registry::connections::Open;
use crate::registry::streams::Bounds;
use crate::registry::{Registry, clock};

fn limited(limits: Limits) -> ServeConfig {
    ServeConfig { limits, ..ServeConfig::default() }
}

/// An endless stream over a pipe, in paused time: the deadline is met to the
/// millisecond.
#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_stream_that_flows() {
    let registry = Arc::new(Registry::default());
    let server = Server::new(registry.clone(), routes(), ServeConfig::default(), None);
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let tapped = registry.connections.open(Open {
        side: Side::Server,
        transport: Transport::Unknown,
        local: None,
        peer: None,
        tls: false,
    });
    tokio::spawn(server.serve_io(theirs, tapped, ConnectInfo::None));
    let mut raw = raw(ours).await;
    for (method, messages) in [("Trickle", 6), ("Mute", 0), ("Never", 0)] {
        let mut request = head(method);
        request.headers_mut().insert("grpc-timeout", "700m".parse().unwrap());
        let began = Instant::now();
        let (answer, _request) = raw.send_request(request, false).unwrap();
        let answer = answer.await.unwrap();
        let head = answer.headers().clone();
        let mut body = answer.into_body();
        let mut bytes = 0;
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            bytes += data.len();
            _ = body.flow_control().release_capacity(data.len());
        }
        let status = body.trailers().await.unwrap().unwrap_or(head);
        assert_eq!(status["grpc-status"], "4", "{method}");
        let waited = began.elapsed();
        assert!(waited >= Duration::from_millis(700), "{method}: {waited:?}");
        assert!(waited < Duration::from_millis(720), "{method}: {waited:?}");
        assert!(bytes / frame(1).len() >= messages, "{method}: {bytes}");
        let seen = registry.streams.snapshot(clock::now()).ended.remove(0);
        assert_eq!(seen.status.unwrap().name.as_ref(), "DEADLINE_EXCEEDED");
        assert!(seen.cancelled_ago_ns.is_some());
        assert_eq!(seen.deadline.unwrap().timeout_ns, 700_000_000);
    }
}

#[tokio::test]
async fn a_deadline_acts_while_the_peer_does_not_read() {
    let server = start(ServeConfig::default()).await;
    let mut raw = server.raw().await;
    let mut request = head("Flood");
    request.headers_mut().insert("grpc-timeout", "300m".parse().unwrap());
    let (answer, _request) = raw.send_request(request, true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    server.until(|live, _| live.iter().any(|s| s.phase == Phase::AwaitSend)).await;
    let seen = server.ended().await;
    assert_eq!(seen.state, Http2State::Reset);
    assert!(seen.cancel_reason.unwrap().contains("deadline of 300ms"));
    assert!(seen.age_ns - seen.ended_ago_ns.unwrap() < 2_000_000_000);
    let error = loop {
        match body.data().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("ended well"),
        }
    };
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
}

#[tokio::test]
async fn limits_hold_for_streams_that_are_not_listed() {
    let bounds = Bounds { live: 0, ..Bounds::default() };
    let registry = Registry::new(bounds, 1_000, std::time::Duration::from_millis(100));
    let server = start_with(registry, ServeConfig::default()).await;
    let mut raw = server.raw().await;
    let mut head = head("Mute");
    head.headers_mut().insert("grpc-timeout", "100m".parse().unwrap());
    let mut body = raw.send_request(head, false).unwrap().0.await.unwrap().into_body();
    assert!(body.data().await.is_none());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "4");
    let seen = server.registry.streams.snapshot(clock::now());
    assert_eq!((seen.live.len(), seen.ended.len(), seen.untracked), (0, 0, 1));
}

#[tokio::test]
async fn the_client_ends_its_streams_in_time_too() {
    let config = limited(Limits::new().enforce_deadline(false));
    let server = start(config).await;
    let client = server.client().await;
    let mut request = Request::new(stream::pending());
    request.set_timeout(Duration::from_millis(250));
    let mut answers = client.call("/t.T/Trickle", request).await.unwrap();
    let status = loop {
        match answers.message().await {
            Ok(message) => assert!(message.is_some()),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    drop(answers);
    server.ended().await;
}

#[tokio::test]
async fn timeouts_name_the_side_that_was_slow() {
    let limits = Limits::new()
        .recv_timeout(Duration::from_millis(150))
        .send_timeout(Duration::from_millis(150));
    let server = start(limited(limits)).await;
    let client = server.client().await;
    // The client sends one message, and then no other.
    let messages = stream::unfold(0, |n| async move {
        if n == 1 {
            std::future::pending::<()>().await;
        }
        Some((msg(1), n + 1))
    });
    let mut answers = client.call("/t.T/Echo", Request::new(messages)).await.unwrap();
    assert!(answers.message().await.unwrap().is_some());
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("the client has not sent"), "{status}");
    // A handler that does not read is not the client's fault.
    let mut mute = client.call("/t.T/Trickle", Request::new(stream::pending())).await.unwrap();
    for _ in 0..4 {
        assert!(mute.message().await.unwrap().is_some());
    }
    drop((mute, answers));
    server.until(|live, _| live.is_empty()).await;
    // The client takes nothing.
    let mut raw = server.raw().await;
    let (_answer, _request) = raw.send_request(head("Flood"), true).unwrap();
    server.until(|live, _| !live.is_empty()).await;
    let seen = server.ended().await;
    assert!(seen.cancel_reason.unwrap().contains("the client has not taken"));
    assert_eq!(seen.state, Http2State::Reset);
}

fn bucket(unit: RateUnit, per: RatePer, exceeded: Exceeded) -> RateLimit {
    RateLimit {
        unit,
        per,
        per_second: NonZeroU32::new(20).unwrap(),
        burst: NonZeroU32::new(2).unwrap(),
        exceeded,
    }
}

#[tokio::test]
async fn a_bucket_rejects_streams_or_slows_messages() {
    let reject = bucket(RateUnit::Streams, RatePer::Connection, Exceeded::Reject);
    let server = start(limited(Limits::new().rate(reject))).await;
    let client = server.client().await;
    let mut codes = Vec::new();
    for _ in 0..3 {
        let call = client.call("/t.T/Three", Request::new(stream::empty())).await;
        codes.push(call.err().map(|status| status.code()));
    }
    assert_eq!(codes, [None, None, Some(Code::ResourceExhausted)]);
    // Another connection has a bucket of its own.
    let other = server.client().await;
    assert!(other.call("/t.T/Three", Request::new(stream::empty())).await.is_ok());

    let delay = bucket(RateUnit::Messages, RatePer::Method, Exceeded::Delay);
    let server = start(limited(Limits::new().rate(delay))).await;
    let client = server.client().await;
    let began = std::time::Instant::now();
    let request = Request::new(stream::iter(vec![msg(1); 6]));
    let mut answers = client.call("/t.T/Echo", request).await.unwrap();
    let mut got = 0;
    while answers.message().await.unwrap().is_some() {
        got += 1;
    }
    assert_eq!(got, 6);
    // Two at once, four more at twenty a second.
    assert!(began.elapsed() >= Duration::from_millis(180), "{:?}", began.elapsed());
    let reject = bucket(RateUnit::Messages, RatePer::Method, Exceeded::Reject);
    let server = start(limited(Limits::new().rate(reject))).await;
    let client = server.client().await;
    let request = Request::new(stream::iter(vec![msg(1); 50]));
    let mut answers = client.call("/t.T/Echo", request).await.unwrap();
    let status = loop {
        match answers.message().await {
            Ok(message) => assert!(message.is_some()),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
}
