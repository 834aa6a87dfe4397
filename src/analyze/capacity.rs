//! What taskprof itself could not hold.

use super::words;
use crate::model::{Confidence, Finding, FindingKind, Reason, Severity, Snapshot};

/// Tables that were full. It is history once the answers lack nothing for it.
pub fn full(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let counters = &snapshot.counters;
    for (what, option, dropped, reason) in [
        ("task", "max_tasks", counters.tasks_dropped, Reason::RegistryFull),
        ("stream", "max_streams", counters.streams_dropped, Reason::StreamsFull),
    ] {
        if dropped == 0 {
            continue;
        }
        let mut missing = snapshot.coverage.missing.iter();
        let lacks = missing.any(|missing| missing.reason == reason && missing.count > 0);
        findings.push(Finding {
            id: format!("registry_full:{what}"),
            kind: FindingKind::RegistryFull,
            severity: if lacks { Severity::Warning } else { Severity::Info },
            confidence: Confidence::Proven,
            title: format!(
                "The {what} table was full: {} since the start not seen",
                words::count(dropped, what)
            ),
            evidence: vec![format!(
                "They run as ever, but no answer lists them. Raise {option}, or find out why so \
                 many live at once."
            )],
            place: None,
            method: None,
            since_ns: 0,
            count: dropped,
            tasks: Vec::new(),
            streams: Vec::new(),
            connections: Vec::new(),
            worker: None,
            edges: Vec::new(),
        });
    }
}
