//! Which messages of a request came compressed.
//!
//! tonic decompresses and does not tell, and the header `grpc-encoding` only
//! says what a message may be: each has a flag of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use crate::instrument::grpc::frames::FrameCounter;

/// The flags of a request's messages that were read and not asked for yet, in
/// the request's extensions; nothing is kept once the handler has let go of
/// them. tonic reads no further than it has to: they are those of one DATA frame
/// at most, of 16 KiB and so some 3,300 messages.
#[derive(Clone, Debug, Default)]
pub struct Flags(Arc<Queue>);

type Queue = Mutex<VecDeque<bool>>;

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
}

/// Keeps a flag for a handler that may still ask for it.
fn keep(flags: &Weak<Queue>, compressed: bool) {
    if let Some(flags) = flags.upgrade() {
        flags.lock().unwrap_or_else(PoisonError::into_inner).push_back(compressed);
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
        let kept = Arc::downgrade(&flags.0);
        request.extensions_mut().insert(flags);
        let mut frames = FrameCounter::default();
        self.0.call(request.map(|body| {
            Body::new(body.map_frame(move |frame| {
                if let Some(data) = frame.data_ref() {
                    frames.feed(data, |_, compressed| keep(&kept, compressed));
                }
                frame
            }))
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::{BufMut as _, Bytes, BytesMut};
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use prost::Message as _;

    use super::*;
    use crate::pb::testing::test_service_server::TestServiceServer;
    use crate::pb::testing::{ResponseParameters, StreamingOutputCallRequest};
    use crate::reference::Drain;
    use crate::reference::interop::Interop;

    /// Keeps an eye on the queue of the request that passes.
    #[derive(Clone)]
    struct Spy<S>(S, Arc<Mutex<Weak<Queue>>>);

    impl<S: Service<Request<Body>>> Service<Request<Body>> for Spy<S> {
        type Response = S::Response;
        type Error = S::Error;
        type Future = S::Future;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
            self.0.poll_ready(cx)
        }

        fn call(&mut self, request: Request<Body>) -> S::Future {
            let flags: &Flags = request.extensions().get().unwrap();
            *self.1.lock().unwrap() = Arc::downgrade(&flags.0);
            self.0.call(request)
        }
    }

    /// One message that asks for one answer, as it travels.
    fn message() -> Bytes {
        let message = StreamingOutputCallRequest {
            response_parameters: vec![ResponseParameters { size: 1, ..Default::default() }],
            ..Default::default()
        };
        let mut bytes = BytesMut::new();
        bytes.put_u8(0);
        bytes.put_u32(message.encoded_len() as u32);
        message.encode(&mut bytes).unwrap();
        bytes.freeze()
    }

    #[tokio::test]
    async fn flags_that_nobody_asks_for_are_not_kept() {
        let queue = Arc::default();
        let service = TestServiceServer::new(Interop::new(Drain::default()));
        let mut service = SeeFlags::new(Spy(service, Arc::clone(&queue)));
        // Without an end: what is kept for the call is kept all along.
        let endless = stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(message())));
        let request = Request::post("/grpc.testing.TestService/FullDuplexCall")
            .header("content-type", "application/grpc")
            .body(Body::new(StreamBody::new(endless)))
            .unwrap();
        let mut answers = service.call(request).await.unwrap().into_body();
        let mut counter = FrameCounter::default();
        let mut answered = 0;
        while answered < 10_000 {
            let frame = answers.frame().await.unwrap().unwrap();
            answered += counter.feed(frame.data_ref().unwrap(), |_, _| {});
        }
        let kept = queue.lock().unwrap().upgrade();
        assert_eq!(kept.map_or(0, |kept| kept.lock().unwrap().len()), 0);
    }
}
