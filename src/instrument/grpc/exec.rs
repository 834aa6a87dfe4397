//! One connection's calls: hyper's service and executor in one.
//!
//! For each request hyper calls the service and then, before anything else,
//! hands the stream's future to the executor (hyper 1.12,
//! `proto/h2/server.rs`). So the executor knows which call it is given, can
//! name the task before its first poll, and can drop the future: h2 then sends
//! RST_STREAM. No service can do that from inside while the peer's window is
//! closed, since nothing polls it then.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::server::{TcpConnectInfo, UdsConnectInfo};
use tower::ServiceExt;
use tower::util::Oneshot;

use super::admit::{Bucket, for_connection};
use super::body::StreamBody;
use super::call::{Call, Tracked};
use super::future::CallFuture;
use super::tracker::Tracker;
use super::watch::Watch;
use crate::instrument::scope::Scope;
use crate::instrument::task_id;
use crate::model::{Side, StreamId};
use crate::registry::connections::ConnectionCell;

/// What tonic's `Request` tells of the connection.
#[derive(Clone)]
pub(super) enum ConnectInfo {
    Tcp(TcpConnectInfo),
    Unix(UdsConnectInfo),
    #[cfg(test)]
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
    live: Mutex<HashMap<StreamId, Weak<Call>>>,
}

impl Conn {
    pub(super) fn new(
        tracker: Arc<Tracker>,
        cell: Arc<ConnectionCell>,
        routes: Routes,
        info: ConnectInfo,
    ) -> Arc<Self> {
        let buckets = for_connection(&tracker.limits.rates);
        Arc::new(Self {
            tracker,
            cell,
            routes,
            info,
            buckets,
            handover: Mutex::default(),
            live: Mutex::default(),
        })
    }

    pub(super) fn cell(&self) -> &Arc<ConnectionCell> {
        &self.cell
    }

    /// Ends all its calls with a status.
    pub(super) fn stop_all(&self, status: &Status) {
        let calls: Vec<_> = lock(&self.live).values().filter_map(Weak::upgrade).collect();
        for call in calls {
            call.stop(status.clone());
        }
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
    type Future = CallFuture<Oneshot<Routes, Request<StreamBody<Incoming>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let conn = &self.0;
        let (mut parts, body) = request.into_parts();
        match &conn.info {
            ConnectInfo::Tcp(info) => _ = parts.extensions.insert(info.clone()),
            ConnectInfo::Unix(info) => _ = parts.extensions.insert(info.clone()),
            #[cfg(test)]
            ConnectInfo::None => {}
        }
        let cell = Some(conn.cell.clone());
        let begun = conn.tracker.begin(Side::Server, &parts, cell, None, &conn.buckets);
        let Some(begun) = begun else {
            let request = Request::from_parts(parts, StreamBody::plain(body));
            return CallFuture::plain(conn.routes.clone().oneshot(request));
        };
        let call = begun.call;
        parts.extensions.insert(Scope::new(call.clone()));
        let body = StreamBody::request(body, call.clone(), begun.messages);
        let inner = conn.routes.clone().oneshot(Request::from_parts(parts, body));
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
        lock(&self.0.live).insert(call.cell().id(), Arc::downgrade(&call));
        let listed = Listed { conn: self.0.clone(), tracked: Tracked::new(call.clone()) };
        let handle = tokio::spawn(StreamTask { future: Some(future), watch, listed });
        // Named before its first poll: it may have to wait long for that.
        let task = task_id::number(handle.id());
        call.cell().belongs_to(task);
        call.tag(task);
    }
}

/// A call on the list of its connection.
struct Listed {
    conn: Arc<Conn>,
    tracked: Tracked,
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock(&self.conn.live).remove(&self.tracked.call().cell().id());
    }
}

pin_project! {
    /// Runs one HTTP/2 stream and ends it when its call is to stop.
    struct StreamTask<F> {
        #[pin]
        future: Option<F>,
        watch: Watch,
        listed: Listed,
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
        if !this.watch.poll_stop(cx) {
            return Poll::Pending;
        }
        // If the transport can take it, the call now ends with its status. Else
        // it waits for the peer, which is what has taken too long: reset it.
        if let Some(future) = this.future.as_mut().as_pin_mut() {
            if future.poll(cx).is_pending() {
                this.future.set(None);
            }
        }
        Poll::Ready(())
    }
}
