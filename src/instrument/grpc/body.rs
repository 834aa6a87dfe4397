//! The body of a request or response, counted on its way through.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;

use super::admit::Throttle;
use super::call::Call;
use super::dispatch::Dispatch;
use super::frames::FrameCounter;
use super::log::{self, Way};
use super::watch::Watch;
use crate::instrument::scope;
use crate::model::{BodyState, Side, StreamEventKind};
use crate::registry::clock;
use crate::registry::streams::Direction;

pin_project! {
    /// A body that notes what passes, and ends where a limit says so.
    ///
    /// Its errors are [`Status`]: what the inner body failed with, or the limit
    /// that was hit. One that follows no call passes everything through.
    pub struct StreamBody<B>
    where
        B: Body,
    {
        // None: the call was stopped before there was a body.
        #[pin]
        inner: Option<B>,
        meter: Option<Meter>,
        dispatch: Dispatch,
    }

    impl<B> PinnedDrop for StreamBody<B>
    where
        B: Body,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(meter) = this.meter.take() {
                // hyper does not ask again after the last data of a body that
                // has said that it is at its end.
                let ended = this.inner.as_pin_mut().is_none_or(|inner| inner.is_end_stream());
                meter.dropped(ended);
            }
        }
    }
}

/// Bytes before each message.
const PREFIX: u32 = 5;

/// Which body of which side it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Request,
    Response,
}

/// Each open stream has two: what few need is behind a pointer.
struct Meter {
    call: Arc<Call>,
    limits: Option<Box<Limited>>,
    /// Which waker the call has from here: the address that it stands for, 0
    /// before the first. While the call keeps it that address is nobody else's.
    known: usize,
    frames: FrameCounter,
    /// The call's, which is a cache line away.
    side: Side,
    part: Part,
    /// Nobody else can end the call: see [`Watch`].
    watches: bool,
}

/// What holds a body back, or ends it in time.
struct Limited {
    throttle: Option<Box<Throttle>>,
    watch: Option<Watch>,
}

impl<B: Body<Data = Bytes>> StreamBody<B> {
    /// A body of a request that is no gRPC, or not followed.
    pub(super) fn plain(inner: B) -> Self {
        Self { inner: Some(inner), meter: None, dispatch: Dispatch::never() }
    }

    pub(super) fn request(inner: B, call: Arc<Call>, throttle: Option<Box<Throttle>>) -> Self {
        let meter = Meter::new(call, Part::Request, throttle, None);
        if inner.is_end_stream() {
            meter.direction().finish(BodyState::End);
        }
        Self { inner: Some(inner), meter: Some(meter), dispatch: Dispatch::never() }
    }

    /// The same for a request of a channel that is tapped.
    pub(super) fn dispatched(self) -> Self {
        let mut this = self;
        this.dispatch = Dispatch::waits();
        this
    }

    pub(super) fn response(
        inner: Option<B>,
        call: Arc<Call>,
        throttle: Option<Box<Throttle>>,
        watch: Option<Watch>,
    ) -> Self {
        let meter = Some(Meter::new(call, Part::Response, throttle, watch));
        Self { inner, meter, dispatch: Dispatch::never() }
    }
}

impl Meter {
    fn new(
        call: Arc<Call>,
        part: Part,
        throttle: Option<Box<Throttle>>,
        watch: Option<Watch>,
    ) -> Self {
        let watches = watch.is_some();
        let watch = watch.filter(Watch::has_limits);
        let is_limited = throttle.is_some() || watch.is_some();
        let limits = is_limited.then(|| Box::new(Limited { throttle, watch }));
        let side = call.cell().side();
        Self { call, limits, known: 0, frames: FrameCounter::default(), side, part, watches }
    }

    fn way(&self) -> Way {
        match (self.side, self.part) {
            (Side::Server, Part::Request) | (Side::Client, Part::Response) => Way::Recv,
            (Side::Server, Part::Response) | (Side::Client, Part::Request) => Way::Send,
        }
    }

    fn direction(&self) -> &Direction {
        match self.way() {
            Way::Recv => &self.call.cell().received,
            Way::Send => &self.call.cell().sent,
        }
    }

    /// Whether there is nothing more to pass.
    fn is_stopped(&self) -> bool {
        self.call.stopped().is_some() || (self.is_upload() && self.call.cell().is_ended())
    }

    /// A client's request. hyper sends on even if nobody wants the response
    /// any more, and a stream with a sender is not reset: such a call would
    /// stay for ever on both sides. So the request ends with its call.
    fn is_upload(&self) -> bool {
        self.part == Part::Request && self.side == Side::Client
    }

    /// The same; until it is so, the task is woken when it will be.
    fn poll_stop(&mut self, cx: &mut Context<'_>) -> bool {
        // To tell the call takes a lock, and most polls come from the same task.
        let waker = cx.waker();
        let known = waker.data() as usize;
        if known == 0 || self.known != known {
            self.known = known;
            if self.watches {
                self.call.wake_ender_by(waker);
            } else if self.part == Part::Request {
                self.call.wake_reader_by(waker);
            }
        }
        if self.watches {
            let watch = self.limits.as_mut().and_then(|limits| limits.watch.as_mut());
            return match watch {
                Some(watch) => watch.poll_limits(&self.call, cx),
                None => self.call.stopped().is_some(),
            };
        }
        self.is_stopped()
    }

    /// How a stopped call looks from this body: trailers that end the
    /// response, an error for whoever reads the request, a reset for the
    /// transport that sends it.
    fn stopped(&self) -> Option<Result<Frame<Bytes>, Status>> {
        if self.direction().state().0.is_final() {
            return None;
        }
        if self.is_upload() {
            if self.call.cell().received.state().0 == BodyState::End
                && self.call.stopped().is_none()
            {
                self.direction().finish(BodyState::End);
                return None;
            }
            self.direction().finish(BodyState::Dropped);
            let cancel = h2::Error::from(h2::Reason::CANCEL);
            return Some(Err(Status::from_error(Box::new(cancel))));
        }
        let status = self.call.stopped()?;
        if self.part == Part::Request {
            self.direction().finish(BodyState::Error);
            return Some(Err(status.clone()));
        }
        self.call.note_status(status);
        self.over(BodyState::End);
        Some(Ok(Frame::trailers(trailers(status))))
    }

    fn throttle(&mut self) -> Option<&mut Throttle> {
        self.limits.as_mut()?.throttle.as_deref_mut()
    }

    fn frame(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            let way = self.way();
            let cell = self.call.cell();
            // Between a message that comes and its answer the handler works: so
            // the time of the answer is looked at, and the others follow it.
            let (direction, kind, now) = match way {
                Way::Recv => (&cell.received, StreamEventKind::Recv, clock::in_poll()),
                Way::Send => (&cell.sent, StreamEventKind::Send, clock::look()),
            };
            let logged = cell.logged();
            let mut number = direction.messages();
            let messages = self.frames.feed(data, |bytes, _| {
                number += 1;
                cell.message(kind, number, bytes.saturating_add(PREFIX), now);
                if logged {
                    log::message(cell, way, number, bytes);
                }
            });
            direction.data(data.len() as u64, messages, now);
            if let Some(throttle) = self.throttle() {
                throttle.owe(messages);
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            if let Some(status) = Status::from_header_map(trailers) {
                self.call.note_status(&status);
            }
            self.over(BodyState::End);
        }
    }

    /// The body is over; with the response's, the call is.
    fn over(&self, state: BodyState) {
        self.direction().finish(state);
        if self.part == Part::Response {
            self.call.end();
        }
    }

    fn failed(&self, status: &Status) {
        self.direction().finish(BodyState::Error);
        if self.part == Part::Response {
            self.call.abort(&format!("the response failed: {}", reason(status)));
        } else if self.side == Side::Server {
            self.call.cell().cancel(&format!("the request failed: {}", reason(status)));
        }
    }

    fn dropped(self, ended: bool) {
        if ended || self.direction().state().0.is_final() {
            return self.over(BodyState::End);
        }
        self.direction().finish(BodyState::Dropped);
        if self.part == Part::Response {
            self.call.abort(gone(&self.call));
        }
    }
}

/// Why a response was dropped before its end.
pub(super) fn gone(call: &Call) -> &'static str {
    match call.cell().side() {
        Side::Server if std::thread::panicking() => "the handler panicked",
        Side::Client => "dropped by the caller",
        Side::Server if call.cell().connection_closed() => "the connection was lost",
        Side::Server => "reset by the peer, or its connection was lost",
    }
}

/// Text of a transport's failure, cut and cleaned.
pub(super) fn reason(error: &impl std::fmt::Display) -> String {
    crate::registry::streams::sanitise(&error.to_string(), 120)
}

/// A status as trailers.
fn trailers(status: &Status) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(2);
    if status.add_header(&mut headers).is_err() {
        // Our own statuses are plain ASCII; the code alone cannot fail.
        headers.insert("grpc-status", http::HeaderValue::from(status.code() as i32));
    }
    headers
}

impl<B> Body for StreamBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let Some(meter) = this.meter else {
            return match this.inner.as_pin_mut() {
                Some(inner) => {
                    inner.poll_frame(cx).map_err(|error| Status::from_error(error.into()))
                }
                None => Poll::Ready(None),
            };
        };
        if meter.is_stopped() {
            return Poll::Ready(meter.stopped());
        }
        if let Some(throttle) = meter.throttle() {
            let paid = throttle.poll_pay(cx);
            meter.call.cell().throttled(paid.is_pending());
            match paid {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(status)) => {
                    meter.call.stop(status);
                    return Poll::Ready(meter.stopped());
                }
                Poll::Pending if meter.poll_stop(cx) => return Poll::Ready(meter.stopped()),
                Poll::Pending => return Poll::Pending,
            }
        }
        let Some(inner) = this.inner.as_pin_mut() else { return Poll::Ready(None) };
        // A server's response stream is the handler's own code.
        let polled = if meter.part == Part::Response && meter.side == Side::Server {
            scope::within(&meter.call, || inner.poll_frame(cx))
        } else {
            inner.poll_frame(cx)
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                meter.frame(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let status = Status::from_error(error.into());
                meter.failed(&status);
                Poll::Ready(Some(Err(status)))
            }
            Poll::Ready(None) => {
                meter.over(BodyState::End);
                Poll::Ready(None)
            }
            Poll::Pending => {
                meter.direction().pending();
                if meter.poll_stop(cx) { Poll::Ready(meter.stopped()) } else { Poll::Pending }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // Whoever asks before the transport does is told no, which is always
        // allowed: tonic would put an empty body in the place of this one.
        if !self.dispatch.asked(self.meter.as_ref().map(|meter| meter.call.cell())) {
            return false;
        }
        self.inner.as_ref().is_none_or(|inner| inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), |inner| inner.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_stream_has_is_small() {
        // Each open stream has two bodies and a call; what it costs in all,
        // measures `cargo bench --bench streams`.
        assert!(size_of::<Meter>() <= 40);
        assert!(size_of::<StreamBody<hyper::body::Incoming>>() <= 88);
        assert!(size_of::<StreamBody<tonic::body::Body>>() <= 72);
        assert!(size_of::<Call>() <= 72);
    }
}
