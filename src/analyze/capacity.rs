//! What taskprof itself could not hold.

use super::words;
use crate::model::{Confidence, Finding, FindingKind, Severity, Snapshot};

/// Tables that were full.
pub fn full(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let counters = &snapshot.counters;
    for (what, option, dropped) in [
        ("task", "max_tasks", counters.tasks_dropped),
        ("stream", "max_streams", counters.streams_dropped),
    ] {
        if dropped == 0 {
            continue;
        }
        findings.push(Finding {
            id: format!("registry_full:{what}"),
            kind: FindingKind::RegistryFull,
            severity: Severity::Warning,
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
