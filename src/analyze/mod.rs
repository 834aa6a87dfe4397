//! Pure judgement: snapshot in, findings out. No clock, no I/O.
//!
//! A false alarm is worse than silence: what a healthy server does all day
//! (streams that wait for their peer, handlers that take long) is no finding.
//! Each family looks for its kinds and also says what it examined, so that
//! "nothing found" is a statement.

mod registry;
mod streams;
mod tasks;
mod workers;

use std::cmp::Reverse;

use crate::model::{Check, Finding, FindingKind, Report, Snapshot};

/// Ids named with a finding; its count says how many there are.
const NAMED: usize = 100;
const SECOND: u64 = 1_000_000_000;

/// What is wrong in this snapshot, worst first, then longest.
pub fn analyze(snapshot: &Snapshot) -> Report {
    let mut seen = Seen::default();
    workers::blocked(snapshot, &mut seen);
    workers::paused(snapshot, &mut seen);
    streams::stalled(snapshot, &mut seen);
    streams::late(snapshot, &mut seen);
    streams::cancelled(snapshot, &mut seen);
    tasks::leaked(snapshot, &mut seen);
    tasks::busy(snapshot, &mut seen);
    registry::full(snapshot, &mut seen);
    let Seen { mut findings, mut checked } = seen;
    checked.push(Check {
        kind: FindingKind::Deadlock,
        examined: 0,
        unavailable: Some(
            "the await chains of suspended tasks are not read, so nobody knows who holds what"
                .to_owned(),
        ),
    });
    findings.sort_by(|a, b| {
        (Reverse(a.severity), Reverse(a.since_ns), &a.id).cmp(&(
            Reverse(b.severity),
            Reverse(b.since_ns),
            &b.id,
        ))
    });
    Report { taken_at: snapshot.taken_at, findings, checked }
}

#[derive(Default)]
struct Seen {
    findings: Vec<Finding>,
    checked: Vec<Check>,
}

impl Seen {
    fn checked(&mut self, kind: FindingKind, examined: usize, unavailable: Option<&str>) {
        let unavailable = unavailable.map(str::to_owned);
        self.checked.push(Check { kind, examined: examined as u64, unavailable });
    }
}

/// Why nothing can be said about single tasks, if that is so.
fn tasks_unavailable(snapshot: &Snapshot) -> Option<&'static str> {
    use crate::model::Reason::NoTokioUnstable;
    if snapshot.coverage.missing.iter().any(|missing| missing.reason == NoTokioUnstable) {
        return Some("built without --cfg tokio_unstable: tokio does not tell about single tasks");
    }
    // A snapshot of counts only.
    (snapshot.tasks.is_empty() && snapshot.coverage.listed > 0)
        .then_some("the tasks were not listed in this snapshot")
}

/// `1 stream`, `212 streams`.
fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
