//! Tasks that live on though the stream that caused them has ended.

use std::collections::{BTreeMap, HashMap};

use super::{LISTED, waits, words};
use crate::model::{
    Confidence, Finding, FindingKind, Severity, Snapshot, Stream, StreamId, Task, human_duration,
};

/// Tidying up after a stream is no leak.
const GRACE_NS: u64 = 2_000_000_000;
/// By then it hardly is tidying up.
const LONG_NS: u64 = 10_000_000_000;

/// One finding for each method and place that spawned.
pub fn tasks(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let ended: HashMap<StreamId, &Stream> = snapshot
        .ended_streams
        .iter()
        .filter(|stream| stream.live_tasks > 0)
        .filter(|stream| stream.ended_ago_ns.is_some_and(|ago| ago >= GRACE_NS))
        .map(|stream| (stream.id, stream))
        .collect();
    if ended.is_empty() {
        return;
    }
    // (method, place) -> (task, its stream)
    let mut groups: BTreeMap<(&str, String), Vec<(&Task, &Stream)>> = BTreeMap::new();
    for task in &snapshot.tasks {
        if let Some(stream) = task.stream.and_then(|id| ended.get(&id)) {
            let place = task.spawned_at.as_ref().map(ToString::to_string).unwrap_or_default();
            groups.entry((&stream.method, place)).or_default().push((task, stream));
        }
    }
    for ((method, place), mut tasks) in groups {
        tasks.sort_by_key(|(_, stream)| std::cmp::Reverse(stream.ended_ago_ns));
        let (task, stream) = tasks[0];
        let since_ns = stream.ended_ago_ns.unwrap_or(0);
        let count = tasks.len() as u64;
        let mut streams: Vec<_> = tasks.iter().map(|(_, stream)| stream.id).collect();
        streams.dedup();
        streams.truncate(LISTED);
        let mut evidence = vec![format!(
            "Stream {} ended {} ago{}; task {}, which it caused, is still {}.",
            stream.id,
            human_duration(since_ns),
            stream
                .status
                .as_ref()
                .map(|status| format!(" with {}", status.name))
                .unwrap_or_default(),
            task.id,
            task.state.as_str(),
        )];
        evidence.extend(waits::doing(snapshot, task.id).map(|doing| words::sentence(&doing)));
        evidence.push(
            "If it is meant to go on, spawn it outside the stream's scope; else let it watch the \
             stream's cancellation."
                .to_owned(),
        );
        findings.push(Finding {
            id: format!("leaked_task:{method}:{place}"),
            kind: FindingKind::LeakedTask,
            severity: if since_ns >= LONG_NS { Severity::Warning } else { Severity::Info },
            confidence: Confidence::Proven,
            title: format!(
                "{} of {} outlived {}, {}: spawned at {place}",
                words::count(count, "task"),
                words::method(method),
                if count == 1 { "its stream" } else { "their streams" },
                words::since(since_ns)
            ),
            evidence,
            place: (!place.is_empty()).then(|| place.clone()),
            method: Some(method.to_owned()),
            since_ns,
            count,
            tasks: tasks.iter().map(|(task, _)| task.id).take(LISTED).collect(),
            streams,
            connections: Vec::new(),
            worker: None,
            edges: Vec::new(),
        });
    }
}
