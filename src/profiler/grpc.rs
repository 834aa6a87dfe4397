//! The gRPC side of a [`Profiler`].

use std::future::{Future, pending};
use std::sync::Arc;

#[cfg(feature = "client")]
use http::Uri;
#[cfg(feature = "client")]
use tonic::codegen::StdError;
use tonic::service::Routes;
#[cfg(feature = "client")]
use tonic::transport::{Channel, Endpoint};
#[cfg(feature = "client")]
use tower::Service;

use super::Profiler;
use crate::channelz::{self, Channelz};
use crate::error::Result;
use crate::instrument::grpc::heartbeat::{self, Heartbeat};
use crate::instrument::grpc::{self, GrpcClient, GrpcLayer, Limits, Listener, ServeConfig};
use crate::pb::channelz::channelz_server::ChannelzServer;
use crate::pb::heartbeat::heartbeat_server::HeartbeatServer;
use crate::serve::{Source, Want};

impl Profiler {
    /// Serves gRPC with everything there is: each stream with its task and its
    /// connection, byte counts of the sockets, HTTP/2 keepalive, and deadlines
    /// that hold to the end of the stream. Runs until the process ends; see
    /// [`serve_with`](Self::serve_with) for an orderly end.
    ///
    /// # Errors
    /// `Io` if the listener's own address cannot be read.
    pub async fn serve(&self, routes: Routes, listener: impl Into<Listener>) -> Result<()> {
        self.serve_with(routes, listener, self.serve_config(), pending()).await
    }

    /// The same with settings of your own (start from
    /// [`serve_config`](Self::serve_config)), until `shutdown` completes: then
    /// it drains, see [`ServeConfig::drain`].
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    pub async fn serve_with(
        &self,
        routes: Routes,
        listener: impl Into<Listener>,
        config: ServeConfig,
        shutdown: impl Future<Output = ()>,
    ) -> Result<()> {
        let registry = self.shared.core.registry.clone();
        grpc::serve(registry, routes, listener, config, shutdown).await
    }

    /// The settings that [`serve`](Self::serve) uses.
    pub fn serve_config(&self) -> ServeConfig {
        ServeConfig { metadata: self.shared.core.metadata.clone(), ..ServeConfig::default() }
    }

    /// A tower layer for servers whose accept loop is not ours, such as
    /// `tonic::transport::Server::builder().layer(profiler.grpc_layer())`.
    ///
    /// It shows streams but not sockets. It cannot end a call while the peer's
    /// flow-control window is closed, so deadlines then act late; and calls
    /// that tonic holds back (its concurrency limit) have not reached it yet.
    pub fn grpc_layer(&self) -> GrpcLayer {
        self.grpc_layer_with(Limits::default())
    }

    /// The same with limits of your own.
    pub fn grpc_layer_with(&self, limits: Limits) -> GrpcLayer {
        let core = &self.shared.core;
        GrpcLayer::with(core.registry.clone(), limits, core.metadata.clone())
    }

    /// The heartbeat's service: add it to the routes, and clients that keep a
    /// heartbeat running learn whether this application still answers, and it
    /// learns whether they do. See `docs/heartbeats.md`.
    pub fn heartbeat_service(&self) -> HeartbeatServer<Heartbeat> {
        heartbeat::service()
    }

    /// gRPC's channelz: add it to the routes, and tools made for it see the
    /// servers, channels and sockets of this process. It is answered by your
    /// server's runtime, and to everyone who can call your server. See
    /// `docs/standards.md`.
    pub fn channelz_service(&self) -> ChannelzServer<Channelz> {
        let core = self.shared.core.clone();
        channelz::service(Arc::new(move || core.snapshot(Want::COUNTS)))
    }

    /// An endpoint with HTTP/2 keepalive as [`serve`](Self::serve) has it: a
    /// PING after 20 s without a word, also while no call is under way, and the
    /// connection is closed if it has no answer for 10 s. Without one a peer
    /// that vanished looks like a quiet one, and calls to it wait for ever.
    ///
    /// It is tonic's own endpoint: every setting can be made on it, those of
    /// keepalive too (some servers refuse PINGs that come often, see
    /// `docs/heartbeats.md`). tonic's default is none.
    ///
    /// ```no_run
    /// # async fn client(profiler: taskprof::Profiler) -> Result<(), Box<dyn std::error::Error>> {
    /// let endpoint = profiler.endpoint("http://127.0.0.1:50051")?;
    /// let channel = profiler.connect(endpoint).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` for a URI that is none.
    #[cfg(feature = "client")]
    pub fn endpoint(&self, uri: impl Into<String>) -> Result<Endpoint> {
        grpc::endpoint(uri.into())
    }

    /// Connects a client with everything there is: each call with its HTTP/2
    /// stream, windows and connection. Generated clients take the channel.
    ///
    /// Get the endpoint from [`endpoint`](Self::endpoint), or bring your own:
    /// it is taken as it is, and tonic's has no keepalive unless it is set.
    ///
    /// The endpoint's executor is replaced by ours, which runs on the current
    /// tokio runtime. TLS of the endpoint's own would lie above the tap, which
    /// then sees nothing: bring a connector that does TLS itself, see
    /// [`connect_with_connector`](Self::connect_with_connector).
    ///
    /// # Errors
    /// `Io` if the connection cannot be made.
    #[cfg(feature = "client")]
    pub async fn connect(&self, endpoint: Endpoint) -> Result<GrpcClient<Channel>> {
        let connector = grpc::tcp(&endpoint);
        self.connector().now(endpoint, connector).await
    }

    /// The same, but connects when first called, and cannot fail before.
    #[cfg(feature = "client")]
    pub fn connect_lazy(&self, endpoint: Endpoint) -> GrpcClient<Channel> {
        let connector = grpc::tcp(&endpoint);
        self.connector().lazy(endpoint, connector)
    }

    /// The same over streams of your own: a proxy, a Unix socket
    /// ([`UnixConnector`](grpc::UnixConnector)), TLS. The tap lies around what
    /// the connector returns.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    #[cfg(feature = "client")]
    pub async fn connect_with_connector<C>(
        &self,
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
        self.connector().now(endpoint, connector).await
    }

    /// Both.
    #[cfg(feature = "client")]
    pub fn connect_with_connector_lazy<C>(
        &self,
        endpoint: Endpoint,
        connector: C,
    ) -> GrpcClient<Channel>
    where
        C: Service<Uri> + Send + 'static,
        C::Response: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
        C::Future: Send + 'static,
        StdError: From<C::Error>,
        C::Error: Send,
    {
        self.connector().lazy(endpoint, connector)
    }

    #[cfg(feature = "client")]
    fn connector(&self) -> grpc::Connect {
        let core = &self.shared.core;
        grpc::Connect {
            registry: core.registry.clone(),
            limits: Limits::default(),
            metadata: core.metadata.clone(),
        }
    }

    /// Follows the calls of a client: wrap the channel, and give the wrapper to
    /// the generated client. `peer` names the other end; a channel does not
    /// tell where it is connected.
    pub fn grpc_client<S>(&self, channel: S, peer: &str) -> GrpcClient<S> {
        let core = &self.shared.core;
        let limits = Limits::default();
        GrpcClient::with(core.registry.clone(), channel, limits, core.metadata.clone()).peer(peer)
    }
}
