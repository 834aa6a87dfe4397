//! The two metadata keys that gRPC's interop description asks a server to echo.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

const INITIAL: HeaderName = HeaderName::from_static("x-grpc-test-echo-initial");
const TRAILING: HeaderName = HeaderName::from_static("x-grpc-test-echo-trailing-bin");

/// Answers `x-grpc-test-echo-initial` in the response's headers and
/// `x-grpc-test-echo-trailing-bin` in its trailers, for all methods of a service.
///
/// A tonic handler cannot do this: its trailers come from its status alone.
#[derive(Clone, Debug)]
pub struct EchoMetadata<S>(S);

impl<S> EchoMetadata<S> {
    pub fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S: NamedService> NamedService for EchoMetadata<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for EchoMetadata<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let initial = request.headers().get(INITIAL).cloned();
        let trailing = request.headers().get(TRAILING).cloned();
        let response = self.0.call(request);
        if initial.is_none() && trailing.is_none() {
            return Box::pin(response);
        }
        Box::pin(async move { Ok(echo(response.await?, initial, trailing)) })
    }
}

fn echo(
    mut response: Response<Body>,
    initial: Option<HeaderValue>,
    trailing: Option<HeaderValue>,
) -> Response<Body> {
    if let Some(initial) = initial {
        response.headers_mut().insert(INITIAL, initial);
    }
    let Some(trailing) = trailing else { return response };
    if response.headers().contains_key("grpc-status") {
        // Trailers-only: the headers are the trailers.
        response.headers_mut().insert(TRAILING, trailing);
        return response;
    }
    response.map(|body| {
        Body::new(body.map_frame(move |frame| match frame.into_trailers() {
            Ok(mut trailers) => {
                trailers.insert(TRAILING, trailing.clone());
                http_body::Frame::trailers(trailers)
            }
            Err(frame) => frame,
        }))
    })
}
