//! Tasks that outlive their stream, and tasks that never rest.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::{NAMED, SECOND, Seen, counted, tasks_unavailable};
use crate::model::{
    Confidence, Finding, FindingKind, Severity, Snapshot, Stream, StreamId, Task, human_duration,
};

/// A stream's tasks need a moment to end behind it.
const LEFT_NS: u64 = SECOND;
/// A young task may be in its one burst of work.
const BUSY_AGE_NS: u64 = 10 * SECOND;

type Group<'a> = Vec<(u64, &'a Task)>;
type Key<'a> = (Option<&'a crate::model::Location>, Option<&'a str>);

fn grouped<'a>(rows: impl Iterator<Item = (u64, &'a Task)>) -> BTreeMap<Key<'a>, Group<'a>> {
    let mut groups: BTreeMap<_, Group<'_>> = BTreeMap::new();
    for (ns, task) in rows {
        groups
            .entry((task.spawned_at.as_deref(), task.method.as_deref()))
            .or_default()
            .push((ns, task));
    }
    for tasks in groups.values_mut() {
        tasks.sort_by_key(|&(ns, task)| (Reverse(ns), task.id));
    }
    groups
}

/// Tasks that still live though the stream that caused them has ended.
pub fn leaked(snapshot: &Snapshot, seen: &mut Seen) {
    let of_streams = snapshot.tasks.iter().filter(|task| task.stream.is_some()).count();
    seen.checked(FindingKind::LeakedTask, of_streams, tasks_unavailable(snapshot));
    let live: std::collections::HashSet<StreamId> =
        snapshot.streams.iter().map(|stream| stream.id).collect();
    let ended: HashMap<StreamId, &Stream> =
        snapshot.ended_streams.iter().map(|stream| (stream.id, stream)).collect();
    // Streams that fell out of the ring ended before the oldest that it holds.
    // Where a bound has kept streams out, an unknown one may well be alive.
    let oldest = snapshot.ended_streams.iter().filter_map(|stream| stream.ended_ago_ns).max();
    let forgotten = oldest.filter(|_| snapshot.counters.streams_dropped == 0);
    let since = |task: &Task| -> Option<u64> {
        let id = task.stream?;
        if live.contains(&id) {
            return None;
        }
        let ended_ago = match ended.get(&id) {
            Some(stream) => stream.ended_ago_ns?,
            None => forgotten?.min(task.age_ns),
        };
        (ended_ago > LEFT_NS).then_some(ended_ago)
    };
    let rows = snapshot.tasks.iter().filter_map(|task| Some((since(task)?, task)));
    for ((place, method), tasks) in grouped(rows) {
        let longest = human_duration(tasks[0].0);
        let many = counted(tasks.len(), "task");
        let of = method.map(|method| format!(" of {method}")).unwrap_or_default();
        let mut evidence = vec![format!(
            "{many}{of} still live up to {longest} after the stream that caused them has ended."
        )];
        if let Some(place) = place {
            evidence.push(format!("They were spawned at {place}."));
        }
        evidence.push(
            "Work that is meant to outlive its stream looks the same: then spawn it outside of the stream's scope."
                .to_owned(),
        );
        seen.findings.push(finding(
            FindingKind::LeakedTask,
            Severity::Warning,
            Confidence::Likely,
            place,
            method,
            &tasks,
            evidence,
            format!("{many}{of} left behind by ended streams, for up to {longest}"),
        ));
    }
}

/// Tasks that spend nearly all their life inside polls.
pub fn busy(snapshot: &Snapshot, seen: &mut Seen) {
    seen.checked(FindingKind::BusyTask, snapshot.tasks.len(), tasks_unavailable(snapshot));
    // One poll that does not return is a blocked worker, and said there.
    let blocks = |task: &Task| {
        snapshot.blocked.iter().any(|blocked| blocked.ongoing && blocked.task == Some(task.id))
    };
    let share = |task: &Task| u128::from(task.busy_ns) * 10 > u128::from(task.age_ns) * 9;
    let rows = snapshot
        .tasks
        .iter()
        .filter(|task| task.age_ns > BUSY_AGE_NS && share(task) && !blocks(task))
        .map(|task| (task.age_ns, task));
    for ((place, method), tasks) in grouped(rows) {
        let many = counted(tasks.len(), "task");
        let (age, task) = (human_duration(tasks[0].0), tasks[0].1);
        let percent = u128::from(task.busy_ns) * 100 / u128::from(task.age_ns.max(1));
        let mut evidence = vec![
            format!(
                "Task {} has spent {percent} % of its {age} inside {} polls, the longest of {}.",
                task.id, task.polls, human_duration(task.longest_poll_ns)
            ),
            "It takes a worker nearly whole. That is right for computing, and wrong for a loop that yields without waiting."
                .to_owned(),
        ];
        if let Some(place) = place {
            evidence.push(format!("It was spawned at {place}; a CPU profile shows what it does."));
        }
        seen.findings.push(finding(
            FindingKind::BusyTask,
            Severity::Warning,
            Confidence::Likely,
            place,
            method,
            &tasks,
            evidence,
            format!("{many} nearly always inside polls, for up to {age}"),
        ));
    }
}

#[expect(clippy::too_many_arguments, reason = "the fields of a finding")]
fn finding(
    kind: FindingKind,
    severity: Severity,
    confidence: Confidence,
    place: Option<&crate::model::Location>,
    method: Option<&str>,
    tasks: &[(u64, &Task)],
    evidence: Vec<String>,
    title: String,
) -> Finding {
    let place = place.map(ToString::to_string);
    let mut streams: Vec<_> = tasks.iter().filter_map(|(_, task)| task.stream).collect();
    streams.sort_unstable();
    streams.dedup();
    streams.truncate(NAMED);
    Finding {
        id: format!(
            "{}:{}:{}",
            kind.as_str(),
            place.as_deref().unwrap_or("?"),
            method.unwrap_or("")
        ),
        kind,
        severity,
        confidence,
        title,
        evidence,
        place,
        method: method.map(str::to_owned),
        since_ns: tasks.first().map_or(0, |(ns, _)| *ns),
        count: tasks.len() as u64,
        tasks: tasks.iter().take(NAMED).map(|(_, task)| task.id).collect(),
        streams,
        connections: Vec::new(),
        worker: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::analyze::analyze;
    use crate::model::sample::{self, SECOND};
    use crate::model::{FindingKind, Missing, Reason, StreamId};

    #[test]
    fn tasks_behind_an_ended_stream() {
        for (name, ended_ago, live, expected) in [
            ("left behind", Some(5 * SECOND), false, true),
            ("about to end", Some(SECOND / 2), false, false),
            ("the stream lives", None, true, false),
            ("the stream is unknown and nothing is known of its end", None, false, false),
        ] {
            let mut snapshot = sample::empty();
            let mut task = sample::task(7, &Arc::new(sample::place("src/feed.rs", 9)));
            task.stream = Some(StreamId(3));
            snapshot.tasks.push(task);
            let mut stream = sample::stream(3, &"/a.B/C".into());
            stream.ended_ago_ns = ended_ago;
            if live {
                snapshot.streams.push(stream);
            } else if ended_ago.is_some() {
                snapshot.ended_streams.push(stream);
            }
            let found = analyze(&snapshot).findings;
            assert_eq!(
                found.iter().any(|finding| finding.kind == FindingKind::LeakedTask),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn tasks_that_never_rest() {
        for (name, age, busy, expected) in [
            ("spins", 60, 59, true),
            ("works half the time", 60, 30, false),
            ("young", 9, 9, false),
        ] {
            let mut snapshot = sample::empty();
            let mut task = sample::task(7, &Arc::new(sample::place("src/feed.rs", 9)));
            (task.age_ns, task.busy_ns) = (age * SECOND, busy * SECOND);
            snapshot.tasks.push(task);
            let found = analyze(&snapshot).findings;
            assert_eq!(
                found.iter().any(|finding| finding.kind == FindingKind::BusyTask),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn what_cannot_be_seen_is_said() {
        let mut snapshot = sample::empty();
        let detail = "no hooks".to_owned();
        snapshot.coverage.missing.push(Missing {
            reason: Reason::NoTokioUnstable,
            count: 5,
            detail,
        });
        let report = analyze(&snapshot);
        for kind in [FindingKind::LeakedTask, FindingKind::BusyTask, FindingKind::BlockedWorker] {
            let check = report.checked.iter().find(|check| check.kind == kind).unwrap();
            assert!(check.unavailable.as_deref().unwrap().contains("tokio_unstable"), "{kind:?}");
        }
    }
}
