//! Workers that do not come back from a poll, and a process that stood still.

use super::{SECOND, Seen};
use crate::model::{
    Blocked, Confidence, Finding, FindingKind, Pause, Reason, Severity, Snapshot, Stack,
    human_duration,
};

/// A poll this long makes the tasks behind it wait noticeably.
const CRITICAL_NS: u64 = SECOND;
/// Older pauses no longer explain what is seen now.
const RECENT_NS: u64 = 60 * SECOND;
/// Shorter ones are the scheduler's.
const PAUSE_NS: u64 = SECOND;

/// Polls over the threshold that still last.
pub fn blocked(snapshot: &Snapshot, seen: &mut Seen) {
    let unstable =
        snapshot.coverage.missing.iter().any(|missing| missing.reason == Reason::NoTokioUnstable);
    seen.checked(
        FindingKind::BlockedWorker,
        snapshot.workers.len(),
        unstable.then_some("built without --cfg tokio_unstable: polls are not observed"),
    );
    let ongoing = snapshot.blocked.iter().filter(|blocked| blocked.ongoing);
    seen.findings.extend(ongoing.map(|blocked| finding(snapshot, blocked)));
}

fn finding(snapshot: &Snapshot, blocked: &Blocked) -> Finding {
    let lasted = human_duration(blocked.blocked_ns);
    let user = blocked.stack.as_deref().and_then(Stack::user_frame);
    let innermost = blocked.stack.as_deref().and_then(|stack| stack.frames.first());
    let mut evidence = vec![format!(
        "Worker {} (thread {}) has been inside one poll for {lasted}; over {} a poll counts as blocked.",
        blocked.worker,
        blocked.tid,
        human_duration(snapshot.blocked_threshold_ns),
    )];
    match (user, innermost) {
        (Some(user), Some(innermost)) if user != innermost => evidence.push(format!(
            "The thread is in {}, called from {}{}.",
            innermost.function,
            user.function,
            user.location.as_ref().map(|place| format!(" at {place}")).unwrap_or_default(),
        )),
        (_, Some(innermost)) => evidence.push(format!("The thread is in {}.", innermost.function)),
        _ => evidence.push(match &blocked.stack_missing {
            Some(why) => format!("Its stack could not be captured: {why}."),
            None => "Its stack has not been captured yet.".to_owned(),
        }),
    }
    if let Some(task) = blocked.task {
        let method = blocked
            .method
            .as_deref()
            .map(|method| format!(", which serves {method}"))
            .unwrap_or_default();
        evidence.push(format!("It polls task {task}{method}."));
    }
    evidence.push(match blocked.queued() {
        0 => "No task waits in the run queues behind it now.".to_owned(),
        1 => "1 task waits in the run queues behind it.".to_owned(),
        queued => format!("{queued} tasks wait in the run queues behind it."),
    });
    let place = user
        .and_then(|frame| frame.location.as_ref())
        .or(blocked.spawned_at.as_deref())
        .map(ToString::to_string);
    let at = user.map(|frame| format!(" in {}", frame.function)).unwrap_or_default();
    Finding {
        id: format!("blocked_worker:{}:{}", blocked.runtime, blocked.id),
        kind: FindingKind::BlockedWorker,
        severity: if blocked.blocked_ns >= CRITICAL_NS {
            Severity::Critical
        } else {
            Severity::Warning
        },
        // That it does not come back is measured, not concluded.
        confidence: Confidence::Proven,
        title: format!("Worker {} blocked for {lasted} in one poll{at}", blocked.worker),
        evidence,
        place,
        method: blocked.method.as_deref().map(str::to_owned),
        since_ns: blocked.blocked_ns,
        count: 1,
        tasks: blocked.task.into_iter().collect(),
        streams: blocked.stream.into_iter().collect(),
        connections: Vec::new(),
        worker: Some(blocked.worker),
    }
}

/// The process as a whole did not run.
pub fn paused(snapshot: &Snapshot, seen: &mut Seen) {
    seen.checked(FindingKind::ProcessPaused, snapshot.pauses.len(), None);
    let recent = |pause: &&Pause| pause.ended_ago_ns <= RECENT_NS && pause.paused_ns >= PAUSE_NS;
    let pauses: Vec<_> = snapshot.pauses.iter().filter(recent).collect();
    let Some(longest) = pauses.iter().max_by_key(|pause| pause.paused_ns) else { return };
    let (lasted, ago) = (human_duration(longest.paused_ns), human_duration(longest.ended_ago_ns));
    seen.findings.push(Finding {
        id: "process_paused".to_owned(),
        kind: FindingKind::ProcessPaused,
        severity: Severity::Info,
        confidence: Confidence::Likely,
        title: format!("The process stood still for {lasted}, until {ago} ago"),
        evidence: vec![
            format!("No thread of the profiler ran for {lasted}; that ended {ago} ago."),
            "SIGSTOP, a debugger, a frozen container or a suspended machine do this; code of the program does not."
                .to_owned(),
            "Times of polls do not count it; timers and deadlines may have expired meanwhile.".to_owned(),
        ],
        place: None,
        method: None,
        since_ns: longest.ended_ago_ns.saturating_add(longest.paused_ns),
        count: pauses.len() as u64,
        tasks: Vec::new(),
        streams: Vec::new(),
        connections: Vec::new(),
        worker: None,
    });
}

#[cfg(test)]
mod tests {
    use crate::analyze::analyze;
    use crate::model::{FindingKind, Pause, Severity, sample};

    #[test]
    fn a_blocked_worker_is_named_with_its_line() {
        let report = analyze(&sample::busy_server());
        let finding = &report.findings[0];
        assert_eq!(
            (finding.kind, finding.severity),
            (FindingKind::BlockedWorker, Severity::Critical)
        );
        assert_eq!(finding.place.as_deref(), Some("src/billing.rs:88"));
        assert_eq!(finding.worker, Some(1));
        let told = finding.evidence.join(" ");
        for fact in [
            "3.2s",
            "clock_nanosleep",
            "charge_card",
            "task 40",
            "61 tasks wait",
            "/billing.v1.Billing/Charge",
        ] {
            assert!(told.contains(fact), "{fact} is missing in {told}");
        }
    }

    #[test]
    fn a_poll_that_ended_is_history() {
        let mut snapshot = sample::busy_server();
        snapshot.blocked[0].ongoing = false;
        assert!(
            analyze(&snapshot)
                .findings
                .iter()
                .all(|finding| finding.kind != FindingKind::BlockedWorker)
        );
    }

    #[test]
    fn pauses() {
        for (paused_s, ended_ago_s, expected) in [(10, 5, true), (0, 5, false), (10, 61, false)] {
            let mut snapshot = sample::empty();
            snapshot.pauses.push(Pause {
                paused_ns: paused_s * sample::SECOND,
                ended_ago_ns: ended_ago_s * sample::SECOND,
            });
            let found = analyze(&snapshot).findings;
            assert_eq!(
                found.iter().any(|finding| finding.kind == FindingKind::ProcessPaused),
                expected
            );
        }
    }
}
