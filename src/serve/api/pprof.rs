//! `/debug/pprof/`: paths, parameters, statuses and texts as Go's
//! `net/http/pprof`, so that its tools and scrapers work unchanged.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use tokio::time::{sleep, timeout};

use super::tasks::shot;
use crate::analyze::{self, Judge};
use crate::error::{Error, ErrorKind};
use crate::model::{Snapshot, Timestamp};
use crate::render::pprof::{self, Contention, Empty, Tasks};
use crate::render::{Shot, text};
use crate::serve::body::streamed;
use crate::serve::flight::call;
use crate::serve::problem;
use crate::serve::server::{Phase, Shared, stopped};
use crate::serve::source::Want;

const TEXT: &str = "text/plain; charset=utf-8";

/// Names and descriptions on the index page, by name as in Go.
const PROFILES: &[(&str, &str)] = &[
    ("allocs", "Memory allocations. Not collected: the profile is valid and empty."),
    (
        "block",
        "Tasks that wait for other tasks: locks, channels, joins. The waits of this instant, not added up.",
    ),
    ("cmdline", "The command line of this program, arguments separated by NUL."),
    (
        "goroutine",
        "Stacks of all live tasks. debug=1 groups them as text, debug=2 lists every task, seconds=N gives what changed.",
    ),
    (
        "goroutineleak",
        "Stacks of the tasks that are proven to wait for ever: in a deadlock, or without a waker, or behind such a task. debug and seconds as for goroutine.",
    ),
    ("heap", "Live memory. Not collected: the profile is valid and empty."),
    (
        "mutex",
        "Holders of locks and permits that others wait for. The waits of this instant, not added up.",
    ),
    (
        "profile",
        "CPU profile, labelled with task and method. seconds=N sets its duration, 30 without it.",
    ),
    (
        "symbol",
        "Names of code addresses: hexadecimal numbers joined by + in a GET query or a POST body.",
    ),
    ("threadcreate", "Stacks that made threads. Not collected: the profile is valid and empty."),
];

/// Go's errors: text with a final newline and this header.
fn failed(status: StatusCode, message: impl Into<String>) -> Response {
    let mut response = problem::text(status, message);
    response.headers_mut().insert("x-go-pprof", HeaderValue::from_static("1"));
    response
}

fn failed_with(error: &Error) -> Response {
    failed(problem::status(error), error.to_string())
}

fn attachment(name: &str, bytes: Vec<u8>) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    (
        [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_DISPOSITION, disposition)],
        bytes,
    )
        .into_response()
}

fn plain(body: Body) -> Response {
    ([(CONTENT_TYPE, TEXT)], body).into_response()
}

pub async fn redirect() -> Response {
    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "/debug/pprof/")]).into_response()
}

pub async fn index(State(shared): State<Shared>) -> Response {
    let held = match shared.flight.snapshot(Want::COUNTS).await {
        Ok(held) => held,
        Err(error) => return failed_with(&error),
    };
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<title>/debug/pprof/</title>\n</head>\n<body>\n/debug/pprof/\n\
         <br>\n<p>Set debug=1 as a query parameter to export in legacy text format</p>\n<br>\n\
         Types of profiles available:\n<table>\n<thead><tr><td>Count</td><td>Profile</td></tr></thead>\n",
    );
    for (name, _) in PROFILES {
        let count = match *name {
            "goroutine" => held.coverage.listed.to_string(),
            // Waits are known from await chains, which are too dear for a list.
            "goroutineleak" => String::new(),
            name if contention(name).is_some() => String::new(),
            _ => "0".to_owned(),
        };
        let _ =
            writeln!(page, "<tr><td>{count}</td><td><a href='{name}?debug=1'>{name}</a></td></tr>");
    }
    page.push_str("</table>\n<a href=\"goroutine?debug=2\">full goroutine stack dump</a>\n<br>\n<p>\nProfile Descriptions:\n</p>\n<ul>\n");
    for (name, description) in PROFILES {
        let _ = writeln!(page, "<li>{name}: {description}</li>");
    }
    page.push_str("</ul>\n</body>\n</html>\n");
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

/// What Go's handlers read from a query.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    /// 0 for a profile; Go takes what is no number for 0.
    debug: i64,
    seconds: Option<String>,
}

fn asked(uri: &Uri) -> Asked {
    let Ok(Query(given)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
        return Asked::default();
    };
    let first =
        |name: &str| given.iter().find(|(given, _)| given == name).map(|(_, value)| value.clone());
    Asked {
        debug: first("debug").and_then(|text| text.parse().ok()).unwrap_or(0),
        seconds: first("seconds").filter(|text| !text.is_empty()),
    }
}

const BAD_SECONDS: &str = "invalid value for \"seconds\" - must be a positive integer";

/// Go sets no upper bound; we do, for a forgotten request holds a thread.
fn duration(text: &str, most: Duration) -> Result<Duration, String> {
    let seconds: i64 = text.parse().map_err(|_| BAD_SECONDS.to_owned())?;
    match u64::try_from(seconds) {
        Ok(0) | Err(_) => Err(BAD_SECONDS.to_owned()),
        Ok(seconds) if seconds <= most.as_secs() => Ok(Duration::from_secs(seconds)),
        Ok(_) => {
            Err(format!("invalid value for \"seconds\" - at most {} are allowed", most.as_secs()))
        }
    }
}

pub async fn goroutine(shared: State<Shared>, uri: Uri) -> Response {
    tasks(Tasks::Live, &shared, &uri).await
}

pub async fn goroutineleak(shared: State<Shared>, uri: Uri) -> Response {
    tasks(Tasks::Leaked, &shared, &uri).await
}

async fn tasks(which: Tasks, shared: &Shared, uri: &Uri) -> Response {
    let asked = asked(uri);
    if let Some(seconds) = &asked.seconds {
        return delta(shared, seconds, asked.debug, which.profile()).await;
    }
    let held = match shared.flight.snapshot(Want::ALL).await {
        Ok(held) => held,
        Err(error) => return failed_with(&error),
    };
    if asked.debug >= 2 {
        let judged = call(&shared.stats, move || {
            let stuck = Judge::new(&held).stuck();
            let shot: Shot = match which {
                Tasks::Live => shot(held),
                Tasks::Leaked => Arc::new(Box::new(analyze::leaked(&held))),
            };
            Ok((shot, stuck))
        });
        return match judged.await {
            Ok((shot, stuck)) => {
                plain(streamed(text::Debug2::new(shot).stuck(stuck), &shared.stats))
            }
            Err(error) => failed_with(&error),
        };
    }
    let grouped = asked.debug != 0;
    let rendered = call(&shared.stats, move || {
        let of = of(which, &held);
        Ok(if grouped { text::debug1(which, &of) } else { pprof::goroutine(which, &of) })
    });
    match rendered.await {
        Ok(bytes) if grouped => plain(bytes.into()),
        Ok(bytes) => attachment(which.profile(), bytes),
        Err(error) => failed_with(&error),
    }
}

/// The snapshot with the tasks that the profile is of.
fn of(which: Tasks, snapshot: &Snapshot) -> Cow<'_, Snapshot> {
    match which {
        Tasks::Live => Cow::Borrowed(snapshot),
        Tasks::Leaked => Cow::Owned(analyze::leaked(snapshot)),
    }
}

/// The difference over some seconds. Of an empty profile it is empty.
async fn delta(shared: &Shared, seconds: &str, debug: i64, name: &str) -> Response {
    let duration = match duration(seconds, shared.config.limits.profile) {
        Ok(_) if debug != 0 => {
            return failed(StatusCode::BAD_REQUEST, "seconds and debug params are incompatible");
        }
        Ok(duration) => duration,
        Err(error) => return failed(StatusCode::BAD_REQUEST, error),
    };
    let delta = async {
        if let Some(kind) = empty(name) {
            wait(shared, duration).await?;
            let process = call(&shared.stats, {
                let source = Arc::clone(&shared.source);
                move || Ok(source.process())
            });
            return Ok(pprof::empty(kind, &process.await?, Timestamp::now()));
        }
        let Ok(_room) = shared.deltas.try_acquire() else {
            return Err(Error::new(
                ErrorKind::Busy,
                "two deltas are being taken already; try again later",
            ));
        };
        // Not shared: a held snapshot would keep others from being taken meanwhile.
        let source = Arc::clone(&shared.source);
        let before = call(&shared.stats, move || source.snapshot(Want::ALL)).await?;
        wait(shared, duration).await?;
        let source = Arc::clone(&shared.source);
        let contention = contention(name);
        let which = if name == Tasks::Leaked.profile() { Tasks::Leaked } else { Tasks::Live };
        call(&shared.stats, move || {
            let after = source.snapshot(Want::ALL)?;
            Ok(match contention {
                Some(which) => pprof::contention_delta(which, &before, &after),
                None => pprof::goroutine_delta(which, &of(which, &before), &of(which, &after)),
            })
        })
        .await
    };
    match delta.await {
        Ok(bytes) => attachment(&format!("{name}-delta"), bytes),
        Err(error) => failed_with(&error),
    }
}

/// Sleeps, unless the server stops.
async fn wait(shared: &Shared, duration: Duration) -> Result<(), Error> {
    let mut stop = shared.stop.clone();
    tokio::select! {
        () = sleep(duration) => Ok(()),
        () = stopped(&mut stop) => Err(Error::new(ErrorKind::Timeout, "the debug server stops")),
    }
}

pub async fn profile(State(shared): State<Shared>, uri: Uri) -> Response {
    let asked = asked(&uri);
    // Go takes anything that is no positive number for 30 seconds here; a
    // wrong number is more likely a mistake.
    let seconds = asked.seconds.as_deref().unwrap_or("30");
    let duration = match duration(seconds, shared.config.limits.profile) {
        Ok(duration) => duration,
        Err(error) => return failed(StatusCode::BAD_REQUEST, error),
    };
    // Ends the sampling when the client goes away or the server stops.
    let gone = Arc::new(AtomicBool::new(false));
    let _guard = SetOnDrop(Arc::clone(&gone));
    let stopped = shared.stop.clone();
    let source = Arc::clone(&shared.source);
    let sampled = call(&shared.stats, move || {
        let stop = || gone.load(Ordering::Relaxed) || *stopped.borrow() == Phase::Stopped;
        let profile = source.cpu_profile(duration, &stop)?;
        Ok(pprof::cpu(&source.process(), &profile))
    });
    match sampled.await {
        Ok(bytes) => attachment("profile", bytes),
        Err(error) if error.kind() == ErrorKind::Busy => failed(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Could not enable CPU profiling: cpu profiling already in use",
        ),
        Err(error) => failed(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("Could not enable CPU profiling: {error}"),
        ),
    }
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub async fn cmdline(State(shared): State<Shared>) -> Response {
    let source = Arc::clone(&shared.source);
    match call(&shared.stats, move || Ok(source.command_line().join("\0"))).await {
        Ok(text) => plain(text.into()),
        Err(error) => failed_with(&error),
    }
}

/// `num_symbols: 1`, then a line for every address that has a name.
pub async fn symbol(State(shared): State<Shared>, request: Request) -> Response {
    let asked = if request.method() == Method::POST {
        let limits = &shared.config.limits;
        match timeout(limits.body_timeout, to_bytes(request.into_body(), limits.body_bytes)).await {
            Ok(Ok(body)) => String::from_utf8_lossy(&body).into_owned(),
            Ok(Err(_)) => {
                return failed(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the body may have {} bytes", limits.body_bytes),
                );
            }
            Err(_) => {
                return failed(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
            }
        }
    } else {
        request.uri().query().unwrap_or_default().to_owned()
    };
    let source = Arc::clone(&shared.source);
    let named = call(&shared.stats, move || {
        let mut out = String::from("num_symbols: 1\n");
        for word in asked.split('+') {
            let digits = word.trim().trim_start_matches("0x");
            let Ok(address) = u64::from_str_radix(digits, 16) else { continue };
            if let Some(name) = source.symbol(address) {
                let _ = writeln!(out, "{address:#x} {name}");
            }
        }
        Ok(out)
    });
    match named.await {
        Ok(text) => plain(text.into()),
        Err(error) => failed_with(&error),
    }
}

async fn contended(shared: &Shared, which: Contention, grouped: bool, name: &str) -> Response {
    let held = match shared.flight.snapshot(Want::ALL).await {
        Ok(held) => held,
        Err(error) => return failed_with(&error),
    };
    let rendered = call(&shared.stats, move || {
        Ok(if grouped { text::contention1(which, &held) } else { pprof::contention(which, &held) })
    });
    match rendered.await {
        Ok(bytes) if grouped => plain(bytes.into()),
        Ok(bytes) => attachment(name, bytes),
        Err(error) => failed_with(&error),
    }
}

fn empty(name: &str) -> Option<Empty> {
    Some(match name {
        "allocs" => Empty::Allocs,
        "heap" => Empty::Heap,
        "threadcreate" => Empty::Threadcreate,
        _ => return None,
    })
}

fn contention(name: &str) -> Option<Contention> {
    match name {
        "block" => Some(Contention::Block),
        "mutex" => Some(Contention::Mutex),
        _ => None,
    }
}

/// Waits, profiles that are empty, and names that are none.
pub async fn other(State(shared): State<Shared>, Path(name): Path<String>, uri: Uri) -> Response {
    enum What {
        Waits(Contention),
        Nothing(Empty),
    }
    let what = contention(&name).map(What::Waits).or_else(|| empty(&name).map(What::Nothing));
    let Some(what) = what else { return failed(StatusCode::NOT_FOUND, "Unknown profile") };
    let asked = asked(&uri);
    if let Some(seconds) = &asked.seconds {
        return delta(&shared, seconds, asked.debug, &name).await;
    }
    let kind = match what {
        What::Waits(which) => return contended(&shared, which, asked.debug != 0, &name).await,
        What::Nothing(kind) => kind,
    };
    if asked.debug != 0 {
        return plain(pprof::empty_text(kind).into());
    }
    let source = Arc::clone(&shared.source);
    match call(&shared.stats, move || Ok(pprof::empty(kind, &source.process(), Timestamp::now())))
        .await
    {
        Ok(bytes) => attachment(&name, bytes),
        Err(error) => failed_with(&error),
    }
}
