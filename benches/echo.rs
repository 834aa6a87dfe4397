//! What everything together costs a gRPC server: 64 bidirectional streams play
//! ping-pong, and what counts is messages for each CPU second of the server.
//!
//! `cargo bench --bench echo`; with `--features console-full` the real
//! `console_subscriber` plays too. Server and client are processes of their
//! own, on a CPU of their own where that can be had. The handler does nothing
//! but echo small messages, so that nothing hides what we add.

mod common;
#[path = "common/mirror.rs"]
mod mirror;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use common::{Peer, can_pin, cpu_ns, either, grouped, headline, median, obey, spread, verdict};
use futures_util::stream;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use mirror::Mirror;
use taskprof::Profiler;
use taskprof::pb::echo::EchoRequest;
use taskprof::pb::echo::echo_client::EchoClient;
use taskprof::pb::echo::echo_server::EchoServer;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};

const STREAMS: usize = 64;
/// Messages a CPU second, against plain tonic.
const LEAST: f64 = 0.98;

/// The kinds of server, plain tonic first.
const KINDS: &[(&str, &str)] = &[
    ("plain", "plain tonic"),
    ("bare", "hyper's loop without us"),
    ("taskprof", "taskprof: serve()"),
    ("layer", "taskprof: tonic with grpc_layer()"),
    #[cfg(feature = "console-full")]
    ("console", "console-subscriber, nobody attached"),
];

fn main() {
    match common::role() {
        None => report(),
        Some((role, args)) if role == "server" => server(&args[0]),
        Some((role, args)) if role == "client" => client(&args[0], &args[1]),
        Some((role, _)) => panic!("no role {role}"),
    }
}

// ── server ───────────────────────────────────────────────────────────────

fn routes() -> Routes {
    Routes::new(EchoServer::new(Mirror)).prepare()
}

/// The same HTTP/2 settings for all, those of taskprof's own loop.
struct Settings {
    stream_window: u32,
    connection_window: u32,
    streams: u32,
    keepalive: Option<Duration>,
}

fn settings() -> Settings {
    let config = taskprof::grpc::ServeConfig::default();
    Settings {
        stream_window: config.stream_window,
        connection_window: config.connection_window,
        streams: config.max_concurrent_streams,
        keepalive: config.keepalive_interval,
    }
}

fn tonic_server() -> Server {
    let settings = settings();
    Server::builder()
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_concurrent_streams(settings.streams)
        .http2_keepalive_interval(settings.keepalive)
}

fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

async fn plain(listener: TcpListener) {
    tonic_server()
        .add_routes(routes())
        .serve_with_incoming(incoming(listener))
        .await
        .expect("serve");
}

/// hyper's own server under the same routes: what is left of taskprof's loop
/// without its accounting.
async fn bare(listener: TcpListener) {
    let settings = settings();
    loop {
        let (socket, _) = listener.accept().await.expect("accept");
        socket.set_nodelay(true).expect("nodelay");
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(settings.keepalive)
            .max_concurrent_streams(settings.streams)
            .initial_stream_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window);
        let service = TowerToHyperService::new(routes());
        tokio::spawn(builder.serve_connection(TokioIo::new(socket), service));
    }
}

fn profiler() -> Profiler {
    Profiler::builder()
        .http("127.0.0.1:0")
        .console("127.0.0.1:0")
        .descriptors(taskprof::pb::FILE_DESCRIPTOR_SET)
        .start()
        .expect("profiler")
}

fn server(kind: &str) {
    #[cfg(feature = "console-full")]
    if kind == "console" {
        console_subscriber::ConsoleLayer::builder().server_addr(([127, 0, 0, 1], 0)).init();
    }
    let profiler = matches!(kind, "taskprof" | "layer").then(profiler);
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all();
    let builder = match &profiler {
        Some(profiler) => profiler.runtime(builder),
        None => builder,
    };
    let runtime = { builder }.build().expect("runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("bind");
    let address = listener.local_addr().expect("bound");
    match (kind, profiler.clone()) {
        ("taskprof", Some(profiler)) => drop(runtime.spawn(async move {
            profiler.serve(routes(), listener).await.expect("serve");
        })),
        ("layer", Some(profiler)) => drop(runtime.spawn(async move {
            tonic_server()
                .layer(profiler.grpc_layer())
                .add_routes(routes())
                .serve_with_incoming(incoming(listener))
                .await
                .expect("serve");
        })),
        ("bare", _) => drop(runtime.spawn(bare(listener))),
        ("plain" | "console", _) => drop(runtime.spawn(plain(listener))),
        (kind, _) => panic!("no kind {kind}"),
    }
    common::settle();
    obey(&address.to_string(), |_| {
        // Proof that the accounting is on: the streams that it lists now.
        let streams = profiler.as_ref().map(|profiler| {
            let snapshot = profiler.snapshot(taskprof::serve::Want::ALL).expect("snapshot");
            let messages: u64 = snapshot.streams.iter().map(|s| s.received.messages).sum();
            (snapshot.streams.len(), messages)
        });
        streams.map_or("-".to_owned(), |(streams, messages)| format!("{streams} {messages}"))
    });
    runtime.shutdown_background();
}

// ── client ───────────────────────────────────────────────────────────────

/// Round trips so far.
static ECHOES: AtomicU64 = AtomicU64::new(0);

async fn ping_pong(mut client: EchoClient<tonic::transport::Channel>, go: watch::Receiver<bool>) {
    let (send, receive) = mpsc::channel(1);
    let requests = stream::unfold(receive, |mut receive| async {
        receive.recv().await.map(|request| (request, receive))
    });
    let mut go = go;
    let mut echoes =
        client.bidirectional_streaming_echo(requests).await.expect("call").into_inner();
    while go.wait_for(|go| *go).await.is_ok() {
        send.send(EchoRequest { message: "ping".into() }).await.expect("open");
        let echo = echoes.message().await.expect("open").expect("an echo");
        assert_eq!(echo.message, "ping");
        ECHOES.fetch_add(1, Relaxed);
    }
}

/// Plays for as long as it is asked to; answers with the messages and the
/// server's CPU time. Both are read while nothing moves, so that they belong
/// to each other exactly.
fn client(address: &str, server: &str) {
    let runtime: Runtime =
        Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    let (go, wait) = watch::channel(false);
    runtime.block_on(async {
        let settings = settings();
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .expect("address")
            .initial_stream_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window)
            .connect()
            .await
            .expect("connect");
        for _ in 0..STREAMS {
            tokio::spawn(ping_pong(EchoClient::new(channel.clone()), wait.clone()));
        }
    });
    drop(wait);
    obey("ready", |milliseconds| {
        let duration = Duration::from_millis(milliseconds.parse().expect("milliseconds"));
        let (messages, cpu) = (ECHOES.load(Relaxed), cpu_ns(server));
        go.send(true).expect("streams");
        std::thread::sleep(duration);
        go.send(false).expect("streams");
        let mut after = ECHOES.load(Relaxed);
        loop {
            std::thread::sleep(Duration::from_millis(20));
            let now = ECHOES.load(Relaxed);
            if now == after {
                break;
            }
            after = now;
        }
        format!("{} {}", after - messages, cpu_ns(server) - cpu)
    });
}

// ── report ───────────────────────────────────────────────────────────────

struct Played {
    server: Peer,
    client: Peer,
}

impl Played {
    fn start(kind: &str, pinned: bool) -> Self {
        let server = Peer::start(pinned.then_some(0), "server", &[kind]);
        let client = Peer::start(pinned.then_some(1), "client", &[&server.hello, &server.pid()]);
        Self { server, client }
    }

    /// Messages for each CPU second of the server.
    fn round(&mut self, milliseconds: u32) -> f64 {
        let answer = self.client.ask(&milliseconds.to_string());
        let (messages, cpu) = answer.split_once(' ').expect("two figures");
        let messages: f64 = messages.parse().expect("messages");
        let cpu: f64 = cpu.parse().expect("nanoseconds");
        assert!(messages > 0.0 && cpu > 0.0, "nothing moved: {answer}");
        messages / cpu * 1e9
    }
}

fn report() {
    // Short rounds, so that whatever else the machine does meets all kinds alike;
    // several starts, since each process has its own luck with memory.
    let (starts, rounds, milliseconds) = either((16, 8, 200), (1, 2, 500));
    let pinned = can_pin();
    headline(&format!(
        "echo: {STREAMS} bidirectional ping-pong streams on one connection, one worker, {}\n\
         {starts} times fresh processes, {rounds} rounds of {milliseconds} ms of each kind in turn",
        if pinned { "server on CPU 0, client on CPU 1" } else { "not pinned (no taskset)" },
    ));
    let mut rates = vec![Vec::new(); KINDS.len()];
    let mut ratios = vec![Vec::new(); KINDS.len()];
    // The median of each start.
    let mut medians = vec![Vec::new(); KINDS.len()];
    for _ in 0..starts {
        let mut played: Vec<Played> =
            KINDS.iter().map(|(kind, _)| Played::start(kind, pinned)).collect();
        for one in &mut played {
            one.round(milliseconds / 2);
        }
        for round in 0..rounds {
            let mut rate = vec![0.0; KINDS.len()];
            // Each comes in each place, and before and after its neighbours.
            let mut turn: Vec<usize> = (0..KINDS.len()).collect();
            turn.rotate_left(round % KINDS.len());
            if round / KINDS.len() % 2 == 1 {
                turn.reverse();
            }
            for kind in turn {
                rate[kind] = played[kind].round(milliseconds);
            }
            for (kind, rate_of) in rate.iter().enumerate() {
                rates[kind].push(*rate_of);
                ratios[kind].push(rate_of / rate[0]);
            }
        }
        for (kind, ratios) in ratios.iter().enumerate() {
            medians[kind].push(median(ratios[ratios.len() - rounds..].to_vec()));
        }
        for ((kind, _), one) in KINDS.iter().zip(&mut played) {
            if matches!(*kind, "taskprof" | "layer") {
                let seen = one.server.ask("streams");
                let streams = seen.split(' ').next().and_then(|n| n.parse().ok());
                assert_eq!(streams, Some(STREAMS), "{kind} did not see its streams: {seen}");
            }
        }
    }
    println!();
    println!("{:36} {:>14} {:>7}  {:15} goal", "", "messages/CPU s", "ratio", "of the starts");
    for (kind, (role, name)) in KINDS.iter().enumerate() {
        let (low, high) = spread(&medians[kind]);
        let ratio = median(ratios[kind].clone());
        let goal = match *role {
            "plain" => "1 by definition".to_owned(),
            "taskprof" | "layer" => format!("at least {LEAST:.2}: {}", verdict(ratio >= LEAST)),
            _ => "beside it".to_owned(),
        };
        println!(
            "{name:36} {:>14} {ratio:>7.3}  {low:.3} to {high:.3}  {goal}",
            grouped(median(rates[kind].clone()) as u64)
        );
    }
    if cfg!(not(feature = "console-full")) {
        println!(
            "left out: console-subscriber; see it with\n  cargo bench --bench echo --features console-full"
        );
    }
}
