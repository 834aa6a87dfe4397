//! `/debug/findings`, `/debug/workers`, `/metrics`, `/healthz`

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};

use super::params::Params;
use super::{Answer, accept, answer};
use crate::analyze::{Judge, analyze};
use crate::model::Snapshot;
use crate::render::json::{FindingsAnswer, Head, HealthAnswer, HealthRuntime, WorkersAnswer};
use crate::render::metrics;
use crate::serve::flight::call;
use crate::serve::server::Shared;
use crate::serve::source::Want;

pub async fn findings(State(shared): State<Shared>, uri: Uri) -> Answer {
    Params::parse(&uri, &[])?;
    let held = shared.flight.snapshot(Want::ALL).await?;
    let found = call(&shared.stats, move || {
        let report = analyze(&held);
        Ok(FindingsAnswer {
            head: Head::of(&held),
            findings: report.findings,
            checked: report.checked,
        })
    });
    Ok(answer(&found.await?))
}

pub async fn workers(State(shared): State<Shared>, uri: Uri) -> Answer {
    Params::parse(&uri, &[])?;
    let held = shared.flight.snapshot(Want { tasks: false, stacks: true }).await?;
    Ok(answer(&WorkersAnswer {
        head: Head::of(&held),
        blocked_threshold_ns: held.blocked_threshold_ns,
        runtimes: held.runtimes.clone(),
        workers: held.workers.clone(),
        blocked: held.blocked.clone(),
        pauses: held.pauses.clone(),
    }))
}

pub async fn metrics(
    State(shared): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, crate::serve::problem::Problem> {
    Params::parse(&uri, &[])?;
    let held = shared.flight.snapshot(Want::ALL).await?;
    let stats = Arc::clone(&shared.stats);
    let format = accept::format(&headers);
    let text = call(&shared.stats, move || {
        let own = metrics::ServerFigures {
            requests: stats.requests.get(),
            refused: stats.refused.get(),
            connections: stats.connections.get(),
            connections_refused: stats.connections_refused.get(),
            write_timeouts: stats.write_timeouts.get(),
            event_streams: stats.event_streams.get(),
            panics: stats.panics.get(),
        };
        let judge = Judge::new(&held);
        let verdicts: Vec<_> = held.streams.iter().map(|stream| judge.kind(stream)).collect();
        Ok(metrics::metrics(&held, &analyze(&held), &verdicts, &own, format))
    });
    let kind = [(CONTENT_TYPE, format.content_type()), (VARY, "Accept")];
    Ok((kind, text.await?).into_response())
}

pub async fn health(State(shared): State<Shared>, uri: Uri) -> Answer {
    Params::parse(&uri, &[])?;
    let held = shared.flight.snapshot(Want::COUNTS).await?;
    Ok(answer(&HealthAnswer { head: Head::of(&held), status: "ok", runtimes: liveness(&held) }))
}

/// A runtime lives while one worker at least is not stuck in a poll. Without
/// the hooks nobody can tell.
fn liveness(snapshot: &Snapshot) -> Vec<HealthRuntime> {
    let live = snapshot.runtimes.iter().map(|runtime| {
        let mut workers =
            snapshot.workers.iter().filter(|worker| worker.runtime == runtime.id).peekable();
        let observed = workers.peek().is_some_and(|worker| worker.is_observed());
        let blocked = workers.filter(|worker| worker.blocked).count();
        let blocked = u32::try_from(blocked).unwrap_or(u32::MAX);
        HealthRuntime {
            id: runtime.id,
            name: Arc::clone(&runtime.name),
            workers: runtime.workers,
            workers_blocked: blocked,
            live: observed.then_some(blocked < runtime.workers),
            alive_tasks: runtime.alive_tasks,
        }
    });
    live.collect()
}
