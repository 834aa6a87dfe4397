//! Channels whose sockets are tapped.

use std::any::Any;
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
#[cfg(feature = "tls")]
use tokio_rustls::client::TlsStream;
#[cfg(feature = "tls")]
use tokio_rustls::rustls::{ClientConfig, pki_types::ServerName};
use tonic::codegen::StdError;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use super::client::GrpcClient;
use super::dispatch::{Latest, TapExecutor};
use super::limits::Limits;
use super::metadata::MetadataKeys;
use super::serve::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use super::tap::Tap;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Side, Transport};
use crate::registry::Registry;
use crate::registry::connections::{Connections, Open};
use crate::registry::endpoints::EndpointCell;

/// What a connector brings, with the tap around it.
pub type Tapped<I> = TokioIo<Tap<TokioIo<I>>>;

/// A socket as far as the tap wants to know it.
#[derive(Debug)]
struct Socket {
    transport: Transport,
    local: Option<Arc<str>>,
    peer: Option<Arc<str>>,
    tls: bool,
    fd: Option<RawFd>,
}

impl Socket {
    fn tcp(socket: &TcpStream, tls: bool) -> Self {
        let name = |address: std::io::Result<SocketAddr>| Some(address.ok()?.to_string().into());
        let (local, peer) = (name(socket.local_addr()), name(socket.peer_addr()));
        Self { transport: Transport::Tcp, local, peer, tls, fd: Some(socket.as_raw_fd()) }
    }

    fn unix(socket: &UnixStream) -> Self {
        let peer = socket.peer_addr().ok();
        let path = peer.as_ref().and_then(|address| address.as_pathname());
        let peer = path.map_or("unix".into(), |path| path.to_string_lossy().into());
        Self { transport: Transport::Unix, local: None, peer: Some(peer), tls: false, fd: None }
    }

    /// What is beneath a connector's stream, where it is of a known kind.
    fn beneath(io: &dyn Any) -> Self {
        if let Some(io) = io.downcast_ref::<TokioIo<TcpStream>>() {
            return Self::tcp(io.inner(), false);
        }
        if let Some(io) = io.downcast_ref::<TokioIo<UnixStream>>() {
            return Self::unix(io.inner());
        }
        #[cfg(feature = "tls")]
        if let Some(io) = io.downcast_ref::<TokioIo<TlsStream<TcpStream>>>() {
            return Self::tcp(io.inner().get_ref().0, true);
        }
        Self { transport: Transport::Unknown, local: None, peer: None, tls: false, fd: None }
    }
}

/// A connector whose streams are tapped.
#[derive(Clone, Debug)]
struct TapConnector<C> {
    inner: C,
    registry: Arc<Registry>,
    channel: Arc<EndpointCell>,
    latest: Arc<Latest>,
}

fn tapped<I: Any>(
    io: I,
    connections: &Connections,
    channel: &Arc<EndpointCell>,
    latest: &Latest,
) -> Tapped<I> {
    let Socket { transport, local, peer, tls, fd } = Socket::beneath(&io);
    let (cell, wire) = connections.open(Open { side: Side::Client, transport, local, peer, tls });
    if let Some(fd) = fd.filter(|_| transport == Transport::Tcp) {
        wire.socket(fd);
    }
    cell.belongs_to(channel);
    latest.set(&cell);
    TokioIo::new(Tap::new(TokioIo::new(io), cell, wire))
}

impl<C> Service<Uri> for TapConnector<C>
where
    C: Service<Uri>,
    C::Response: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    C::Future: Send + 'static,
{
    type Response = Tapped<C::Response>;
    type Error = C::Error;
    type Future =
        Pin<Box<dyn Future<Output = std::result::Result<Self::Response, C::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<(), C::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri);
        let Self { registry, channel, latest, .. } = self;
        let (registry, channel, latest) = (registry.clone(), channel.clone(), latest.clone());
        Box::pin(
            async move { Ok(tapped(connecting.await?, &registry.connections, &channel, &latest)) },
        )
    }
}

/// Connects to a Unix socket, whatever the URI says.
#[derive(Clone, Debug)]
pub struct UnixConnector {
    path: PathBuf,
}

impl UnixConnector {
    /// Of the socket at this path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Service<Uri> for UnixConnector {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.path.clone();
        Box::pin(async move { UnixStream::connect(path).await.map(TokioIo::new) })
    }
}

/// Connects by TCP and speaks TLS, below the tap. Give the endpoint a URI with
/// `http`: with `https` tonic may want to add a TLS of its own on top.
#[cfg(feature = "tls")]
#[derive(Clone)]
pub struct TlsConnector {
    tcp: HttpConnector,
    tls: tokio_rustls::TlsConnector,
    name: ServerName<'static>,
}

#[cfg(feature = "tls")]
impl TlsConnector {
    /// With rustls' configuration; `name` is who the server has to prove to
    /// be. `h2` is asked for by ALPN if the configuration asks for nothing.
    pub fn new(mut config: Arc<ClientConfig>, name: ServerName<'static>) -> Self {
        if config.alpn_protocols.is_empty() {
            Arc::make_mut(&mut config).alpn_protocols.push(b"h2".to_vec());
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        Self { tcp, tls: config.into(), name }
    }
}

#[cfg(feature = "tls")]
impl std::fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConnector").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(feature = "tls")]
impl Service<Uri> for TlsConnector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = StdError;
    type Future =
        Pin<Box<dyn Future<Output = std::result::Result<Self::Response, StdError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<(), StdError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.tcp.call(uri);
        let (tls, name) = (self.tls.clone(), self.name.clone());
        Box::pin(async move {
            let socket = connecting.await?.into_inner();
            Ok(TokioIo::new(tls.connect(name, socket).await?))
        })
    }
}

/// tonic's own connector for TCP, with the endpoint's settings.
pub(crate) fn tcp(endpoint: &Endpoint) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(endpoint.get_tcp_nodelay());
    connector.set_keepalive(endpoint.get_tcp_keepalive());
    connector.set_keepalive_interval(endpoint.get_tcp_keepalive_interval());
    connector.set_keepalive_retries(endpoint.get_tcp_keepalive_retries());
    connector.set_connect_timeout(endpoint.get_connect_timeout());
    connector
}

/// An endpoint that pings its connections as our server does its own, whether
/// calls are under way or not: a peer that vanished without a word cannot be
/// found otherwise.
///
/// # Errors
/// `InvalidInput` for a URI that is none.
pub(crate) fn endpoint(uri: String) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(uri.clone()).map_err(|error| {
        let message = format!("{uri:?} is no address of a gRPC server; write http://HOST:PORT");
        Error::new(ErrorKind::InvalidInput, message).with_source(error)
    })?;
    Ok(endpoint
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// A channel as the registry knows it, and its connections.
type Over = (Arc<EndpointCell>, Arc<Latest>);

/// What makes channels for one registry.
pub(crate) struct Connect {
    pub(crate) registry: Arc<Registry>,
    pub(crate) limits: Limits,
    pub(crate) metadata: MetadataKeys,
}

impl Connect {
    fn prepare<C>(&self, endpoint: Endpoint, inner: C) -> (Endpoint, TapConnector<C>) {
        let latest = Arc::new(Latest::default());
        let endpoint = endpoint.executor(TapExecutor(latest.clone()));
        let registry = self.registry.clone();
        let channel = registry.endpoints.open(Side::Client, None);
        (endpoint, TapConnector { inner, registry, channel, latest })
    }

    fn follow(self, channel: Channel, over: Over, uri: &Uri) -> GrpcClient<Channel> {
        let peer = uri.authority().map_or_else(String::new, ToString::to_string);
        let (cell, latest) = over;
        GrpcClient::of(cell, self.registry, channel, self.limits, self.metadata)
            .peer(peer)
            .over(latest)
    }

    /// Connects now.
    ///
    /// # Errors
    /// `Io` with tonic's own error as its source.
    pub(crate) async fn now<C>(
        self,
        endpoint: Endpoint,
        connector: C,
    ) -> Result<GrpcClient<Channel>>
    where
        C: Service<Uri> + Send + 'static,
        C::Response: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
        C::Future: Send + 'static,
        StdError: From<C::Error>,
        C::Error: Send,
    {
        let (endpoint, connector) = self.prepare(endpoint, connector);
        let over = (connector.channel.clone(), connector.latest.clone());
        let channel = endpoint.connect_with_connector(connector).await.map_err(|error| {
            let message = format!("cannot connect to {}", endpoint.uri());
            Error::new(ErrorKind::Io, message).with_source(error)
        })?;
        Ok(self.follow(channel, over, endpoint.uri()))
    }

    /// Connects when first called.
    pub(crate) fn lazy<C>(self, endpoint: Endpoint, connector: C) -> GrpcClient<Channel>
    where
        C: Service<Uri> + Send + 'static,
        C::Response: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
        C::Future: Send + 'static,
        StdError: From<C::Error>,
        C::Error: Send,
    {
        let (endpoint, connector) = self.prepare(endpoint, connector);
        let over = (connector.channel.clone(), connector.latest.clone());
        let channel = endpoint.connect_with_connector_lazy(connector);
        self.follow(channel, over, endpoint.uri())
    }
}
