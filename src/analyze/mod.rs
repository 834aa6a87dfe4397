//! Pure judgement: snapshot in, findings out. No clock, no I/O.
//!
//! A finding is a group of alike cases, not a row. A case must be wrong, not
//! merely slow: a stream that waits for its peer, a long poll or a quiet
//! subscription is healthy, and a false alarm costs more than a silence.
//! What cannot be told apart yet is said to be `suspected`, and never `critical`.

mod blocked;
mod capacity;
mod leaks;
mod streams;
mod words;

use std::cmp::Reverse;

use crate::model::{Check, FindingKind, Reason, Report, Snapshot};

/// Ids listed in a finding; `count` says how many there are in all.
const LISTED: usize = 100;

/// What is wrong in this snapshot, worst first, then longest.
pub fn analyze(snapshot: &Snapshot) -> Report {
    let mut findings = Vec::new();
    blocked::workers(snapshot, &mut findings);
    blocked::pauses(snapshot, &mut findings);
    blocked::busy_tasks(snapshot, &mut findings);
    streams::stalled(snapshot, &mut findings);
    streams::owed(snapshot, &mut findings);
    streams::past_deadline(snapshot, &mut findings);
    streams::cancelled(snapshot, &mut findings);
    leaks::tasks(snapshot, &mut findings);
    capacity::full(snapshot, &mut findings);
    findings.sort_by(|a, b| {
        let key = |f: &crate::model::Finding| Reverse((f.severity, f.confidence, f.since_ns));
        key(a).cmp(&key(b)).then_with(|| a.id.cmp(&b.id))
    });
    Report { taken_at: snapshot.taken_at, findings, checked: checks(snapshot) }
}

/// What was looked for, so that "all clear" says what it covers.
fn checks(snapshot: &Snapshot) -> Vec<Check> {
    let unhooked = snapshot
        .coverage
        .missing
        .iter()
        .any(|missing| missing.reason == Reason::NoTokioUnstable)
        .then_some("built without --cfg tokio_unstable: polls are not observed");
    let no_streams =
        (snapshot.counters.streams_started == 0).then_some("no gRPC layer has seen a stream yet");
    let listed = snapshot.coverage.listed;
    let workers = snapshot.workers.len() as u64;
    let streams = snapshot.streams.len() as u64;
    let ended = snapshot.ended_streams.len() as u64;
    let check = |kind, examined, unavailable: Option<&str>| Check {
        kind,
        examined,
        unavailable: unavailable.map(str::to_owned),
    };
    vec![
        check(FindingKind::BlockedWorker, workers, unhooked),
        check(FindingKind::ProcessPaused, 1, None),
        check(FindingKind::StalledStream, streams, no_streams),
        check(FindingKind::DeadlinePassed, streams, no_streams),
        check(FindingKind::CancelledButRunning, streams, no_streams),
        check(FindingKind::LeakedTask, ended, no_streams.or(unhooked)),
        check(FindingKind::BusyTask, listed, unhooked),
        check(FindingKind::RegistryFull, 1, None),
        check(FindingKind::Deadlock, 0, Some("await chains are not read by this version")),
    ]
}

#[cfg(test)]
mod tests;
