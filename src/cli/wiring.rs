//! Where the reference server meets the profiler.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::args::{Console, Listen};
use super::{Failure, advice, log, token};
use crate::error::{Error, ErrorKind, Result};
use crate::grpc::{Exceeded, Limits, RateLimit, RatePer, RateUnit, ServeConfig};
use crate::otel::OtelConfig;
use crate::pb;
use crate::profiler::Profiler;
use crate::reference::{self, Reference, Shutdown};

/// How long calls may take to end once the server is asked to stop.
const GRACE: Duration = Duration::from_secs(5);

/// A running reference server with the profiler on it.
pub struct Server {
    runtime: Runtime,
    serving: JoinHandle<Result<()>>,
    shutdown: Shutdown,
    stop: CancellationToken,
    profiler: Profiler,
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where the debug server answers.
    pub http: Option<SocketAddr>,
    /// Where tokio-console attaches.
    pub console: Option<SocketAddr>,
}

/// Starts the reference server as the command line says.
pub fn start(listen: &Listen, faults: bool) -> Result<Server, Failure> {
    let full_console = log::install(listen.console == Console::Full)?;
    let profiler = profiler(listen)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = listen.workers {
        builder.worker_threads(workers.into());
    }
    builder.thread_name("server").enable_all();
    let runtime = profiler
        .runtime(builder)
        .build()
        .map_err(|error| Failure::failed(format!("cannot start a runtime: {error}")))?;

    let (listener, reference) = runtime.block_on(async {
        let listener = TcpListener::bind(listen.grpc).await.map_err(|error| {
            let advice = match error.kind() {
                std::io::ErrorKind::AddrInUse => "; choose another with --grpc ADDR",
                _ => "",
            };
            Failure::failed(format!("cannot serve gRPC on {}: {error}{advice}", listen.grpc))
        })?;
        Ok::<_, Failure>((
            listener,
            Reference::with(faults, Some(profiler.channelz_service())).await?,
        ))
    })?;
    let grpc = listener
        .local_addr()
        .map_err(|error| Error::io("the listening socket has no address", error))?;

    let Reference { routes, shutdown } = reference;
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let config = ServeConfig {
        drain: GRACE,
        limits: limits(listen),
        keepalive_interval: Some(listen.keepalive),
        keepalive_timeout: listen.keepalive_timeout,
        max_concurrent_streams: listen.max_streams,
        ..profiler.serve_config()
    };
    let serving = {
        let profiler = profiler.clone();
        runtime.spawn(async move { profiler.serve_with(routes, listener, config, stopped).await })
    };
    let console = full_console.or_else(|| profiler.console_addr());
    Ok(Server {
        runtime,
        serving,
        shutdown,
        stop,
        grpc,
        http: profiler.http_addr(),
        console,
        profiler,
    })
}

/// The remedies against streams that hang, as the command line says.
fn limits(listen: &Listen) -> Limits {
    let mut limits = Limits::new();
    if let Some(timeout) = listen.recv_timeout {
        limits = limits.recv_timeout(timeout);
    }
    if let Some(timeout) = listen.send_timeout {
        limits = limits.send_timeout(timeout);
    }
    // Streams that are too many are refused at once. A sender of too many
    // messages is slowed down: a message that was lost would break its stream.
    for (unit, per, per_second) in [
        (RateUnit::Streams, RatePer::Connection, listen.stream_rate),
        (RateUnit::Messages, RatePer::Connection, listen.message_rate),
        (RateUnit::Streams, RatePer::Method, listen.method_stream_rate),
        (RateUnit::Messages, RatePer::Method, listen.method_message_rate),
    ] {
        let Some(per_second) = per_second else { continue };
        let exceeded = match unit {
            RateUnit::Streams => Exceeded::Reject,
            RateUnit::Messages => Exceeded::Delay,
        };
        limits = limits.rate(RateLimit { unit, per, per_second, burst: per_second, exceeded });
    }
    limits
}

fn profiler(listen: &Listen) -> Result<Profiler, Failure> {
    let mut builder = Profiler::builder()
        .http(listen.http)
        .blocked_threshold(listen.blocked_threshold)
        .descriptors(pb::FILE_DESCRIPTOR_SET)
        .descriptors(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .idle_methods(reference::IDLE_METHODS)
        .control(listen.http.ip().is_loopback());
    if let Some(path) = &listen.unix {
        builder = builder.unix(path);
    }
    if let Some(path) = &listen.token_file {
        builder = builder.token(token::read(path)?);
    }
    if let Console::At(address) = listen.console {
        builder = builder.console(address);
    }
    if listen.otlp.is_some() || listen.zipkin.is_some() {
        let mut config = OtelConfig::new();
        if let Some(url) = &listen.otlp {
            config = config.otlp(url);
        }
        if let Some(url) = &listen.zipkin {
            config = config.zipkin(url);
        }
        builder = builder.otel(config);
    }
    builder.start().map_err(|error| advise(error, listen))
}

/// Says which option would help.
fn advise(error: Error, listen: &Listen) -> Failure {
    match error.kind() {
        // The console's wire knows no token; this one could have had one.
        ErrorKind::Unsafe if listen.token_file.is_none() && !listen.http.ip().is_loopback() => {
            Failure::usage(format!("{error}; see --token-file"))
        }
        ErrorKind::Unsafe => Failure::usage(error),
        _ => advice::on_bind(error, listen.unix.as_deref()),
    }
}

impl Server {
    /// Blocks this thread until `stop`, or until serving fails.
    pub fn wait(&mut self, stop: &CancellationToken) -> Result<(), Failure> {
        // Polled on this thread: blocked workers do not keep it from waking.
        let ended = self.runtime.block_on(async {
            tokio::select! {
                () = stop.cancelled() => None,
                ended = &mut self.serving => Some(ended),
            }
        });
        match ended {
            None => Ok(()),
            Some(Ok(Err(error))) => Err(error.into()),
            Some(_) => Err(Failure::failed("the gRPC server ended by itself")),
        }
    }

    /// Ends the calls, the runtime and the debug server. Calls that do not end
    /// within a grace period are cut off.
    pub fn stop(self) -> Result<(), Failure> {
        let Self { runtime, serving, shutdown, stop, profiler, .. } = self;
        // On a runtime of its own: when all workers are blocked nobody drives
        // the timers of theirs, and the grace period would never be over.
        let control = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| Failure::failed(format!("cannot start a runtime: {error}")))?;
        // Watchers are not kept waiting while calls drain. The debug server
        // answers until they have: it tells which will not end.
        stop.cancel();
        profiler.close_streams();
        let drained = control.block_on(async {
            tokio::time::timeout(GRACE + Duration::from_secs(1), async {
                shutdown.begin().await;
                serving.await
            })
            .await
        });
        profiler.shutdown();
        // Tasks that are left are dropped at their next await; one that never
        // awaits is not waited for.
        runtime.shutdown_timeout(Duration::from_secs(1));
        match drained {
            Ok(Ok(Ok(()))) | Err(_) => Ok(()),
            Ok(Ok(Err(error))) => Err(error.into()),
            Ok(Err(_)) => Err(Failure::failed("the gRPC server panicked")),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn told(args: &[&str]) -> Limits {
        let cli = Cli::parse_from([&["taskprof", "serve"], args].concat());
        let Command::Serve(serve) = cli.command else { panic!("serve") };
        limits(&serve.listen)
    }

    #[test]
    fn each_option_sets_its_own_limit() {
        let rate = |unit, per, per_second: u32, exceeded| {
            let per_second = per_second.try_into().unwrap();
            RateLimit { unit, per, per_second, burst: per_second, exceeded }
        };
        let (streams, messages) = (RateUnit::Streams, RateUnit::Messages);
        let plain = Limits::new().send_timeout(Duration::from_secs(600)).rate(rate(
            streams,
            RatePer::Connection,
            50_000,
            Exceeded::Reject,
        ));
        assert_eq!(told(&[]), plain);
        let all = [
            ["--recv-timeout", "1s"],
            ["--send-timeout", "2s"],
            ["--stream-rate", "3"],
            ["--message-rate", "4"],
            ["--method-stream-rate", "5"],
            ["--method-message-rate", "6"],
        ];
        let wanted = Limits::new()
            .recv_timeout(Duration::from_secs(1))
            .send_timeout(Duration::from_secs(2))
            .rate(rate(streams, RatePer::Connection, 3, Exceeded::Reject))
            .rate(rate(messages, RatePer::Connection, 4, Exceeded::Delay))
            .rate(rate(streams, RatePer::Method, 5, Exceeded::Reject))
            .rate(rate(messages, RatePer::Method, 6, Exceeded::Delay));
        assert_eq!(told(all.as_flattened()), wanted);
    }
}
