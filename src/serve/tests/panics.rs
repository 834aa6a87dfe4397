//! A panic in the profiler costs one answer, never the server.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::get;
use futures_util::{FutureExt as _, StreamExt as _};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;

use super::fixture::*;
use crate::model::sample;
use crate::render::Chunks;
use crate::serve::body::streamed;
use crate::serve::gate::gate;
use crate::serve::server::{Context, Phase};
use crate::serve::stats::Stats;
use crate::serve::{ServeConfig, Source};

/// A request for every route that asks the source; twice where one route asks
/// it in two ways.
const ASKING: &[(&str, &str)] = &[
    ("/debug/pprof/", "/debug/pprof/"),
    ("/debug/pprof/goroutine", "/debug/pprof/goroutine"),
    ("/debug/pprof/goroutine", "/debug/pprof/goroutine?debug=1"),
    ("/debug/pprof/goroutine", "/debug/pprof/goroutine?debug=2"),
    ("/debug/pprof/goroutine", "/debug/pprof/goroutine?seconds=1"),
    ("/debug/pprof/profile", "/debug/pprof/profile?seconds=1"),
    ("/debug/pprof/cmdline", "/debug/pprof/cmdline"),
    ("/debug/pprof/goroutineleak", "/debug/pprof/goroutineleak?debug=2"),
    ("/debug/pprof/symbol", "/debug/pprof/symbol?0x4a3200"),
    ("/debug/pprof/{*name}", "/debug/pprof/heap"),
    ("/debug/pprof/{*name}", "/debug/pprof/block"),
    ("/debug/pprof/{*name}", "/debug/pprof/mutex?seconds=1"),
    ("/debug/tasks", "/debug/tasks"),
    ("/debug/tasks", "/debug/tasks?group=stack"),
    ("/debug/tasks/{id}", "/debug/tasks/10"),
    ("/debug/streams", "/debug/streams"),
    ("/debug/streams/{id}", "/debug/streams/1"),
    ("/debug/connections", "/debug/connections"),
    ("/debug/workers", "/debug/workers"),
    ("/debug/findings", "/debug/findings"),
    ("/debug/snapshot", "/debug/snapshot"),
    ("/metrics", "/metrics"),
    ("/healthz", "/healthz"),
    ("/debug/log", "/debug/log?stream=1&on=true"),
];

/// Routes that are tested by themselves, or ask nothing.
const OTHERS: &[&str] = &["/debug/pprof", "/debug/events"];

fn ask(target: &Target, path: &str) -> Answer {
    if path.starts_with("/debug/log") {
        return target.request("POST", path, "Content-Length: 0\r\n");
    }
    target.get(path)
}

/// A route that is added without a line above fails this.
#[test]
fn every_route_is_known_here() {
    let table = include_str!("../api/mod.rs");
    let routes: BTreeSet<_> =
        table.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let known: BTreeSet<_> =
        ASKING.iter().map(|(route, _)| *route).chain(OTHERS.iter().copied()).collect();
    assert_eq!(routes, known);
}

#[test]
fn a_panic_of_the_source_costs_one_answer_of_any_route() {
    let target =
        serve(Saved::new(sample::busy_server()), ServeConfig { control: true, ..config() });
    target.source.panics.store(true, Ordering::SeqCst);
    // More often than there are permits of any kind: none is lost on the way.
    for round in 0..3 {
        for (_, path) in ASKING {
            let answer = ask(&target, path);
            assert_eq!(answer.status, 500, "{path}, round {round}: {}", answer.text());
            assert!(answer.text().contains("a panic inside the profiler"), "{}", answer.text());
        }
    }
    target.source.panics.store(false, Ordering::SeqCst);
    for (_, path) in ASKING {
        assert_eq!(ask(&target, path).status, 200, "{path}");
    }
    let counted = format!("taskprof_http_panics_total {}\n", 3 * ASKING.len());
    assert!(target.get("/metrics").text().contains(&counted));
}

#[test]
fn events_go_on_after_a_look_that_panicked() {
    let target = busy();
    target.source.panics.store(true, Ordering::SeqCst);
    let mut stream = target.connect();
    stream.write_all(b"GET /debug/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("HTTP/1.1 200 OK"));
    let taken = || target.source.taken.load(Ordering::SeqCst);
    let begun = std::time::Instant::now();
    while taken() < 2 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "nobody looks again");
        std::thread::yield_now();
    }
    target.source.panics.store(false, Ordering::SeqCst);
    for event in ["counters", "findings"] {
        assert!(lines.by_ref().any(|line| line == format!("event: {event}")), "{event}");
    }
}

#[tokio::test]
async fn a_panic_of_a_handler_becomes_an_answer() {
    let config = config();
    let source: Arc<dyn Source> = Arc::new(Saved::new(sample::empty()));
    let (_stop, stopped) = watch::channel(Phase::Serving);
    let shared = Context::shared(config.clone(), &config.listen, source, stopped);
    async fn handler() -> Response {
        std::panic::panic_any(Bomb)
    }
    let router = Router::new()
        .route("/debug/tasks", get(handler))
        .layer(from_fn_with_state(Arc::clone(&shared), gate));
    let request = Request::get("/debug/tasks").header("host", "localhost").body(Body::empty());
    let answered = TowerToHyperService::new(router).call(request.unwrap());
    let response = unharmed(answered).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(response.headers().contains_key("content-security-policy"));
    assert_eq!(shared.stats.panics.get(), 1);
}

/// A bomb that comes through would take the test harness along.
async fn unharmed<F: Future>(work: F) -> F::Output {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .map_err(std::mem::forget)
        .expect("the panic is caught inside")
}

/// Two whole chunks, then a panic.
struct Breaks(usize);

impl Chunks for Breaks {
    fn next(&mut self, out: &mut Vec<u8>) -> bool {
        self.0 += 1;
        if self.0 > 2 {
            std::panic::panic_any(Bomb);
        }
        out.resize(64 * 1024, b'x');
        true
    }
}

#[tokio::test]
async fn a_panic_while_rendering_breaks_the_answer_off() {
    let stats = Arc::new(Stats::default());
    let mut body = pin!(streamed(Breaks(0), &stats).into_data_stream());
    for _ in 0..2 {
        assert_eq!(body.next().await.unwrap().unwrap().len(), 64 * 1024);
    }
    assert_eq!(stats.panics.get(), 0);
    assert!(unharmed(body.next()).await.unwrap().is_err(), "the client sees that it is not whole");
    assert_eq!(stats.panics.get(), 1);
    assert!(body.next().await.is_none());
}
