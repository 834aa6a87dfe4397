//! One connection's calls: hyper's service and executor in one.
//!
//! For each request hyper calls the service and then, before anything else,
//! hands the stream's future to the executor (hyper 1.12,
//! `proto/h2/server.rs`). So the executor knows which call it is given, can
//! name the task before its first poll, and can drop the future: h2 then sends
//! RST_STREAM. No service can do that from inside while the peer's window is
//! closed, since nothing polls it then.

use std::convert::Infallible;
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{Request, Response};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::server::{TcpConnectInfo, UdsConnectInfo};
use tower::ServiceExt;
use tower::util::Oneshot;

use super::admit::{Bucket, for_connection};
use super::body::StreamBody;
use super::call::{Call, Tracked};
use super::future::CallFuture;
use super::heartbeat;
use super::tracker::Tracker;
use super::watch::Watch;
use crate::instrument::scope::Scope;
use crate::instrument::task_id;
use crate::model::Side;
use crate::registry::connections::ConnectionCell;

/// What tonic's `Request` tells of the connection.
#[derive(Clone)]
pub(super) enum ConnectInfo {
    Tcp(TcpConnectInfo),
    Unix(UdsConnectInfo),
    #[cfg(all(test, feature = "cli"))]
    None,
}

/// One connection, shared by its service, its executor and its streams' tasks.
pub(super) struct Conn {
    tracker: Arc<Tracker>,
    cell: Arc<ConnectionCell>,
    routes: Routes,
    info: ConnectInfo,
    buckets: Vec<Bucket>,
    /// From the service to the executor, within one call of hyper's.
    handover: Mutex<Option<(Arc<Call>, Watch)>>,
    live: Mutex<Live>,
    /// Calls that the peer may reset before they are answered.
    resets: DefaultDirectRateLimiter,
    flood: Notify,
    /// Finish what runs, take no more.
    draining: CancellationToken,
}

impl Conn {
    pub(super) fn new(
        tracker: Arc<Tracker>,
        cell: Arc<ConnectionCell>,
        routes: Routes,
        info: ConnectInfo,
        reset_burst: NonZeroU32,
        draining: CancellationToken,
    ) -> Arc<Self> {
        let refill = NonZeroU32::new(reset_burst.get() / 10).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(refill).allow_burst(reset_burst);
        let buckets = for_connection(&tracker.limits.rates);
        Arc::new(Self {
            tracker,
            cell,
            routes,
            info,
            buckets,
            handover: Mutex::default(),
            live: Mutex::default(),
            resets: RateLimiter::direct(quota),
            flood: Notify::new(),
            draining,
        })
    }

    /// Waits until the peer has reset more calls than it may. h2 counts only
    /// resets of calls that it has not handed over yet, so a server that keeps
    /// up would do a flood's work for ever (CVE-2023-44487).
    pub(super) async fn flooded(&self) {
        self.flood.notified().await;
    }

    pub(super) fn cell(&self) -> &Arc<ConnectionCell> {
        &self.cell
    }

    /// Ends all its calls with a status.
    pub(super) fn stop_all(&self, status: &Status) {
        let calls: Vec<_> = lock(&self.live).calls().collect();
        for call in calls {
            call.stop(status.clone());
        }
    }
}

/// The calls that run, each in a place of its own: as many as ever ran at once.
#[derive(Default)]
struct Live {
    places: Vec<Option<Weak<Call>>>,
    free: Vec<u32>,
}

impl Live {
    fn enter(&mut self, call: &Arc<Call>) -> u32 {
        let call = Some(Arc::downgrade(call));
        match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = call;
                place
            }
            None => {
                self.places.push(call);
                (self.places.len() - 1) as u32
            }
        }
    }

    /// Gives up a place that [`enter`](Self::enter) gave.
    fn leave(&mut self, place: u32) {
        self.places[place as usize] = None;
        self.free.push(place);
    }

    fn calls(&self) -> impl Iterator<Item = Arc<Call>> {
        self.places.iter().flatten().filter_map(Weak::upgrade)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The service of one connection.
pub(super) struct ConnService(pub(super) Arc<Conn>);

impl hyper::service::Service<Request<Incoming>> for ConnService {
    type Response = Response<StreamBody<tonic::body::Body>>;
    type Error = Infallible;
    /// Boxed: the stream's task holds it up to the response headers, and would
    /// keep its room for as long as the stream lives.
    type Future = CallFuture<Pin<Box<Oneshot<Routes, Request<StreamBody<Incoming>>>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let conn = &self.0;
        let (mut parts, body) = request.into_parts();
        match &conn.info {
            ConnectInfo::Tcp(info) => _ = parts.extensions.insert(info.clone()),
            ConnectInfo::Unix(info) => _ = parts.extensions.insert(info.clone()),
            #[cfg(all(test, feature = "cli"))]
            ConnectInfo::None => {}
        }
        if parts.uri.path() == heartbeat::PATH {
            parts.extensions.insert(heartbeat::Draining(conn.draining.clone()));
        }
        let cell = Some(conn.cell.clone());
        let begun = conn.tracker.begin(Side::Server, &parts, cell, None, &conn.buckets);
        let wire = conn.cell.wire();
        let Some(begun) = begun else {
            if let Some(wire) = wire {
                wire.called(None);
            }
            let request = Request::from_parts(parts, StreamBody::plain(body));
            return CallFuture::plain(Box::pin(conn.routes.clone().oneshot(request)));
        };
        let call = begun.call;
        if let Some(wire) = wire {
            call.cell().carried_by(wire);
        }
        parts.extensions.insert(Scope::new(call.clone()));
        let body = StreamBody::request(body, call.clone(), begun.messages);
        let request = Request::from_parts(parts, body);
        let inner = Box::pin(conn.routes.clone().oneshot(request));
        *lock(&conn.handover) = Some((call.clone(), begun.watch));
        CallFuture::watched(inner, call, begun.admission)
    }
}

/// The executor of one connection.
#[derive(Clone)]
pub(super) struct ConnExecutor(pub(super) Arc<Conn>);

impl<F> hyper::rt::Executor<F> for ConnExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let Some((call, watch)) = lock(&self.0.handover).take() else {
            // Not gRPC, or the far end of a CONNECT.
            tokio::spawn(future);
            return;
        };
        let place = lock(&self.0.live).enter(&call);
        let listed = Listed { conn: self.0.clone(), tracked: Tracked::new(call.clone()), place };
        // Named before its first poll: it may have to wait long for that.
        let task = StreamTask { future: Some(future), watch, listed, known: false };
        let spawning = call.spawning();
        let handle = tokio::spawn(task);
        drop(spawning);
        call.cell().belongs_to(task_id::number(handle.id()));
    }
}

/// A call on the list of its connection.
struct Listed {
    conn: Arc<Conn>,
    tracked: Tracked,
    place: u32,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let call = self.tracked.call();
        lock(&self.conn.live).leave(self.place);
        // The future was dropped before (fields are, in their order), so an
        // unanswered call that nobody here has stopped is one that was reset.
        if !call.cell().has_response()
            && call.stopped().is_none()
            && !std::thread::panicking()
            && self.conn.resets.check().is_err()
        {
            self.conn.flood.notify_one();
        }
    }
}

pin_project! {
    /// Runs one HTTP/2 stream and ends it when its call is to stop.
    struct StreamTask<F> {
        #[pin]
        future: Option<F>,
        watch: Watch,
        listed: Listed,
        // The call knows this task, which stays the one that polls.
        known: bool,
    }
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        if future.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let call = this.listed.tracked.call();
        if !std::mem::replace(this.known, true) {
            call.wake_ender_by(cx.waker());
        }
        if !this.watch.poll_limits(call, cx) {
            return Poll::Pending;
        }
        // If the transport can take it, the call now ends with its status. Else
        // it waits for the peer, which is what has taken too long: reset it.
        if let Some(future) = this.future.as_mut().as_pin_mut()
            && future.poll(cx).is_pending()
        {
            this.future.set(None);
        }
        Poll::Ready(())
    }
}
