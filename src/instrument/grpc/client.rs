//! The same for calls that this process makes.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::Service;

use super::body::StreamBody;
use super::dispatch::Latest;
use super::future::CallFuture;
use super::heartbeat::Follow;
use super::limits::Limits;
use super::metadata::MetadataKeys;
use super::tracker::Tracker;
use crate::model::Side;
use crate::registry::Registry;
use crate::registry::endpoints::EndpointCell;

/// A channel whose calls are followed. Generated clients take it in place of
/// the [`tonic::transport::Channel`] inside it.
///
/// Deadlines hold over the whole stream here too: a response that is still
/// flowing then ends with `DEADLINE_EXCEEDED`.
#[derive(Clone)]
pub struct GrpcClient<S> {
    inner: S,
    tracker: Arc<Tracker>,
    peer: Option<Arc<str>>,
    /// The connection that the channel has made last, where it is tapped.
    latest: Option<Arc<Latest>>,
}

impl<S> GrpcClient<S> {
    /// Wraps a channel.
    #[cfg(test)]
    pub(crate) fn new(registry: Arc<Registry>, inner: S) -> Self {
        Self::with(registry, inner, Limits::default(), MetadataKeys::default())
    }

    /// Wraps a channel, with these limits, keeping this metadata.
    pub(crate) fn with(
        registry: Arc<Registry>,
        inner: S,
        limits: Limits,
        metadata: MetadataKeys,
    ) -> Self {
        let channel = registry.endpoints.open(Side::Client, None);
        Self::of(channel, registry, inner, limits, metadata)
    }

    /// The same for one that is registered already.
    pub(super) fn of(
        channel: Arc<EndpointCell>,
        registry: Arc<Registry>,
        inner: S,
        limits: Limits,
        metadata: MetadataKeys,
    ) -> Self {
        let tracker = Arc::new(Tracker::new(registry, limits, metadata, channel));
        Self { inner, tracker, peer: None, latest: None }
    }

    /// Says that the channel is tapped.
    #[cfg(feature = "client")]
    pub(super) fn over(mut self, latest: Arc<Latest>) -> Self {
        self.latest = Some(latest);
        self
    }

    /// Names the other end. A channel does not tell where it is connected.
    pub fn peer(mut self, peer: impl Into<Arc<str>>) -> Self {
        let peer = peer.into();
        self.tracker.endpoint.named(&peer);
        self.peer = Some(peer);
        self
    }
}

impl<S> fmt::Debug for GrpcClient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcClient").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl<S, R> Service<Request<tonic::body::Body>> for GrpcClient<S>
where
    S: Service<Request<tonic::body::Body>, Response = Response<R>>,
    S::Error: fmt::Display,
    R: Body<Data = Bytes>,
{
    type Response = Response<StreamBody<R>>;
    type Error = S::Error;
    type Future = CallFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let connection = self.latest.as_ref().and_then(|latest| latest.get());
        let begun = self.tracker.begin(Side::Client, &parts, connection, self.peer.clone(), &[]);
        let Some(begun) = begun else {
            let body = match &self.latest {
                Some(_) => {
                    let plain = StreamBody::plain(body).dispatched();
                    tonic::body::Body::new(plain)
                }
                None => body,
            };
            return CallFuture::plain(self.inner.call(Request::from_parts(parts, body)));
        };
        if let Some(follow) = parts.extensions.get::<Follow>() {
            follow.leave(&begun.call);
        }
        let mut body = StreamBody::request(body, begun.call.clone(), None);
        if self.latest.is_some() {
            body = body.dispatched();
        }
        let request = Request::from_parts(parts, tonic::body::Body::new(body));
        CallFuture::watching(self.inner.call(request), begun)
    }
}
