//! How the traffic's connections are made, and the channel that its calls use.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tonic::body::Body;
use tonic::transport::{Channel, Error as TransportError};
use tower::Service;

use crate::error::{Error, ErrorKind, Result};
use crate::instrument::grpc::{GrpcClient, endpoint};
use crate::profiler::Profiler;

/// How connections are made.
#[derive(Clone, Debug)]
pub struct Dial {
    /// How often a connection is pinged.
    pub keepalive: Duration,
    /// Receive window of a stream, in bytes; hyper's own if none is given.
    pub stream_window: Option<u32>,
    /// The same for a connection.
    pub connection_window: Option<u32>,
    /// How often an application heartbeat goes to the server; none if not given.
    pub heartbeat: Option<Duration>,
    /// Follows the calls; without it they are tonic's alone.
    pub profiler: Option<Profiler>,
}

impl Default for Dial {
    fn default() -> Self {
        Self {
            keepalive: Duration::from_secs(20),
            stream_window: None,
            connection_window: None,
            heartbeat: None,
            profiler: None,
        }
    }
}

impl Dial {
    /// Connects.
    ///
    /// # Errors
    /// `Io` if nobody answers within five seconds.
    pub async fn connect(&self, target: SocketAddr) -> Result<Wire> {
        let unreachable = |error: TransportError| nobody(target).with_source(error);
        let endpoint = endpoint(format!("http://{target}"))?
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.keepalive)
            // A peer that does not answer is to be looked at first.
            .keep_alive_timeout(Duration::from_secs(20))
            .initial_stream_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window);
        match &self.profiler {
            Some(profiler) => {
                let connected = profiler.connect(endpoint).await;
                connected.map(Wire::Watched).map_err(|error| nobody(target).with_source(error))
            }
            None => endpoint.connect().await.map(Wire::Plain).map_err(unreachable),
        }
    }
}

fn nobody(target: SocketAddr) -> Error {
    let message = format!("cannot connect to {target}; is `taskprof serve` running there?");
    Error::new(ErrorKind::Io, message)
}

/// A channel, followed or not.
#[derive(Clone, Debug)]
pub enum Wire {
    /// As tonic makes it.
    Plain(Channel),
    /// Its calls are in the client's own debug server.
    Watched(GrpcClient<Channel>),
}

type Answer =
    Pin<Box<dyn Future<Output = std::result::Result<Response<Body>, TransportError>> + Send>>;

impl Service<Request<Body>> for Wire {
    type Response = Response<Body>;
    type Error = TransportError;
    type Future = Answer;

    fn poll_ready(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<std::result::Result<(), TransportError>> {
        match self {
            Self::Plain(channel) => Service::poll_ready(channel, cx),
            Self::Watched(channel) => Service::poll_ready(channel, cx),
        }
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        match self {
            Self::Plain(channel) => Box::pin(channel.call(request)),
            Self::Watched(channel) => {
                let answer = channel.call(request);
                Box::pin(async move { answer.await.map(|response| response.map(Body::new)) })
            }
        }
    }
}
