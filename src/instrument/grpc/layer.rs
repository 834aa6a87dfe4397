//! The tower layer for servers whose accept loop is not ours: tonic's
//! `Server::builder().layer(...)`, or an axum router.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::{Layer, Service};

use super::body::StreamBody;
use super::future::CallFuture;
use super::limits::Limits;
use super::metadata::MetadataKeys;
use super::tracker::Tracker;
use crate::instrument::scope::Scope;
use crate::model::Side;
use crate::registry::Registry;

/// Follows each gRPC call that passes; other requests pass untouched.
///
/// Two things need `Profiler::serve` instead. A call whose peer has
/// closed its window cannot be ended from inside the service, so there a
/// deadline or a send timeout acts when the window opens. And a layer sees
/// neither sockets nor, inside tonic's server, calls that wait for its
/// concurrency limit.
#[derive(Clone)]
pub struct GrpcLayer {
    tracker: Arc<Tracker>,
}

impl GrpcLayer {
    /// A layer that writes to `registry` and enforces the callers' deadlines.
    #[cfg(test)]
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self::with(registry, Limits::default(), MetadataKeys::default())
    }

    /// A layer with these limits, which keeps this metadata.
    pub(crate) fn with(registry: Arc<Registry>, limits: Limits, metadata: MetadataKeys) -> Self {
        let server = registry.endpoints.open(Side::Server, None);
        Self { tracker: Arc::new(Tracker::new(registry, limits, metadata, server)) }
    }
}

impl fmt::Debug for GrpcLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcLayer").field("limits", &self.tracker.limits).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for GrpcLayer {
    type Service = GrpcService<S>;

    fn layer(&self, inner: S) -> GrpcService<S> {
        GrpcService { inner, tracker: self.tracker.clone() }
    }
}

/// The service that [`GrpcLayer`] makes.
#[derive(Clone)]
pub struct GrpcService<S> {
    inner: S,
    tracker: Arc<Tracker>,
}

impl<S: fmt::Debug> fmt::Debug for GrpcService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, B, R> Service<Request<B>> for GrpcService<S>
where
    S: Service<Request<StreamBody<B>>, Response = Response<R>>,
    S::Error: fmt::Display,
    B: Body<Data = Bytes>,
    R: Body<Data = Bytes>,
{
    type Response = Response<StreamBody<R>>;
    type Error = S::Error;
    type Future = CallFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        // An accept loop of ours, or this layer twice: once is enough.
        let begun = if parts.extensions.get::<Scope>().is_some() {
            None
        } else {
            let (connection, peer) = self.tracker.connection(&parts);
            self.tracker.begin(Side::Server, &parts, connection, peer, &[])
        };
        let Some(mut begun) = begun else {
            let request = Request::from_parts(parts, StreamBody::plain(body));
            return CallFuture::plain(self.inner.call(request));
        };
        parts.extensions.insert(Scope::new(begun.call.clone()));
        let body = StreamBody::request(body, begun.call.clone(), begun.messages.take());
        let inner = self.inner.call(Request::from_parts(parts, body));
        CallFuture::watching(inner, begun)
    }
}
