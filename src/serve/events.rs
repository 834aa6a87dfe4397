//! `/debug/events`: counters and findings as they change, by server-sent events.
//!
//! One look per interval serves all clients, and nobody looks while there are
//! none. A client that is slow gets the newest state when it reads again, not
//! a backlog.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::api::params::Params;
use super::flight::call;
use super::problem;
use super::server::{Phase, Shared, reached};
use super::source::Want;
use super::stats::Counted;
use crate::analyze::{Judge, analyze};
use crate::model::{Report, Severity, Snapshot};
use crate::render::json::{self, CountersEvent, FindingsAnswer, Head, StateCounts};

/// Between two looks this many times what one took: a twentieth of the time,
/// however many tasks there are...
const REST_FACTOR: u32 = 20;
/// ...but no longer than this: what a look took may be time in which it waited
/// for others' dumps, or the machine for a processor, and a page on which
/// nothing moves is taken for a frozen process.
const MOST_REST: Duration = Duration::from_secs(5);
/// The same for await chains, which cost more.
const MOST_DEEP_REST: Duration = Duration::from_secs(30);
/// Await chains are read this often, or as soon as a cheap look shows other
/// findings than the one before: they cost the process a copy of its page
/// tables. Findings are sent each time, for their ages grow.
const DEEP_EVERY: Duration = Duration::from_secs(5);
/// A comment at least this often, so that proxies and clients know we live.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What the last looks showed, ready to send, each with how often it was seen
/// anew: 0 before the first look.
#[derive(Clone, Default)]
struct Seen {
    counters: (u64, Bytes),
    findings: (u64, Bytes),
}

/// Replaces what was seen before.
fn renew(seen: &mut (u64, Bytes), bytes: Vec<u8>) {
    *seen = (seen.0 + 1, bytes.into());
}

/// The looks that all clients share. They end with the last client.
struct Feed {
    seen: watch::Receiver<Seen>,
    looking: AbortHandle,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

/// All event streams.
pub struct Events {
    room: Arc<Semaphore>,
    feed: Mutex<Weak<Feed>>,
}

impl Events {
    /// At most this many at once.
    pub fn new(most: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(most)), feed: Mutex::default() }
    }

    fn join(&self, shared: &Shared) -> Arc<Feed> {
        let mut current = self.feed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = current.upgrade() {
            return feed;
        }
        let (sender, seen) = watch::channel(Seen::default());
        let looking =
            tokio::spawn(look_again_and_again(Arc::downgrade(shared), sender)).abort_handle();
        let feed = Arc::new(Feed { seen, looking });
        *current = Arc::downgrade(&feed);
        feed
    }
}

struct Client {
    seen: watch::Receiver<Seen>,
    stop: watch::Receiver<Phase>,
    /// What it has been sent of each.
    counters: u64,
    findings: u64,
    _feed: Arc<Feed>,
    _room: OwnedSemaphorePermit,
    _counted: Counted,
}

/// `GET /debug/events`
pub async fn events(State(shared): State<Shared>, uri: Uri) -> Response {
    if let Err(problem) = Params::parse(&uri, &[]) {
        return problem.into_response();
    }
    let Ok(room) = Arc::clone(&shared.events.room).try_acquire_owned() else {
        return problem::text(
            StatusCode::TOO_MANY_REQUESTS,
            format!(
                "{} event streams are open already; close one",
                shared.config.limits.event_streams
            ),
        );
    };
    let feed = shared.events.join(&shared);
    let mut seen = feed.seen.clone();
    // A client that joins late gets the last state at once.
    seen.mark_changed();
    let client = Client {
        seen,
        stop: shared.stop.clone(),
        counters: 0,
        findings: 0,
        _feed: feed,
        _room: room,
        _counted: Counted::new(Arc::clone(&shared.stats), |stats| &stats.event_streams),
    };
    let body = Body::from_stream(unfold(client, |mut client| async move {
        let next = client.next().await?;
        Some((Ok::<_, Infallible>(next), client))
    }));
    ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
}

impl Client {
    /// The next bytes; none once the server is about to stop.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                biased;
                () = reached(Phase::Closing, &mut self.stop) => return None,
                changed = self.seen.changed() => {
                    changed.ok()?;
                    let seen = self.seen.borrow_and_update().clone();
                    let mut out = Vec::new();
                    for (name, (number, data), sent) in [
                        ("counters", seen.counters, &mut self.counters),
                        ("findings", seen.findings, &mut self.findings),
                    ] {
                        if number != std::mem::replace(sent, number) {
                            event(name, &data, &mut out);
                        }
                    }
                    if !out.is_empty() {
                        return Some(out.into());
                    }
                }
                () = sleep(HEARTBEAT) => return Some(Bytes::from_static(b": still here\n\n")),
            }
        }
    }
}

/// JSON has no line breaks, so that one `data:` line holds it.
fn event(name: &str, data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
}

async fn look_again_and_again(shared: Weak<super::server::Context>, seen: watch::Sender<Seen>) {
    let mut memory = Memory::default();
    let mut due = Instant::now();
    // Nobody waits for await chains to learn that the process lives: the first
    // deep look may read debug information for seconds. At most one is under
    // way, in a task of its own that ends with this one.
    let mut deep = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(looked) = deep.join_next() => {
                if let Some(findings) = looked.ok().and_then(|deep| memory.take(deep)) {
                    seen.send_modify(|seen| renew(&mut seen.findings, json::to_vec(&findings)));
                }
            }
            () = sleep_until(due) => {
                let Some(shared) = shared.upgrade() else { return };
                let begun = Instant::now();
                // A look that failed is the next one's business; clients get heartbeats.
                if let Some((counters, report)) = memory.look(&shared).await {
                    seen.send_modify(|seen| renew(&mut seen.counters, json::to_vec(&counters)));
                    if memory.is_due(&report) && deep.is_empty() {
                        memory.changed = false;
                        deep.spawn(look_deep(Arc::clone(&shared), counters.head, report));
                    }
                }
                let now = Instant::now();
                let rest = ((now - begun) * REST_FACTOR).min(MOST_REST);
                due = now + rest.max(shared.config.limits.event_interval);
            }
        }
    }
}

/// What a deep look found, or the cheap one before it where it failed.
struct Deep {
    worked: bool,
    took: Duration,
    head: Head,
    report: Report,
}

/// Findings, await chains read; `head` and `report` are of the cheap look,
/// whose snapshot is gone by now: there is room for two at once.
async fn look_deep(shared: Shared, head: Head, report: Report) -> Deep {
    let begun = Instant::now();
    let deep = async {
        let held = shared.flight.snapshot(Want::ALL).await.ok()?;
        call(&shared.stats, move || Ok((Head::of(&held), analyze(&held)))).await.ok()
    };
    let found = deep.await;
    let worked = found.is_some();
    let (head, report) = found.unwrap_or((head, report));
    Deep { worked, took: begun.elapsed(), head, report }
}

/// What one look has to know of those before.
#[derive(Default)]
struct Memory {
    fingerprint: Option<u64>,
    /// Other troubles than at the last deep look.
    changed: bool,
    deep: Option<Instant>,
    /// What the last deep look took.
    deep_took: Duration,
    severities: BTreeMap<&'static str, u64>,
}

impl Memory {
    /// Counters, with the findings of the last deep look; and what there is to
    /// find without await chains.
    async fn look(&self, shared: &Shared) -> Option<(CountersEvent, Report)> {
        let cheap = shared.flight.snapshot(Want::TASKS).await.ok()?;
        let (mut counters, report) =
            call(&shared.stats, move || Ok((counters(&cheap), analyze(&cheap)))).await.ok()?;
        counters.findings = self.severities.clone();
        Some((counters, report))
    }

    /// Whether to look for findings, after a cheap look that showed these.
    fn is_due(&mut self, report: &Report) -> bool {
        let now = Some(fingerprint(report));
        self.changed |= std::mem::replace(&mut self.fingerprint, now) != now;
        let rested = |least: Duration| {
            let rest = (self.deep_took * REST_FACTOR).min(MOST_DEEP_REST);
            self.deep.is_none_or(|deep| deep.elapsed() >= rest.max(least))
        };
        rested(DEEP_EVERY) || (self.changed && rested(Duration::ZERO))
    }

    /// The findings to send, if a deep look brought any.
    fn take(&mut self, deep: Deep) -> Option<FindingsAnswer> {
        self.deep_took = deep.took;
        // Where chains cannot be read at all, the rest still counts; where
        // they cannot be read this once, what was found stands.
        if deep.worked {
            self.deep = Some(Instant::now());
        } else if self.deep.is_some() {
            return None;
        }
        self.severities = severities(&deep.report);
        let Report { findings, checked, .. } = deep.report;
        Some(FindingsAnswer { head: deep.head, findings, checked })
    }
}

/// What tells one set of troubles from another; counts and ages may move.
fn fingerprint(report: &Report) -> u64 {
    let mut hasher = DefaultHasher::new();
    for finding in &report.findings {
        (&finding.id, finding.severity, finding.confidence).hash(&mut hasher);
    }
    hasher.finish()
}

fn severities(report: &Report) -> BTreeMap<&'static str, u64> {
    let mut findings = BTreeMap::from([("critical", 0), ("info", 0), ("warning", 0)]);
    for finding in &report.findings {
        let severity = match finding.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        };
        *findings.entry(severity).or_default() += 1;
    }
    findings
}

/// Without findings: those are looked for less often, and not yet at first.
fn counters(snapshot: &Snapshot) -> CountersEvent {
    let mut states = StateCounts::default();
    snapshot.tasks.iter().for_each(|task| states.add(task.state));
    let mut phases = BTreeMap::new();
    let mut verdicts = BTreeMap::new();
    let judge = Judge::new(snapshot);
    for stream in &snapshot.streams {
        *phases.entry(stream.phase.as_str()).or_default() += 1;
        *verdicts.entry(judge.kind(stream).0.as_str()).or_default() += 1;
    }
    CountersEvent {
        head: Head::of(snapshot),
        counters: snapshot.counters.clone(),
        states,
        streams: snapshot.streams.len() as u64,
        phases,
        verdicts,
        connections: snapshot.connections.len() as u64,
        workers: snapshot.workers.len() as u64,
        workers_blocked: snapshot.workers.iter().filter(|worker| worker.blocked).count() as u64,
        busy_ns: snapshot.runtimes.iter().map(|runtime| runtime.busy_ns).sum(),
        findings: BTreeMap::new(),
    }
}
