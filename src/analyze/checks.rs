//! What was looked for, so that "all clear" says what it covers.

use super::growth;
use crate::model::{
    Check, FindingKind, Reason, Snapshot, StackSource, Task, Wait, WaitKind, human_duration,
};

/// Every kind of trouble, among how many, and why not.
pub fn checks(snapshot: &Snapshot) -> Vec<Check> {
    let has = |reason| snapshot.coverage.missing.iter().any(|missing| missing.reason == reason);
    let outside = snapshot
        .is_from_outside()
        .then(|| "seen from outside the process: polls and pauses are not observed".to_owned());
    let no_hooks = outside.clone().or_else(|| {
        has(Reason::NoTokioUnstable)
            .then(|| "built without --cfg tokio_unstable: polls are not observed".to_owned())
    });
    let observed = snapshot.workers.iter().filter(|worker| worker.is_observed()).count() as u64;
    let no_polls = no_hooks.clone().or_else(|| {
        (observed == 0)
            .then(|| "no runtime with the hooks was seen: polls are not observed".to_owned())
    });
    let no_streams = (snapshot.counters.streams_started == 0)
        .then(|| "no gRPC layer has seen a stream yet".to_owned());
    let listed = snapshot.coverage.listed;
    let unhooked = snapshot.tasks.iter().filter(|task| task.unhooked).count() as u64;
    let streams = snapshot.streams.len() as u64;
    let ended = snapshot.ended_streams.len() as u64;
    // Names of root futures are no chains.
    let named_only = snapshot
        .coverage
        .missing
        .iter()
        .any(|missing| missing.reason == Reason::TypesOnly && missing.count > 0);
    let read = snapshot
        .tasks
        .iter()
        .filter(|task| task.stack.as_deref().is_some_and(|s| s.source == StackSource::Await))
        .filter(|_| !named_only)
        .count() as u64;
    let unread = unread(snapshot, read);
    let check = |kind, examined, unavailable: &Option<String>| Check {
        kind,
        examined,
        unavailable: unavailable.clone(),
    };
    vec![
        check(FindingKind::BlockedWorker, observed, &no_polls),
        check(FindingKind::ProcessPaused, 1, &outside),
        check(FindingKind::Deadlock, read, &unread),
        check(FindingKind::Futurelock, read, &unread),
        check(FindingKind::Unwakeable, read, &unread),
        check(
            FindingKind::LockConvoy,
            read,
            &unread.clone().or_else(|| untimed(snapshot, in_queue)),
        ),
        check(
            FindingKind::StuckChannel,
            read,
            &unread.clone().or_else(|| untimed(snapshot, stems)),
        ),
        check(FindingKind::StalledStream, streams, &no_streams),
        check(FindingKind::DeadlinePassed, streams, &no_streams),
        check(FindingKind::CancelledButRunning, streams, &no_streams),
        check(FindingKind::LeakedTask, ended, &no_streams.clone().or(no_hooks)),
        check(FindingKind::GrowingGroup, listed, &young(snapshot)),
        check(FindingKind::BusyTask, listed.saturating_sub(unhooked), &no_polls),
        check(FindingKind::RegistryFull, 1, &None),
    ]
}

/// Why no await chain was read at all. Where some were, the number examined
/// and the coverage say how many.
fn unread(snapshot: &Snapshot, read: u64) -> Option<String> {
    if read > 0 {
        return None;
    }
    const WHY: [Reason; 6] = [
        Reason::NoMemoryImage,
        Reason::NoDebugInfo,
        Reason::TypesOnly,
        Reason::BoundReached,
        Reason::NoAwaitChain,
        Reason::NoTokioUnstable,
    ];
    let missing = &snapshot.coverage.missing;
    let why = WHY.iter().find_map(|reason| missing.iter().find(|one| one.reason == *reason));
    match why {
        Some(missing) => Some(format!("no await chain was read: {}", missing.detail)),
        None if snapshot.tasks.is_empty() => None,
        None => Some("no suspended task's await chain is in this answer".to_owned()),
    }
}

fn in_queue(_: &Task, wait: &Wait) -> bool {
    wait.queue.is_some_and(|queue| queue > 1)
}

/// It sends, or lets a channel fill.
fn stems(task: &Task, wait: &Wait) -> bool {
    wait.kind == WaitKind::MpscSend || task.holds.iter().any(|held| held.backlog.is_some())
}

/// Why nothing that takes time can be told of such waits: there are some, and
/// of none is it known how long it has lasted.
fn untimed(snapshot: &Snapshot, such: fn(&Task, &Wait) -> bool) -> Option<String> {
    let mut any = false;
    for task in &snapshot.tasks {
        let branches = task.branches.iter().filter_map(|branch| branch.wait.as_ref());
        for wait in task.wait.iter().chain(branches).filter(|wait| such(task, wait)) {
            if wait.wait_ns > 0 || !wait.lower_bound {
                return None;
            }
            any = true;
        }
    }
    any.then(|| {
        format!(
            "how long tasks without hooks have waited is known after some looks; this is look {}",
            snapshot.history.looks.max(1)
        )
    })
}

/// Why nothing can be said of growth yet.
fn young(snapshot: &Snapshot) -> Option<String> {
    let history = &snapshot.history;
    let enough = history.looks as usize >= growth::LOOKS && history.span_ns >= growth::SPAN_NS;
    (!enough).then(|| {
        format!(
            "it takes {} dumps over {}; there have been {} over {}",
            growth::LOOKS,
            human_duration(growth::SPAN_NS),
            history.looks,
            human_duration(history.span_ns)
        )
    })
}
