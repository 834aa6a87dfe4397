//! `/debug/streams`, `/debug/streams/{id}`, `/debug/connections`, `/debug/log`

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::Uri;
use futures_util::future::Either;
use tokio::time::timeout;

use super::params::{Params, id};
use super::tasks::RELATIVES;
use super::{Answer, answer, long_answer};
use crate::analyze::{Judge, analyze};
use crate::error::Error;
use crate::model::{ConnectionId, Snapshot, Stream, StreamId};
use crate::render::json::{
    self, ConnectionsAnswer, Head, Hog, Json, JudgedConnection, JudgedStream, LogAnswer,
    StreamAnswer, StreamsAnswer, TaskRef,
};
use crate::render::select::{STREAM_FILTER, StreamSort, select_streams, stream_filter};
use crate::serve::flight::{Held, call};
use crate::serve::problem::Problem;
use crate::serve::server::Shared;
use crate::serve::source::{LogTarget, Want};

/// How long a list of streams waits for await chains. The first dump of a
/// process reads its debug information, which can take seconds.
const PATIENCE: Duration = Duration::from_millis(500);
/// Streams of a short list; they take a megabyte or two.
const FEW: usize = 1_000;

pub async fn list(State(shared): State<Shared>, uri: Uri) -> Answer {
    let params = Params::parse(&uri, &["filter", "sort", "limit", "cursor"])?;
    let filter = stream_filter(params.get("filter").unwrap_or_default())
        .map_err(|error| Problem::bad(error, STREAM_FILTER))?;
    let sort = params.choice("sort", StreamSort::WORDS, StreamSort::parse)?;
    let after = params.cursor(sort.number())?;
    let limit = params.limit()?;
    let held = to_judge(&shared).await?;
    // A long list is sent from its snapshot, of which there may be few; of a
    // short one only what is sent is kept.
    let long = limit.min(all(&held).count()) > FEW;
    let room = if long { shared.flight.room_for(&held).await? } else { None };
    let chunks = call(&shared.stats, move || {
        let judge = Judge::new(&held);
        let kind = |stream: &Stream| judge.kind(stream);
        let uptime_ns = held.process.uptime_ns;
        let page = select_streams(all(&held), uptime_ns, &filter, kind, sort, after, limit);
        let head = StreamsAnswer {
            head: Head::of(&held),
            total: all(&held).count() as u64,
            matched: page.matched,
            next_cursor: page.next.map(|next| next.to_string()),
            streams: Vec::new(),
        };
        // Told here and not while it is sent, for the judge reads the snapshot
        // that the sending owns.
        let verdicts: Vec<_> =
            page.rows.iter().map(|&row| judge.verdict(nth(&held, row))).collect();
        let rows = page.rows;
        let append = move |row: usize, stream: &Stream, out: &mut Vec<u8>| {
            json::append(&JudgedStream { stream, verdict: &verdicts[row] }, out);
        };
        Ok(if long {
            Either::Left(Json::list(&head, rows.len(), move |row, out| {
                let _until_sent = &room;
                append(row, nth(&held, rows[row]), out);
            }))
        } else {
            let streams: Vec<Stream> = rows.iter().map(|&row| nth(&held, row).clone()).collect();
            Either::Right(Json::list(&head, rows.len(), move |row, out| {
                append(row, &streams[row], out);
            }))
        })
    });
    Ok(match chunks.await? {
        Either::Left(long) => long_answer(&shared, long),
        Either::Right(short) => long_answer(&shared, short),
    })
}

/// A snapshot to judge streams by. Await chains are dear: they are read if
/// what a task waits for would make some verdict surer.
async fn to_judge(shared: &Shared) -> Result<Arc<Held>, Arc<Error>> {
    let held = shared.flight.snapshot(Want::COUNTS).await?;
    let held = ripened(shared, held, Want::COUNTS).await?;
    let looked = Arc::clone(&held);
    let wanted = call(&shared.stats, move || {
        let judge = Judge::new(&looked);
        Ok(looked.streams.iter().any(|stream| judge.wants_tasks(stream)))
    });
    if !wanted.await.map_err(Arc::new)? {
        return Ok(held);
    }
    // What cannot be had, or not in time, leaves verdicts that are less sure,
    // not none. The dump goes on, and the next to ask may have it.
    match timeout(PATIENCE, shared.flight.snapshot(Want::ALL)).await {
        Ok(Ok(whole)) => ripened(shared, whole, Want::ALL).await,
        _ => Ok(held),
    }
}

/// A snapshot is kept for a moment. One that came just before something had
/// lasted for long enough to be judged would keep that from us until it is
/// old: then another is taken in its place.
async fn ripened(shared: &Shared, held: Arc<Held>, want: Want) -> Result<Arc<Held>, Arc<Error>> {
    let looked = Arc::clone(&held);
    let ripe = call(&shared.stats, move || {
        let ripens_in = |held: &_| Judge::new(held).ripens_in().map(Duration::from_nanos);
        Ok(looked.is_ripe(ripens_in))
    });
    if !ripe.await.map_err(Arc::new)? {
        return Ok(held);
    }
    // The older one says less, but says it now.
    match timeout(PATIENCE, shared.flight.after(&held, want)).await {
        Ok(Ok(later)) => Ok(later),
        _ => Ok(held),
    }
}

/// Live ones, then ended ones.
fn all(snapshot: &Snapshot) -> impl Iterator<Item = &Stream> {
    snapshot.streams.iter().chain(&snapshot.ended_streams)
}

/// One of [`all`] by its place.
fn nth(snapshot: &Snapshot, index: usize) -> &Stream {
    let live = snapshot.streams.len();
    snapshot.streams.get(index).unwrap_or_else(|| &snapshot.ended_streams[index - live])
}

pub async fn one(State(shared): State<Shared>, Path(wanted): Path<String>, uri: Uri) -> Answer {
    Params::parse(&uri, &[])?;
    let wanted: StreamId = id(&wanted, "stream")?;
    let held = shared.flight.snapshot(Want::ALL).await?;
    let body = call(&shared.stats, move || {
        let Some(stream) = all(&held).find(|stream| stream.id == wanted) else { return Ok(None) };
        let tasks = || held.tasks.iter().filter(|task| task.stream == Some(wanted));
        let judge = Judge::new(&held);
        let connection =
            stream.connection.and_then(|id| judged_connections(&held, &judge, Some(id)).pop());
        let named = analyze(&held).findings.into_iter();
        Ok(Some(json::to_vec(&StreamAnswer {
            head: Head::of(&held),
            stream: JudgedStream { stream, verdict: &judge.verdict(stream) },
            connection,
            tasks_total: tasks().count() as u64,
            tasks: tasks().take(RELATIVES).map(TaskRef::from).collect(),
            findings: named.filter(|finding| finding.streams.contains(&wanted)).collect(),
        })))
    });
    match body.await? {
        Some(body) => Ok(super::json_body(body.into())),
        None => {
            Err(Problem::not_found(format!("stream {wanted} is not known, or ended too long ago")))
        }
    }
}

pub async fn connections(State(shared): State<Shared>, uri: Uri) -> Answer {
    Params::parse(&uri, &[])?;
    let held = to_judge(&shared).await?;
    let body = call(&shared.stats, move || {
        let judge = Judge::new(&held);
        Ok(json::to_vec(&ConnectionsAnswer {
            head: Head::of(&held),
            connections: judged_connections(&held, &judge, None),
        }))
    });
    Ok(super::json_body(body.await?.into()))
}

/// All connections or the one asked for, and how their streams are judged.
fn judged_connections<'a>(
    snapshot: &'a Snapshot,
    judge: &Judge<'_>,
    only: Option<ConnectionId>,
) -> Vec<JudgedConnection<'a>> {
    let wanted = |id: ConnectionId| only.is_none_or(|only| only == id);
    let mut verdicts: HashMap<ConnectionId, BTreeMap<&'static str, u64>> = HashMap::new();
    for stream in &snapshot.streams {
        if let Some(id) = stream.connection.filter(|&id| wanted(id)) {
            let kind = judge.kind(stream).0.as_str();
            *verdicts.entry(id).or_default().entry(kind).or_default() += 1;
        }
    }
    let hog = |hog: Option<(StreamId, u64)>| {
        hog.map(|(stream, unread_bytes)| Hog { stream, unread_bytes })
    };
    snapshot
        .connections
        .iter()
        .filter(|connection| wanted(connection.id))
        .map(|connection| {
            let (send, recv) = judge.hogs(connection.id);
            JudgedConnection {
                connection,
                verdicts: verdicts.remove(&connection.id).unwrap_or_default(),
                send_hog: hog(send),
                recv_hog: hog(recv),
            }
        })
        .collect()
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
