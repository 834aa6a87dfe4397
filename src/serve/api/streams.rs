//! `/debug/streams`, `/debug/streams/{id}`, `/debug/connections`, `/debug/log`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::Uri;

use super::params::{Params, id};
use super::tasks::RELATIVES;
use super::{Answer, answer, long_answer};
use crate::analyze::analyze;
use crate::model::{Snapshot, Stream, StreamId};
use crate::render::json::{
    self, ConnectionsAnswer, Head, Json, LogAnswer, StreamAnswer, StreamsAnswer, TaskRef,
};
use crate::render::select::{STREAM_FILTER, StreamSort, select_streams, stream_filter};
use crate::serve::flight::call;
use crate::serve::problem::Problem;
use crate::serve::server::Shared;
use crate::serve::source::{LogTarget, Want};

pub async fn list(State(shared): State<Shared>, uri: Uri) -> Answer {
    let params = Params::parse(&uri, &["filter", "sort", "limit", "cursor"])?;
    let filter = stream_filter(params.get("filter").unwrap_or_default())
        .map_err(|error| Problem::bad(error, STREAM_FILTER))?;
    let sort = params.choice("sort", StreamSort::WORDS, StreamSort::parse)?;
    let after = params.cursor(sort.number())?;
    let limit = params.limit()?;
    let held = shared.flight.snapshot(Want::COUNTS).await?;
    let chunks = call(&shared.stats, move || {
        let page = select_streams(all(&held), held.process.uptime_ns, &filter, sort, after, limit);
        let head = StreamsAnswer {
            head: Head::of(&held),
            total: all(&held).count() as u64,
            matched: page.matched,
            next_cursor: page.next.map(|next| next.to_string()),
            streams: Vec::new(),
        };
        let rows = page.rows;
        Ok(Json::list(&head, rows.len(), move |row, out| {
            let live = held.streams.len();
            let index = rows[row];
            json::append(
                held.streams.get(index).unwrap_or_else(|| &held.ended_streams[index - live]),
                out,
            );
        }))
    });
    Ok(long_answer(&shared, chunks.await?))
}

/// Live ones, then ended ones.
fn all(snapshot: &Snapshot) -> impl Iterator<Item = &Stream> {
    snapshot.streams.iter().chain(&snapshot.ended_streams)
}

pub async fn one(State(shared): State<Shared>, Path(wanted): Path<String>, uri: Uri) -> Answer {
    Params::parse(&uri, &[])?;
    let wanted: StreamId = id(&wanted, "stream")?;
    let held = shared.flight.snapshot(Want::ALL).await?;
    let Some(stream) = all(&held).find(|stream| stream.id == wanted) else {
        return Err(Problem::not_found(format!(
            "stream {wanted} is not known, or ended too long ago"
        )));
    };
    let tasks = || held.tasks.iter().filter(|task| task.stream == Some(wanted));
    let connection =
        held.connections.iter().find(|connection| Some(connection.id) == stream.connection);
    let answered = StreamAnswer {
        head: Head::of(&held),
        stream: stream.clone(),
        connection: connection.cloned(),
        tasks_total: tasks().count() as u64,
        tasks: tasks().take(RELATIVES).map(TaskRef::from).collect(),
        findings: Vec::new(),
    };
    let held = Arc::clone(&held);
    let findings = call(&shared.stats, move || {
        Ok(analyze(&held)
            .findings
            .into_iter()
            .filter(|finding| finding.streams.contains(&wanted))
            .collect())
    });
    Ok(answer(&StreamAnswer { findings: findings.await?, ..answered }))
}

pub async fn connections(State(shared): State<Shared>, uri: Uri) -> Answer {
    Params::parse(&uri, &[])?;
    let held = shared.flight.snapshot(Want::COUNTS).await?;
    let head = ConnectionsAnswer { head: Head::of(&held), connections: Vec::new() };
    let chunks = Json::list(&head, held.connections.len(), move |row, out| {
        json::append(&held.connections[row], out)
    });
    Ok(long_answer(&shared, chunks))
}

pub async fn log(State(shared): State<Shared>, uri: Uri) -> Answer {
    const EXPECTED: &str = "stream=ID or method=/pkg.Service/Method, and on=true or on=false";
    let params = Params::parse(&uri, &["stream", "method", "on"])?;
    let on = match params.get("on") {
        Some("true") => true,
        Some("false") => false,
        _ => return Err(Problem::bad("`on` is missing or neither true nor false", EXPECTED)),
    };
    let target = match (params.get("stream"), params.get("method")) {
        (Some(stream), None) => LogTarget::Stream(id(stream, "stream")?),
        (None, Some(method)) if method.starts_with('/') => LogTarget::Method(method.to_owned()),
        _ => return Err(Problem::bad("it takes either a stream or a method", EXPECTED)),
    };
    let source = Arc::clone(&shared.source);
    let asked = target.clone();
    let streams = call(&shared.stats, move || source.log_streams(&asked, on)).await? as u64;
    let (stream, method) = match target {
        LogTarget::Stream(id) => (Some(id), None),
        LogTarget::Method(method) => (None, Some(method)),
    };
    Ok(answer(&LogAnswer { on, streams, stream, method }))
}
