//! The accept loop: sockets in, HTTP/2 connections served, a graceful end.

use std::future::Future;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::doze::Dozing;
use super::exec::{Conn, ConnExecutor, ConnService, ConnectInfo};
use super::limits::Limits;
use super::metadata::MetadataKeys;
use super::tap::Tap;
use super::tracker::{Tracker, unix_peer};
use crate::error::{Error, Result};
use crate::model::{Side, Transport};
use crate::registry::Registry;
use crate::registry::connections::{ConnectionCell, Open};
use crate::registry::wire::Wire;

/// How often a connection is pinged, by either side, where nothing else is set.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long the answer may take then.
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of `Profiler::serve_with`. h2's own guards against floods of resets, of
/// SETTINGS and of CONTINUATION frames are on and stay on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServeConfig {
    /// What is enforced on every stream.
    pub limits: Limits,
    /// Request metadata that is kept with a stream. Default: none.
    pub metadata: MetadataKeys,
    /// How often a connection is pinged. A peer that vanished without a word
    /// cannot be found otherwise. Default: 20 s; `None` turns it off.
    pub keepalive_interval: Option<Duration>,
    /// How long a ping may stay unanswered. Default: 10 s.
    pub keepalive_timeout: Duration,
    /// How long a new connection may take to speak HTTP/2. Default: 10 s.
    pub handshake_timeout: Duration,
    /// Connections at once; more wait in the kernel's backlog. Default: 10,000.
    pub max_connections: usize,
    /// Streams at once on a connection (SETTINGS_MAX_CONCURRENT_STREAMS).
    /// Default: 1,000.
    pub max_concurrent_streams: u32,
    /// Calls that a peer may reset before they are answered: so many at once,
    /// and a tenth of that each second after. Who resets more gets GOAWAY and
    /// is disconnected. Default: 1,000.
    pub reset_burst: NonZeroU32,
    /// Receive window of a stream, in bytes. Default: 1 MiB.
    pub stream_window: u32,
    /// Receive window of a connection, in bytes. Where it is no larger than a
    /// stream's, one upload that nobody reads starves its neighbours.
    /// Default: 16 MiB.
    pub connection_window: u32,
    /// The largest list of request headers, in bytes. Default: 16 KiB.
    pub max_header_list_size: u32,
    /// How long streams may go on after the shutdown was asked for. Then they
    /// end with `UNAVAILABLE`. Default: 10 s.
    pub drain: Duration,
    /// TLS for TCP connections. `h2` is offered by ALPN if the configuration
    /// offers nothing. Default: none.
    #[cfg(feature = "tls")]
    pub tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            metadata: MetadataKeys::default(),
            keepalive_interval: Some(KEEPALIVE_INTERVAL),
            keepalive_timeout: KEEPALIVE_TIMEOUT,
            handshake_timeout: Duration::from_secs(10),
            max_connections: 10_000,
            max_concurrent_streams: 1_000,
            reset_burst: NonZeroU32::new(1_000).unwrap_or(NonZeroU32::MIN),
            stream_window: 1 << 20,
            connection_window: 16 << 20,
            max_header_list_size: 16 << 10,
            drain: Duration::from_secs(10),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

/// Where connections come from.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(socket, _)| Accepted::Tcp(socket)),
            Self::Unix(listener) => {
                listener.accept().await.map(|(socket, _)| Accepted::Unix(socket))
            }
        }
    }
}

/// How long streams get to send their last status once the drain is over.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Serves gRPC until `shutdown` completes, then drains: no new connections, a
/// GOAWAY to the open ones, and what still runs after
/// [`ServeConfig::drain`] ends with `UNAVAILABLE`.
///
/// A failed accept, such as for want of file descriptors, is logged and tried
/// again; it never ends the server.
///
/// # Errors
/// `Io` if the listener's address cannot be read, which a bound one's can.
pub(crate) async fn serve(
    registry: Arc<Registry>,
    routes: Routes,
    listener: impl Into<Listener>,
    config: ServeConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let listener = listener.into();
    let local: Option<Arc<str>> = match &listener {
        Listener::Tcp(tcp) => {
            let address = tcp
                .local_addr()
                .map_err(|error| Error::io("cannot read the gRPC listener's address", error))?;
            Some(address.to_string().into())
        }
        Listener::Unix(unix) => unix
            .local_addr()
            .ok()
            .and_then(|address| Some(address.as_pathname()?.to_string_lossy().into())),
    };
    let server = Server::new(registry, routes, config, local.clone());
    let permits = Arc::new(Semaphore::new(server.config.max_connections));
    let mut backoff = Backoff::default();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            // Closed never, so an error cannot come.
            let permit = permits.clone().acquire_owned().await.ok();
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accepted => accepted,
        };
        let task = match accepted {
            Ok(accepted) => {
                backoff = Backoff::default();
                server.connection(accepted, local.clone())
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a gRPC connection");
                tokio::select! {
                    () = &mut shutdown => break,
                    () = sleep(backoff.next(&error)) => {}
                }
                continue;
            }
        };
        server.tasks.spawn(async move {
            task.await;
            drop(permit);
        });
    }
    drop(listener);
    server.drain().await;
    Ok(())
}

/// Waits between failed accepts: at once where only that peer failed, else
/// from 5 ms doubling up to 1 s.
#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    fn next(&mut self, error: &io::Error) -> Duration {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        let kind = error.kind();
        if matches!(kind, ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
            return Duration::ZERO;
        }
        let wait = Duration::from_millis(5 << self.0.min(8)).min(Duration::from_secs(1));
        self.0 += 1;
        wait
    }
}

/// A connection, and what its frames are written to.
type Tapped = (Arc<ConnectionCell>, Arc<Wire>);

/// What all connections share.
pub(super) struct Server {
    tracker: Arc<Tracker>,
    routes: Routes,
    config: ServeConfig,
    tasks: TaskTracker,
    #[cfg(feature = "tls")]
    tls: Option<tokio_rustls::TlsAcceptor>,
    /// Finish what runs, take no more.
    draining: CancellationToken,
    /// Finish now.
    over: CancellationToken,
}

impl Server {
    /// `local` is where it listens.
    pub(super) fn new(
        registry: Arc<Registry>,
        routes: Routes,
        config: ServeConfig,
        local: Option<Arc<str>>,
    ) -> Self {
        let endpoint = registry.endpoints.open(Side::Server, local);
        let (limits, metadata) = (config.limits.clone(), config.metadata.clone());
        let tracker = Tracker::new(registry, limits, metadata, endpoint);
        #[cfg(feature = "tls")]
        let tls = config.tls.clone().map(|mut tls| {
            if tls.alpn_protocols.is_empty() {
                Arc::make_mut(&mut tls).alpn_protocols.push(b"h2".to_vec());
            }
            tokio_rustls::TlsAcceptor::from(tls)
        });
        Self {
            #[cfg(feature = "tls")]
            tls,
            tracker: Arc::new(tracker),
            routes: routes.prepare(),
            config,
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            over: CancellationToken::new(),
        }
    }

    fn connection(
        &self,
        accepted: Accepted,
        local: Option<Arc<str>>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let connections = &self.tracker.registry.connections;
        match accepted {
            Accepted::Tcp(socket) => {
                if let Err(error) = socket.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                let info: TcpConnectInfo = socket.connect_info();
                let peer = info.remote_addr.map(|address| address.to_string().into());
                // The socket's own, which is precise where the listener's is a wildcard.
                let local = info.local_addr.map(|address| address.to_string().into()).or(local);
                let transport = Transport::Tcp;
                let tls = self.is_tls();
                let open = Open { side: Side::Server, transport, local, peer, tls };
                let tapped = connections.open(open);
                let fd = Some(socket.as_raw_fd());
                let info = ConnectInfo::Tcp(info);
                #[cfg(feature = "tls")]
                if let Some(acceptor) = &self.tls {
                    return Box::pin(self.serve_when(acceptor.accept(socket), fd, tapped, info));
                }
                Box::pin(self.serve_when(std::future::ready(Ok(socket)), fd, tapped, info))
            }
            Accepted::Unix(socket) => {
                let info = socket.connect_info();
                let peer = Some(unix_peer(info.peer_cred.as_ref()));
                let transport = Transport::Unix;
                let open = Open { side: Side::Server, transport, local, peer, tls: false };
                let tapped = connections.open(open);
                Box::pin(self.serve_io(socket, tapped, ConnectInfo::Unix(info)))
            }
        }
    }

    fn is_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// One connection from its preface to its end.
    pub(super) fn serve_io<I>(
        &self,
        io: I,
        tapped: Tapped,
        info: ConnectInfo,
    ) -> impl Future<Output = ()> + use<I>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.serve_when(std::future::ready(Ok(io)), None, tapped, info)
    }

    /// The same once `io` is there, which a handshake may come before; `fd` is
    /// the socket beneath it.
    fn serve_when<I, F>(
        &self,
        io: F,
        fd: Option<RawFd>,
        (cell, wire): Tapped,
        info: ConnectInfo,
    ) -> impl Future<Output = ()> + use<I, F>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = io::Result<I>> + Send + 'static,
    {
        let config = &self.config;
        let routes = self.routes.clone();
        cell.belongs_to(&self.tracker.endpoint);
        let draining = self.draining.clone();
        let conn =
            Conn::new(self.tracker.clone(), cell, routes, info, config.reset_burst, draining);
        let mut builder = http2::Builder::new(ConnExecutor(conn.clone()));
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(config.keepalive_interval)
            .keep_alive_timeout(config.keepalive_timeout)
            .max_concurrent_streams(config.max_concurrent_streams)
            .initial_stream_window_size(config.stream_window)
            .initial_connection_window_size(config.connection_window)
            .max_header_list_size(config.max_header_list_size);
        let (draining, over) = (self.draining.clone(), self.over.clone());
        let handshake = self.config.handshake_timeout;
        async move {
            let cell = conn.cell();
            let io = tokio::select! {
                io = timeout(handshake, io) => io.unwrap_or_else(|late| Err(late.into())),
                () = draining.cancelled() => return cell.close(),
            };
            let io = match io {
                Ok(io) => TokioIo::new(Tap::new(io, cell.clone(), wire.clone())),
                Err(error) => {
                    tracing::debug!(%error, peer = ?cell.peer(), "a TLS handshake failed");
                    return cell.close();
                }
            };
            // Not before the tap is there, which takes it back in time.
            if let Some(fd) = fd {
                wire.socket(fd);
            }
            let mut serving = pin!(builder.serve_connection(io, ConnService(conn.clone())));
            let mut speak_by = Some(Instant::now() + handshake);
            let mut draining = Some(draining);
            let mut order = pin!(Dozing::new(order(&conn, draining.clone(), &over, speak_by)));
            let ended = loop {
                let order_now = tokio::select! {
                    biased;
                    ended = std::future::poll_fn(|cx| {
                        let polled = serving.as_mut().poll(cx);
                        if polled.is_pending() {
                            wire.calm();
                        }
                        polled
                    }) => break ended,
                    order_now = order.as_mut() => order_now,
                };
                match order_now {
                    Order::Drain => {
                        draining = None;
                        serving.as_mut().graceful_shutdown();
                    }
                    Order::End => {
                        conn.stop_all(&Status::unavailable("the server is shutting down"));
                        // Polled on, so that the last statuses are written.
                        match timeout(LAST_WORDS, serving.as_mut()).await {
                            Ok(ended) => break ended,
                            Err(_) => break Ok(()),
                        }
                    }
                    Order::Flooded => {
                        let peer = conn.cell().peer();
                        tracing::warn!(?peer, "too many calls reset: closing the connection");
                        serving.as_mut().graceful_shutdown();
                        _ = timeout(LAST_WORDS, serving.as_mut()).await;
                        break Ok(());
                    }
                    Order::Speak if has_spoken(conn.cell()) => speak_by = None,
                    Order::Speak => {
                        tracing::debug!(peer = ?conn.cell().peer(), "spoke no HTTP/2 in time");
                        break Ok(());
                    }
                }
                order.set(Dozing::new(self::order(&conn, draining.clone(), &over, speak_by)));
            };
            if let Err(error) = ended {
                tracing::debug!(%error, peer = ?conn.cell().peer(), "a gRPC connection failed");
            }
            conn.cell().close();
        }
    }

    /// Lets what runs come to its end, for so long.
    pub(super) async fn drain(&self) {
        self.tasks.close();
        self.draining.cancel();
        if timeout(self.config.drain, self.tasks.wait()).await.is_err() {
            self.over.cancel();
            self.tasks.wait().await;
        }
    }
}

/// A server that is dropped without a drain leaves no connection behind.
impl Drop for Server {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

/// What a connection is told besides its messages.
enum Order {
    /// Finish what runs, take no more.
    Drain,
    /// Finish now.
    End,
    /// The peer resets more calls than it may.
    Flooded,
    /// The peer has had its time to begin.
    Speak,
}

/// The next order. Those that were followed are left out: `draining` and
/// `speak_by` are `None` then.
async fn order(
    conn: &Conn,
    draining: Option<CancellationToken>,
    over: &CancellationToken,
    speak_by: Option<Instant>,
) -> Order {
    tokio::select! {
        biased;
        () = over.cancelled() => Order::End,
        Some(()) = OptionFuture::from(draining.as_ref().map(|token| token.cancelled())) => Order::Drain,
        () = conn.flooded() => Order::Flooded,
        Some(()) = OptionFuture::from(speak_by.map(sleep_until)) => Order::Speak,
    }
}

/// Whether the peer has sent as much as HTTP/2's preface and an empty SETTINGS
/// frame. hyper's own header timeout is for HTTP/1.
fn has_spoken(cell: &ConnectionCell) -> bool {
    cell.read_bytes() >= 24 + 9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepting_backs_off_only_where_waiting_helps() {
        let mut backoff = Backoff::default();
        let full = io::Error::from_raw_os_error(libc::EMFILE);
        let waits: Vec<_> = (0..12).map(|_| backoff.next(&full).as_millis()).collect();
        assert_eq!(waits[..4], [5, 10, 20, 40]);
        assert_eq!(waits[11], 1000);
        let aborted = io::Error::from_raw_os_error(libc::ECONNABORTED);
        assert_eq!(backoff.next(&aborted), Duration::ZERO);
    }
}
