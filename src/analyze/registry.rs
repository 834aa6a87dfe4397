//! What the profiler itself could not hold.

use super::Seen;
use crate::model::{Confidence, Finding, FindingKind, Reason, Severity, Snapshot};

/// Tasks or streams that are alive and not seen, because a bound kept them out.
pub fn full(snapshot: &Snapshot, seen: &mut Seen) {
    seen.checked(FindingKind::RegistryFull, snapshot.coverage.missing.len(), None);
    let left_out = |missing: &&crate::model::Missing| {
        matches!(missing.reason, Reason::RegistryFull | Reason::StreamsFull) && missing.count > 0
    };
    let missing: Vec<_> = snapshot.coverage.missing.iter().filter(left_out).collect();
    if missing.is_empty() {
        return;
    }
    let count: u64 = missing.iter().map(|missing| missing.count).sum();
    let mut evidence: Vec<_> = missing.iter().map(|missing| missing.detail.clone()).collect();
    evidence.push("Other findings cover only what is listed. Raise the bound, or find out what spawns so many.".to_owned());
    seen.findings.push(Finding {
        id: "registry_full".to_owned(),
        kind: FindingKind::RegistryFull,
        severity: Severity::Warning,
        confidence: Confidence::Proven,
        title: format!("{count} tasks or streams are not seen: the profiler's bounds are reached"),
        evidence,
        place: None,
        method: None,
        since_ns: 0,
        count,
        tasks: Vec::new(),
        streams: Vec::new(),
        connections: Vec::new(),
        worker: None,
    });
}

#[cfg(test)]
mod tests {
    use crate::analyze::analyze;
    use crate::model::{FindingKind, Missing, Reason, sample};

    #[test]
    fn only_what_a_bound_kept_out_counts() {
        for (reason, expected) in [
            (Reason::RegistryFull, true),
            (Reason::StreamsFull, true),
            (Reason::NoHook, false),
            (Reason::NoAwaitChain, false),
        ] {
            let mut snapshot = sample::empty();
            snapshot.coverage.missing.push(Missing {
                reason,
                count: 9,
                detail: "9 are missing.".to_owned(),
            });
            let found = analyze(&snapshot)
                .findings
                .iter()
                .any(|finding| finding.kind == FindingKind::RegistryFull);
            assert_eq!(found, expected, "{reason:?}");
        }
    }
}
