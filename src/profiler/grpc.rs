//! The gRPC side of a [`Profiler`].

use std::future::{Future, pending};

use tonic::service::Routes;

use super::Profiler;
use crate::error::Result;
use crate::instrument::grpc::heartbeat::{self, Heartbeat};
use crate::instrument::grpc::{self, GrpcClient, GrpcLayer, Limits, Listener, ServeConfig};
use crate::pb::heartbeat::heartbeat_server::HeartbeatServer;

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

    /// Follows the calls of a client: wrap the channel, and give the wrapper to
    /// the generated client. `peer` names the other end; a channel does not
    /// tell where it is connected.
    pub fn grpc_client<S>(&self, channel: S, peer: &str) -> GrpcClient<S> {
        let core = &self.shared.core;
        let limits = Limits::default();
        GrpcClient::with(core.registry.clone(), channel, limits, core.metadata.clone()).peer(peer)
    }
}
