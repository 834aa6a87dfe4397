//! A [`Task`] in the words of `console-api`.
//!
//! The format is described by the `.proto` files of the `console-api` crate;
//! how a field ends up on the screen is decided by `tokio-console` (0.1.14:
//! `state/tasks.rs`, `view/tasks.rs`, `warnings.rs`). What that asks of us:
//!
//! - The columns ID, Name and Kind are the span fields `task.id`, `task.name`
//!   and `kind`. Nobody names tokio tasks, so the gRPC method takes that place
//!   in its short form; every other field is listed behind the location.
//! - Running is `last_poll_started > last_poll_ended`, where "none" is less
//!   than any time; scheduled is `last_wake > last_poll_started`.
//! - Busy adds the poll that lasts itself, so `busy_time` must leave it out.
//! - tokio has no hook for wakes, so how often a task was woken, and how long
//!   it stood in a run queue afterwards, stays unset: Sched shows the wait for
//!   the first poll, and later waits count as idle.
//! - A task without a waker that is neither running nor woken is reported as
//!   "has lost its waker, and will never be woken again". We do not know the
//!   number of wakers, and zero would say just that of every idle task: we
//!   send one, the least that a task which can still be woken has. That also
//!   means that this warning never appears; the other that rests on wakes
//!   ("woken themselves") has no data and stays silent too. "Never yielded"
//!   rests on polls and busy time, which are measured. The field `wakes` says
//!   beside the client's figures that these were not observed.

use console_api as proto;
use console_api::field::{Name, Value};

use crate::model::{Location, Task, TaskState};

/// Identity of the one span description that all tasks share.
const META: u64 = 1;

/// Longest text sent for a field or a path. Methods come from the network: one
/// of them must not fill a page.
const TEXT_BYTES: usize = 512;

/// The fields of a task, by their place in the description's list of names.
/// The client lists those without a column by name, and cuts what is too long:
/// `method`, which the name has already said in short, comes behind the others.
const FIELDS: [&str; 10] = [
    "task.id",
    "task.name",
    "kind",
    "grpc.peer",
    "grpc.stream",
    "method",
    "parent",
    "runtime",
    "polls",
    "wakes",
];

/// The description of the span that each task is, as tokio's own is called.
pub(super) fn metadata() -> proto::RegisterMetadata {
    let metadata = proto::Metadata {
        name: "runtime.spawn".into(),
        target: "tokio::task".into(),
        kind: proto::metadata::Kind::Span.into(),
        level: proto::metadata::Level::Trace.into(),
        field_names: FIELDS.map(String::from).to_vec(),
        ..Default::default()
    };
    proto::RegisterMetadata {
        metadata: vec![proto::register_metadata::NewMetadata {
            id: Some(proto::MetaId { id: META }),
            metadata: Some(metadata),
        }],
    }
}

/// What is said of a task once. `runtime` is its name, where there are several.
pub(super) fn task(task: &Task, runtime: Option<&str>) -> proto::tasks::Task {
    let text = |text: &str| Value::StrVal(clean(text));
    let values = [
        Some(Value::U64Val(task.id.0)),
        task.method.as_deref().map(|method| text(short_method(method))),
        Some(Value::StrVal("task".into())),
        task.peer.as_deref().map(text),
        task.stream.map(|stream| Value::U64Val(stream.0)),
        task.method.as_deref().map(text),
        task.parent.map(|parent| Value::U64Val(parent.0)),
        runtime.map(text),
        (task.state == TaskState::Unknown).then(|| text("not observed")),
        Some(text("not observed")),
    ];
    let fields = (0u64..).zip(values).filter_map(|(index, value)| {
        Some(proto::Field {
            name: Some(Name::NameIdx(index)),
            value: Some(value?),
            metadata_id: Some(proto::MetaId { id: META }),
        })
    });
    proto::tasks::Task {
        id: Some(task.id.0.into()),
        metadata: Some(proto::MetaId { id: META }),
        kind: proto::tasks::task::Kind::Spawn.into(),
        fields: fields.collect(),
        parents: task.parent.map(|parent| proto::SpanId { id: parent.0 }).into_iter().collect(),
        location: task.spawned_at.as_deref().map(location),
    }
}

/// The figures of a task, in times of the wall clock (nanoseconds since 1970).
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    /// When it was spawned.
    pub created_ns: u64,
    /// When it was found gone.
    pub dropped_ns: Option<u64>,
    /// When the state it is in began.
    pub since_ns: u64,
    /// What it is doing.
    pub state: TaskState,
    /// Polls, the current one included.
    pub polls: u64,
    /// Time inside polls, the current one left out.
    pub busy_ns: u64,
}

/// The figures of a task as the wire has them.
pub(super) fn stats(figures: &Figures) -> proto::tasks::Stats {
    let polled = figures.polls > 0;
    // When the last poll of an idle task began is not kept. It is put where
    // that poll ended: the client only compares the two.
    let started = polled.then(|| timestamp(figures.since_ns));
    let running = figures.state == TaskState::Running && figures.dropped_ns.is_none();
    let scheduled = figures.state == TaskState::Scheduled && !polled;
    proto::tasks::Stats {
        created_at: Some(timestamp(figures.created_ns)),
        dropped_at: figures.dropped_ns.map(timestamp),
        waker_clones: 1,
        last_wake: scheduled.then(|| timestamp(figures.created_ns)),
        poll_stats: Some(proto::PollStats {
            polls: figures.polls,
            first_poll: started.filter(|_| running && figures.polls == 1),
            last_poll_started: started,
            last_poll_ended: started.filter(|_| !running),
            busy_time: Some(duration(figures.busy_ns)),
        }),
        ..Default::default()
    }
}

/// A wall-clock time in nanoseconds since 1970.
pub(super) fn timestamp(unix_ns: u64) -> prost_types::Timestamp {
    let (seconds, nanos) = split(unix_ns);
    prost_types::Timestamp { seconds, nanos }
}

fn duration(ns: u64) -> prost_types::Duration {
    let (seconds, nanos) = split(ns);
    prost_types::Duration { seconds, nanos }
}

fn split(ns: u64) -> (i64, i32) {
    const SECOND: u64 = 1_000_000_000;
    // Both fit: a u64 of nanoseconds has fewer than 2^35 seconds.
    ((ns / SECOND) as i64, (ns % SECOND) as i32)
}

fn location(location: &Location) -> proto::Location {
    proto::Location {
        file: Some(clean(&without_registry(&location.file))),
        line: (location.line > 0).then_some(location.line),
        column: (location.column > 0).then_some(location.column),
        module_path: None,
    }
}

/// `<cargo>/crate-1.0.0/src/lib.rs`, as the client would write it; but it only
/// knows registries below a `.cargo` folder, and container images put theirs
/// elsewhere.
fn without_registry(path: &str) -> String {
    let inside = path
        .split_once("/registry/src/")
        .and_then(|(_, rest)| rest.split_once('/'))
        .map(|(_, rest)| rest)
        .or_else(|| path.split_once("/git/checkouts/").map(|(_, rest)| rest));
    inside.map_or_else(|| path.to_owned(), |rest| format!("<cargo>/{rest}"))
}

/// `Echo/UnaryEcho` for `/grpc.examples.echo.Echo/UnaryEcho`: the column must
/// leave room for the times.
fn short_method(method: &str) -> &str {
    let method = method.trim_start_matches('/');
    let service = method.split('/').next().unwrap_or_default();
    let package = service.rfind('.').map_or(0, |dot| dot + 1);
    &method[package..]
}

/// The text without control characters, which a terminal would obey, and cut.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(TEXT_BYTES));
    for c in text.chars() {
        if out.len() + c.len_utf8() > TEXT_BYTES {
            break;
        }
        out.push(if c.is_control() { '?' } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn figures(state: TaskState, polls: u64) -> Figures {
        Figures {
            created_ns: 100 * SECOND,
            dropped_ns: None,
            since_ns: 160 * SECOND,
            state,
            polls,
            busy_ns: 2 * SECOND,
        }
    }

    /// The client's own rules, as its `state/tasks.rs` and `warnings.rs` have them.
    mod client {
        use super::proto::tasks::Stats;

        fn time(at: Option<prost_types::Timestamp>) -> Option<(i64, i32)> {
            at.map(|at| (at.seconds, at.nanos))
        }

        pub fn running(stats: &Stats) -> bool {
            let poll = stats.poll_stats.as_ref().unwrap();
            time(poll.last_poll_started) > time(poll.last_poll_ended)
        }

        pub fn scheduled(stats: &Stats) -> bool {
            let poll = stats.poll_stats.as_ref().unwrap();
            time(stats.last_wake) > time(poll.last_poll_started)
        }

        pub fn lost_waker(stats: &Stats) -> bool {
            let polls = stats.poll_stats.as_ref().unwrap().polls;
            let awakened = polls == 0 || scheduled(stats);
            let wakers = stats.waker_clones.saturating_sub(stats.waker_drops);
            stats.dropped_at.is_none() && wakers == 0 && !running(stats) && !awakened
        }
    }

    #[test]
    fn the_client_sees_the_state_and_no_lost_waker() {
        for (state, polls, running, scheduled) in [
            (TaskState::Running, 1, true, false),
            (TaskState::Running, 7, true, false),
            (TaskState::Idle, 7, false, false),
            (TaskState::Scheduled, 0, false, true),
            (TaskState::Unknown, 0, false, false),
        ] {
            let stats = stats(&figures(state, polls));
            assert_eq!(client::running(&stats), running, "{state:?} {polls}");
            assert_eq!(client::scheduled(&stats), scheduled, "{state:?} {polls}");
            assert!(!client::lost_waker(&stats), "{state:?} {polls}");
        }
    }

    #[test]
    fn an_ended_task_no_longer_runs() {
        let stats =
            stats(&Figures { dropped_ns: Some(170 * SECOND), ..figures(TaskState::Running, 3) });
        assert!(!client::running(&stats));
        assert_eq!(stats.dropped_at.unwrap().seconds, 170);
    }

    #[test]
    fn methods_are_named_by_service_and_method() {
        assert_eq!(short_method("/grpc.examples.echo.Echo/UnaryEcho"), "Echo/UnaryEcho");
        assert_eq!(short_method("/Echo/UnaryEcho"), "Echo/UnaryEcho");
        assert_eq!(short_method("/a.b.C/d.e"), "C/d.e");
        assert_eq!(short_method(""), "");
        assert_eq!(short_method("odd"), "odd");
    }

    #[test]
    fn registry_paths_are_cut_wherever_cargo_lives() {
        for home in ["/home/me/.cargo", "/usr/local/cargo"] {
            let path = format!("{home}/registry/src/index.crates.io-1949/hyper-1.12.0/src/lib.rs");
            assert_eq!(without_registry(&path), "<cargo>/hyper-1.12.0/src/lib.rs");
        }
        assert_eq!(
            without_registry("/usr/local/cargo/git/checkouts/h2-1/src/lib.rs"),
            "<cargo>/h2-1/src/lib.rs"
        );
        assert_eq!(without_registry("src/main.rs"), "src/main.rs");
    }

    #[test]
    fn text_is_bounded_and_cannot_command_a_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\n"), "a?[2Jb?");
        let long = clean(&"é".repeat(10_000));
        assert!(long.len() <= TEXT_BYTES && long.chars().all(|c| c == 'é'));
    }
}
