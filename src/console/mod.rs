//! The wire that `tokio-console` attaches to, served from snapshots.
//!
//! [`start`] listens on a loopback address and speaks the `Instrument` service
//! of `console-api`, so that an unmodified `tokio-console` shows the tasks of
//! our registry: no `tracing` feature in tokio, no event per poll. While nobody
//! is attached it does nothing at all; with clients, one snapshot a second
//! serves them all.
//!
//! What it does not have: resources and async operations, wakes, and histograms
//! of poll times (see [`wire`] and [`service`] for what the client then shows).
//! Tasks that begin and end between two snapshots never appear.
//!
//! ```text
//!   snapshots() --blocking pool--> Feed --newest--> Updates --page--> client 1
//!                 one at a time                     Updates --page--> client 2
//!                                                   (each with its Ledger)
//! ```

mod feed;
#[cfg(feature = "console-full")]
pub mod full;
mod incoming;
mod ledger;
mod service;
mod wire;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use console_api::instrument::instrument_server::InstrumentServer;
use tokio::runtime::{self, Runtime};

use crate::error::{Error, ErrorKind, Result};
use crate::model::Snapshot;
use feed::Feed;

/// Where snapshots come from. Called from a thread that may block, never twice
/// at once.
pub type SnapshotFn = Arc<dyn Fn() -> Result<Snapshot> + Send + Sync>;

/// How long open streams may take to close.
const DRAIN: Duration = Duration::from_millis(600);

/// How long a snapshot in flight is waited for at the end.
const LAST_SNAPSHOT: Duration = Duration::from_millis(200);

/// Connections beyond the clients: one too many must still be told so.
const CONNECTIONS: usize = 16;

/// A request is an id at most.
const REQUEST_BYTES: usize = 4096;

/// Each client holds an updates, a state and a details stream, and pauses.
const STREAMS_PER_CONNECTION: u32 = 16;

/// How to serve `tokio-console`.
#[derive(Clone, Debug)]
pub struct ConsoleConfig {
    /// Loopback address to listen on; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Pause between two snapshots while a client watches.
    pub interval: Duration,
    /// Clients at once; more are answered `RESOURCE_EXHAUSTED`.
    pub max_clients: usize,
}

impl ConsoleConfig {
    /// One snapshot a second for at most eight clients.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, interval: Duration::from_secs(1), max_clients: 8 }
    }
}

/// What the server has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsoleStats {
    /// Clients that watch now.
    pub clients: u64,
    /// Streams refused for want of a place.
    pub refused: u64,
    /// Snapshots taken.
    pub snapshots: u64,
    /// Snapshots that could not be taken.
    pub failures: u64,
    /// Snapshots that a client did not get because it read too slowly.
    pub skipped: u64,
}

/// A running server. Dropping it shuts it down.
#[derive(Debug)]
pub struct ConsoleServer {
    addr: SocketAddr,
    feed: FeedHandle,
    thread: Option<JoinHandle<()>>,
}

struct FeedHandle(Arc<Feed>);

impl std::fmt::Debug for FeedHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.stats().fmt(f)
    }
}

/// Starts the server on its own thread and runtime, so that it answers while
/// every worker of the watched runtime is blocked.
///
/// # Errors
/// `Unsafe` for an address that is not loopback: the protocol has no place for
/// a token. `Bind` if the address is in use.
pub fn start(config: ConsoleConfig, snapshots: SnapshotFn) -> Result<ConsoleServer> {
    let (listener, addr) = bind(config.addr)?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        // One snapshot at a time is all that is ever asked of it.
        .max_blocking_threads(1)
        .thread_name("taskprof-console-snapshot")
        .build()
        .map_err(|error| Error::io("cannot build the runtime for tokio-console", error))?;

    let feed = Feed::new(config.max_clients);
    let thread = std::thread::Builder::new()
        .name("taskprof-console".into())
        .spawn({
            let feed = Arc::clone(&feed);
            move || run(runtime, listener, feed, config, snapshots)
        })
        .map_err(|error| Error::io("cannot start the thread for tokio-console", error))?;
    Ok(ConsoleServer { addr, feed: FeedHandle(feed), thread: Some(thread) })
}

/// Listens on a loopback address.
fn bind(addr: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    if !addr.ip().to_canonical().is_loopback() {
        return Err(Error::new(
            ErrorKind::Unsafe,
            format!(
                "tokio-console cannot be served on {addr}: its protocol has no authentication; \
                 use a loopback address such as 127.0.0.1:{}, over ssh from elsewhere",
                addr.port()
            ),
        ));
    }
    let listening = |error| Error::io(format!("cannot listen on {addr} for tokio-console"), error);
    let listener = TcpListener::bind(addr).map_err(listening)?;
    listener.set_nonblocking(true).map_err(listening)?;
    let addr = listener.local_addr().map_err(listening)?;
    Ok((listener, addr))
}

fn run(
    runtime: Runtime,
    listener: TcpListener,
    feed: Arc<Feed>,
    config: ConsoleConfig,
    snapshots: SnapshotFn,
) {
    let service = InstrumentServer::new(service::Service { feed: Arc::clone(&feed) })
        .max_decoding_message_size(REQUEST_BYTES);
    let served = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let serve = tonic::transport::Server::builder()
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .http2_max_header_list_size(16 * 1024)
            .add_service(service)
            .serve_with_incoming_shutdown(
                incoming::incoming(listener, config.max_clients + CONNECTIONS),
                feed.closed(),
            );
        let overtime = async {
            feed.closed().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = serve => served.map_err(std::io::Error::other),
            () = overtime => Ok(()),
            () = feed.run(snapshots, config.interval) => Ok(()),
        }
    });
    if let Err(error) = served {
        tracing::error!(%error, "the server for tokio-console ended");
    }
    feed.close();
    // A snapshot that hangs must not keep the process from exiting.
    runtime.shutdown_timeout(LAST_SNAPSHOT);
}

impl ConsoleServer {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it has done so far.
    #[cfg(test)]
    pub fn stats(&self) -> ConsoleStats {
        self.feed.0.stats()
    }

    /// Begins to close every stream and to stop, which takes less than a
    /// second: dropping the server waits for it.
    pub fn begin_shutdown(&self) {
        self.feed.0.close();
    }
}

impl Drop for ConsoleServer {
    fn drop(&mut self) {
        self.begin_shutdown();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook; there is no more to do.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
