//! Both ends of a connection learn from its heartbeat.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::Endpoint;

use super::lab;
use crate::instrument::grpc::heartbeat::{keep, service};
use crate::instrument::grpc::{Connect, Limits, MetadataKeys, ServeConfig, serve, tcp};
use crate::model::{Connection, Heartbeat};
use crate::pb::heartbeat::BeatRequest;
use crate::pb::heartbeat::heartbeat_client::HeartbeatClient;
use crate::registry::{Registry, clock};

const EVERY: Duration = Duration::from_millis(20);

async fn until(registry: &Registry, what: &str, is: impl Fn(&Connection) -> bool) {
    for _ in 0..5_000 {
        if registry.connections.snapshot(clock::now(), &[]).iter().any(&is) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{what} never comes: {:#?}", registry.connections.snapshot(clock::now(), &[]));
}

fn beats(connection: &Connection, is: impl FnOnce(&Heartbeat) -> bool) -> bool {
    connection.heartbeat.as_ref().is_some_and(is)
}

#[tokio::test]
async fn both_ends_see_it_and_a_drain_does_not_wait_for_it() {
    let server = Arc::new(Registry::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", listener.local_addr().unwrap()));
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(serve(
        server.clone(),
        Routes::new(service()),
        listener,
        ServeConfig::default(),
        async { _ = stopped.await },
    ));

    let client = Arc::new(Registry::default());
    let (registry, limits, metadata) = (client.clone(), Limits::default(), MetadataKeys::default());
    let endpoint = endpoint.unwrap();
    let connector = tcp(&endpoint);
    let channel =
        Connect { registry, limits, metadata }.now(endpoint, connector).await.expect("a channel");
    // The connection outlives the heartbeat.
    let keeping = tokio::spawn(keep(channel.clone(), EVERY));

    let answered = |beat: &Heartbeat| beat.rtt_ns.is_some() && beat.answered_ago_ns.is_some();
    until(&client, "an answer", |connection| beats(connection, answered)).await;
    until(&server, "a beat", |connection| {
        beats(connection, |beat| beat.interval_ns == 20_000_000 && beat.answered_ago_ns.is_some())
    })
    .await;

    // A client whose application does not run sends no more beats.
    keeping.abort();
    until(&server, "its end", |connection| connection.heartbeat.is_none()).await;
    until(&client, "its end", |connection| connection.heartbeat.is_none()).await;

    stop.send(()).unwrap();
    let drained = tokio::time::timeout(Duration::from_secs(5), serving).await;
    drained.expect("no wait for the ten seconds of the drain").unwrap().unwrap();
    drop(channel);
}

#[tokio::test]
async fn a_running_heartbeat_ends_with_the_drain() {
    let server = Arc::new(Registry::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async { _ = stopped.await };
    let routes = Routes::new(service());
    let config = ServeConfig::default();
    let serving = tokio::spawn(serve(server.clone(), routes, listener, config, stopped));
    let channel = Endpoint::from_shared(uri).unwrap().connect().await.unwrap();
    // Through a channel that is not ours, too, the server sees it.
    let keeping = tokio::spawn(keep(channel, EVERY));
    until(&server, "a beat", |connection| connection.heartbeat.is_some()).await;
    stop.send(()).unwrap();
    let drained = tokio::time::timeout(Duration::from_secs(5), serving).await;
    drained.expect("no wait for the ten seconds of the drain").unwrap().unwrap();
    keeping.abort();
}

/// No limit of messages holds a heartbeat up, so it must not be a way around them.
#[tokio::test]
async fn beats_are_read_at_a_pace_however_fast_they_come() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let (_stop, stopped) = oneshot::channel::<()>();
    let stopped = async { _ = stopped.await };
    let (registry, routes) = (Arc::default(), Routes::new(service()));
    let serving = tokio::spawn(serve(registry, routes, listener, ServeConfig::default(), stopped));
    let channel = Endpoint::from_shared(uri).unwrap().connect().await.unwrap();
    let mut client = HeartbeatClient::new(channel);
    let began = Instant::now();
    let all = (1..=20).map(|sequence| BeatRequest { sequence, interval_ms: 1 });
    let mut answers = client.beat(futures_util::stream::iter(all)).await.unwrap().into_inner();
    let mut last = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        last = answer.sequence;
    }
    assert_eq!(last, 20);
    assert!(began.elapsed() >= Duration::from_millis(190), "{:?}", began.elapsed());
    serving.abort();
}

#[tokio::test]
async fn a_server_without_it_says_so() {
    let server = lab::start(ServeConfig::default()).await;
    let client = server.client().await;
    let status = tokio::time::timeout(Duration::from_secs(5), keep(client.channel, EVERY)).await;
    assert_eq!(status.unwrap().code(), Code::Unimplemented);
}
