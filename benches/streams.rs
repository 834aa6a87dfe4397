//! What an open gRPC stream costs a server in memory, by its resident pages:
//! tonic alone, under `grpc_layer()`, and with `serve()`, which adds the tap.
//!
//! `cargo bench --bench streams`. Server and client are processes of their
//! own. Each stream is bidirectional, has its response headers, and waits.

mod common;
#[path = "common/mirror.rs"]
mod mirror;

use std::time::Duration;

use common::{Peer, either, grouped, headline, obey, resident, verdict};
use futures_util::stream;
use mirror::Mirror;
use taskprof::Profiler;
use taskprof::pb::echo::echo_client::EchoClient;
use taskprof::pb::echo::echo_server::EchoServer;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};

/// Streams of one connection at most.
const PER_CONNECTION: usize = 10_000;
/// Bytes that layer and tap may add to a stream.
const MOST: f64 = 0.8 * 1024.0;

const KINDS: &[(&str, &str)] = &[
    ("plain", "plain tonic"),
    ("layer", "taskprof: tonic with grpc_layer()"),
    ("taskprof", "taskprof: serve()"),
];

fn main() {
    match common::role() {
        None => report(),
        Some((role, args)) if role == "server" => server(&args[0]),
        Some((role, args)) if role == "client" => client(&args[0]),
        Some((role, _)) => panic!("no role {role}"),
    }
}

fn server(kind: &str) {
    common::no_huge_pages();
    let profiler = (kind != "plain").then(|| {
        let builder = Profiler::builder().max_streams(1 << 18).await_chains(false);
        builder.start().expect("profiler")
    });
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all();
    let runtime = builder.build().expect("runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("bind");
    let address = listener.local_addr().expect("bound");
    let routes = Routes::new(EchoServer::new(Mirror)).prepare();
    let limit = 2 * PER_CONNECTION as u32;
    match (kind, profiler.clone()) {
        ("taskprof", Some(profiler)) => drop(runtime.spawn(async move {
            let mut config = profiler.serve_config();
            config.max_concurrent_streams = limit;
            let served = profiler.serve_with(routes, listener, config, std::future::pending());
            served.await.expect("serve");
        })),
        ("layer", Some(profiler)) => drop(runtime.spawn(async move {
            let mut server =
                Server::builder().max_concurrent_streams(limit).layer(profiler.grpc_layer());
            let incoming = TcpIncoming::from(listener);
            server.add_routes(routes).serve_with_incoming(incoming).await.expect("serve");
        })),
        _ => drop(runtime.spawn(async move {
            let mut server = Server::builder().max_concurrent_streams(limit);
            let incoming = TcpIncoming::from(listener);
            server.add_routes(routes).serve_with_incoming(incoming).await.expect("serve");
        })),
    }
    common::settle();
    obey(&address.to_string(), |question| match (question, &profiler) {
        ("streams", Some(profiler)) => {
            let snapshot = profiler.snapshot(taskprof::serve::Want::ALL).expect("snapshot");
            snapshot.streams.len().to_string()
        }
        _ => resident().to_string(),
    });
    runtime.shutdown_background();
}

/// Opens as many streams as it is told, and holds them.
fn client(address: &str) {
    let runtime =
        Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    let mut held = Vec::new();
    obey("ready", |streams| {
        let goal: usize = streams.parse().expect("a number");
        runtime.block_on(async {
            while held.len() < goal {
                let uri = format!("http://{address}");
                let endpoint = Endpoint::from_shared(uri).expect("address");
                let channel = endpoint.connect().await.expect("connect");
                let client = EchoClient::new(channel);
                for _ in 0..PER_CONNECTION.min(goal - held.len()) {
                    let call = client.clone().bidirectional_streaming_echo(stream::pending()).await;
                    held.push(call.expect("headers"));
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        });
        held.len().to_string()
    });
}

/// Resident bytes for each of so many open streams, and their number as seen.
fn measure(kind: &str, streams: usize) -> (f64, String) {
    let mut server = Peer::start(None, "server", &[kind]);
    let mut client = Peer::start(None, "client", &[&server.hello]);
    // The first ones bring what is there only once.
    client.ask("100");
    let mut pages = || server.ask("pages").parse::<u64>().expect("bytes");
    let before = pages();
    client.ask(&(100 + streams).to_string());
    let after = pages();
    (after.saturating_sub(before) as f64 / streams as f64, server.ask("streams"))
}

fn report() {
    headline("streams: resident bytes of a server for each open bidirectional stream");
    for streams in either(vec![10_000, 100_000], vec![2_000]) {
        let mut plain = 0.0;
        for (kind, name) in KINDS {
            let (bytes, seen) = measure(kind, streams);
            let goal = if *kind == "plain" {
                plain = bytes;
                "the measure".to_owned()
            } else {
                assert_eq!(seen, (streams + 100).to_string(), "{kind} did not see its streams");
                let more = bytes - plain;
                format!(
                    "{} more, at most {MOST:.0}: {}",
                    grouped(more.max(0.0) as u64),
                    verdict(more <= MOST)
                )
            };
            println!(
                "{:>8} streams  {name:36} {:>8} bytes  {goal}",
                grouped(streams as u64),
                grouped(bytes as u64)
            );
        }
    }
}
