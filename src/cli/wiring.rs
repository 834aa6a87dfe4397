//! Where the reference server meets the profiler.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use super::args::Listen;
use super::{Failure, logging};
use crate::error::{Error, ErrorKind};
use crate::reference::{Reference, Shutdown};

/// How long calls may take to end once the server is asked to stop.
const GRACE: Duration = Duration::from_secs(5);

/// tonic's default, 1 MiB for a stream and for the whole connection, lets one
/// unread upload starve its connection; here it takes sixteen.
const CONNECTION_WINDOW: u32 = 16 << 20;

const KEEPALIVE: Duration = Duration::from_secs(20);

/// A running reference server.
pub struct Server {
    runtime: Runtime,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    shutdown: Shutdown,
    stop: CancellationToken,
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where the debug server answers.
    pub http: Option<SocketAddr>,
    /// Where tokio-console attaches.
    pub console: Option<SocketAddr>,
}

/// Starts the reference server as the command line says.
pub fn start(listen: &Listen, faults: bool) -> Result<Server, Failure> {
    let console = logging::install(&listen.console)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = listen.workers {
        builder.worker_threads(workers.into());
    }
    let runtime = builder
        .thread_name("server")
        .enable_all()
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
        Ok::<_, Failure>((listener, Reference::new(faults).await?))
    })?;
    let grpc = listener
        .local_addr()
        .map_err(|error| Error::io("the listening socket has no address", error))?;

    let Reference { routes, shutdown } = reference;
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let serving = runtime.spawn(
        tonic::transport::Server::builder()
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .add_routes(routes)
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                stopped,
            ),
    );
    Ok(Server { runtime, serving, shutdown, stop, grpc, http: None, console })
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
            Some(Ok(Err(error))) => Err(failed(error)),
            Some(_) => Err(Failure::failed("the gRPC server ended by itself")),
        }
    }

    /// Ends the calls and the runtime. Calls that do not end within a grace
    /// period are cut off.
    pub fn stop(self) -> Result<(), Failure> {
        let Self { runtime, serving, shutdown, stop, .. } = self;
        let drained = runtime.block_on(async {
            stop.cancel();
            tokio::time::timeout(GRACE, async {
                shutdown.begin().await;
                serving.await
            })
            .await
        });
        // Tasks that are left are dropped at their next await; one that never
        // awaits is not waited for.
        runtime.shutdown_timeout(Duration::from_secs(1));
        match drained {
            Ok(Ok(Ok(()))) | Err(_) => Ok(()),
            Ok(Ok(Err(error))) => Err(failed(error)),
            Ok(Err(_)) => Err(Failure::failed("the gRPC server panicked")),
        }
    }
}

fn failed(error: tonic::transport::Error) -> Failure {
    Error::new(ErrorKind::Io, "the gRPC server failed").with_source(error).into()
}
