//! The endpoints: one file per family, one table of routes.

mod accept;
pub mod params;
mod pprof;
mod report;
mod snapshot;
mod streams;
mod tasks;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on, post};
use serde::Serialize;

use super::body::streamed;
use super::problem::{self, Problem};
use super::server::Shared;
use super::{assets, events};
use crate::render::{Chunks, json};

/// What a request for nothing we have is told.
pub const MAP: &str = "there is nothing here; try
/                   the page
/debug/findings     what is wrong now
/debug/tasks        tasks as JSON; ?group=stack groups them
/debug/streams      gRPC streams
/debug/connections  their connections
/debug/workers      workers and blocked polls
/debug/snapshot     everything in one file
/debug/events       findings and counters as they change
/debug/pprof/       Go's profiles; goroutine?debug=2 is the full dump
/metrics            for Prometheus
/healthz            200 while the profiler lives
";

/// All routes.
pub fn router(shared: &Shared) -> Router {
    // Go's tools send GET, HEAD and, for long symbol lists, POST.
    let pprof = MethodFilter::GET.or(MethodFilter::POST);
    let mut router = Router::new()
        .route("/debug/pprof", on(pprof, pprof::redirect))
        .route("/debug/pprof/", on(pprof, pprof::index))
        .route("/debug/pprof/goroutine", on(pprof, pprof::goroutine))
        .route("/debug/pprof/goroutineleak", on(pprof, pprof::goroutineleak))
        .route("/debug/pprof/profile", on(pprof, pprof::profile))
        .route("/debug/pprof/cmdline", on(pprof, pprof::cmdline))
        .route("/debug/pprof/symbol", on(pprof, pprof::symbol))
        .route("/debug/pprof/{*name}", on(pprof, pprof::other))
        .route("/debug/tasks", get(tasks::list))
        .route("/debug/tasks/{id}", get(tasks::one))
        .route("/debug/streams", get(streams::list))
        .route("/debug/streams/{id}", get(streams::one))
        .route("/debug/connections", get(streams::connections))
        .route("/debug/workers", get(report::workers))
        .route("/debug/findings", get(report::findings))
        .route("/debug/snapshot", get(snapshot::whole))
        .route("/debug/events", get(events::events))
        .route("/metrics", get(report::metrics))
        .route("/healthz", get(report::health));
    if shared.config.control {
        router = router.route("/debug/log", post(streams::log));
    }
    router.fallback(asset).with_state(Shared::clone(shared))
}

async fn asset(method: Method, uri: Uri) -> Response {
    match assets::find(uri.path()) {
        Some(asset) if matches!(method, Method::GET | Method::HEAD) => asset.into_response(),
        Some(_) => problem::text(StatusCode::METHOD_NOT_ALLOWED, "the page's files take GET only"),
        None => problem::text(StatusCode::NOT_FOUND, MAP),
    }
}

/// A short JSON answer.
fn answer<T: Serialize>(value: &T) -> Response {
    json_body(Body::from(json::to_vec(value)))
}

/// A JSON answer that is rendered while it is sent.
fn long_answer(shared: &Shared, chunks: impl Chunks) -> Response {
    json_body(streamed(chunks, &shared.stats))
}

fn json_body(body: Body) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// What handlers of JSON endpoints return.
type Answer = Result<Response, Problem>;
