//! Each finding from a snapshot that shows it, and its healthy twin.

use std::sync::Arc;

use super::analyze;
use crate::model::sample::{self, SECOND};
use crate::model::{
    Confidence, Deadline, Finding, FindingKind, Http2State, Missing, Pause, Phase, Reason,
    Severity, Snapshot, Stream, StreamId, StreamKind, TaskId, TaskState,
};

const MS: u64 = 1_000_000;

fn of(snapshot: &Snapshot, kind: FindingKind) -> Vec<Finding> {
    analyze(snapshot).findings.into_iter().filter(|finding| finding.kind == kind).collect()
}

/// A snapshot with some streams of one method.
fn with_streams(streams: impl IntoIterator<Item = Stream>) -> Snapshot {
    let mut snapshot = sample::empty();
    snapshot.counters.streams_started = 1_000;
    snapshot.streams.extend(streams);
    snapshot
}

fn missing(reason: Reason, count: u64) -> Missing {
    Missing { reason, count, detail: String::new() }
}

fn watch(id: u64) -> Stream {
    sample::stream(id, &Arc::from("/feed.v1.Feed/Watch"))
}

#[test]
fn an_empty_process_is_clear_and_says_what_was_looked_for() {
    let report = analyze(&sample::empty());
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    let looked: Vec<FindingKind> = report.checked.iter().map(|check| check.kind).collect();
    assert!(looked.contains(&FindingKind::BlockedWorker));
    assert!(looked.contains(&FindingKind::StalledStream));
    let streams = report.checked.iter().find(|c| c.kind == FindingKind::StalledStream);
    assert!(streams.is_some_and(|check| check.unavailable.is_some()), "no layer saw a stream");
}

#[test]
fn what_no_hook_observes_was_not_looked_for() {
    let checks = |hooked: [bool; 2]| {
        let mut snapshot = sample::empty();
        let place = Arc::new(sample::place("src/main.rs", 7));
        for (n, hooked) in (0..).zip(hooked) {
            let mut worker = sample::worker(n);
            let mut task = sample::task(n.into(), &place);
            task.unhooked = !hooked;
            if !hooked {
                worker.polls = None;
            }
            snapshot.workers.push(worker);
            snapshot.tasks.push(task);
        }
        snapshot.coverage.listed = 2;
        let checked = analyze(&snapshot).checked;
        [FindingKind::BlockedWorker, FindingKind::BusyTask].map(|kind| {
            let check = checked.iter().find(|check| check.kind == kind).unwrap();
            (check.examined, check.unavailable.is_some())
        })
    };
    assert_eq!(checks([true, true]), [(2, false), (2, false)]);
    assert_eq!(checks([true, false]), [(1, false), (1, false)]);
    assert_eq!(checks([false, false]), [(0, true), (0, true)]);
}

#[test]
fn a_worker_blocked_now_is_critical_and_names_the_line() {
    let mut snapshot = sample::empty();
    snapshot.blocked.push(sample::blocked());
    let found = of(&snapshot, FindingKind::BlockedWorker);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].severity, Severity::Critical);
    assert_eq!(found[0].confidence, Confidence::Proven);
    assert_eq!(found[0].place.as_deref(), Some("src/billing.rs:88"));
    assert_eq!(
        found[0].title,
        "Worker 1 blocked 3.2s in one poll: billing::charge_card (src/billing.rs:88)"
    );
    let said = found[0].evidence.join(" ");
    for part in ["task 40", "/billing.v1.Billing/Charge", "127.0.0.1:33562", "60 tasks behind it"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn blocks_that_have_passed_are_one_warning_a_place_and_then_history() {
    let mut snapshot = sample::empty();
    for (id, ago) in [(3, 5), (2, 15), (1, 120)] {
        let mut blocked = sample::blocked();
        (blocked.id, blocked.ongoing, blocked.ended_ago_ns) = (id, false, ago * SECOND);
        snapshot.blocked.push(blocked);
    }
    let found = of(&snapshot, FindingKind::BlockedWorker);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].severity, found[0].count), (Severity::Warning, 2));
    snapshot.blocked.drain(..2);
    assert!(of(&snapshot, FindingKind::BlockedWorker).is_empty(), "two minutes ago");
}

#[test]
fn a_pause_is_told_for_a_minute() {
    let mut snapshot = sample::empty();
    snapshot.pauses.push(Pause { paused_ns: 10 * SECOND, ended_ago_ns: 3 * SECOND });
    let found = of(&snapshot, FindingKind::ProcessPaused);
    assert_eq!(found[0].title, "The whole process stood still for 10s, 3.0s ago");
    snapshot.pauses[0].ended_ago_ns = 61 * SECOND;
    assert!(of(&snapshot, FindingKind::ProcessPaused).is_empty());
}

#[test]
fn streams_that_wait_for_their_peer_are_healthy() {
    let hour = 3_600 * SECOND;
    for phase in [Phase::AwaitRecv, Phase::AwaitProduce, Phase::Handler, Phase::Starting] {
        for kind in [StreamKind::Bidi, StreamKind::ServerStreaming, StreamKind::Unknown] {
            let mut stream = watch(1);
            (stream.phase, stream.kind, stream.phase_ns) = (phase, kind, hour);
            let report = analyze(&with_streams([stream]));
            assert!(report.findings.is_empty(), "{phase:?} {kind:?}: {:#?}", report.findings);
        }
    }
}

#[test]
fn unread_streams_are_one_finding_a_method() {
    let unread = |id: u64| {
        let mut stream = watch(id);
        (stream.phase, stream.phase_ns) = (Phase::AwaitSend, id * SECOND);
        stream
    };
    let found = of(&with_streams((1..=212).map(unread)), FindingKind::StalledStream);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].count, found[0].streams.len()), (212, 100));
    assert_eq!(found[0].streams[0], StreamId(212), "longest first");
    assert_eq!(
        found[0].title,
        "212 streams of Feed/Watch cannot send: the peer does not take it, for 3m32s"
    );
    let mut brief = unread(1);
    brief.phase_ns = 999 * MS;
    assert!(of(&with_streams([brief]), FindingKind::StalledStream).is_empty());
}

#[test]
fn an_answer_owed_is_only_a_hint() {
    let mut call = watch(1);
    (call.kind, call.phase) = (StreamKind::Unary, Phase::Handler);
    call.state = Http2State::HalfClosedRemote;
    call.sent.messages = 0;
    let found = of(&with_streams([call.clone()]), FindingKind::StalledStream);
    assert_eq!((found[0].severity, found[0].confidence), (Severity::Info, Confidence::Suspected));
    call.phase_ns = 9 * SECOND;
    assert!(of(&with_streams([call]), FindingKind::StalledStream).is_empty());
}

#[test]
fn deadlines_and_cancellations_without_effect_are_told() {
    let mut stream = watch(1);
    stream.deadline = Some(Deadline { timeout_ns: 700 * MS, remaining_ns: -1_800_000_000 });
    stream.cancelled_ago_ns = Some(4 * SECOND);
    stream.cancel_reason = Some("reset by the peer".into());
    let snapshot = with_streams([stream.clone()]);
    let late = of(&snapshot, FindingKind::DeadlinePassed);
    assert_eq!(late[0].title, "1 stream of Feed/Watch runs on past the deadline, up to 1.8s");
    let cancelled = of(&snapshot, FindingKind::CancelledButRunning);
    assert!(cancelled[0].evidence[0].contains("reset by the peer"));
    // The twin: half a second is the time it takes.
    stream.deadline = Some(Deadline { timeout_ns: 700 * MS, remaining_ns: -500_000_000 });
    stream.cancelled_ago_ns = Some(500 * MS);
    assert!(analyze(&with_streams([stream])).findings.is_empty());
}

#[test]
fn a_task_that_outlives_its_stream_is_a_leak_after_a_while() {
    let place = Arc::new(sample::place("src/feed.rs", 30));
    let leak = |ago: u64, live: u32| {
        let mut snapshot = with_streams([]);
        let mut ended = watch(5);
        (ended.ended_ago_ns, ended.live_tasks) = (Some(ago), live);
        snapshot.ended_streams.push(ended);
        let mut task = sample::task(9, &place);
        task.stream = Some(StreamId(5));
        snapshot.tasks.push(task);
        of(&snapshot, FindingKind::LeakedTask)
    };
    let found = leak(41 * SECOND, 1);
    assert_eq!(found[0].severity, Severity::Warning);
    assert_eq!(found[0].tasks, [TaskId(9)]);
    assert_eq!(found[0].place.as_deref(), Some("src/feed.rs:30"));
    assert_eq!(leak(3 * SECOND, 1)[0].severity, Severity::Info);
    assert!(leak(SECOND, 1).is_empty(), "it tidies up");
    assert!(leak(41 * SECOND, 0).is_empty(), "the task's stream is another");
}

#[test]
fn a_task_that_hardly_leaves_its_polls_is_told() {
    let busy = |percent: u64| {
        let mut snapshot = sample::empty();
        let mut task = sample::task(4, &Arc::new(sample::place("src/hash.rs", 7)));
        (task.state, task.age_ns) = (TaskState::Running, 100 * SECOND);
        task.busy_ns = percent * SECOND;
        snapshot.tasks.push(task);
        of(&snapshot, FindingKind::BusyTask)
    };
    assert_eq!(busy(97)[0].place.as_deref(), Some("src/hash.rs:7"));
    assert!(busy(80).is_empty());
}

#[test]
fn full_tables_are_told() {
    let mut snapshot = sample::empty();
    snapshot.counters.tasks_dropped = 3;
    let found = of(&snapshot, FindingKind::RegistryFull);
    assert_eq!(found[0].title, "The task table was full: 3 tasks since the start not seen");
    assert_eq!(found[0].severity, Severity::Info, "nothing is missing now");
    snapshot.coverage.missing.push(missing(Reason::RegistryFull, 2));
    assert_eq!(of(&snapshot, FindingKind::RegistryFull)[0].severity, Severity::Warning);
}

#[test]
fn the_worst_comes_first() {
    let mut snapshot = sample::empty();
    snapshot.counters.tasks_dropped = 3;
    snapshot.coverage.missing.push(missing(Reason::RegistryFull, 3));
    snapshot.pauses.push(Pause { paused_ns: 10 * SECOND, ended_ago_ns: 3 * SECOND });
    snapshot.blocked.push(sample::blocked());
    let kinds: Vec<FindingKind> =
        analyze(&snapshot).findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(
        kinds,
        [FindingKind::BlockedWorker, FindingKind::RegistryFull, FindingKind::ProcessPaused]
    );
}
