//! Which messages of a request came compressed.
//!
//! tonic decompresses and does not tell, and the header `grpc-encoding` only
//! says what a message may be: each has a flag of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use crate::instrument::grpc::frames::FrameCounter;

/// The flags of a request's messages that were read and not asked for yet, in
/// the request's extensions. tonic reads no further than it has to: they are
/// those of one DATA frame at most, of 16 KiB and so some 3,300 messages.
#[derive(Clone, Debug, Default)]
pub struct Flags(Arc<Mutex<VecDeque<bool>>>);

impl Flags {
    /// Of a request that came through [`SeeFlags`]; else no message counts as
    /// compressed.
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or_default()
    }

    /// Whether the next message was compressed. To be asked once for each.
    pub fn next(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(false)
    }

    fn push(&self, compressed: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(compressed);
    }
}

/// Reads the flags of the requests to a service.
#[derive(Clone, Debug)]
pub struct SeeFlags<S>(S);

impl<S> SeeFlags<S> {
    pub fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S: NamedService> NamedService for SeeFlags<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for SeeFlags<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> S::Future {
        let flags = Flags::default();
        request.extensions_mut().insert(flags.clone());
        let mut frames = FrameCounter::default();
        self.0.call(request.map(|body| {
            Body::new(body.map_frame(move |frame| {
                if let Some(data) = frame.data_ref() {
                    frames.feed(data, |_, compressed| flags.push(compressed));
                }
                frame
            }))
        }))
    }
}
