//! The future of a call: the handler on a server, the request on a client.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use tonic::Status;

use super::admit::Throttle;
use super::body::{StreamBody, gone, reason};
use super::call::Call;
use super::tracker::Begun;
use super::watch::Watch;
use crate::instrument::{scope, task_id};
use crate::model::Side;

pin_project! {
    /// Follows a call up to its response headers; the rest is its body's.
    pub struct CallFuture<F> {
        #[pin]
        inner: F,
        open: Option<Open>,
    }

    impl<F> PinnedDrop for CallFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(open) = this.project().open.take() {
                open.call.abort(gone(&open.call));
            }
        }
    }
}

/// A call without response headers yet.
struct Open {
    call: Arc<Call>,
    watch: Option<Watch>,
    admission: Option<Box<Throttle>>,
    /// For the response's body: what a client receives costs tokens too.
    messages: Option<Box<Throttle>>,
    polled: bool,
    /// Its task is tagged already.
    tagged: bool,
}

impl<F> CallFuture<F> {
    pub(super) fn plain(inner: F) -> Self {
        Self { inner, open: None }
    }

    /// For calls whose task is not ours: the future and the response's body
    /// watch over the limits themselves.
    pub(super) fn watching(inner: F, begun: Begun) -> Self {
        let Begun { call, watch, admission, messages } = begun;
        let watch = Some(watch);
        Self {
            inner,
            open: Some(Open { call, watch, admission, messages, polled: false, tagged: false }),
        }
    }

    /// For calls whose task is ours, is tagged, and watches.
    pub(super) fn watched(inner: F, call: Arc<Call>, admission: Option<Box<Throttle>>) -> Self {
        let open =
            Open { call, watch: None, admission, messages: None, polled: false, tagged: true };
        Self { inner, open: Some(open) }
    }
}

impl Open {
    fn first_poll(&mut self) {
        self.polled = true;
        let task = task_id::current();
        self.call.cell().polled_by(task);
        if let Some(task) = task.filter(|_| !self.tagged && self.call.cell().side() == Side::Server)
        {
            self.call.tag(task);
        }
    }

    fn poll_admission(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(throttle) = &mut self.admission else { return Poll::Ready(()) };
        let paid = throttle.poll_pay(cx);
        self.call.cell().throttled(paid.is_pending());
        if let Err(status) = ready!(paid) {
            self.call.stop(status);
        }
        self.admission = None;
        Poll::Ready(())
    }

    fn poll_stop(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.watch {
            Some(watch) => watch.poll_stop(&self.call, cx),
            None => self.call.stopped().is_some(),
        }
    }

    /// The response is there; its body goes on with the call.
    fn answered<B: Body<Data = Bytes>>(self, response: Response<B>) -> Response<StreamBody<B>> {
        let Self { call, watch, messages, .. } = self;
        call.cell().responded();
        // Without a body the status stands in the headers.
        if response.headers().contains_key("grpc-status")
            && let Some(status) = Status::from_header_map(response.headers())
        {
            call.note_status(&status);
        }
        response.map(|body| StreamBody::response(Some(body), call, messages, watch))
    }

    /// The answer of a call that was stopped: headers with the status.
    fn stopped<B: Body<Data = Bytes>>(self) -> Response<StreamBody<B>> {
        let call = self.call;
        let status = call.stopped().cloned().unwrap_or_else(|| Status::cancelled("stopped"));
        call.note_status(&status);
        let (parts, ()) = status.into_http::<()>().into_parts();
        Response::from_parts(parts, StreamBody::response(None, call, None, None))
    }
}

impl<F, B, E> Future for CallFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
    E: Display,
{
    type Output = Result<Response<StreamBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(open) = this.open.as_mut() else {
            return this.inner.poll(cx).map_ok(|response| response.map(StreamBody::plain));
        };
        if !open.polled {
            open.first_poll();
        }
        let polled = match open.poll_admission(cx) {
            Poll::Ready(()) if open.call.stopped().is_none() => match open.call.cell().side() {
                Side::Server => scope::within(&open.call, || this.inner.poll(cx)),
                Side::Client => this.inner.poll(cx),
            },
            _ => Poll::Pending,
        };
        if polled.is_pending() && !open.poll_stop(cx) {
            return Poll::Pending;
        }
        // From here on the call is the response's.
        let Some(open) = this.open.take() else { return Poll::Pending };
        match polled {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(open.answered(response))),
            Poll::Ready(Err(error)) => {
                open.call.abort(&format!("failed before a response: {}", reason(&error)));
                Poll::Ready(Err(error))
            }
            Poll::Pending => Poll::Ready(Ok(open.stopped())),
        }
    }
}
